//! Listeners: what the coordinator hands this node out of the queue of a listener group, to be acknowledged.
//!
//! What waits here is never more than what the coordinator lets one listener have. When the connection is lost it goes, and
//! is handed out again, to this node or another.

use crate::node::Node;
use crate::request::Answer;
use crate::ticket::Ticket;
use crate::watch::WatchEvent;
use kiln_protocol::{EventId, ListenerId, RootId, ToCoordinator};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One event that this node was handed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Handed {
    /// Its place among all events of the group.
    pub id: EventId,
    /// Somebody may have been handed it before.
    pub redelivered: bool,
    /// What happened.
    pub event: WatchEvent,
}

#[derive(Debug, Default)]
struct Inner {
    handed: VecDeque<Handed>,
    waker: Option<Waker>,
    closed: bool,
}

/// What waits for one listener.
#[derive(Debug)]
pub struct ListenerQueue {
    inner: Mutex<Inner>,
    root: RootId,
    group: String,
}

/// The listeners of a node.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    last: ListenerId,
    queues: BTreeMap<ListenerId, Arc<ListenerQueue>>,
}

impl ListenerQueue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event; `None` after the last one.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<Option<Handed>> {
        let mut inner = self.lock();
        if let Some(handed) = inner.handed.pop_front() {
            return Poll::Ready(Some(handed));
        }
        if inner.closed {
            return Poll::Ready(None);
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Node {
    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens in a group. Events may come before the answer.
    pub fn listen(&self, root: RootId, group: &str) -> (ListenerId, Arc<ListenerQueue>, Arc<Ticket<Answer<bool>>>) {
        let queue = Arc::new(ListenerQueue { inner: Mutex::default(), root, group: group.to_owned() });
        let mut listeners = self.listeners();
        let listener = listeners.last.next();
        listeners.last = listener;
        listeners.queues.insert(listener, Arc::clone(&queue));
        drop(listeners);
        let group = group.to_owned();
        let (_, ticket) = self.ask_yes_no(|request| ToCoordinator::Listen { request, listener, root, group });
        (listener, queue, ticket)
    }

    /// An event was heard, and is handed to nobody any more.
    pub fn heard(&self, listener: ListenerId, event: EventId) {
        // Said on a connection that is lost, the event comes again.
        self.outbox.send(&ToCoordinator::Heard { listener, event });
    }

    /// Ends a listener: another one is handed what it has not acknowledged.
    pub fn unlisten(&self, listener: ListenerId) {
        let removed = self.listeners().queues.remove(&listener);
        if let Some(queue) = removed {
            queue.change(|inner| inner.closed = true);
            self.outbox.send(&ToCoordinator::Unlisten { listener });
        }
    }

    pub(crate) fn handed(&self, listener: ListenerId, handed: Handed) {
        let queue = self.listeners().queues.get(&listener).cloned();
        if let Some(queue) = queue {
            queue.change(|inner| inner.handed.push_back(handed));
        }
    }

    pub(crate) fn listener_ended(&self, listener: ListenerId) {
        let removed = self.listeners().queues.remove(&listener);
        if let Some(queue) = removed {
            queue.change(|inner| inner.closed = true);
        }
    }

    /// The node is no longer attached.
    pub(crate) fn end_listeners(&self) {
        let queues = std::mem::take(&mut self.listeners().queues);
        for queue in queues.into_values() {
            queue.change(|inner| inner.closed = true);
        }
    }

    /// On another connection: listens again, but where that is being asked for.
    pub(crate) fn listen_again(&self, asked: impl Fn(ListenerId) -> bool) {
        let known: Vec<_> = self.listeners().queues.iter().map(|(id, queue)| (*id, Arc::clone(queue))).collect();
        for (listener, queue) in known {
            queue.change(|inner| inner.handed.clear());
            if !asked(listener) {
                let (request, root, group) = (self.requests.take(), queue.root, queue.group.clone());
                self.outbox.send(&ToCoordinator::Listen { request, listener, root, group });
            }
        }
    }
}
