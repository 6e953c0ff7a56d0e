//! The coordinator's engine: `(now, event) -> effects`.
//!
//! It arbitrates locks, orders commits, keeps objects and tells the nodes that hold them. No I/O, no clock, no threads, no
//! random numbers: a driver feeds it events and carries out its effects, so a simulator can be one.
//!
//! Roots, schemas, objects and incarnations are *replicated state*: [`Entry`]s in the log's order, carried out by
//! `state.rs` and by nothing else. Locks, interest, waiters, watches and barriers are soft: they end with the sessions that
//! made them, or with the coordinator.

mod admin;
mod barrier;
mod behind;
mod commit;
mod deadlock;
mod entry;
mod expiry;
mod fetch;
mod full;
mod grants;
mod interest;
mod keys;
mod listeners;
mod lock;
mod locking;
mod messages;
mod nodes;
mod object;
mod objects;
mod operations;
mod owners;
mod queues;
mod restore;
mod resume;
mod roots;
mod schema;
mod slots;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
mod unsynced;
mod walk;
mod watch;
mod window;

pub use entry::{BadEntry, Entry, LogSeq, LogTime, SecretHash};
pub use queues::{QueueId, QueuedEvent};
pub use restore::Restore;
pub use walk::{Cut, Piece};

use barrier::Waits;
use deadlock::WaitGraph;
use kiln_protocol::connection::{LEASE, RECONNECT_WINDOW};
use kiln_protocol::limits::{NODES_MAX, OUTPUT_BYTES_MAX, REQUESTS_MAX};
use kiln_protocol::message::Hello;
use kiln_protocol::{CommitSeq, Epoch, Failure, GroupId, Incarnation, ObjectId, Secret, ToCoordinator, ToNode};
use listeners::Listeners;
use lock::{Step, Tokens};
use nodes::{NodeSlot, Nodes};
use operations::Operations;
use state::State;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use sweep::Sweep;
use unsynced::Unsynced;
use watch::Watches;
use window::Window;

/// Text of all type descriptions of a cluster, in bytes.
const SCHEMA_BYTES_MAX: usize = 64 << 20;

/// What the engine is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This life of the ordering: above every one before it, and at most [`Epoch::MAX`].
    pub epoch: Epoch,
    /// Where the state is kept, for people.
    pub store: String,
    /// The program's version, for people.
    pub version: String,
    /// Nodes and observers attached at once.
    pub nodes_max: usize,
    /// Requests of one node without an answer.
    pub requests_max: usize,
    /// The text of all type descriptions, in bytes.
    pub schema_bytes_max: usize,
    /// All keys and slots, in bytes; above it, what would grow is refused.
    pub object_bytes_max: u64,
    /// What waits for the log before one node is told, in bytes; above it, its connection is ended.
    pub held_bytes_max: usize,
    /// How long a node keeps its grants without being heard of.
    pub lease: Duration,
    /// How long nodes may take to come back after a start with state, and to say what they hold, before their leases are
    /// not renewed any more.
    pub reconnect_window: Duration,
    /// Entries are safe when [`Event::Logged`] says so. Otherwise all is in memory: nothing waits for the log, and no
    /// commit is durable.
    pub durable: bool,
    /// The first epoch whose nodes may go on, when there is no state yet, and so nothing that they could go on with:
    /// this one. With state, `None`: as before; `Some(epoch)`: the state is older than what nodes have seen.
    pub history: Option<Epoch>,
    /// Coordinator time at the start.
    pub started: LogTime,
    /// Numbers of objects and of incarnations to leave out: how many the entries that may have been lost can have given.
    pub skipped: u64,
}

impl Settings {
    /// The usual limits.
    #[must_use]
    pub fn new(epoch: Epoch, store: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            epoch,
            store: store.into(),
            version: version.into(),
            nodes_max: NODES_MAX,
            requests_max: REQUESTS_MAX,
            schema_bytes_max: SCHEMA_BYTES_MAX,
            object_bytes_max: u64::MAX,
            held_bytes_max: OUTPUT_BYTES_MAX,
            lease: LEASE,
            reconnect_window: RECONNECT_WINDOW,
            durable: false,
            history: None,
            started: LogTime::default(),
            skipped: 0,
        }
    }
}

