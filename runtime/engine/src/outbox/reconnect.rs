//! What becomes of queued commits when the connection, or the lease, is lost.

use super::{CommitFailure, Inner, Link, Outbox, each_retained, wake};
use kiln_protocol::codec::encode_to_coordinator;
use kiln_protocol::message::Commit;
use kiln_protocol::{CommitSeq, Epoch, ToCoordinator};
use smallvec::SmallVec;

/// A commit whose fate is unknown.
#[derive(Clone, Debug)]
pub(crate) struct Unanswered {
    /// Its number among those of its incarnation.
    pub(crate) seq: CommitSeq,
    /// Whether somebody waited for it, and has been told.
    pub(crate) told: bool,
}

impl Inner {
    /// The frames of kept commits as they are to be sent on a connection of this epoch.
    fn encode_again(&mut self, epoch: Epoch) {
        if epoch == self.epoch && self.refused.is_empty() {
            return;
        }
        let (mut frames, mut lengths) = (Vec::with_capacity(self.retained.len()), Vec::new());
        each_retained(self, |seq, commit| {
            let nothing = || Commit { everywhere: false, durable: false, parts: SmallVec::new() };
            let commit = if self.refused.contains(&seq) { nothing() } else { commit };
            let start = frames.len();
            encode_to_coordinator(&mut frames, epoch, &ToCoordinator::Commit(commit));
            lengths.push(u32::try_from(frames.len() - start).expect("a commit is shorter than a frame"));
        });
        self.retained = frames.into();
        self.retained_lengths = lengths.into();
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
        let bytes: usize = inner.retained_lengths.iter().take(skipped).map(|length| *length as usize).sum();
        inner.wire.clear();
        inner.wire.extend(inner.retained.range(bytes..));
        inner.link = Link::Up;
        let waiting = inner.everywhere_waiters.iter().map(|(seq, _)| *seq);
        let waiting = waiting.filter(|seq| *seq <= applied).collect();
        wake(guard);
        Some(waiting)
    }

    /// The lease has lapsed: what becomes of the commits without an answer is unknown. Nothing more is taken.
    pub(crate) fn lapse(&self) -> Vec<Unanswered> {
        let mut inner = self.lock();
        if matches!(inner.link, Link::Lapsed | Link::Closed) {
            return Vec::new();
        }
        inner.link = Link::Lapsed;
        inner.wire.clear();
        inner.retained.clear();
        inner.retained_lengths.clear();
        inner.refused.clear();
        let unanswered = (inner.acked.to_bits()..inner.last.to_bits()).map(|seq| CommitSeq::from_bits(seq + 1));
        let waiting: Vec<_> = inner.applied_waiters.drain(..).collect();
        let waiting: Vec<_> = waiting.into_iter().chain(inner.durable_waiters.drain(..)).collect();
        let waiting: Vec<_> = waiting.into_iter().chain(inner.everywhere_waiters.drain(..)).collect();
        let space = std::mem::take(&mut inner.space_waiters);
        let mut unknown: Vec<_> = unanswered.map(|seq| Unanswered { seq, told: false }).collect();
        (inner.acked, inner.safe) = (inner.last, inner.last);
        wake(inner);
        for (seq, ticket) in waiting {
            let told = ticket.complete(Err(CommitFailure::Unknown)).is_ok();
            if let Some(commit) = unknown.iter_mut().find(|commit| commit.seq == seq) {
                commit.told |= told;
            }
        }
        for ticket in space {
            let _unwanted = ticket.complete(());
        }
        unknown
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
