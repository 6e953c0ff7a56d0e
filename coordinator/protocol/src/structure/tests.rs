//! The text, its parser, and values read from real and from broken archives.

mod archives;
mod hostile;
mod slots;
mod text;

use super::OwnedStructure;

fn parse(text: &str) -> OwnedStructure {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
