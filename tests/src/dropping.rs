//! Futures that are dropped half-way, as web frameworks do with the handlers of clients that went away.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// What became of a future that was to be dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dropped<T> {
    /// It was still pending after its last poll, and has been dropped.
    Pending,
    /// It was done before that.
    Done(T),
}

/// Polls `future` up to `polls` times, each time when it has been woken, and drops it after the last one. With 0, 1, 2
/// and so on until it is done, it gets dropped at every point where it waits.
pub async fn drop_after<F: Future>(polls: usize, future: F) -> Dropped<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(Dropped::Pending);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Dropped::Done(output)),
            Poll::Pending if left == 0 => Poll::Ready(Dropped::Pending),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
