//! A watcher: what it is told is checked as it comes (S12).

use crate::clock::SECOND;
use crate::invariants::s12_watches::Seen;
use crate::process::Process;
use crate::world::World;
use kiln_engine::WatchQueue;
use kiln_protocol::message::WatchTarget;
use kiln_protocol::{RootId, WatchId};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) struct Watching {
    process: Rc<Process>,
    id: WatchId,
    root: RootId,
    queue: Arc<WatchQueue>,
    seen: Seen,
    /// Since when it sees everything.
    since: u64,
}

/// How long after it happened a watcher that nothing is wrong with was told.
const TOLD: u64 = 3 * SECOND;

impl Watching {
    /// Starts a watch; the ticket is for its answer.
    pub(crate) fn start(
        process: &Rc<Process>,
        root: RootId,
    ) -> (Self, Arc<kiln_engine::Ticket<kiln_engine::Answer<bool>>>) {
        let (id, queue, ticket) = process.node().watch(WatchTarget::Root(root));
        (Self { process: Rc::clone(process), id, root, queue, seen: Seen::default(), since: u64::MAX }, ticket)
    }

    /// The watch has begun.
    pub(crate) fn begins(&mut self, world: &World) {
        self.since = world.now();
    }

    /// Takes what has arrived. Returns whether there was a gap.
    pub(crate) fn look(&mut self, world: &World) -> bool {
        let mut gap = false;
        while let Poll::Ready(Some(event)) = self.queue.poll_next(&Context::from_waker(Waker::noop())) {
            if self.seen.told(&self.process.figures, &event) {
                (gap, self.since) = (true, world.now());
            }
        }
        let until = world.now().saturating_sub(TOLD);
        let is_sound = world.sound_since(self.process.place).is_some_and(|since| since < until);
        if is_sound && self.process.served_since.get() < until && self.process.is_in_step(world.now()) {
            world.invariants.has_missed(&self.process, &self.seen, (self.root, self.since, until));
        }
        gap
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.process.node().unwatch(self.id);
    }
}
