//! The world: true time, what happens next, and chance. Everything that happens is in one queue, so that a seed is a run.

use crate::clock::{Clock, DRIFT_MAX, MILLI, Nanos, SECOND};
use crate::coordinator::Coordinator;
use crate::faults::{Fault, Plan};
use crate::invariants::Invariants;
use crate::network::{End, Link, Reach};
use crate::process::Process;
use crate::sometimes::{Reached, Sometimes};
use crate::trace::Trace;
use kiln_coordinator::engine::LogSeq;
use kiln_protocol::{Epoch, PROTOCOL_VERSION};
use kiln_tests::Random;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::rc::{Rc, Weak};

/// Machines with a process each.
pub(crate) const NODES: usize = 3;
/// Tasks of a process.
pub(crate) const TASKS: usize = 4;
const FIRST_EPOCH: Epoch = Epoch::from_bits(3);
/// Every so many steps all copies are looked at.
const LOOK_EVERY: u64 = 16;

/// What can happen. To a process that is paused it happens when it goes on; to one that is gone, not at all.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Happening {
    /// Bytes arrive.
    Arrive { link: usize, end: End },
    /// An end may have heard nothing for too long.
    Idle { link: usize, end: End, since: Nanos },
    /// An end hears that the other has closed the connection.
    Closed { link: usize, end: End, goodbye: bool },
    /// A node hears that the coordinator does not know the connection.
    Reset { link: usize },
    /// The handshake of an attempt is done.
    Greet { link: usize },
    /// An attempt may have taken too long.
    Patience { link: usize },
    /// The next attempt is due.
    Connect { process: usize },
    /// Tasks that were woken run.
    Ready { process: usize },
    /// A sleep is over.
    Timer { process: usize, timer: u64 },
    /// What the engine has to say is handed to the connection.
    Flush { process: usize },
    /// The lease is looked after.
    Lease { process: usize },
    /// The driver's round of once a second.
    Measure { process: usize },
    /// A process that leaves looks whether it can say goodbye.
    Leave { process: usize },
    /// A process whose node has ended makes room for the next.
    Replace { process: usize },
    /// A process is started on a machine.
    Start { place: usize },
    /// A process goes on after a pause.
    Resume { process: usize },
    /// A node does not keep up, or has caught up.
    Keeps { link: usize, up: bool },
    /// The coordinator's log is safe up to here.
    Synced { epoch: Epoch, seq: u64 },
    /// The coordinator's time passes.
    Tick { epoch: Epoch },
    /// Something goes wrong.
    Break { fault: Fault, place: usize },
    /// What went wrong is over.
    Mend { fault: Fault, place: usize },
    /// An invariant with a deadline is looked at.
    Due { what: u64 },
}

struct Scheduled {
    at: Nanos,
    order: u64,
    what: Happening,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

/// See the module.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) plan: Plan,
    now: Cell<Nanos>,
    queue: RefCell<BinaryHeap<Reverse<Scheduled>>>,
    order: Cell<u64>,
    pub(crate) steps: Cell<u64>,
    pub(crate) coordinator: Coordinator,
    clocks: Vec<Rc<Clock>>,
    processes: RefCell<Vec<Rc<Process>>>,
    pub(crate) links: RefCell<Vec<Link>>,
    pub(crate) reach: RefCell<[Reach; NODES]>,
    /// How much is wrong with each machine, and since when that is nothing.
    pub(crate) troubles: RefCell<[(u32, Nanos); NODES]>,
    pub(crate) invariants: Invariants,
    reached: Reached,
    pub(crate) faults: crate::faults::Happened,
    /// Faults have stopped, and nothing new is begun.
    pub(crate) stopping: Cell<bool>,
    pub(crate) faults_over: Cell<bool>,
    passed: RefCell<DefaultHasher>,
    trace: Trace,
    this: Weak<Self>,
}

