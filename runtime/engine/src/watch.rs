//! Watches: bounded queues of what the coordinator says happened to an object or a root.

use kiln_protocol::message::{Change, WatchTarget};
use kiln_protocol::{Incarnation, ObjectId};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Events that wait for a watcher; when it does not take them, the oldest go and a gap is shown.
pub const WATCH_EVENTS_MAX: usize = 4096;

/// One event of a watch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchEvent {
    /// The object.
    pub object: ObjectId,
    /// Its key, in canonical form.
    pub key: bytes::Bytes,
    /// The node that did it, and its name; `None` for the coordinator.
    pub writer: Option<(Incarnation, String)>,
    /// What happened.
    pub change: Change,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<WatchEvent>,
    /// Events were left out before the first of `events`.
    gap: bool,
    /// The coordinator has not said yet that it watches again, and that what this node holds is current.
    interrupted: bool,
    waker: Option<Waker>,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub struct WatchQueue {
    inner: Mutex<Inner>,
    /// Of one object, with whose removal it ends.
    of_object: bool,
    /// What is watched.
    pub(crate) target: WatchTarget,
}

impl WatchQueue {
    pub(crate) fn new(target: WatchTarget) -> Self {
        let of_object = matches!(target, WatchTarget::Object(_));
        Self { inner: Mutex::default(), of_object, target }
    }

    /// Events are missed from now on, until the watch is [resumed](Self::resume).
    pub(crate) fn interrupt(&self) {
        self.lock().interrupted = true;
    }

    /// The coordinator watches again: there is a gap. Not before: who reads anew at the gap is told of all that comes after
    /// what they read.
    pub(crate) fn resume(&self) {
        let mut inner = self.lock();
        if std::mem::take(&mut inner.interrupted) {
            inner.events.clear();
            inner.gap = true;
            wake(inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, event: WatchEvent) {
        let mut inner = self.lock();
        let is_last = self.of_object && matches!(event.change, Change::Removed | Change::Expired);
        inner.closed |= is_last;
        if inner.interrupted {
            // Before the gap; but what ends the watch is told behind it.
            if !is_last {
                return;
            }
            inner.interrupted = false;
            inner.events.clear();
            inner.gap = true;
        }
        if inner.events.len() == WATCH_EVENTS_MAX {
            inner.events.pop_front();
            inner.gap = true;
        }
        inner.events.push_back(event);
        wake(inner);
    }

    /// The coordinator does not watch again: there is a gap, and then the end.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.interrupted = false;
        inner.events.clear();
        (inner.gap, inner.closed) = (true, true);
        wake(inner);
    }

    /// Whether nobody waits for events any more, or none will come.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// No event will come after those that wait.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        wake(inner);
    }

    /// The next event; `None` after the last one.
    pub fn poll_next(&self, context: &Context<'_>) -> Poll<Option<WatchEvent>> {
        let mut inner = self.lock();
        // Also when nothing came after it: what was missed may have been the last for long.
        if std::mem::take(&mut inner.gap) {
            let next = inner.events.front().map(|next| (next.object, next.key.clone()));
            let (object, key) = next.unwrap_or_else(|| (ObjectId::from_bits(0), bytes::Bytes::new()));
            return Poll::Ready(Some(WatchEvent { writer: None, change: Change::Gap, object, key }));
        }
        if let Some(event) = inner.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if inner.closed {
            return Poll::Ready(None);
        }
        inner.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_protocol::RootId;

    fn event(object: u64) -> WatchEvent {
        WatchEvent {
            object: ObjectId::from_bits(object),
            key: bytes::Bytes::new(),
            writer: None,
            change: Change::Created,
        }
    }

    #[test]
    fn a_gap_is_shown_when_the_watch_goes_on_and_not_before() {
        let queue = WatchQueue::new(WatchTarget::Root(RootId::from_bits(1)));
        queue.interrupt();
        queue.push(event(1));
        let context = Context::from_waker(Waker::noop());
        assert!(queue.poll_next(&context).is_pending());
        queue.resume();
        let Poll::Ready(Some(event)) = queue.poll_next(&context) else { panic!("no event") };
        assert_eq!(event.change, Change::Gap);
        assert!(queue.poll_next(&context).is_pending());
    }

    #[test]
    fn an_overflow_is_an_explicit_gap() {
        let queue = WatchQueue::new(WatchTarget::Root(RootId::from_bits(1)));
        for object in 0..=WATCH_EVENTS_MAX as u64 {
            queue.push(event(object));
        }
        queue.close();
        let context = Context::from_waker(Waker::noop());
        let next = || match queue.poll_next(&context) {
            Poll::Ready(event) => event,
            Poll::Pending => unreachable!("the queue is closed"),
        };
        assert_eq!(next().unwrap().change, Change::Gap);
        assert_eq!(next().unwrap(), event(1));
        let rest = std::iter::from_fn(next).count();
        assert_eq!(rest, WATCH_EVENTS_MAX - 1);
    }
}
