//! Nodes of the shop that are killed and paused, behind a load balancer that is not sticky: nobody is logged out who did
//! not want to be, and no update is lost.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kiln_tests::{Answer, Browser, Coordinator, PATIENCE, Process};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use tokio::task::JoinSet;

/// Visitors, each with two browsers that are logged in as one: they change one session at once.
const VISITORS: usize = 6;
/// What one browser puts into the cart, and the other.
const PRODUCTS: [&str; 2] = ["mug", "bowl"];
/// Pieces that each browser puts into the cart.
const PIECES: u32 = 60;
/// A node is killed whenever so many of them are in carts.
const PIECES_PER_KILL: usize = 60;
/// Requests that wait for a paused node.
const QUESTIONS: usize = 16;
/// A visitor of whom a killed node had a lock waits for the end of its lease.
const LEASE: Duration = Duration::from_secs(1);

/// A node, and where it answers in all its lives.
struct Node {
    name: String,
    process: Process,
    address: SocketAddr,
}

impl Node {
    /// `port` is where it looks for a free one: below those that systems give to connections, so that it is free again
    /// when a killed node comes back, and each test its own.
    fn start(number: u16, port: u16, profile: &Path) -> Self {
        let name = format!("web-{number}");
        let mut process = start(&name, profile, port + 100 * number);
        let port = ready(&mut process);
        Self { name, process, address: (Ipv4Addr::LOCALHOST, port).into() }
    }

    /// Returns when the node is back.
    fn kill_and_start_again(&mut self, profile: &Path) {
        self.process.kill();
        self.process = start(&self.name, profile, self.address.port());
        assert_eq!(ready(&mut self.process), self.address.port(), "its port was taken meanwhile");
    }
}

fn start(name: &str, profile: &Path, port: u16) -> Process {
    let port = port.to_string();
    let arguments: [&OsStr; 4] = ["node".as_ref(), name.as_ref(), profile.as_os_str(), port.as_ref()];
    Process::start(name, env!("CARGO_BIN_EXE_shop"), &arguments)
}

fn ready(process: &mut Process) -> u16 {
    let line = process.hear();
    line.strip_prefix("ready ").and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("it says `{line}`"))
}

/// One browser of a visitor, behind the load balancer.
struct Shopper {
    browser: Browser,
    user: String,
    nodes: [SocketAddr; 3],
    turn: usize,
    /// Requests of which nobody knows what became, until the visitor has looked.
    unknown: usize,
}

impl Shopper {
    /// Not sticky: every request goes to another node.
    fn next_node(&mut self) -> SocketAddr {
        self.turn += 1;
        self.nodes[self.turn % self.nodes.len()]
    }

    /// Asks nodes until one answers; `None` when one ended before its answer or did not do it, so that it may have been
    /// done.
    async fn post(&mut self, path: &str, form: &str) -> Option<Answer> {
        loop {
            let node = self.next_node();
            match self.browser.post(node, path, form).await {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Ok(answer) if answer.status != 503 => {
                    assert_ne!(answer.status, 401, "{} was logged out by {node}", self.user);
                    return Some(answer);
                }
                Ok(_) | Err(_) => {
                    self.unknown += 1;
                    return None;
                }
            }
        }
    }

    async fn log_in(&mut self) {
        let form = format!("name={}", self.user);
        let answer = loop {
            // A login that may have been made is left to nobody.
            if let Some(answer) = self.post("/login", &form).await {
                break answer;
            }
        };
        assert_eq!(answer.status, 303);
        self.browser.keep(&answer);
    }

    /// How many pieces of a product are in the cart, from a node that answers.
    async fn pieces(&mut self, product: &str) -> u32 {
        loop {
            let node = self.next_node();
            let Ok(answer) = self.browser.try_ask(node, "/session.json").await else { continue };
            if answer.status != 503 {
                return self.pieces_in(&answer, product);
            }
        }
    }

    fn pieces_in(&self, answer: &Answer, product: &str) -> u32 {
        assert_eq!(answer.status, 200, "{} was logged out", self.user);
        let session: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(session["user"], self.user.as_str());
        let mut lines = session["cart"].as_array().unwrap().iter();
        let line = lines.find(|line| line[0] == product);
        line.map_or(0, |line| line[1]["quantity"].as_u64().unwrap().try_into().unwrap())
    }

