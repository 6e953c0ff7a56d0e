//! Leases: nodes that go silent, nodes that come back, and what either means for their grants.
//!
//! A lost connection does not end a lease. Within it the node may come back under the same incarnation, shown by its
//! secret: it sends again the commits that were not decided, then names the grants and the copies that it still has, one by
//! one. What it does not name, it has given back in words that were lost. When the lease lapses first, the incarnation is
//! logged as dead before anybody else gets its locks, and nothing is accepted from it any more (S2, S14).

use super::entry::SecretHash;
use super::lock::{Party, Reasserted};
use super::nodes::NodeSlot;
use super::{Effect, Engine, SessionId};
use bytes::Bytes;
use kiln_protocol::limits::GROUPS_MAX;
use kiln_protocol::message::{Fate, Mode, Past, Resume, Role};
use kiln_protocol::{CommitSeq, Failure, GroupId, Incarnation, ObjectId, RequestId, ToNode, Token, Version};
use std::collections::BTreeMap;

/// Connections that a node may lose one after the other before it has named what it holds.
const PREVIOUS_MAX: usize = 8;
/// Refusals that are kept for a node that may not have heard of them.
const REFUSED_KEPT_MAX: usize = 1024;

impl Engine {
    /// A connection is lost.
    pub(super) fn detached(&mut self, slot: NodeSlot) {
        match self.nodes.get(slot).map(|node| node.role) {
            Some(Role::Node) if !self.stopping => self.disconnect(slot),
            Some(_) => self.leave(slot),
            None => {}
        }
    }

    /// The node keeps its grants until its lease lapses. What it asked for, it asks again when it is back.
    fn disconnect(&mut self, slot: NodeSlot) {
        self.nodes.disconnect(slot, self.now);
        self.leave_waiting(slot);
        let Some(node) = self.nodes.get_mut(slot) else { return };
        node.ack_due = false;
        let (incarnation, watches) = (node.incarnation, std::mem::take(&mut node.watches));
        let operations = std::mem::take(&mut node.operations);
        let listeners = std::mem::take(&mut node.listeners);
        for (watch, target) in &watches {
            self.watches.remove(slot, *watch, target, &mut self.state);
        }
        self.leave_listening(slot, listeners);
        for operation in operations {
            self.cancel(operation);
        }
        self.drop_waits(incarnation);
        self.drop_stalled(incarnation);
        self.owners_leave(slot);
        if let Some(node) = self.nodes.get_mut(slot) {
            node.requests = 0;
        }
    }

