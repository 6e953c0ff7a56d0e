//! What happens to the cluster as a whole, as far as this node hears of it.

use super::runtime::Runtime;
use kiln_engine::Returned;
use kiln_protocol::Incarnation;
use tokio::sync::broadcast;

/// Something happened to the cluster, or to this node's place in it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// Another node joined. Those that were there before are told as well, after attaching.
    Joined {
        /// Its incarnation.
        incarnation: Incarnation,
        /// Its name.
        name: String,
    },
    /// Another node left, or its lease lapsed.
    Left {
        /// Its incarnation.
        incarnation: Incarnation,
        /// Its name.
        name: String,
    },
    /// The connection is lost. Locks that are held stay held until the lease lapses.
    OperationsDisabled,
    /// This node is connected, and what it shows is kept up to date again.
    OperationsEnabled,
    /// The lease lapsed: every lock of this node was lost, and it is another incarnation now. See
    /// [`Runtime::take_unknown`].
    Rejoined {
        /// Its new incarnation.
        incarnation: Incarnation,
    },
    /// What was done here while the cluster was away ([`Away::LocalReadWrite`](crate::Away)) was done again, or reported:
    /// see [`Runtime::take_conflicts`].
    Returned(Returned),
    /// The coordinator came back without its state. This runtime has ended: attach another one.
    Reset,
    /// Events before this one were missed, because nobody took them.
    Gap,
}

/// A stream of [`ClusterEvent`]s, from [`Runtime::events`].
#[derive(Debug)]
pub struct ClusterEvents {
    receiver: broadcast::Receiver<ClusterEvent>,
}

impl Runtime {
    /// Cluster events from now on.
    #[must_use]
    pub fn events(&self) -> ClusterEvents {
        ClusterEvents { receiver: self.attached.events.subscribe() }
    }
}

impl ClusterEvents {
    /// The next event; `None` when the runtime is gone. May be dropped at any time.
    pub async fn next(&mut self) -> Option<ClusterEvent> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(ClusterEvent::Gap),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