kiln_protocol::id!(
    /// One connection. Given by the driver, never reused.
    pub SessionId(u64)
);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer that the driver authenticated said hello.
    Attached {
        /// Its connection.
        session: SessionId,
        /// What it said.
        hello: Hello,
        /// Random bytes: the secret of the incarnation that it gets.
        secret: Secret,
    },
    /// A message arrived.
    Message {
        /// From whom.
        session: SessionId,
        /// The message.
        message: ToCoordinator,
    },
    /// A connection is lost.
    Detached {
        /// Which.
        session: SessionId,
    },
    /// A node does not read what it is sent: from now on it is told which objects changed, not how.
    Behind {
        /// Its connection.
        session: SessionId,
    },
    /// It has been sent everything.
    CaughtUp {
        /// Its connection.
        session: SessionId,
    },
    /// The log has made everything up to this entry safe.
    Logged {
        /// The entry.
        seq: LogSeq,
    },
    /// The log has room for little more: nothing is changed until there is. What has to be appended all the same are
    /// ends of incarnations and what was refused meanwhile, each of a few dozen bytes.
    LogFull,
    /// The log has room again.
    LogHasRoom,
    /// Time has passed: leases may have lapsed. To be told a few times in each lease.
    Tick,
    /// The coordinator is to stop: nodes are told, and nothing new is begun.
    Stop,
}

/// What to do, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Send a message. Those of one session keep their order.
    Send {
        /// To whom.
        session: SessionId,
        /// The message.
        message: ToNode,
    },
    /// Hand an entry to the log.
    Append {
        /// The entry's place, each one after the last.
        seq: LogSeq,
        /// When it was made.
        time: LogTime,
        /// The entry.
        entry: Entry,
    },
    /// End a connection, after what was sent to it before. The engine has forgotten it already.
    Close {
        /// Which.
        session: SessionId,
        /// Why; `None` after a goodbye.
        failure: Option<Failure>,
    },
}

/// Counts since the start, and what there is now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Commits applied.
    pub commits: u64,
    /// Commits refused.
    pub commits_refused: u64,
    /// Grants given.
    pub grants: u64,
    /// Recalls sent.
    pub recalls: u64,
    /// Objects sent to nodes that asked for them.
    pub faults: u64,
    /// Nodes and observers attached.
    pub nodes: u64,
    /// Objects.
    pub objects: u64,
    /// The length of all keys and slots.
    pub object_bytes: u64,
}

/// The coordinator's state machine.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    /// The latest time that was told.
    now: Duration,
    stopping: bool,
    state: State,
    appended: LogSeq,
    logged: LogSeq,
    /// Of the last entry.
    time: LogTime,
    nodes: Nodes,
    tokens: Tokens,
    /// Locks that somebody waits for.
    contended: BTreeSet<(ObjectId, GroupId)>,
    /// Objects with locks that are free but were busy lately, and since when they are free.
    cooling: VecDeque<(Duration, ObjectId)>,
    /// Which nodes have to do with objects of ephemeral roots; each node has its part of it.
    ephemeral: BTreeSet<(ObjectId, NodeSlot)>,
    operations: Operations,
    owners: WaitGraph,
    unsynced: Unsynced,
    /// While nodes come back to a coordinator that was started again.
    window: Option<Window>,
    /// Until the first event.
    restored_tokens: window::Tokens,
    /// Objects of ephemeral roots to look at: nobody may have to do with them any more.
    unused: BTreeSet<ObjectId>,
    /// Before this time no object of a root with timeouts counts as idle.
    idle_from: LogTime,
    /// The log is full.
    full: bool,
    /// Who attached since, to look.
    full_observers: u32,
    /// Commits that were refused since, which the log does not have.
    owed: BTreeMap<Incarnation, CommitSeq>,
    waits: Waits,
    watches: Watches,
    listeners: Listeners,
    sweep: Sweep,
    acks_due: Vec<NodeSlot>,
    barriers_due: Vec<NodeSlot>,
    totals: Totals,
    out: Vec<Effect>,
    /// Scratch, empty between events.
    steps: Vec<Step>,
}

