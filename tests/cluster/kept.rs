//! A coordinator with its state on disk that is killed and comes back: nothing that it acknowledged is lost.

use crate::{TEST_COORDINATOR, session, visits};
use kiln::{CommitError, Level, Runtime, Shared};
use kiln_protocol::profile::split_address;
use kiln_tests::{PATIENCE, Process, Random, Session, soon};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

const KILLS: u32 = 30;
const SESSIONS: [&str; 3] = ["s-0", "s-1", "s-2"];
const TASKS: usize = 4;

pub(crate) struct OnDisk {
    coordinator: Process,
    profile: String,
    port: String,
    files: PathBuf,
    _directory: TempDir,
}

fn start(files: &Path, port: &str) -> (Process, String) {
    let arguments = [files.as_os_str(), OsStr::new(port), OsStr::new("disk")];
    let mut coordinator = Process::start("the coordinator", TEST_COORDINATOR, &arguments);
    let profile = coordinator.hear().strip_prefix("profile ").unwrap().to_owned();
    (coordinator, profile)
}

impl OnDisk {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = directory.path().join("kiln");
        let (coordinator, profile) = start(&files, "0");
        let address = kiln::Profile::parse(&std::fs::read_to_string(&profile).unwrap()).unwrap().address;
        let port = split_address(&address).unwrap().1.to_string();
        Self { coordinator, profile, port, files, _directory: directory }
    }

    pub(crate) async fn node(&self, name: &str) -> Runtime {
        let builder = Runtime::builder().profile(&self.profile).node_name(name).timeout(PATIENCE);
        soon("a node attaches", builder.attach()).await.unwrap()
    }

    pub(crate) fn profile(&self) -> &str {
        &self.profile
    }

    pub(crate) fn kill_and_start(&mut self) {
        self.coordinator.kill();
        self.coordinator = start(&self.files, &self.port).0;
    }
}

/// What one task did.
#[derive(Debug, Default)]
struct Did {
    /// The numbers that it made, and that were acknowledged as durable.
    made: Vec<u64>,
    /// How many commits nobody answered.
    unknown: u64,
}

/// Counts up until told to stop.
async fn count(session: Shared<Session>, stop: Arc<AtomicBool>) -> Did {
    let mut did = Did::default();
    // Relaxed: only an end, nothing is read after it.
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut guard) = session.write().await else { continue };
        let next = *guard.visits + 1;
        *guard.visits = next;
        match guard.commit_with(Level::Durable).await {
            Ok(_) => did.made.push(next),
            Err(CommitError::Unknown { .. }) => did.unknown += 1,
            Err(_not_made) => {}
        }
    }
    did
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_durable_commit_is_lost_when_the_coordinator_is_killed_again_and_again() {
    let mut cluster = OnDisk::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for node in [&a, &b] {
        for (at, key) in SESSIONS.into_iter().enumerate() {
            let session = session(node, key).await;
            for _ in 0..TASKS {
                let (session, stop) = (session.clone(), Arc::clone(&stop));
                tasks.spawn(async move { (at, count(session, stop).await) });
            }
        }
    }
    let (random, started) = (Random::new(5), Instant::now());
    let watched = session(&b, SESSIONS[0]).await;
    for _ in 0..KILLS {
        let before = watched.view().visits();
        tokio::time::timeout(PATIENCE, async {
            while watched.view().visits() < before + 3 {
                tokio::time::sleep(random.up_to(Duration::from_millis(80))).await;
            }
        })
        .await
        .expect("commits go on after a restart");
        cluster.kill_and_start();
    }
    println!("{KILLS} kills in {:?}", started.elapsed());
    stop.store(true, Ordering::Relaxed);
    let (mut made, mut unknown) = ([const { BTreeSet::new() }; SESSIONS.len()], [0; SESSIONS.len()]);
    while let Some(did) = soon("the tasks end", tasks.join_next()).await {
        let (at, did) = did.unwrap();
        unknown[at] += did.unknown;
        for number in did.made {
            assert!(made[at].insert(number), "{}: two holders made {number}", SESSIONS[at]);
        }
    }
    // A node that was not there has nothing in its cache.
    let fresh = cluster.node("fresh").await;
    for (at, key) in SESSIONS.into_iter().enumerate() {
        let (last, acknowledged) = (visits(&session(&fresh, key).await).await, made[at].len() as u64);
        println!("{key}: {last}, of them {acknowledged} acknowledged, {} unknown", unknown[at]);
        assert!(made[at].last().is_some_and(|made| *made <= last), "{key}: the last one is lost");
        assert!((acknowledged..=acknowledged + unknown[at]).contains(&last), "{key}: {last}");
        assert!(acknowledged > 20, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_outlives_the_coordinator_and_nobody_else_gets_it() {
    let mut cluster = OnDisk::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let (on_a, on_b) = (session(&a, "s").await, session(&b, "s").await);
    let mut guard = on_a.write().await.unwrap();
    *guard.visits = 7;
    cluster.kill_and_start();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { visits(&on_b).await });
    // The lock is asked for by the time an object of this node is.
    session(&b, "another").await;
    assert!(waiting.try_join_next().is_none());
    guard.commit_with(Level::Durable).await.unwrap();
    assert_eq!(soon("the other sees it", waiting.join_next()).await.unwrap().unwrap(), 7);
}