impl World {
    pub(crate) fn new(seed: u64, trace: Trace) -> Rc<Self> {
        let random = Random::new(seed);
        let plan = Plan::new(&random);
        let clock = || {
            let rate = 1_000_000 - DRIFT_MAX + random.below(2 * DRIFT_MAX + 1);
            let rate = if plan.drift { rate } else { 1_000_000 };
            Clock::new(rate, SECOND + random.next() % (1000 * SECOND))
        };
        let clocks = (0..NODES).map(|_| Rc::new(clock())).collect();
        let coordinator = Coordinator::new(clock(), FIRST_EPOCH, plan.durable);
        let world = Rc::new_cyclic(|this| Self {
            random,
            plan,
            now: Cell::new(0),
            queue: RefCell::default(),
            order: Cell::new(0),
            steps: Cell::new(0),
            coordinator,
            clocks,
            processes: RefCell::default(),
            links: RefCell::default(),
            reach: RefCell::default(),
            troubles: RefCell::default(),
            invariants: Invariants::default(),
            reached: Reached::default(),
            faults: crate::faults::Happened::default(),
            stopping: Cell::new(false),
            faults_over: Cell::new(false),
            passed: RefCell::default(),
            trace,
            this: Weak::clone(this),
        });
        world.invariants.begin_epoch(FIRST_EPOCH);
        world.observe();
        for place in 0..NODES {
            let after = world.random.next() % (20 * MILLI);
            world.schedule(after, Happening::Start { place });
        }
        world.plan_faults();
        world
    }

    pub(crate) fn this(&self) -> Rc<Self> {
        self.this.upgrade().expect("it is alive while it runs")
    }

    pub(crate) const fn now(&self) -> Nanos {
        self.now.get()
    }

    pub(crate) fn schedule(&self, after: Nanos, what: Happening) {
        let order = self.order.get();
        self.order.set(order + 1);
        self.queue.borrow_mut().push(Reverse(Scheduled { at: self.now() + after, order, what }));
    }

    pub(crate) fn process(&self, id: usize) -> Rc<Process> {
        Rc::clone(&self.processes.borrow()[id])
    }

    /// Those that run.
    pub(crate) fn processes(&self) -> Vec<Rc<Process>> {
        self.processes.borrow().iter().filter(|process| process.alive.get()).cloned().collect()
    }

    /// The one that runs on a machine.
    pub(crate) fn at(&self, place: usize) -> Option<Rc<Process>> {
        self.processes.borrow().iter().find(|process| process.alive.get() && process.place == place).cloned()
    }

    pub(crate) fn name(&self, process: &Process) -> String {
        format!("node {} ({})", process.place, process.incarnation())
    }

    pub(crate) fn reached(&self, what: Sometimes) {
        self.reached.note(what);
    }

    pub(crate) fn has_reached(&self, what: Sometimes) -> bool {
        self.reached.has(what)
    }

