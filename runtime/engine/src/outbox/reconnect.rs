//! What becomes of queued commits when the connection, or the lease, is lost.

use super::{Inner, Link, Outbox, Outcome, each_retained, wake};
use crate::journal::OnReturn;
use crate::ticket::Ticket;
use kiln_protocol::codec::encode_to_coordinator;
use kiln_protocol::message::Commit;
use kiln_protocol::{CommitSeq, Epoch, ToCoordinator};
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What was not safe when the lease lapsed.
#[derive(Debug)]
pub(crate) struct Lapsed {
    /// Commits without an answer, in order.
    pub(crate) unanswered: BTreeSet<CommitSeq>,
    /// Commits for the journal: those of them, and those that the coordinator's log may lack.
    pub(crate) to_keep: Vec<(CommitSeq, OnReturn, Commit)>,
    /// Who waits for some of them, or for commits that were answered to be more than that.
    pub(crate) waiting: Vec<(CommitSeq, Arc<Ticket<Outcome>>)>,
}

impl Inner {
    /// The frames of kept commits as they are to be sent on a connection of this epoch.
    fn encode_again(&mut self, epoch: Epoch) {
        if epoch == self.epoch && self.refused.is_empty() {
            return;
        }
        let (mut frames, mut parts) = (Vec::with_capacity(self.retained.len()), self.retained_parts.clone());
        let mut bytes = parts.iter_mut().map(|part| &mut part.bytes);
        each_retained(self, |seq, commit| {
            let nothing = || Commit { everywhere: false, durable: false, parts: SmallVec::new() };
            let commit = if self.refused.contains(&seq) { nothing() } else { commit };
            let start = frames.len();
            encode_to_coordinator(&mut frames, epoch, &ToCoordinator::Commit(commit));
            let length = u32::try_from(frames.len() - start).expect("a commit is shorter than a frame");
            bytes.next().map(|bytes| *bytes = length).expect("each has its part");
        });
        self.retained = frames.into();
        self.retained_parts = parts;
        self.epoch = epoch;
    }
}

impl Outbox {
    /// The node is about to leave: no commit is taken any more.
    pub fn leave(&self) {
        self.lock().leaving = true;
    }

    /// The connection is lost. What was queued is not sent on another.
    pub fn down(&self) {
        let mut inner = self.lock();
        if inner.link == Link::Up {
            inner.link = Link::Down;
            inner.wire.clear();
        }
    }

    /// There is another connection, of this epoch, on which commits up to `applied` need not be sent again. Returns the
    /// commits among them that somebody still waits for to be everywhere; `None` when `applied` cannot be true.
    pub fn resume(&self, epoch: Epoch, applied: CommitSeq) -> Option<Vec<CommitSeq>> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if applied < inner.safe || applied > inner.last || inner.link != Link::Down {
            return None;
        }
        inner.encode_again(epoch);
        let skipped = usize::try_from(applied.to_bits() - inner.safe.to_bits()).expect("as many as are retained");
        let bytes: usize = inner.retained_parts.iter().take(skipped).map(|part| part.bytes as usize).sum();
        inner.wire.clear();
        inner.wire.extend(inner.retained.range(bytes..));
        inner.link = Link::Up;
        let waiting = inner.everywhere_waiters.iter().map(|(seq, _)| *seq);
        let waiting = waiting.filter(|seq| *seq <= applied).collect();
        wake(guard);
        Some(waiting)
    }

    /// The lease has lapsed: what becomes of the commits without an answer is unknown, and whoever waits is to be told.
    /// Nothing more is taken.
    pub(crate) fn lapse(&self) -> Lapsed {
        let mut inner = self.lock();
        if matches!(inner.link, Link::Lapsed | Link::Closed) {
            return Lapsed { unanswered: BTreeSet::new(), to_keep: Vec::new(), waiting: Vec::new() };
        }
        inner.link = Link::Lapsed;
        let mut to_keep = Vec::new();
        let mut parts = inner.retained_parts.iter();
        each_retained(&inner, |seq, commit| {
            let keep = parts.next().and_then(|part| part.keep);
            let keep = keep.filter(|_| !inner.refused.contains(&seq));
            to_keep.extend(keep.map(|on_return| (seq, on_return, commit)));
        });
        inner.wire.clear();
        inner.retained.clear();
        inner.retained_parts.clear();
        inner.refused.clear();
        let unanswered = inner.acked.to_bits()..inner.last.to_bits();
        let unanswered = unanswered.map(|seq| CommitSeq::from_bits(seq + 1)).collect();
        let mut waiting: Vec<_> = inner.applied_waiters.drain(..).collect();
        waiting.extend(inner.durable_waiters.drain(..));
        waiting.extend(inner.everywhere_waiters.drain(..));
        let space = std::mem::take(&mut inner.space_waiters);
        (inner.acked, inner.safe) = (inner.last, inner.last);
        wake(inner);
        for ticket in space {
            let _unwanted = ticket.complete(());
        }
        Lapsed { unanswered, to_keep, waiting }
    }

    /// The node is another incarnation now, whose commits are counted anew.
    pub fn begin_anew(&self, epoch: Epoch) {
        let mut inner = self.lock();
        inner.epoch = epoch;
        if inner.link == Link::Lapsed {
            inner.link = Link::Up;
            inner.life += 1;
            inner.acked = CommitSeq::default();
            inner.safe = CommitSeq::default();
            inner.last = CommitSeq::default();
            wake(inner);
        }
    }

    /// Whether messages are sent, and do not wait for another connection.
    pub fn is_up(&self) -> bool {
        self.lock().link == Link::Up
    }

    /// The last commit that was answered.
    pub fn acked_seq(&self) -> CommitSeq {
        self.lock().acked
    }
}
