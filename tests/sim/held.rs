//! Lock groups that a task holds, and places in queues, both given up by dropping them.

use crate::node::SimNode;
use crate::world::World;
use kiln_engine::{Admission, Entry, LockFailure, RequestError, State, Ticket, Wait};
use kiln_protocol::message::Mode;
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
    node: Rc<SimNode>,
    pub(crate) entry: Arc<Entry>,
    groups: Range<usize>,
    mode: Mode,
    /// The node's, from before the locks were taken.
    pub(crate) life: u64,
    counted: Vec<u64>,
}

impl Held {
    /// As a program's task does it: one group after the other, then the copy is made current.
    pub(crate) async fn enter(
        world: &Rc<World>,
        node: &Rc<SimNode>,
        entry: &Arc<Entry>,
        groups: Range<usize>,
        mode: Mode,
    ) -> Result<Self, NotHeld> {
        let start = groups.start;
        let mut held = Self {
            world: Rc::clone(world),
            node: Rc::clone(node),
            entry: Arc::clone(entry),
            groups: start..start,
            mode,
            life: node.node.link.life(),
            counted: Vec::new(),
        };
        for index in groups {
            let context = entry.lock_context(index, &node.node.outbox, &node.node.requests);
            let stale = node.node.wants_record(entry);
            if let Some(ticket) = entry.locks()[index].enter(context, mode, stale) {
                let mut place =
                    Place { node: Rc::clone(node), entry: Arc::clone(entry), index, mode, ticket: Some(ticket) };
                place.admitted().await.map_err(NotHeld::Lock)?;
            }
            held.groups.end = index + 1;
            if held.is_fenced() {
                return Err(NotHeld::Lock(LockFailure::Fenced));
            }
            world.model().entered(entry.id(), index, mode);
            held.counted.push(world.count(node, (entry.id(), index, mode)));
        }
        if entry.state() == State::Stale {
            Wait::new(node.node.refetch(entry)).await.map_err(NotHeld::Fetch)?;
        }
        if held.is_fenced() {
            return Err(NotHeld::Lock(LockFailure::Fenced));
        }
        held.check();
        Ok(held)
    }

    /// S4: under a lock, what is here is what was committed last, anywhere.
    pub(crate) fn check(&self) {
        if self.is_fenced() {
            return;
        }
        self.world.check_values(&self.node, &self.entry, &self.groups);
    }
}

impl Held {
    /// S14: the lease under which the locks were taken is over.
    fn is_fenced(&self) -> bool {
        let link = &self.node.node.link;
        link.life() != self.life || !link.is_leased(0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for id in &self.counted {
            let counted = self.node.held.borrow_mut().remove(id);
            if let Some((object, index, mode)) = counted {
                self.world.model().left(object, index, mode);
            }
        }
        self.node.node.leave_groups(&self.entry, self.groups.clone(), self.mode);
    }
}

struct Place {
    node: Rc<SimNode>,
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
            let context = self.entry.lock_context(self.index, &self.node.node.outbox, &self.node.node.requests);
            self.entry.locks()[self.index].give_up(context, self.mode, ticket);
        }
    }
}
