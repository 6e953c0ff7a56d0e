//! Sessions that end by the coordinator's time, and what all nodes agree on.

use crate::http::Servers;
use crate::typed::{Shop, layer, router};
use axum::Router;
use axum::routing::get;
use kiln::{EventKind, Root, RootSettings, Runtime};
use kiln_sessions::{LockMode, SessionError, SessionLock, TowerSessionsStore};
use kiln_tests::{Browser, Coordinator, soon, until};
use std::time::Duration;
use tower_sessions_015::session::Record;
use tower_sessions_015::session_store::SessionStore as _;

const LEASE: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_millis(1500);

async fn coordinator() -> Coordinator {
    Coordinator::with(|options| options.tuning.lease = LEASE).await
}

async fn sessions(kiln: &Runtime, settings: &RootSettings) -> Root<String, Shop> {
    kiln.root_with("sessions", settings).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_nobody_uses_ends_on_every_node() {
    let (coordinator, mut servers) = (coordinator().await, Servers::default());
    let (a, b) = coordinator.two_nodes().await;
    let timed = |kiln: &Runtime| layer(kiln).idle_timeout(IDLE);
    let [on_a, on_b] = [servers.serve(router(&a, timed(&a))).await, servers.serve(router(&b, timed(&b))).await];
    let mut watch = sessions(&b, &RootSettings::new().idle_timeout(IDLE)).await.watch().await.unwrap();
    let mut browser = Browser::default();
    browser.get(on_a, "/visit").await;
    let mut begun = tokio::time::interval(Duration::from_millis(100));
    // Looking is enough, on whatever node.
    for _ in 0..(2 * (IDLE + LEASE).as_millis() / 100) {
        begun.tick().await;
        assert_eq!(browser.ask(on_b, "/look").await.body, "1");
    }
    while soon("the session ends", watch.next()).await.unwrap().kind != EventKind::Expired {}
    for node in [on_a, on_b] {
        assert_eq!(browser.ask(node, "/look").await.body, "none");
        assert_eq!(browser.ask(node, "/lost").await.body, "true");
    }
    assert_eq!(browser.get(on_a, "/visit").await.body, "1", "a new one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_id_is_no_longer_life() {
    let (coordinator, mut servers) = (coordinator().await, Servers::default());
    let a = coordinator.node("a").await;
    let node = servers.serve(router(&a, layer(&a).absolute_timeout(IDLE))).await;
    let mut browser = Browser::default();
    browser.get(node, "/visit").await;
    browser.get(node, "/login").await;
    assert_eq!(browser.ask(node, "/look").await.body, "1");
    until("it ends however it is used", || async { browser.ask(node, "/look").await.body == "none" }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stores_sessions_end_without_a_task_that_looks_for_them() {
    let coordinator = coordinator().await;
    let a = coordinator.node("a").await;
    let settings = RootSettings::new().absolute_timeout(IDLE);
    let store = TowerSessionsStore::open_with(&a, "sessions", &settings).await.unwrap();
    let mut record = Record {
        id: tower_sessions_015::session::Id::default(),
        data: [].into(),
        expiry_date: time::OffsetDateTime::now_utc() + Duration::from_secs(3600),
    };
    store.create(&mut record).await.unwrap();
    assert!(store.load(&record.id).await.unwrap().is_some());
    until("it ends", || async { store.load(&record.id).await.unwrap().is_none() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_agree_on_the_lock_mode_and_keep_to_it() {
    let (coordinator, mut servers) = (coordinator().await, Servers::default());
    let (a, b) = coordinator.two_nodes().await;
    let groups = layer(&a).lock_mode(LockMode::Groups).opened().await.unwrap();
    let refused = layer(&b).lock_mode(LockMode::Session).opened().await.unwrap_err();
    let says = |error: &SessionError, what: &str| {
        let begin = format!(
            "the sessions cannot be opened: root `sessions` has locking `groups` in the cluster but `{what}` in"
        );
        assert!(error.to_string().starts_with(&begin), "{error}");
    };
    says(&refused, "session");
    assert_eq!(refused.status(), 500);
    says(&layer(&b).opened().await.unwrap_err(), "none");
    let routes = Router::new()
        .route("/group", get(async || "in").route_layer(SessionLock::<Shop>::group("cart")))
        .route("/whole", get(async || "in").route_layer(SessionLock::<Shop>::whole()))
        .layer(groups);
    let node = servers.serve(routes).await;
    let browser = Browser::default();
    assert_eq!(browser.ask(node, "/group").await.body, "in");
    assert_eq!(browser.ask(node, "/whole").await.status, 500);
    // What nobody has agreed on is no lock.
    let unsaid = Router::new()
        .route("/group", get(async || "in").route_layer(SessionLock::<Shop>::group("cart")))
        .layer(layer(&a).root("others"));
    let node = servers.serve(unsaid).await;
    assert_eq!(browser.ask(node, "/group").await.status, 500);
}