    pub(crate) fn counts(&self) -> Vec<u64> {
        self.reached.counts()
    }

    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        self.trace.note(self.now(), what);
    }

    /// Different for runs that went different ways.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.passed.borrow().finish()
    }

    pub(crate) fn note_bytes(&self, bytes: &[u8]) {
        bytes.hash(&mut *self.passed.borrow_mut());
    }

    /// The next thing happens. `false`: nothing will.
    pub(crate) fn step(&self) -> bool {
        let Some(Reverse(Scheduled { at, what, .. })) = self.queue.borrow_mut().pop() else { return false };
        self.now.set(at);
        let Some(process) = self.concerned(&what) else {
            self.happen(what);
            self.steps.set(self.steps.get() + 1);
            return true;
        };
        if !process.alive.get() {
            return true;
        }
        if process.is_paused(at) && !matches!(what, Happening::Resume { .. }) {
            self.schedule(process.paused_until() - at, what);
            return true;
        }
        if self.happen_to(&process, what) {
            self.steps.set(self.steps.get() + 1);
            if self.steps.get().is_multiple_of(LOOK_EVERY) {
                self.invariants.look(self);
            }
        }
        self.after(&process);
        true
    }

    /// The process that something happens to.
    fn concerned(&self, what: &Happening) -> Option<Rc<Process>> {
        let process = match what {
            Happening::Arrive { link, end: End::Node }
            | Happening::Idle { link, end: End::Node, .. }
            | Happening::Closed { link, end: End::Node, .. }
            | Happening::Reset { link }
            | Happening::Greet { link }
            | Happening::Patience { link } => self.links.borrow()[*link].process,
            Happening::Connect { process }
            | Happening::Ready { process }
            | Happening::Timer { process, .. }
            | Happening::Flush { process }
            | Happening::Lease { process }
            | Happening::Measure { process }
            | Happening::Leave { process }
            | Happening::Replace { process }
            | Happening::Resume { process } => *process,
            Happening::Arrive { end: End::Coordinator, .. }
            | Happening::Idle { end: End::Coordinator, .. }
            | Happening::Closed { end: End::Coordinator, .. }
            | Happening::Start { .. }
            | Happening::Keeps { .. }
            | Happening::Synced { .. }
            | Happening::Tick { .. }
            | Happening::Break { .. }
            | Happening::Mend { .. }
            | Happening::Due { .. } => return None,
        };
        Some(self.process(process))
    }

    fn happen(&self, what: Happening) {
        match what {
            Happening::Arrive { link, .. } => {
                let frames = self.arrived(link, End::Coordinator);
                if !frames.is_empty() {
                    self.take(link, frames);
                }
            }
            Happening::Idle { link, since, .. } => {
                if self.is_deaf(link, End::Coordinator, since) {
                    self.detach(link, false);
                }
            }
            Happening::Closed { link, goodbye, .. } => self.detach(link, goodbye),
            Happening::Start { place } => self.start(place),
            Happening::Keeps { link, up } => self.keeps_up(link, up),
            Happening::Synced { epoch, seq } => self.synced(epoch, LogSeq::from_bits(seq)),
            Happening::Tick { epoch } => self.tick(epoch),
            Happening::Break { fault, place } => self.break_it(fault, place),
            Happening::Mend { fault, place } => self.mend(fault, place),
            Happening::Due { what } => self.invariants.due(self, what),
            other => unreachable!("{other:?} happens to a process"),
        }
    }

    /// Returns whether anything happened.
    fn happen_to(&self, process: &Rc<Process>, what: Happening) -> bool {
        match what {
            Happening::Arrive { link, .. } => {
                let frames = self.arrived(link, End::Node);
                let any = !frames.is_empty();
                self.received(process, link, frames);
                return any;
            }
            Happening::Idle { link, since, .. } => {
                let is_deaf = self.is_deaf(link, End::Node, since);
                if is_deaf {
                    self.lost(process, link, "nothing was heard of the coordinator");
                }
                return is_deaf;
            }
            Happening::Closed { link, .. } => self.lost(process, link, "the coordinator has closed it"),
            Happening::Reset { link } => {
                if self.is_reset(link) {
                    self.lost(process, link, "the coordinator does not know it");
                }
            }
            Happening::Greet { link } => self.greet(process, link),
            Happening::Patience { link } => self.patience(process, link),
            Happening::Connect { .. } => self.connect(process),
            Happening::Ready { .. } => self.run_ready(process),
            Happening::Timer { timer, .. } => return Self::timer(process, timer),
            Happening::Flush { .. } => self.flush(process),
            Happening::Lease { .. } => self.renew(process),
            Happening::Measure { .. } => self.measure(process),
            Happening::Leave { .. } => self.leave(process),
            Happening::Replace { .. } => self.replace(process, 0),
            Happening::Resume { .. } => self.resume(process),
            other => unreachable!("{other:?} happens to nobody"),
        }
        true
    }

    /// A process starts.
    fn start(&self, place: usize) {
        if self.at(place).is_some() {
            return;
        }
        let mut processes = self.processes.borrow_mut();
        let other = self.random.one_of(&[PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1]);
        let protocol = if self.plan.is_skewed(place, processes.len()) { other } else { PROTOCOL_VERSION };
        if protocol != PROTOCOL_VERSION {
            self.faults.note(Fault::VersionSkew);
        }
        let is_later = self.plan.later == Some(place);
        let process = Rc::new(Process::new(processes.len(), place, Rc::clone(&self.clocks[place]), is_later, protocol));
        processes.push(Rc::clone(&process));
        drop(processes);
        self.connect(&process);
    }

    /// A process is gone, and another one is started on its machine.
    pub(crate) fn replace(&self, process: &Process, after: Nanos) {
        if after > 0 {
            return self.schedule(after, Happening::Replace { process: process.id });
        }
        self.end_process(process);
        let after = MILLI + self.random.next() % SECOND;
        self.schedule(after, Happening::Start { place: process.place });
    }

    /// Everything of a process goes; its end of the connection, too.
    pub(crate) fn end_process(&self, process: &Process) {
        process.alive.set(false);
        let tasks = std::mem::take(&mut *process.tasks.borrow_mut());
        drop(tasks);
        process.timers.borrow_mut().clear();
        if let Some(link) = process.link() {
            self.close_end(link, End::Node);
        }
        if process.has_attached() {
            process.node().end(kiln_engine::Ended::Lost("its process is gone".to_owned()));
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}
