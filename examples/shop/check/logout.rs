//! Whether a logout on one node holds on both, whatever is under way.

use super::client::{Client, add};
use super::http::{Answer, Connection};
use crate::catalogue::PRODUCTS;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::join;

const SLOW_FORM: &str = "note=a+slow+request";

impl Client {
    /// Logs out on one node while both have requests of the session under way.
    pub(super) async fn log_out(&mut self) -> Result<()> {
        let own = self.own.clone();
        let (home, away) = (self.home(), 1 - self.home());
        // Slow ones: they have found their session, and the rest of them comes after the logout.
        let mut slow = self.connect().await?;
        for line in &mut slow {
            if let Err(answer) = line.begin("/note", &own, SLOW_FORM.len()).await? {
                self.tally.fail(format!("a slow request was answered too soon: {}", answer.said()));
                return Ok(());
            }
        }
        // One that holds the cart's lock while it waits for the card, and many short ones.
        let mut paying = self.connect().await?;
        let added = add(&mut paying[away], &own, PRODUCTS[0].sku).await?;
        self.updated("a line of the cart", &added);
        let mut writing = self.connect().await?;
        let mut leaving = self.connect().await?;
        let out = AtomicBool::new(false);
        let leave = async {
            let answer = leaving[home].post("/logout", &own, "").await;
            out.store(true, Ordering::Release);
            let answer = answer?;
            let probed = leaving[away].get("/session.json", &own).await?;
            Result::Ok((answer, probed))
        };
        let pay = paying[away].post("/checkout", &own, "");
        let (left, paid, hammered) = join!(leave, pay, hammer(&mut writing[away], &own, &out));
        let (answer, probed) = left?;
        if self.updated("a logout", &answer) {
            self.tally.logouts += 1;
        }
        self.expect_out("on the other node, at once", &probed);
        self.paid(&paid?);
        let (requests, last) = hammered?;
        self.tally.requests += requests;
        self.expect_out("for a writer on the other node", &last);
        for line in &mut slow {
            let answer = line.finish(SLOW_FORM).await?;
            self.expect_out("for a slow request", &answer);
        }
        let [first, second] = &mut leaving;
        self.probe(first, &own).await?;
        self.probe(second, &own).await
    }

    /// The leader of a group logs all of them out, while the others write.
    pub(super) async fn log_out_shared(&mut self) -> Result<()> {
        if self.leads() {
            let done = self.lead_out().await;
            // Also when it failed, so that the others end.
            self.out.store(true, Ordering::Release);
            return done;
        }
        let (shared, out) = (self.shared.clone(), Arc::clone(&self.out));
        for mut line in self.connect().await? {
            let (requests, last) = hammer(&mut line, &shared, &out).await?;
            self.tally.requests += requests;
            self.expect_out("for a writer of the group", &last);
        }
        Ok(())
    }

    async fn lead_out(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let [mut first, mut second] = self.connect().await?;
        let (line, other) = if self.home() == 0 { (&mut first, &mut second) } else { (&mut second, &mut first) };
        let answer = line.post("/logout", &shared, "").await?;
        self.out.store(true, Ordering::Release);
        if self.updated("a logout", &answer) {
            self.tally.logouts += 1;
        }
        self.probe(other, &shared).await?;
        self.probe(line, &shared).await
    }

    /// Looks once more, when everything is over.
    pub(super) async fn stay_out(&mut self) -> Result<()> {
        let (own, shared) = (self.own.clone(), self.shared.clone());
        for mut line in self.connect().await? {
            self.probe(&mut line, &own).await?;
            self.probe(&mut line, &shared).await?;
        }
        Ok(())
    }

    async fn probe(&mut self, line: &mut Connection, id: &str) -> Result<()> {
        let answer = line.get("/session.json", id).await?;
        self.expect_out("afterwards", &answer);
        Ok(())
    }

    /// Notes the answer to a request that must not find its session.
    fn expect_out(&mut self, when: &str, answer: &Answer) {
        self.tally.requests += 1;
        match answer.status {
            401 => {}
            200 | 303 => self.tally.revive(format!("client {} is not logged out {when}", self.number)),
            _ => self.tally.fail(format!("client {}, logged out, {when}: {}", self.number, answer.said())),
        }
    }

    /// Notes the answer to a payment that raced with the logout: either is right, but it must be true.
    fn paid(&mut self, answer: &Answer) {
        if answer.status == 401 {
            self.tally.requests += 1;
        } else if self.updated("a payment", answer) {
            self.tally.orders += 1;
            let pieces = answer.said().split_once(" pieces for").and_then(|(pieces, _)| pieces.parse::<u64>().ok());
            match pieces {
                Some(pieces) => self.tally.pieces += pieces,
                None => self.tally.fail("an order that does not say how many pieces".to_owned()),
            }
        }
    }
}

/// Writes until the session is gone, or until a request that was begun after the logout is answered. Returns how many
/// requests came before the last one, and its answer.
async fn hammer(line: &mut Connection, session: &str, out: &AtomicBool) -> Result<(u64, Answer)> {
    let mut requests = 0;
    loop {
        // Acquire: pairs with the release after the logout's answer; a request begun from now on must find nothing.
        let is_out = out.load(Ordering::Acquire);
        let answer = add(line, session, PRODUCTS[1].sku).await?;
        if is_out || answer.status != 303 {
            return Ok((requests, answer));
        }
        requests += 1;
    }
}
