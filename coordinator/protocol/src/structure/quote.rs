//! Names and tags inside the text of a structure: bare where they are plain, else in double quotes.

use std::fmt::{self, Write as _};

/// Whether a name of such bytes needs no quotes.
pub(super) const fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether a name needs no quotes.
pub(super) fn is_name_bare(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_bare)
}

/// A name, in quotes where it needs them.
pub(super) struct Name<'a>(pub(super) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_name_bare(self.0) { f.write_str(self.0) } else { write!(f, "{}", Quoted(self.0)) }
    }
}

/// A text in quotes.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    // Not `escape_debug`: what that escapes depends on the version of Unicode, and so of the compiler.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                _ if character.is_ascii_control() => write!(f, "\\u{{{:x}}}", u32::from(character))?,
                _ => f.write_char(character)?,
            }
        }
        f.write_char('"')
    }
}

/// The text in the quotes that the input begins with, and how long it is with its quotes. `None` when there is none,
/// or when it is not spelled as [`Quoted`] spells it.
pub(super) fn unquote(input: &str) -> Option<(String, usize)> {
    let mut rest = input.strip_prefix('"')?;
    let mut text = String::new();
    loop {
        let mut characters = rest.chars();
        match characters.next()? {
            '"' => break,
            '\\' => {
                rest = characters.as_str();
                if let Some(hex) = rest.strip_prefix("u{") {
                    let (digits, behind) = hex.split_once('}')?;
                    text.push(u32::from_str_radix(digits, 16).ok().and_then(char::from_u32)?);
                    rest = behind;
                } else {
                    text.push(characters.next()?);
                    rest = characters.as_str();
                }
            }
            character => {
                text.push(character);
                rest = characters.as_str();
            }
        }
    }
    let length = input.len() - rest.len() + 1;
    (Quoted(&text).to_string() == input[..length]).then_some((text, length))
}
