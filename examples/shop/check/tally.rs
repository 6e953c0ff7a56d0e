//! What the clients did, and what they found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter::Sum;

/// How many problems are told in full.
const PROBLEMS_TOLD_MAX: usize = 10;

/// Figures of a check.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    /// Writes that a node acknowledged.
    pub(crate) updates: u64,
    /// Acknowledged writes that were not there.
    pub(crate) lost: u64,
    /// Writes that were there and that nobody made.
    pub(crate) invented: u64,
    pub(crate) orders: u64,
    pub(crate) pieces: u64,
    pub(crate) logouts: u64,
    /// Answers with a session after its logout.
    pub(crate) revived: u64,
    /// Requests that were not answered, or not as they must be.
    pub(crate) failed: u64,
    problems: Vec<String>,
}

impl Tally {
    pub(crate) fn is_good(&self) -> bool {
        self.lost + self.invented + self.revived + self.failed == 0 && self.updates > 0 && self.logouts > 0
    }

    /// Compares a number that counts writes.
    pub(crate) fn compare(&mut self, what: &str, written: u64, found: u64) {
        self.lost += written.saturating_sub(found);
        self.invented += found.saturating_sub(written);
        if written != found {
            self.problem(format!("{what}: {written} written, {found} found"));
        }
    }

    /// A session that is there after its logout.
    pub(crate) fn revive(&mut self, what: String) {
        self.revived += 1;
        self.problem(what);
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failed += 1;
        self.problem(what);
    }

    fn problem(&mut self, what: String) {
        if self.problems.len() < PROBLEMS_TOLD_MAX {
            self.problems.push(what);
        }
    }

    /// Takes another one's figures.
    pub(crate) fn take(&mut self, other: &mut Self) {
        let other = std::mem::take(other);
        self.requests += other.requests;
        self.updates += other.updates;
        self.lost += other.lost;
        self.invented += other.invented;
        self.orders += other.orders;
        self.pieces += other.pieces;
        self.logouts += other.logouts;
        self.revived += other.revived;
        self.failed += other.failed;
        for problem in other.problems {
            self.problem(problem);
        }
    }

    /// The figures for people.
    pub(crate) fn table(&self, seconds: f64) -> String {
        let rows = [
            ("requests", self.requests, "over HTTP, on both nodes"),
            ("updates", self.updates, "acknowledged"),
            ("lost", self.lost, "acknowledged, but not there"),
            ("invented", self.invented, "there, but never acknowledged"),
            ("orders", self.orders, "each one commit with the shop's sales"),
            ("logouts", self.logouts, "on one node, looked for on both"),
            ("revived", self.revived, "answered with a session after its logout"),
            ("failed", self.failed, "not answered, or not as they must be"),
        ];
        let mut table = String::new();
        for (name, figure, meaning) in rows {
            writeln!(table, "  {name:<9}{figure:>9}  {meaning}").expect("a string takes what is written");
        }
        write!(table, "  {:<9}{seconds:>9.2}", "seconds").expect("a string takes what is written");
        for problem in &self.problems {
            write!(table, "\n  ! {problem}").expect("a string takes what is written");
        }
        table.push_str(if self.is_good() {
            "\n\nGood: no update was lost, and every logout held everywhere."
        } else {
            "\n\nNOT GOOD: see above."
        });
        table
    }
}

/// What was written to one session and acknowledged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) visits: u64,
    pub(crate) clicks: i64,
    /// Pieces by product.
    pub(crate) cart: BTreeMap<&'static str, u32>,
    /// The last theme, where one client alone sets it.
    pub(crate) theme: Option<&'static str>,
}

impl Sum for Written {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum.visits += one.visits;
            sum.clicks += one.clicks;
            for (sku, pieces) in one.cart {
                *sum.cart.entry(sku).or_default() += pieces;
            }
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Tally {
        Tally { updates: 1, logouts: 1, ..Tally::default() }
    }

    #[test]
    fn one_wrong_figure_is_enough() {
        assert!(good().is_good());
        assert!(!Tally::default().is_good(), "nothing was done");
        let mut lost = good();
        lost.compare("visits", 7, 5);
        assert_eq!((lost.lost, lost.is_good()), (2, false));
        assert!(lost.table(1.0).contains("visits: 7 written, 5 found"));
        let mut invented = good();
        invented.compare("visits", 5, 7);
        assert_eq!((invented.invented, invented.is_good()), (2, false));
        let mut revived = good();
        revived.revive("still there".to_owned());
        let mut total = good();
        total.take(&mut revived);
        assert!(!total.is_good());
        assert!(total.table(1.0).ends_with("NOT GOOD: see above."));
    }
}
