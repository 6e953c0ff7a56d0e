//! What must hold, a file for each number of the design, and where it is looked at: whenever the coordinator decides or says
//! something, whenever a node hears something, when a task takes a lock or commits, every few steps, and at the end.
//!
//! Numbers without a file have no part in what is simulated here. S7 (durable commits survive a crash) is looked at when a
//! coordinator comes back from its disk (`disk.rs`), and L6 (a full disk) in `tests/crash`. S15 (no read or grant by a deposed leader) needs
//! coordinators that elect one. S16 (corruption is detected) and S17 (nothing is accessed before it was checked) are of bytes
//! that no honest peer sends: `tests/cluster/hostile.rs`, `tests/fuzz` and the tests of the heap have them. S21 (expiry goes by
//! the log's time) is in the engine's own tests: no program here has timeouts.

mod everywhere;
mod l01_commits_resume;
mod l02_dead_are_free;
mod l03_recalls_end;
mod l04_copies_converge;
mod l05_nobody_stalls;
mod l07_no_livelock;
mod l08_answers_alone;
mod owners;
mod s01_one_writer;
mod s02_current_token;
mod s03_disjoint;
mod s04_sees_all;
mod s05_gapless;
mod s06_same_bytes;
mod s08_applied_once;
mod s09_unknown;
mod s10_no_resurrection;
mod s11_all_or_nothing;
pub(crate) mod s12_watches;
mod s13_after_release;
mod s14_fenced;
mod s18_own_root;
mod s19_protocol;
mod s20_bounded;
mod s22_grant_again;
mod words;

pub(crate) use l01_commits_resume::LOOKING;
pub(crate) use l08_answers_alone::cut_off;
pub(crate) use owners::{Hold, WaitNumber};
pub(crate) use s03_disjoint::Section;

use crate::clock::{SECOND, nanos};
use crate::coordinator::Kept;
use crate::grants::{Grant, Grants, Lock};
use crate::ledger::{Ledger, Made};
use crate::process::Process;
use crate::program::Field;
use crate::sometimes::Sometimes;
use crate::world::World;
use bytes::Bytes;
use kiln_coordinator::engine::SessionId;
use kiln_protocol::connection::{LEASE, RECONNECT_WINDOW};
use kiln_protocol::message::{Fate, Mode};
use kiln_protocol::{CommitSeq, Epoch, Failure, Incarnation, ObjectId, RootId, Version};
use kiln_tests::Random;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// All checks, and what they remember.
#[derive(Default)]
pub(crate) struct Invariants {
    /// In which the present history began: with each coordinator that has nothing.
    epoch: Cell<Epoch>,
    ledger: RefCell<Ledger>,
    grants: RefCell<Grants>,
    tokens: RefCell<s01_one_writer::Tokens>,
    sections: s03_disjoint::Sections,
    unknown: RefCell<s09_unknown::Unknown>,
    released: RefCell<s13_after_release::Released>,
    /// For each connection, how things were when it began.
    before: RefCell<BTreeMap<SessionId, s10_no_resurrection::Before>>,
    skew: s19_protocol::Skew,
    given: RefCell<s22_grant_again::Given>,
    dead: l02_dead_are_free::Dead,
    resumed: l01_commits_resume::Resumed,
    pub(crate) owners: owners::Owners,
    in_tick: Cell<bool>,
    unsettled_until: Cell<u64>,
    /// When what was said to somebody waited to be sent.
    behind_at: Cell<u64>,
}

impl Invariants {
    /// A coordinator begins, with nothing.
    pub(crate) fn begin_epoch(&self, epoch: Epoch) {
        self.epoch.set(epoch);
        *self.ledger.borrow_mut() = Ledger::default();
        *self.grants.borrow_mut() = Grants::default();
        *self.tokens.borrow_mut() = s01_one_writer::Tokens::default();
        *self.unknown.borrow_mut() = s09_unknown::Unknown::default();
        *self.released.borrow_mut() = s13_after_release::Released::default();
        *self.given.borrow_mut() = s22_grant_again::Given::default();
        self.before.borrow_mut().clear();
        self.owners.forget_all();
    }

    /// A coordinator begins again, with this log: what is behind it has not been, unless it is sent again. Until the nodes have
    /// said what they have, some show commits that the log has lost.
    pub(crate) fn begin_again(&self, world: &World, log: &[Kept]) {
        world.reached(Sometimes::CameBack);
        self.dead.forgets_goodbye();
        let mut ledger = self.ledger.borrow_mut();
        let made = std::mem::take(&mut ledger.made);
        *ledger = Ledger::default();
        ledger.made = made;
        for (_, _, entry) in log {
            let _steps = ledger.append(0, entry);
        }
        self.unsettled_until.set(world.now() + nanos(RECONNECT_WINDOW) + 2 * nanos(LEASE));
        for process in world.processes().iter().filter(|process| self.is_of_this_epoch(process)) {
            let of = process.incarnation();
            let decided = ledger.lives.get(&of).map(|life| life.decided).unwrap_or_default();
            let heard = process.node().outbox.acked_seq();
            let refused = ledger.lives.get(&of).map(|life| life.refused.clone()).unwrap_or_default();
            let own = ledger.made.range((of, heard.next())..).take_while(|((maker, _), _)| *maker == of);
            let own = own.filter(|((_, seq), _)| *seq > decided || refused.contains(seq));
            let own = own.map(|((_, seq), made)| (*seq, made.added.clone()));
            *process.undecided.borrow_mut() = own.filter(|_| !process.node().link.has_lapsed()).collect();
        }
    }

