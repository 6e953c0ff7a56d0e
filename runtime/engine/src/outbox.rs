//! The one ordered stream from this node to the coordinator, and the commits that are not yet safe.
//!
//! Everything that goes up goes through here, so a release can never overtake the commits made under its grant. A
//! commit's slots are published and queued in one critical section: the order of publication is the order of sequence
//! numbers, and a record that replaces a copy finds every commit that it lacks. No I/O: the driver takes the bytes.
//!
//! A coordinator with a log may be started again and lack what it has answered: so a commit is kept until it is safe in
//! that log, and sent again until then. Of one without a log it is kept until it is answered.
//!
//! While the connection is lost, commits are kept to be sent again, and everything else is dropped: what the node holds
//! and wants by then is told anew when it is back (`link.rs`).

use crate::journal::OnReturn;
use crate::ticket::Ticket;
use bytes::Bytes;
use kiln_protocol::codec::{FrameDecoder, decode_to_coordinator, encode_commit, encode_to_coordinator};
use kiln_protocol::message::{Commit, Failure};
use kiln_protocol::{CommitSeq, Epoch, GroupId, ObjectId, ToCoordinator, Token, Version};
use smallvec::SmallVec;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What became of a commit.
pub type Outcome = Result<(), CommitFailure>;

/// Why a queued commit was not applied.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitFailure {
    /// The coordinator refused it: nothing of it happened.
    #[error("the coordinator refused the commit: {0}")]
    Refused(Failure),
    /// The lease lapsed before an answer: the journal has it, and it is applied once, now or on the return, or reported.
    #[error("the lease lapsed before the commit was answered: it is kept to be asked for when the cluster is back")]
    Kept,
    /// The connection ended before an answer: it may or may not have been applied.
    #[error("the connection ended before the commit was answered: whether it was applied is unknown")]
    Unknown,
}

/// Why a commit could not be queued.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueError<E> {
    /// The outbox has no room for this many bytes; wait for space.
    Full,
    /// The node is no longer attached.
    Closed,
    /// The lease under which the commit was prepared has lapsed.
    Fenced,
    /// The slots could not be published.
    Publish(E),
}

/// One part of a commit, ready to be sent.
#[derive(Clone, Debug)]
pub struct OutPart {
    /// The object.
    pub object: ObjectId,
    /// The group.
    pub group: GroupId,
    /// The token of the write grant.
    pub token: Token,
    /// The version that the commit makes.
    pub version: Version,
    /// The encoded slot writes.
    pub writes: SmallVec<[u8; 64]>,
}

#[derive(Debug)]
struct Inner {
    epoch: Epoch,
    /// Bytes that the driver has not taken.
    wire: Vec<u8>,
    /// The frames of the commits `safe + 1 ..= last`, one after the other.
    retained: VecDeque<u8>,
    retained_parts: VecDeque<Retained>,
    /// Those of them that were refused: they are sent again as nothing, so that they count.
    refused: BTreeSet<CommitSeq>,
    /// The last commit that need not be kept: that is durable, or, where none is, answered.
    safe: CommitSeq,
    /// The last commit that was answered.
    acked: CommitSeq,
    last: CommitSeq,
    applied_waiters: Waiting,
    durable_waiters: Waiting,
    everywhere_waiters: Waiting,
    space_waiters: Vec<Arc<Ticket<()>>>,
    writer: Option<Waker>,
    link: Link,
    /// The node is about to leave: no new commits.
    leaving: bool,
    /// Counts the incarnations: a commit that was prepared under an earlier one is not made.
    life: u64,
    commits: u64,
    commit_bytes: u64,
}

/// A commit that is retained.
#[derive(Clone, Copy, Debug)]
struct Retained {
    /// The length of its frame.
    bytes: u32,
    /// When the lease lapses before the answer, it is for the journal.
    keep: Option<OnReturn>,
}

/// What becomes of what is queued.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Link {
    /// It is sent.
    Up,
    /// The connection is lost, the lease is not: commits are kept.
    Down,
    /// The lease has lapsed: nothing is taken.
    Lapsed,
    /// The node is no longer attached.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    inner: Mutex<Inner>,
    bytes_max: usize,
    /// The coordinator keeps a log.
    durable: bool,
}

