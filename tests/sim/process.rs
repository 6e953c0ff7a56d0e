//! One process: a real runtime engine, its tasks, and what a driver remembers.

use crate::clock::{Clock, Nanos};
use crate::executor::{Ready, Task};
use crate::program::Field;
use kiln_engine::{LeaseKeeper, Node, Retry, RootCache};
use kiln_protocol::{CommitSeq, Incarnation, ObjectId};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Wake, Waker};

/// Who is to be woken, and how it knows that it was not for nothing.
type Sleeper = (Waker, Rc<Cell<bool>>);
/// What a commit adds to a field.
pub(crate) type Added = (ObjectId, Field, i64);

/// How far a process is with its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// It waits before the next attempt.
    Apart,
    /// An attempt is under way.
    Connecting(usize),
    /// It is attached.
    Served(usize),
}

/// See the module.
pub(crate) struct Process {
    pub(crate) id: usize,
    /// Its machine.
    pub(crate) place: usize,
    pub(crate) clock: Rc<Clock>,
    pub(crate) protocol: u16,
    /// Its program has a field more than that of others.
    pub(crate) is_later: bool,
    pub(crate) alive: Cell<bool>,
    paused_until: Cell<Nanos>,
    node: OnceCell<Node>,
    pub(crate) stage: Cell<Stage>,
    /// It leaves: what it holds is free as soon as the coordinator hears of it.
    pub(crate) leaving: Cell<bool>,
    /// When it asked to be attached, on its own clock.
    pub(crate) asked: Cell<Nanos>,
    pub(crate) lease: RefCell<Option<LeaseKeeper>>,
    pub(crate) retry: RefCell<Retry>,
    pub(crate) tasks: RefCell<Vec<Option<Task>>>,
    pub(crate) ready: Arc<Ready>,
    pub(crate) ready_due: Cell<bool>,
    pub(crate) flush_due: Cell<bool>,
    /// The engine has something to say.
    pub(crate) wrote: Arc<Wrote>,
    pub(crate) timers: RefCell<BTreeMap<u64, Sleeper>>,
    last_timer: Cell<u64>,
    /// Since when it has had the connection that it has.
    pub(crate) served_since: Cell<Nanos>,
    /// The roots of sessions that its tasks have opened.
    pub(crate) roots: RefCell<[Option<Arc<RootCache>>; 2]>,
    pub(crate) figures: Counts,
    /// What each task waits for, to be told when one waits for ever.
    pub(crate) doing: RefCell<Vec<&'static str>>,
    /// Its commits of this incarnation whose answer no task waits for.
    pub(crate) unwaited: RefCell<BTreeSet<CommitSeq>>,
    /// Its commits of this incarnation that the coordinator has not decided.
    pub(crate) undecided: RefCell<BTreeMap<CommitSeq, Vec<Added>>>,
    /// Fields that a refused commit had changed, and the last commit that may have been made on top of it.
    shaken: RefCell<BTreeMap<(ObjectId, Field), CommitSeq>>,
}

/// What happened to a process.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) cuts: Cell<u64>,
    pub(crate) lapses: Cell<u64>,
    pub(crate) was_behind: Cell<bool>,
    /// Commits that were refused because an object was gone.
    pub(crate) refusals: Cell<u64>,
    /// Attempts to connect since faults stopped.
    pub(crate) attempts: Cell<u64>,
}

/// What the engine wakes when there is something to send.
#[derive(Debug, Default)]
pub(crate) struct Wrote(pub(crate) AtomicBool);

