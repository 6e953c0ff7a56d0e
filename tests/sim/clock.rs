//! Time. There is one true time, which nobody in the simulation can see; every machine has a clock that goes a little
//! faster or slower, and jumps ahead when the machine was suspended.

use std::cell::Cell;
use std::time::Duration;

/// A moment, or a span, of true time in nanoseconds.
pub(crate) type Nanos = u64;

pub(crate) const MICRO: Nanos = 1_000;
pub(crate) const MILLI: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000_000_000;

const MILLION: u128 = 1_000_000;
/// How far a clock's rate is off at most, in millionths. Two such clocks differ by less than the margin of a lease.
pub(crate) const DRIFT_MAX: usize = 40_000;

/// A machine's clock, which goes on while the machine is suspended.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Its seconds in a million true ones.
    rate: u128,
    at: Cell<Nanos>,
    shows: Cell<Nanos>,
}

impl Clock {
    /// A clock that shows `shows` when true time begins, and goes `rate` seconds in a million.
    pub(crate) const fn new(rate: usize, shows: Nanos) -> Self {
        Self { rate: rate as u128, at: Cell::new(0), shows: Cell::new(shows) }
    }

    /// What it shows.
    pub(crate) fn show(&self, now: Nanos) -> Nanos {
        self.shows.get() + scale(now - self.at.get(), self.rate, MILLION)
    }

    /// It is ahead by this much from now on.
    pub(crate) fn jump(&self, now: Nanos, ahead: Nanos) {
        self.shows.set(self.show(now) + ahead);
        self.at.set(now);
    }

    /// How long something really takes that takes so long by this clock.
    pub(crate) fn really(&self, span: Duration) -> Nanos {
        scale(nanos(span), MILLION, self.rate) + 1
    }
}

fn scale(span: Nanos, by: u128, of: u128) -> Nanos {
    Nanos::try_from(u128::from(span) * by / of).unwrap_or(Nanos::MAX / 4)
}

pub(crate) fn nanos(span: Duration) -> Nanos {
    Nanos::try_from(span.as_nanos()).unwrap_or(Nanos::MAX / 4)
}
