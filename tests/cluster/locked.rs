//! Locks that are held over several commits, and keys that are taken once.

use crate::{held_by, sessions, visits};
use kiln::{CommitError, LockError, Shared};
use kiln_tests::{Coordinator, Session, soon};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_its_commits_and_nobody_comes_between() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let lock = on_a.lock().await.unwrap();
    let mut others = JoinSet::new();
    others.spawn(async move { on_b.update(|session| *session.visits += 100).await });
    for round in 1..=20 {
        let mut guard = lock.write().await.unwrap();
        assert_eq!(*guard.visits, round - 1, "somebody changed a locked object");
        *guard.visits += 1;
        guard.commit().await.unwrap();
    }
    // What is not committed did not happen, and the lock stays.
    *lock.write().await.unwrap().visits = 7;
    assert_eq!(*lock.write().await.unwrap().visits, 20);
    assert!(others.try_join_next().is_none());
    drop(lock);
    soon("the other node's turn", others.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(visits(&on_a).await, 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_of_one_group_changes_that_group() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let lock = on_a.lock_group("money").await.unwrap();
    let mut guard = lock.write().await.unwrap();
    *guard.visits = 1;
    assert!(matches!(guard.commit().await, Err(CommitError::NotLocked { field: "visits", .. })));
    let mut guard = lock.write().await.unwrap();
    *guard.balance = 5;
    guard.commit().await.unwrap();
    // The rest is free.
    let mut rest = on_b.write_group("default").await.unwrap();
    *rest.visits = 2;
    rest.commit().await.unwrap();
    assert!(matches!(on_a.lock_group("nonsense").await, Err(LockError::UnknownGroup { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_can_be_left_and_taken_again() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let lock = on_a.lock().await.unwrap();
    lock.release().await.unwrap();
    assert!(!lock.is_held());
    assert!(matches!(lock.write().await, Err(LockError::Fenced)));
    on_b.update(|session| *session.visits = 9).await.unwrap();
    lock.take_again().await.unwrap();
    assert!(lock.is_held());
    assert_eq!(*lock.write().await.unwrap().visits, 9);
    lock.release().await.unwrap();
    sessions(&b).await.remove_everywhere("s").await.unwrap();
    assert!(matches!(lock.take_again().await, Err(LockError::Destroyed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_object_takes_no_key_that_is_in_use() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (root_a, root_b) = (sessions(&a).await, sessions(&b).await);
    let with = |visits| Session { visits, ..Session::default() };
    for round in 0..50 {
        let key = format!("s{round}");
        let (one, other) =
            tokio::join!(root_a.insert_new(key.clone(), with(1)), root_b.insert_new(key.clone(), with(2)));
        let made: Vec<Shared<Session>> = one.unwrap().into_iter().chain(other.unwrap()).collect();
        assert_eq!(made.len(), 1, "of two who tried, not one made it");
        let shown = visits(&made[0]).await;
        assert!(root_a.insert_new(key.clone(), with(3)).await.unwrap().is_none());
        assert_eq!(visits(&root_b.get(&key).await.unwrap().unwrap()).await, shown);
    }
}
