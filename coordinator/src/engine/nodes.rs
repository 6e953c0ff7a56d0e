//! Who is attached: sessions (connections), and nodes, which outlive a connection for as long as their lease.
//!
//! A node that loses its connection keeps its grants and nothing else. Back within its lease, it gets another slot: its
//! interest and its grants stay with the slot it had until it has named what it still holds (`resume.rs`).

use super::barrier::WaitId;
use super::behind::Behind;
use super::entry::SecretHash;
use super::operations::OperationId;
use super::queues::QueueId;
use super::schema::at_most;
use super::unsynced::Held;
use super::{Effect, Engine, Entry, LogSeq, SessionId};
use kiln_protocol::limits::NAME_BYTES_MAX;
use kiln_protocol::message::{Hello, Past, Role, WatchTarget};
use kiln_protocol::{
    BarrierId, CommitSeq, Failure, Incarnation, ListenerId, ObjectId, PROTOCOL_VERSION, Secret, ToNode, WatchId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Attached nodes and observers, whatever the settings say: slots have 16 bits.
const ATTACHED_MAX: usize = 1 << 15;
/// Slots of nodes that left, before they are swept at once.
const LEFT_MAX: usize = 1 << 14;

/// A node's place in the table of nodes. Given again only after nothing refers to it any more.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct NodeSlot(u16);

impl NodeSlot {
    /// No node.
    pub(super) const NONE: Self = Self(u16::MAX);
    /// The lowest.
    pub(super) const FIRST: Self = Self(0);

    #[cfg(test)]
    pub(super) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }
}

/// An attached node or observer.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) incarnation: Incarnation,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) attached: Duration,
    /// Where it is reached now; `None` while its connection is lost.
    session: Option<SessionId>,
    /// Since when its connection has been lost.
    pub(super) away: Option<Duration>,
    /// When its lease was renewed last.
    pub(super) heard: Duration,
    /// The latest of its attempts to come back.
    pub(super) attempt: u64,
    /// Slots that it had on connections that were lost: some of its grants are there until it has named them.
    pub(super) previous: Vec<NodeSlot>,
    /// Commits that were refused, newest last: the answer may not have reached it.
    pub(super) refused: VecDeque<(CommitSeq, Failure)>,
    /// What it misses because it does not read what it is sent.
    pub(super) behind: Option<Behind>,
    /// Objects it holds.
    pub(super) interest: u64,
    /// Grants it holds.
    pub(super) grants: u64,
    /// What it asked for and has no answer to.
    pub(super) requests: usize,
    /// Commits were decided since its last `Ack`.
    pub(super) ack_due: bool,
    /// Waits that its next barrier ends.
    pub(super) barrier_due: Vec<WaitId>,
    /// Messages that wait for the log.
    pub(super) held: VecDeque<Held>,
    /// What these take.
    pub(super) held_bytes: usize,
    /// Commits that are not safe, and the entry from which on each is.
    pub(super) unsynced: VecDeque<(LogSeq, CommitSeq)>,
    /// The last commit that it was told is safe, on this connection.
    pub(super) durable: CommitSeq,
    /// Barriers in its stream, and the waits that each ends.
    pub(super) barriers: VecDeque<(BarrierId, Vec<WaitId>)>,
    pub(super) watches: BTreeMap<WatchId, WatchTarget>,
    pub(super) listeners: BTreeMap<ListenerId, QueueId>,
    pub(super) operations: BTreeSet<OperationId>,
    /// Objects of ephemeral roots that it had to do with.
    pub(super) ephemeral: BTreeSet<ObjectId>,
}

impl Node {
    /// A node without a connection that was heard of at `now`.
    pub(super) const fn new(incarnation: Incarnation, name: String, role: Role, now: Duration) -> Self {
        Self {
            incarnation,
            name,
            role,
            attached: now,
            session: None,
            away: None,
            heard: now,
            attempt: 0,
            previous: Vec::new(),
            refused: VecDeque::new(),
            behind: None,
            interest: 0,
            grants: 0,
            requests: 0,
            ack_due: false,
            barrier_due: Vec::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            unsynced: VecDeque::new(),
            durable: CommitSeq::from_bits(0),
            barriers: VecDeque::new(),
            watches: BTreeMap::new(),
            listeners: BTreeMap::new(),
            operations: BTreeSet::new(),
            ephemeral: BTreeSet::new(),
        }
    }

    /// Where it is reached now.
    pub(super) const fn session(&self) -> Option<SessionId> {
        self.session
    }
}

/// One connection.
#[derive(Clone, Copy, Debug)]
struct Session {
    id: SessionId,
    node: NodeSlot,
}

/// All nodes and sessions.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    slots: Vec<Option<Box<Node>>>,
    free: Vec<NodeSlot>,
    /// Slots of nodes that left, to which objects may still refer.
    pub(super) left: Vec<NodeSlot>,
    /// Slots that nodes had before they came back, until those have named what they hold.
    previous: BTreeSet<NodeSlot>,
    sessions: BTreeMap<SessionId, Session>,
    /// The session that spoke last: messages come in batches.
    recent: Option<Session>,
    attached: usize,
}

