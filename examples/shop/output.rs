//! What the program says: the only module that prints.
#![expect(clippy::print_stderr, reason = "a program for people to look at")]

use std::fmt::Display;
use std::io::Write as _;

/// Says a line to whoever reads the standard output; nobody may.
pub(crate) fn say(line: impl Display) {
    // A reader that has gone, as `head` does, is no reason to stop.
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Says what went wrong.
pub(crate) fn complain(line: impl Display) {
    eprintln!("shop: {line}");
}