    pub(crate) fn is_unsettled(&self, world: &World) -> bool {
        world.now() < self.unsettled_until.get() || !world.coordinator.is_up()
    }

    fn is_of_this_epoch(&self, process: &Process) -> bool {
        process.has_attached() && process.node().settings.epoch >= self.epoch.get()
    }

    pub(crate) fn commits(&self) -> u64 {
        self.ledger.borrow().commits
    }

    pub(crate) fn is_gone(&self, process: &Process) -> bool {
        let ledger = self.ledger.borrow();
        self.is_of_this_epoch(process) && ledger.lives.get(&process.incarnation()).is_some_and(|life| life.gone)
    }

    /// The lease of a process has lapsed: its program is told of commits that nobody waits for.
    pub(crate) fn told_unknown(&self, process: &Process, heard: CommitSeq) {
        s09_unknown::check_told(process, heard);
    }

    /// What a watcher has not been told of.
    pub(crate) fn has_missed(&self, process: &Process, seen: &s12_watches::Seen, of: (RootId, u64, u64)) {
        if self.is_of_this_epoch(process) {
            seen.check_whole(&self.ledger.borrow(), of);
        }
    }

    /// A task gave up what it was doing, because its deadline was over.
    pub(crate) fn gave_up(&self, world: &World, process: &Process, index: usize, most: Duration) {
        if self.is_of_this_epoch(process) && !self.is_unsettled(world) {
            l01_commits_resume::check_wait(world, process, index, most);
        }
    }

    /// A task made a commit.
    pub(crate) fn made(&self, process: &Process, incarnation: Incarnation, seq: CommitSeq, made: Made) {
        if self.is_of_this_epoch(process) {
            process.undecided.borrow_mut().insert(seq, made.added.clone());
            let before = self.ledger.borrow_mut().made.insert((incarnation, seq), made);
            assert!(before.is_none(), "S8: two commits {seq} of {incarnation}");
        }
    }

    /// A task was told that its commit is applied, or everywhere.
    pub(crate) fn acknowledged(
        &self,
        world: &World,
        process: &Process,
        (incarnation, seq): (Incarnation, CommitSeq),
        since: u64,
        everywhere: bool,
    ) {
        if self.is_of_this_epoch(process) {
            let outcome = self.ledger.borrow().outcome(incarnation, seq);
            // The word of a coordinator that died with what it had ordered: it is sent again.
            let is_lost = outcome.is_none() && !everywhere && self.is_unsettled(world);
            assert!(
                is_lost || outcome == Some(true),
                "S9: commit {seq} of {incarnation} was acknowledged: {outcome:?}"
            );
            if everywhere && world.now() - since > SECOND {
                world.reached(Sometimes::EverywhereWaited);
            }
            l05_nobody_stalls::check(world, process, since, everywhere);
        }
    }

    /// A task was told that its commit was refused.
    pub(crate) fn refused(&self, process: &Process, incarnation: Incarnation, seq: CommitSeq) {
        if self.is_of_this_epoch(process) {
            let outcome = self.ledger.borrow().outcome(incarnation, seq);
            assert_eq!(outcome, Some(false), "S9: commit {seq} of {incarnation} was said to be refused");
        }
    }

    /// A task does not know what became of its commit.
    pub(crate) fn unknown(&self, process: &Process, incarnation: Incarnation, seq: CommitSeq) {
        if self.is_of_this_epoch(process) {
            self.unknown.borrow_mut().note(incarnation, seq);
        }
    }

    pub(crate) fn some_unknown(&self, random: &Random) -> Option<(Incarnation, CommitSeq)> {
        self.unknown.borrow().some(random)
    }

    /// A task was told what became of a commit.
    pub(crate) fn fate_told(&self, epoch: Epoch, of: (Incarnation, CommitSeq), fate: Fate) {
        if epoch >= self.epoch.get() {
            s09_unknown::check(&self.ledger.borrow(), of, fate);
        }
    }

    /// A task has taken a lock.
    pub(crate) fn enter(
        &self,
        world: &World,
        process: &std::rc::Rc<Process>,
        entry: &kiln_engine::Entry,
        index: usize,
        mode: Mode,
    ) -> Section {
        if self.is_of_this_epoch(process) {
            s10_no_resurrection::check(&self.ledger.borrow(), entry.id(), "locked");
        }
        let history = process.node().settings.epoch.min(self.epoch.get());
        self.sections.enter(world, process, (history, entry, index), mode)
    }

