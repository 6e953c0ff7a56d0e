//! S3: with bounded clock drift, the intervals of conflicting holders are disjoint in true time.
//!
//! A holder's interval begins when its task has the lock, and ends when the task leaves it, when its process dies, or when
//! its own clock says that the lease is over, whichever comes first: a process that is stopped holds nothing from that moment
//! on, because the first thing that it does with a lock is to look at that clock.

use crate::process::Process;
use crate::sometimes::Sometimes;
use crate::world::World;
use kiln_engine::Entry;
use kiln_protocol::message::Mode;
use kiln_protocol::{Epoch, GroupId, ObjectId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

type Key = (Epoch, ObjectId, GroupId);

/// A lock that a task holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    key: Key,
    number: u64,
}

struct Holder {
    number: u64,
    process: Rc<Process>,
    life: u64,
    mode: Mode,
}

impl Holder {
    /// Whether it trusts the lock still.
    fn holds(&self, now: u64) -> bool {
        self.process.alive.get() && self.process.node().link.life() == self.life && self.process.is_leased(now)
    }
}

/// All locks that tasks hold.
#[derive(Default)]
pub(crate) struct Sections {
    held: RefCell<BTreeMap<Key, Vec<Holder>>>,
    last: Cell<u64>,
}

impl Sections {
    pub(crate) fn enter(
        &self,
        world: &World,
        process: &Rc<Process>,
        (history, entry, index): (Epoch, &Entry, usize),
        mode: Mode,
    ) -> Section {
        let key = (history, entry.id(), entry.binding.groups()[index]);
        let mut held = self.held.borrow_mut();
        let holders = held.entry(key).or_default();
        for other in holders.iter().filter(|other| mode == Mode::Write || other.mode == Mode::Write) {
            let (now, one) = (world.now(), world.name(process));
            assert!(
                !other.holds(now),
                "S3: {one} has {key:?} for {mode} while {} holds it",
                world.name(&other.process)
            );
            if other.process.alive.get() {
                world.reached(Sometimes::KeptApartByClock);
            }
        }
        self.last.set(self.last.get() + 1);
        let number = self.last.get();
        holders.push(Holder { number, process: Rc::clone(process), life: process.node().link.life(), mode });
        Section { key, number }
    }

    pub(crate) fn leave(&self, section: Section) {
        if let Some(holders) = self.held.borrow_mut().get_mut(&section.key) {
            holders.retain(|holder| holder.number != section.number);
        }
    }
}
