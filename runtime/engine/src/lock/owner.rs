//! Owners: transactions, as those who hold and want locks.
//!
//! A transaction that has to wait for a lock is reported to the coordinator, with all that it holds, until it waits no
//! more; the coordinator seeks cycles. One that gets its locks at once is never spoken of.

use super::{GroupLock, LocalWaiter, LockContext, LockFailure, LockState, Machine, RECALL_BATCH_MAX};
use kiln_protocol::message::{Mode, OwnerLock, OwnerWait, Place, Turn, WaitEdge};
use kiln_protocol::{CheckId, OwnerId, RequestId, ToCoordinator, Token};

/// On whose behalf a lock is taken. What a transaction holds does not change while it waits: it takes one lock after the
/// other, and gives none back before its end.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The transaction.
    pub owner: OwnerId,
    /// The newest grant that the node knew of when it began.
    pub begun: Token,
    /// What it holds already.
    pub holds: Vec<OwnerLock>,
}

/// A transaction that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) claim: Claim,
    /// The wait's name, once the coordinator was told of it.
    pub(super) reported: Option<RequestId>,
}

impl GroupLock {
    /// The coordinator asks whether a transaction waits.
    pub fn check_wait(&self, context: LockContext<'_>, wait: RequestId, check: CheckId) {
        let machine = self.lock();
        if let Some(at) = machine.find(wait) {
            machine.say_waiting(at, wait, check, context);
        }
    }

    /// The connection is another one, on which every grant has been named: tells again of the transactions that wait.
    pub(crate) fn report_again(&self, context: LockContext<'_>) {
        self.lock().report_all(context);
    }

    /// A transaction waits in a cycle: it waits no more. It may have gone on meanwhile.
    pub fn deadlocked(&self, context: LockContext<'_>, wait: RequestId, cycle: Vec<WaitEdge>) {
        let mut machine = self.lock();
        let Some(mut waiter) = machine.find(wait).and_then(|at| machine.take_waiter(at)) else { return };
        waiter.goes_on(context);
        self.pump(machine, context);
        let _unwanted = waiter.ticket.complete(Err(LockFailure::Deadlock(cycle)));
    }
}

impl LocalWaiter {
    /// It waits no more.
    pub(super) fn goes_on(&mut self, context: LockContext<'_>) {
        let owner = self.owner.take();
        if let Some((owner, wait)) = owner.and_then(|owner| Some((owner.claim.owner, owner.reported?))) {
            context.outbox.send(&ToCoordinator::OwnerGoesOn { owner, wait });
        }
    }
}

impl Machine {
    fn place_of(&self, at: usize, mode: Mode) -> Place {
        let soon = at < RECALL_BATCH_MAX;
        let Some(grant) = self.state.grant() else {
            return Place { grant: Token::default(), turn: Turn::Over, soon };
        };
        // A write grant that is lent becomes a read grant, which serves on.
        let lent = self.state == LockState::WriteLent && mode == Mode::Read;
        let over = grant < mode || (self.state.is_recalled() && !lent && self.batch_left == 0);
        let batch = if self.state.is_recalled() { self.batch_left } else { RECALL_BATCH_MAX };
        // A read grant that the first one in the queue cannot use serves nobody until that one gives up.
        let blocked = self.waiters.front().is_some_and(|head| head.mode > grant);
        let turn = match over {
            true => Turn::Over,
            false if at < batch && !blocked => Turn::Present,
            false => Turn::Open,
        };
        Place { grant: self.token, turn, soon }
    }

    /// Where a transaction waits, unless it has given up.
    fn find(&self, wait: RequestId) -> Option<usize> {
        let waits = |waiter: &LocalWaiter| {
            let reported = waiter.owner.as_ref().and_then(|owner| owner.reported);
            reported == Some(wait) && !waiter.ticket.is_closed()
        };
        self.waiters.iter().position(waits)
    }

    /// Tells the coordinator of the transaction that came last, unless it need not wait. Behind the request for the
    /// lock: the coordinator knows the place of both then.
    pub(super) fn report(&mut self, context: LockContext<'_>) {
        let Some(last) = self.waiters.back_mut() else { return };
        let Some(owner) = last.owner.as_mut().filter(|owner| owner.reported.is_none()) else { return };
        // Ids go up, and this lock's queue is locked: whoever has the lower one is in front.
        let wait = context.requests.take();
        owner.reported = Some(wait);
        self.say_waiting(self.waiters.len() - 1, wait, CheckId::default(), context);
    }

    /// Nobody is served any more under a recalled grant: who waits, waits for all who hold it here to leave. Told once, to
    /// the coordinator, of those that it may think to be served before that.
    pub(super) fn report_over(&mut self, context: LockContext<'_>) {
        if self.over_told || !self.state.is_recalled() || self.batch_left > 0 {
            return;
        }
        self.over_told = true;
        self.report_all(context);
    }

    fn report_all(&self, context: LockContext<'_>) {
        for (at, waiter) in self.waiters.iter().enumerate() {
            if let Some(wait) = waiter.owner.as_ref().and_then(|owner| owner.reported) {
                self.say_waiting(at, wait, CheckId::default(), context);
            }
        }
    }

    fn say_waiting(&self, at: usize, wait: RequestId, check: CheckId, context: LockContext<'_>) {
        let Some((mode, owner)) = self.waiters.get(at).and_then(|waiter| Some((waiter.mode, waiter.owner.as_ref()?)))
        else {
            return;
        };
        context.outbox.send(&ToCoordinator::OwnerWaits(OwnerWait {
            owner: owner.claim.owner,
            begun: owner.claim.begun,
            wait,
            wanted: OwnerLock { object: context.object, group: context.group, mode },
            place: self.place_of(at, mode),
            holds: owner.claim.holds.clone(),
            check,
        }));
    }
}