impl Outbox {
    /// An outbox of a connection with this epoch that keeps at most `bytes_max` bytes of unsafe commits; `durable`: until
    /// the coordinator's log has them.
    #[must_use]
    pub fn new(epoch: Epoch, bytes_max: usize, durable: bool) -> Self {
        let inner = Inner {
            epoch,
            wire: Vec::new(),
            retained: VecDeque::new(),
            retained_parts: VecDeque::new(),
            refused: BTreeSet::new(),
            safe: CommitSeq::default(),
            acked: CommitSeq::default(),
            last: CommitSeq::default(),
            applied_waiters: VecDeque::new(),
            durable_waiters: VecDeque::new(),
            everywhere_waiters: VecDeque::new(),
            space_waiters: Vec::new(),
            writer: None,
            link: Link::Up,
            leaving: false,
            life: 0,
            commits: 0,
            commit_bytes: 0,
        };
        Self { inner: Mutex::new(inner), bytes_max, durable }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message. Nothing happens once the node is no longer attached.
    pub fn send(&self, message: &ToCoordinator) {
        let mut inner = self.lock();
        if inner.link == Link::Up {
            let epoch = inner.epoch;
            encode_to_coordinator(&mut inner.wire, epoch, message);
            wake(inner);
        }
    }

    /// As [`send`](Self::send), with a message that is made while no commit can be.
    pub fn send_with(&self, make: impl FnOnce() -> Option<ToCoordinator>) {
        let mut inner = self.lock();
        if inner.link != Link::Up {
            return;
        }
        let epoch = inner.epoch;
        if let Some(message) = make() {
            encode_to_coordinator(&mut inner.wire, epoch, &message);
            wake(inner);
        }
    }

    /// Publishes a commit here and queues it, as one step. `publish` must do all or nothing.
    ///
    /// # Errors
    /// [`QueueError`]; then nothing was published or queued.
    pub fn commit<E>(
        &self,
        life: Option<u64>,
        parts: &[OutPart],
        waiter: Waiter,
        publish: impl FnOnce() -> Result<(), E>,
    ) -> Result<CommitSeq, QueueError<E>> {
        self.commit_to_keep(life, None, parts, waiter, publish)
    }

    /// As [`commit`](Self::commit). When the lease lapses before the answer, [`Outbox::lapse`] gives the commit out.
    pub(crate) fn commit_to_keep<E>(
        &self,
        life: Option<u64>,
        keep: Option<OnReturn>,
        parts: &[OutPart],
        waiter: Waiter,
        publish: impl FnOnce() -> Result<(), E>,
    ) -> Result<CommitSeq, QueueError<E>> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        match inner.link {
            Link::Up | Link::Down => {}
            Link::Lapsed => return Err(QueueError::Fenced),
            Link::Closed => return Err(QueueError::Closed),
        }
        if inner.leaving {
            return Err(QueueError::Closed);
        }
        if life.is_some_and(|life| life != inner.life) {
            return Err(QueueError::Fenced);
        }
        let epoch = inner.epoch;
        let start = inner.wire.len();
        let (everywhere, durable) = (matches!(waiter, Waiter::Everywhere(_)), matches!(waiter, Waiter::Durable(_)));
        let slots = parts.iter().map(|part| (part.object, part.group, part.token, part.version, &part.writes[..]));
        encode_commit(&mut inner.wire, epoch, everywhere, durable, slots);
        let length = inner.wire.len() - start;
        // A commit larger than the whole outbox may go when nothing else waits.
        if inner.retained.len() + length > self.bytes_max && !inner.retained.is_empty() {
            inner.wire.truncate(start);
            return Err(QueueError::Full);
        }
        if let Err(error) = publish() {
            inner.wire.truncate(start);
            return Err(QueueError::Publish(error));
        }
        let seq = inner.last.next();
        inner.last = seq;
        inner.retained.extend(&inner.wire[start..]);
        let bytes = u32::try_from(length).expect("a commit is shorter than a frame");
        inner.retained_parts.push_back(Retained { bytes, keep });
        inner.commits += 1;
        inner.commit_bytes += length as u64;
        if inner.link == Link::Down {
            inner.wire.truncate(start);
        }
        match waiter {
            Waiter::None => {}
            Waiter::Applied(ticket) => inner.applied_waiters.push_back((seq, ticket)),
            Waiter::Durable(ticket) => inner.durable_waiters.push_back((seq, ticket)),
            Waiter::Everywhere(ticket) => inner.everywhere_waiters.push_back((seq, ticket)),
        }
        wake(guard);
        Ok(seq)
    }