impl Wake for Wrote {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Process {
    pub(crate) fn new(id: usize, place: usize, clock: Rc<Clock>, is_later: bool, protocol: u16) -> Self {
        Self {
            id,
            place,
            clock,
            protocol,
            is_later,
            alive: Cell::new(true),
            paused_until: Cell::new(0),
            node: OnceCell::new(),
            stage: Cell::new(Stage::Apart),
            leaving: Cell::new(false),
            asked: Cell::new(0),
            lease: RefCell::new(None),
            retry: RefCell::default(),
            tasks: RefCell::default(),
            ready: Arc::default(),
            ready_due: Cell::new(false),
            flush_due: Cell::new(false),
            wrote: Arc::default(),
            timers: RefCell::default(),
            last_timer: Cell::new(0),
            served_since: Cell::new(0),
            roots: RefCell::default(),
            figures: Counts::default(),
            doing: RefCell::default(),
            unwaited: RefCell::default(),
            undecided: RefCell::default(),
            shaken: RefCell::default(),
        }
    }

    pub(crate) fn is_paused(&self, now: Nanos) -> bool {
        self.paused_until.get() > now
    }

    pub(crate) fn paused_until(&self) -> Nanos {
        self.paused_until.get()
    }

    pub(crate) fn pause_until(&self, until: Nanos) {
        self.paused_until.set(until);
    }

    /// The engine of a process that has attached.
    pub(crate) fn node(&self) -> &Node {
        self.node.get().expect("it has attached")
    }

    pub(crate) fn has_attached(&self) -> bool {
        self.node.get().is_some()
    }

    pub(crate) fn attached(&self, node: Node) {
        assert!(self.node.set(node).is_ok(), "it was attached before");
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.node.get().map(|node| node.link.incarnation()).unwrap_or_default()
    }

    /// Whether it trusts its locks, by its own clock.
    pub(crate) fn is_leased(&self, now: Nanos) -> bool {
        self.node.get().is_some_and(|node| node.link.is_leased(self.clock.show(now)))
    }

    /// Whether what it shows is up to date, as far as it knows.
    pub(crate) fn is_in_step(&self, now: Nanos) -> bool {
        let synced = self.node.get().is_some_and(|node| node.link.is_synced() && node.ended().is_none());
        // Of a process that leaves nobody asks anything.
        self.alive.get() && !self.leaving.get() && !self.is_paused(now) && synced && self.is_leased(now)
    }

    pub(crate) fn next_timer(&self) -> u64 {
        self.last_timer.set(self.last_timer.get() + 1);
        self.last_timer.get()
    }

    pub(crate) fn link(&self) -> Option<usize> {
        match self.stage.get() {
            Stage::Apart => None,
            Stage::Connecting(link) | Stage::Served(link) => Some(link),
        }
    }

    /// It hears that a commit was refused: what it had published is undone.
    pub(crate) fn was_refused(&self, seq: CommitSeq) {
        let added = self.undecided.borrow_mut().remove(&seq).unwrap_or_default();
        for (object, field, _) in added {
            self.shaken.borrow_mut().insert((object, field), self.node().outbox.last());
        }
    }

    /// A commit was made on a copy that is stale: of one that was refused.
    pub(crate) fn made_on_stale(&self, object: ObjectId, seq: CommitSeq) {
        for field in Field::ALL {
            self.shaken.borrow_mut().insert((object, field), seq);
        }
    }

    /// Its commits so far are nobody's any more.
    pub(crate) fn forget_commits(&self) {
        self.undecided.borrow_mut().clear();
        self.shaken.borrow_mut().clear();
    }

    /// Whether it has commits to a field that were made on top of a refused one: they will be refused as well, and what is
    /// shown until then nobody can say.
    pub(crate) fn is_shaken(&self, object: ObjectId, field: Field) -> bool {
        let Some(last) = self.shaken.borrow().get(&(object, field)).copied() else { return false };
        let undecided = self.undecided.borrow();
        let mut before = undecided.range(..=last);
        before.any(|(_, added)| added.iter().any(|(of, to, _)| (*of, *to) == (object, field)))
    }

    /// What it committed and the coordinator has not decided, to one field.
    pub(crate) fn undecided(&self, object: ObjectId, field: Field) -> i64 {
        let undecided = self.undecided.borrow();
        let added = undecided.values().flatten().filter(|(of, to, _)| (*of, *to) == (object, field));
        added.map(|(_, _, amount)| *amount).sum()
    }
}
