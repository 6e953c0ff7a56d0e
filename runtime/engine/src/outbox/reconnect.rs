//! What becomes of queued commits when the connection, or the lease, is lost.

use super::{Link, Outbox, Outcome, each_retained, wake};
use crate::journal::OnReturn;
use crate::ticket::Ticket;
use kiln_protocol::CommitSeq;
use kiln_protocol::message::Commit;
use std::sync::Arc;

/// What had no answer when the lease lapsed.
#[derive(Debug)]
pub(crate) struct Lapsed {
    /// The commits, in order; those that are for the journal with their content.
    pub(crate) commits: Vec<(CommitSeq, Option<(OnReturn, Commit)>)>,
    /// Who waits for some of them, or for commits that were answered to be everywhere.
    pub(crate) waiting: Vec<(CommitSeq, Arc<Ticket<Outcome>>)>,
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

    /// There is another connection, on which commits up to `applied` need not be sent again. Returns the commits among
    /// them that somebody still waits for to be everywhere; `None` when `applied` cannot be true.
    pub fn resume(&self, applied: CommitSeq) -> Option<Vec<CommitSeq>> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if applied < inner.acked || applied > inner.last || inner.link != Link::Down {
            return None;
        }
        let skipped = usize::try_from(applied.to_bits() - inner.acked.to_bits()).expect("as many as are retained");
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
            return Lapsed { commits: Vec::new(), waiting: Vec::new() };
        }
        inner.link = Link::Lapsed;
        let mut commits = Vec::new();
        let mut parts = inner.retained_parts.iter();
        each_retained(&inner, |seq, commit| {
            let keep = parts.next().and_then(|part| part.keep);
            commits.push((seq, keep.map(|on_return| (on_return, commit))));
        });
        inner.wire.clear();
        inner.retained.clear();
        inner.retained_parts.clear();
        let mut waiting: Vec<_> = inner.applied_waiters.drain(..).collect();
        waiting.extend(inner.everywhere_waiters.drain(..));
        let space = std::mem::take(&mut inner.space_waiters);
        inner.acked = inner.last;
        wake(inner);
        for ticket in space {
            let _unwanted = ticket.complete(());
        }
        Lapsed { commits, waiting }
    }

    /// The node is another incarnation now, whose commits are counted anew.
    pub fn begin_anew(&self) {
        let mut inner = self.lock();
        if inner.link == Link::Lapsed {
            inner.link = Link::Up;
            inner.life += 1;
            inner.acked = CommitSeq::default();
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