    pub(crate) fn leave(&self, section: Section) {
        self.sections.leave(section);
    }

    /// A task holds locks of an object.
    pub(crate) fn check_values(
        &self,
        world: &World,
        process: &Process,
        entry: &kiln_engine::Entry,
        groups: &Range<usize>,
    ) {
        if self.is_of_this_epoch(process) && !self.is_unsettled(world) {
            s04_sees_all::check_values(&self.ledger.borrow(), process, entry, groups);
        }
    }

    pub(crate) fn is_everywhere(&self, world: &World, process: &Process, object: ObjectId, field: Field, value: i64) {
        if self.is_of_this_epoch(process) && !self.is_unsettled(world) {
            everywhere::check(world, |process| self.is_of_this_epoch(process), object, field, value);
        }
    }

    /// A node has said that it speaks another protocol, and was answered.
    pub(crate) fn refused_for_protocol(&self, process: &Process, failure: &Failure) {
        s19_protocol::check_refusal(process, failure);
    }

    /// A process has died.
    pub(crate) fn died(&self, world: &World, process: &Process, incarnation: Incarnation) {
        if self.is_of_this_epoch(process) {
            self.dead.died(world, incarnation);
        }
    }

    pub(crate) fn due(&self, world: &World, what: u64) {
        self.dead.due(world, &self.ledger.borrow(), what);
    }

    pub(crate) fn committed_after_faults(&self, process: &Process) {
        self.resumed.note(process);
    }

    /// A root whose objects are sessions.
    pub(crate) fn some_root(&self) -> Option<RootId> {
        self.ledger.borrow().some_root()
    }

    /// A write grant that a living node has.
    pub(crate) fn some_write_grant(&self, random: &Random) -> Option<(Lock, Grant)> {
        let grants = self.grants.borrow();
        let ledger = self.ledger.borrow();
        let is_session = |object| ledger.objects.get(&object).is_some_and(|known| ledger.has_sessions(known.root));
        let writes = grants.all().filter(|((object, _), grant)| grant.mode == Mode::Write && is_session(*object));
        let writes: Vec<_> = writes.map(|(lock, grant)| (lock, *grant)).collect();
        (!writes.is_empty()).then(|| random.one_of(&writes))
    }

    pub(crate) fn has_grant(&self, lock: Lock, grant: &Grant) -> bool {
        self.grants.borrow().own(lock, grant.holder).is_some_and(|own| own.token == grant.token)
    }

    /// What a commit under a grant could be, but for who makes it.
    pub(crate) fn next_commit(&self, lock: Lock, epoch: Epoch) -> (Version, Bytes) {
        let before = self.ledger.borrow().versions.get(&lock).copied().unwrap_or_default();
        (before.next_in(epoch), self.ledger.borrow().some_write(lock.1))
    }

    /// Delivers a grant again that was given back.
    pub(crate) fn deliver_again(&self, world: &World, process: &Process) -> bool {
        if !self.is_of_this_epoch(process) {
            return false;
        }
        let given = self.given.borrow();
        given.deliver_again(world, process, &self.released.borrow())
    }

    /// Looks at every copy of every node.
    pub(crate) fn look(&self, world: &World) {
        if world.is_behind() {
            self.behind_at.set(world.now());
        }
        let calm = world.calm_since().map(|since| since.max(self.behind_at.get()));
        if calm.is_some_and(|since| since + 2 * SECOND < world.now()) && !self.is_unsettled(world) {
            self.owners.check_broken(world.now());
        }
        let ledger = self.ledger.borrow();
        for process in world.processes().iter().filter(|process| self.is_of_this_epoch(process)) {
            s20_bounded::check(process);
            let in_step = process.is_in_step(world.now());
            if in_step {
                s11_all_or_nothing::check_pair(process);
            } else {
                l08_answers_alone::check(world, process);
            }
            let is_quiet = process.undecided.borrow().is_empty() && process.node().outbox.unacknowledged().0 == 0;
            for entry in process.node().cache.all() {
                s18_own_root::check(&ledger, &entry);
                if in_step && is_quiet && !self.is_unsettled(world) {
                    s06_same_bytes::check_copy(&ledger, &entry);
                }
            }
        }
    }

    /// Nothing is wrong, nothing is under way.
    pub(crate) fn finish(&self, world: &World) {
        self.look(world);
        self.resumed.check(world);
        l03_recalls_end::check(world, &self.grants.borrow());
        l04_copies_converge::check(world, &self.ledger.borrow());
        l07_no_livelock::check(world);
        let unknown: Vec<_> = self.unknown.borrow().all();
        s09_unknown::check_all(world, &self.ledger, &unknown);
    }
}