impl Nodes {
    pub(super) fn get(&self, node: NodeSlot) -> Option<&Node> {
        self.slots.get(usize::from(node.0))?.as_deref()
    }

    pub(super) fn get_mut(&mut self, node: NodeSlot) -> Option<&mut Node> {
        self.slots.get_mut(usize::from(node.0))?.as_deref_mut()
    }

    /// Whether what a slot holds is some node's.
    pub(super) fn is_attached(&self, node: NodeSlot) -> bool {
        self.get(node).is_some() || self.previous.contains(&node)
    }

    /// The session of an attached node.
    pub(super) fn session(&self, node: NodeSlot) -> Option<SessionId> {
        self.get(node).and_then(|node| node.session)
    }

    /// Every other node; observers are none.
    pub(super) fn others(&self, than: NodeSlot) -> Vec<NodeSlot> {
        let others = self.iter().filter(|(slot, node)| *slot != than && node.role == Role::Node);
        others.map(|(slot, _)| slot).collect()
    }

    /// The slot of an incarnation.
    pub(super) fn find(&self, incarnation: Incarnation) -> Option<NodeSlot> {
        self.iter().find(|(_, node)| node.incarnation == incarnation).map(|(slot, _)| slot)
    }

    /// The node's connection is lost, since `now`.
    pub(super) fn disconnect(&mut self, slot: NodeSlot, now: Duration) {
        self.recent = None;
        if let Some(node) = self.get_mut(slot) {
            node.away = Some(now);
            node.behind = None;
            node.held.clear();
            node.held_bytes = 0;
            node.durable = CommitSeq::default();
            if let Some(session) = node.session.take() {
                self.sessions.remove(&session);
            }
        }
    }

    /// The node is back on another connection: it gets a new slot.
    ///
    /// # Panics
    /// When there are no slots: those of nodes that left are to be swept before.
    pub(super) fn reconnect(&mut self, slot: NodeSlot, session: SessionId) -> Option<NodeSlot> {
        let mut node = *self.slots.get_mut(usize::from(slot.0))?.take()?;
        self.attached -= 1;
        self.previous.insert(slot);
        node.previous.push(slot);
        node.session = Some(session);
        node.away = None;
        Some(self.insert(node))
    }

    /// The node has named what it holds: the rest ends.
    pub(super) fn resynced(&mut self, slot: NodeSlot) -> Vec<NodeSlot> {
        let previous = self.get_mut(slot).map(|node| std::mem::take(&mut node.previous)).unwrap_or_default();
        for slot in &previous {
            self.previous.remove(slot);
            self.left.push(*slot);
        }
        previous
    }

    /// The node behind a session; `None` for one that is closed.
    pub(super) fn of(&mut self, session: SessionId) -> Option<NodeSlot> {
        if let Some(recent) = self.recent
            && recent.id == session
        {
            return Some(recent.node);
        }
        self.recent = self.sessions.get(&session).copied();
        self.recent.map(|session| session.node)
    }

    pub(super) const fn len(&self) -> usize {
        self.attached
    }

    /// Attached nodes and observers, in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeSlot, &Node)> {
        (0..u16::MAX).zip(&self.slots).filter_map(|(slot, node)| Some((NodeSlot(slot), node.as_deref()?)))
    }

    pub(super) fn insert(&mut self, node: Node) -> NodeSlot {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot =
                u16::try_from(self.slots.len()).expect("slots of nodes that left are swept before there are none");
            self.slots.push(None);
            NodeSlot(slot)
        });
        if let Some(id) = node.session {
            self.sessions.insert(id, Session { id, node: slot });
        }
        self.slots[usize::from(slot.0)] = Some(Box::new(node));
        self.attached += 1;
        slot
    }

    fn remove(&mut self, slot: NodeSlot) -> Option<Box<Node>> {
        let node = self.slots.get_mut(usize::from(slot.0))?.take()?;
        if let Some(session) = node.session {
            self.sessions.remove(&session);
        }
        for previous in &node.previous {
            self.previous.remove(previous);
            self.left.push(*previous);
        }
        self.recent = None;
        self.attached -= 1;
        if node.role == Role::Observer {
            self.free.push(slot);
        } else {
            self.left.push(slot);
        }
        Some(node)
    }

    /// Slots to which nothing refers any more.
    pub(super) fn reuse(&mut self, slots: &[NodeSlot]) {
        self.left.retain(|slot| !slots.contains(slot));
        self.free.extend_from_slice(slots);
    }
}

