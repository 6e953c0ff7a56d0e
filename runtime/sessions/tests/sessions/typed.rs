//! The typed layer.

use crate::http::{Servers, Slow};
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Router};
use kiln::{Away, Clustered, Map, Root, Runtime};
use kiln_sessions::{Cookie, Session, SessionError, SessionId, SessionLayer};
use kiln_tests::{Browser, Coordinator, Proxy, Weather, soon, until};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;

#[derive(Clustered, Debug, Default)]
pub(crate) struct Shop {
    pub(crate) user: Option<String>,
    pub(crate) visits: u64,
    #[clustered(counter)]
    clicks: i64,
    #[clustered(lock = "cart")]
    pub(crate) cart: Map<String, u32>,
}

type Result<T> = std::result::Result<T, SessionError>;

async fn look(session: Session<Shop>) -> String {
    session.get(|shop| shop.visits()).map_or_else(|| "none".to_owned(), |visits| visits.to_string())
}

async fn visit(session: Session<Shop>) -> Result<String> {
    let visits = session.update(|shop| {
        *shop.visits += 1;
        *shop.visits
    });
    Ok(visits.await?.to_string())
}

async fn click(session: Session<Shop>) -> Result<String> {
    let object = session.open().await?;
    object.clicks().add(1).map_err(SessionError::from)?;
    Ok(object.clicks().get().to_string())
}

async fn login(mut session: Session<Shop>) -> Result<()> {
    session.rotate().await?;
    session.update(|shop| *shop.user = Some("ada".to_owned())).await
}

/// As a login, without a change: a commit has a barrier of its own.
async fn renew(mut session: Session<Shop>) -> Result<()> {
    session.rotate().await
}

async fn logout(mut session: Session<Shop>) -> Result<String> {
    Ok(session.destroy().await?.to_string())
}

async fn lost(session: Session<Shop>) -> String {
    session.is_lost().to_string()
}

/// Has the session in hand for a while before it changes it.
async fn slow(session: Session<Shop>, Extension(slow): Extension<Slow>) -> Result<String> {
    slow.wait().await;
    session.update(|shop| *shop.visits += 1).await?;
    Ok(session.get(|shop| shop.visits()).unwrap_or_default().to_string())
}

async fn slow_read(session: Session<Shop>, Extension(slow): Extension<Slow>) -> Result<String> {
    slow.wait().await;
    Ok(format!("{} {}", session.read().await?.is_none(), session.is_lost()))
}

async fn slow_logout(mut session: Session<Shop>, Extension(slow): Extension<Slow>) -> Result<String> {
    slow.wait().await;
    Ok(session.destroy().await?.to_string())
}

async fn slow_renew(mut session: Session<Shop>, Extension(slow): Extension<Slow>) -> Result<()> {
    slow.wait().await;
    session.rotate().await
}

async fn slow_login(mut session: Session<Shop>, Extension(slow): Extension<Slow>) -> Result<String> {
    slow.wait().await;
    session.rotate().await?;
    let is_lost = session.is_lost();
    session.update(|shop| *shop.user = Some("grace".to_owned())).await?;
    Ok(is_lost.to_string())
}

async fn user(session: Session<Shop>) -> String {
    session.get(|shop| shop.user().as_ref().map(|user| user.to_string())).flatten().unwrap_or_default()
}

async fn node_name(State(kiln): State<Runtime>) -> String {
    kiln.node().name
}

pub(crate) fn router(kiln: &Runtime, layer: SessionLayer<Shop>) -> Router {
    let router = Router::new()
        .route("/look", get(look))
        .route("/visit", get(visit))
        .route("/click", get(click))
        .route("/login", get(login))
        .route("/renew", get(renew))
        .route("/logout", get(logout))
        .route("/lost", get(lost))
        .route("/slow", get(slow))
        .route("/slow_read", get(slow_read))
        .route("/slow_logout", get(slow_logout))
        .route("/slow_renew", get(slow_renew))
        .route("/slow_login", get(slow_login))
        .route("/user", get(user))
        .route("/node", get(node_name));
    router.layer(layer).with_state(kiln.clone())
}

