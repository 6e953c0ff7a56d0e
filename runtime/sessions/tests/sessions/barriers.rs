//! Ids that are dead on every node when the answer is there, also on one that hears nothing any more.

use crate::http::{Servers, Slow};
use crate::typed::{Shop, layer, router};
use axum::routing::get;
use axum::{Extension, Router};
use kiln::{Away, Root, RootSettings, Runtime};
use kiln_sessions::{LockMode, Session, SessionError, SessionId, SessionLock};
use kiln_tests::{Answer, Browser, Coordinator, Peer, Proxy, Weather, soon, until};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// A node that is not heard of is waited for that long.
const LEASE: Duration = Duration::from_secs(1);
/// So long a request waits for the cluster.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Two nodes, a visitor whose session both hold, and the network of the second node.
struct Site {
    a: SocketAddr,
    b: SocketAddr,
    browser: Browser,
    kiln_b: Runtime,
    network_of_b: Proxy,
    slow: Slow,
    coordinator: Coordinator,
    _servers: Servers,
}

impl Site {
    async fn open() -> Self {
        Self::with(LEASE, TIMEOUT).await
    }

    async fn with(lease: Duration, timeout_of_b: Duration) -> Self {
        let coordinator = Coordinator::with(|options| options.tuning.lease = lease).await;
        let network_of_b = Proxy::before(coordinator.profile(), 1);
        let (on_a, on_b) = (coordinator.builder("a"), coordinator.builder_through(&network_of_b, "b"));
        let on_a = on_a.timeout(TIMEOUT * 20).attach().await.unwrap();
        let on_b = on_b.timeout(timeout_of_b).attach().await.unwrap();
        let mut servers = Servers::default();
        let layer = |kiln| layer(kiln).lock_mode(LockMode::Session);
        let a = servers.serve(router(&on_a, layer(&on_a))).await;
        let slow = Slow::default();
        let sessions = layer(&on_b);
        let whole = SessionLock::<Shop>::whole;
        let more = Router::new()
            .route("/hurry", get(hurry))
            .route("/put", get(put))
            .route("/read", get(read))
            .route("/locked_visit", get(put).layer(whole()))
            .route("/locked_logout", get(logout).layer(whole()))
            .layer(sessions.clone());
        let b = servers.serve(router(&on_b, sessions).merge(more).layer(Extension(slow.clone()))).await;
        let mut browser = Browser::default();
        browser.get(a, "/visit").await;
        assert_eq!(browser.ask(b, "/look").await.body, "1");
        Self { a, b, browser, kiln_b: on_b, network_of_b, slow, coordinator, _servers: servers }
    }

    fn key(&self) -> String {
        let (_, id) = self.browser.cookie.as_ref().unwrap().split_once('=').unwrap();
        SessionId::parse(id).unwrap().key()
    }
}

async fn sessions(kiln: &Runtime) -> Root<String, Shop> {
    kiln.root_with("sessions", &RootSettings::new().locking("session")).await.unwrap()
}

async fn put(session: Session<Shop>) -> Result<(), SessionError> {
    session.write_group("cart").await?.commit().await.map(drop)
}

async fn read(session: Session<Shop>) -> Result<String, SessionError> {
    Ok(format!("{} {}", session.read().await?.is_none(), session.is_lost()))
}

async fn logout(mut session: Session<Shop>) -> Result<String, SessionError> {
    Ok(session.destroy().await?.to_string())
}

