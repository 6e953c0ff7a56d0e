//! The one place that prints. A reader that goes away (`kiln ls | head`) ends the command in silence.

use serde::Serialize;
use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write as _};

/// Standard output.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()) }
    }

    /// One line of text.
    pub(crate) fn line(&mut self, line: impl Display) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// One JSON object on a line of its own.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }

    /// Rows in aligned columns, under a heading.
    pub(crate) fn table<const N: usize>(&mut self, heading: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
        let mut widths = heading.map(str::len);
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let heading = heading.map(str::to_owned);
        for row in std::iter::once(&heading).chain(rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Shows what was printed so far.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Says something to the user beside the output.
pub(crate) fn note(message: impl Display) {
    // Without standard error there is nobody to tell.
    drop(writeln!(io::stderr(), "kiln: {message}"));
}

/// Text from others, fit for a terminal: control characters are shown, not obeyed. [`unshown`] reads it back.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        // A text that looks escaped already is told from one that is.
        if character.is_control() || is_bidi(character) || escaped(&text[at..]).is_some() {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// The text that is [`shown`] like this.
pub(crate) fn unshown(mut shown: &str) -> String {
    let mut out = String::with_capacity(shown.len());
    while let Some(first) = shown.chars().next() {
        let (character, bytes) = escaped(shown).unwrap_or_else(|| (first, first.len_utf8()));
        out.push(character);
        shown = &shown[bytes..];
    }
    out
}

/// The character that the text begins with in the form `\u{..}`, and how long that form is.
fn escaped(text: &str) -> Option<(char, usize)> {
    let (digits, _) = text.strip_prefix("\\u{")?.split_once('}')?;
    let character = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?;
    Some((character, "\\u{}".len() + digits.len()))
}

/// Characters that make a terminal show others in another order.
const fn is_bidi(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A duration for people, from milliseconds.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..=59 => format!("{}.{} s", seconds, ms % 1000 / 100),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(shown("a\x1b[2Jb\u{202e}ü"), "a\\u{1b}[2Jb\\u{202e}ü");
    }

    #[test]
    fn what_is_shown_reads_back() {
        for text in ["", "s-1", "\u{1b}[31mred\n", "\\u{a}", "C:\\u\\u{", "\\\\u{1b}", "\\u{zz}\u{202e}é"] {
            assert_eq!(unshown(&shown(text)), text);
        }
        assert_eq!((shown("\n").as_str(), shown("\\u{a}").as_str()), ("\\u{a}", "\\u{5c}u{a}"));
    }

    #[test]
    fn durations_are_short() {
        let shown = [999, 1500, 61_000, 3_660_000, 90_000_000].map(duration);
        assert_eq!(shown, ["999 ms", "1.5 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
