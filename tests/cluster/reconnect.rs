//! Connections that are lost and found again within the lease, through a network of the tests' own.

use crate::{session, sessions, visits};
use kiln::{Builder, ClusterEvent, ClusterEvents, EventKind, Level, Runtime, Shared, State};
use kiln_tests::{Coordinator, Peer, Proxy, Session, SessionCounters as _, Way, Weather, soon, until};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Long enough that a connection is lost, which takes three seconds of silence or two times that, and found again.
pub(crate) const LONG_LEASE: Duration = Duration::from_secs(20);

/// A coordinator, a node `a` behind a proxy, and a node `b` that nothing ever happens to.
pub(crate) struct Net {
    pub(crate) coordinator: Coordinator,
    pub(crate) proxy: Proxy,
    pub(crate) a: Runtime,
    pub(crate) b: Runtime,
    /// Those of `a`.
    pub(crate) events: ClusterEvents,
}

impl Net {
    pub(crate) async fn start(lease: Duration) -> Self {
        Self::with(lease, |builder| builder).await
    }

    /// With a node `a` that is like this.
    pub(crate) async fn with(lease: Duration, a: impl FnOnce(Builder) -> Builder) -> Self {
        let coordinator = Coordinator::with(|options| options.tuning.lease = lease).await;
        let proxy = Proxy::before(coordinator.profile(), 1);
        let timeout = kiln_tests::PATIENCE;
        let a = a(coordinator.builder_through(&proxy, "a").timeout(timeout)).attach().await.unwrap();
        let b = coordinator.builder("b").timeout(timeout).attach().await.unwrap();
        let events = a.events();
        Self { coordinator, proxy, a, b, events }
    }

    /// The object under this key, as both hold it.
    pub(crate) async fn both(&self, key: &str) -> (Shared<Session>, Shared<Session>) {
        (session(&self.a, key).await, session(&self.b, key).await)
    }

    /// Whether the coordinator lists `a`, and `b`, as away.
    async fn away(&self) -> (Option<bool>, Option<bool>) {
        let nodes = Peer::nodes(self.coordinator.profile()).await;
        let away = |name| nodes.iter().find(|node| node.name == name).map(|node| node.away_ms.is_some());
        (away("a"), away("b"))
    }

    /// What happens to `a` next. Who comes and goes does not matter here.
    pub(crate) async fn event(&mut self) -> ClusterEvent {
        loop {
            match soon("an event", self.events.next()).await.unwrap() {
                ClusterEvent::Joined { .. } | ClusterEvent::Left { .. } => {}
                event => return event,
            }
        }
    }
}

pub(crate) async fn add(session: &Shared<Session>, amount: u64) {
    session.update(|session| *session.visits += amount).await.unwrap();
}

