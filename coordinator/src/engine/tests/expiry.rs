//! Objects of roots with timeouts.

use super::super::{Entry, Event, LogTime, Settings};
use super::cluster::{Cluster, EPOCH, MAIN, SESSIONS, session_type, visits};
use super::kept::{everything, next_settings, replayed};
use bytes::Bytes;
use kiln_protocol::connection::LEASE;
use kiln_protocol::message::{Mode, Role, RootOptions, WatchTarget};
use kiln_protocol::{ObjectId, RootId, ToCoordinator, ToNode, WatchId};
use std::time::Duration;

const TIMED: RootId = RootId::from_bits(3);
const SECOND: Duration = Duration::from_secs(1);
const NOTHING: [&str; 0] = [];
/// When the coordinator was started.
const STARTED: u64 = 1_000_000;

fn timeouts(idle_secs: u64, absolute_secs: u64) -> RootOptions {
    let (idle_timeout_ms, absolute_timeout_ms) = (idle_secs * 1000, absolute_secs * 1000);
    RootOptions { idle_timeout_ms, absolute_timeout_ms, ..RootOptions::default() }
}

/// Two nodes, and a root whose objects expire.
fn timed(durable: bool, options: &RootOptions) -> Cluster {
    let settings = Settings { durable, started: LogTime::from_bits(STARTED), ..Settings::new(EPOCH, "log", "test") };
    let mut cluster = Cluster::with(settings);
    cluster.join(&["ann", "bob"]);
    cluster.open_with("ann", "timed", session_type(), options.clone());
    cluster.open_with("bob", "timed", session_type(), options.clone());
    cluster.sync();
    for name in ["ann", "bob"] {
        cluster.sent_to(name);
    }
    cluster
}

/// An object of that root, that nobody holds, nor its locks.
fn lone(cluster: &mut Cluster, key: &str) -> ObjectId {
    let object = cluster.get_or_create_in("ann", TIMED, key);
    cluster.forget("ann", object);
    object
}

/// Time passes; both nodes live.
fn wait(cluster: &mut Cluster, secs: u64) {
    for _ in 0..secs {
        cluster.now += SECOND;
        for name in ["ann", "bob"] {
            cluster.send(name, ToCoordinator::Heartbeat { number: 1 });
            cluster.peer(name).inbox.retain(|message| !matches!(message, ToNode::Heartbeat { .. }));
        }
        cluster.event(Event::Tick);
        cluster.sync();
    }
}

fn exists(cluster: &Cluster, object: ObjectId) -> bool {
    cluster.engine.state.objects.get(object).is_some()
}

fn use_it(cluster: &mut Cluster, name: &str, object: ObjectId) {
    cluster.send(name, ToCoordinator::Used { objects: vec![object, ObjectId::from_bits(7)] });
}

fn count(cluster: &Cluster, is_it: impl Fn(&Entry) -> bool) -> usize {
    cluster.log.iter().filter(|(_, entry)| is_it(entry)).count()
}

