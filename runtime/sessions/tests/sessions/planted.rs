//! Cookies that somebody else has set, and ids that somebody else knows.

use crate::http::{Servers, Slow};
use crate::typed::{Shop, id_in, layer, router, two_nodes};
use axum::routing::get;
use axum::{Extension, Router};
use kiln::{Root, Runtime};
use kiln_sessions::{Session, SessionError, SessionId};
use kiln_tests::{Browser, Coordinator};
use std::time::Duration;

/// One who sends all of these cookies.
fn with_all(cookies: &[&Browser]) -> Browser {
    let cookies: Vec<_> = cookies.iter().filter_map(|browser| browser.cookie.clone()).collect();
    Browser { cookie: Some(cookies.join("; ")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_that_somebody_else_has_set_hides_no_session() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let [a, b] = two_nodes(&mut servers, &coordinator).await;
    let (mut visitor, mut other) = (Browser::default(), Browser::default());
    visitor.get(a, "/visit").await;
    visitor.get(a, "/visit").await;
    other.get(a, "/visit").await;
    let planted = Browser { cookie: Some(format!("__Host-shop={}", SessionId::random().unwrap().expose())) };
    for node in [a, b] {
        assert_eq!(with_all(&[&planted, &visitor]).ask(node, "/look").await.body, "2");
    }
    let old = visitor.clone();
    let answer = with_all(&[&planted, &visitor]).ask(a, "/login").await;
    visitor.keep(&answer);
    assert_ne!(id_in(&visitor), id_in(&old));
    assert_eq!(with_all(&[&planted, &old, &visitor]).ask(b, "/user").await.body, "ada");
    // A logout leaves none.
    assert_eq!(with_all(&[&planted, &visitor, &other]).ask(b, "/logout").await.body, "true");
    for node in [a, b] {
        assert_eq!(visitor.ask(node, "/look").await.body, "none");
        assert_eq!(other.ask(node, "/look").await.body, "none");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_keeps_a_visitor_from_logging_out() {
    let (coordinator, mut servers) = (Coordinator::start().await, Servers::default());
    let hurries = coordinator.builder("a").timeout(Duration::from_secs(2)).attach().await.unwrap();
    let kiln = coordinator.node("b").await;
    let a = servers.serve(router(&hurries, layer(&hurries))).await;
    let b = servers.serve(router(&kiln, layer(&kiln))).await;
    let mut planted = Browser::default();
    planted.get(b, "/visit").await;
    // Whose it is keeps it locked.
    let sessions: Root<String, Shop> = kiln.root("sessions").await.unwrap();
    let held = sessions.get(&id_in(&planted).key()).await.unwrap().unwrap();
    let guard = held.write().await.unwrap();
    for is_first in [false, true] {
        let mut visitor = Browser::default();
        visitor.get(b, "/visit").await;
        let both = if is_first { [&visitor, &planted] } else { [&planted, &visitor] };
        let answer = with_all(&both).ask(a, "/logout").await;
        assert_eq!(answer.status, 503, "not all has ended");
        assert_eq!(answer.set_cookie.len(), usize::from(is_first));
        for node in [a, b] {
            assert_eq!(visitor.ask(node, "/look").await.body, "none", "its session first: {is_first}");
        }
    }
    drop(guard);
}

async fn slow_renew_and_logout(
    mut session: Session<Shop>,
    Extension(slow): Extension<Slow>,
) -> Result<String, SessionError> {
    slow.wait().await;
    session.rotate().await?;
    Ok(format!("{} {}", session.is_lost(), session.destroy().await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_ends_all_that_was_brought_also_without_a_session() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let site = |kiln: &Runtime| {
        let more = Router::new().route("/renew_and_logout", get(slow_renew_and_logout)).layer(layer(kiln));
        router(kiln, layer(kiln)).merge(more).layer(Extension(slow.clone()))
    };
    let [a, b] = servers.serve_two(&coordinator, site).await;
    let (mut visitor, mut other) = (Browser::default(), Browser::default());
    visitor.get(a, "/visit").await;
    other.get(a, "/visit").await;
    let in_hand = slow.ask(&with_all(&[&visitor, &other]), a, "/renew_and_logout").await;
    assert_eq!(visitor.get(b, "/renew").await.status, 200);
    let answer = in_hand.go_on().await;
    assert_eq!(answer.body, "true true", "it lost the rotation, and ended the other one");
    assert!(answer.set_cookie[0].contains("Max-Age=0"), "{:?}", answer.set_cookie);
    assert_eq!(other.ask(b, "/look").await.body, "none");
    assert_eq!(visitor.ask(a, "/look").await.body, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_the_id_before_a_login_does_not_have_the_session_after_it() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let site = |kiln: &Runtime| router(kiln, layer(kiln)).layer(Extension(slow.clone()));
    let [a, b] = servers.serve_two(&coordinator, site).await;
    let mut visitor = Browser::default();
    visitor.get(a, "/visit").await;
    let mut knows_the_id = visitor.clone();
    let login = slow.ask(&visitor, a, "/slow_login").await;
    assert_eq!(knows_the_id.get(b, "/renew").await.status, 200);
    let answer = login.go_on().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "true"));
    visitor.keep(&answer);
    assert_ne!(visitor.cookie, knows_the_id.cookie);
    for node in [a, b] {
        assert_eq!(visitor.ask(node, "/user").await.body, "grace");
        assert_eq!(knows_the_id.ask(node, "/user").await.body, "");
        assert_eq!(knows_the_id.ask(node, "/look").await.body, "1");
    }
}

async fn slow_user(session: Session<Shop>, Extension(slow): Extension<Slow>) -> String {
    slow.wait().await;
    session.get(|shop| shop.user().is_some()).map_or_else(|| "none".to_owned(), |is_known| is_known.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_session_in_hand_with_an_old_id_has_it_no_more() {
    let (coordinator, mut servers, slow) = (Coordinator::start().await, Servers::default(), Slow::default());
    let site = |kiln: &Runtime| {
        let more = Router::new().route("/slow_user", get(slow_user));
        router(kiln, layer(kiln)).merge(more.layer(layer(kiln))).layer(Extension(slow.clone()))
    };
    let [a, b] = servers.serve_two(&coordinator, site).await;
    for node in [a, b] {
        for (path, status, body) in [("/slow_user", 200, "none"), ("/slow_read", 200, "true true"), ("/slow", 409, "")]
        {
            let mut visitor = Browser::default();
            visitor.get(a, "/visit").await;
            let in_hand = slow.ask(&visitor, node, path).await;
            assert_eq!(visitor.get(a, "/login").await.status, 200);
            let answer = in_hand.go_on().await;
            assert_eq!((answer.status, answer.set_cookie.len()), (status, 0), "{path}");
            assert!(answer.body.contains(body), "{path}: {}", answer.body);
            assert_eq!(visitor.ask(b, "/look").await.body, "1", "{path} changed what is not its");
        }
    }
}
