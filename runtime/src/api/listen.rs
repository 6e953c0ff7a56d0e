//! Listeners: what happens in a root, told to one node of the cluster.

use super::error::AccessError;
use super::runtime::Attached;
use super::watch::{Event, decode};
use kiln_engine::{Binding, Handed, ListenerQueue};
use kiln_object::Key;
use kiln_protocol::message::Change;
use kiln_protocol::{EventId, ListenerId, RootId};
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;

/// A listener of a group: of all listeners of the group in the cluster, one is told what happens in the root. When it ends,
/// or its node dies or loses its connection, another one is told whatever it has not acknowledged, with the same ids. With
/// a coordinator that keeps a log, no event is lost by its end either.
///
/// Dropping it ends it.
#[derive(Debug)]
pub struct Listener<K> {
    runtime: Arc<Attached>,
    id: ListenerId,
    queue: Arc<ListenerQueue>,
    binding: Arc<Binding>,
    _key: PhantomData<fn() -> K>,
}

/// What a listener was told. Not acknowledged, it is told again when the listener ends; until then it counts among the 64
/// that a listener has at once.
#[derive(Debug)]
pub struct Notice<K> {
    runtime: Arc<Attached>,
    listener: ListenerId,
    id: EventId,
    redelivered: bool,
    told: Told<K>,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Told<K> {
    /// This.
    Event(Event<K>),
    /// More than the group's queue holds: 16,384 events wait for an acknowledgement at most. So many that came then are told
    /// to nobody.
    Missed {
        /// How many.
        events: u64,
    },
}

impl<K> Drop for Listener<K> {
    fn drop(&mut self) {
        self.runtime.node.unlisten(self.id);
    }
}

impl<K: Key> Listener<K> {
    pub(super) async fn start(
        runtime: &Arc<Attached>,
        root: RootId,
        group: &str,
        binding: Arc<Binding>,
    ) -> Result<Self, AccessError> {
        let mut started = None;
        let answer = runtime.wait(runtime.options.away, |node| {
            let (id, queue, ticket) = node.listen(root, group);
            // Made before the answer: a dropped future ends the listener.
            started = Some(Self { runtime: Arc::clone(runtime), id, queue, binding, _key: PhantomData });
            ticket
        });
        answer.await?;
        started.ok_or(AccessError::Disconnected)
    }

    /// The next event, once this listener is the one that is told; `None` when the group was ended, or the node is no longer
    /// attached.
    pub async fn next(&mut self) -> Option<Notice<K>> {
        loop {
            let Handed { id, redelivered, event } = poll_fn(|context| self.queue.poll_next(context)).await?;
            let told = if let Change::Missed { events } = event.change {
                Some(Told::Missed { events })
            } else {
                decode(&self.binding, event).map(Told::Event)
            };
            let (runtime, listener) = (Arc::clone(&self.runtime), self.id);
            match told {
                Some(told) => return Some(Notice { runtime, listener, id, redelivered, told }),
                // A key that this program's key type cannot have is a defect elsewhere; it must not stop the others.
                None => runtime.node.heard(listener, id),
            }
        }
    }
}

impl<K> Notice<K> {
    /// Its place among all events of the group, from 1, without gaps.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.id
    }

    /// It may have been told before, here or on another node, with the same id; what was told before it was acknowledged, or
    /// is told again as well. Without this nobody was told.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// What happened.
    #[must_use]
    pub const fn told(&self) -> &Told<K> {
        &self.told
    }

    /// It is done, and is told to nobody any more. (If the connection is lost before the coordinator hears of this, it is.)
    pub fn acknowledge(self) -> Told<K> {
        self.runtime.node.heard(self.listener, self.id);
        self.told
    }
}
