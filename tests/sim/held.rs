//! Lock groups that a task holds, and places in queues, both given up by dropping them: as the program's guards do it.

use crate::invariants::Section;
use crate::process::Process;
use crate::world::World;
use kiln_engine::{Admission, Claim, Entry, LockFailure, RequestError, State, Ticket, Wait};
use kiln_protocol::message::{Mode, OwnerLock};
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

/// Why a lock was not taken.
#[derive(Debug)]
pub(crate) enum NotHeld {
    Lock(LockFailure),
    Fetch(RequestError),
}

pub(crate) struct Held {
    world: Rc<World>,
    process: Rc<Process>,
    pub(crate) entry: Arc<Entry>,
    groups: Range<usize>,
    mode: Mode,
    /// The node's, from before the locks were taken.
    pub(crate) life: u64,
    sections: Vec<Section>,
}

impl Held {
    /// Takes one group after the other, then makes the copy current.
    pub(crate) async fn enter(
        world: &Rc<World>,
        process: &Rc<Process>,
        entry: &Arc<Entry>,
        (groups, mode): (Range<usize>, Mode),
        claim: Option<&Claim>,
    ) -> Result<Self, NotHeld> {
        let (start, node) = (groups.start, process.node());
        let mut held = Self {
            world: Rc::clone(world),
            process: Rc::clone(process),
            entry: Arc::clone(entry),
            groups: start..start,
            mode,
            life: node.link.life(),
            sections: Vec::new(),
        };
        for index in groups {
            let context = entry.lock_context(index, &node.outbox, &node.requests);
            let stale = node.wants_record(entry);
            let claim = || {
                claim.cloned().map(|mut claim| {
                    claim.holds.extend(held.locks());
                    claim
                })
            };
            if let Some(ticket) = entry.locks()[index].enter_for(context, mode, stale, claim) {
                let (process, entry) = (Rc::clone(process), Arc::clone(entry));
                let mut place = Place { process, entry, index, mode, ticket: Some(ticket) };
                place.admitted().await.map_err(NotHeld::Lock)?;
            }
            held.groups.end = index + 1;
        }
        if entry.state() == State::Stale {
            Wait::new(node.refetch(entry)).await.map_err(NotHeld::Fetch)?;
        }
        if held.is_fenced() {
            return Err(NotHeld::Lock(LockFailure::Fenced));
        }
        let groups = held.groups.clone();
        held.sections = groups.map(|index| world.invariants.enter(world, process, entry, index, mode)).collect();
        held.check();
        Ok(held)
    }

    /// S4: under a lock, what is here is what was committed last, anywhere.
    pub(crate) fn check(&self) {
        // What an own commit that was refused leaves is stale: whatever is made of it is refused as well.
        if !self.is_fenced() && self.process.alive.get() && self.entry.state() != State::Stale {
            self.world.invariants.check_values(&self.world, &self.process, &self.entry, &self.groups);
        }
    }

    /// S14: the lease under which the locks were taken is over.
    pub(crate) fn is_fenced(&self) -> bool {
        self.process.node().link.life() != self.life || !self.process.is_leased(self.world.now())
    }

    pub(crate) fn locks(&self) -> impl Iterator<Item = OwnerLock> {
        let groups = self.entry.binding.groups()[self.groups.clone()].iter();
        groups.map(|group| OwnerLock { object: self.entry.id(), group: *group, mode: self.mode })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for section in self.sections.drain(..) {
            self.world.invariants.leave(section);
        }
        self.process.node().leave_groups(&self.entry, self.groups.clone(), self.mode);
    }
}

struct Place {
    process: Rc<Process>,
    entry: Arc<Entry>,
    index: usize,
    mode: Mode,
    ticket: Option<Arc<Ticket<Admission>>>,
}

impl Place {
    async fn admitted(&mut self) -> Admission {
        poll_fn(|context| {
            let Some(ticket) = &self.ticket else { return Poll::Ready(Ok(())) };
            let admission = std::task::ready!(ticket.poll_take(context));
            self.ticket = None;
            Poll::Ready(admission)
        })
        .await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            let node = self.process.node();
            let context = self.entry.lock_context(self.index, &node.outbox, &node.requests);
            self.entry.locks()[self.index].give_up(context, self.mode, ticket);
        }
    }
}
