//! Commutative counters, outside of guards.

use super::builder::Away;
use super::commit::{alone_error, commit_error};
use super::error::CommitError;
use super::local_copy::{LocalCopy, shown};
use super::runtime::Attached;
use kiln_engine::{AloneError, Changed, CommitError as EngineError, Entry, State, Waiter, apply_error};
use kiln_object::Change;
use std::sync::Arc;
use std::time::Duration;

/// A counter of one object. Adding needs no lock, waits for nobody, and is never lost to another add.
#[derive(Clone, Copy, Debug)]
pub struct Counter<'a> {
    runtime: &'a Arc<Attached>,
    entry: &'a Arc<Entry>,
    slot: u16,
    away: Away,
}

impl<'a> Counter<'a> {
    pub(super) const fn new(runtime: &'a Arc<Attached>, entry: &'a Arc<Entry>, slot: u16, away: Away) -> Self {
        Self { runtime, entry, slot, away }
    }

    /// Adds; wraps on overflow. The sum shown here has it at once, the other nodes' once it is ordered; while the cluster
    /// is away, with [`Away::LocalReadWrite`], once it is back.
    ///
    /// # Errors
    /// [`CommitError`]: the object was removed, the node is no longer attached, or the outbox (or journal) is full (this call does
    /// not wait). Then nothing was added.
    pub fn add(&self, amount: i64) -> Result<(), CommitError> {
        if self.entry.is_kept_local() && self.add_here(amount)? {
            return Ok(());
        }
        let changes = [Change::Add { slot: self.slot, amount }];
        let changed = [Changed::new(self.entry, &changes)];
        let (node, on_return) = (&self.runtime.node, self.away.on_return());
        loop {
            let queued = node.commit_to_keep(None, on_return, &changed, Waiter::None);
            let (Err(EngineError::Fenced), Some(on_return)) = (&queued, on_return) else {
                return queued.map(drop).map_err(|error| commit_error(self.runtime, error, Duration::ZERO));
            };
            match node.commit_alone(None, on_return, &changed) {
                // The cluster is just about to be away, or to be back.
                Err(AloneError::NotAway) if node.ended().is_none() => node.wait_out_turn(),
                done => return done.map_err(|error| alone_error(self.runtime, error)),
            }
        }
    }

    /// Where the object's changes stay in this process; `false`: they do not any more.
    #[cold]
    fn add_here(&self, amount: i64) -> Result<bool, CommitError> {
        let node = &self.runtime.node;
        if self.entry.state() == State::Destroyed {
            return Err(CommitError::Destroyed);
        }
        if node.ended().is_some() {
            return Err(CommitError::Disconnected);
        }
        let added = node.with_room(|| LocalCopy::add(self.entry, self.slot, amount));
        added.map_err(|error| commit_error(self.runtime, apply_error(self.entry, &error), Duration::ZERO))
    }

    /// The ordered sum as known here, plus this node's own adds.
    #[must_use]
    pub fn get(&self) -> i64 {
        shown(self.runtime, self.entry).scalar(self.slot).cast_signed()
    }
}
