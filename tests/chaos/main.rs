//! Chaos with real processes: a coordinator, and three nodes under load, each behind a network of its own. Nodes are
//! killed, paused and cut off; afterwards everything that they had been told must be true.
//!
//! That is done twice. First the coordinator has its state in memory, and nothing happens to it; meanwhile the shop of the
//! examples is open on it, on nodes that nothing happens to either, and must not notice. Then another one has its state
//! on disk and is killed and paused like everybody else; the load commits durably.
//!
//! `KILN_CHAOS_MINUTES=N` runs for so long, half of it each; `KILN_CHAOS_SEED=N` makes the same faults in the same order.
#![expect(clippy::print_stdout, reason = "what happened is part of the result")]

mod coordinator;
mod history;
mod node;
mod shop;

use coordinator::{Coordinator, Failure, Storage};
use history::History;
use kiln::Runtime;
use kiln_protocol::connection::LEASE;
use kiln_tests::{PATIENCE, SESSIONS, Session, soon};
use node::{Fault, Node};
use rustix::time::{ClockId, clock_gettime};
use shop::Shop;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

const TICK: Duration = Duration::from_millis(10);
/// Long enough for each fault on each node; shorter runs do not ask whether each happened.
const SECONDS: f64 = 60.0;
/// Long enough for whatever may follow from them, also on a machine that is busy.
const SECONDS_FOR_ALL: f64 = 300.0;
/// What a machine that is busy may add to the time until a lock is free. The figure itself is printed.
const BUSY: Duration = Duration::from_secs(20);
/// One after the other: both are about time.
static TURN: Mutex<()> = Mutex::const_new(());

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// What the nodes and their faults share.
struct Chaos {
    /// A node that nothing happens to.
    steady: Runtime,
    history: History,
    faults: BTreeMap<Fault, u64>,
    /// How long it took until a lock was free that a node had when it was killed, paused or cut off.
    free: JoinSet<Duration>,
    free_all: Vec<Duration>,
    /// Guards of nodes that were away for longer than their lease, which could not commit.
    guards_fenced: u64,
}

impl Chaos {
    /// Counts how long it takes until somebody else has the write lock of this session.
    fn want(&mut self, key: &str) {
        let (kiln, key) = (self.steady.clone(), key.to_owned());
        self.free.spawn(async move {
            let started = Instant::now();
            // A coordinator that fails may take an answer along; then it is asked for again.
            while let Err(error) = lock(&kiln, &key).await {
                assert!(started.elapsed() < 4 * PATIENCE, "the lock of a node that is away: {error}");
            }
            started.elapsed()
        });
    }

    fn collect(&mut self) {
        while let Some(free) = self.free.try_join_next() {
            self.free_all.push(free.expect("the lock becomes free"));
        }
    }
}

