//! Whether what was acknowledged is there, on both nodes.

use super::client::Client;
use super::http::Connection;
use super::tally::Written;
use crate::catalogue::PRODUCTS;
use crate::session::Snapshot;
use std::io::Result;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Adding to a counter waits for nobody, so the other node may show it a little later.
const CONVERGE_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

impl Client {
    /// Looks at its own session, and at its group's if it leads it.
    pub(super) async fn verify(&mut self) -> Result<()> {
        let own = (self.own.clone(), format!("client-{}", self.number), self.written.clone());
        let shared = (self.shared.clone(), format!("group-{}", self.number), self.shared_written.clone());
        for mut line in self.connect().await? {
            for (id, user, written) in [&own, &shared].into_iter().take(if self.leads() { 2 } else { 1 }) {
                self.verify_session(&mut line, id, user, written).await?;
            }
        }
        Ok(())
    }

    async fn verify_session(&mut self, line: &mut Connection, id: &str, user: &str, written: &Written) -> Result<()> {
        let found = self.read(line, id).await?;
        if found.user.as_deref() != Some(user) {
            self.tally.fail(format!("{user} is {:?}", found.user));
        }
        if let Some(theme) = written.theme {
            let what = format!("the theme of {user}, which is {:?} and not {theme}", found.theme);
            self.tally.compare(&what, 1, u64::from(found.theme == theme));
        }
        self.tally.compare(&format!("visits of {user}"), written.visits, found.visits);
        for product in &PRODUCTS {
            let pieces = written.cart.get(product.sku).copied().unwrap_or_default();
            let what = format!("{} in the cart of {user}", product.sku);
            self.tally.compare(&what, pieces.into(), found.quantity(product.sku).into());
        }
        let mut clicks = found.clicks;
        let converged = timeout(CONVERGE_TIMEOUT, async {
            while clicks < written.clicks {
                sleep(POLL_INTERVAL).await;
                clicks = self.read(line, id).await?.clicks;
            }
            Result::Ok(())
        });
        // When the time is over, the comparison says so.
        converged.await.unwrap_or(Ok(()))?;
        let (written, found) = (written.clicks.unsigned_abs(), clicks.unsigned_abs());
        self.tally.compare(&format!("clicks of {user}"), written, found);
        Ok(())
    }

    async fn read(&mut self, line: &mut Connection, id: &str) -> Result<Snapshot> {
        let answer = line.get("/session.json", id).await?;
        self.tally.requests += 1;
        if answer.status != 200 {
            self.tally.fail(format!("a session that is there was answered with {}", answer.said()));
            return Ok(Snapshot::default());
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }
}
