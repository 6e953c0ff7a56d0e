//! Sessions that are locked to the end of a request.

use crate::http::{Servers, Slow};
use crate::typed::{Shop, layer, router};
use axum::routing::get;
use axum::{Extension, Router};
use kiln::Runtime;
use kiln_sessions::{Busy, LockMode, Session, SessionError, SessionLock};
use kiln_tests::{Browser, Coordinator, until};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, SessionError>;

/// Two changes with a wait between them.
async fn hold(session: Session<Shop>, Extension(slow): Extension<Slow>) -> Result<String> {
    session.update(|shop| *shop.visits += 1).await?;
    slow.wait().await;
    session.update(|shop| *shop.visits += 1).await?;
    if !matches!(session.read().await, Err(SessionError::OwnLock)) {
        return Ok("it waits for itself".to_owned());
    }
    Ok(session.get(|shop| shop.visits()).unwrap_or_default().to_string())
}

async fn hold_cart(session: Session<Shop>, Extension(slow): Extension<Slow>) -> Result<String> {
    slow.wait().await;
    let mut cart = session.write_group("cart").await?;
    *cart.cart.get_or_insert_with("mug".to_owned(), u32::default) += 1;
    cart.commit().await?;
    // `visits` is not in the group.
    let outside = session.update(|shop| *shop.visits += 1).await;
    Ok(format!("{}", outside.is_err()))
}

async fn hold_and_rotate(mut session: Session<Shop>) -> Result<String> {
    session.rotate().await?;
    session.update(|shop| *shop.visits += 1).await?;
    Ok(session.get(|shop| shop.visits()).unwrap_or_default().to_string())
}

async fn hold_and_leave(mut session: Session<Shop>) -> Result<String> {
    Ok(session.destroy().await?.to_string())
}

fn locked(kiln: &Runtime, slow: &Slow) -> Router {
    let both = || layer(kiln).lock_mode(LockMode::GroupsOrSession);
    let whole = SessionLock::<Shop>::whole();
    let brief = whole.clone().wait(Duration::from_millis(100));
    let elsewhere = Busy::Redirect("/busy".parse().unwrap());
    let routes = Router::new()
        .route("/hold", get(hold).layer(whole.clone()))
        .route("/hold-cart", get(hold_cart).layer(SessionLock::<Shop>::group("cart")))
        .route("/rotate", get(hold_and_rotate).layer(whole.clone()))
        .route("/leave", get(hold_and_leave).layer(whole))
        .route("/busy-503", get(async || "in").layer(brief.clone()))
        .route("/busy-409", get(async || "in").layer(brief.clone().when_busy(Busy::Conflict)))
        .route("/busy-303", get(async || "in").layer(brief.when_busy(elsewhere)))
        .route(
            "/alone",
            get(async || "in").route_layer(SessionLock::<Shop>::group("cart")).layer(SessionLock::<Shop>::whole()),
        )
        .layer(both());
    routes.merge(router(kiln, both())).layer(Extension(slow.clone()))
}

/// Two nodes, and a visitor with a session.
async fn two_nodes(servers: &mut Servers, coordinator: &Coordinator, slow: &Slow) -> ([SocketAddr; 2], Browser) {
    let nodes = servers.serve_two(coordinator, |kiln| locked(kiln, slow)).await;
    let mut browser = Browser::default();
    browser.get(nodes[0], "/visit").await;
    (nodes, browser)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_changes_a_session_that_a_request_has_locked() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let ([a, b], browser) = two_nodes(&mut servers, &coordinator, &slow).await;
    let held = slow.ask(&browser, a, "/hold").await;
    // Everybody sees what is committed, and who asks for the lock is told that it is busy, on both nodes.
    for node in [a, b] {
        assert_eq!(browser.ask(node, "/look").await.body, "2");
        assert_eq!(browser.ask(node, "/busy-503").await.status, 503);
        assert_eq!(browser.ask(node, "/busy-409").await.status, 409);
        let redirected = browser.ask(node, "/busy-303").await;
        assert_eq!((redirected.status, redirected.location.as_deref()), (303, Some("/busy")));
    }
    let (other, mut waiting) = (browser.clone(), JoinSet::new());
    waiting.spawn(async move { other.ask(b, "/visit").await.body });
    assert!(waiting.try_join_next().is_none());
    assert_eq!(held.go_on().await.body, "3", "somebody changed it in between");
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), "4");
    for node in [a, b] {
        assert_eq!(browser.ask(node, "/busy-503").await.body, "in");
        assert_eq!(browser.ask(node, "/alone").await.body, "in");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_of_one_group_leaves_the_others_free() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let ([a, b], browser) = two_nodes(&mut servers, &coordinator, &slow).await;
    let held = slow.ask(&browser, a, "/hold-cart").await;
    // The whole is not free, as the cart is part of it; the rest is.
    assert_eq!(browser.ask(b, "/busy-503").await.status, 503);
    assert_eq!(held.go_on().await.body, "true", "a field outside of the locked group was changed");
    assert_eq!(browser.ask(b, "/look").await.body, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_request_may_make_rotate_and_end_its_session() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let [a, b] = servers.serve_two(&coordinator, |kiln| locked(kiln, &slow)).await;
    let mut browser = Browser::default();
    // There is none yet: it is made under the lock.
    let answer = slow.ask(&browser, a, "/hold").await.go_on().await;
    browser.keep(&answer);
    assert_eq!(answer.body, "2");
    let old = browser.clone();
    assert_eq!(browser.get(b, "/rotate").await.body, "3");
    assert_ne!(browser.cookie, old.cookie);
    assert_eq!(old.ask(a, "/look").await.body, "none");
    assert_eq!(browser.get(a, "/leave").await.body, "true");
    assert_eq!(browser.cookie, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_visitor_who_goes_away_leaves_the_lock() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let ([a, b], browser) = two_nodes(&mut servers, &coordinator, &slow).await;
    drop(slow.ask(&browser, a, "/hold").await);
    until("the lock is free", || async { browser.ask(b, "/busy-409").await.status == 200 }).await;
}
