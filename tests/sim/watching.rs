//! A watcher: what it is told is checked as it comes (S12).

use crate::invariants::s12_watches::Seen;
use crate::process::Process;
use kiln_engine::WatchQueue;
use kiln_protocol::message::WatchTarget;
use kiln_protocol::{RootId, WatchId};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) struct Watching {
    process: Rc<Process>,
    id: WatchId,
    queue: Arc<WatchQueue>,
    seen: Seen,
}

impl Watching {
    /// Starts a watch; the ticket is for its answer.
    pub(crate) fn start(
        process: &Rc<Process>,
        root: RootId,
    ) -> (Self, Arc<kiln_engine::Ticket<kiln_engine::Answer<bool>>>) {
        let (id, queue, ticket) = process.node().watch(WatchTarget::Root(root));
        (Self { process: Rc::clone(process), id, queue, seen: Seen::default() }, ticket)
    }

    /// Takes what has arrived. Returns whether there was a gap.
    pub(crate) fn look(&mut self) -> bool {
        let mut gap = false;
        while let Poll::Ready(Some(event)) = self.queue.poll_next(&Context::from_waker(Waker::noop())) {
            gap |= self.seen.told(&self.process.figures, &event);
        }
        gap
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.process.node().unwatch(self.id);
    }
}
