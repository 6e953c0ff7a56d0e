//! A coordinator inside the process, and how both ends stop.

use crate::{session, visits};
use kiln::{Ended, Runtime};
use kiln_tests::{Coordinator, soon};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_attach_to_an_embedded_coordinator() {
    let first = soon("it starts", Runtime::embedded()).await.unwrap();
    let profile = first.profile_path().unwrap().to_owned();
    let second = soon("another attaches", Runtime::attach(&profile)).await.unwrap();
    let (on_first, on_second) = (session(&first, "s").await, session(&second, "s").await);
    on_first.update(|session| *session.visits += 1).await.unwrap();
    on_second.update(|session| *session.visits += 1).await.unwrap();
    assert_eq!(visits(&on_first).await, 2);
    // The coordinator goes with the node that brought it, and the other is told.
    first.detach(Duration::from_secs(5)).await.unwrap();
    assert_eq!(soon("the other is told", second.closed()).await, Ended::CoordinatorStopped);
    assert!(!profile.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_coordinator_with_data_finds_its_objects_again() {
    let directory = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let builder = Runtime::builder().data(directory.path().join("kiln"));
        let kiln = soon("it starts", builder.embedded()).await.unwrap();
        let session = session(&kiln, "s").await;
        assert_eq!(visits(&session).await, life);
        session.update(|session| *session.visits += 1).await.unwrap();
        kiln.detach(Duration::from_secs(5)).await.unwrap();
    }
    // One in memory would give numbers a second time.
    let builder = Runtime::builder().directory(directory.path().join("kiln"));
    let refused = soon("it does not start", builder.embedded()).await.unwrap_err().to_string();
    assert!(refused.contains("has the log of a coordinator"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_does_not_wait_for_a_process_that_has_left() {
    /// Less than the coordinator waits for a peer to receive its last words.
    const DEADLINE: Duration = Duration::from_secs(1);
    const NODES: usize = 16;
    let coordinator = Coordinator::start().await;
    // Nothing of a node runs once its runtime is gone, as when its process ends.
    let processes = (0..NODES).map(|_| {
        let builder = coordinator.builder("a");
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async { builder.attach().await.unwrap().detach(DEADLINE).await.unwrap() });
        })
    });
    for process in processes.collect::<Vec<_>>() {
        soon("a node leaves", process).await.unwrap();
    }
    assert_eq!(coordinator.stop_within(DEADLINE).await.cut, 0);
}
