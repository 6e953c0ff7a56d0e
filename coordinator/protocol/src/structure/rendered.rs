//! Values as people and JSON see them.

use super::quote::is_name_bare;
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// A value, decoded through its structure.
///
/// `Display` is for people: escaped, so that a value never reaches a terminal as control characters. `Serialize` is for
/// JSON: as serde would write the Rust type (enums externally tagged), but bytes are hexadecimal, a map is an object when
/// each of its keys has a text, else a list of pairs, numbers that JSON lacks (NaN, infinities, integers beyond 64 bits)
/// are strings, and a `Some` that would read as `null` is `{"Some":null}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Rendered {
    /// `None`, `()`, a struct without fields.
    Null,
    /// A `bool`.
    Bool(bool),
    /// A signed integer.
    Int(i128),
    /// An unsigned integer.
    Uint(u128),
    /// A float. Those that were `f32` have the decimal value that an `f32` shows.
    Float(f64),
    /// A string, a `char`, a duration in seconds, or an address.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A vector, array, set, tuple or tuple struct.
    List(Vec<Self>),
    /// A map.
    Map(Vec<(Self, Self)>),
    /// A struct.
    Object(Vec<(Arc<str>, Self)>),
    /// An enum's variant, and what it holds.
    Variant(Arc<str>, Option<Box<Self>>),
    /// A foreign archive.
    Opaque {
        /// What its program calls its layout.
        tag: Arc<str>,
        /// How long it is.
        bytes: usize,
    },
}

impl fmt::Display for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("none"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Bytes(bytes) => write!(f, "0x{}", Hex(bytes)),
            Self::List(items) => {
                f.write_char('[')?;
                separated(f, items, |f, item| write!(f, "{item}"))?;
                f.write_char(']')
            }
            Self::Map(entries) => {
                f.write_char('{')?;
                separated(f, entries, |f, (key, value)| write!(f, "{key}: {value}"))?;
                f.write_char('}')
            }
            Self::Object(fields) => object(f, fields),
            Self::Variant(name, None) => write!(f, "{}", Shown(name)),
            Self::Variant(name, Some(value)) => variant(f, name, value),
            Self::Opaque { tag, bytes } => write!(f, "opaque {tag:?}, {bytes} bytes"),
        }
    }
}

impl Rendered {
    /// `Some` of this: this itself, unless that would be taken for `None`, or for another that was taken for it.
    pub(super) fn into_some(self) -> Self {
        const SOME: &str = "Some";
        let is_ambiguous = matches!(&self, Self::Null) || matches!(&self, Self::Variant(name, _) if &**name == SOME);
        if is_ambiguous { Self::Variant(SOME.into(), Some(Box::new(self))) } else { self }
    }

    /// What stands for this value as the key of a JSON object; `None` when nothing does.
    fn key_text(&self) -> Option<String> {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Uint(_) => Some(self.to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Bytes(bytes) => Some(Hex(bytes).to_string()),
            Self::Variant(name, None) => Some(name.to_string()),
            Self::Null
            | Self::Float(_)
            | Self::List(_)
            | Self::Map(_)
            | Self::Object(_)
            | Self::Variant(..)
            | Self::Opaque { .. } => None,
        }
    }
}

impl Serialize for Rendered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => match i64::try_from(*value) {
                Ok(value) => serializer.serialize_i64(value),
                Err(_) => match u64::try_from(*value) {
                    Ok(value) => serializer.serialize_u64(value),
                    Err(_) => serializer.collect_str(value),
                },
            },
            Self::Uint(value) => match u64::try_from(*value) {
                Ok(value) => serializer.serialize_u64(value),
                Err(_) => serializer.collect_str(value),
            },
            Self::Float(value) if value.is_finite() => serializer.serialize_f64(*value),
            Self::Float(value) => serializer.collect_str(value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.collect_str(&Hex(bytes)),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(entries) => serialize_entries(entries, serializer),
            Self::Object(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (&**name, value))),
            Self::Variant(name, None) => serializer.serialize_str(name),
            Self::Variant(name, Some(value)) => serializer.collect_map([(&**name, value)]),
            Self::Opaque { tag, bytes } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("opaque", &**tag)?;
                map.serialize_entry("bytes", bytes)?;
                map.end()
            }
        }
    }
}

fn serialize_entries<S: Serializer>(entries: &[(Rendered, Rendered)], serializer: S) -> Result<S::Ok, S::Error> {
    if let Some(keys) = entries.iter().map(|(key, _)| key.key_text()).collect::<Option<Vec<_>>>() {
        return serializer.collect_map(keys.into_iter().zip(entries.iter().map(|(_, value)| value)));
    }
    let mut list = serializer.serialize_seq(Some(entries.len()))?;
    for pair in entries {
        list.serialize_element(pair)?;
    }
    list.end()
}

/// A name that came from a peer, safe to show.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_name_bare(self.0) { f.write_str(self.0) } else { write!(f, "{:?}", self.0) }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all others stand in parentheses")]
fn variant(f: &mut fmt::Formatter<'_>, name: &str, value: &Rendered) -> fmt::Result {
    write!(f, "{}", Shown(name))?;
    match value {
        Rendered::Object(fields) => {
            f.write_char(' ')?;
            object(f, fields)
        }
        Rendered::List(items) => {
            f.write_char('(')?;
            separated(f, items, |f, item| write!(f, "{item}"))?;
            f.write_char(')')
        }
        only => write!(f, "({only})"),
    }
}

fn object(f: &mut fmt::Formatter<'_>, fields: &[(Arc<str>, Rendered)]) -> fmt::Result {
    f.write_str("{ ")?;
    separated(f, fields, |f, (name, value)| write!(f, "{}: {value}", Shown(name)))?;
    f.write_str(" }")
}

pub(super) fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut show: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        show(f, item)?;
    }
    Ok(())
}
