//! What goes wrong in a run: which kinds, how often, when and for how long is drawn with the seed.

use crate::clock::{MILLI, Nanos, SECOND};
use crate::process::{Process, Stage};
use crate::sometimes::Sometimes;
use crate::world::{Happening, NODES, World};
use kiln_protocol::ToCoordinator;
use kiln_tests::Random;
use std::cell::Cell;

/// How much longer everything may take than it does.
pub(crate) const LAG: Nanos = 800 * MILLI;

macro_rules! faults { ($($(#[doc = $text:literal])+ $name:ident,)*) => {
    /// A kind of fault.
    #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
    pub(crate) enum Fault { $($(#[doc = $text])+ $name,)* }

    impl Fault {
        pub(crate) const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($text),+)),)*];
    }
} }

faults! {
    /// a connection is lost
    Cut,
    /// nothing gets to the coordinator
    PartitionUp,
    /// nothing gets to the node
    PartitionDown,
    /// nothing gets either way
    Partition,
    /// the connection is lost again and again
    Flap,
    /// everything takes much longer
    Lag,
    /// a node reads slowly
    Slow,
    /// a node dies
    Crash,
    /// a node leaves in good order
    Detach,
    /// a node is paused at any moment
    Pause,
    /// a node is paused inside a critical section
    PauseInSection,
    /// a node is paused between check and send
    PauseBeforeSend,
    /// a machine is suspended: its clock jumps
    Suspend,
    /// clocks drift
    Drift,
    /// the coordinator dies and starts again
    CoordinatorCrash,
    /// a process speaks another protocol version
    VersionSkew,
    /// a program has a field more than the others
    TypeSkew,
    /// futures are dropped
    Drop,
    /// a heap is full
    HeapFull,
    /// a grant is delivered again
    GrantAgain,
    /// a peer claims what is another's
    Thief,
}

/// How often each fault happened.
#[derive(Debug)]
pub(crate) struct Happened(Vec<Cell<u64>>);

impl Default for Happened {
    fn default() -> Self {
        Self(vec![Cell::new(0); Fault::ALL.len()])
    }
}

impl Happened {
    pub(crate) fn note(&self, fault: Fault) {
        let count = &self.0[fault as usize];
        count.set(count.get() + 1);
    }

    pub(crate) fn counts(&self) -> Vec<u64> {
        self.0.iter().map(Cell::get).collect()
    }
}

/// The faults with a time of their own begin in this span, and the last ones are over a little later.
const FAULTS_FROM: Nanos = 2 * SECOND;
const FAULTS_TO: Nanos = 26 * SECOND;
/// When the safety phase ends at the earliest.
pub(crate) const SAFETY: Nanos = 36 * SECOND;

/// What is drawn at the start of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Whether clocks go at different rates.
    pub(crate) drift: bool,
    /// The machine whose program has a field more.
    pub(crate) later: Option<usize>,
    /// The machine on which first a program with another protocol is started.
    skewed: Option<usize>,
    /// What a packet takes at most when nothing is wrong.
    pub(crate) delay_max: Nanos,
    /// As small as can be, so that it is full now and then; or roomy.
    pub(crate) heap_bytes: usize,
    /// Whether the coordinator keeps its state on disk.
    pub(crate) durable: bool,
    /// The kinds of faults that this run has.
    kinds: Vec<Fault>,
    /// Pauses that wait for their moment.
    pub(crate) in_section: Cell<u64>,
    pub(crate) before_send: Cell<u64>,
}

impl Plan {
    pub(crate) fn new(random: &Random) -> Self {
        let mut kinds: Vec<Fault> =
            Fault::ALL.iter().map(|(fault, _)| *fault).filter(|fault| random.below(100) < share(*fault)).collect();
        let durable = random.below(2) == 0 && on_disk();
        if durable && !kinds.contains(&Fault::CoordinatorCrash) {
            kinds.push(Fault::CoordinatorCrash);
        }
        let has = |fault| kinds.contains(&fault);
        let place = |has: bool| Some(random.below(NODES)).filter(|_| has);
        Self {
            drift: has(Fault::Drift),
            durable,
            later: place(has(Fault::TypeSkew)),
            skewed: place(has(Fault::VersionSkew)),
            delay_max: random.one_of(&[MILLI, 5 * MILLI, 30 * MILLI]),
            heap_bytes: if has(Fault::HeapFull) { 64 << 10 } else { 1 << 20 },
            in_section: Cell::new(if has(Fault::PauseInSection) { 2 } else { 0 }),
            before_send: Cell::new(if has(Fault::PauseBeforeSend) { 2 } else { 0 }),
            kinds,
        }
    }

    /// Whether a process, the so-manieth of all, speaks another protocol.
    pub(crate) fn is_skewed(&self, place: usize, number: usize) -> bool {
        self.skewed == Some(place) && number < NODES
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.kinds.contains(&fault)
    }
}