    /// Puts pieces into the cart one after the other. After each request of unknown fate the visitor looks.
    async fn shop(mut self, product: &'static str, done: Sender<()>) -> Self {
        let mut pieces = 0;
        while pieces < PIECES {
            if let Some(answer) = self.post("/cart/add", &format!("sku={product}")).await {
                assert_eq!(answer.status, 303, "{}", answer.body);
                pieces += 1;
            } else {
                let there = self.pieces(product).await;
                assert!(there == pieces || there == pieces + 1, "{} has {there} of {pieces} pieces", self.user);
                if there == pieces {
                    continue;
                }
                pieces = there;
            }
            // Fails when the test has failed.
            done.send(()).ok();
        }
        self
    }
}

async fn coordinator() -> Coordinator {
    Coordinator::with(|options| options.tuning.lease = LEASE).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_node_that_was_paused_does_not_show_a_session_that_has_ended_meanwhile() {
    let runtime = runtime();
    let coordinator = runtime.block_on(coordinator());
    let nodes = [1, 2].map(|number| Node::start(number, 29_000, coordinator.profile_path()));
    let [a, b] = [nodes[0].address, nodes[1].address];
    let mut ada = Browser::default();
    runtime.block_on(async {
        let answer = ada.post(a, "/login", "name=Ada").await.unwrap();
        ada.keep(&answer);
        assert!(ada.ask(b, "/login").await.body.contains("Ada"), "the second node has her session");
    });
    nodes[1].process.pause();
    let mut questions = JoinSet::new();
    runtime.block_on(async {
        // Nobody shows it when this is answered.
        assert_eq!(ada.post(a, "/logout", "").await.unwrap().status, 303);
        for _ in 0..QUESTIONS {
            questions.spawn(ada.begin(b, "/login").await.unwrap().answer());
        }
    });
    nodes[1].process.resume();
    while let Some(answer) = runtime.block_on(questions.join_next()) {
        assert!(!answer.unwrap().unwrap().body.contains("Ada"), "the session is shown after its end");
    }
}

#[test]
fn nobody_is_logged_out_and_no_update_is_lost_while_nodes_are_killed() {
    let runtime = runtime();
    let coordinator = runtime.block_on(coordinator());
    let profile = coordinator.profile_path();
    let mut nodes = [1, 2, 3].map(|number| Node::start(number, 30_000, profile));
    let addresses = [nodes[0].address, nodes[1].address, nodes[2].address];

    let (done, pieces) = channel();
    let mut shoppers = JoinSet::new();
    runtime.block_on(async {
        for visitor in 0..VISITORS {
            let user = format!("visitor-{visitor}");
            let mut first = Shopper { browser: Browser::default(), user, nodes: addresses, turn: visitor, unknown: 0 };
            first.log_in().await;
            let (browser, user) = (first.browser.clone(), first.user.clone());
            let second = Shopper { browser, user, nodes: addresses, turn: visitor + 1, unknown: 0 };
            shoppers.spawn(first.shop(PRODUCTS[0], done.clone()));
            shoppers.spawn(second.shop(PRODUCTS[1], done.clone()));
        }
    });
    drop(done);

    let (mut kills, mut in_carts) = (0, 0);
    while pieces.recv_timeout(2 * PATIENCE).is_ok() {
        in_carts += 1;
        if in_carts % PIECES_PER_KILL == 0 {
            nodes[kills % nodes.len()].kill_and_start_again(profile);
            kills += 1;
        }
    }
    let unknown = runtime.block_on(async {
        let mut unknown = 0;
        while let Some(shopper) = shoppers.join_next().await {
            let shopper = shopper.unwrap();
            unknown += shopper.unknown;
            for node in addresses {
                let answer = shopper.browser.ask(node, "/session.json").await;
                for product in PRODUCTS {
                    assert_eq!(shopper.pieces_in(&answer, product), PIECES, "{}, on {node}", shopper.user);
                }
            }
        }
        unknown
    });
    assert_eq!(in_carts, VISITORS * PRODUCTS.len() * PIECES as usize);
    println!(
        "{in_carts} pieces, {kills} nodes killed, {unknown} requests of unknown fate: none lost, nobody logged out"
    );
}
