//! One row of the report: what is measured, and what it is held against.

use super::Bench;
use super::BenchError;
use super::clock::Times;
use std::future::Future;
use std::pin::Pin;

/// What a row's figure counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unit {
    Nanos,
    Micros,
    PerSecond,
    Bytes,
    PercentOfCore,
}

impl Unit {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Nanos => "ns",
            Self::Micros => "us",
            Self::PerSecond => "/s",
            Self::Bytes => "bytes",
            Self::PercentOfCore => "% of a core",
        }
    }
}

/// What a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Budget {
    None,
    AtMost(f64),
    AtLeast(f64),
    /// At most so many times the row's floor.
    TimesFloor(f64),
    /// At least so many in the time of the row's floor, which is in microseconds.
    PerFloor(f64),
}

/// A benchmark.
pub(super) struct Row {
    /// For `--only` and JSON.
    pub(super) name: &'static str,
    /// For people.
    pub(super) what: &'static str,
    pub(super) unit: Unit,
    pub(super) budget: Budget,
    /// The name of the row that measures the floor, in the same unit.
    pub(super) floor: Option<&'static str>,
    pub(super) run: Run,
}

pub(super) type Run = for<'a> fn(&'a mut Bench) -> Measuring<'a>;
pub(super) type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Figures, BenchError>> + 'a>>;

/// What a row measured, in its unit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) value: f64,
    /// Of one operation: in the row's unit if that is a time, else in microseconds.
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    /// What was wrong with the result, whatever its speed.
    pub(super) broken: Option<String>,
    /// Which other part of the budget was missed.
    pub(super) breach: Option<String>,
    pub(super) note: Option<String>,
}

impl Figures {
    pub(super) const fn of(value: f64) -> Self {
        Self { value, p50: None, p99: None, broken: None, breach: None, note: None }
    }

    /// The median, for operations measured one after the other.
    pub(super) fn nanos(times: Times) -> Self {
        Self { p50: Some(times.p50.nanos()), p99: Some(times.p99.nanos()), ..Self::of(times.p50.nanos()) }
    }

    /// The median, for operations measured one after the other.
    pub(super) fn micros(times: Times) -> Self {
        Self { p50: Some(times.p50.micros()), p99: Some(times.p99.micros()), ..Self::of(times.p50.micros()) }
    }

    pub(super) fn remarks(&self) -> impl Iterator<Item = &str> {
        [&self.broken, &self.breach, &self.note].into_iter().flatten().map(String::as_str)
    }

    pub(super) fn noted(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// A row's figures beside floor and budget.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) figures: Figures,
    pub(super) floor: Option<f64>,
    pub(super) budget: Option<f64>,
    pub(super) within: Option<bool>,
}

impl Judged {
    pub(super) fn new(budget: Budget, figures: Figures, floor: Option<f64>) -> Self {
        let (budget, within) = match budget {
            Budget::None => (None, None),
            Budget::AtMost(most) => (Some(most), Some(figures.value <= most)),
            Budget::AtLeast(least) => (Some(least), Some(figures.value >= least)),
            Budget::TimesFloor(times) => {
                let most = floor.map(|floor| floor * times);
                (most, most.map(|most| figures.value <= most))
            }
            Budget::PerFloor(times) => {
                let least = floor.map(|floor| times * 1e6 / floor);
                (least, least.map(|least| figures.value >= least))
            }
        };
        let within = if figures.broken.is_some() || figures.breach.is_some() { Some(false) } else { within };
        Self { figures, floor, budget, within }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_held_against_their_budget() {
        let within = |budget, value, floor| Judged::new(budget, Figures::of(value), floor).within;
        assert_eq!(within(Budget::None, 5.0, None), None);
        assert_eq!(within(Budget::AtMost(5.0), 5.0, None), Some(true));
        assert_eq!(within(Budget::AtMost(5.0), 5.1, None), Some(false));
        assert_eq!(within(Budget::AtLeast(5.0), 4.9, None), Some(false));
        assert_eq!(within(Budget::TimesFloor(1.5), 6.0, Some(4.0)), Some(true));
        assert_eq!(within(Budget::TimesFloor(1.5), 6.1, Some(4.0)), Some(false));
        assert_eq!(within(Budget::TimesFloor(1.5), 6.1, None), None);
        assert_eq!(within(Budget::PerFloor(2.0), 2e4, Some(100.0)), Some(true));
        assert_eq!(within(Budget::PerFloor(2.0), 1.9e4, Some(100.0)), Some(false));
    }

    #[test]
    fn a_wrong_result_is_never_within() {
        let broken = Figures { broken: Some("12,799 of 12,800".into()), ..Figures::of(1.0) };
        assert_eq!(Judged::new(Budget::AtMost(5.0), broken.clone(), None).within, Some(false));
        assert_eq!(Judged::new(Budget::None, broken, None).within, Some(false));
    }
}
