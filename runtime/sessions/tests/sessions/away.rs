//! Sessions while the cluster is away, on a node that goes on alone.

use crate::http::Servers;
use crate::typed::{Shop, layer, router};
use axum::Router;
use axum::routing::get;
use kiln::{Away, ClusterEvent, OnReturn};
use kiln_sessions::{LockMode, Session, SessionId, SessionLock};
use kiln_tests::{Browser, Coordinator, Proxy, Weather, soon, until};
use std::time::Duration;

async fn locked(session: Session<Shop>) -> String {
    session.exists().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_go_on_with_a_node_that_is_alone() {
    let coordinator = Coordinator::with(|options| options.tuning.lease = Duration::from_secs(2)).await;
    let mut servers = Servers::default();
    let proxy = Proxy::before(coordinator.profile(), 1);
    let kiln = coordinator.builder_through(&proxy, "a").timeout(Duration::from_secs(2)).attach().await.unwrap();
    let with_locks = |kiln| layer(kiln).lock_mode(LockMode::Session);
    let alone = || with_locks(&kiln).away(Away::LocalReadWrite { on_return: OnReturn::Discard });
    let lock = SessionLock::<Shop>::whole().wait(Duration::from_secs(1));
    let locks = Router::new().route("/locked", get(locked).layer(lock)).layer(alone());
    let a = servers.serve(router(&kiln, alone()).merge(locks)).await;
    let kiln_b = coordinator.node("b").await;
    let b = servers.serve(router(&kiln_b, with_locks(&kiln_b))).await;
    let (mut browser, mut stays) = (Browser::default(), Browser::default());
    for browser in [&mut browser, &mut stays] {
        assert_eq!(browser.get(a, "/visit").await.body, "1");
    }
    assert_eq!(browser.ask(a, "/locked").await.body, "true");

    let mut events = kiln.events();
    proxy.set(Weather::cut());
    let disabled = async { while events.next().await != Some(ClusterEvent::OperationsDisabled) {} };
    soon("the cluster is away", disabled).await;
    for visits in ["2", "3"] {
        let answer = stays.ask(a, "/visit").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, visits));
    }
    assert_eq!(stays.ask(a, "/look").await.body, "3");
    // A cookie before it may be of another session that there is: nobody can say.
    let planted = format!("__Host-shop={}", SessionId::random().unwrap().expose());
    let hidden = Browser { cookie: Some([planted, stays.cookie.clone().unwrap()].join("; ")) };
    assert_eq!(hidden.ask(a, "/look").await.status, 503);
    let mut new = Browser::default();
    assert_eq!(new.get(a, "/visit").await.body, "1");
    assert_eq!(new.get(a, "/look").await.body, "1");
    // What only the cluster can do.
    assert_eq!(stays.ask(a, "/renew").await.status, 503);
    assert_eq!(stays.ask(a, "/locked").await.status, 503);
    // A logout holds here, and says that it does not elsewhere.
    let before = browser.clone();
    let logout = browser.get(a, "/logout").await;
    assert_eq!((logout.status, browser.cookie.as_deref()), (503, None));
    assert_eq!(before.ask(a, "/look").await.body, "none");
    assert_eq!(before.ask(b, "/look").await.body, "1");

    proxy.heal();
    let enabled = async { while events.next().await != Some(ClusterEvent::OperationsEnabled) {} };
    soon("the cluster is back", enabled).await;
    until("the session has ended everywhere", || async { before.ask(b, "/look").await.body == "none" }).await;
    // What was done alone is forgotten, and the cluster goes on.
    until("alone is over", || async { stays.ask(a, "/look").await.body == "1" }).await;
    assert_eq!(new.ask(a, "/look").await.body, "none");
    assert_eq!(stays.ask(b, "/visit").await.body, "2");
    assert_eq!(stays.ask(a, "/locked").await.body, "true");
}
