//! What happened, for people: all of it as it happens, the last of it, or nothing.

use crate::clock::Nanos;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write as _;

/// Lines that are kept of a run that fails.
const TAIL_LINES: usize = 150;
/// Of one line. Records can be long.
const LINE_BYTES_MAX: usize = 400;

/// See the module.
#[derive(Debug)]
pub(crate) enum Trace {
    Nothing,
    Tail(std::rc::Rc<RefCell<VecDeque<String>>>),
    Everything,
}

impl Trace {
    pub(crate) fn note(&self, now: Nanos, what: impl FnOnce() -> String) {
        match self {
            Self::Nothing => {}
            Self::Tail(lines) => {
                let mut lines = lines.borrow_mut();
                if lines.len() == TAIL_LINES {
                    lines.pop_front();
                }
                lines.push_back(line(now, &what()));
            }
            // Nobody to tell when the standard error is closed.
            Self::Everything => drop(writeln!(std::io::stderr(), "{}", line(now, &what()))),
        }
    }
}

fn line(now: Nanos, what: &str) -> String {
    let what = &what[..what.floor_char_boundary(LINE_BYTES_MAX)];
    format!("{:>12.6} s  {what}", now as f64 / 1e9)
}
