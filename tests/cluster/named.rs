//! Locks without an object.

use kiln::{LockError, NamedLock};
use kiln_protocol::{ToCoordinator, ToNode};
use kiln_tests::{Coordinator, Peer, soon, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const SHORT: Duration = Duration::from_millis(300);

async fn use_it(lock: NamedLock, inside: Arc<AtomicI32>) {
    for turn in 0..25 {
        if turn % 5 == 0 {
            let guard = lock.read().await.unwrap();
            assert!(inside.fetch_add(1, Ordering::SeqCst) >= 0, "a reader beside a writer");
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            drop(guard);
        } else {
            let guard = lock.write().await.unwrap();
            assert_eq!(inside.swap(-1000, Ordering::SeqCst), 0, "a writer beside another");
            tokio::task::yield_now().await;
            assert_eq!(inside.swap(0, Ordering::SeqCst), -1000);
            drop(guard);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holders_of_a_named_lock_exclude_each_other() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let inside = Arc::new(AtomicI32::new(0));
    let mut tasks = JoinSet::new();
    for kiln in [&a, &b, &a, &b] {
        tasks.spawn(use_it(kiln.lock("leader").await.unwrap(), Arc::clone(&inside)));
    }
    while let Some(done) = soon("all take turns", tasks.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_lock_is_only_its_own_name() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = (a.lock("one").await.unwrap(), b.lock("one").await.unwrap());
    let other = b.lock("two").await.unwrap();
    let held = on_a.write().await.unwrap();
    assert!(soon("another lock", other.write()).await.is_ok());
    assert!(matches!(on_b.with_timeout(SHORT).write().await, Err(LockError::Timeout { .. })));
    assert!(matches!(on_b.with_timeout(SHORT).read().await, Err(LockError::Timeout { .. })));
    assert!(on_a.try_write().is_none());
    drop(held);
    soon("the lock is free", on_b.write()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn named_locks_vanish_with_their_users() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    for name in 0..20 {
        let lock = a.lock(&format!("lock-{name}")).await.unwrap();
        drop(lock.write().await.unwrap());
    }
    let kept = b.lock("lock-0").await.unwrap();
    let guard = kept.write().await.unwrap();
    a.detach(Duration::from_secs(5)).await.unwrap();
    let mut peer = Peer::attach(coordinator.profile(), "looks").await;
    assert_eq!(locks(&mut peer).await, 1);
    drop(guard);
    drop(kept);
    b.detach(Duration::from_secs(5)).await.unwrap();
    // One connection's end may be noticed after another's request.
    let peer = tokio::sync::Mutex::new(peer);
    until("the last lock is gone", async || locks(&mut *peer.lock().await).await == 0).await;
}

/// How many named locks there are.
async fn locks(peer: &mut Peer) -> u64 {
    let request = peer.request();
    peer.say(&ToCoordinator::Roots { request }).await;
    peer.hear_of("the roots", |message| match message {
        ToNode::Roots { roots, .. } => Some(roots.iter().map(|root| root.objects).sum()),
        _ => None,
    })
    .await
}
