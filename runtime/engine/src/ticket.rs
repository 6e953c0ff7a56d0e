//! Tickets: what a task holds while it waits for the engine. No timer: whoever waits brings its own deadline.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

enum State<T> {
    Waiting(Option<Waker>),
    Ready(T),
    /// Taken, or no longer wanted.
    Closed,
}

/// One side completes it once; the other waits, or gives up.
pub struct Ticket<T> {
    state: Mutex<State<T>>,
}

impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl<T> Ticket<T> {
    /// A ticket that nobody has completed.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Waiting(None)) })
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes the ticket and wakes its waiter.
    ///
    /// # Errors
    /// Gives the value back when nobody wants it any more.
    pub fn complete(&self, value: T) -> Result<(), T> {
        let mut state = self.lock();
        let State::Waiting(waker) = &mut *state else {
            return Err(value);
        };
        let waker = waker.take();
        *state = State::Ready(value);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Whether the waiter gave up, or has taken its value.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(*self.lock(), State::Closed)
    }

    /// Gives up. Returns the value if it came before that.
    pub fn close(&self) -> Option<T> {
        let before = std::mem::replace(&mut *self.lock(), State::Closed);
        match before {
            State::Ready(value) => Some(value),
            State::Waiting(_) | State::Closed => None,
        }
    }

    /// The value, once; otherwise leaves a waker.
    pub fn poll_take(&self, context: &Context<'_>) -> Poll<T> {
        let mut state = self.lock();
        match &mut *state {
            State::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Ready(_) | State::Closed => match std::mem::replace(&mut *state, State::Closed) {
                State::Ready(value) => Poll::Ready(value),
                State::Waiting(_) | State::Closed => Poll::Pending,
            },
        }
    }
}

/// Waits for a ticket; giving up closes it.
#[derive(Debug)]
pub struct Wait<T> {
    ticket: Arc<Ticket<T>>,
}

impl<T> Wait<T> {
    /// Waits for this ticket.
    #[must_use]
    pub const fn new(ticket: Arc<Ticket<T>>) -> Self {
        Self { ticket }
    }
}

impl<T> Future for Wait<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.ticket.poll_take(context)
    }
}

impl<T> Drop for Wait<T> {
    fn drop(&mut self) {
        drop(self.ticket.close());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[test]
    fn a_value_arrives_once() {
        let ticket = Ticket::new();
        let mut wait = pin!(Wait::new(Arc::clone(&ticket)));
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
        ticket.complete(7).unwrap();
        assert_eq!(ticket.complete(8), Err(8));
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Ready(7));
        assert_eq!(wait.as_mut().poll(&mut context), Poll::Pending);
    }

    #[test]
    fn a_dropped_wait_gives_the_value_back() {
        let ticket = Ticket::new();
        drop(Wait::new(Arc::clone(&ticket)));
        assert_eq!(ticket.complete(7), Err(7));
        let ticket = Ticket::new();
        ticket.complete(7).unwrap();
        assert_eq!(ticket.close(), Some(7));
    }
}