impl Engine {
    /// An engine without any state.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with(settings, State::new(), LogSeq::default(), LogTime::default())
    }

    /// An engine that goes on with this state, in which everything up to this entry is safe.
    fn with(mut settings: Settings, state: State, last: LogSeq, time: LogTime) -> Self {
        // A clock that was set back meanwhile stops no timeout.
        settings.started = settings.started.max(time);
        let tokens = Tokens::new(settings.epoch);
        Self {
            settings,
            now: Duration::ZERO,
            stopping: false,
            state,
            appended: last,
            logged: last,
            time,
            nodes: Nodes::default(),
            tokens,
            contended: BTreeSet::new(),
            cooling: VecDeque::new(),
            ephemeral: BTreeSet::new(),
            operations: Operations::default(),
            owners: WaitGraph::default(),
            unsynced: Unsynced::default(),
            window: None,
            restored_tokens: window::Tokens::default(),
            unused: BTreeSet::new(),
            idle_from: LogTime::default(),
            full: false,
            full_observers: 0,
            owed: BTreeMap::new(),
            waits: Waits::default(),
            watches: Watches::default(),
            listeners: Listeners::default(),
            sweep: Sweep::default(),
            acks_due: Vec::new(),
            barriers_due: Vec::new(),
            totals: Totals::default(),
            out: Vec::new(),
            steps: Vec::new(),
        }
    }

    /// Takes one event at `now` (since the start) and appends what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        std::mem::swap(&mut self.out, effects);
        self.unsynced.begin();
        if self.state.epoch != self.settings.epoch {
            self.start();
        }
        match event {
            Event::Message { session, message } => self.message(session, message),
            Event::Attached { session, hello, secret } => self.attach(session, hello, secret),
            Event::Detached { session } => {
                if let Some(node) = self.nodes.of(session) {
                    self.detached(node);
                }
            }
            Event::Behind { session } => self.fall_behind(session),
            Event::CaughtUp { session } => self.catch_up(session),
            Event::Tick => self.lapse(),
            Event::Logged { seq } => self.synced(seq),
            Event::LogFull => self.full = true,
            Event::LogHasRoom => self.has_room(),
            Event::Stop => self.stop(),
        }
        self.run_operations();
        self.run_stalled();
        self.end_overfull();
        std::mem::swap(&mut self.out, effects);
    }

    /// Ends a batch of events: appends the acknowledgements and barriers that are due, one for each session however many
    /// commits there were.
    pub fn flush(&mut self, effects: &mut Vec<Effect>) {
        std::mem::swap(&mut self.out, effects);
        self.unsynced.begin();
        for node in std::mem::take(&mut self.acks_due) {
            self.acknowledge(node);
        }
        self.send_barriers();
        self.cool();
        self.sweep();
        self.remove_unused();
        self.expire();
        self.hand_out();
        std::mem::swap(&mut self.out, effects);
    }

    /// The epoch that it began.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.settings.epoch
    }

    /// When its last entry was made.
    #[must_use]
    pub const fn time(&self) -> LogTime {
        self.time
    }

    /// Counts, for metrics.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            nodes: self.nodes.len() as u64,
            objects: self.state.objects.len().into(),
            object_bytes: self.state.object_bytes,
            ..self.totals
        }
    }

    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        let nodes: Vec<_> = self.nodes.iter().map(|(slot, _)| slot).collect();
        for node in nodes {
            self.answer(node, ToNode::Stopping);
        }
    }

    /// Carries a decided entry out and hands it to the log.
    fn append(&mut self, entry: Entry) {
        self.time = self.clock();
        self.state.apply(self.time, &entry).expect("what was decided can be carried out");
        self.appended = self.appended.next();
        self.wait_for_entry(self.appended, &entry);
        self.queued(self.appended);
        self.out.push(Effect::Append { seq: self.appended, time: self.time, entry });
    }

    /// This life of the coordinator begins in the log.
    fn start(&mut self) {
        let epoch = self.settings.epoch;
        let is_first = self.state.epoch == Epoch::default();
        let history = if is_first { epoch } else { self.settings.history.unwrap_or(self.state.history) };
        self.append(Entry::Started { epoch, history, skipped: self.settings.skipped });
        self.expect_nodes();
    }

    /// Sends what must not overtake an acknowledgement: a record names the commits that are part of it, and no sum may
    /// count one twice.
    fn answer(&mut self, node: NodeSlot, message: ToNode) {
        self.acknowledge(node);
        self.send(node, message);
    }

    fn acknowledge(&mut self, slot: NodeSlot) {
        let Some(node) = self.nodes.get_mut(slot) else { return };
        if std::mem::take(&mut node.ack_due) {
            let applied = self.applied(slot);
            self.send(slot, ToNode::Ack { applied });
            self.note_unsynced(slot);
        }
    }
}
