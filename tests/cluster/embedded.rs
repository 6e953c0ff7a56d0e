//! A coordinator inside the process.

use crate::{session, visits};
use kiln::{Ended, Runtime};
use kiln_tests::soon;
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
