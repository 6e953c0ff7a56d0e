//! What becomes of a lock when the connection, or the lease, is lost.

use super::{GroupLock, LockContext, LockEvent, LockFailure, LockState, fail_waiters};
use kiln_protocol::message::Mode;
use kiln_protocol::{ToCoordinator, Token};

impl LockState {
    const fn not_recalled(self) -> Self {
        match self {
            Self::ReadRecalled => Self::Read,
            Self::UpgradingRecalled => Self::Upgrading,
            Self::WriteLent | Self::WriteRecalled => Self::Write,
            Self::Free | Self::Requested | Self::Read | Self::Upgrading | Self::Write => self,
        }
    }
}

impl LockContext<'_> {
    /// Answers a recall of what this node does not have. Mostly it has just been given back, and this changes nothing.
    pub(crate) fn does_not_have(self, token: Token) {
        let Self { object, group, outbox, .. } = self;
        outbox.send(&ToCoordinator::Release { object, group, token, keep_read: false });
    }
}

impl GroupLock {
    /// The connection is another one: names the grant, and asks again for what was asked for. The coordinator has forgotten
    /// what it wanted back, and says so again if it still does: perhaps for less.
    pub(crate) fn resync(&self, context: LockContext<'_>) {
        let mut machine = self.lock();
        let LockContext { object, group, outbox, .. } = context;
        machine.state = machine.state.not_recalled();
        if let Some(mode) = machine.state.grant() {
            outbox.send(&ToCoordinator::Reassert { object, group, token: machine.token, mode });
        }
        machine.send_request(context);
        self.pump(machine, context);
    }

    /// The object is another's by its id: what was asked for under one that only this node knew is asked for again.
    pub(crate) fn adopted(&self, context: LockContext<'_>) {
        let mut machine = self.lock();
        if machine.request.take().is_some() {
            machine.step(LockEvent::Withdrawn);
        }
        self.pump(machine, context);
    }

    /// The grant is not this node's any more, for all that it knew.
    pub(crate) fn grant_lost(&self, context: LockContext<'_>, token: Token) {
        let mut machine = self.lock();
        if machine.token != token || machine.state.grant().is_none() || machine.dead.is_some() {
            return;
        }
        machine.lose(&self.cell);
        self.pump(machine, context);
    }

    /// The cluster is away: the tasks of this node have the lock among themselves. Whoever held it before still does.
    pub(crate) fn grant_alone(&self, context: LockContext<'_>) {
        let mut machine = self.lock();
        if machine.dead.is_none() && machine.state != LockState::Write {
            machine.state = LockState::Write;
            machine.request = None;
            self.cell.set_grant(Some(Mode::Write), machine.token);
            self.pump(machine, context);
        }
    }

    /// The cluster is back: what the tasks of this node had among themselves is gone, and whoever waits for that is told.
    pub(crate) fn end_alone(&self) {
        if self.is_granted(Mode::Read) {
            self.fenced();
        }
    }

    /// The node's lease has lapsed: the grant is gone, and whoever waits is told. Who holds the lock still does, here;
    /// what they commit is refused.
    pub(crate) fn fenced(&self) {
        let mut machine = self.lock();
        if machine.dead.is_some() {
            return;
        }
        machine.lose(&self.cell);
        fail_waiters(machine, &LockFailure::Fenced);
    }
}
