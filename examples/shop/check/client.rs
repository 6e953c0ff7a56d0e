//! One client of the check: who it is, how it logs in, and what it writes.

use super::http::{Answer, Connection};
use super::tally::{Tally, Written};
use crate::catalogue::PRODUCTS;
use crate::session::THEMES;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::join;

/// How many clients share a session.
pub(crate) const GROUP_CLIENTS: usize = PRODUCTS.len();

/// A phase of the check; it begins for all when the one before has ended for all.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    LogIn,
    Write { rounds: usize },
    Verify,
    LogOut,
    LogOutShared,
    StayOut,
}

/// One client.
pub(crate) struct Client {
    pub(crate) number: usize,
    ports: [u16; 2],
    /// The cookie of its own session.
    pub(super) own: String,
    /// The cookie of its group's session.
    pub(crate) shared: String,
    /// Whether its group's session has been logged out.
    pub(crate) out: Arc<AtomicBool>,
    pub(super) written: Written,
    pub(crate) shared_written: Written,
    pub(crate) tally: Tally,
}

impl Client {
    pub(crate) fn new(number: usize, ports: [u16; 2]) -> Self {
        let (own, shared) = (String::new(), String::new());
        let (written, shared_written) = (Written::default(), Written::default());
        let out = Arc::default();
        Self { number, ports, own, shared, out, written, shared_written, tally: Tally::default() }
    }

    /// Does its part of a phase. A request that is not answered at all ends its part.
    pub(crate) async fn part(&mut self, phase: Phase) {
        let done = match phase {
            Phase::LogIn => self.log_in().await,
            Phase::Write { rounds } => self.write(rounds).await,
            Phase::Verify => self.verify().await,
            Phase::LogOut => self.log_out().await,
            Phase::LogOutShared => self.log_out_shared().await,
            Phase::StayOut => self.stay_out().await,
        };
        if let Err(error) = done {
            self.tally.fail(format!("client {}, {phase:?}: {error}", self.number));
        }
    }

    /// The node it logs in and out on: 0 or 1.
    pub(super) const fn home(&self) -> usize {
        self.number % 2
    }

    /// Whether the session of its group is its to log in and out.
    pub(super) const fn leads(&self) -> bool {
        self.number.is_multiple_of(GROUP_CLIENTS)
    }

    /// New connections, one to each node.
    pub(super) async fn connect(&self) -> Result<[Connection; 2]> {
        let [first, second] = self.ports;
        Ok([Connection::open(first).await?, Connection::open(second).await?])
    }

    async fn log_in(&mut self) -> Result<()> {
        let mut lines = self.connect().await?;
        let home = self.home();
        let answer = lines[home].post("/login", "", &format!("name=client-{}", self.number)).await?;
        self.own = self.expect_cookie(answer);
        if self.leads() {
            let answer = lines[home].post("/login", "", &format!("name=group-{}", self.number)).await?;
            self.shared = self.expect_cookie(answer);
            self.shared_written.clicks += 1;
        }
        self.written.clicks += 1;
        Ok(())
    }

    fn expect_cookie(&mut self, answer: Answer) -> String {
        self.updated("a login", &answer);
        answer.cookie.unwrap_or_else(|| {
            self.tally.fail("a login without a cookie".to_owned());
            String::new()
        })
    }

    /// Notes the answer to a write. `true` when the write counts.
    pub(super) fn updated(&mut self, what: &str, answer: &Answer) -> bool {
        self.tally.requests += 1;
        let acknowledged = matches!(answer.status, 200 | 303);
        if acknowledged {
            self.tally.updates += 1;
        } else {
            self.tally.fail(format!("{what} was not done: {}", answer.said()));
        }
        acknowledged
    }

    /// Writes to both of its sessions, each pair of requests at the same time on both nodes.
    async fn write(&mut self, rounds: usize) -> Result<()> {
        let mut lines = self.connect().await?;
        let (own, shared) = (self.own.clone(), self.shared.clone());
        let mine = PRODUCTS[self.number % GROUP_CLIENTS].sku;
        let everybodys = PRODUCTS[0].sku;
        for round in 0..rounds {
            let [a, b] = &mut lines;
            let (a, b) = if round % 2 == 0 { (a, b) } else { (b, a) };
            // Different fields.
            let theme = THEMES[round % THEMES.len()];
            let form = format!("theme={theme}");
            let (themed, visited) = join!(a.post("/theme", &own, &form), b.get("/", &own));
            if self.updated("a theme", &themed?) {
                self.written.theme = Some(theme);
                self.written.clicks += 1;
            }
            self.visited(&visited?, true);
            // The same number.
            let (one, other) = join!(a.get("/", &own), b.get("/", &own));
            self.visited(&one?, true);
            self.visited(&other?, true);
            // The same entry of a map.
            let (one, other) = join!(add(a, &own, mine), add(b, &own, mine));
            self.added(&one?, mine, true);
            self.added(&other?, mine, true);
            // What the whole group writes: entries of one map, one entry, one number.
            let (line, visited) = join!(add(a, &shared, mine), b.get("/", &shared));
            self.added(&line?, mine, false);
            self.visited(&visited?, false);
            let (visited, line) = join!(a.get("/", &shared), add(b, &shared, everybodys));
            self.visited(&visited?, false);
            self.added(&line?, everybodys, false);
        }
        Ok(())
    }

    fn visited(&mut self, answer: &Answer, own: bool) {
        if self.updated("a visit", answer) {
            let written = if own { &mut self.written } else { &mut self.shared_written };
            written.visits += 1;
            written.clicks += 1;
        }
    }

    fn added(&mut self, answer: &Answer, sku: &'static str, own: bool) {
        if self.updated("a line of the cart", answer) {
            let written = if own { &mut self.written } else { &mut self.shared_written };
            *written.cart.entry(sku).or_default() += 1;
            written.clicks += 1;
        }
    }
}

/// Puts one piece into the cart of a session.
pub(super) async fn add(line: &mut Connection, session: &str, sku: &str) -> Result<Answer> {
    line.post("/cart/add", session, &format!("sku={sku}")).await
}
