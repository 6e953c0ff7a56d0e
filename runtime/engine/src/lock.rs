//! One lock of one (object, group), as this node sees it: a cached grant, its local holders, and who waits for it.
//!
//! The fast path is [`GrantCell`]; everything else goes through the state machine behind the mutex. A recall lets the
//! present holder and the tasks that already waited finish, at most [`RECALL_BATCH_MAX`] of them, and nobody after that;
//! then the grant goes back behind the commits made under it.

use crate::grant::GrantCell;
use crate::outbox::Outbox;
use crate::ticket::Ticket;
use kiln_protocol::message::{Failure, Mode, WaitEdge};
use kiln_protocol::{GroupId, ObjectId, RequestId, ToCoordinator, Token};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod owner;
mod reconnect;

pub use owner::Claim;
use owner::Waiting;

/// How many tasks that waited when a recall came are still served before the grant goes back.
pub const RECALL_BATCH_MAX: usize = 64;

/// What a waiting task is told.
pub type Admission = Result<(), LockFailure>;

/// Why a lock cannot be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LockFailure {
    /// The coordinator says so.
    Refused(Failure),
    /// The node's lease lapsed while it waited.
    Fenced,
    /// The transaction that waits for it is one of a cycle of transactions that wait for each other: this one has to
    /// give way. The cycle, from this wait on.
    Deadlock(Vec<WaitEdge>),
    /// The node is no longer attached.
    Disconnected,
}

macro_rules! states { ($name:ident { $($v:ident),* $(,)? }) => {
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum $name { $($v),* }
    #[cfg(test)]
    impl $name { const ALL: &'static [Self] = &[$(Self::$v),*]; }
} }

states!(LockState {
    Free,
    Requested,
    Read,
    Upgrading,
    Write,
    ReadRecalled,
    UpgradingRecalled,
    WriteLent,
    WriteRecalled,
});
states!(LockEvent { Need, GrantedRead, GrantedWrite, RecalledForRead, RecalledForWrite, Drained, Withdrawn, Lost });

impl LockState {
    const fn next(self, event: LockEvent) -> Option<Self> {
        use LockEvent as E;
        Some(match (self, event) {
            (_, E::Lost) | (Self::Requested, E::Withdrawn) | (Self::ReadRecalled | Self::WriteRecalled, E::Drained) => {
                Self::Free
            }
            (Self::Free, E::Need) | (Self::UpgradingRecalled, E::Drained) => Self::Requested,
            (Self::Free, E::GrantedRead) | (Self::Upgrading, E::Withdrawn) | (Self::WriteLent, E::Drained) => {
                Self::Read
            }
            // A request that was taken back was granted nevertheless, and the one that is out is another.
            (Self::Requested, E::GrantedRead) | (Self::Read, E::Need) => Self::Upgrading,
            // The write grant takes the place of the read grant, recalled or not.
            (Self::Free | Self::Requested, E::GrantedWrite)
            | (Self::Read | Self::Upgrading | Self::ReadRecalled | Self::UpgradingRecalled, E::GrantedWrite) => {
                Self::Write
            }
            // A later read grant takes the place of one that is recalled.
            (Self::ReadRecalled, E::GrantedRead) => Self::Read,
            (Self::UpgradingRecalled, E::GrantedRead) => Self::Upgrading,
            (Self::Read, E::RecalledForWrite) | (Self::UpgradingRecalled, E::Withdrawn) => Self::ReadRecalled,
            (Self::Upgrading, E::RecalledForWrite) => Self::UpgradingRecalled,
            (Self::Write, E::RecalledForRead) => Self::WriteLent,
            (Self::Write | Self::WriteLent, E::RecalledForWrite) => Self::WriteRecalled,
            _ => return None,
        })
    }

    const fn grant(self) -> Option<Mode> {
        match self {
            Self::Free | Self::Requested => None,
            Self::Read | Self::Upgrading | Self::ReadRecalled | Self::UpgradingRecalled => Some(Mode::Read),
            Self::Write | Self::WriteLent | Self::WriteRecalled => Some(Mode::Write),
        }
    }

    const fn is_recalled(self) -> bool {
        matches!(self, Self::ReadRecalled | Self::UpgradingRecalled | Self::WriteLent | Self::WriteRecalled)
    }
}

#[derive(Debug)]
struct LocalWaiter {
    mode: Mode,
    ticket: Arc<Ticket<Admission>>,
    /// The transaction that waits.
    owner: Option<Box<Waiting>>,
}

#[derive(Debug)]
struct Machine {
    state: LockState,
    waiters: VecDeque<LocalWaiter>,
    /// The request that is out: there is one in `Requested`, `Upgrading` and `UpgradingRecalled`. In other states one may
    /// be out that an earlier grant has overtaken; it will be answered.
    request: Option<(RequestId, Mode)>,
    token: Token,
    /// The highest token given back: a grant delivered again after its release is ignored (S22).
    released: Token,
    /// Waiters that may still be served under a recalled grant.
    batch_left: usize,
    want_record: bool,
    /// The transactions that wait were told of again since the recall, as waiting for the next grant.
    over_told: bool,
    /// Why no lock can be had any more.
    dead: Option<LockFailure>,
}

/// What a lock needs to talk to the coordinator.
#[derive(Clone, Copy, Debug)]
pub struct LockContext<'a> {
    /// The object.
    pub object: ObjectId,
    /// The group.
    pub group: GroupId,
    /// Where messages go.
    pub outbox: &'a Outbox,
    /// Where request ids come from.
    pub requests: &'a RequestIds,
}

