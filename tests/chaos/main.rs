//! Chaos with real processes: a coordinator, and three nodes under load, each behind a network of its own. Nodes are
//! killed, paused and cut off; afterwards everything that they had been told must be true. Meanwhile the shop of the
//! examples is open on the same coordinator, on nodes that nothing happens to, and must not notice.
//!
//! `KILN_CHAOS_MINUTES=N` runs for so long, `KILN_CHAOS_SEED=N` makes the same faults in the same order.
#![expect(clippy::print_stdout, reason = "what happened is part of the result")]

mod history;
mod node;
mod shop;

use history::History;
use kiln::{Profile, Runtime};
use kiln_protocol::connection::LEASE;
use kiln_tests::{Process, SESSIONS, Session, soon};
use node::{Fault, Node};
use rustix::time::{ClockId, clock_gettime};
use shop::Shop;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const TEST_COORDINATOR: &str = env!("CARGO_BIN_EXE_test-coordinator");
const TICK: Duration = Duration::from_millis(10);
/// Long enough for each fault on each node; shorter runs do not ask whether each happened.
const SECONDS: f64 = 75.0;
/// Long enough for whatever may follow from them, also on a machine that is busy.
const SECONDS_FOR_ALL: f64 = 300.0;
/// What a machine that is busy may add to the time until a lock is free. The figure itself is printed.
const BUSY: Duration = Duration::from_secs(20);

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
            let root = kiln.root::<String, Session>(SESSIONS).await.expect("a root");
            let session = root.get_or_create(&key, Session::default).await.expect("a session");
            session.update(|session| *session.balance += 1).await.expect("the lock of a node that is away");
            started.elapsed()
        });
    }

    fn collect(&mut self) {
        while let Some(free) = self.free.try_join_next() {
            self.free_all.push(free.expect("the lock becomes free"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let seed = setting("KILN_CHAOS_SEED").unwrap_or_else(|| clock_gettime(ClockId::Boottime).tv_nsec.cast_unsigned());
    let duration =
        Duration::from_secs_f64(setting("KILN_CHAOS_MINUTES").map_or(SECONDS, |minutes: f64| minutes * 60.0));
    println!("KILN_CHAOS_SEED={seed}, for {duration:?}, lease {LEASE:?}");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = directory.path().join("kiln");
    let mut coordinator = Process::start("the coordinator", TEST_COORDINATOR, &[files.as_os_str()]);
    let line = coordinator.hear();
    let path = line.strip_prefix("profile ").expect("where the profile is");
    let profile = Profile::parse(&std::fs::read_to_string(path).expect("the profile")).expect("a profile");
    let steady = Runtime::builder().with_profile(profile.clone()).timeout(kiln_tests::PATIENCE).node_name("steady");
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
        (0..).zip(names).map(|(n, name)| Node::start(name, &profile, files.as_path(), seed + n)).collect();
    let mut shop = Shop::open(Path::new(path)).await;
    let end = Instant::now() + duration;
    while !nodes.iter().all(Node::is_stopped) || !shop.is_closed() {
        tokio::time::sleep(TICK).await;
        let is_over = Instant::now() >= end;
        for node in &mut nodes {
            node.turn(&mut chaos, is_over);
        }
        shop.turn(is_over);
        chaos.collect();
    }
    while !chaos.free.is_empty() {
        tokio::time::sleep(TICK).await;
        chaos.collect();
    }
    println!("the shop was checked {} times", shop.good);
    report(&mut chaos, &mut nodes, duration).await;
}

async fn report(chaos: &mut Chaos, nodes: &mut [Node], duration: Duration) {
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
    assert!(longest < LEASE + Duration::from_secs(1) + BUSY, "a lock was free after {longest:?}");
    if duration >= Duration::from_secs_f64(SECONDS) {
        let missing: Vec<_> = Fault::ALL.iter().filter(|fault| !chaos.faults.contains_key(fault)).collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
        assert!(*acked > 0, "nothing was tested");
    }
    if duration >= Duration::from_secs_f64(SECONDS_FOR_ALL) {
        assert!(*acked > 500 && *resumed > 0 && *rejoined > 0 && chaos.guards_fenced > 0, "a part was not tested");
    }
}
