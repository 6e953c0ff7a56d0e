//! Waiting for room in the heap, before it is called full.
//!
//! What eviction retires comes free when every thread that was pinned has moved on: a reader, or a thread that the
//! operating system stopped in the middle of a publication. The first is the program's to mend, the second passes.

use super::runtime::Attached;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const POLL_EVERY: Duration = Duration::from_millis(1);
/// A reader that stays pinned for longer is named in the error rather than waited for.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Whether an attempt that found no room is worth another one.
#[derive(Debug)]
pub(super) struct Room<'a> {
    runtime: &'a Attached,
    since: Instant,
    freed_bytes: Option<u64>,
}

impl<'a> Room<'a> {
    pub(super) fn new(runtime: &'a Attached) -> Self {
        Self { runtime, since: Instant::now(), freed_bytes: None }
    }

    /// After an attempt that found no room: waits until all that was retired so far is free. `false`: another attempt
    /// has no point, because nothing at all was freed since the last, or because a reader stays pinned.
    pub(super) async fn wait(&mut self) -> bool {
        let heap = &self.runtime.node.heap;
        let probe = heap.probe();
        while !probe.is_done() {
            if self.since.elapsed() > WAIT_MAX {
                self.runtime.note_pin(self.since.elapsed());
                return false;
            }
            sleep(POLL_EVERY).await;
        }
        let freed_bytes = Some(heap.freed_bytes());
        let was_freed = self.freed_bytes != freed_bytes;
        self.freed_bytes = freed_bytes;
        was_freed && self.since.elapsed() <= WAIT_MAX
    }
}
