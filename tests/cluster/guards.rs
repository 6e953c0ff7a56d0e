//! Write guards: what is committed, and what is as if it had never been.

use crate::{held_by, session, visits};
use kiln::{CommitError, Level, LockError, TryUpdateError};
use kiln_tests::{Coordinator, Line, SessionCounters as _, soon};
use std::time::Duration;
use tokio::task::JoinSet;

/// Long enough for a request and its answer, short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_committed_has_not_happened() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    on_a.update(|session| *session.visits = 1).await.unwrap();

    let mut guard = on_a.write().await.unwrap();
    *guard.visits += 10;
    guard.cart.insert("sku".into(), Line::default());
    guard.clicks.add(10);
    assert_eq!(*guard.visits, 11);
    drop(guard);

    let mut guard = on_a.write().await.unwrap();
    *guard.visits += 20;
    guard.rollback();

    let refused = on_a
        .try_update(|session| {
            *session.visits += 30;
            Err::<(), _>("no")
        })
        .await;
    assert!(matches!(refused, Err(TryUpdateError::RolledBack("no"))), "{refused:?}");

    let mut panicking = JoinSet::new();
    let handle = on_a.clone();
    panicking.spawn(async move {
        handle
            .update(|session| {
                *session.visits += 40;
                panic!("a defect of the program, on purpose");
            })
            .await
    });
    assert!(panicking.join_next().await.unwrap().unwrap_err().is_panic());

    let view = on_a.view();
    assert_eq!((view.visits(), view.clicks(), view.cart().len()), (1, 0, 0));
    drop(view);
    // The lock is free, and the other node has seen nothing of it either.
    let guard = soon("the lock is free", on_b.read()).await.unwrap();
    let view = guard.view();
    assert_eq!((view.visits(), view.clicks(), view.cart().len()), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_field_travels_in_one_commit() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let mut guard = on_a.write().await.unwrap();
    guard.user.set(Some("ada".into()));
    guard.theme.push_str("dark");
    *guard.visits += 1;
    guard.clicks.add(2);
    for count in 1..=3 {
        guard.cart.insert(format!("sku-{count}"), Line { title: "Tea".into(), count });
    }
    *guard.balance -= 4;
    guard.commit_with(Level::Everywhere).await.unwrap();
    on_a.update_with(Level::Everywhere, |session| {
        session.cart.remove("sku-2");
        session.cart.update("sku-3", |line| line.count = 30);
    })
    .await
    .unwrap();
    let view = on_b.view();
    assert_eq!(view.user().as_ref().map(|user| user.as_str()), Some("ada"));
    assert_eq!((view.theme(), view.visits(), view.clicks(), view.balance()), ("dark", 1, 2, -4));
    let lines: Vec<_> = view.cart().iter().map(|(key, line)| (key, line.count.to_native())).collect();
    assert_eq!(lines, [("sku-1".to_owned(), 1), ("sku-3".to_owned(), 30)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_locked_apart() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    // Both at the same time.
    let mut money = soon("one group", on_a.write_group("money")).await.unwrap();
    let mut rest = soon("the other group", on_b.write_group("default")).await.unwrap();
    *money.balance = 5;
    *rest.visits = 6;
    rest.commit().await.unwrap();
    money.commit().await.unwrap();
    let guard = on_b.read().await.unwrap();
    assert_eq!((guard.view().visits(), guard.view().balance()), (6, 5));
    drop(guard);

    let mut money = on_a.write_group("money").await.unwrap();
    *money.balance = 50;
    *money.visits = 60;
    let refused = money.commit().await;
    assert!(matches!(refused, Err(CommitError::NotLocked { field: "visits", group: "default" })), "{refused:?}");
    let guard = on_b.read().await.unwrap();
    assert_eq!((guard.view().visits(), guard.view().balance()), (6, 5));
    // Adds need no lock, so a guard of any group takes them.
    drop(guard);
    let mut money = on_a.write_group("money").await.unwrap();
    money.clicks.add(1);
    money.commit_with(Level::Everywhere).await.unwrap();
    assert_eq!(on_b.view().clicks(), 1);
    let unknown = on_a.write_group("monney").await;
    assert!(matches!(&unknown, Err(LockError::UnknownGroup { .. })));
    let message = unknown.unwrap_err().to_string();
    assert!(message.contains("monney") && message.contains("`money`"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_is_waited_for_up_to_the_deadline() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let mut guard = on_a.write().await.unwrap();
    assert!(on_a.try_write().is_none());
    assert!(on_b.try_write().is_none());
    let late = on_b.with_timeout(SHORT).write().await.map(drop);
    assert!(matches!(late, Err(LockError::Timeout { waited }) if waited == SHORT));
    let late = on_a.with_timeout(SHORT).read().await.map(drop);
    assert!(matches!(late, Err(LockError::Timeout { .. })));
    // Those who gave up leave nothing behind: the guard still commits, and others get in.
    *guard.visits = 3;
    guard.commit().await.unwrap();
    assert_eq!(soon("the lock is free", visits(&on_b)).await, 3);
    assert_eq!(soon("the lock is free", visits(&on_a)).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cached_grant_needs_no_message() {
    let coordinator = Coordinator::start().await;
    let a = coordinator.node("a").await;
    let on_a = session(&a, "s").await;
    on_a.update(|session| *session.visits += 1).await.unwrap();
    let waits = a.stats().waits;
    for _ in 0..100 {
        on_a.update(|session| *session.visits += 1).await.unwrap();
        let guard = on_a.try_write().unwrap();
        drop(guard);
    }
    assert_eq!(a.stats().waits, waits);
    assert_eq!(on_a.view().visits(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_cross_awaits_and_threads() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_b = session(&b, "s").await;
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let kiln = if task % 2 == 0 { a.clone() } else { b.clone() };
        tasks.spawn(async move {
            let session = session(&kiln, "s").await;
            for _ in 0..10 {
                let mut guard = session.write().await.unwrap();
                let before = *guard.visits;
                tokio::task::yield_now().await;
                *guard.visits = before + 1;
                guard.commit().await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(visits(&on_b).await, 80);
    on_b.clicks().add(0).unwrap();
}