async fn everything_survives(weather: Weather) {
    let mut net = Net::start(LONG_LEASE).await;
    let incarnation = net.a.node().incarnation;
    let (held_a, held_b) = net.both("held").await;
    let (busy_a, busy_b) = net.both("busy").await;
    add(&busy_a, 1).await;
    let mut guard = held_a.write().await.unwrap();
    *guard.visits = 1;
    net.proxy.set(weather);
    let mut applied = JoinSet::new();
    let writer = busy_a.clone();
    applied.spawn(async move { add(&writer, 1).await });
    assert_eq!(net.event().await, ClusterEvent::OperationsDisabled);
    for _ in 0..10 {
        busy_a.update_with(Level::Queued, |session| *session.visits += 1).await.unwrap();
        busy_a.clicks().add(1).unwrap();
        busy_b.clicks().add(100).unwrap();
    }
    let mut waiting = JoinSet::new();
    let waiter = held_b.clone();
    waiting.spawn(async move { add(&waiter, 10).await });
    assert_eq!(busy_a.state(), State::Stale);
    net.proxy.heal();
    assert_eq!(net.event().await, ClusterEvent::OperationsEnabled);
    assert!(waiting.try_join_next().is_none(), "somebody has a lock that is held");
    *guard.visits += 1;
    guard.commit().await.unwrap();
    soon("the commit that waited", applied.join_next()).await.unwrap().unwrap();
    soon("the lock", waiting.join_next()).await.unwrap().unwrap();
    assert_eq!((visits(&held_a).await, visits(&held_b).await), (12, 12));
    assert_eq!((visits(&busy_a).await, visits(&busy_b).await), (12, 12));
    for busy in [busy_a, busy_b] {
        until("the sum", || async { busy.get(|view| view.clicks()) == 1010 }).await;
    }
    assert_eq!((net.a.node().incarnation, net.a.take_unknown()), (incarnation, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_an_object_that_is_removed_meanwhile_ends() {
    let mut net = Net::start(LONG_LEASE).await;
    let (on_a, _on_b) = net.both("s").await;
    let mut watch = on_a.watch::<String>().await.unwrap();
    net.proxy.set(Weather::cut());
    assert_eq!(net.event().await, ClusterEvent::OperationsDisabled);
    assert!(sessions(&net.b).await.remove("s").await.unwrap());
    net.proxy.heal();
    let gap = soon("a gap", watch.next()).await.unwrap();
    assert!(matches!(gap.kind, EventKind::Gap), "{gap:?}");
    assert!(soon("the end of the watch", watch.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_shorter_than_the_lease_costs_nothing() {
    everything_survives(Weather::cut()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_what_a_node_sends_costs_nothing() {
    everything_survives(Weather::cut_up()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_what_a_node_hears_costs_nothing() {
    everything_survives(Weather::cut_down()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network_loses_nothing() {
    let net = Net::start(LONG_LEASE).await;
    let nodes = net.both("s").await;
    let way = Way { lost_percent: 10, delay_max: Duration::from_millis(5), ..Way::default() };
    net.proxy.set(Weather::both(way));
    let mut all = JoinSet::new();
    for node in [&nodes.0, &nodes.1].repeat(2) {
        let node = node.clone();
        all.spawn(async move {
            for _ in 0..50 {
                add(&node, 1).await;
                node.clicks().add(1).unwrap();
            }
        });
    }
    soon("the updates", all.join_all()).await;
    assert_eq!((visits(&nodes.0).await, visits(&nodes.1).await), (200, 200));
    for node in [nodes.0, nodes.1] {
        until("the sum", || async { node.get(|view| view.clicks()) == 200 }).await;
    }
    assert!(net.proxy.packets().lost > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_is_listed_as_away() {
    let mut net = Net::start(LONG_LEASE).await;
    assert_eq!(net.away().await, (Some(false), Some(false)));
    net.proxy.set(Weather::cut());
    until("the silence is noticed", || async { net.away().await == (Some(true), Some(false)) }).await;
    net.proxy.heal();
    while net.event().await != ClusterEvent::OperationsEnabled {}
    assert_eq!(net.away().await, (Some(false), Some(false)));
}

/// A commit of `b` with level `Everywhere` while `a`, which has a copy, is cut off.
async fn nobody_shows_the_old_version(lease: Duration, heal: bool) {
    let mut net = Net::start(lease).await;
    let (on_a, on_b) = net.both("s").await;
    let root = sessions(&net.a).await;
    // Otherwise it would be the lock that `b` waits for.
    drop(on_b.write().await.unwrap());
    net.proxy.set(Weather::cut());
    let mut commit = JoinSet::new();
    commit.spawn(async move { on_b.update_with(Level::Everywhere, |session| *session.visits = 1).await });
    if heal {
        assert_eq!(net.event().await, ClusterEvent::OperationsDisabled);
        until("the coordinator notices, too", || async { net.away().await.0 == Some(true) }).await;
        // What it says to `b` is said in order.
        assert!(!sessions(&net.b).await.contains("nothing").await.unwrap());
        assert!(commit.try_join_next().is_none(), "nobody asked the node that has an old version");
        net.proxy.heal();
    }
    soon("the commit", commit.join_next()).await.unwrap().unwrap().unwrap();
    // What it still has it does not pass for current, and does not hand out.
    let current = |shared: &Shared<Session>| (shared.state() == State::Current).then(|| shared.view().visits());
    assert_ne!(current(&on_a), Some(0));
    assert_ne!(root.peek("s").as_ref().and_then(current), Some(0));
    net.proxy.heal();
    let got = soon("the object", root.get("s")).await.unwrap().unwrap();
    assert_eq!((got.view().visits(), on_a.view().visits()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_shows_what_was_missed_without_being_asked_to() {
    let mut net = Net::start(LONG_LEASE).await;
    let (on_a, on_b) = net.both("s").await;
    // Otherwise `b` would have to wait until the lease lapses.
    drop(on_b.write().await.unwrap());
    net.proxy.set(Weather::cut());
    assert_eq!(net.event().await, ClusterEvent::OperationsDisabled);
    add(&on_b, 1).await;
    on_b.clicks().add(1).unwrap();
    net.proxy.heal();
    until("the copy is current", || async { on_a.get(|view| (view.visits(), view.clicks())) == (1, 1) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everywhere_waits_for_a_node_that_comes_back() {
    nobody_shows_the_old_version(LONG_LEASE, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everywhere_waits_for_the_lease_of_a_node_that_does_not() {
    nobody_shows_the_old_version(Duration::from_secs(2), false).await;
}

/// How long `b` waits for a lock that `a` holds and, by this, leaves behind.
async fn time_until_free(leave: impl AsyncFnOnce(Runtime)) -> Duration {
    let net = Net::start(LONG_LEASE).await;
    let (on_a, on_b) = net.both("s").await;
    // Never left.
    std::mem::forget(on_a.write().await.unwrap());
    drop(on_a);
    let mut waiting = JoinSet::new();
    waiting.spawn(async move {
        add(&on_b, 1).await;
        Instant::now()
    });
    until("the lock is wanted back", || async { net.a.stats().recalls > 0 }).await;
    let Net { coordinator: _coordinator, proxy: _proxy, a, b: _b, .. } = net;
    let left = Instant::now();
    leave(a).await;
    soon("the lock", waiting.join_next()).await.unwrap().unwrap() - left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_frees_its_locks_at_once() {
    let detached = time_until_free(async |a| a.detach(LONG_LEASE).await.unwrap()).await;
    let dropped = time_until_free(async |a| drop(a)).await;
    println!("a lock is free {detached:?} after a detach, {dropped:?} after the runtime is dropped");
    assert!(detached < LONG_LEASE / 4 && dropped < LONG_LEASE / 4, "that was the lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gives_up_attaching_leaves_no_node_behind() {
    let coordinator = Coordinator::with(|options| options.tuning.lease = LONG_LEASE).await;
    let proxy = Arc::new(Proxy::before(coordinator.profile(), 1));
    let network = Arc::clone(&proxy);
    let mut attach = Box::pin(coordinator.builder_through(&proxy, "a").attach());
    // Polled only when it is woken: first when the address is known, then when the handshake is through. What is said
    // after that is not answered.
    let mut attaching = JoinSet::new();
    attaching.spawn(async move {
        std::future::poll_fn(|context| {
            if network.packets().passed > 0 {
                network.set(Weather::cut_down());
            }
            attach.as_mut().poll(context).map(drop)
        })
        .await;
    });
    let is_there = async || Peer::nodes(coordinator.profile()).await.iter().any(|node| node.name == "a");
    until("the node is there", &is_there).await;
    let given_up = Instant::now();
    attaching.abort_all();
    until("the node is gone", async || !is_there().await).await;
    assert!(given_up.elapsed() < LONG_LEASE / 4, "that was the lease");
}