    /// A node that lost its connection is back, perhaps before the coordinator has noticed. The answer is sent here
    /// when it goes on as what it was.
    pub(super) fn resume(&mut self, session: SessionId, resume: &Resume) -> Result<Past, Failure> {
        if resume.epoch < self.state.history {
            return Ok(Past::Reset);
        }
        let Some(slot) = self.nodes.find(resume.incarnation) else {
            return Ok(Past::Lapsed);
        };
        let Some(node) = self.nodes.get(slot) else { return Ok(Past::Lapsed) };
        let life = self.state.living.get(&resume.incarnation);
        let Some(life) = life.filter(|life| life.secret == SecretHash::of(resume.secret) && life.role == Role::Node)
        else {
            return Err(Failure::BadSecret { incarnation: resume.incarnation });
        };
        // The node has given that connection up: it goes on as if it were another's.
        if resume.attempt <= node.attempt {
            return Err(Failure::Superseded { incarnation: resume.incarnation });
        }
        let applied = self.applied(slot);
        let unheard = node.refused.front().filter(|_| node.refused.len() == REFUSED_KEPT_MAX);
        // What was acknowledged in an earlier epoch may have been lost with it: the node sends it again.
        let is_possible = resume.acked <= applied || resume.epoch < self.settings.epoch;
        let is_kept = node.refused.front().is_some_and(|(oldest, _)| *oldest <= life.forgotten);
        let is_told = unheard.is_none_or(|(oldest, _)| resume.acked >= *oldest)
            && (is_kept || resume.acked >= life.forgotten)
            && is_possible;
        let forgotten = life.refused.iter().filter(|seq| **seq > resume.acked).map(|seq| (*seq, Failure::Forgotten));
        let forgotten: BTreeMap<_, _> = forgotten.collect();
        let is_restless = node.previous.len() >= PREVIOUS_MAX;
        if resume.lapsed {
            // It wants no more of it.
            self.leave(slot);
            return Ok(Past::Lapsed);
        }
        if let Some(old) = self.nodes.session(slot) {
            self.disconnect(slot);
            self.out.push(Effect::Close { session: old, failure: None });
        }
        if !is_told || is_restless {
            // What became of some of its commits cannot be told any more, or it comes back again and again without a word of
            // what it holds, and each time takes a slot. It trusts its grants until it hears that: they end with its lease.
            return Ok(Past::Lapsed);
        }
        let Some(slot) = self.nodes.reconnect(slot, session) else {
            return Ok(Past::Lapsed);
        };
        let past = Past::Resumed { applied };
        self.welcome(slot, resume.secret, past);
        let Some(node) = self.nodes.get_mut(slot) else { return Ok(Past::Lapsed) };
        (node.interest, node.grants, node.heard, node.attempt) = (0, 0, self.now, resume.attempt);
        let mut refused = forgotten;
        refused.extend(node.refused.iter().filter(|(seq, _)| *seq > resume.acked).cloned());
        // It trusts none of its copies until they are revalidated, so it shows nothing that anybody waits to be gone.
        let waits = std::mem::take(&mut node.barriers).into_iter().flat_map(|(_, waits)| waits);
        let waits: Vec<_> = waits.chain(std::mem::take(&mut node.barrier_due)).collect();
        for wait in waits {
            self.passed(wait);
        }
        for (seq, failure) in refused {
            self.send(slot, ToNode::CommitRefused { seq, failure });
        }
        if applied > resume.acked {
            self.send(slot, ToNode::Ack { applied });
        }
        self.note_unsynced(slot);
        Ok(past)
    }

    /// Keeps a refusal for a node that may not hear of it.
    pub(super) fn keep_refusal(&mut self, slot: NodeSlot, seq: CommitSeq, failure: &Failure) {
        if let Some(node) = self.nodes.get_mut(slot) {
            if node.refused.len() == REFUSED_KEPT_MAX {
                node.refused.pop_front();
            }
            node.refused.push_back((seq, failure.clone()));
        }
    }

    /// A node lives.
    pub(super) fn heartbeat(&mut self, slot: NodeSlot, number: u64) {
        if self.is_late(slot) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(slot) {
            node.heard = self.now;
            self.send(slot, ToNode::Heartbeat { number });
        }
    }

    /// [`super::Event::Tick`]: nodes whose lease has lapsed are dead.
    pub(super) fn lapse(&mut self) {
        let lease = self.settings.lease;
        let now = self.now;
        let silent = self.nodes.iter().filter(|(_, node)| node.role == Role::Node && now - node.heard > lease);
        let silent: Vec<_> = silent.map(|(slot, node)| (slot, node.incarnation)).collect();
        for (slot, incarnation) in silent {
            let session = self.nodes.session(slot);
            self.leave(slot);
            if let Some(session) = session {
                self.out.push(Effect::Close { session, failure: Some(Failure::Lapsed { incarnation }) });
            }
        }
    }

