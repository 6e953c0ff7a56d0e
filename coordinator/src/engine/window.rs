//! The reconnect window: a coordinator that was started again learns from its nodes who holds which lock.
//!
//! It knows from the log which incarnations lived, and gives each the time of a lease from its start on: none of them can
//! trust its grants for longer than that without being heard. Until each has come back and said [`Resynced`], or is dead
//! and logged as such, no lock of an object from before changes hands. A node sends again what was not safe, then names
//! its grants; the token of a grant from an earlier epoch is good for both, unless a commit with a higher one is known.
//!
//! Two nodes may have written one group one after the other, and the crash may have taken both commits. They come back in
//! any order, so one that does not follow what is there stalls the stream of its node, until the one before it has come or
//! nobody is left who could have it.
//!
//! A node may hold a version that the log has lost and its writer is about to send again. It is not told that its copy is
//! outdated, which it would see as a step back, but only when the window ends without that version (S5). Other objects from
//! before it is not shown until then: with an older state of one of them it would show half of a lost commit (S11).
//!
//! [`Resynced`]: kiln_protocol::ToCoordinator::Resynced

use super::nodes::{Node, NodeSlot};
use super::{Engine, Entry};
use hashbrown::HashMap;
use kiln_protocol::message::{Commit, Mode, Part, Role};
use kiln_protocol::{GroupId, Incarnation, ObjectId, ToCoordinator, ToNode, Token, Version};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Versions that nodes have and the log lost, beyond which copies are called outdated at once.
const AHEAD_MAX: usize = 1 << 20;

/// What a node may say while an earlier commit of its waits for another's.
const STALLED_MAX: usize = 1 << 16;

/// The highest token that is known to have written each group: of commits behind the last snapshot. That is enough: see
/// ARCHITECTURE.md. Only looked up.
pub(super) type Tokens = HashMap<(ObjectId, GroupId), Token>;

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    /// When leases of nodes that have not named what they hold are not renewed any more.
    until: Duration,
    /// The last object from before.
    last_object: u64,
    /// Who may still name something.
    waiting: BTreeSet<Incarnation>,
    tokens: Tokens,
    /// What nodes said behind a commit that came too early, that commit first.
    stalled: BTreeMap<Incarnation, VecDeque<ToCoordinator>>,
    /// A commit was applied since the stalled ones were looked at.
    has_progress: bool,
    /// Nobody is left who could have what stalled commits wait for.
    is_hopeless: bool,
    /// Versions that nodes have and the log has not.
    ahead: BTreeMap<(ObjectId, GroupId, Version), BTreeSet<Incarnation>>,
    /// How many of them each node has.
    ahead_of: BTreeMap<Incarnation, usize>,
    /// What nodes that have some asked to see.
    asked: BTreeMap<Incarnation, Vec<ToCoordinator>>,
}

impl Engine {
    /// At a start with state: who lived is given time to come back.
    pub(super) fn expect_nodes(&mut self) {
        let living = self.state.living.iter();
        let living: Vec<_> = living.map(|(incarnation, life)| (*incarnation, life.name.clone(), life.role)).collect();
        let mut waiting = BTreeSet::new();
        for (incarnation, name, role) in living {
            if role == Role::Observer {
                self.append(Entry::Gone { incarnation, applied: self.state.applied(incarnation) });
                continue;
            }
            let mut node = Node::new(incarnation, name, role, self.now);
            node.away = Some(self.now);
            self.nodes.insert(node);
            waiting.insert(incarnation);
        }
        for root in self.state.roots.iter().filter(|root| root.options.ephemeral) {
            let key_of = |slot| self.state.objects.at(slot).key();
            self.unused.extend(root.keys.after(None, key_of).map(|slot| self.state.objects.at(slot).id));
        }
        self.expect_uses();
        self.expect_listeners();
        let tokens = std::mem::take(&mut self.restored_tokens);
        if waiting.is_empty() {
            return;
        }
        self.window = Some(Window {
            until: self.now + self.settings.reconnect_window,
            last_object: self.state.last_object,
            waiting,
            tokens,
            stalled: BTreeMap::new(),
            has_progress: false,
            is_hopeless: false,
            ahead: BTreeMap::new(),
            ahead_of: BTreeMap::new(),
            asked: BTreeMap::new(),
        });
    }

    /// Whether the locks of an object change no hands, because somebody may name one of them.
    pub(super) fn may_be_named(&self, object: ObjectId) -> bool {
        self.window.as_ref().is_some_and(|window| object.sequence() <= window.last_object)
    }

    /// Whether the node may still name grants of earlier epochs.
    pub(super) fn may_name(&self, node: NodeSlot) -> bool {
        let Some(window) = &self.window else { return false };
        self.nodes.get(node).is_some_and(|node| window.waiting.contains(&node.incarnation))
    }

