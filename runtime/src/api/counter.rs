//! Commutative counters, outside of guards.

use super::commit::commit_error;
use super::error::CommitError;
use super::runtime::Attached;
use kiln_engine::{Changed, Entry, Waiter};
use kiln_object::Change;
use std::sync::Arc;
use std::time::Duration;

/// A counter of one object. Adding needs no lock, waits for nobody, and is never lost to another add.
#[derive(Clone, Copy, Debug)]
pub struct Counter<'a> {
    runtime: &'a Arc<Attached>,
    entry: &'a Arc<Entry>,
    slot: u16,
}

impl<'a> Counter<'a> {
    pub(super) const fn new(runtime: &'a Arc<Attached>, entry: &'a Arc<Entry>, slot: u16) -> Self {
        Self { runtime, entry, slot }
    }

    /// Adds; wraps on overflow. The sum shown here has it at once, the other nodes' once it is ordered.
    ///
    /// # Errors
    /// [`CommitError`]: the object was removed, the node is no longer attached, or the outbox is full (this call does
    /// not wait). Then nothing was added.
    pub fn add(&self, amount: i64) -> Result<(), CommitError> {
        let changes = [Change::Add { slot: self.slot, amount }];
        let changed = [Changed { entry: self.entry, changes: &changes }];
        let queued = self.runtime.node.commit(None, &changed, Waiter::None);
        queued.map(drop).map_err(|error| commit_error(self.runtime, error, Duration::ZERO))
    }

    /// The ordered sum as known here, plus this node's own adds.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.entry.object.scalar(self.slot).cast_signed()
    }
}