#[test]
fn what_nobody_uses_expires_a_lease_after_its_timeout() {
    let mut cluster = timed(false, &timeouts(60, 0));
    cluster.attach("tool", Role::Observer);
    let request = cluster.request();
    let (watch, target) = (WatchId::from_bits(1), WatchTarget::Root(TIMED));
    cluster.send("tool", ToCoordinator::Watch { request, watch, target, with_writes: false });
    let s = cluster.get_or_create_in("ann", TIMED, "s");
    let plain = cluster.get_or_create("ann", "plain");
    cluster.sent_to("tool");
    wait(&mut cluster, 60 + LEASE.as_secs() - 1);
    assert_eq!(cluster.sent_to("ann"), NOTHING);
    wait(&mut cluster, 1);
    // Its maker has the locks since then; that is no use.
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for write"]);
    assert!(exists(&cluster, s));
    cluster.release("ann", s, MAIN, false);
    assert_eq!(cluster.sent_to("ann"), ["recall s/1#2 for write"]);
    cluster.release("ann", s, super::cluster::CART_GROUP, false);
    assert_eq!(cluster.sent_to("ann"), ["destroyed s"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING, "nobody loads it");
    assert_eq!(cluster.sent_to("tool"), ["event 1: s expired by the coordinator"]);
    assert!(!exists(&cluster, s) && exists(&cluster, plain));
    assert_eq!(count(&cluster, |entry| matches!(entry, Entry::Expired { object } if *object == s)), 1);
}

#[test]
fn a_use_of_any_kind_puts_it_off() {
    let mut cluster = timed(false, &timeouts(60, 0));
    let [read, fetched, committed, unused] = ["read", "fetched", "committed", "unused"].map(|key| {
        let object = cluster.get_or_create_in("ann", TIMED, key);
        if key != "committed" {
            cluster.forget("ann", object);
        }
        object
    });
    wait(&mut cluster, 60);
    use_it(&mut cluster, "bob", read);
    cluster.fetch("bob", TIMED, "fetched", None);
    cluster.commit("ann", committed, MAIN, visits(1));
    cluster.forget("ann", committed);
    wait(&mut cluster, LEASE.as_secs());
    assert_eq!([read, fetched, committed, unused].map(|object| exists(&cluster, object)), [true, true, true, false]);
    wait(&mut cluster, 59);
    assert_eq!([read, fetched, committed].map(|object| exists(&cluster, object)), [true; 3]);
    wait(&mut cluster, 1);
    assert_eq!([read, fetched, committed].map(|object| exists(&cluster, object)), [false; 3]);
}

#[test]
fn what_is_too_old_expires_however_it_is_used() {
    let mut cluster = timed(false, &timeouts(60, 100));
    let s = lone(&mut cluster, "s");
    for _ in 0..99 {
        use_it(&mut cluster, "bob", s);
        wait(&mut cluster, 1);
    }
    assert!(exists(&cluster, s));
    wait(&mut cluster, 1);
    assert!(!exists(&cluster, s));
}

#[test]
fn what_is_locked_is_not_taken_from_its_user() {
    let mut cluster = timed(false, &timeouts(60, 0));
    let s = lone(&mut cluster, "s");
    wait(&mut cluster, 60);
    cluster.fetch("bob", TIMED, "s", None);
    cluster.acquire("bob", s, MAIN, Mode::Write);
    cluster.sent_to("bob");
    wait(&mut cluster, 60 + LEASE.as_secs());
    assert_eq!(cluster.sent_to("bob"), ["recall s/0#3 for write"]);
    wait(&mut cluster, 60);
    assert!(exists(&cluster, s), "bob takes his time");
    cluster.commit("bob", s, MAIN, visits(1));
    cluster.release("bob", s, MAIN, false);
    assert!(exists(&cluster, s), "he has used it just now");
    cluster.acquire("ann", s, MAIN, Mode::Write);
    assert_eq!(cluster.sent_to("ann").pop().as_deref(), Some("grant s/0 write#6"));
    cluster.release("ann", s, MAIN, false);
    wait(&mut cluster, 60 + LEASE.as_secs() - 1);
    assert!(exists(&cluster, s));
    wait(&mut cluster, 1);
    assert!(!exists(&cluster, s));
}

#[test]
fn who_waits_for_a_lock_of_what_expires_is_told() {
    let mut cluster = timed(false, &timeouts(0, 10));
    let s = cluster.get_or_create_in("ann", TIMED, "s");
    wait(&mut cluster, 10);
    cluster.fetch("bob", TIMED, "s", None);
    cluster.acquire("bob", s, MAIN, Mode::Write);
    cluster.sent_to("bob");
    cluster.forget("ann", s);
    let heard = cluster.sent_to("bob");
    assert!(heard.iter().any(|message| message == "destroyed s"), "{heard:?}");
    assert!(heard.iter().any(|message| message.starts_with("no lock")), "{heard:?}");
    assert!(!exists(&cluster, s));
}

#[test]
fn a_new_key_is_no_new_life() {
    let mut cluster = timed(false, &timeouts(0, 10));
    let s = lone(&mut cluster, "s");
    wait(&mut cluster, 9);
    let request = cluster.request();
    let (from, to) = (Bytes::from_static(b"s"), Bytes::from_static(b"t"));
    cluster.send("bob", ToCoordinator::Rename { request, root: TIMED, from, to });
    cluster.get_or_create_in("ann", TIMED, "s");
    wait(&mut cluster, 1);
    assert!(!exists(&cluster, s));
    assert_eq!(cluster.engine.state.expiry.turns().0, 1, "the other one under that key");
}

#[test]
fn all_who_open_a_root_agree_on_its_timeouts_and_locking() {
    let mut cluster = timed(false, &RootOptions { locking: "session".to_owned(), ..timeouts(60, 0) });
    for (options, said) in [
        (timeouts(90, 0), "idle timeout `60000 ms` in the cluster but `90000 ms`"),
        (timeouts(60, 5), "absolute timeout `none` in the cluster but `5000 ms`"),
        (timeouts(0, 0), "idle timeout `60000 ms` in the cluster but `none`"),
        (timeouts(60, 0), "locking `session` in the cluster but `none`"),
        (
            RootOptions { locking: "groups".to_owned(), ..timeouts(60, 0) },
            "locking `session` in the cluster but `groups`",
        ),
    ] {
        cluster.open_with("bob", "timed", session_type(), options);
        let heard = cluster.sent_to("bob");
        assert!(heard[0].starts_with(&format!("failed: root `timed` has {said} in this program: ")), "{heard:?}");
    }
    // Two ways to say nothing.
    cluster.open_with("bob", "plain", session_type(), RootOptions::default());
    cluster.sent_to("bob");
    cluster.open_with(
        "bob",
        "plain",
        session_type(),
        RootOptions { locking: "none".to_owned(), ..RootOptions::default() },
    );
    let heard = cluster.sent_to("bob");
    assert!(!heard[0].contains("failed"), "{heard:?}");
    let locking = "x".repeat(256);
    cluster.open_with("bob", "other", session_type(), RootOptions { locking, ..RootOptions::default() });
    let heard = cluster.sent_to("bob");
    assert!(heard[0].contains("the limit is 255"), "{heard:?}");
}

#[test]
fn uses_are_logged_once_in_a_tenth_of_the_timeout() {
    let mut cluster = timed(true, &timeouts(100, 0));
    let s = lone(&mut cluster, "s");
    for _ in 0..100 {
        for name in ["ann", "bob"] {
            use_it(&mut cluster, name, s);
        }
        wait(&mut cluster, 1);
    }
    assert_eq!(count(&cluster, |entry| matches!(entry, Entry::Used { objects } if *objects == [s])), 9);
}

/// The coordinator is started again with its log, so much later; its nodes do not come back.
fn start_again(cluster: &Cluster, down: Duration) -> Cluster {
    let last = cluster.last_entry();
    let started = STARTED + u64::try_from((cluster.now + down).as_millis()).unwrap();
    let settings = Settings { durable: true, started: LogTime::from_bits(started), ..next_settings() };
    let mut again = Cluster::restored(replayed(&cluster.log, last), settings);
    again.now = Duration::ZERO;
    again.event(Event::Tick);
    again.sync_all();
    again
}

#[test]
fn a_start_with_a_log_goes_on_counting() {
    let mut cluster = timed(true, &timeouts(100, 200));
    let [used, unused, old] = ["used", "unused", "old"].map(|key| lone(&mut cluster, key));
    wait(&mut cluster, 50);
    use_it(&mut cluster, "bob", used);
    use_it(&mut cluster, "bob", old);
    wait(&mut cluster, 1);
    let before = everything(&mut cluster.engine);
    let mut replayed = start_again(&cluster, Duration::ZERO);
    assert!(before.iter().all(|piece| !matches!(piece, super::super::Piece::Object { times: None, .. })));
    let ticks = |cluster: &mut Cluster, secs: u64| {
        for _ in 0..secs {
            cluster.now += SECOND;
            cluster.event(Event::Tick);
            cluster.sync_all();
        }
    };
    // Its nodes do not come back, and are dead after a lease; another one later nothing can come any more.
    ticks(&mut replayed, 53);
    assert!(exists(&replayed, unused));
    ticks(&mut replayed, 1);
    assert_eq!([used, unused].map(|object| exists(&replayed, object)), [true, false]);
    ticks(&mut replayed, 49);
    assert!(exists(&replayed, used), "used 50 s after it was made");
    ticks(&mut replayed, 1);
    assert!(!exists(&replayed, used));
}

#[test]
fn a_long_time_without_a_coordinator_is_no_idleness_before_nodes_could_speak() {
    let mut cluster = timed(true, &timeouts(100, 0));
    let s = lone(&mut cluster, "s");
    let mut again = start_again(&cluster, Duration::from_secs(1000));
    assert!(exists(&again, s));
    again.now += LEASE;
    again.event(Event::Tick);
    again.sync_all();
    assert!(exists(&again, s), "the nodes of before may have used it");
    again.now += LEASE + SECOND;
    again.event(Event::Tick);
    again.sync_all();
    assert!(again.engine.window.is_none());
    again.now += LEASE + SECOND;
    again.event(Event::Tick);
    assert!(!exists(&again, s));
}

#[test]
fn a_clock_that_was_set_back_stops_no_timeout() {
    let mut cluster = timed(true, &timeouts(0, 100));
    let s = lone(&mut cluster, "s");
    wait(&mut cluster, 50);
    lone(&mut cluster, "later");
    let settings = Settings { durable: true, started: LogTime::from_bits(5), ..next_settings() };
    let mut again = Cluster::restored(replayed(&cluster.log, cluster.last_entry()), settings);
    for _ in 0..51 {
        again.now += SECOND;
        again.event(Event::Tick);
        again.sync_all();
    }
    assert!(!exists(&again, s));
}

#[test]
fn snapshots_have_the_times() {
    let mut cluster = timed(true, &timeouts(100, 200));
    let s = lone(&mut cluster, "s");
    wait(&mut cluster, 30);
    use_it(&mut cluster, "bob", s);
    let pieces = everything(&mut cluster.engine);
    let mut again = replayed(&cluster.log, cluster.last_entry()).engine(next_settings()).unwrap();
    let objects = |pieces: &[super::super::Piece]| -> Vec<_> {
        pieces.iter().filter(|piece| matches!(piece, super::super::Piece::Object { .. })).cloned().collect()
    };
    assert_eq!(objects(&everything(&mut again)), objects(&pieces));
    let times = Some((LogTime::from_bits(STARTED), LogTime::from_bits(STARTED + 30_000)));
    assert_eq!(cluster.engine.state.expiry.kept(s), times);
    assert_eq!(again.state.expiry.kept(s), times);
}

#[test]
fn a_full_log_keeps_what_is_due_until_there_is_room() {
    let mut cluster = timed(true, &timeouts(0, 10));
    let s = lone(&mut cluster, "s");
    cluster.event(Event::LogFull);
    wait(&mut cluster, 20);
    assert!(exists(&cluster, s));
    cluster.event(Event::LogHasRoom);
    wait(&mut cluster, 1);
    assert!(!exists(&cluster, s));
}

#[test]
fn more_uses_than_there_may_be_end_the_connection() {
    let mut cluster = timed(false, &timeouts(10, 0));
    let objects = vec![ObjectId::from_bits(1); kiln_protocol::limits::USES_MAX + 1];
    cluster.send("ann", ToCoordinator::Used { objects });
    assert!(cluster.peer("ann").closed.is_some());
    assert!(cluster.engine.state.roots.get(SESSIONS).is_some());
}
