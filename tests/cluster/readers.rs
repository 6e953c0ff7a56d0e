//! Read locks: shared by nodes, kept when a writer is asked to step back, taken away for a writer.

use crate::{held_by, session, visits};
use kiln::LockError;
use kiln_tests::{Coordinator, soon};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_share_and_writers_wait_for_them() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let c = coordinator.node("c").await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let on_c = session(&c, "s").await;
    let first = soon("a reads", on_a.read()).await.unwrap();
    let second = soon("b reads too", on_b.read()).await.unwrap();
    let third = soon("b reads twice", on_b.read()).await.unwrap();
    let late = on_c.with_timeout(SHORT).write().await.map(drop);
    assert!(matches!(late, Err(LockError::Timeout { .. })));
    drop((first, second));
    let late = on_c.with_timeout(SHORT).write().await.map(drop);
    assert!(matches!(late, Err(LockError::Timeout { .. })));
    drop(third);
    soon("c writes", on_c.update(|session| *session.visits = 9)).await.unwrap();
    assert_eq!((visits(&on_a).await, visits(&on_b).await), (9, 9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_steps_back_for_a_reader_goes_on_reading() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    on_a.update(|session| *session.visits = 4).await.unwrap();
    // Its cached write grant becomes a read grant: both read, and neither has to ask again.
    let on_b_read = soon("b reads", on_b.read()).await.unwrap();
    assert_eq!(on_b_read.view().visits(), 4);
    let waits = (a.stats().waits, b.stats().waits);
    for _ in 0..20 {
        assert_eq!((visits(&on_a).await, visits(&on_b).await), (4, 4));
    }
    assert_eq!((a.stats().waits, b.stats().waits), waits);
    assert!(on_a.try_write().is_none());
    drop(on_b_read);
    on_a.update(|session| *session.visits = 5).await.unwrap();
    assert_eq!(visits(&on_b).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_gets_in_between_readers_and_writers_of_two_nodes() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let committed = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let kiln = if task % 2 == 0 { a.clone() } else { b.clone() };
        let committed = Arc::clone(&committed);
        tasks.spawn(async move {
            let session = session(&kiln, "s").await;
            for _ in 0..60 {
                if task < 4 {
                    // A coherent read is never older than what was committed before it began (S4), and does not move.
                    let before = committed.load(Ordering::SeqCst);
                    let guard = session.read().await.unwrap();
                    let seen = guard.view().visits();
                    assert!(seen >= before, "read {seen} after {before} was committed");
                    tokio::task::yield_now().await;
                    assert_eq!(guard.view().visits(), seen);
                } else {
                    let mut guard = session.write().await.unwrap();
                    *guard.visits += 1;
                    let now = *guard.visits;
                    guard.commit().await.unwrap();
                    committed.fetch_max(now, Ordering::SeqCst);
                }
            }
        });
    }
    while let Some(done) = soon("readers and writers", tasks.join_next()).await {
        done.unwrap();
    }
    assert_eq!(visits(&session(&b, "s").await).await, 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_readers_that_both_want_to_write_do_not_wait_for_each_other() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    for round in 0..30 {
        // Both have a cached read grant.
        assert_eq!((visits(&on_a).await, visits(&on_b).await), (round * 2, round * 2));
        let both = async {
            tokio::join!(on_a.update(|session| *session.visits += 1), on_b.update(|session| *session.visits += 1))
        };
        let (first, second) = soon("both upgrade", both).await;
        first.unwrap();
        second.unwrap();
    }
    assert_eq!(visits(&on_a).await, 60);
}
