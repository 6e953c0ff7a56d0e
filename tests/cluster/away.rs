//! Leaving, and being left.

use crate::{TEST_COORDINATOR, session, sessions};
use kiln::{
    AccessError, Away, ClusterEvent, CommitError, DetachError, Ended, Level, LockError, RootError, Runtime, State,
    UpdateError,
};
use kiln_tests::{Coordinator, Process, SessionCounters as _, soon, until};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

const SHORT: Duration = Duration::from_millis(300);

/// A coordinator that can be killed and paused, and its profile, in a directory that goes with the first.
fn coordinator_process() -> (TempDir, Process, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("kiln");
    let mut coordinator = Process::start("the coordinator", TEST_COORDINATOR, &[files.as_os_str()]);
    let profile = coordinator.hear().strip_prefix("profile ").unwrap().into();
    (directory, coordinator, profile)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_coordinator_stopped_fails_at_once_and_shows_what_it_has() {
    let coordinator = Coordinator::start().await;
    let a = coordinator.builder("a").away(Away::Fail).attach().await.unwrap();
    let (root, handle) = (sessions(&a).await, session(&a, "s").await);
    handle.update(|session| *session.visits = 3).await.unwrap();
    let guard = handle.write().await.unwrap();
    coordinator.stop().await;
    assert_eq!(soon("it is told", a.closed()).await, Ended::CoordinatorStopped);
    let started = Instant::now();
    assert!(matches!(guard.commit().await, Ok(commit) if commit.seq.is_none()));
    assert!(matches!(root.get("t").await, Err(AccessError::Ended(Ended::CoordinatorStopped))));
    assert!(matches!(root.remove("s").await, Err(AccessError::Ended(Ended::CoordinatorStopped))));
    assert!(matches!(root.keys().next_page(1).await, Err(AccessError::Ended(Ended::CoordinatorStopped))));
    assert!(matches!(root.watch().await, Err(AccessError::Ended(Ended::CoordinatorStopped))));
    assert!(matches!(handle.read().await, Err(LockError::Disconnected)));
    assert!(matches!(handle.write().await, Err(LockError::Disconnected)));
    assert!(handle.try_write().is_none());
    assert!(matches!(handle.clicks().add(1), Err(CommitError::Disconnected)));
    let update = handle.update(|session| *session.visits += 1).await;
    assert!(matches!(update, Err(UpdateError::Lock(LockError::Disconnected))), "{update:?}");
    let lock = a.lock("l").await;
    assert!(matches!(lock, Err(RootError::Access(AccessError::Ended(Ended::CoordinatorStopped)))), "{lock:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "it waited for nothing: {:?}", started.elapsed());
    assert_eq!((handle.view().visits(), handle.view().clicks()), (3, 0));
    a.detach(SHORT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_to_block_waits_before_it_fails() {
    let (_directory, mut coordinator, profile) = coordinator_process();
    let a = Runtime::builder().profile(&profile).away(Away::Block(SHORT)).attach().await.unwrap();
    let (root, handle) = (sessions(&a).await, session(&a, "s").await);
    let mut events = a.events();
    coordinator.kill();
    soon("it is noticed", async { while events.next().await != Some(ClusterEvent::OperationsDisabled) {} }).await;
    let started = Instant::now();
    assert!(matches!(root.get("t").await, Err(AccessError::Disconnected)));
    assert!(started.elapsed() >= SHORT, "{:?}", started.elapsed());
    // A lock that it has needs nobody, as long as the lease lasts; it is noticed when that is over.
    until("the lease lapses", async || handle.try_write().is_none()).await;
    assert_eq!(handle.state(), State::Stale);
    let started = Instant::now();
    assert!(matches!(handle.write().await, Err(LockError::Disconnected)));
    assert!(started.elapsed() >= SHORT, "{:?}", started.elapsed());
    // No longer than the call's own deadline.
    let started = Instant::now();
    let hasty = handle.with_timeout(SHORT / 10);
    let late = hasty.write().await;
    assert!(matches!(late, Err(LockError::Disconnected | LockError::Timeout { .. })), "{late:?}");
    assert!(started.elapsed() < SHORT, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_to_read_locally_says_that_it_is_stale() {
    let (_directory, mut coordinator, profile) = coordinator_process();
    let a = Runtime::builder().profile(&profile).away(Away::LocalReads).attach().await.unwrap();
    let root = sessions(&a).await;
    let handle = session(&a, "s").await;
    handle.update(|session| *session.visits = 3).await.unwrap();
    assert!(!handle.read().await.unwrap().is_stale());
    let mut events = a.events();
    coordinator.kill();
    soon("it is noticed", async { while events.next().await != Some(ClusterEvent::OperationsDisabled) {} }).await;
    let found = root.get("s").await.unwrap().unwrap();
    assert_eq!((found.state(), found.view().visits()), (State::Stale, 3));
    assert!(matches!(root.get("t").await, Err(AccessError::Disconnected)));
    until("the lease lapses", async || handle.try_write().is_none()).await;
    let guard = handle.read().await.unwrap();
    assert!(guard.is_stale());
    assert_eq!(guard.view().visits(), 3);
    assert!(matches!(handle.write().await, Err(LockError::Disconnected)));
    // As each call likes.
    let other = handle.with_away(Away::Fail);
    assert!(matches!(other.read().await, Err(LockError::Disconnected)));
    assert!(matches!(root.with_away(Away::Fail).get("s").await, Err(AccessError::Disconnected)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_answered_is_reported_as_unknown() {
    let (_directory, coordinator, profile) = coordinator_process();
    let a = Runtime::builder().profile(&profile).timeout(SHORT).attach().await.unwrap();
    let b = Runtime::builder().profile(&profile).timeout(SHORT).attach().await.unwrap();
    let (on_a, on_b) = (session(&a, "a").await, session(&b, "b").await);
    on_a.update(|session| *session.visits = 1).await.unwrap();
    on_b.update(|session| *session.visits = 1).await.unwrap();
    coordinator.pause();
    let timed_out = on_a.update(|session| *session.visits += 1).await;
    assert!(
        matches!(timed_out, Err(UpdateError::Commit(CommitError::Timeout { waited, .. })) if waited == SHORT),
        "{timed_out:?}"
    );
    let timed_out = sessions_get(&a).await;
    assert!(matches!(timed_out, Err(AccessError::Timeout { .. })), "{timed_out:?}");
    on_b.update_with(Level::Queued, |session| *session.visits += 1).await.unwrap();
    let left = b.detach(SHORT).await;
    assert!(matches!(left, Err(DetachError::Timeout { commits: 1, .. })), "{left:?}");
    // The lease lapses, and the fate of what was sent stays unknown.
    let on_a = on_a.with_timeout(kiln_tests::PATIENCE);
    let unknown = soon("the silence is noticed", on_a.update(|session| *session.visits += 1)).await;
    assert!(matches!(unknown, Err(UpdateError::Commit(CommitError::Unknown { .. }))), "{unknown:?}");
    // Of one of the two nobody was told: its future had given up.
    let left = a.detach(SHORT).await;
    assert!(matches!(left, Err(DetachError::Lost { commits: 1 })), "{left:?}");
}

async fn sessions_get(kiln: &Runtime) -> Result<(), AccessError> {
    match kiln.root::<String, kiln_tests::Session>(kiln_tests::SESSIONS).await {
        Ok(_) => Ok(()),
        Err(RootError::Access(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detaching_sends_what_was_queued() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let handle = session(&a, "s").await;
    for _ in 0..500 {
        handle.update_with(Level::Queued, |session| *session.visits += 1).await.unwrap();
    }
    a.clone().detach(Duration::from_secs(5)).await.unwrap();
    assert_eq!(a.closed().await, Ended::Detached);
    assert_eq!(session(&b, "s").await.view().visits(), 500);
    assert!(matches!(handle.write().await, Err(LockError::Disconnected)));
    assert_eq!(handle.view().visits(), 500);
}

/// Commits that are made while the node leaves: each is acknowledged, or nothing of it happened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_leaves_no_commit_unknown() {
    let coordinator = Coordinator::start().await;
    let watcher = coordinator.node("watcher").await;
    for round in 0..20 {
        let key = format!("s{round}");
        let leaver = coordinator.node("leaver").await;
        let handle = session(&leaver, &key).await;
        let made = Arc::new(AtomicU64::new(0));
        let mut busy = JoinSet::new();
        busy.spawn({
            let made = Arc::clone(&made);
            async move {
                loop {
                    match handle.update(|session| *session.visits += 1).await {
                        Ok(()) => made.fetch_add(1, Ordering::Relaxed),
                        Err(error) => return error,
                    };
                }
            }
        });
        until("it is busy", async || made.load(Ordering::Relaxed) > 3).await;
        leaver.detach(Duration::from_secs(5)).await.unwrap();
        let error = busy.join_next().await.unwrap().unwrap();
        assert!(
            matches!(error, UpdateError::Lock(_) | UpdateError::Commit(CommitError::Disconnected)),
            "round {round}: {error:?}"
        );
        assert_eq!(session(&watcher, &key).await.view().visits(), made.load(Ordering::Relaxed), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_ends_with_its_last_handle() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_a = session(&a, "s").await;
    drop(a);
    // The handle keeps it.
    on_a.update(|session| *session.visits = 1).await.unwrap();
    drop(on_a);
    let on_b = session(&b, "s").await;
    soon("its locks are free", on_b.update(|session| *session.visits += 1)).await.unwrap();
    assert_eq!(on_b.view().visits(), 2);
}
