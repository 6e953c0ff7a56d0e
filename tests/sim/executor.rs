//! The tasks of a process: polled when they were woken, as a program's are, so that a wake-up that is lost is a task that
//! hangs.

use crate::clock::Nanos;
use crate::process::Process;
use crate::world::{Happening, World};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks that were woken.
#[derive(Debug, Default)]
pub(crate) struct Ready(Mutex<Vec<usize>>);

impl Ready {
    pub(crate) fn wake(&self, task: usize) {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&task) {
            ready.push(task);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct TaskWaker {
    ready: Arc<Ready>,
    task: usize,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.wake(self.task);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.wake(self.task);
    }
}

impl World {
    /// Polls every task of the process that was woken.
    pub(crate) fn run_ready(&self, process: &Process) {
        process.ready_due.set(false);
        for index in process.ready.take() {
            if process.is_paused(self.now()) {
                // Stopped in the middle: the rest goes on afterwards.
                process.ready.wake(index);
                continue;
            }
            let Some(mut task) = process.tasks.borrow_mut().get_mut(index).and_then(Option::take) else { continue };
            let waker = Waker::from(Arc::new(TaskWaker { ready: Arc::clone(&process.ready), task: index }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                process.tasks.borrow_mut()[index] = Some(task);
            }
        }
    }

    /// Sleeps for a span of the process's own clock.
    pub(crate) async fn sleep(&self, process: &Process, span: Duration) {
        let after = process.clock.really(span);
        self.sleep_really(process, after).await;
    }

    /// Sleeps for a random time, so that others get to act.
    pub(crate) async fn pause(&self, process: &Process, most: Nanos) {
        let after = self.random.next() % (most + 1);
        self.sleep_really(process, after).await;
    }

    async fn sleep_really(&self, process: &Process, after: Nanos) {
        let (timer, over) = (process.next_timer(), Rc::new(Cell::new(false)));
        self.schedule(after, Happening::Timer { process: process.id, timer });
        let timer = Timer { process, timer };
        poll_fn(|context| {
            if over.get() {
                return Poll::Ready(());
            }
            timer.process.timers.borrow_mut().insert(timer.timer, (context.waker().clone(), Rc::clone(&over)));
            Poll::Pending
        })
        .await;
    }

    /// A sleep is over.
    pub(crate) fn timer(process: &Process, timer: u64) -> bool {
        let Some((waker, over)) = process.timers.borrow_mut().remove(&timer) else { return false };
        over.set(true);
        waker.wake();
        true
    }

    /// What `future` gives within a span of the process's clock; dropped after that.
    pub(crate) async fn within<T>(
        &self,
        process: &Process,
        most: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        // Most are ready at once, and need no timer.
        if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
            return Some(done);
        }
        let mut elapsed = pin!(self.sleep(process, most));
        poll_fn(|context| {
            if let Poll::Ready(done) = future.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            elapsed.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

struct Timer<'a> {
    process: &'a Process,
    timer: u64,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.process.timers.borrow_mut().remove(&self.timer);
    }
}

/// Lets the others of the process act.
pub(crate) async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// As a span of some clock.
pub(crate) fn span(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
