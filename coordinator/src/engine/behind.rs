//! Nodes that do not read what they are sent: what they miss is remembered by object, not by change.
//!
//! A delta for such a node is one id, however many there are. It hears of them once it has read what came before, or
//! earlier where it matters: before a grant of one of them, before a record, and before a barrier. Grants and answers still go out.

use super::nodes::NodeSlot;
use super::{Effect, Engine, SessionId};
use bytes::Bytes;
use kiln_protocol::message::Change;
use kiln_protocol::{Failure, ObjectId, ToNode, WatchId};
use std::collections::BTreeSet;

/// Objects that one node misses changes of, before its connection is ended: then it compares all it has.
const OUTDATED_MAX: usize = 1 << 16;

/// What a node misses.
#[derive(Debug, Default)]
pub(super) struct Behind {
    outdated: BTreeSet<ObjectId>,
    gaps: BTreeSet<WatchId>,
}

impl Engine {
    pub(super) fn fall_behind(&mut self, session: SessionId) {
        if let Some(slot) = self.nodes.of(session)
            && let Some(node) = self.nodes.get_mut(slot)
        {
            node.behind.get_or_insert_default();
        }
    }

    pub(super) fn catch_up(&mut self, session: SessionId) {
        let Some(slot) = self.nodes.of(session) else { return };
        let Some(node) = self.nodes.get_mut(slot) else { return };
        let Some(behind) = node.behind.take() else { return };
        for object in behind.outdated {
            self.answer(slot, ToNode::Outdated { object });
        }
        for watch in behind.gaps {
            let (object, key) = (ObjectId::from_bits(0), Bytes::new());
            self.send(slot, ToNode::Event { watch, object, key, writer: None, change: Change::Gap });
        }
    }

    /// Whether the node is told of a change of the object later.
    pub(super) fn is_told_later(&mut self, slot: NodeSlot, object: ObjectId) -> bool {
        let Some(node) = self.nodes.get_mut(slot) else { return false };
        let Some(behind) = &mut node.behind else { return false };
        behind.outdated.insert(object);
        if behind.outdated.len() > OUTDATED_MAX {
            self.give_up_on(slot, "the number of objects whose changes a node has not read", OUTDATED_MAX);
        }
        true
    }

    /// Whether a watcher is told of a gap later.
    pub(super) fn is_gap_told_later(&mut self, slot: NodeSlot, watch: WatchId) -> bool {
        let behind = self.nodes.get_mut(slot).and_then(|node| node.behind.as_mut());
        behind.is_some_and(|behind| {
            behind.gaps.insert(watch);
            true
        })
    }

    /// Before a grant: the node must not use what it has.
    pub(super) fn tell_outdated(&mut self, slot: NodeSlot, object: ObjectId) {
        let behind = self.nodes.get(slot).and_then(|node| node.behind.as_ref());
        if behind.is_some_and(|behind| behind.outdated.contains(&object)) {
            self.tell_all_outdated(slot);
        }
    }

    /// Before a barrier, and before any record: the node must not show what it has, not even beside an object that was
    /// changed together with it (S11).
    pub(super) fn tell_all_outdated(&mut self, slot: NodeSlot) {
        let behind = self.nodes.get_mut(slot).and_then(|node| node.behind.as_mut());
        for object in behind.map(|behind| std::mem::take(&mut behind.outdated)).unwrap_or_default() {
            self.answer(slot, ToNode::Outdated { object });
        }
    }

    /// The connection is ended. Back on another one, the node compares what it has.
    pub(super) fn give_up_on(&mut self, slot: NodeSlot, what: &str, limit: usize) {
        let Some(session) = self.nodes.session(slot) else { return };
        self.detached(slot);
        let failure = Failure::Limit { what: what.to_owned(), actual: limit as u64 + 1, limit: limit as u64 };
        self.out.push(Effect::Close { session, failure: Some(failure) });
    }
}
