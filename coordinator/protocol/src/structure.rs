//! Structural descriptions: what a field is made of, as a constant that a type carries and as a text that travels.
//!
//! The text is canonical: two structures are equal exactly when their texts are, so the schema registry compares
//! texts. It is also all that a coordinator or a tool ever knows about a type.
//!
//! ```text
//! structure = "unit" | "bool" | "u8" .. "u128" | "i8" .. "i128" | "f32" | "f64" | "char" | "string" | "bytes"
//!           | "duration" | "ipaddr" | "ipv4addr" | "ipv6addr" | "socketaddr" | "socketaddrv4" | "socketaddrv6"
//!           | "counter" | "opaque" quoted
//!           | ("option" | "vec" | "box" | "btreeset") "<" structure ">"
//!           | ("btreemap" | "map") "<" structure ", " structure ">"
//!           | "[" structure "; " length "]"
//!           | "()" | "(" structure ",)" | "(" structure { ", " structure } ")"
//!           | "struct " name " {" fields "}" | "enum " name " {" [ " " variant { ", " variant } " " ] "}"
//! variant   = name [ " {" fields "}" ]
//! fields    = [ " " name ": " structure { ", " name ": " structure } " " ]
//! name      = a letter, digit or underscore of ASCII, once or more | quoted
//! quoted    = a string in double quotes; `\"`, `\\`, and control characters of ASCII as `\u{hex}`
//! ```
//!
//! [`OwnedStructure`] reads the text back, and reads slots and keys through it ([`OwnedStructure::render`]).
//!
//! Absent: the Rust types themselves; see `kiln::Value` for those. An enum has no explicit discriminants: `kiln::Value`
//! refuses them, and a variant's tag is its place.

mod archive;
mod depth;
mod layout;
mod owned;
mod quote;
mod render;
mod rendered;

pub use archive::RenderError;
pub use layout::NoLayout;
pub use owned::{OwnedStructure, StructureError};
pub use rendered::Rendered;

use quote::{Name, Quoted};
use rendered::separated;
use std::fmt::{self, Write as _};

/// What a value is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Structure<'a> {
    /// `()`
    Unit,
    /// `bool`
    Bool,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64`
    U64,
    /// `u128`
    U128,
    /// `i8`
    I8,
    /// `i16`
    I16,
    /// `i32`
    I32,
    /// `i64`
    I64,
    /// `i128`
    I128,
    /// `f32`
    F32,
    /// `f64`
    F64,
    /// `char`
    Char,
    /// `String`: as a field raw UTF-8, inside an archive rkyv's.
    String,
    /// `Vec<u8>`: as a field the bytes themselves, inside an archive rkyv's.
    Bytes,
    /// `std::time::Duration`
    Duration,
    /// `std::net::IpAddr`
    IpAddr,
    /// `std::net::Ipv4Addr`
    Ipv4Addr,
    /// `std::net::Ipv6Addr`
    Ipv6Addr,
    /// `std::net::SocketAddr`
    SocketAddr,
    /// `std::net::SocketAddrV4`
    SocketAddrV4,
    /// `std::net::SocketAddrV6`
    SocketAddrV6,
    /// `Option<T>`
    Option(&'a Self),
    /// `Vec<T>`
    Vec(&'a Self),
    /// `Box<T>`
    Box(&'a Self),
    /// `[T; N]`
    Array(&'a Self, usize),
    /// A tuple.
    Tuple(&'a [Self]),
    /// A struct; the fields of a tuple struct are named `0`, `1`, ...
    Struct {
        /// Its name, without path and generics.
        name: &'a str,
        /// Its fields, in order.
        fields: &'a [Field<'a>],
    },
    /// An enum.
    Enum {
        /// Its name, without path and generics.
        name: &'a str,
        /// Its variants, in order.
        variants: &'a [Variant<'a>],
    },
    /// `BTreeMap<K, V>`
    BTreeMap(&'a Self, &'a Self),
    /// `BTreeSet<T>`
    BTreeSet(&'a Self),
    /// A `kiln::Map<K, V>` field.
    Map(&'a Self, &'a Self),
    /// A counter field.
    Counter,
    /// A foreign archive whose layout is known by its tag alone.
    Opaque(&'a str),
}

/// A field of a [`Structure::Struct`] or a [`Variant`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field<'a> {
    /// Its name; `0`, `1`, ... in a tuple struct or tuple variant. Raw identifiers without `r#`.
    pub name: &'a str,
    /// What it is made of.
    pub structure: Structure<'a>,
}

/// A variant of a [`Structure::Enum`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Variant<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its fields, in order.
    pub fields: &'a [Field<'a>],
}

impl fmt::Display for Structure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("unit"),
            Self::Bool => f.write_str("bool"),
            Self::U8 => f.write_str("u8"),
            Self::U16 => f.write_str("u16"),
            Self::U32 => f.write_str("u32"),
            Self::U64 => f.write_str("u64"),
            Self::U128 => f.write_str("u128"),
            Self::I8 => f.write_str("i8"),
            Self::I16 => f.write_str("i16"),
            Self::I32 => f.write_str("i32"),
            Self::I64 => f.write_str("i64"),
            Self::I128 => f.write_str("i128"),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
            Self::Char => f.write_str("char"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("duration"),
            Self::IpAddr => f.write_str("ipaddr"),
            Self::Ipv4Addr => f.write_str("ipv4addr"),
            Self::Ipv6Addr => f.write_str("ipv6addr"),
            Self::SocketAddr => f.write_str("socketaddr"),
            Self::SocketAddrV4 => f.write_str("socketaddrv4"),
            Self::SocketAddrV6 => f.write_str("socketaddrv6"),
            Self::Counter => f.write_str("counter"),
            Self::Option(some) => write!(f, "option<{some}>"),
            Self::Vec(item) => write!(f, "vec<{item}>"),
            Self::Box(inner) => write!(f, "box<{inner}>"),
            Self::Array(item, length) => write!(f, "[{item}; {length}]"),
            Self::Tuple([only]) => write!(f, "({only},)"),
            Self::Tuple(items) => {
                f.write_char('(')?;
                separated(f, items, |f, item| write!(f, "{item}"))?;
                f.write_char(')')
            }
            Self::Struct { name, fields } => {
                write!(f, "struct {} ", Name(name))?;
                braced(f, fields)
            }
            Self::Enum { name, variants: [] } => write!(f, "enum {} {{}}", Name(name)),
            Self::Enum { name, variants } => {
                write!(f, "enum {} {{ ", Name(name))?;
                separated(f, variants, |f, variant| write!(f, "{variant}"))?;
                f.write_str(" }")
            }
            Self::BTreeMap(key, value) => write!(f, "btreemap<{key}, {value}>"),
            Self::BTreeSet(item) => write!(f, "btreeset<{item}>"),
            Self::Map(key, value) => write!(f, "map<{key}, {value}>"),
            Self::Opaque(tag) => write!(f, "opaque {}", Quoted(tag)),
        }
    }
}

impl fmt::Display for Variant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Name(self.name))?;
        if self.fields.is_empty() {
            return Ok(());
        }
        f.write_char(' ')?;
        braced(f, self.fields)
    }
}

fn braced(f: &mut fmt::Formatter<'_>, fields: &[Field<'_>]) -> fmt::Result {
    if fields.is_empty() {
        return f.write_str("{}");
    }
    f.write_str("{ ")?;
    separated(f, fields, |f, field| write!(f, "{}: {}", Name(field.name), field.structure))?;
    f.write_str(" }")
}

#[cfg(test)]
mod tests;
