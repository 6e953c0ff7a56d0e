//! What waits until the log is safe up to an entry. Only where there is a log: in memory nothing waits.
//!
//! 1. A durable commit is shown to nobody but its writer before it is safe, nor is what comes after it in its groups; and
//!    the locks of these groups change no hands. Other objects do not wait.
//! 2. What cannot be sent again by those who asked for it (incarnations, schemas, objects made, removed and renamed) is
//!    told to nobody before it is safe: numbers that a crash takes back would be given to somebody else. The stream of a
//!    node that is to hear of it waits, as its order must be kept; those of other nodes do not.
//! 3. A lock that a dead incarnation held goes to nobody before its end is safe: it could name the lock again.
//!
//! A log is safe up to some entry, so what waits for a later one waits for all before it.

use super::commit::Changed;
use super::nodes::NodeSlot;
use super::{Effect, Engine, Entry, LogSeq};
use kiln_protocol::message::DeltaPart;
use kiln_protocol::{CommitSeq, Epoch, GroupId, Incarnation, ObjectId, ToNode, encode_to_node};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is done once it is safe.
#[derive(Debug)]
enum Later {
    /// A commit is shown.
    Show { writer: Incarnation, parts: (SmallVec<[DeltaPart; 1]>, Changed), everywhere: Option<CommitSeq> },
    /// Somebody is told when no node shows what was before.
    Await { writer: Incarnation, seq: CommitSeq },
}

/// All that waits for the log.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Groups with a durable commit that is not safe yet, and the entry that they wait for.
    groups: BTreeMap<(ObjectId, GroupId), LogSeq>,
    /// By the entry that is waited for, then in the order of the commits.
    later: BTreeMap<(LogSeq, u64), Later>,
    last_later: u64,
    /// Objects that were made or renamed by entries that are not safe yet.
    fresh: BTreeMap<ObjectId, LogSeq>,
    fresh_order: VecDeque<(LogSeq, ObjectId)>,
    /// The last entry that registered something, that took a key away, and that ended an incarnation.
    schema: LogSeq,
    keys: LogSeq,
    gone: LogSeq,
    /// What is sent waits for this entry, in the course of the present event.
    after: LogSeq,
    /// Nodes with messages that wait, and nodes with commits that are not safe.
    holding: BTreeSet<NodeSlot>,
    syncing: BTreeSet<NodeSlot>,
    /// Nodes for which too much waits.
    overfull: BTreeSet<NodeSlot>,
}

/// A message that waits for the log.
#[derive(Debug)]
pub(super) struct Held {
    after: LogSeq,
    message: ToNode,
    /// About what it takes.
    bytes: usize,
}

impl Held {
    fn new(after: LogSeq, message: ToNode, epoch: Epoch) -> Self {
        let mut frame = Vec::new();
        encode_to_node(&mut frame, epoch, &message);
        Self { after, message, bytes: size_of::<Self>() + frame.len() }
    }
}

impl Unsynced {
    /// Another event begins.
    pub(super) fn begin(&mut self) {
        self.after = LogSeq::default();
    }

    /// Whatever is said in the course of this event waits for this entry.
    fn wait_for(&mut self, seq: LogSeq) {
        self.after = self.after.max(seq);
    }

    /// A node lost its connection: what it waits for to be everywhere, it asks for again.
    pub(super) fn drop_waits(&mut self, incarnation: Incarnation) {
        self.later.retain(|_, later| match later {
            Later::Show { writer, everywhere, .. } => {
                if *writer == incarnation {
                    *everywhere = None;
                }
                true
            }
            Later::Await { writer, .. } => *writer != incarnation,
        });
    }

    /// Whether any group waits.
    pub(super) fn holds_any(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Whether a group waits.
    pub(super) fn holds(&self, object: ObjectId, group: GroupId) -> bool {
        !self.groups.is_empty() && self.groups.contains_key(&(object, group))
    }
}

impl Engine {
    /// An entry was appended: who must not hear of it yet does not.
    pub(super) fn wait_for_entry(&mut self, seq: LogSeq, entry: &Entry) {
        if !self.settings.durable {
            return;
        }
        let unsynced = &mut self.unsynced;
        match entry {
            Entry::Committed { .. } | Entry::Refused { .. } | Entry::Used { .. } | Entry::Heard { .. } => return,
            Entry::Started { .. } | Entry::Attached { .. } => {}
            Entry::Gone { .. } => unsynced.gone = seq,
            Entry::TypeAdded { .. }
            | Entry::FieldsAdded { .. }
            | Entry::RootAdded { .. }
            | Entry::QueueAdded { .. }
            | Entry::QueueRemoved { .. } => unsynced.schema = seq,
            Entry::Removed { .. } | Entry::Expired { .. } => unsynced.keys = seq,
            Entry::Created { object, .. } | Entry::Renamed { object, .. } => {
                unsynced.keys = seq;
                unsynced.fresh.insert(*object, seq);
                unsynced.fresh_order.push_back((seq, *object));
            }
        }
        unsynced.wait_for(seq);
    }

