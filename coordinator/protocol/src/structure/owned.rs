//! Structures read back from their text.
//!
//! The parser takes the canonical spelling only, so that equal texts stay the same thing as equal structures.

use super::layout::{self, Layout, NoLayout};
use super::quote;
use crate::limits::{STRUCTURE_BYTES_MAX, STRUCTURE_DEPTH_MAX};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A structure that was read from its text.
#[derive(Clone, Debug)]
pub struct OwnedStructure {
    text: Box<str>,
    root: Node,
}

/// A text that is not the canonical text of a structure.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StructureError {
    /// The text is too long.
    #[error("a structure of {bytes} bytes is longer than the limit of {STRUCTURE_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The structure nests too deep.
    #[error("a structure nests deeper than {STRUCTURE_DEPTH_MAX} at byte {at}")]
    TooDeep {
        /// Where.
        at: usize,
    },
    /// Something else was expected.
    #[error("a structure needs {what} at byte {at}")]
    Expected {
        /// Where.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) shape: Shape,
    /// In archives.
    pub(super) layout: Result<Layout, NoLayout>,
}

/// See [`super::Structure`]. The names of structs and enums are in the text only.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Unit,
    Bool,
    U8,
    U16,
    U32,
    U64,
    U128,
    I8,
    I16,
    I32,
    I64,
    I128,
    F32,
    F64,
    Char,
    String,
    Bytes,
    Duration,
    IpAddr,
    Ipv4Addr,
    Ipv6Addr,
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    Option(Box<Node>),
    Vec(Box<Node>),
    Box(Box<Node>),
    Array(Box<Node>, u64),
    Tuple(Vec<Node>),
    Struct(Vec<OwnedField>),
    Enum(Vec<OwnedVariant>),
    BTreeMap(Box<Node>, Box<Node>),
    BTreeSet(Box<Node>),
    Map(Box<Node>, Box<Node>),
    Counter,
    Opaque(Arc<str>),
}

#[derive(Clone, Debug)]
pub(super) struct OwnedField {
    pub(super) name: Arc<str>,
    pub(super) structure: Node,
}

#[derive(Clone, Debug)]
pub(super) struct OwnedVariant {
    pub(super) name: Arc<str>,
    pub(super) fields: Vec<OwnedField>,
}

impl OwnedStructure {
    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) const fn root(&self) -> &Node {
        &self.root
    }
}

impl PartialEq for OwnedStructure {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for OwnedStructure {}

impl fmt::Display for OwnedStructure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for OwnedStructure {
    type Err = StructureError;

