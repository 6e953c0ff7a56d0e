//! Several locks in any order, one commit; and locks without an object.

use super::commits::Update;
use super::{Actor, Done, Failed, KEPT, LOCKS, MONEY, NAMES, ROOTS, SHARED, record};
use crate::clock::{MILLI, SECOND};
use crate::executor::span;
use crate::held::{Held, NotHeld};
use crate::invariants::{Hold, WaitNumber};
use crate::program::{Field, Named, Program};
use crate::sometimes::Sometimes;
use kiln::Changes;
use kiln_engine::{Claim, Entry, LockFailure};
use kiln_protocol::message::Mode;
use kiln_protocol::{Failure, OwnerId};
use std::sync::Arc;

/// What a transaction locks next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Money(usize),
    Name(usize),
    /// A named lock that only transactions take. Some only read under it, and wait behind a writer who waits as well: a cycle
    /// through that writer is seen because the writer is a transaction.
    Shared(usize),
}

const WANTED: [Wanted; 8] = [
    Wanted::Money(0),
    Wanted::Money(1),
    Wanted::Money(2),
    Wanted::Name(0),
    Wanted::Name(1),
    Wanted::Shared(0),
    Wanted::Shared(1),
    Wanted::Shared(2),
];

impl Wanted {
    /// Its root and its key.
    const fn lock(self) -> (&'static str, &'static str) {
        match self {
            Self::Money(at) => (ROOTS[KEPT[at].0], KEPT[at].1),
            Self::Name(at) => (LOCKS, NAMES[at]),
            Self::Shared(at) => (LOCKS, SHARED[at]),
        }
    }
}

/// A transaction, as the checks know it: it is over when this is dropped.
struct Owner<'a, P: Program> {
    actor: &'a Actor<P>,
    claim: Claim,
    holds: Vec<Hold>,
    wait: Option<WaitNumber>,
}

impl<P: Program> Drop for Owner<'_, P> {
    fn drop(&mut self) {
        self.goes_on();
    }
}

impl<P: Program> Owner<'_, P> {
    fn waits(&mut self, wanted: Wanted, mode: Mode) {
        let Actor { world, process, .. } = self.actor;
        let who = (process.incarnation(), self.claim.owner);
        let wait = world.invariants.owners.waits(world.now(), who, (wanted.lock(), mode), self.holds.clone());
        self.wait = Some(wait);
    }

    fn goes_on(&mut self) {
        let world = &self.actor.world;
        if let Some(wait) = self.wait.take() {
            world.invariants.owners.goes_on(world.now(), wait);
        }
    }
}

impl<P: Program> Actor<P> {
    pub(super) async fn transact(&self) -> Done {
        let mut deadlocked = false;
        for _ in 0..4 {
            // Some give up soon, and word of that is on its way while others wait for them.
            let most = span(self.world.random.one_of(&[60, 250, 10_000, 10_000]));
            let Some(done) = self.world.within(&self.process, most, self.transact_once()).await else { return Ok(()) };
            match done {
                Ok(true) if deadlocked => {
                    self.world.reached(Sometimes::DeadlockSurvived);
                    return Ok(());
                }
                Ok(true) => return Ok(()),
                Ok(false) => deadlocked = true,
                Err(Failed) => return Err(Failed),
            }
            self.world.pause(&self.process, 5 * MILLI).await;
        }
        Ok(())
    }

    /// `false`: it gave way to a deadlock.
    async fn transact_once(&self) -> Result<bool, Failed> {
        let random = &self.world.random;
        let node = self.process.node();
        let owner = OwnerId::from_bits(node.requests.take().to_bits());
        let claim = Claim { owner, begun: node.requests.newest_grant(), holds: Vec::new() };
        let mut owner = Owner { actor: self, claim, holds: Vec::new(), wait: None };
        let mut wanted: Vec<Wanted> = Vec::new();
        // Half of them take only what other transactions take, some for long: they meet.
        let from = if random.below(2) == 0 { &WANTED[..] } else { &WANTED[WANTED.len() - SHARED.len()..] };
        while wanted.len() < 2 + random.below(2) {
            let next = random.one_of(from);
            if !wanted.contains(&next) {
                wanted.push(next);
            }
        }
        let (mut held, mut moneys): (Vec<Held>, Vec<Arc<Entry>>) = (Vec::new(), Vec::new());
        for next in wanted {
            let entry = match next {
                Wanted::Money(at) => self.object(KEPT[at]).await?,
                Wanted::Name(_) | Wanted::Shared(_) => self.name(next.lock().1).await?,
            };
            let groups = if let Wanted::Money(_) = next { MONEY } else { 0..1 };
            let reads = matches!(next, Wanted::Shared(_)) && random.below(2) == 0;
            let mode = if reads { Mode::Read } else { Mode::Write };
            // Until the cluster is back nobody waits in it, and then what was held is lost.
            if held.iter().any(Held::is_fenced) {
                return self.not_held(NotHeld::Lock(LockFailure::Fenced));
            }
            self.doing("lock in a transaction");
            owner.waits(next, mode);
            let taken = Held::enter(&self.world, &self.process, &entry, (groups, mode), Some(&owner.claim)).await;
            owner.goes_on();
            match taken {
                Ok(taken) => {
                    owner.claim.holds.extend(taken.locks());
                    owner.holds.push((next.lock(), mode));
                    held.push(taken);
                }
                Err(NotHeld::Lock(LockFailure::Deadlock(cycle))) => {
                    assert!(!cycle.is_empty(), "a deadlock without a cycle");
                    return Ok(false);
                }
                Err(error) => return self.not_held(error),
            }
            if let Wanted::Money(_) = next {
                moneys.push(entry);
            }
            let most = random.one_of(&[5 * MILLI, 20 * MILLI, 20 * MILLI, 300 * MILLI]);
            self.world.pause(&self.process, most).await;
        }
        self.commit_together(&held, &moneys).await?;
        Ok(true)
    }

    async fn commit_together(&self, held: &[Held], moneys: &[Arc<Entry>]) -> Done {
        let changes: Vec<Changes> =
            moneys.iter().map(|entry| P::changes(entry, |guard| P::add(guard, Field::Balance, 1))).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let changed: Vec<_> = moneys.iter().zip(&changes).map(|(entry, changes)| Update::now(entry, changes)).collect();
        let added = moneys.iter().map(|entry| (entry.id(), Field::Balance, 1)).collect();
        let life = held.iter().map(|held| held.life).min();
        self.commit(life, &changed, added, false).await?.settled().await.map(drop)
    }

    async fn name(&self, name: &'static str) -> Result<Arc<Entry>, Failed> {
        self.found(&self.named, name, record(&self.named, &Named::default())).await
    }

    /// A named lock, made anew when it went with its last holder.
    pub(super) async fn hold_named(&self) -> Done {
        let name = self.world.random.one_of(&NAMES);
        for _ in 0..4 {
            let entry = self.name(name).await?;
            // A handle may be kept for long before it is used.
            if self.world.random.below(2) == 0 {
                self.world.pause(&self.process, SECOND / 2).await;
            }
            self.doing("named lock");
            match Held::enter(&self.world, &self.process, &entry, (0..1, Mode::Write), None).await {
                Ok(held) => {
                    self.world.pause(&self.process, 20 * MILLI).await;
                    drop(held);
                    return Ok(());
                }
                Err(NotHeld::Lock(LockFailure::Refused(Failure::Destroyed { .. }))) => {
                    self.world.reached(Sometimes::NamedAnew);
                }
                Err(error) => return self.not_held(error),
            }
        }
        Ok(())
    }
}