    /// What is said now is about an object.
    pub(super) fn wait_for_object(&mut self, object: ObjectId) {
        let unsynced = &mut self.unsynced;
        if let Some(seq) = unsynced.fresh.get(&object).copied() {
            unsynced.wait_for(seq);
        }
        let groups = (object, GroupId::from_bits(0))..=(object, GroupId::from_bits(u8::MAX));
        if let Some(seq) = unsynced.groups.range(groups).map(|(_, seq)| *seq).max() {
            unsynced.wait_for(seq);
        }
    }

    /// Before a record that has commits which are not shown yet: what else they changed the node shows without them (S11).
    pub(super) fn tell_halves_outdated(&mut self, node: NodeSlot, object: ObjectId) {
        let groups = (object, GroupId::from_bits(0))..=(object, GroupId::from_bits(u8::MAX));
        if self.unsynced.groups.range(groups).next().is_none() {
            return;
        }
        let mut others = BTreeSet::new();
        for later in self.unsynced.later.values() {
            if let Later::Show { parts: (parts, _), .. } = later
                && parts.iter().any(|part| part.object == object)
            {
                others.extend(parts.iter().map(|part| part.object).filter(|other| *other != object));
            }
        }
        let objects = &self.state.objects;
        others.retain(|other| objects.get(*other).is_some_and(|other| other.interest.as_slice().contains(&node)));
        for object in others {
            self.answer(node, ToNode::Outdated { object });
        }
    }

    /// What is said now is that a key has no object.
    pub(super) fn wait_for_keys(&mut self) {
        self.unsynced.wait_for(self.unsynced.keys);
    }

    /// What is said now is what is registered.
    pub(super) fn wait_for_schema(&mut self) {
        self.unsynced.wait_for(self.unsynced.schema);
    }

    /// What is said now is that a lock is free.
    pub(super) fn wait_for_ends(&mut self) {
        self.unsynced.wait_for(self.unsynced.gone);
    }

    /// The entry that a commit, appended just now, waits for before it is shown; `None`: it does not wait.
    pub(super) fn must_wait(&mut self, durable: bool, parts: &[DeltaPart]) -> Option<LogSeq> {
        let unsynced = &mut self.unsynced;
        if !self.settings.durable || (!durable && unsynced.groups.is_empty()) {
            return None;
        }
        let groups = || parts.iter().map(|part| (part.object, part.group));
        let held = groups().filter_map(|group| unsynced.groups.get(&group).copied()).max();
        let seq = held.max(durable.then_some(self.appended)).filter(|seq| *seq > self.logged)?;
        // What comes after it in any of its groups must not overtake it.
        unsynced.groups.extend(groups().map(|group| (group, seq)));
        Some(seq)
    }

    /// Shows a commit once it may be.
    pub(super) fn show_later(
        &mut self,
        seq: LogSeq,
        writer: Incarnation,
        parts: (SmallVec<[DeltaPart; 1]>, Changed),
        everywhere: Option<CommitSeq>,
    ) {
        self.later(seq, Later::Show { writer, parts, everywhere });
    }

    /// Tells a node once a commit of its is safe and everywhere. `false`: it is safe.
    pub(super) fn await_later(&mut self, node: NodeSlot, seq: CommitSeq) -> bool {
        let Some(of) = self.nodes.get(node) else { return false };
        let Some((after, _)) = of.unsynced.iter().find(|(_, last)| *last >= seq) else { return false };
        let (after, writer) = (*after, of.incarnation);
        if after <= self.logged {
            return false;
        }
        self.later(after, Later::Await { writer, seq });
        true
    }

    fn later(&mut self, seq: LogSeq, later: Later) {
        self.unsynced.last_later += 1;
        self.unsynced.later.insert((seq, self.unsynced.last_later), later);
    }