    /// A ticket for the next time that room is made. Take it, try once more, and only then wait.
    pub fn wait_for_space(&self) -> Arc<Ticket<()>> {
        let ticket = Ticket::new();
        let mut inner = self.lock();
        if inner.link == Link::Closed {
            drop(inner);
            let _ready = ticket.complete(());
        } else {
            inner.space_waiters.retain(|waiter| !waiter.is_closed());
            inner.space_waiters.push(Arc::clone(&ticket));
        }
        ticket
    }

    /// Moves what is to be sent into `out` (which must be empty), or leaves a waker.
    pub fn poll_output(&self, context: &Context<'_>, out: &mut Vec<u8>) -> Poll<Output> {
        let mut inner = self.lock();
        if !inner.wire.is_empty() {
            std::mem::swap(&mut inner.wire, out);
            return Poll::Ready(Output::Bytes);
        }
        if inner.link == Link::Closed {
            return Poll::Ready(Output::Closed);
        }
        inner.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Moves what is to be sent behind `out`, without waiting.
    pub fn take_output(&self, out: &mut Vec<u8>) {
        out.append(&mut self.lock().wire);
    }

    /// The coordinator has ordered every commit up to `applied`.
    pub fn acked(&self, applied: CommitSeq) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let applied = applied.min(inner.last);
        // What was sent again was answered once before.
        if applied <= inner.acked {
            return;
        }
        inner.acked = applied;
        let space = if self.durable { Vec::new() } else { inner.let_go(applied) };
        let done = take_done(&mut inner.applied_waiters, applied);
        drop(guard);
        tell_done(done, space);
    }

    /// The coordinator's log has every commit up to this one.
    pub fn durable(&self, seq: CommitSeq) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let seq = seq.min(inner.acked);
        let space = inner.let_go(seq);
        let done = take_done(&mut inner.durable_waiters, seq);
        drop(guard);
        tell_done(done, space);
    }

    /// The commit is visible nowhere in its old form.
    pub fn everywhere_reached(&self, reached: CommitSeq) {
        let mut inner = self.lock();
        let found = inner.everywhere_waiters.iter().position(|(seq, _)| *seq == reached);
        let waiter = found.and_then(|index| inner.everywhere_waiters.remove(index));
        drop(inner);
        if let Some((_, ticket)) = waiter {
            let _unwanted = ticket.complete(Ok(()));
        }
    }

    /// The coordinator refused a commit. Returns the commit, whose slots were already published here, and whether
    /// somebody waited for its answer.
    pub fn refused(&self, refused: CommitSeq, failure: &Failure) -> (Option<Commit>, bool) {
        let mut inner = self.lock();
        let mut waiter = None;
        // It was told so before, and sent as nothing.
        if refused <= inner.safe || !inner.refused.insert(refused) {
            return (None, true);
        }
        let Inner { applied_waiters, durable_waiters, everywhere_waiters, .. } = &mut *inner;
        for waiters in [applied_waiters, durable_waiters, everywhere_waiters] {
            if let Some(index) = waiters.iter().position(|(seq, _)| *seq == refused) {
                waiter = waiters.remove(index);
            }
        }
        let mut found = None;
        each_retained(&inner, |seq, commit| {
            if seq == refused {
                found = Some(commit);
            }
        });
        drop(inner);
        let told =
            waiter.is_some_and(|(_, ticket)| ticket.complete(Err(CommitFailure::Refused(failure.clone()))).is_ok());
        (found, told)
    }

    /// Runs `install` while no commit can be made, and shows it the commits after `applied` that are not yet
    /// acknowledged: what a record that was made after `applied` lacks.
    pub fn with_unacknowledged<R>(&self, applied: CommitSeq, install: impl FnOnce(&[(CommitSeq, Commit)]) -> R) -> R {
        let inner = self.lock();
        let mut missing = Vec::new();
        if inner.last > applied {
            each_retained(&inner, |seq, commit| {
                if seq > applied && !inner.refused.contains(&seq) {
                    missing.push((seq, commit));
                }
            });
        }
        install(&missing)
    }

    /// Commits that are not safe with the coordinator, and their bytes.
    pub fn unacknowledged(&self) -> (u64, usize) {
        let inner = self.lock();
        (inner.last.to_bits() - inner.safe.to_bits(), inner.retained.len())
    }

    /// Commits made here, and their bytes above QUIC.
    pub fn totals(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.commits, inner.commit_bytes)
    }

    /// The last commit made here.
    pub fn last(&self) -> CommitSeq {
        self.lock().last
    }

    /// The node is no longer attached: every waiter learns that its commit's fate is unknown.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.link = Link::Closed;
        let applied = std::mem::take(&mut inner.applied_waiters);
        let durable = std::mem::take(&mut inner.durable_waiters);
        let everywhere = std::mem::take(&mut inner.everywhere_waiters);
        let space = std::mem::take(&mut inner.space_waiters);
        wake(inner);
        for (_, ticket) in applied.into_iter().chain(durable).chain(everywhere) {
            let _unwanted = ticket.complete(Err(CommitFailure::Unknown));
        }
        for ticket in space {
            let _unwanted = ticket.complete(());
        }
    }
}