    /// Whether the lease of a node that lives is not renewed: it has had its time to name what it holds.
    pub(super) fn is_late(&self, node: NodeSlot) -> bool {
        self.window.as_ref().is_some_and(|window| self.now > window.until) && self.may_name(node)
    }

    /// Whether the node may have this token from an earlier life of the coordinator, and nobody has written with a higher
    /// one.
    pub(super) fn is_from_before(&self, node: NodeSlot, object: ObjectId, group: GroupId, token: Token) -> bool {
        let Some(window) = &self.window else { return false };
        let epochs = self.state.history..self.settings.epoch;
        let highest = window.tokens.get(&(object, group)).copied().unwrap_or_default();
        self.may_name(node) && epochs.contains(&token.epoch()) && token >= highest
    }

    /// Whether a node that is back may send a commit again under this token, although it has not named the grant yet.
    pub(super) fn may_resend(&self, node: NodeSlot, slot: u32, part: &Part) -> bool {
        if !self.is_from_before(node, part.object, part.group, part.token) {
            return false;
        }
        // Who named a later grant got it when this one had been given back.
        let used = self.state.objects.at(slot).locks.used();
        let lock = used.iter().find(|(group, _)| *group == part.group).map(|(_, lock)| lock);
        lock.is_none_or(|lock| lock.holders().iter().all(|holder| holder.token.epoch() < self.settings.epoch))
    }

    /// A node that is back names a grant from before. Returns whether it is the node's.
    pub(super) fn adopt(&mut self, node: NodeSlot, slot: u32, group: GroupId, token: Token, mode: Mode) -> bool {
        let object = self.state.objects.at(slot).id;
        if !self.is_from_before(node, object, group, token) {
            return false;
        }
        let mut lost = Vec::new();
        let adopted = self.state.objects.at_mut(slot).locks.lock(group).adopt(node, mode, token, self.now, &mut lost);
        // Two nodes that name one lock: the later grant was given when the other had ended.
        for (other, token) in lost {
            self.count_grants(other, 1);
            self.send(other, ToNode::GrantLost { object, group, token });
        }
        adopted
    }

    /// Keeps what a node says while an earlier commit of its waits. Returns what is to be carried out now.
    pub(super) fn stall(&mut self, node: NodeSlot, message: ToCoordinator) -> Option<ToCoordinator> {
        let Some(window) = &mut self.window else { return Some(message) };
        let incarnation = self.nodes.get(node)?.incarnation;
        match window.stalled.get_mut(&incarnation) {
            Some(stalled) if !matches!(message, ToCoordinator::Heartbeat { .. } | ToCoordinator::Bye) => {
                stalled.push_back(message);
                if stalled.len() > STALLED_MAX
                    && let Some(session) = self.nodes.session(node)
                {
                    self.violation(session, "more behind a commit that waits for another's than is kept");
                }
                None
            }
            _ => Some(message),
        }
    }

    /// Who waits until a change is everywhere waits for nodes, too, that may hold the object and have not said so yet.
    pub(super) fn add_expected(&self, node: NodeSlot, others: &mut Vec<NodeSlot>) {
        let waiting = self.window.iter().flat_map(|window| &window.waiting);
        for expected in waiting.filter_map(|incarnation| self.nodes.find(*incarnation)) {
            if expected != node && !others.contains(&expected) {
                others.push(expected);
            }
        }
    }

    /// Whether a commit comes before the one that it follows. Then it waits.
    pub(super) fn is_early(&mut self, node: NodeSlot, commit: &Commit) -> bool {
        if !self.may_name(node) || self.window.as_ref().is_none_or(|window| window.is_hopeless) {
            return false;
        }
        let is_early = |part: &Part| {
            let object = self.state.objects.get(part.object).filter(|_| part.group != GroupId::COMMUTATIVE);
            object.is_some_and(|object| part.version.number() > object.version(part.group).number() + 1)
        };
        let (Some(of), Some(window)) = (self.nodes.get(node), &mut self.window) else { return false };
        let early = commit.parts.iter().any(is_early);
        if early {
            window.stalled.entry(of.incarnation).or_default().push_front(ToCoordinator::Commit(commit.clone()));
            self.look_for_hope();
        }
        early
    }

    /// When all who may still say something wait for each other, none of them has it.
    fn look_for_hope(&mut self) {
        if let Some(window) = &mut self.window
            && !window.stalled.is_empty()
            && window.waiting.iter().all(|incarnation| window.stalled.contains_key(incarnation))
        {
            window.is_hopeless = true;
            window.has_progress = true;
        }
    }

