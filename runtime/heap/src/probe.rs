//! How long the oldest reader stays pinned: a mark that passes once everybody who was pinned has unpinned.
//!
//! No clock here: who made the probe asks it from time to time, and knows when it was made.

use crossbeam_epoch as epoch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Made by [`crate::Heap::probe`]. Costs readers nothing.
#[derive(Clone, Debug)]
pub struct Probe {
    done: Arc<AtomicBool>,
}

/// How often one question pushes the epoch: two pushes pass a mark, the rest work off what was retired before it.
const ROUNDS_MAX: usize = 64;

impl Probe {
    pub(crate) fn new() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&done);
        let guard = epoch::pin();
        // Release: pairs with the acquire in `is_done`.
        guard.defer(move || mark.store(true, Ordering::Release));
        guard.flush();
        Self { done }
    }

    /// Whether every reader that was pinned when the probe was made has unpinned. Pushes reclamation forward, but
    /// never waits. While this thread itself is pinned the answer stays "no".
    #[must_use]
    pub fn is_done(&self) -> bool {
        for _ in 0..ROUNDS_MAX {
            // Acquire: pairs with the release in `new`.
            if self.done.load(Ordering::Acquire) {
                return true;
            }
            epoch::pin().flush();
        }
        self.done.load(Ordering::Acquire)
    }
}
