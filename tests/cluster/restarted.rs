//! A coordinator that is killed and comes back without its state.

use crate::reconnect::add;
use crate::{TEST_COORDINATOR, session, visits};
use kiln::{ClusterEvent, CommitError, Ended, Runtime};
use kiln_protocol::profile::split_address;
use kiln_tests::{Process, soon};
use std::ffi::OsStr;
use std::path::Path;
use tokio::time::Instant;

fn start(files: &Path, port: u16) -> (Process, String) {
    let port = port.to_string();
    let mut coordinator = Process::start("the coordinator", TEST_COORDINATOR, &[files.as_os_str(), OsStr::new(&port)]);
    let profile = coordinator.hear();
    let profile = profile.strip_prefix("profile ").unwrap().to_owned();
    (coordinator, profile)
}

/// Kills and starts a coordinator; `noticed`: only once its node has noticed that it is gone.
async fn nodes_are_reset(noticed: bool) {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("kiln");
    let (mut coordinator, profile) = start(&files, 0);
    let address = kiln::Profile::parse(&std::fs::read_to_string(&profile).unwrap()).unwrap().address;
    let (_, port) = split_address(&address).unwrap();
    let a = Runtime::attach(&profile).await.unwrap();
    let mut events = a.events();
    let on_a = session(&a, "s").await;
    add(&on_a, 1).await;
    let mut guard = on_a.write().await.unwrap();
    *guard.visits = 1000;
    coordinator.kill();
    if noticed {
        assert_eq!(soon("the silence is noticed", events.next()).await, Some(ClusterEvent::OperationsDisabled));
    }
    let (_coordinator, profile) = start(&files, port);
    let started = Instant::now();
    if !noticed {
        assert_eq!(soon("the end is noticed", events.next()).await, Some(ClusterEvent::OperationsDisabled));
        println!("a coordinator that came back without its state was noticed after {:?}", started.elapsed());
    }
    assert_eq!(soon("a reset", events.next()).await, Some(ClusterEvent::Reset));
    println!("... and its nodes were reset after {:?}", started.elapsed());
    assert_eq!(soon("the end", a.closed()).await, Ended::Reset);
    assert!(matches!(guard.commit().await, Err(CommitError::Disconnected)));
    assert_eq!(on_a.view().visits(), 1);
    let again = soon("attaching again", Runtime::attach(&profile)).await.unwrap();
    let on_again = session(&again, "s").await;
    add(&on_again, 1).await;
    assert_eq!(visits(&on_again).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_comes_back_at_once_resets_its_nodes() {
    nodes_are_reset(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_was_missed_resets_its_nodes() {
    nodes_are_reset(true).await;
}