/// Who waits for a commit, and for what.
#[derive(Clone, Debug)]
pub enum Waiter {
    /// Nobody.
    None,
    /// Until the coordinator has ordered it.
    Applied(Arc<Ticket<Outcome>>),
    /// Until the coordinator's log has it.
    Durable(Arc<Ticket<Outcome>>),
    /// Until no node shows the old version.
    Everywhere(Arc<Ticket<Outcome>>),
}

/// What [`Outbox::poll_output`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Output {
    /// Bytes to send.
    Bytes,
    /// Nothing, and nothing will come.
    Closed,
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let writer = inner.writer.take();
    drop(inner);
    if let Some(writer) = writer {
        writer.wake();
    }
}

impl Inner {
    /// Commits up to this one need not be kept any longer. Returns who waits for the room.
    fn let_go(&mut self, safe: CommitSeq) -> Vec<Arc<Ticket<()>>> {
        let Some(count) = safe.to_bits().checked_sub(self.safe.to_bits()) else { return Vec::new() };
        let count = usize::try_from(count).expect("as many as are retained");
        let bytes: usize = self.retained_parts.drain(..count).map(|part| part.bytes as usize).sum();
        self.retained.drain(..bytes);
        self.refused = self.refused.split_off(&safe.next());
        self.safe = safe;
        std::mem::take(&mut self.space_waiters)
    }
}

type Waiting = VecDeque<(CommitSeq, Arc<Ticket<Outcome>>)>;

fn take_done(waiting: &mut Waiting, until: CommitSeq) -> SmallVec<[Arc<Ticket<Outcome>>; 64]> {
    let mut done = SmallVec::new();
    while let Some((_, ticket)) = waiting.pop_front_if(|(seq, _)| *seq <= until) {
        done.push(ticket);
    }
    done
}

/// Not under the outbox's lock.
fn tell_done(done: SmallVec<[Arc<Ticket<Outcome>>; 64]>, space: Vec<Arc<Ticket<()>>>) {
    for ticket in done {
        // Whoever dropped the future does not want to know.
        let _unwanted = ticket.complete(Ok(()));
    }
    for ticket in space {
        let _unwanted = ticket.complete(());
    }
}

fn each_retained(inner: &Inner, mut visit: impl FnMut(CommitSeq, Commit)) {
    let (front, back) = inner.retained.as_slices();
    let mut decoder = FrameDecoder::default();
    decoder.push(front);
    decoder.push(back);
    let mut seq = inner.safe;
    while let Some(frame) = next_own_frame(&mut decoder) {
        seq = seq.next();
        if let Ok(ToCoordinator::Commit(commit)) = decode_to_coordinator(inner.epoch, &frame) {
            visit(seq, commit);
        }
    }
}

fn next_own_frame(decoder: &mut FrameDecoder) -> Option<Bytes> {
    decoder.next_frame().expect("frames of our own making")
}

mod reconnect;
pub(crate) use reconnect::Lapsed;
#[cfg(test)]
mod tests;
