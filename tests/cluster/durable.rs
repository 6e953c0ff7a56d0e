//! What a coordinator with a log keeps for the nodes that come back to it, and what one in memory does not promise.

use crate::kept::OnDisk;
use crate::{session, visits};
use kiln::{AttachError, ClusterEvent, CommitError, Level, Shared};
use kiln_coordinator::server::Storage;
use kiln_tests::{Coordinator, Random, Session, SessionCounters as _, soon};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const KILLS: u32 = 8;
const TASKS: usize = 4;

/// What was acknowledged as ordered: increments under the lock, and adds.
#[derive(Clone, Copy, Debug, Default)]
struct Did {
    visits: u64,
    clicks: i64,
}

async fn change(session: Shared<Session>, stop: Arc<AtomicBool>) -> Did {
    let mut did = Did::default();
    // Relaxed: only an end, nothing is read after it.
    while !stop.load(Ordering::Relaxed) {
        let mut guard = session.write().await.unwrap();
        *guard.visits += 1;
        guard.commit_with(Level::Applied).await.unwrap();
        did.visits += 1;
        session.clicks().add(1).unwrap();
        did.clicks += 1;
    }
    did
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_ordered_is_sent_again_when_the_coordinator_loses_it() {
    let mut cluster = OnDisk::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let (was_a, was_b) = (a.node().incarnation, b.node().incarnation);
    let mut events = a.events();
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for node in [&a, &b] {
        let session = session(node, "s").await;
        for _ in 0..TASKS {
            tasks.spawn(change(session.clone(), Arc::clone(&stop)));
        }
    }
    let on_a = session(&a, "s").await;
    let (leader, leader_elsewhere) = (a.lock("leader").await.unwrap(), b.lock("leader").await.unwrap());
    let leading = leader.write().await.unwrap();
    let random = Random::new(7);
    for _ in 0..KILLS {
        let before = on_a.view().visits();
        soon("commits go on", async {
            while on_a.view().visits() < before + 50 {
                tokio::time::sleep(random.up_to(Duration::from_millis(20))).await;
            }
        })
        .await;
        cluster.kill_and_start();
        assert!(leader_elsewhere.try_write().is_none());
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Did::default();
    while let Some(did) = soon("the tasks end", tasks.join_next()).await {
        let did = did.unwrap();
        (all.visits, all.clicks) = (all.visits + did.visits, all.clicks + did.clicks);
    }
    assert_eq!((a.node().incarnation, b.node().incarnation), (was_a, was_b), "they went on as what they were");
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        assert!(!matches!(event, ClusterEvent::Rejoined { .. } | ClusterEvent::Reset), "{event:?}");
    }
    for node in [&a, &b] {
        assert_eq!((node.take_refusals(), node.take_unknown()), (vec![], vec![]));
    }
    // Behind all that is still on its way from either node.
    for node in [&a, &b] {
        let session = session(node, "s").await;
        session.update_with(Level::Durable, |session| *session.visits += 1).await.unwrap();
    }
    let fresh = cluster.node("fresh").await;
    let on_fresh = session(&fresh, "s").await;
    assert_eq!(visits(&on_fresh).await, all.visits + 2, "nothing acknowledged is lost, nothing twice");
    assert_eq!(on_fresh.view().clicks(), all.clicks);
    println!("{KILLS} kills, {} increments", all.visits);
    // Whoever had a named lock has it still.
    let waiting = leader_elsewhere.with_timeout(Duration::from_millis(300));
    assert!(waiting.write().await.is_err());
    drop(leading);
    soon("the lock is free", leader_elsewhere.write()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_memory_nothing_is_durable() {
    let coordinator = Coordinator::with(|options| options.storage = Storage::Memory).await;
    let a = coordinator.builder("a").attach().await.unwrap();
    let on_a = session(&a, "s").await;
    let mut guard = on_a.write().await.unwrap();
    *guard.visits = 7;
    assert!(matches!(guard.commit_with(Level::Durable).await, Err(CommitError::NotDurable)));
    assert_eq!(visits(&on_a).await, 0, "nothing was changed");
    let attached = coordinator.builder("b").level(Level::Durable).attach().await;
    assert!(matches!(attached, Err(AttachError::NotDurable { .. })), "{attached:?}");
}
