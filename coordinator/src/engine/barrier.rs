//! Waiting until nodes have applied what was sent to them.
//!
//! A barrier is put into a node's stream at the end of a batch, behind all deltas of the batch, and serves every wait of
//! the batch. A node that leaves has passed all its barriers.

use super::Engine;
use super::nodes::NodeSlot;
use kiln_protocol::{BarrierId, CommitSeq, Incarnation, RequestId, ToNode};
use std::collections::BTreeMap;

kiln_protocol::id!(
    /// One wait for a number of nodes.
    pub(super) WaitId(u64)
);

/// What the waiting node is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Awaited {
    Commit(CommitSeq),
    Removal(RequestId, bool),
}

#[derive(Debug)]
struct Wait {
    node: NodeSlot,
    /// Slots are used again; incarnations are not.
    incarnation: Incarnation,
    remaining: usize,
    awaited: Awaited,
}

/// All waits.
#[derive(Debug, Default)]
pub(super) struct Waits {
    waits: BTreeMap<WaitId, Wait>,
    last_wait: WaitId,
    last_barrier: BarrierId,
}

impl Engine {
    /// Tells `node` once each of `others` (that is still attached) has applied everything sent to it so far.
    pub(super) fn wait_for(&mut self, node: NodeSlot, others: &[NodeSlot], awaited: Awaited) {
        let Some(incarnation) = self.nodes.get(node).map(|node| node.incarnation) else {
            return;
        };
        let id = self.waits.last_wait.next();
        let mut remaining = 0;
        for slot in others {
            let Some(other) = self.nodes.get_mut(*slot) else {
                continue;
            };
            if other.barrier_due.is_empty() {
                self.barriers_due.push(*slot);
            }
            other.barrier_due.push(id);
            remaining += 1;
        }
        if remaining == 0 {
            return self.reached(node, awaited);
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.requests += 1;
        }
        self.waits.last_wait = id;
        let wait = Wait { node, incarnation, remaining, awaited };
        self.waits.waits.insert(id, wait);
    }

    /// A node that is back asks again for what it may not have been told.
    pub(super) fn await_everywhere(&mut self, node: NodeSlot, seq: CommitSeq) {
        // A node asks for as many as it may ask for anything: the rest it hears of when it asks again.
        if seq > self.applied(node) || self.check_request(node).is_err() {
            return;
        }
        if self.await_later(node, seq) {
            return;
        }
        let others = self.nodes.others(node);
        self.wait_for(node, &others, Awaited::Commit(seq));
    }

    /// The waits of a node whose connection is lost: it asks again when it is back.
    pub(super) fn drop_waits(&mut self, incarnation: Incarnation) {
        self.waits.waits.retain(|_, wait| wait.incarnation != incarnation);
        self.unsynced.drop_waits(incarnation);
    }

    /// Puts a barrier into the stream of each node that somebody waits for.
    pub(super) fn send_barriers(&mut self) {
        for slot in std::mem::take(&mut self.barriers_due) {
            self.tell_all_outdated(slot);
            let Some(node) = self.nodes.get_mut(slot) else { continue };
            let waits = std::mem::take(&mut node.barrier_due);
            if waits.is_empty() {
                continue;
            }
            let barrier = self.waits.last_barrier.next();
            self.waits.last_barrier = barrier;
            node.barriers.push_back((barrier, waits));
            self.send(slot, ToNode::Barrier { barrier });
        }
    }

    /// A node has applied everything before a barrier. One that it was not sent says nothing.
    pub(super) fn barrier(&mut self, slot: NodeSlot, barrier: BarrierId) {
        while let Some(node) = self.nodes.get_mut(slot)
            && let Some((_, waits)) = node.barriers.pop_front_if(|(sent, _)| *sent <= barrier)
        {
            for wait in waits {
                self.passed(wait);
            }
        }
    }

    /// One node less to wait for.
    pub(super) fn passed(&mut self, id: WaitId) {
        let Some(wait) = self.waits.waits.get_mut(&id) else {
            return;
        };
        wait.remaining -= 1;
        if wait.remaining > 0 {
            return;
        }
        let (node, incarnation, awaited) = (wait.node, wait.incarnation, wait.awaited);
        self.waits.waits.remove(&id);
        if self.nodes.get(node).is_some_and(|node| node.incarnation == incarnation) {
            self.count_requests(node, 1);
            self.reached(node, awaited);
        }
    }

    fn reached(&mut self, node: NodeSlot, awaited: Awaited) {
        let message = match awaited {
            Awaited::Commit(seq) => ToNode::EverywhereReached { seq },
            Awaited::Removal(request, yes) => ToNode::Done { request, yes },
        };
        self.answer(node, message);
    }
}

#[cfg(test)]
impl Waits {
    /// How many waits of a node are open.
    pub(super) fn of(&self, incarnation: Incarnation) -> usize {
        self.waits.values().filter(|wait| wait.incarnation == incarnation).count()
    }
}
