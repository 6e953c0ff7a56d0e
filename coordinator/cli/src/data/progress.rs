//! A bar on a terminal, nothing anywhere else.

use std::io::{self, IsTerminal as _, Write as _};

const WIDTH: u64 = 40;

/// Shows how far something is.
pub(super) struct Progress {
    is_shown: bool,
    percent: Option<u64>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), percent: None }
    }

    /// So many bytes of so many are done.
    pub(super) fn at(&mut self, done: u64, all: u64) {
        let percent = done.min(all) * 100 / all.max(1);
        if !self.is_shown || self.percent == Some(percent) {
            return;
        }
        self.percent = Some(percent);
        let full = usize::try_from(percent * WIDTH / 100).unwrap_or_default();
        let empty = usize::try_from(WIDTH).unwrap_or_default() - full;
        let mut err = io::stderr();
        // Without standard error there is nobody to show it to.
        drop(write!(err, "\r[{}{}] {percent} %", "#".repeat(full), " ".repeat(empty)).and_then(|()| err.flush()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.percent.is_some() {
            drop(writeln!(io::stderr()));
        }
    }
}