/// Gives out request ids.
#[derive(Debug, Default)]
pub struct RequestIds {
    last: AtomicU64,
    newest_grant: AtomicU64,
}

impl RequestIds {
    /// The next id, from 1.
    pub fn take(&self) -> RequestId {
        // Relaxed: only uniqueness is needed.
        RequestId::from_bits(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The newest grant that this node was told of: the time, as far as all nodes know it.
    pub fn newest_grant(&self) -> Token {
        // Relaxed: nothing hangs on how new it is.
        Token::from_bits(self.newest_grant.load(Ordering::Relaxed))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct GroupLock {
    cell: GrantCell,
    machine: Mutex<Machine>,
}

type Admitted = SmallVec<[LocalWaiter; 8]>;

impl GroupLock {
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock if that needs nobody else.
    pub fn try_enter(&self, mode: Mode) -> bool {
        self.cell.try_enter(mode)
    }

    /// The token of the grant. Meaningful to a holder.
    pub fn token(&self) -> Token {
        self.cell.token()
    }

    /// Whether this node has a grant of at least this mode, whoever holds it here.
    pub fn is_granted(&self, mode: Mode) -> bool {
        self.lock().state.grant().is_some_and(|grant| grant >= mode)
    }

    /// Queues for the lock. The ticket completes when the caller holds it; `None`: it does already.
    pub fn enter(&self, context: LockContext<'_>, mode: Mode, want_record: bool) -> Option<Arc<Ticket<Admission>>> {
        self.enter_for(context, mode, want_record, || None)
    }

    /// As [`enter`](Self::enter), on behalf of a transaction: while it waits, the coordinator knows of it.
    pub fn enter_for(
        &self,
        context: LockContext<'_>,
        mode: Mode,
        want_record: bool,
        claim: impl FnOnce() -> Option<Claim>,
    ) -> Option<Arc<Ticket<Admission>>> {
        if self.cell.try_enter(mode) {
            return None;
        }
        let ticket = Ticket::new();
        let owner = claim().map(|claim| Box::new(Waiting { claim, reported: None }));
        let mut machine = self.lock();
        if let Some(failure) = machine.dead.clone() {
            drop(machine);
            let _unwanted = ticket.complete(Err(failure));
            return Some(ticket);
        }
        self.cell.close();
        machine.want_record |= want_record;
        machine.waiters.push_back(LocalWaiter { mode, ticket: Arc::clone(&ticket), owner });
        self.pump(machine, context);
        Some(ticket)
    }

    /// Leaves the lock.
    pub fn leave(&self, context: LockContext<'_>, mode: Mode) {
        if self.cell.leave(mode) {
            self.pump(self.lock(), context);
        }
    }

    /// A waiter gave up: its ticket is closed. If it was admitted before that, it leaves.
    pub fn give_up(&self, context: LockContext<'_>, mode: Mode, ticket: &Ticket<Admission>) {
        if let Some(Ok(())) = ticket.close() {
            self.leave(context, mode);
            return;
        }
        let mut machine = self.lock();
        if let Some(waiter) = machine.waiters.iter_mut().find(|waiter| std::ptr::eq(&raw const *waiter.ticket, ticket))
        {
            waiter.goes_on(context);
        }
        self.pump(machine, context);
    }

    /// A grant arrived. Returns `false` when it changes nothing.
    ///
    /// Every grant counts, also one whose request was taken back, unless it was given back already: for the coordinator
    /// this node has it until it is released.
    pub fn granted(
        &self,
        context: LockContext<'_>,
        request: RequestId,
        mode: Mode,
        token: Token,
        cached: bool,
    ) -> bool {
        context.requests.newest_grant.fetch_max(token.to_bits(), Ordering::Relaxed);
        let mut machine = self.lock();
        if machine.dead.is_some() {
            return false;
        }
        if machine.asked() == Some(request) {
            machine.request = None;
            machine.step(LockEvent::Withdrawn);
        }
        let event = if mode == Mode::Write { LockEvent::GrantedWrite } else { LockEvent::GrantedRead };
        let is_new = token > machine.released && (machine.state.grant().is_none() || token > machine.token);
        let news = is_new && machine.step(event);
        if news {
            machine.want_record = false;
            machine.token = token;
            self.cell.close();
            self.cell.set_grant(Some(mode), token);
            if !cached {
                machine.recall(Mode::Write);
            }
        }
        self.pump(machine, context);
        news
    }

    /// A grant that came with a new object.
    pub fn granted_at_creation(&self, context: LockContext<'_>, token: Token) {
        self.granted(context, RequestId::default(), Mode::Write, token, true);
    }

    /// The coordinator wants the grant back.
    pub fn recalled(&self, context: LockContext<'_>, token: Token, wanted: Mode) {
        let mut machine = self.lock();
        if machine.token != token || machine.state.grant().is_none() {
            if machine.dead.is_none() {
                context.does_not_have(token);
            }
            return;
        }
        machine.recall(wanted);
        self.cell.close();
        self.pump(machine, context);
    }

    /// The coordinator cannot grant the request: all who wait are told.
    pub fn refused(&self, context: LockContext<'_>, request: RequestId, failure: &Failure) {
        let mut machine = self.lock();
        if machine.asked() != Some(request) {
            return;
        }
        machine.request = None;
        machine.step(LockEvent::Withdrawn);
        for waiter in &mut machine.waiters {
            waiter.goes_on(context);
        }
        fail_waiters(machine, &LockFailure::Refused(failure.clone()));
    }

    /// The grant is gone, without a release: the object was destroyed or the node is no longer attached.
    pub fn lost(&self, failure: &LockFailure) {
        let mut machine = self.lock();
        machine.dead = Some(failure.clone());
        machine.lose(&self.cell);
        fail_waiters(machine, failure);
    }

    /// Brings lock, waiters and coordinator together. May be called at any time.
    fn pump(&self, mut machine: MutexGuard<'_, Machine>, context: LockContext<'_>) {
        let mut admitted = Admitted::new();
        machine.admit(&self.cell, context, &mut admitted);
        machine.give_back(&self.cell, context);
        // What became a read grant lets the readers in who came after the recall.
        machine.admit(&self.cell, context, &mut admitted);
        machine.request_for_waiters(context);
        machine.report(context);
        machine.report_over(context);
        if machine.waiters.is_empty() && !machine.state.is_recalled() && machine.state.grant().is_some() {
            self.cell.open();
        }
        drop(machine);
        for waiter in admitted {
            if waiter.ticket.complete(Ok(())).is_err() {
                // It gave up while it was being admitted.
                self.leave(context, waiter.mode);
            }
        }
    }
}

/// Tells all who wait, with the lock's queue free again.
fn fail_waiters(mut machine: MutexGuard<'_, Machine>, failure: &LockFailure) {
    let waiters = std::mem::take(&mut machine.waiters);
    drop(machine);
    for waiter in waiters {
        let _unwanted = waiter.ticket.complete(Err(failure.clone()));
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            state: LockState::Free,
            waiters: VecDeque::new(),
            request: None,
            token: Token::default(),
            released: Token::default(),
            batch_left: 0,
            want_record: false,
            over_told: false,
            dead: None,
        }
    }
}

impl Machine {
    fn asked(&self) -> Option<RequestId> {
        self.request.map(|(request, _)| request)
    }

    fn lose(&mut self, cell: &GrantCell) {
        self.step(LockEvent::Lost);
        self.request = None;
        self.batch_left = 0;
        self.released = self.released.max(self.token);
        cell.close();
        cell.set_grant(None, self.token);
    }

    fn step(&mut self, event: LockEvent) -> bool {
        self.state.next(event).is_some_and(|next| {
            self.state = next;
            true
        })
    }

    fn recall(&mut self, wanted: Mode) {
        let before = self.state;
        let event = if wanted == Mode::Read { LockEvent::RecalledForRead } else { LockEvent::RecalledForWrite };
        if self.step(event) {
            self.over_told = false;
            if !before.is_recalled() {
                self.batch_left = self.waiters.len().min(RECALL_BATCH_MAX);
            }
        }
    }

    /// Nobody takes the place of one that was to be served under a recalled grant.
    fn take_waiter(&mut self, at: usize) -> Option<LocalWaiter> {
        self.batch_left -= usize::from(at < self.batch_left);
        self.waiters.remove(at)
    }

    fn admit(&mut self, cell: &GrantCell, context: LockContext<'_>, admitted: &mut Admitted) {
        while let Some(head) = self.waiters.front() {
            if head.ticket.is_closed() {
                self.take_waiter(0);
                continue;
            }
            if self.state.is_recalled() && self.batch_left == 0 {
                return;
            }
            if !cell.enter_closed(head.mode) {
                return;
            }
            if let Some(mut waiter) = self.take_waiter(0) {
                waiter.goes_on(context);
                admitted.push(waiter);
            }
        }
    }

    fn give_back(&mut self, cell: &GrantCell, context: LockContext<'_>) {
        if !self.state.is_recalled() {
            return;
        }
        let keep_read = self.state == LockState::WriteLent;
        let served =
            self.batch_left == 0 || self.waiters.front().is_none_or(|head| Some(head.mode) > self.state.grant());
        let drained = if keep_read { !cell.has_writer() } else { cell.is_idle() };
        if !served || !drained {
            return;
        }
        let token = self.token;
        if !self.step(LockEvent::Drained) {
            return;
        }
        if !keep_read {
            self.released = self.released.max(token);
        }
        cell.set_grant(self.state.grant(), token);
        context.outbox.send(&ToCoordinator::Release { object: context.object, group: context.group, token, keep_read });
    }

    fn request_for_waiters(&mut self, context: LockContext<'_>) {
        while self.waiters.front().is_some_and(|head| head.ticket.is_closed()) {
            self.take_waiter(0);
        }
        let Some(head) = self.waiters.front() else {
            return self.withdraw(context);
        };
        let mode = head.mode;
        // The writer that it was for has given up: readers of other nodes would wait behind it for nobody.
        if mode == Mode::Read && self.request.is_some_and(|(_, asked)| asked == Mode::Write) {
            self.withdraw(context);
        }
        if self.request.is_none() && self.state.grant() < Some(mode) && self.step(LockEvent::Need) {
            self.request = Some((context.requests.take(), mode));
            self.send_request(context);
        }
    }

    fn withdraw(&mut self, context: LockContext<'_>) {
        if let Some((request, _)) = self.request.take() {
            self.step(LockEvent::Withdrawn);
            context.outbox.send(&ToCoordinator::Withdraw { request, object: context.object, group: context.group });
        }
    }

    fn send_request(&self, context: LockContext<'_>) {
        if let Some((request, mode)) = self.request {
            context.outbox.send(&ToCoordinator::Acquire {
                request,
                object: context.object,
                group: context.group,
                mode,
                want_record: self.want_record,
            });
        }
    }
}

#[cfg(test)]
mod tests;
