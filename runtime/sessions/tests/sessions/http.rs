//! Servers, and requests that overlap.

use axum::Router;
use kiln::Runtime;
use kiln_tests::{Answer, Browser, Coordinator, soon};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;

/// Rounds of two writes that overlap.
pub(crate) const ROUNDS: usize = 200;

/// Servers that end with the value.
#[derive(Default)]
pub(crate) struct Servers(pub(crate) JoinSet<std::io::Result<()>>);

impl Servers {
    /// Answers on a port of its own.
    pub(crate) async fn serve(&mut self, router: Router) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.0.spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// The same site on two nodes, `a` and `b`.
    pub(crate) async fn serve_two(
        &mut self,
        coordinator: &Coordinator,
        site: impl Fn(&Runtime) -> Router,
    ) -> [SocketAddr; 2] {
        let (a, b) = coordinator.two_nodes().await;
        [self.serve(site(&a)).await, self.serve(site(&b)).await]
    }
}

/// Where two requests wait for each other, after each has loaded the session and before it changes it.
#[derive(Clone)]
pub(crate) struct Rendezvous(pub(crate) Arc<Barrier>);

impl Default for Rendezvous {
    fn default() -> Self {
        Self(Arc::new(Barrier::new(2)))
    }
}

/// What the handler of a slow request waits for, and tells.
#[derive(Clone, Default)]
pub(crate) struct Slow {
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Slow {
    /// In the handler: waits until the test lets it go on.
    pub(crate) async fn wait(&self) {
        self.begun.notify_one();
        self.go_on.notified().await;
    }

    /// Asks in the background, and returns when the handler waits.
    pub(crate) async fn ask(&self, browser: &Browser, node: SocketAddr, path: &'static str) -> InHand {
        let (browser, mut request) = (browser.clone(), JoinSet::new());
        request.spawn(async move { browser.ask(node, path).await });
        soon("the handler begins", self.begun.notified()).await;
        InHand { slow: self.clone(), request }
    }
}

/// A request whose handler waits. Dropped, its visitor goes away.
pub(crate) struct InHand {
    slow: Slow,
    request: JoinSet<Answer>,
}

impl InHand {
    /// Lets the handler go on, and returns the answer.
    pub(crate) async fn go_on(mut self) -> Answer {
        self.slow.go_on.notify_one();
        self.request.join_next().await.unwrap().unwrap()
    }
}

/// One request has the session in hand while another one, on the other node, logs out: no entry of it comes back.
pub(crate) async fn assert_no_resurrection([a, b]: [SocketAddr; 2], slow: &Slow) {
    let mut browser = Browser::default();
    browser.get(a, "/begin").await;
    let in_hand = slow.ask(&browser, a, "/slow").await;
    browser.clone().get(b, "/logout").await;
    assert_eq!(in_hand.go_on().await.status, 200);
    for node in [a, b] {
        assert_eq!(browser.ask(node, "/is/begun").await.body, "false");
        assert_eq!(browser.ask(node, "/is/late").await.body, "false");
    }
}

/// One request has the session in hand, changes it and gives it a new id, while another one, on the other node, logs out: the
/// new session has what that request has written, and nothing of the old one.
pub(crate) async fn assert_no_resurrection_under_another_id([a, b]: [SocketAddr; 2], slow: &Slow) {
    let mut browser = Browser::default();
    browser.get(a, "/begin").await;
    let in_hand = slow.ask(&browser, a, "/slow-login").await;
    browser.clone().get(b, "/logout").await;
    let old = browser.cookie.clone();
    browser.keep(&in_hand.go_on().await);
    assert_ne!(browser.cookie, old);
    for node in [a, b] {
        assert_eq!(browser.ask(node, "/is/begun").await.body, "false");
        assert_eq!(browser.ask(node, "/is/late").await.body, "true");
    }
}

/// 400 writes, two at a time: `/set/KEY` on one node and on the other, each to a key of its own. Returns how many of
/// them `/count` does not find.
pub(crate) async fn lost_of_400(nodes: [SocketAddr; 2]) -> usize {
    let mut browser = Browser::default();
    assert_eq!(browser.get(nodes[0], "/begin").await.status, 200);
    for round in 0..ROUNDS {
        let paths = [format!("/set/a{round}"), format!("/set/b{round}")];
        let (one, other) = tokio::join!(browser.ask(nodes[0], &paths[0]), browser.ask(nodes[1], &paths[1]));
        assert_eq!((one.status, other.status), (200, 200));
        browser.keep(&one);
        browser.keep(&other);
    }
    let there: usize = browser.get(nodes[1], "/count").await.body.parse().unwrap();
    2 * ROUNDS - there
}
