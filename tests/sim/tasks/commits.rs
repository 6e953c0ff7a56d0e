//! Operations that commit.

use super::{Actor, Address, Done, Failed, MONEY, PAIR};
use crate::clock::{MILLI, SECOND};
use crate::executor::give_way;
use crate::faults::Fault;
use crate::ledger::Made;
use crate::process::Added;
use crate::program::{Field, Program};
use crate::sometimes::Sometimes;
use crate::world::Happening;
use kiln::Changes;
use kiln_engine::{Changed, CommitError, CommitFailure, Entry, Outcome, Seen, State, Ticket, Wait, Waiter};
use kiln_heap::Object;
use kiln_protocol::message::Mode;
use kiln_protocol::{CommitSeq, Failure, Incarnation};
use std::sync::Arc;

/// A few of these fill a small heap.
const THEME_BYTES: usize = 14 << 10;

/// A commit that was made, and may not have been answered.
pub(super) struct Committed<'a, P: Program> {
    actor: &'a Actor<P>,
    incarnation: Incarnation,
    seq: CommitSeq,
    since: u64,
    ticket: Option<Arc<Ticket<Outcome>>>,
    everywhere: bool,
    is_known: bool,
}

/// What is to be committed, and the versions that it was made from.
pub(super) struct Update<'a>(&'a Arc<Entry>, &'a Changes, Seen);

impl<'a> Update<'a> {
    /// It was made just now.
    pub(super) fn now(entry: &'a Arc<Entry>, changes: &'a Changes) -> Self {
        let index = |change: &kiln::Change| usize::from(entry.binding.slot_group(change.slot()));
        let locked = changes.iter().map(index).filter(|group| *group < entry.locks().len());
        let groups = locked.clone().min().map_or(0..0, |first| first..locked.max().unwrap_or(first) + 1);
        Self(entry, changes, entry.seen(groups))
    }
}

impl<P: Program> Drop for Committed<'_, P> {
    fn drop(&mut self) {
        // Whoever waits no longer knows nothing: neither a deadline nor a dropped future says that it was not done.
        if !self.is_known {
            self.actor.world.invariants.unknown(&self.actor.process, self.incarnation, self.seq);
        }
    }
}

impl<P: Program> Committed<'_, P> {
    /// Waits for the answer, if the commit has one. Returns whether the commit is everywhere.
    #[expect(clippy::panic, reason = "nothing else may go wrong")]
    pub(super) async fn settled(mut self) -> Result<bool, Failed> {
        let Some(ticket) = self.ticket.take() else { return Ok(false) };
        let outcome = Wait::new(ticket).await;
        let Actor { world, process, .. } = self.actor;
        match outcome {
            Ok(()) => {
                self.is_known = true;
                world.invariants.acknowledged(
                    world,
                    process,
                    (self.incarnation, self.seq),
                    self.since,
                    self.everywhere,
                );
                Ok(self.everywhere)
            }
            Err(CommitFailure::Refused(Failure::Destroyed { .. })) => {
                self.is_known = true;
                world.invariants.refused(process, self.incarnation, self.seq);
                Err(Failed)
            }
            // It was made on top of one that was refused, or that went with the coordinator, and with its writer.
            Err(CommitFailure::Refused(Failure::VersionGap { .. }))
                if process.figures.refusals.get() > 0 || world.has_reached(Sometimes::EntriesLost) =>
            {
                self.is_known = true;
                world.reached(Sometimes::RefusedInARow);
                world.invariants.refused(process, self.incarnation, self.seq);
                Err(Failed)
            }
            // By a coordinator that had no time to say so.
            Err(CommitFailure::Refused(Failure::Forgotten)) if world.has_reached(Sometimes::CameBack) => {
                self.is_known = true;
                world.invariants.refused(process, self.incarnation, self.seq);
                Err(Failed)
            }
            Err(CommitFailure::Unknown) if self.actor.may_have_lapsed() || self.actor.has_ended() => Err(Failed),
            Err(error) => panic!("{error}"),
        }
    }
}

