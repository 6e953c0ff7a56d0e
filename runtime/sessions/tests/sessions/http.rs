//! Servers, and a browser that keeps one cookie.

use axum::Router;
use kiln_tests::soon;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
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
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) set_cookie: Vec<String>,
    pub(crate) location: Option<String>,
    pub(crate) body: String,
}

/// One visitor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Browser {
    /// Name and value.
    pub(crate) cookie: Option<String>,
}

impl Browser {
    /// Asks, and keeps the cookie that comes back.
    pub(crate) async fn get(&mut self, node: SocketAddr, path: &str) -> Answer {
        let answer = self.ask(node, path).await;
        self.keep(&answer);
        answer
    }

    /// As a browser does with the answer.
    pub(crate) fn keep(&mut self, answer: &Answer) {
        for header in &answer.set_cookie {
            let (pair, settings) = header.split_once(';').unwrap();
            self.cookie = (!settings.contains("Max-Age=0")).then(|| pair.to_owned());
        }
    }

    /// Asks, and keeps nothing.
    pub(crate) async fn ask(&self, node: SocketAddr, path: &str) -> Answer {
        soon(path, self.ask_patiently(node, path)).await
    }

    async fn ask_patiently(&self, node: SocketAddr, path: &str) -> Answer {
        let cookie = self.cookie.as_ref().map_or_else(String::new, |cookie| format!("Cookie: {cookie}\r\n"));
        let mut stream = TcpStream::connect(node).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{cookie}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
        let of = |wanted: &str| {
            let found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| (*value).to_owned()).collect::<Vec<_>>()
        };
        Answer { status, set_cookie: of("set-cookie"), location: of("location").pop(), body: body.to_owned() }
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