    /// A commit was applied.
    pub(super) fn note_applied(&mut self, parts: &[Part]) {
        let Some(window) = &mut self.window else { return };
        window.has_progress = true;
        for part in parts {
            for incarnation in window.ahead.remove(&(part.object, part.group, part.version)).into_iter().flatten() {
                if let Some(count) = window.ahead_of.get_mut(&incarnation) {
                    *count -= 1;
                }
            }
        }
    }

    /// Lets those go on whose commits may have what they waited for.
    pub(super) fn run_stalled(&mut self) {
        while let Some(window) = &mut self.window
            && std::mem::take(&mut window.has_progress)
        {
            for (incarnation, messages) in std::mem::take(&mut window.stalled) {
                self.go_on(incarnation, messages);
            }
            self.answer_asked();
            self.run_operations();
        }
    }

    fn go_on(&mut self, incarnation: Incarnation, mut messages: VecDeque<ToCoordinator>) {
        while let Some(message) = messages.pop_front() {
            let Some(node) = self.nodes.find(incarnation) else { return };
            self.said(node, message);
            if let Some(window) = &mut self.window
                && let Some(stalled) = window.stalled.get_mut(&incarnation)
            {
                stalled.append(&mut messages);
                return;
            }
        }
    }

    /// What a node said on a connection that is lost, it says again.
    pub(super) fn drop_stalled(&mut self, incarnation: Incarnation) {
        if let Some(window) = &mut self.window {
            window.stalled.remove(&incarnation);
            window.asked.remove(&incarnation);
        }
    }

    /// A node has a version that is not here. Returns whether its writer may be about to send it again.
    pub(super) fn may_come(&mut self, node: NodeSlot, object: ObjectId, group: GroupId, version: Version) -> bool {
        let Some(current) = self.state.objects.get(object).map(|object| object.version(group)) else { return false };
        let (Some(window), Some(of)) = (&mut self.window, self.nodes.get(node)) else { return false };
        let epochs = self.state.history..self.settings.epoch;
        // Only of what is counted by its writers: who misses an add could not tell.
        let ahead = group != GroupId::COMMUTATIVE
            && version.number() > current.number()
            && epochs.contains(&version.epoch())
            && window.ahead.len() < AHEAD_MAX;
        if ahead {
            let is_new = window.ahead.entry((object, group, version)).or_default().insert(of.incarnation);
            *window.ahead_of.entry(of.incarnation).or_default() += usize::from(is_new);
        }
        ahead
    }

    /// Whether a node must not see an object as it is now, because it has more of other objects than the log.
    pub(super) fn is_too_early(&self, node: NodeSlot, object: ObjectId) -> bool {
        let (Some(window), Some(of)) = (&self.window, self.nodes.get(node)) else { return false };
        self.may_be_named(object) && window.ahead_of.get(&of.incarnation).is_some_and(|count| *count > 0)
    }

    /// Keeps what a node asks to see too early.
    pub(super) fn ask_later(&mut self, node: NodeSlot, message: ToCoordinator) {
        let (Some(window), Some(of)) = (&mut self.window, self.nodes.get(node)) else { return };
        let asked = window.asked.entry(of.incarnation).or_default();
        asked.push(message);
        if asked.len() > STALLED_MAX
            && let Some(session) = self.nodes.session(node)
        {
            self.violation(session, "more questions than are kept until the nodes of before are back");
        }
    }

    /// Answers those who have nothing any more that the log has not.
    fn answer_asked(&mut self) {
        let Some(window) = &mut self.window else { return };
        let ahead_of = &window.ahead_of;
        let is_due = |of: &Incarnation, _: &mut Vec<_>| ahead_of.get(of).is_none_or(|count| *count == 0);
        let due: Vec<_> = window.asked.extract_if(.., is_due).collect();
        for (incarnation, messages) in due {
            self.go_on(incarnation, messages.into());
        }
    }

    /// A node has named all that it holds, or never will.
    pub(super) fn resolve(&mut self, incarnation: Incarnation) {
        let Some(window) = &mut self.window else { return };
        window.waiting.remove(&incarnation);
        if window.waiting.is_empty() {
            self.end_window();
        } else {
            self.look_for_hope();
        }
    }

    fn end_window(&mut self) {
        let Some(window) = self.window.take() else { return };
        self.expect_uses();
        for ((object, ..), incarnations) in window.ahead {
            for node in
                incarnations.into_iter().filter_map(|incarnation| self.nodes.find(incarnation)).collect::<Vec<_>>()
            {
                self.answer(node, ToNode::Outdated { object });
            }
        }
        for (incarnation, messages) in window.asked {
            self.go_on(incarnation, messages.into());
        }
        for (incarnation, messages) in window.stalled {
            self.go_on(incarnation, messages);
        }
        for (object, group) in self.contended.iter().copied().collect::<Vec<_>>() {
            if let Some(slot) = self.state.objects.find(object) {
                self.settle(slot, group);
            }
        }
    }
}