    fn from_str(text: &str) -> Result<Self, StructureError> {
        if text.len() > STRUCTURE_BYTES_MAX {
            return Err(StructureError::TooLong { bytes: text.len() });
        }
        let mut parser = Parser { text, at: 0 };
        let root = parser.structure(1)?;
        if parser.at < text.len() {
            return Err(parser.expected("its end"));
        }
        Ok(Self { text: text.into(), root })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    const fn expected(&self, what: &'static str) -> StructureError {
        StructureError::Expected { at: self.at, what }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn try_take(&mut self, what: &str) -> bool {
        let taken = self.rest().starts_with(what);
        if taken {
            self.at += what.len();
        }
        taken
    }

    fn take(&mut self, what: &'static str) -> Result<(), StructureError> {
        if self.try_take(what) { Ok(()) } else { Err(self.expected(what)) }
    }

    /// The longest run of bytes that need no quotes.
    fn bare(&mut self) -> &'a str {
        let rest = self.rest();
        let length = rest.bytes().position(|byte| !quote::is_bare(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn structure(&mut self, depth: usize) -> Result<Node, StructureError> {
        if depth > STRUCTURE_DEPTH_MAX {
            return Err(StructureError::TooDeep { at: self.at });
        }
        let shape = if self.try_take("(") {
            self.tuple(depth)?
        } else if self.try_take("[") {
            let item = self.boxed(depth)?;
            self.take("; ")?;
            let length = self.length()?;
            self.take("]")?;
            Shape::Array(item, length)
        } else {
            self.word(depth)?
        };
        let layout = layout::of(&shape);
        Ok(Node { shape, layout })
    }

    fn boxed(&mut self, depth: usize) -> Result<Box<Node>, StructureError> {
        self.structure(depth + 1).map(Box::new)
    }

    fn word(&mut self, depth: usize) -> Result<Shape, StructureError> {
        let start = self.at;
        Ok(match self.bare() {
            "unit" => Shape::Unit,
            "bool" => Shape::Bool,
            "u8" => Shape::U8,
            "u16" => Shape::U16,
            "u32" => Shape::U32,
            "u64" => Shape::U64,
            "u128" => Shape::U128,
            "i8" => Shape::I8,
            "i16" => Shape::I16,
            "i32" => Shape::I32,
            "i64" => Shape::I64,
            "i128" => Shape::I128,
            "f32" => Shape::F32,
            "f64" => Shape::F64,
            "char" => Shape::Char,
            "string" => Shape::String,
            "bytes" => Shape::Bytes,
            "duration" => Shape::Duration,
            "ipaddr" => Shape::IpAddr,
            "ipv4addr" => Shape::Ipv4Addr,
            "ipv6addr" => Shape::Ipv6Addr,
            "socketaddr" => Shape::SocketAddr,
            "socketaddrv4" => Shape::SocketAddrV4,
            "socketaddrv6" => Shape::SocketAddrV6,
            "counter" => Shape::Counter,
            "option" => Shape::Option(self.angled(depth)?),
            "vec" => Shape::Vec(self.angled(depth)?),
            "box" => Shape::Box(self.angled(depth)?),
            "btreeset" => Shape::BTreeSet(self.angled(depth)?),
            "btreemap" => self.angled_pair(depth).map(|(key, value)| Shape::BTreeMap(key, value))?,
            "map" => self.angled_pair(depth).map(|(key, value)| Shape::Map(key, value))?,
            "struct" => self.named_struct(depth)?,
            "enum" => self.named_enum(depth)?,
            "opaque" => {
                self.take(" ")?;
                Shape::Opaque(self.quoted()?)
            }
            _ => {
                self.at = start;
                return Err(self.expected("a type such as `u64`, `vec<..>` or `struct Name { .. }`"));
            }
        })
    }

    fn angled(&mut self, depth: usize) -> Result<Box<Node>, StructureError> {
        self.take("<")?;
        let inner = self.boxed(depth)?;
        self.take(">")?;
        Ok(inner)
    }

    fn angled_pair(&mut self, depth: usize) -> Result<(Box<Node>, Box<Node>), StructureError> {
        self.take("<")?;
        let key = self.boxed(depth)?;
        self.take(", ")?;
        let value = self.boxed(depth)?;
        self.take(">")?;
        Ok((key, value))
    }

    fn length(&mut self) -> Result<u64, StructureError> {
        let start = self.at;
        let digits = self.bare();
        // A number has one spelling: no sign (`bare` has none), no leading zeros.
        let canonical = digits == "0" || !digits.starts_with('0');
        digits
            .parse()
            .ok()
            .filter(|_| canonical)
            .ok_or(StructureError::Expected { at: start, what: "the length of an array" })
    }

    fn tuple(&mut self, depth: usize) -> Result<Shape, StructureError> {
        let mut items = Vec::new();
        if self.try_take(")") {
            return Ok(Shape::Tuple(items));
        }
        items.push(self.structure(depth + 1)?);
        if self.try_take(",)") {
            return Ok(Shape::Tuple(items));
        }
        while self.try_take(", ") {
            items.push(self.structure(depth + 1)?);
        }
        if items.len() == 1 {
            return Err(self.expected(",)"));
        }
        self.take(")")?;
        Ok(Shape::Tuple(items))
    }

    fn named_struct(&mut self, depth: usize) -> Result<Shape, StructureError> {
        self.take(" ")?;
        self.name()?;
        self.take(" {")?;
        let fields = if self.try_take("}") { Vec::new() } else { self.fields(depth)? };
        Ok(Shape::Struct(fields))
    }

    fn named_enum(&mut self, depth: usize) -> Result<Shape, StructureError> {
        self.take(" ")?;
        self.name()?;
        self.take(" {")?;
        let mut variants = Vec::new();
        if self.try_take("}") {
            return Ok(Shape::Enum(variants));
        }
        self.take(" ")?;
        loop {
            let name = self.name()?;
            let fields = if self.try_take(" {") { self.fields(depth)? } else { Vec::new() };
            variants.push(OwnedVariant { name, fields });
            if !self.try_take(", ") {
                break;
            }
        }
        self.take(" }")?;
        Ok(Shape::Enum(variants))
    }

    /// One field or more, behind the opening brace.
    fn fields(&mut self, depth: usize) -> Result<Vec<OwnedField>, StructureError> {
        self.take(" ")?;
        let mut fields = Vec::new();
        loop {
            let name = self.name()?;
            self.take(": ")?;
            let structure = self.structure(depth + 1)?;
            fields.push(OwnedField { name, structure });
            if !self.try_take(", ") {
                break;
            }
        }
        self.take(" }")?;
        Ok(fields)
    }

    fn name(&mut self) -> Result<Arc<str>, StructureError> {
        if !self.rest().starts_with('"') {
            return match self.bare() {
                "" => Err(self.expected("a name")),
                name => Ok(name.into()),
            };
        }
        let start = self.at;
        let name = self.quoted()?;
        if quote::is_name_bare(&name) {
            self.at = start;
            return Err(self.expected("a name without quotes"));
        }
        Ok(name)
    }

    fn quoted(&mut self) -> Result<Arc<str>, StructureError> {
        let start = self.at;
        let expected = StructureError::Expected { at: start, what: "a string in double quotes" };
        let (text, length) = quote::unquote(self.rest()).ok_or(expected)?;
        self.at += length;
        Ok(text.into())
    }
}
