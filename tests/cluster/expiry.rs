//! Objects that expire by the coordinator's time, whatever nodes hold them.

use kiln::{AccessError, EventKind, Root, RootError, RootSettings, Runtime, State};
use kiln_tests::{Coordinator, Session, soon, until};
use std::time::Duration;
use tokio::time::Instant;

const LEASE: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(1500);

async fn coordinator() -> Coordinator {
    Coordinator::with(|options| options.tuning.lease = LEASE).await
}

async fn opened(kiln: &Runtime, settings: &RootSettings) -> Root<String, Session> {
    kiln.root_with("timed", settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_on_any_node_keeps_what_nobody_else_uses() {
    let coordinator = coordinator().await;
    let (a, b) = coordinator.two_nodes().await;
    let settings = RootSettings::new().idle_timeout(IDLE);
    let (root_a, root_b) = (opened(&a, &settings).await, opened(&b, &settings).await);
    let mut watch = root_a.watch().await.unwrap();
    let [read, unused] = ["read", "unused"];
    root_a.get_or_create(unused, Session::default).await.unwrap();
    let on_a = root_a.get_or_create(read, Session::default).await.unwrap();
    let on_b = root_b.get(read).await.unwrap().unwrap();
    let faults = (a.stats().faults, b.stats().faults);
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut expired = Vec::new();
    while begun.elapsed() < 3 * (IDLE + LEASE) {
        tokio::select! {
            event = watch.next() => {
                let event = event.unwrap();
                if event.kind == EventKind::Expired {
                    expired.push(event.key);
                }
            }
            // Memory of b: nobody else hears of it but with a heartbeat.
            _ = ticks.tick() => assert_eq!(on_b.view().visits(), 0),
        }
    }
    assert_eq!(expired, [Some(unused.to_owned())]);
    assert_eq!((on_a.state(), on_b.state()), (State::Current, State::Current));
    let last_read = Instant::now();
    let event = loop {
        let event = soon("it expires", watch.next()).await.unwrap();
        if event.kind == EventKind::Expired {
            break event;
        }
    };
    println!("expired {:?} after the last read; timeout {IDLE:?}, lease {LEASE:?}", last_read.elapsed());
    assert_eq!((event.key.as_deref(), event.writer), (Some(read), None));
    assert!(last_read.elapsed() >= IDLE);
    until("both nodes know", || async { (on_a.state(), on_b.state()) == (State::Destroyed, State::Destroyed) }).await;
    assert_eq!((a.stats().faults, b.stats().faults), faults, "no node loads what expires");
    assert!(!root_b.contains(read).await.unwrap());
    assert!(on_a.update(|session| *session.visits += 1).await.is_err(), "nor does it come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_the_lock_finishes_before_it_expires() {
    let coordinator = coordinator().await;
    let (a, b) = coordinator.two_nodes().await;
    let settings = RootSettings::new().absolute_timeout(IDLE);
    let (root_a, root_b) = (opened(&a, &settings).await, opened(&b, &settings).await);
    let on_a = root_a.get_or_create("s", Session::default).await.unwrap();
    let on_b = root_b.get("s").await.unwrap().unwrap();
    let mut guard = on_a.write().await.unwrap();
    let begun = Instant::now();
    // Its end is under way when somebody else waits for the lock and does not get it before.
    while begun.elapsed() < IDLE + LEASE {
        assert_eq!(on_b.state(), State::Current);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    *guard.visits = 1;
    guard.commit().await.unwrap();
    until("it expires", || async { on_b.state() == State::Destroyed }).await;
    assert_eq!(on_b.view().visits(), 1, "what was committed came first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_do_not_agree_are_told_what_the_others_say() {
    let coordinator = coordinator().await;
    let (a, b) = coordinator.two_nodes().await;
    opened(&a, &RootSettings::new().idle_timeout(IDLE).locking("session")).await;
    let refused = async |settings: RootSettings| match b.root_with::<String, Session>("timed", &settings).await {
        Err(RootError::Access(AccessError::Refused(failure))) => {
            failure.to_string().split(": ").next().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(RootSettings::new().locking("session")).await,
        "root `timed` has idle timeout `1500 ms` in the cluster but `none` in this program"
    );
    assert_eq!(
        refused(RootSettings::new().idle_timeout(IDLE).locking("groups")).await,
        "root `timed` has locking `session` in the cluster but `groups` in this program"
    );
}
