//! One connection after the other: what is lost is sought again, within the lease or after it.

use super::Line;
use super::connect::{self, Welcomed};
use super::stream::{self, Lost};
use crate::api::AttachError;
use crate::api::internals::{ClusterEvent, Options};
use kiln_engine::{Adoption, Ended, Node, Retry, Welcome};
use kiln_protocol::profile::Profile;
use kiln_protocol::{CloseCode, Failure};
use quinn::VarInt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;

const RECONNECTING: VarInt = VarInt::from_u32(CloseCode::Reconnecting.to_bits());

/// What it takes to stay connected.
pub(super) struct Keeper {
    pub(super) node: Arc<Node>,
    pub(super) profile: Profile,
    pub(super) options: Options,
    /// That of the present connection, for whoever detaches.
    pub(super) line: Arc<Mutex<Line>>,
    pub(super) events: broadcast::Sender<ClusterEvent>,
    pub(super) lapsed: Arc<Notify>,
    /// Told whenever the node is connected again.
    pub(super) connected: Arc<Notify>,
}

/// Whether a node that is refused may try again.
const fn is_for_now(failure: &Failure) -> bool {
    matches!(failure, Failure::Stopping | Failure::LogFull | Failure::Limit { .. })
}

impl Keeper {
    /// Runs until the node ends.
    pub(super) async fn keep(self, mut welcomed: Welcomed) {
        loop {
            let lost = self.serve(welcomed).await;
            if let Some(ended) = self.node.ended() {
                tracing::info!(?ended, "detached");
                return;
            }
            tracing::warn!(reason = lost.why, "the connection to the coordinator is lost");
            if lost.for_good {
                return self.node.end(Ended::Lost(lost.why));
            }
            self.tell(ClusterEvent::OperationsDisabled);
            welcomed = match self.reconnect().await {
                Ok(next) => next,
                Err(ended) => return self.node.end(ended),
            };
        }
    }

    /// Sees one connection to its end. Nothing is sent on it afterwards.
    async fn serve(&self, welcomed: Welcomed) -> Lost {
        let Welcomed { line, send, mut receive, .. } = welcomed;
        line.clone_into(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner));
        let mut writer = JoinSet::new();
        writer.spawn(stream::write(Arc::clone(&self.node), send));
        let mut was_synced = true;
        let heard = || self.heard(&mut was_synced);
        let lost = tokio::select! {
            lost = stream::read(&self.node, &mut receive, &line.connection, heard) => lost,
            () = self.lapse() => Lost { why: "the lease has lapsed".to_owned(), for_good: false },
        };
        if self.node.ended().is_none() {
            self.node.disconnected();
        }
        // Until it has gone, it might take what is meant for the next connection.
        writer.shutdown().await;
        if self.node.ended().is_none() {
            line.close(RECONNECTING, b"the node connects again");
        }
        lost
    }

    async fn lapse(&self) {
        loop {
            self.lapsed.notified().await;
            if self.node.link.has_lapsed() {
                return;
            }
        }
    }

    /// After each batch of messages.
    fn heard(&self, was_synced: &mut bool) {
        for member in self.node.link.take_members() {
            let (incarnation, name) = (member.incarnation, member.name);
            self.tell(if member.joined {
                ClusterEvent::Joined { incarnation, name }
            } else {
                ClusterEvent::Left { incarnation, name }
            });
        }
        let is_synced = self.node.link.is_synced();
        if is_synced && !std::mem::replace(was_synced, is_synced) {
            self.tell(ClusterEvent::OperationsEnabled);
            self.connected.notify_one();
        }
        *was_synced = is_synced;
    }

    fn tell(&self, event: ClusterEvent) {
        // Fails when nobody listens.
        drop(self.events.send(event));
    }

    /// Another connection, and the node in step with it; or why there will be none.
    async fn reconnect(&self) -> Result<Welcomed, Ended> {
        let node = &self.node;
        let mut retry = Retry::default();
        loop {
            if let Some(ended) = node.ended() {
                return Err(ended);
            }
            let connecting = connect::connect(&self.profile, &self.options, node.resume());
            let patience = Retry::attempt_max(node).unwrap_or(Duration::MAX);
            let Ok(connected) = tokio::time::timeout(patience, connecting).await else { continue };
            match connected {
                Ok(next) => {
                    if let Some(next) = self.adopt(next)? {
                        return Ok(next);
                    }
                }
                Err(AttachError::Refused { failure, .. }) if !is_for_now(&failure) => {
                    return Err(Ended::Lost(failure.to_string()));
                }
                Err(error @ AttachError::Refused { .. }) => tracing::warn!(%error, "not taken back yet"),
                Err(error) => tracing::debug!(%error, "no connection yet"),
            }
            tokio::time::sleep(retry.pause()).await;
        }
    }

    /// Goes on with a new connection. `None`: it is of no use, because the lease has lapsed meanwhile.
    fn adopt(&self, next: Welcomed) -> Result<Option<Welcomed>, Ended> {
        let welcome = Welcome {
            epoch: next.epoch,
            incarnation: next.incarnation,
            secret: next.secret,
            past: next.past,
            sent_nanos: next.sent_nanos,
            trusted: next.trusted,
        };
        match self.node.go_on(&welcome) {
            Adoption::Resumed => {
                tracing::info!("connected again");
                Ok(Some(next))
            }
            Adoption::Useless => {
                next.line.close(RECONNECTING, b"the lease has lapsed");
                Ok(None)
            }
            Adoption::Rejoined { unknown } => {
                if unknown > 0 {
                    tracing::warn!(unknown, "the coordinator has given this node's locks to others");
                }
                tracing::info!(incarnation = %next.incarnation, "joined again");
                self.tell(ClusterEvent::Rejoined { incarnation: next.incarnation });
                Ok(Some(next))
            }
            Adoption::Ended(ended) => {
                if ended == Ended::Reset {
                    tracing::warn!("the coordinator has lost its state: what this node had does not exist any more");
                    self.tell(ClusterEvent::Reset);
                }
                Err(ended)
            }
        }
    }
}