/// Whether half of the coordinators keep their state on disk, and crash: asked for with `KILN_SIM_DISK=1`.
pub(crate) fn on_disk() -> bool {
    std::env::var_os("KILN_SIM_DISK").is_some()
}

/// In how many of a hundred seeds a kind of fault is.
const fn share(fault: Fault) -> usize {
    match fault {
        // After it, everything begins anew: that hides what came of the faults before.
        Fault::CoordinatorCrash => 25,
        Fault::VersionSkew => 20,
        Fault::Drift => 70,
        Fault::TypeSkew | Fault::GrantAgain | Fault::Thief | Fault::Drop => 50,
        _ => 30,
    }
}

impl World {
    /// Draws the moments of the faults that have one.
    pub(crate) fn plan_faults(&self) {
        for fault in self.plan.kinds.clone() {
            match fault {
                Fault::Drift | Fault::TypeSkew => self.faults.note(fault),
                Fault::VersionSkew | Fault::PauseInSection | Fault::PauseBeforeSend | Fault::HeapFull => {}
                Fault::CoordinatorCrash if self.plan.durable => {
                    (0..1 + self.random.below(3)).for_each(|_| self.plan_one(fault));
                }
                Fault::CoordinatorCrash => self.plan_one(fault),
                Fault::Drop => (0..12).for_each(|_| self.plan_one(fault)),
                _ => (0..1 + self.random.below(3)).for_each(|_| self.plan_one(fault)),
            }
        }
    }

    fn plan_one(&self, fault: Fault) {
        let after = FAULTS_FROM + self.random.next() % (FAULTS_TO - FAULTS_FROM);
        self.schedule(after, Happening::Break { fault, place: self.random.below(NODES) });
    }

    /// Something goes wrong.
    pub(crate) fn break_it(&self, fault: Fault, place: usize) {
        if fault == Fault::CoordinatorCrash && self.coordinator.is_ending() {
            return;
        }
        let process = self.at(place).filter(|process| process.has_attached());
        let lasts = match fault {
            Fault::PartitionUp | Fault::PartitionDown | Fault::Partition | Fault::Slow => self.some_time(9 * SECOND),
            Fault::Lag => self.some_time(4 * SECOND),
            _ => 0,
        };
        self.trace(|| format!("FAULT {fault:?} at node {place}, for {:.3} s", lasts as f64 / 1e9));
        self.trouble(place);
        match fault {
            Fault::PartitionUp => self.change_reach(place, |reach| reach.cut_up = true),
            Fault::PartitionDown => self.change_reach(place, |reach| reach.cut_down = true),
            Fault::Partition => self.change_reach(place, |reach| (reach.cut_up, reach.cut_down) = (true, true)),
            Fault::Slow => self.change_reach(place, |reach| reach.slow = true),
            Fault::Lag => self.change_reach(place, |reach| reach.lag = LAG),
            Fault::Thief => {
                // No lock is given out while nodes come back.
                if self.invariants.is_unsettled(self) || !self.steal() {
                    return self.schedule_mend(fault, place, 0);
                }
            }
            Fault::CoordinatorCrash => {
                (0..NODES).filter(|other| *other != place).for_each(|other| self.trouble(other));
                self.end_coordinator();
                self.schedule(self.some_time(4 * SECOND), Happening::Mend { fault, place });
            }
            _ => {
                let Some(process) = process.filter(|process| !process.leaving.get()) else {
                    return self.schedule_mend(fault, place, 0);
                };
                self.break_process(fault, &process);
            }
        }
        self.faults.note(fault);
        if fault != Fault::CoordinatorCrash {
            self.schedule_mend(fault, place, lasts);
        }
    }

    fn schedule_mend(&self, fault: Fault, place: usize, after: Nanos) {
        self.schedule(after, Happening::Mend { fault, place });
    }

    fn some_time(&self, most: Nanos) -> Nanos {
        50 * MILLI + self.random.next() % most
    }

    fn break_process(&self, fault: Fault, process: &std::rc::Rc<Process>) {
        match fault {
            Fault::Cut => self.cut(process),
            Fault::Flap => {
                for turn in 0..6 {
                    let after = turn * 150 * MILLI + self.random.next() % (150 * MILLI);
                    self.schedule(after, Happening::Break { fault: Fault::Cut, place: process.place });
                }
            }
            Fault::Crash => {
                let incarnation = process.incarnation();
                self.invariants.died(self, process, incarnation);
                self.end_process(process);
                self.schedule(self.some_time(7 * SECOND), Happening::Start { place: process.place });
            }
            Fault::Detach => self.begin_leaving(process),
            Fault::Pause => self.pause_process(process, self.some_time(9 * SECOND)),
            Fault::Suspend => {
                let lasts = self.some_time(9 * SECOND);
                self.pause_process(process, lasts);
                // What the clock shows beside the time that really passed: as after a correction.
                process.clock.jump(self.now(), self.random.next() % (2 * SECOND));
            }
            Fault::Drop => {
                let index = self.random.below(crate::world::TASKS);
                let gone = process.tasks.borrow_mut().get_mut(index).and_then(Option::take);
                drop(gone);
                if process.node().ended().is_none() && !process.leaving.get() {
                    let task = crate::tasks::start(self.this(), std::rc::Rc::clone(process), index);
                    process.tasks.borrow_mut()[index] = Some(task);
                    process.ready.wake(index);
                }
                self.after(process);
            }
            Fault::GrantAgain => {
                if self.invariants.deliver_again(self, process) {
                    self.reached(Sometimes::GrantAgain);
                }
                self.after(process);
            }
            other => unreachable!("{other:?} does not happen to a process"),
        }
    }