impl<P: Program> Actor<P> {
    pub(super) async fn increment(&self, address: Address, money: bool) -> Done {
        let entry = self.object(address).await?;
        let (groups, field) = if money { (MONEY, Field::Balance) } else { (Self::groups(&entry), Field::Visits) };
        let held = self.enter(&entry, groups, Mode::Write).await?;
        self.world.pause(&self.process, 10 * MILLI).await;
        self.pause_in_section().await;
        held.check();
        let changes = P::changes(&entry, |guard| P::add(guard, field, 1));
        let everywhere = self.world.random.below(4) == 0;
        let changed = [Update::now(&entry, &changes)];
        // A program may keep a guard for a while.
        if self.world.random.below(6) == 0 {
            self.world.pause(&self.process, 60 * MILLI).await;
        }
        let committed = self.commit(Some(held.life), &changed, vec![(entry.id(), field, 1)], everywhere).await?;
        let value = field.of(&entry);
        drop(held);
        if committed.settled().await? {
            self.world.invariants.is_everywhere(&self.world, &self.process, entry.id(), field, value);
        }
        Ok(())
    }

    /// Queues a commit; waits while the outbox is full.
    #[expect(clippy::panic, reason = "nothing else may go wrong")]
    pub(super) async fn commit(
        &self,
        life: Option<u64>,
        changes: &[Update<'_>],
        added: Vec<Added>,
        everywhere: bool,
    ) -> Result<Committed<'_, P>, Failed> {
        let node = self.process.node();
        let changed = changes.iter().map(|from| {
            let Update(entry, changes, seen) = from;
            Changed { entry, changes: changes.as_slice(), seen: Some(seen) }
        });
        let changed: Vec<_> = changed.collect();
        let ticket = Ticket::new();
        let (waiter, ticket) = match self.world.random.below(3) {
            _ if everywhere => (Waiter::Everywhere(Arc::clone(&ticket)), Some(ticket)),
            0 => (Waiter::None, None),
            _ => (Waiter::Applied(Arc::clone(&ticket)), Some(ticket)),
        };
        self.doing("commit");
        if !self.process.is_leased(self.world.now()) {
            self.world.reached(Sometimes::FencedAtHome);
            return Err(Failed);
        }
        self.pause_before_send().await;
        loop {
            let space = Wait::new(node.outbox.wait_for_space());
            let incarnation = self.process.incarnation();
            match node.commit(life, &changed, waiter.clone()) {
                Ok(seq) => {
                    self.world.invariants.made(&self.process, incarnation, seq, Made { added });
                    for Update(entry, ..) in changes.iter().filter(|from| from.0.state() == State::Stale) {
                        self.process.made_on_stale(entry.id(), seq);
                    }
                    if ticket.is_none() {
                        self.process.unwaited.borrow_mut().insert(seq);
                    }
                    let (since, is_known) = (self.world.now(), false);
                    return Ok(Committed { actor: self, incarnation, seq, since, ticket, everywhere, is_known });
                }
                Err(CommitError::OutboxFull) => {
                    self.world.reached(Sometimes::OutboxFull);
                    space.await;
                }
                Err(CommitError::ArenaFull { .. }) => {
                    self.heap_full();
                    return Err(Failed);
                }
                Err(CommitError::Destroyed { .. }) => return Err(Failed),
                // It was made from one that was refused, and what is here has been put right.
                Err(CommitError::Undone { .. })
                    if self.process.figures.refusals.get() > 0 || self.world.has_reached(Sometimes::EntriesLost) =>
                {
                    self.world.reached(Sometimes::Undone);
                    return Err(Failed);
                }
                Err(CommitError::Fenced) if self.may_have_lapsed() => {
                    self.world.reached(Sometimes::FencedAtHome);
                    return Err(Failed);
                }
                Err(CommitError::Disconnected) if self.has_ended() => return Err(Failed),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Chance may stop the process here for longer than a lease.
    async fn pause_in_section(&self) {
        let left = &self.world.plan.in_section;
        if left.get() > 0 && self.world.random.below(12) == 0 {
            left.set(left.get() - 1);
            self.world.faults.note(Fault::PauseInSection);
            self.stop().await;
            if !self.process.is_leased(self.world.now()) {
                self.world.reached(Sometimes::PausedInSection);
            }
        }
    }

    async fn pause_before_send(&self) {
        let left = &self.world.plan.before_send;
        if left.get() > 0 && self.world.random.below(12) == 0 {
            left.set(left.get() - 1);
            self.world.faults.note(Fault::PauseBeforeSend);
            self.stop().await;
            if !self.process.is_leased(self.world.now()) {
                self.world.reached(Sometimes::PausedBeforeSend);
            }
        }
    }

    async fn stop(&self) {
        let lasts = 3 * SECOND + self.world.random.next() % (6 * SECOND);
        self.world.pause_process(&self.process, lasts);
        give_way().await;
    }

    pub(super) async fn read(&self, address: Address) -> Done {
        let entry = self.object(address).await?;
        let held = self.enter(&entry, Self::groups(&entry), Mode::Read).await?;
        for _ in 0..self.world.random.below(3) {
            self.world.pause(&self.process, 10 * MILLI).await;
            held.check();
        }
        Ok(())
    }

    /// Two objects of two roots that are only changed together (S11).
    pub(super) async fn transfer(&self) -> Done {
        let (x, y) = (self.object(PAIR[0]).await?, self.object(PAIR[1]).await?);
        let from = self.enter(&x, MONEY, Mode::Write).await?;
        let to = self.enter(&y, MONEY, Mode::Write).await?;
        let amount = i64::try_from(1 + self.world.random.below(9)).expect("a small number");
        let of_x = P::changes(&x, |guard| P::add(guard, Field::Balance, -amount));
        let of_y = P::changes(&y, |guard| P::add(guard, Field::Balance, amount));
        let added = vec![(x.id(), Field::Balance, -amount), (y.id(), Field::Balance, amount)];
        let life = Some(from.life.min(to.life));
        let committed = self.commit(life, &[Update::now(&x, &of_x), Update::now(&y, &of_y)], added, false).await?;
        self.world.reached(Sometimes::AcrossRoots);
        drop((from, to));
        committed.settled().await.map(drop)
    }

    /// A commit over an object that may be removed meanwhile, and another on top of it.
    pub(super) async fn spend(&self, kept: Address, passing: Address) -> Done {
        let (entry, other) = (self.object(kept).await?, self.object(passing).await?);
        let held = self.enter(&entry, MONEY, Mode::Write).await?;
        self.world.pause(&self.process, 30 * MILLI).await;
        held.check();
        // Often it is gone for sure when the commit comes, and sometimes the answer is lost.
        let removal = if self.world.random.below(2) == 0 { Some(self.removal(passing)) } else { None };
        if self.world.plan.has(Fault::Cut) && !self.world.faults_over.get() && self.world.random.below(4) == 0 {
            let after = self.world.random.next() % (60 * MILLI);
            self.world.schedule(after, Happening::Break { fault: Fault::Cut, place: self.process.place });
        }
        let mut made = Vec::new();
        for alone in [false, true] {
            if alone && self.world.random.below(2) == 0 {
                break;
            }
            let of_kept = P::changes(&entry, |guard| P::add(guard, Field::Balance, 1));
            let of_other = P::changes(&other, |guard| P::add(guard, Field::Clicks, 1));
            let both = [Update::now(&entry, &of_kept), Update::now(&other, &of_other)];
            let added = [(entry.id(), Field::Balance, 1), (other.id(), Field::Clicks, 1)];
            let (changed, added) = if alone { (&both[..1], &added[..1]) } else { (&both[..], &added[..]) };
            made.push(self.commit(Some(held.life), changed, added.to_vec(), false).await?);
        }
        drop(held);
        // And one that is begun on top of them, and made when they are decided.
        let next =
            if self.world.random.below(2) == 0 { Some(self.enter(&entry, MONEY, Mode::Write).await?) } else { None };
        let changes = P::changes(&entry, |guard| P::add(guard, Field::Balance, 1));
        let update = Update::now(&entry, &changes);
        for mut committed in made {
            committed.since = committed.since.max(self.world.now());
            let _refused = committed.settled().await;
        }
        drop(removal);
        if let Some(held) = next {
            self.world.pause(&self.process, 200 * MILLI).await;
            let added = vec![(entry.id(), Field::Balance, 1)];
            self.commit(Some(held.life), &[update], added, false).await?.settled().await?;
        }
        Ok(())
    }

    pub(super) async fn add(&self, address: Address) -> Done {
        let entry = self.object(address).await?;
        // A handle may be kept for a while before it is used.
        if self.world.random.below(2) == 0 {
            self.world.pause(&self.process, 40 * MILLI).await;
        }
        // A program that does not wait for answers goes on while the connection is lost, until the outbox is full.
        let count = if self.process.node().link.is_synced() { 1 } else { 250 };
        let mut last = None;
        for _ in 0..count {
            let amount = i64::try_from(1 + self.world.random.below(5)).expect("a small number");
            let changes = P::changes(&entry, |guard| P::add(guard, Field::Clicks, amount));
            let added = vec![(entry.id(), Field::Clicks, amount)];
            last = Some(self.commit(None, &[Update::now(&entry, &changes)], added, false).await?);
        }
        match last {
            Some(committed) => committed.settled().await.map(drop),
            None => Ok(()),
        }
    }

    /// Long strings: in a small heap deltas find no room and make copies stale, commits and faults fail.
    pub(super) async fn grow(&self, address: Address) -> Done {
        let entry = self.object(address).await?;
        let held = self.enter(&entry, 0..1, Mode::Write).await?;
        let most = if self.world.plan.has(Fault::HeapFull) { THEME_BYTES } else { 500 };
        let theme = "x".repeat(self.world.random.below(most));
        let changes = P::changes(&entry, |guard| P::set_theme(guard, theme));
        let committed = self.commit(Some(held.life), &[Update::now(&entry, &changes)], Vec::new(), false).await?;
        drop(held);
        committed.settled().await.map(drop)
    }

    /// Fills a small heap with what nobody can evict, down to the last bytes, for a while.
    pub(super) async fn fill(&self) -> Done {
        if !self.world.plan.has(Fault::HeapFull) {
            return Ok(());
        }
        let binding = &self.roots[0].binding;
        let versions = vec![0; binding.groups().len() + 1];
        let mut ballast = Vec::new();
        for bytes in [8 << 10, 1 << 10, 64, 1] {
            let mut changes = Changes::new();
            P::themed("x".repeat(bytes)).store(&mut changes).expect("it can be stored");
            let writes: Vec<_> = changes.iter().map(kiln::Change::as_write).collect();
            while let Ok(object) = Object::new(&self.process.node().heap, &binding.shape, &writes, &versions) {
                ballast.push(object);
            }
        }
        self.doing("fill");
        self.world.pause(&self.process, SECOND).await;
        Ok(())
    }

    pub(super) async fn roll_back(&self, address: Address) -> Done {
        let entry = self.object(address).await?;
        let held = self.enter(&entry, Self::groups(&entry), Mode::Write).await?;
        let mut guard = P::guard(&entry.object);
        P::add(&mut guard, Field::Visits, 1000);
        self.world.pause(&self.process, 10 * MILLI).await;
        drop(guard);
        drop(held);
        Ok(())
    }

    /// L1: when nothing is wrong any more, a commit goes through.
    pub(super) async fn probe(&self) {
        for turn in 0..20 {
            // In a small heap some object may be too large beside the others.
            if self.increment(super::KEPT[turn % super::KEPT.len()], false).await.is_ok() {
                self.world.invariants.committed_after_faults(&self.process);
                return;
            }
            self.world.pause(&self.process, SECOND).await;
        }
        unreachable!("L1: nothing is committed although nothing is wrong: {}", crate::run::describe(&self.world));
    }
}