    /// A node that is back still has a grant.
    pub(super) fn reassert(&mut self, node: NodeSlot, object: ObjectId, group: GroupId, token: Token, mode: Mode) {
        let previous = self.nodes.get(node).map(|node| node.previous.clone()).unwrap_or_default();
        let is_there = |slot: &u32| {
            let object = self.state.objects.at(*slot);
            let is_group = || self.state.type_of(object).group_name(group).is_some();
            object.locks.groups().contains(&group) || (self.may_name(node) && is_group())
        };
        let Some(slot) = self.state.objects.find(object).filter(is_there) else {
            return self.send(node, ToNode::GrantLost { object, group, token });
        };
        let lock = self.state.objects.at_mut(slot).locks.lock(group);
        let was = |party| matches!(party, Party::Node(of) if previous.contains(&of));
        match lock.reassert(was, node, token, mode) {
            Reasserted::Again => {}
            Reasserted::Lost if self.adopt(node, slot, group, token, mode) => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.grants += 1;
                }
                self.note_ephemeral(node, slot);
            }
            Reasserted::Lost => self.send(node, ToNode::GrantLost { object, group, token }),
            Reasserted::Kept => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.grants += 1;
                }
                self.note_ephemeral(node, slot);
            }
        }
        self.settle(slot, group);
    }

    /// A node that is back has a copy at these versions.
    pub(super) fn revalidate(
        &mut self,
        node: NodeSlot,
        object: ObjectId,
        key: &Bytes,
        versions: &[(GroupId, Version)],
    ) {
        if versions.len() > GROUPS_MAX + 1 {
            if let Some(session) = self.nodes.session(node) {
                self.violation(session, "a copy with more versions than a type has groups");
            }
            return;
        }
        let Some(slot) = self.state.objects.find(object) else {
            self.wait_for_keys();
            return self.answer(node, ToNode::Destroyed { object });
        };
        self.hold_copy(node, slot);
        let of = self.state.objects.at(slot);
        let told = |group: GroupId| versions.iter().find(|(of, _)| *of == group).map(|(_, version)| *version);
        let mut current = of.versions().iter().all(|(group, version)| told(*group).unwrap_or_default() == *version);
        current &= versions.iter().all(|(group, version)| of.version(*group) == *version);
        let renamed = (of.key() != key).then(|| Bytes::copy_from_slice(of.key()));
        if let Some(key) = renamed {
            self.wait_for_object(object);
            self.answer(node, ToNode::Renamed { object, key });
        }
        if !current && !self.is_ahead(node, slot, versions) {
            self.answer(node, ToNode::Outdated { object });
        }
    }

    /// Whether a copy lacks nothing, and all that it has and the coordinator has not may be about to be sent again.
    fn is_ahead(&mut self, node: NodeSlot, slot: u32, versions: &[(GroupId, Version)]) -> bool {
        let object = self.state.objects.at(slot);
        let (id, known) = (object.id, object.versions());
        let held =
            |group| versions.iter().find(|(of, _)| *of == group).map(|(_, version)| *version).unwrap_or_default();
        let behind = known.iter().any(|(group, version)| held(*group).number() < version.number());
        if behind || self.window.is_none() {
            return false;
        }
        let current =
            |group| known.iter().find(|(of, _)| *of == group).map(|(_, version)| *version).unwrap_or_default();
        let ahead: Vec<_> = versions.iter().filter(|(group, version)| current(*group) != *version).collect();
        ahead.into_iter().all(|(group, version)| self.may_come(node, id, *group, *version))
    }

    /// A node that is back has named all that it holds.
    pub(super) fn resynced(&mut self, node: NodeSlot) {
        for previous in self.nodes.resynced(node) {
            self.leave_queues(previous);
            let ephemeral = self.nodes.get(node).map(|node| node.ephemeral.clone()).unwrap_or_default();
            for object in ephemeral {
                self.leave_object(previous, object);
            }
        }
        let held = &self.ephemeral;
        if let Some(of) = self.nodes.get_mut(node) {
            of.ephemeral.retain(|object| held.contains(&(*object, node)));
        }
        self.answer(node, ToNode::Resynced);
        if let Some(incarnation) = self.nodes.get(node).map(|node| node.incarnation) {
            self.resolve(incarnation);
        }
    }

    /// Somebody asks what became of a commit.
    pub(super) fn tell_fate(&mut self, node: NodeSlot, request: RequestId, incarnation: Incarnation, seq: CommitSeq) {
        let fate = match self.state.fate(incarnation, seq) {
            None => Fate::Unknown,
            Some(true) => Fate::Applied,
            Some(false) => Fate::NotApplied,
        };
        self.answer(node, ToNode::Fate { request, fate });
    }
}
