//! The only place of the benchmarks that asks what time it is.

use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "benchmarks measure")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// How much of the measured time is spent before it, unmeasured.
const WARM_UP_SHARE: f64 = 0.25;
const WARM_UP_MAX: Duration = Duration::from_millis(500);
/// A quarter of an hour; longer laps count as that.
const PICOS_MAX: u64 = 900 * 1_000_000_000_000;
const UNTIMED_MAX: Duration = Duration::from_secs(600);
const PICOS_PER_NANO: f64 = 1_000.0;

/// Repeats one operation for a while and keeps how long it took.
///
/// A clock read is dear beside a short operation: such are measured in batches, with the clock around the batch, and a
/// quantile is one of batches.
pub(super) struct Laps {
    warm_until: Instant,
    until: Instant,
    began: Option<Instant>,
    ended: Instant,
    operations: u64,
    /// Picoseconds of one operation: a batch of a thousand tells parts of a nanosecond.
    histogram: hdrhistogram::Histogram<u64>,
}

/// What [`Laps`] kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) p50: Duration64,
    pub(super) p99: Duration64,
    pub(super) max: Duration64,
    /// Operations in a second of the whole time, what lies between the laps included.
    pub(super) rate: f64,
}

/// Nanoseconds with a fraction.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Duration64(pub(super) f64);

impl Duration64 {
    pub(super) const fn nanos(self) -> f64 {
        self.0
    }

    pub(super) const fn micros(self) -> f64 {
        self.0 / 1e3
    }
}

impl Laps {
    /// For `measured`, after a warm-up.
    pub(super) fn new(measured: Duration) -> Self {
        let now = now();
        let warm_until = now + measured.mul_f64(WARM_UP_SHARE).min(WARM_UP_MAX);
        Self {
            warm_until,
            until: warm_until + measured,
            began: None,
            ended: now,
            operations: 0,
            histogram: hdrhistogram::Histogram::new_with_bounds(1, PICOS_MAX, 3)
                .expect("bounds and digits are allowed"),
        }
    }

    /// Without a warm-up, for as long as there is work.
    pub(super) fn untimed() -> Self {
        let now = now();
        Self { until: now + UNTIMED_MAX, began: Some(now), ..Self::new(Duration::ZERO) }
    }

    /// The begin of another lap, or `None` when the time is over.
    pub(super) fn next(&mut self) -> Option<Instant> {
        let now = now();
        if now >= self.until {
            return None;
        }
        if self.began.is_none() && now >= self.warm_until {
            self.began = Some(now);
        }
        Some(now)
    }

    /// The end of a lap of so many operations.
    pub(super) fn end(&mut self, lap: Instant, operations: u32) {
        let now = now();
        if self.began.is_none() {
            return;
        }
        self.ended = now;
        self.operations += u64::from(operations);
        self.histogram.saturating_record(picos_each(now.saturating_duration_since(lap), operations));
    }

    /// How many have been measured.
    pub(super) const fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn times(&self) -> Times {
        let elapsed = self.began.map_or(Duration::ZERO, |began| self.ended.saturating_duration_since(began));
        let nanos = |picos: u64| Duration64(count(picos) / PICOS_PER_NANO);
        Times {
            p50: nanos(self.histogram.value_at_quantile(0.5)),
            p99: nanos(self.histogram.value_at_quantile(0.99)),
            max: nanos(self.histogram.max()),
            rate: count(self.operations) / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a lap is positive and far below the 213 days that 64 bits of picoseconds hold"
)]
fn picos_each(time: Duration, operations: u32) -> u64 {
    (time.as_secs_f64() * 1e12 / f64::from(operations)) as u64
}

/// A count as a float; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures are shown with four digits")]
pub(super) const fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_are_divided_by_their_operations() {
        let mut laps = Laps::new(Duration::from_millis(5));
        while let Some(lap) = laps.next() {
            while now() < lap + Duration::from_micros(100) {}
            laps.end(lap, 100);
        }
        let times = laps.times();
        assert!(laps.operations() >= 100 && laps.operations().is_multiple_of(100));
        assert!(times.p50.nanos() >= 999.0, "{times:?}");
        assert!(times.p50 <= times.p99 && times.p99 <= times.max);
        assert!(times.rate <= 1.01e6, "{times:?}");
    }
}