    /// Sends to a node that may have left, in the order of its stream.
    pub(super) fn send(&mut self, slot: NodeSlot, message: ToNode) {
        let Some(node) = self.nodes.get_mut(slot) else { return };
        let Some(session) = node.session() else { return };
        let after = self.unsynced.after;
        if after > self.logged || !node.held.is_empty() {
            let held = Held::new(after, message, self.settings.epoch);
            node.held_bytes += held.bytes;
            node.held.push_back(held);
            if node.held_bytes > self.settings.held_bytes_max {
                self.unsynced.overfull.insert(slot);
            }
            self.unsynced.holding.insert(slot);
        } else {
            self.out.push(Effect::Send { session, message });
        }
    }

    /// Ends the connections for which too much waits: what these nodes have they compare when they are back.
    pub(super) fn end_overfull(&mut self) {
        while let Some(slot) = self.unsynced.overfull.pop_first() {
            let limit = self.settings.held_bytes_max;
            self.give_up_on(slot, "the number of bytes that wait for the log before a node is told", limit);
        }
    }

    /// The node's commits so far were decided by the entries so far.
    pub(super) fn note_unsynced(&mut self, slot: NodeSlot) {
        if self.settings.durable
            && let Some(node) = self.nodes.get_mut(slot)
        {
            let applied = self.state.applied(node.incarnation);
            node.unsynced.push_back((self.appended, applied));
            self.tell_durable(slot);
        }
    }

    /// The last entry so far.
    pub const fn appended(&self) -> LogSeq {
        self.appended
    }

    /// Whether nothing up to this entry can be lost any more, or all of it is in memory only.
    pub fn is_safe(&self, seq: LogSeq) -> bool {
        !self.settings.durable || self.logged >= seq
    }

    /// [`super::Event::Logged`].
    pub(super) fn synced(&mut self, seq: LogSeq) {
        if seq <= self.logged {
            return;
        }
        self.logged = seq;
        self.safe_events(seq);
        while let Some((_, object)) = self.unsynced.fresh_order.pop_front_if(|(of, _)| *of <= seq) {
            if self.unsynced.fresh.get(&object).is_some_and(|of| *of <= seq) {
                self.unsynced.fresh.remove(&object);
            }
        }
        // First what was said: a record that waited has what is shown now, and is older than what comes later.
        for slot in std::mem::take(&mut self.unsynced.holding) {
            self.send_held(slot);
        }
        while let Some(next) = self.unsynced.later.first_entry()
            && next.key().0 <= seq
        {
            match next.remove() {
                Later::Show { writer, parts, everywhere } => self.show(writer, &parts, everywhere),
                Later::Await { writer, seq } => {
                    if let Some(node) = self.nodes.find(writer) {
                        self.await_everywhere(node, seq);
                    }
                }
            }
        }
        let safe = self.unsynced.groups.extract_if(.., |_, of| *of <= seq);
        let safe: Vec<_> = safe.map(|(group, _)| group).collect();
        for (object, group) in safe {
            if let Some(slot) = self.state.objects.find(object)
                && self.contended.contains(&(object, group))
            {
                self.settle(slot, group);
            }
        }
        for slot in std::mem::take(&mut self.unsynced.syncing) {
            self.tell_durable(slot);
        }
    }

    fn send_held(&mut self, slot: NodeSlot) {
        let Some(node) = self.nodes.get_mut(slot) else { return };
        let session = node.session();
        while let Some(Held { message, bytes, .. }) = node.held.pop_front_if(|held| held.after <= self.logged) {
            node.held_bytes -= bytes;
            self.out.extend(session.map(|session| Effect::Send { session, message }));
        }
        if !node.held.is_empty() {
            self.unsynced.holding.insert(slot);
        }
    }

    fn tell_durable(&mut self, slot: NodeSlot) {
        let Some(node) = self.nodes.get_mut(slot) else { return };
        let mut safe = None;
        while let Some((_, seq)) = node.unsynced.pop_front_if(|(of, _)| *of <= self.logged) {
            safe = Some(seq);
        }
        if !node.unsynced.is_empty() {
            self.unsynced.syncing.insert(slot);
        }
        if let Some(seq) = safe.filter(|seq| *seq > node.durable && node.session().is_some()) {
            node.durable = seq;
            // Behind the `Ack` that it was noted with.
            self.send(slot, ToNode::Durable { seq });
        }
    }
}
