//! L2: a dead holder's locks are free within lease + 1 s, those of one that leaves in good order at once.

use crate::coordinator::free_after;
use crate::ledger::Ledger;
use crate::sometimes::Sometimes;
use crate::world::{Happening, World};
use kiln_protocol::{Epoch, Incarnation};
use std::cell::{Cell, RefCell};

/// Incarnations whose process is gone.
#[derive(Debug, Default)]
pub(crate) struct Dead {
    died: RefCell<Vec<(Epoch, Incarnation)>>,
    goodbye: Cell<Option<Incarnation>>,
}

impl Dead {
    pub(crate) fn died(&self, world: &World, incarnation: Incarnation) {
        let mut died = self.died.borrow_mut();
        died.push((world.coordinator.epoch(), incarnation));
        // A last heartbeat may be on its way.
        let after = free_after(&world.coordinator.clock) + world.delay_max();
        world.schedule(after, Happening::Due { what: died.len() as u64 - 1 });
    }

    pub(crate) fn due(&self, world: &World, ledger: &Ledger, what: u64) {
        let index = usize::try_from(what).expect("as many as have died");
        let (of, incarnation) = self.died.borrow()[index];
        if of == world.coordinator.epoch() && world.coordinator.is_up() {
            let gone = ledger.lives.get(&incarnation).is_some_and(|life| life.gone);
            assert!(gone, "L2: {incarnation} died longer ago than its lease + 1 s, and has its locks");
            world.reached(Sometimes::DeadFreed);
        }
    }

    pub(crate) fn says_goodbye(&self, incarnation: Incarnation) {
        self.goodbye.set(Some(incarnation));
    }

    /// The coordinator has died with the goodbye, and may not have kept it: the lease ends the node.
    pub(crate) fn forgets_goodbye(&self) {
        self.goodbye.set(None);
    }

    /// With the very next event, it is gone.
    pub(crate) fn check_goodbye(&self, world: &World, ledger: &Ledger) {
        let Some(incarnation) = self.goodbye.take() else { return };
        let gone = ledger.lives.get(&incarnation).is_none_or(|life| life.gone);
        assert!(gone, "L2: {incarnation} has said goodbye, and has its locks");
        world.reached(Sometimes::DetachFreed);
    }
}
