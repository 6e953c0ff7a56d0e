//! Ids that are dead on every node when the answer is there, also on one that hears nothing any more.

use crate::http::Servers;
use crate::typed::{layer, router};
use kiln_tests::{Browser, Coordinator, Proxy, Weather, until};
use std::net::SocketAddr;
use std::time::Duration;

/// A node that is not heard of is waited for that long.
const LEASE: Duration = Duration::from_secs(1);
/// So long a request waits for the cluster.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Two nodes, a visitor whose session both hold, and the network of the second node.
struct Site {
    a: SocketAddr,
    b: SocketAddr,
    browser: Browser,
    network_of_b: Proxy,
    _servers: Servers,
    _coordinator: Coordinator,
}

impl Site {
    async fn open() -> Self {
        let coordinator = Coordinator::with(|options| options.tuning.lease = LEASE).await;
        let network_of_b = Proxy::before(coordinator.profile(), 1);
        let (on_a, on_b) = (coordinator.builder("a"), coordinator.builder_through(&network_of_b, "b"));
        let on_a = on_a.timeout(TIMEOUT * 10).attach().await.unwrap();
        let on_b = on_b.timeout(TIMEOUT).attach().await.unwrap();
        let mut servers = Servers::default();
        let a = servers.serve(router(&on_a, layer(&on_a))).await;
        let b = servers.serve(router(&on_b, layer(&on_b))).await;
        let mut browser = Browser::default();
        browser.get(a, "/visit").await;
        assert_eq!(browser.ask(b, "/look").await.body, "1");
        Self { a, b, browser, network_of_b, _servers: servers, _coordinator: coordinator }
    }
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
