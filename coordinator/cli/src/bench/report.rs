//! Rows as a table for people, or as lines of JSON. The only place of the benchmarks that writes to the terminal.

use super::row::{Budget, Judged, Row, Unit};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write};

const NAME_WIDTH: usize = 22;
const FIGURE_WIDTH: usize = 12;

/// Where rows go.
pub(super) struct Report {
    json: bool,
    progress: bool,
    head_written: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    unit: &'a str,
    value: f64,
    p50: Option<f64>,
    p99: Option<f64>,
    floor: Option<f64>,
    budget: Option<f64>,
    within: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, progress: io::stderr().is_terminal(), head_written: false }
    }

    /// Something about the whole run.
    pub(super) fn remark(&self, text: &str) {
        // Nobody is left to tell when stderr is gone.
        drop(writeln!(io::stderr().lock(), "kiln bench: {text}"));
    }

    /// What is going on, on a terminal only.
    pub(super) fn progress(&self, text: &str) {
        if self.progress {
            drop(write!(io::stderr().lock(), "\r\x1b[K{text} "));
        }
    }

    fn clear_progress(&self) {
        if self.progress {
            drop(write!(io::stderr().lock(), "\r\x1b[K"));
        }
    }

    /// Writes a row.
    ///
    /// # Errors
    /// When stdout is gone.
    pub(super) fn row(&mut self, row: &Row, judged: &Judged) -> io::Result<()> {
        self.clear_progress();
        let mut stdout = io::stdout().lock();
        if self.json {
            write_json(&mut stdout, row, judged)
        } else {
            if !self.head_written {
                self.head_written = true;
                write_head(&mut stdout)?;
            }
            write_line(&mut stdout, row, judged)
        }?;
        stdout.flush()
    }
}

fn write_json(out: &mut impl Write, row: &Row, judged: &Judged) -> io::Result<()> {
    let figures = &judged.figures;
    let remarks: Vec<&str> = figures.remarks().collect();
    let note = (!remarks.is_empty()).then(|| remarks.join("; "));
    let line = Line {
        name: row.name,
        unit: row.unit.text(),
        value: four_digits(figures.value),
        p50: figures.p50.map(four_digits),
        p99: figures.p99.map(four_digits),
        floor: judged.floor.map(four_digits),
        budget: judged.budget.map(four_digits),
        within: judged.within,
        note,
    };
    serde_json::to_writer(&mut *out, &line)?;
    writeln!(out)
}

fn write_head(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:NAME_WIDTH$} {:>w$} {:>w$} {:>w$} {:>w$} {:>w$}  {:6}  what",
        "row",
        "value",
        "p50",
        "p99",
        "floor",
        "budget",
        "within",
        w = FIGURE_WIDTH
    )
}

fn write_line(out: &mut impl Write, row: &Row, judged: &Judged) -> io::Result<()> {
    let figures = &judged.figures;
    let operation = match row.unit {
        Unit::Nanos | Unit::Micros => row.unit,
        Unit::PerSecond | Unit::Bytes | Unit::PercentOfCore => Unit::Micros,
    };
    let floor_unit = if matches!(row.budget, Budget::PerFloor(_)) { Unit::Micros } else { row.unit };
    let optional = |value: Option<f64>, unit| value.map_or_else(|| "-".into(), |value| figure(value, unit));
    let budget = match (row.budget, judged.budget) {
        (Budget::AtLeast(_) | Budget::PerFloor(_), Some(least)) => format!(">{}", figure(least, row.unit)),
        (_, Some(most)) => format!("<{}", figure(most, row.unit)),
        (_, None) => "-".into(),
    };
    let within = match judged.within {
        None => "-",
        Some(true) => "yes",
        Some(false) => "MISSED",
    };
    write!(
        out,
        "{:NAME_WIDTH$} {:>w$} {:>w$} {:>w$} {:>w$} {:>w$}  {within:6}  {}",
        row.name,
        figure(figures.value, row.unit),
        optional(figures.p50, operation),
        optional(figures.p99, operation),
        optional(judged.floor, floor_unit),
        budget,
        row.what,
        w = FIGURE_WIDTH
    )?;
    for remark in figures.remarks() {
        write!(out, "; {remark}")?;
    }
    writeln!(out)
}

/// A figure and its unit, in a width that fits the table.
fn figure(value: f64, unit: Unit) -> String {
    let (value, text) = match unit {
        Unit::PerSecond if value >= 1e6 => (value / 1e6, "M/s"),
        Unit::PerSecond if value >= 1e4 => (value / 1e3, "k/s"),
        Unit::Nanos if value >= 1e4 => (value / 1e3, "us"),
        Unit::Micros if value >= 1e4 => (value / 1e3, "ms"),
        Unit::Bytes => (value, "B"),
        Unit::PercentOfCore => (value, "%"),
        Unit::PerSecond | Unit::Nanos | Unit::Micros => (value, unit.text()),
    };
    let digits = match value {
        _ if value >= 1000.0 => 0,
        _ if value >= 100.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {text}")
}

/// What a measurement tells, and no more.
fn four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_readable_units() {
        assert_eq!(figure(4.25, Unit::Nanos), "4.25 ns");
        assert_eq!(figure(61_000.0, Unit::Nanos), "61.00 us");
        assert_eq!(figure(412_345.0, Unit::PerSecond), "412.3 k/s");
        assert_eq!(figure(2_000_000.0, Unit::PerSecond), "2.00 M/s");
        assert_eq!(figure(1163.0, Unit::Bytes), "1163 B");
    }

    #[test]
    fn json_has_the_promised_keys() {
        let row = &crate::bench::floors::ROWS[0];
        let judged = Judged::new(Budget::AtMost(2.0), super::super::row::Figures::of(1.234_56), None);
        let mut out = Vec::new();
        write_json(&mut out, row, &judged).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"name\":\"quic_echo\",\"unit\":\"us\",\"value\":1.235,\"p50\":null,\"p99\":null,\"floor\":null,\
             \"budget\":2.0,\"within\":true}\n"
        );
    }
}