impl Engine {
    /// [`super::Event::Attached`].
    pub(super) fn attach(&mut self, session: SessionId, hello: Hello, secret: Secret) {
        if self.nodes.of(session).is_some() {
            return self.violation(session, "a second Hello");
        }
        if self.nodes.left.len() >= LEFT_MAX {
            self.sweep_all();
        }
        let past = self.check_hello(&hello).and_then(|()| match hello.resume {
            Some(resume) => self.resume(session, &resume),
            None => Ok(Past::None),
        });
        let past = match past {
            Ok(Past::Resumed { .. }) => return,
            Ok(past) => self.check_attached().and_then(|()| self.check_log_for(hello.role)).map(|()| past),
            Err(failure) => Err(failure),
        };
        let past = match past {
            Ok(past) => past,
            Err(failure) => {
                let refused = ToNode::Refused { failure: failure.clone() };
                self.out.push(Effect::Send { session, message: refused });
                self.out.push(Effect::Close { session, failure: Some(failure) });
                return;
            }
        };
        let incarnation = self.state.next_incarnation();
        let (name, role, hash) = (hello.name.clone(), hello.role, SecretHash::of(secret));
        self.append(Entry::Attached { incarnation, name, role, secret: hash });
        let mut node = Node::new(incarnation, hello.name, hello.role, self.now);
        node.session = Some(session);
        let slot = self.nodes.insert(node);
        self.welcome(slot, secret, past);
        self.tell_members(slot);
    }

    pub(super) fn welcome(&mut self, slot: NodeSlot, secret: Secret, past: Past) {
        let Some(node) = self.nodes.get(slot) else { return };
        let welcome = ToNode::Welcome {
            protocol: PROTOCOL_VERSION,
            epoch: self.settings.epoch,
            incarnation: node.incarnation,
            secret,
            lease_ms: u32::try_from(self.settings.lease.as_millis()).unwrap_or(u32::MAX),
            durable: self.settings.durable,
            past,
        };
        self.send(slot, welcome);
    }

    /// A new node hears who is there, and they of it.
    fn tell_members(&mut self, slot: NodeSlot) {
        let Some(node) = self.nodes.get(slot) else { return };
        if node.role == Role::Observer {
            return;
        }
        let (incarnation, name) = (node.incarnation, node.name.clone());
        for other in self.nodes.others(slot) {
            let Some((its_incarnation, its_name)) = self.name_of(other) else { continue };
            self.send(other, ToNode::Member { incarnation, name: name.clone(), joined: true });
            self.send(slot, ToNode::Member { incarnation: its_incarnation, name: its_name, joined: true });
        }
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), Failure> {
        if hello.protocol != PROTOCOL_VERSION {
            return Err(Failure::Protocol { ours: PROTOCOL_VERSION, theirs: hello.protocol });
        }
        if self.stopping {
            return Err(Failure::Stopping);
        }
        at_most("the length of a node's name in bytes", hello.name.len(), NAME_BYTES_MAX)
    }

    fn check_attached(&self) -> Result<(), Failure> {
        let limit = self.settings.nodes_max.min(ATTACHED_MAX);
        at_most("the number of attached nodes", self.nodes.len() + 1, limit)
    }

    /// A node is gone, or is told to go: everything it holds is free.
    pub(super) fn leave(&mut self, slot: NodeSlot) {
        self.acknowledge(slot);
        let Some(node) = self.nodes.remove(slot) else { return };
        self.log_owed(node.incarnation);
        self.append(Entry::Gone { incarnation: node.incarnation, applied: self.state.applied(node.incarnation) });
        self.drop_stalled(node.incarnation);
        for (watch, target) in &node.watches {
            self.watches.remove(slot, *watch, target, &mut self.state);
        }
        let waits = node.barriers.into_iter().flat_map(|(_, waits)| waits);
        for wait in waits.chain(node.barrier_due) {
            self.passed(wait);
        }
        self.leave_listening(slot, node.listeners);
        for operation in node.operations {
            self.cancel(operation);
        }
        self.leave_queues(slot);
        for previous in &node.previous {
            self.leave_queues(*previous);
            self.owners_leave(*previous);
        }
        self.owners_leave(slot);
        for object in node.ephemeral {
            for of in std::iter::once(slot).chain(node.previous.iter().copied()) {
                self.leave_object(of, object);
            }
        }
        if node.role == Role::Node {
            for other in self.nodes.others(slot) {
                let name = node.name.clone();
                self.send(other, ToNode::Member { incarnation: node.incarnation, name, joined: false });
            }
            self.resolve(node.incarnation);
        }
    }

    /// Ends a connection that broke the protocol.
    pub(super) fn violation(&mut self, session: SessionId, what: &str) {
        if let Some(node) = self.nodes.of(session) {
            self.leave(node);
        }
        self.out.push(Effect::Close { session, failure: Some(Failure::Violation { what: what.to_owned() }) });
    }

    /// Ends a connection that said goodbye.
    pub(super) fn bye(&mut self, node: NodeSlot) {
        let Some(session) = self.nodes.session(node) else {
            return;
        };
        self.leave(node);
        self.out.push(Effect::Send { session, message: ToNode::Goodbye });
        self.out.push(Effect::Close { session, failure: None });
    }
}
