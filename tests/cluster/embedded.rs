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
