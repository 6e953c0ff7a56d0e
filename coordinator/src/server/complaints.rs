//! How often the log hears of peers that were not let in: whoever can send packets must not be able to fill it.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);
const SAID_MAX: u32 = 5;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// When the present window began.
    since: Option<Instant>,
    /// In the present window.
    said: u32,
    left_out: u64,
}

impl Complaints {
    /// Whether one more is to be said.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        if self.is_over(now) {
            (self.since, self.said) = (Some(now), 0);
        }
        let admitted = self.said < SAID_MAX;
        if admitted {
            self.said += 1;
        } else {
            self.left_out += 1;
        }
        admitted
    }

    /// How many were left out and not told of yet, once their window is over.
    pub(super) fn left_out(&mut self, now: Instant) -> Option<u64> {
        if self.left_out == 0 || !self.is_over(now) {
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.since.is_none_or(|since| now.duration_since(since) >= WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_instead_of_listed() {
        let mut complaints = Complaints::default();
        let start = super::super::clock::now();
        assert_eq!(complaints.left_out(start), None);
        let said = (0..200).filter(|_| complaints.admit(start)).count();
        assert_eq!(said, SAID_MAX as usize);
        assert_eq!(complaints.left_out(start), None);
        assert_eq!(complaints.left_out(start + WINDOW), Some(200 - u64::from(SAID_MAX)));
        assert_eq!(complaints.left_out(start + WINDOW), None);
        assert!(complaints.admit(start + WINDOW));
    }
}