pub(crate) fn layer(kiln: &Runtime) -> SessionLayer<Shop> {
    SessionLayer::new(kiln).cookie(Cookie::named("shop"))
}

pub(crate) async fn two_nodes(servers: &mut Servers, coordinator: &Coordinator) -> [SocketAddr; 2] {
    servers.serve_two(coordinator, |kiln| router(kiln, layer(kiln))).await
}

pub(crate) fn id_in(browser: &Browser) -> SessionId {
    let (name, id) = browser.cookie.as_ref().unwrap().split_once('=').unwrap();
    assert_eq!(name, "__Host-shop");
    SessionId::parse(id).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_made_by_the_first_write() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let [a, b] = two_nodes(&mut servers, &coordinator).await;
    let mut browser = Browser::default();
    for path in ["/look", "/node", "/lost", "/logout"] {
        browser.get(a, path).await;
        assert_eq!(browser.cookie, None, "{path} made a session");
    }
    assert_eq!(browser.get(a, "/visit").await.body, "1");
    let answer = browser.get(b, "/look").await;
    assert_eq!((answer.body.as_str(), answer.set_cookie.len()), ("1", 0));
    // Nothing but the hash of the id is in the cluster.
    let kiln = coordinator.node("look").await;
    let sessions: Root<String, Shop> = kiln.root("sessions").await.unwrap();
    assert_eq!(sessions.keys().next_page(0).await.unwrap(), [id_in(&browser).key()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_nobody_has_is_not_adopted() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let [a, _] = two_nodes(&mut servers, &coordinator).await;
    let planted = format!("__Host-shop={}", SessionId::random().unwrap().expose());
    let mut browser = Browser { cookie: Some(planted.clone()) };
    assert_eq!(browser.get(a, "/lost").await.body, "true");
    assert_eq!(browser.get(a, "/visit").await.body, "1");
    assert_ne!(browser.cookie, Some(planted));
    assert_eq!(browser.get(a, "/lost").await.body, "false");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_no_longer_attached_says_why() {
    let coordinator = Coordinator::start().await;
    let kiln = coordinator.node("a").await;
    let layer = layer(&kiln).opened().await.unwrap();
    kiln.clone().detach(Duration::from_secs(5)).await.unwrap();
    let wrong = async |extensions: http::Extensions| Session::<Shop>::of(&extensions).await.unwrap_err().to_string();
    let mut site = Router::new().route("/", get(wrong)).layer(layer);
    let id = SessionId::random().unwrap();
    let request = http::Request::get("/").header(http::header::COOKIE, format!("__Host-shop={}", id.expose()));
    let answer = tower_service::Service::call(&mut site, request.body(Body::empty()).unwrap()).await.unwrap();
    let said = axum::body::to_bytes(answer.into_body(), 999).await.unwrap();
    assert_eq!(said, "the session cannot be reached: the node has left the cluster: attach a new runtime to go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_and_one_increments_on_two_nodes_count_as_many() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let nodes = two_nodes(&mut servers, &coordinator).await;
    let mut browser = Browser::default();
    browser.get(nodes[0], "/visit").await;
    let mut visitors = JoinSet::new();
    for visitor in 0..8 {
        let browser = browser.clone();
        visitors.spawn(async move {
            for visit in 0..125 {
                assert_eq!(browser.ask(nodes[(visitor + visit) % 2], "/visit").await.status, 200);
                assert_eq!(browser.ask(nodes[visit % 2], "/click").await.status, 200);
            }
        });
    }
    visitors.join_all().await;
    for node in nodes {
        let visits = browser.get(node, "/look").await.body;
        println!("1,001 increments through the typed layer count {visits}");
        assert_eq!(visits, "1001");
    }
    // An add is not waited for: the last one of the other node may be on its way.
    let clicks = || async { browser.ask(nodes[0], "/click").await.body.parse::<u64>().unwrap() };
    until("all clicks", || async { clicks().await > 1000 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_keeps_the_session_and_kills_the_old_id_on_every_node() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let [a, b] = two_nodes(&mut servers, &coordinator).await;
    for _ in 0..20 {
        let mut browser = Browser::default();
        browser.get(a, "/visit").await;
        browser.get(b, "/visit").await;
        let old = browser.clone();
        assert_eq!(browser.get(a, "/login").await.status, 200);
        assert_ne!(id_in(&browser), id_in(&old));
        // At once, on the node that did not do it and holds the session.
        assert_eq!(old.ask(b, "/look").await.body, "none");
        assert_eq!(old.ask(a, "/look").await.body, "none");
        assert_eq!(browser.get(b, "/look").await.body, "2");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_request_does_not_undo_a_logout() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let site = |kiln: &Runtime| router(kiln, layer(kiln)).layer(Extension(slow.clone()));
    let [a, b] = servers.serve_two(&coordinator, site).await;
    let mut browser = Browser::default();
    browser.get(a, "/visit").await;
    let in_hand = slow.ask(&browser, a, "/slow").await;
    let mut elsewhere = browser.clone();
    assert_eq!(elsewhere.get(b, "/logout").await.body, "true");
    assert_eq!(elsewhere.cookie, None);
    assert_eq!(in_hand.go_on().await.status, 401);
    for node in [a, b] {
        assert_eq!(browser.ask(node, "/look").await.body, "none");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_meet_a_rotation_mean_the_session_and_not_its_old_id() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let site = |kiln: &Runtime| router(kiln, layer(kiln)).layer(Extension(slow.clone()));
    let [a, b] = servers.serve_two(&coordinator, site).await;
    let mut browser = Browser::default();
    browser.get(a, "/visit").await;
    // Two at once: one of them gives the session its new id.
    let in_hand = slow.ask(&browser, a, "/slow_renew").await;
    browser.get(b, "/renew").await;
    assert_eq!(in_hand.go_on().await.status, 200);
    assert_eq!(browser.ask(a, "/look").await.body, "1");
    let in_hand = slow.ask(&browser, a, "/slow_logout").await;
    browser.get(b, "/renew").await;
    assert_eq!(in_hand.go_on().await.body, "true");
    for node in [a, b] {
        assert_eq!(browser.ask(node, "/look").await.body, "none");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_may_follow_the_old_one_in_one_request() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let kiln = coordinator.node("a").await;
    let again = get(async |mut session: Session<Shop>| -> Result<String> {
        session.destroy().await?;
        session.update(|shop| *shop.visits += 10).await?;
        Ok(session.get(|shop| shop.visits()).unwrap_or_default().to_string())
    });
    let again = Router::new().route("/again", again).layer(layer(&kiln));
    let a = servers.serve(router(&kiln, layer(&kiln)).merge(again)).await;
    let mut browser = Browser::default();
    browser.get(a, "/visit").await;
    let old = browser.clone();
    assert_eq!(browser.get(a, "/again").await.body, "10");
    assert_ne!(browser.cookie, old.cookie);
    assert_eq!(browser.get(a, "/look").await.body, "10");
    assert_eq!(old.ask(a, "/look").await.body, "none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_without_the_layer_is_a_mistake_and_says_so() {
    let mut servers = Servers::default();
    let a = servers.serve(Router::new().route("/look", get(look))).await;
    assert_eq!(Browser::default().ask(a, "/look").await.status, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_cluster_is_away_resident_sessions_are_shown_and_changes_fail() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let proxy = Proxy::before(coordinator.profile(), 1);
    let kiln = coordinator.builder_through(&proxy, "a").timeout(Duration::from_secs(2)).attach().await.unwrap();
    let a = servers.serve(router(&kiln, layer(&kiln).away(Away::LocalReads))).await;
    let mut browser = Browser::default();
    browser.get(a, "/visit").await;
    let mut events = kiln.events();
    proxy.set(Weather::cut());
    let disabled = async { while events.next().await != Some(kiln::ClusterEvent::OperationsDisabled) {} };
    soon("the connection is found lost", disabled).await;
    assert_eq!(browser.ask(a, "/look").await.body, "1");
    let stranger = Browser { cookie: Some(format!("__Host-shop={}", SessionId::random().unwrap().expose())) };
    assert_eq!(stranger.ask(a, "/look").await.status, 503);
    assert_eq!(browser.ask(a, "/visit").await.status, 503);
    assert_eq!(Browser::default().ask(a, "/visit").await.status, 503);
    assert_eq!(browser.ask(a, "/node").await.status, 200);
}
