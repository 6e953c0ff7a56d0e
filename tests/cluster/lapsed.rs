//! Nodes that are cut off for longer than their lease lasts.

use crate::reconnect::{Net, add};
use crate::{session, sessions, visits};
use kiln::{ClusterEvent, Commit, CommitError, EventKind, Fate, Level, LockError, State, UpdateError};
use kiln_tests::{Coordinator, Peer, SessionCounters as _, Weather, soon, until};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

fn unknown(update: Result<(), UpdateError>) -> Commit {
    match update {
        Err(UpdateError::Commit(CommitError::Unknown { commit })) => commit,
        other => panic!("a commit without an answer: {other:?}"),
    }
}

async fn everything_unanswered_is_told(lease: Duration) {
    let mut net = Net::start(lease).await;
    let before = net.a.node().incarnation;
    let (held_a, held_b) = net.both("held").await;
    let (lost_a, lost_b) = net.both("lost").await;
    let (queued_a, queued_b) = net.both("queued").await;
    add(&lost_a, 1).await;
    add(&queued_a, 1).await;
    let mut watch = held_a.watch::<String>().await.unwrap();
    let mut guard = held_a.write().await.unwrap();
    *guard.visits = 1000;
    let transaction = net.a.begin_transaction();
    transaction.lock("leader").await.unwrap();
    let lock = net.both("locked").await.0.lock().await.unwrap();

    // Of this commit the answer is lost, of the next ones the commit.
    net.proxy.set(Weather::cut_down());
    let (mut applied, mut never) = (JoinSet::new(), JoinSet::new());
    let writer = lost_a.clone();
    applied.spawn(async move { writer.update(|session| *session.visits += 1).await });
    until("the commit arrives", || async { lost_b.get(|view| view.visits()) == 2 }).await;
    net.proxy.set(Weather::cut());
    let cut = Instant::now();
    let writer = queued_a.clone();
    never.spawn(async move { writer.update(|session| *session.visits += 100).await });
    until("the commit is on its way", || async { net.a.stats().unacknowledged >= 2 }).await;
    for _ in 0..3 {
        queued_a.update_with(Level::Queued, |session| *session.visits += 100).await.unwrap();
    }
    queued_a.clicks().add(100).unwrap();
    let mut waiting = JoinSet::new();
    let waiter = held_b.clone();
    waiting.spawn(async move {
        add(&waiter, 1).await;
        Instant::now()
    });

    let applied = unknown(soon("the lease lapses", applied.join_next()).await.unwrap().unwrap());
    let never = unknown(soon("the lease lapses", never.join_next()).await.unwrap().unwrap());
    assert!(matches!(guard.commit().await, Err(CommitError::Fenced)));
    assert_eq!((held_a.state(), held_a.try_write().is_some()), (State::Stale, false));
    assert_eq!(net.event().await, ClusterEvent::OperationsDisabled);
    assert!(matches!(soon("an answer", lock.write()).await, Err(LockError::Fenced)));
    let free = soon("the lock", waiting.join_next()).await.unwrap().unwrap() - cut;
    println!("lease {lease:?}: the lock of a node that is cut off was free after {free:?}");
    assert!(free < lease * 2 + Duration::from_secs(1), "{free:?}");
    add(&held_b, 1).await;

    net.proxy.heal();
    let healed = Instant::now();
    let after = net.event().await;
    assert_eq!(after, ClusterEvent::Rejoined { incarnation: net.a.node().incarnation });
    assert_ne!(net.a.node().incarnation, before);
    assert_eq!(net.event().await, ClusterEvent::OperationsEnabled);
    assert!(matches!(transaction.lock("another").await, Err(LockError::Fenced)));
    println!("lease {lease:?}: the node was back {:?} after the network was", healed.elapsed());
    assert_eq!(net.a.fate(applied).await.unwrap(), Fate::Applied);
    assert_eq!(net.a.fate(never).await.unwrap(), Fate::NotApplied);
    let untold = net.a.take_unknown();
    assert_eq!(untold.len(), 4, "{untold:?}");
    for commit in untold {
        assert_eq!(commit.incarnation, before);
        assert_eq!(net.a.fate(commit).await.unwrap(), Fate::NotApplied);
        assert_eq!(net.b.fate(commit).await.unwrap(), Fate::NotApplied);
    }
    assert_eq!(net.a.take_unknown(), []);

    assert_eq!((visits(&held_a).await, visits(&held_b).await), (2, 2));
    assert_eq!((visits(&lost_a).await, visits(&lost_b).await), (2, 2));
    assert_eq!((visits(&queued_a).await, visits(&queued_b).await), (1, 1));
    assert_eq!((queued_a.view().clicks(), queued_b.view().clicks()), (0, 0));
    add(&held_a, 1).await;
    queued_a.clicks().add(1).unwrap();
    until("the sum", || async { queued_b.get(|view| view.clicks()) == 1 }).await;
    assert_eq!(visits(&held_b).await, 3);
    assert_eq!(soon("the gap", watch.next()).await.unwrap().kind, EventKind::Gap);
    let event = soon("an event", watch.next()).await.unwrap();
    assert!(matches!(&event.kind, EventKind::Updated { version, .. } if version.number() == 3), "{event:?}");
    assert_eq!(event.writer.unwrap().0, net.a.node().incarnation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_longer_than_the_lease_is_told_and_forgotten() {
    everything_unanswered_is_told(Duration::from_secs(5)).await;
}

/// The connection is not lost yet when the lease is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_shorter_than_the_silence_that_loses_a_connection() {
    everything_unanswered_is_told(Duration::from_millis(1500)).await;
}

/// S3: who has the lock next has it after the node that was cut off knows that it does not.
async fn nobody_holds_it_twice(weather: Weather) {
    let lease = Duration::from_secs(2);
    let mut net = Net::start(lease).await;
    let (on_a, on_b) = net.both("s").await;
    let named = [net.a.lock("l").await.unwrap(), net.b.lock("l").await.unwrap()];
    let mut guard = on_a.write().await.unwrap();
    *guard.visits = 1000;
    let alone = named[0].write().await.unwrap();
    net.proxy.set(weather);
    let cut = Instant::now();
    add(&on_b, 1).await;
    let free = cut.elapsed();
    assert!(matches!(guard.commit().await, Err(CommitError::Fenced)));
    assert!(on_a.try_write().is_none());
    let others = soon("the named lock", named[1].write()).await.unwrap();
    assert!(named[0].try_write().is_none());
    println!("lease {lease:?}, {weather:?}: the lock was free after {free:?}");
    net.proxy.heal();
    while net.event().await != ClusterEvent::OperationsEnabled {}
    drop(alone);
    assert!(named[0].try_write().is_none(), "a lock that another node holds");
    drop(others);
    drop(soon("the named lock", named[0].write()).await.unwrap());
    assert_eq!(visits(&on_a).await, 1);
    add(&session(&net.a, "s").await, 1).await;
    assert_eq!(visits(&on_b).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_not_heard_knows_that_its_locks_are_lost() {
    nobody_holds_it_twice(Weather::cut_up()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hears_nothing_knows_that_its_locks_are_lost() {
    nobody_holds_it_twice(Weather::cut_down()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_lock_outlives_the_lease_of_the_only_node_that_has_it() {
    let mut net = Net::start(Duration::from_secs(2)).await;
    let lock = net.a.lock("l").await.unwrap();
    drop(lock.write().await.unwrap());
    net.proxy.set(Weather::cut());
    assert_eq!(net.event().await, ClusterEvent::OperationsDisabled);
    let is_gone = async || Peer::nodes(net.coordinator.profile()).await.iter().all(|node| node.name != "a");
    until("the lease lapses", is_gone).await;
    net.proxy.heal();
    while net.event().await != ClusterEvent::OperationsEnabled {}
    drop(soon("the lock", lock.write()).await.unwrap());
}

/// Who waits for a lock and has none loses nothing with the lease; a transaction that holds one loses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_lock_waits_on_when_the_lease_lapses() {
    let mut net = Net::start(Duration::from_secs(1)).await;
    let (on_a, on_b) = net.both("s").await;
    let (other_a, other_b) = net.both("other").await;
    let held = on_b.write().await.unwrap();
    let transaction = net.a.begin_transaction();
    drop(transaction.write(&other_a).await.unwrap());
    net.proxy.set(Weather::cut());
    let waits = async {
        let mut guard = on_a.write().await.unwrap();
        *guard.visits += 1;
        guard.commit().await.unwrap();
    };
    let fenced = async {
        let fenced = transaction.write(&on_a).await.map(drop);
        assert!(matches!(fenced, Err(LockError::Fenced)), "{fenced:?}");
        // What it held is free.
        add(&other_b, 1).await;
        held.rollback();
        net.proxy.heal();
    };
    soon("the lock", Box::pin(async { tokio::join!(waits, fenced) })).await;
    assert_eq!((visits(&on_a).await, visits(&on_b).await, visits(&other_b).await), (1, 1, 1));
    while net.event().await != ClusterEvent::OperationsEnabled {}
}

/// A program that blocks its only worker is to its node as a pause of the process.
#[tokio::test]
async fn a_node_that_did_not_run_for_longer_than_its_lease_shows_nothing_by_key() {
    let lease = Duration::from_millis(500);
    let coordinator = Coordinator::with(|options| options.tuning.lease = lease).await;
    let kiln = coordinator.node("a").await;
    let held = session(&kiln, "s").await;
    let sessions = sessions(&kiln).await;
    assert!(sessions.peek("s").is_some());
    #[expect(clippy::disallowed_methods, reason = "nothing of the node is to run meanwhile")]
    std::thread::sleep(lease);
    // Nobody has told the node yet that its lease is over. Others may have removed the object since.
    assert!(sessions.peek("s").is_none(), "shown after the lease");
    assert_eq!(soon("it asks", sessions.get("s")).await.unwrap().unwrap().id(), held.id());
}