/// Gives up its rotation before the answer, and goes on when the session has another key here.
async fn hurry(mut session: Session<Shop>, Extension(slow): Extension<Slow>) -> Result<(), SessionError> {
    let session_key = |session: &Session<Shop>| session.handle().unwrap().key::<String>();
    let old = session_key(&session);
    assert!(tokio::time::timeout(TIMEOUT / 2, session.rotate()).await.is_err(), "nothing comes down to this node");
    slow.wait().await;
    until("the new key is known", || async { session_key(&session) != old }).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_id_is_not_waited_for() {
    let mut site = Site::open().await;
    let old = site.key();
    let sessions = sessions(&site.kiln_b).await;
    let sessions = sessions.with_away(Away::Block(Duration::from_secs(30)));
    site.network_of_b.set(Weather::cut_down());
    assert_eq!(site.browser.get(site.a, "/renew").await.status, 200);
    // It holds the session, and asks the cluster whether it is as it was.
    let mut waiting = Box::pin(sessions.get(&old));
    tokio::select! {
        biased;
        found = &mut waiting => panic!("it cannot know: {found:?}"),
        () = std::future::ready(()) => {}
    }
    site.network_of_b.heal();
    let found = soon("the cluster is asked", waiting).await.unwrap();
    assert!(found.is_none(), "the old id is served after the rotation: {found:?}");
    assert!(sessions.get(&site.key()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_is_given_up_loses_no_session() {
    let mut site = Site::open().await;
    let old = site.browser.clone();
    site.network_of_b.set(Weather::cut_down());
    let in_hand = site.slow.ask(&old, site.b, "/hurry").await;
    site.network_of_b.heal();
    let answer = in_hand.go_on().await;
    assert_eq!(answer.status, 200);
    site.browser.keep(&answer);
    assert_ne!(site.browser.cookie, old.cookie);
    for node in [site.a, site.b] {
        assert_eq!(site.browser.ask(node, "/look").await.body, "1");
        assert_eq!(old.ask(node, "/look").await.body, "none");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_lock_with_an_old_id_does_not_get_it() {
    for (path, status, body, left) in [
        ("/visit", 409, "", "1"),
        ("/put", 409, "", "1"),
        ("/read", 200, "true true", "1"),
        ("/locked_visit", 409, "", "1"),
        // A logout is of the session, whatever its id.
        ("/locked_logout", 200, "true", "none"),
    ] {
        let (answer, now) = meets_a_rotation_unawares(path).await;
        assert_eq!((answer.status, now.as_str()), (status, left), "{path}: {}", answer.body);
        assert!(status != 200 || answer.body == body, "{path}: {}", answer.body);
    }
}

/// The answer to a request that asks for its lock behind a rotation, on a node that has not heard of that; and what there is
/// under the new id then.
async fn meets_a_rotation_unawares(path: &'static str) -> (Answer, String) {
    let site = Site::with(Duration::from_secs(10), TIMEOUT * 20).await;
    let (a, b, old) = (site.a, site.b, site.key());
    let looks = site.coordinator.node("c").await;
    let sessions = sessions(&looks).await;
    let peer = Mutex::new(Peer::observe(site.coordinator.profile()).await);
    site.network_of_b.set(Weather::cut_down());
    let (mut visitor, mut renewed, mut late) = (site.browser.clone(), JoinSet::new(), JoinSet::new());
    renewed.spawn(async move {
        assert_eq!(visitor.get(a, "/renew").await.status, 200);
        visitor
    });
    until("it has its new id", async || !sessions.contains(&old).await.unwrap()).await;
    // The other node has not heard of it, and asks for the lock.
    let knows_the_old = site.browser.clone();
    late.spawn(async move { knows_the_old.ask(b, path).await });
    let has_asked = async || {
        let locks = peer.lock().await.locks().await;
        let mut holders = locks.iter().flat_map(|lock| &lock.holders);
        holders.any(|holder| holder.node.as_ref().is_some_and(|(_, name)| name == "b"))
    };
    until("it has asked", has_asked).await;
    site.network_of_b.heal();
    let answer = late.join_next().await.unwrap().unwrap();
    let visitor = renewed.join_next().await.unwrap().unwrap();
    let now = visitor.ask(b, "/look").await.body;
    assert_eq!(visitor.ask(a, "/look").await.body, now);
    (answer, now)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_id_is_dead_on_a_node_that_hears_nothing() {
    let mut site = Site::open().await;
    let old = site.browser.clone();
    site.network_of_b.set(Weather::cut_down());
    assert_eq!(site.browser.get(site.a, "/renew").await.status, 200);
    // It does not know what became of the id: it says so, and shows nothing.
    assert_eq!(old.ask(site.b, "/look").await.status, 503, "the old id is served after the rotation");
    assert_eq!(old.ask(site.a, "/look").await.body, "none");
    site.network_of_b.heal();
    until("it is back", || async { site.browser.ask(site.b, "/look").await.body == "1" }).await;
    assert_eq!(old.ask(site.b, "/look").await.body, "none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_session_is_dead_on_a_node_that_hears_nothing() {
    let site = Site::open().await;
    site.network_of_b.set(Weather::cut_down());
    assert_eq!(site.browser.clone().get(site.a, "/logout").await.body, "true");
    assert_eq!(site.browser.ask(site.b, "/look").await.status, 503, "the session is served after its end");
    site.network_of_b.heal();
    until("it is back", || async { site.browser.ask(site.b, "/look").await.body == "none" }).await;
}
