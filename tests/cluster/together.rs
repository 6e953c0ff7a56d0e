//! Commits over several objects: all or nothing, for whoever looks.

use crate::session;
use kiln::{CommitError, Runtime, Shared};
use kiln_tests::{Coordinator, Session, soon};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

async fn accounts(kiln: &Runtime) -> (Shared<Session>, Shared<Session>) {
    (session(kiln, "x").await, session(kiln, "y").await)
}

fn balances(kiln: &Runtime, x: &Shared<Session>, y: &Shared<Session>) -> (i64, i64) {
    kiln.view_all((x, y), |(x, y)| (x.balance(), y.balance()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_ever_sees_half_a_transfer() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (x, y) = accounts(&a).await;
    x.update(|session| *session.balance = 1000).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let mut watchers = JoinSet::new();
    for kiln in [a.clone(), b.clone()] {
        let done = Arc::clone(&done);
        let (x, y) = accounts(&kiln).await;
        watchers.spawn(async move {
            let (mut looks, mut changes, mut last) = (0_u64, 0_u64, (0, 0));
            // The first value may come in two records.
            while !done.load(Ordering::SeqCst) || changes == 0 {
                let seen = balances(&kiln, &x, &y);
                assert_eq!(seen.0 + seen.1, 1000, "half a transfer: {seen:?}");
                changes += u64::from(seen != last);
                last = seen;
                looks += 1;
                tokio::task::yield_now().await;
            }
            (looks, changes)
        });
    }
    let mut movers = JoinSet::new();
    for kiln in [a.clone(), b.clone()] {
        movers.spawn(async move {
            let (x, y) = accounts(&kiln).await;
            for amount in 1..=100 {
                let (mut from, mut to) = (x.write().await.unwrap(), y.write().await.unwrap());
                *from.balance -= amount;
                *to.balance += amount;
                kiln.commit((from, to)).await.unwrap();
            }
        });
    }
    while let Some(moved) = soon("the transfers", movers.join_next()).await {
        moved.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    while let Some(watched) = soon("the watchers", watchers.join_next()).await {
        let (looks, changes) = watched.unwrap();
        assert!(looks >= changes && changes > 1, "{looks} looks, {changes} changes");
    }
    let read = (x.read().await.unwrap().view().balance(), y.read().await.unwrap().view().balance());
    assert_eq!(read, (1000 - 2 * 5050, 2 * 5050));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_guard_undoes_all_of_them() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (x, y) = accounts(&a).await;
    let (mut good, mut bad) = (x.write().await.unwrap(), y.write_group("money").await.unwrap());
    *good.balance = 1;
    *bad.balance = 1;
    *bad.visits = 1;
    let refused = a.commit((good, bad)).await;
    assert!(matches!(refused, Err(CommitError::NotLocked { field: "visits", .. })), "{refused:?}");
    let (one, two) = (x.write().await.unwrap(), y.write().await.unwrap());
    drop((one, two));
    let (on_b, _) = accounts(&b).await;
    assert_eq!(on_b.read().await.unwrap().view().balance(), 0);
    assert_eq!(balances(&a, &x, &y), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_objects_go_in_one_commit() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let mut handles = Vec::new();
    for key in 0..50 {
        handles.push(session(&a, &format!("k{key:02}")).await);
    }
    let mut guards = Vec::new();
    for handle in &handles {
        let mut guard = handle.write().await.unwrap();
        *guard.visits = 1;
        guards.push(guard);
    }
    a.commit(guards).await.unwrap();
    for key in 0..50 {
        assert_eq!(crate::visits(&session(&b, &format!("k{key:02}")).await).await, 1);
    }
    assert_eq!(a.stats().commits, 1);
}