async fn lock(kiln: &Runtime, key: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let root = kiln.root::<String, Session>(SESSIONS).await?;
    let session = root.get_or_create(key, Session::default).await?;
    Ok(session.update(|session| *session.balance += 1).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    run(Storage::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_durable_is_lost_although_the_coordinator_fails() {
    run(Storage::Disk).await;
}

async fn run(storage: Storage) {
    let _turn = TURN.lock().await;
    let seed = setting("KILN_CHAOS_SEED").unwrap_or_else(|| clock_gettime(ClockId::Boottime).tv_nsec.cast_unsigned());
    let duration =
        Duration::from_secs_f64(setting("KILN_CHAOS_MINUTES").map_or(SECONDS, |minutes: f64| minutes * 30.0));
    println!("{storage:?}: KILN_CHAOS_SEED={seed}, for {duration:?}, lease {LEASE:?}");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = directory.path().join("kiln");
    let mut coordinator = Coordinator::start(&files, storage, seed);
    let profile = coordinator.profile.clone();
    let steady = Runtime::builder().with_profile(profile.clone()).timeout(PATIENCE).node_name("steady");
    let mut chaos = Chaos {
        steady: steady.attach().await.expect("a node"),
        history: History::default(),
        faults: BTreeMap::new(),
        free: JoinSet::new(),
        free_all: Vec::new(),
        guards_fenced: 0,
    };
    let names = ["a", "b", "c"];
    let mut nodes: Vec<_> =
        (0..).zip(names).map(|(n, name)| Node::start(name, &profile, files.as_path(), storage, seed + n)).collect();
    let mut shop = match storage {
        Storage::Memory => Some(Shop::open(coordinator.profile_path()).await),
        // Its pages say so when the coordinator is away, which its check does not take for an answer.
        Storage::Disk => None,
    };
    let end = Instant::now() + duration;
    while !nodes.iter().all(Node::is_stopped) || !shop.as_ref().is_none_or(Shop::is_closed) {
        tokio::time::sleep(TICK).await;
        let is_over = Instant::now() >= end;
        coordinator.turn(is_over);
        for node in &mut nodes {
            node.turn(&mut chaos, is_over && coordinator.is_steady());
        }
        if let Some(shop) = &mut shop {
            shop.turn(is_over);
        }
        chaos.collect();
    }
    while !chaos.free.is_empty() {
        tokio::time::sleep(TICK).await;
        chaos.collect();
    }
    if let Some(shop) = shop {
        println!("the shop was checked {} times", shop.good);
    }
    if storage == Storage::Disk {
        println!("the coordinator: {:?}", coordinator.failures);
        if duration >= Duration::from_secs_f64(SECONDS_FOR_ALL) {
            let missing: Vec<_> = Failure::ALL.iter().filter(|one| !coordinator.failures.contains_key(one)).collect();
            assert!(missing.is_empty(), "never happened to the coordinator: {missing:?}");
        }
    }
    report(&mut chaos, &mut nodes, storage, duration).await;
}

async fn report(chaos: &mut Chaos, nodes: &mut [Node], storage: Storage, duration: Duration) {
    // Whatever a node may still have sent again is decided by then.
    for node in &mut *nodes {
        node.settle();
    }
    let mut fates = Vec::new();
    for commit in chaos.history.unknown() {
        fates.push(soon("a fate", chaos.steady.fate(commit)).await.expect("the coordinator answers"));
    }
    let unknown = fates.len();
    let applied = chaos.history.solve(&fates);
    let root = chaos.steady.root::<String, Session>(SESSIONS).await.expect("a root");
    let mut wrong = Vec::new();
    for key in chaos.history.keys() {
        let session = root.get(&key).await.expect("the coordinator answers").expect("a session");
        let (sum, clicks) = session.read().await.expect("a lock").get(|view| (view.visits(), view.clicks()));
        wrong.extend(chaos.history.faults(&key, sum, clicks));
        for node in &mut *nodes {
            if let Some(seen) = node.sees_otherwise(&key, sum) {
                wrong.push(seen);
            }
        }
        println!("{key}: {sum} increments, {clicks} adds");
    }
    let (twice, held) = chaos.history.held_twice();
    wrong.extend(twice);
    let History { acked, fenced, failed, missed, resumed, rejoined, lost, .. } = &chaos.history;
    println!("faults: {:?}", chaos.faults);
    println!("commits: {acked} acknowledged, {fenced} fenced, {failed} failed, {unknown} unknown ({applied} applied)");
    println!("locks: {held} times held by name, not taken for {missed:?}; {} guards fenced", chaos.guards_fenced);
    println!("connections: {lost} lost, {resumed} resumed, {rejoined} rejoined");
    let longest = chaos.free_all.iter().max().copied().unwrap_or_default();
    println!("{} locks of nodes that were away became free, after {longest:?} at most", chaos.free_all.len());
    assert_eq!(wrong, Vec::<String>::new());
    // A coordinator that fails as well begins to wait anew each time.
    if storage == Storage::Memory {
        assert!(longest < LEASE + Duration::from_secs(1) + BUSY, "a lock was free after {longest:?}");
    }
    if duration >= Duration::from_secs_f64(SECONDS) {
        let missing: Vec<_> = Fault::ALL.iter().filter(|fault| !chaos.faults.contains_key(fault)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
        assert!(*acked > 0, "nothing was tested");
    }
    if duration >= Duration::from_secs_f64(SECONDS_FOR_ALL) {
        assert!(*acked > 500 && *resumed > 0 && *rejoined > 0 && chaos.guards_fenced > 0, "a part was not tested");
    }
}