    /// The connection is lost: both ends notice, or only one of them does so soon.
    fn cut(&self, process: &Process) {
        let Stage::Served(link) = process.stage.get() else { return };
        match self.random.below(3) {
            0 => self.lost(process, link, "it was cut"),
            1 => self.detach(link, false),
            _ => {
                self.detach(link, false);
                self.lost(process, link, "it was cut");
            }
        }
    }

    /// A process stops, for a while.
    pub(crate) fn pause_process(&self, process: &Process, lasts: Nanos) {
        self.trace(|| format!("{} is paused for {:.3} s", self.name(process), lasts as f64 / 1e9));
        self.trouble(process.place);
        process.pause_until(self.now() + lasts);
        if let Some(link) = process.link() {
            self.review(link);
        }
        self.schedule(lasts, Happening::Resume { process: process.id });
    }

    /// A process goes on.
    pub(crate) fn resume(&self, process: &Process) {
        if let Some(link) = process.link() {
            // Half of the time its own timer for silence has not gone on meanwhile: it finds out otherwise.
            if self.random.below(2) == 0 {
                self.begin_listening(link);
            } else {
                self.review(link);
            }
        }
        self.schedule(SECOND, Happening::Mend { fault: Fault::Pause, place: process.place });
    }

    fn begin_leaving(&self, process: &std::rc::Rc<Process>) {
        process.leaving.set(true);
        let tasks = std::mem::take(&mut *process.tasks.borrow_mut());
        drop(tasks);
        process.node().outbox.leave();
        self.leave(process);
    }

    /// Says goodbye once everything was acknowledged.
    pub(crate) fn leave(&self, process: &Process) {
        let node = process.node();
        if node.ended().is_some() {
            return;
        }
        let Stage::Served(_) = process.stage.get() else { return self.replace(process, 0) };
        if node.outbox.unacknowledged().0 > 0 {
            return self.schedule(5 * MILLI, Happening::Leave { process: process.id });
        }
        if process.undecided.borrow().is_empty() {
            node.outbox.send(&ToCoordinator::Bye);
        }
    }

    /// What went wrong is over.
    pub(crate) fn mend(&self, fault: Fault, place: usize) {
        match fault {
            Fault::PartitionUp => self.change_reach(place, |reach| reach.cut_up = false),
            Fault::PartitionDown => self.change_reach(place, |reach| reach.cut_down = false),
            Fault::Partition => self.change_reach(place, |reach| (reach.cut_up, reach.cut_down) = (false, false)),
            Fault::Slow => self.change_reach(place, |reach| reach.slow = false),
            Fault::Lag => self.change_reach(place, |reach| reach.lag = 0),
            Fault::CoordinatorCrash => {
                self.restart_coordinator();
                (0..NODES).filter(|other| *other != place).for_each(|other| self.relief(other));
            }
            _ => {}
        }
        self.trace(|| format!("{fault:?} at node {place} is over"));
        self.relief(place);
    }

    fn trouble(&self, place: usize) {
        self.troubles.borrow_mut()[place].0 += 1;
    }

    fn relief(&self, place: usize) {
        let trouble = &mut self.troubles.borrow_mut()[place];
        *trouble = (trouble.0 - 1, self.now());
    }

    /// Since when nothing has been wrong with a machine; `None` while something is.
    pub(crate) fn sound_since(&self, place: usize) -> Option<Nanos> {
        let (troubles, since) = self.troubles.borrow()[place];
        (troubles == 0).then_some(since)
    }

    /// Since when nothing has been wrong anywhere; `None` while something is.
    pub(crate) fn calm_since(&self) -> Option<Nanos> {
        (0..NODES).map(|place| self.sound_since(place)).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Faults stop; whoever is paused goes on, whatever is cut heals.
    pub(crate) fn stop_faults(&self) {
        self.faults_over.set(true);
        self.plan.in_section.set(0);
        self.plan.before_send.set(0);
        for place in 0..NODES {
            self.change_reach(place, |reach| *reach = crate::network::Reach::default());
        }
        for process in self.processes() {
            process.figures.attempts.set(0);
        }
        if self.coordinator.is_ending() {
            self.restart_coordinator();
        }
    }
}
