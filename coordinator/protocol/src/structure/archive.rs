//! Reads rkyv archives by their structure alone.
//!
//! The bytes come from peers, so nothing in them is believed. Every part must lie in the archive; all parts together
//! may not be longer than it (no two pointers lead to the same bytes in a genuine archive), which bounds the work of
//! hostile ones; and the number of values is bounded, because values may take no bytes. Nesting is bounded by the
//! structure's own depth.

use super::layout::{BTREE_ENTRIES, BTreeNodes, Fields, Layout, NoLayout, POINTER};
use super::owned::{Node, OwnedField, OwnedVariant, Shape};
use super::rendered::Rendered;
use crate::limits::RENDERED_VALUES_MAX;
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

/// Bytes that do not fit their structure.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RenderError {
    /// The structure cannot be what is rendered.
    #[error("no value can be read through this structure: {0}")]
    NoLayout(#[from] NoLayout),
    /// The structure is not one of a field of this kind, or not one of a key.
    #[error("the structure does not belong to {0}")]
    NotA(&'static str),
    /// A part lies outside of the bytes.
    #[error("{size} bytes at byte {at} are outside of the {length} bytes of the value")]
    Outside {
        /// Where the part begins.
        at: i64,
        /// How long it is.
        size: u64,
        /// How long the whole is.
        length: usize,
    },
    /// Parts overlap.
    #[error("the parts of the value overlap at byte {at}")]
    Overlap {
        /// Where a part begins that is one too many.
        at: usize,
    },
    /// More values than a rendered one may have.
    #[error("there are more than {RENDERED_VALUES_MAX} values in one")]
    TooMany,
    /// Bytes that are no value of their type.
    #[error("the bytes at {at} are no {expected}")]
    Invalid {
        /// Where, in a block or archive.
        at: usize,
        /// The type.
        expected: &'static str,
    },
}

/// The most levels of an archived B-tree of 2^32 entries.
const BTREE_HEIGHT_MAX: usize = 13;
const NULL_OFFSET: i32 = 1;
const NANOS_PER_SEC: u32 = 1_000_000_000;
const LEAF: u8 = 0;
const INNER: u8 = 1;

struct Archive<'a> {
    bytes: &'a [u8],
    /// Bytes that no part has claimed yet.
    unclaimed: u64,
    values_left: usize,
}

/// The value whose archive these bytes are. Its root is at the end.
pub(super) fn render(node: &Node, bytes: &[u8]) -> Result<Rendered, RenderError> {
    let size = node.layout?.size;
    let mut archive = Archive { bytes, unclaimed: bytes.len() as u64, values_left: RENDERED_VALUES_MAX };
    let at = usize::try_from(size).ok().and_then(|size| bytes.len().checked_sub(size)).ok_or(RenderError::Outside {
        at: 0,
        size,
        length: bytes.len(),
    })?;
    archive.claim(at, size)?;
    archive.value(node, at)
}

impl<'a> Archive<'a> {
    fn claim(&mut self, at: usize, size: u64) -> Result<(), RenderError> {
        self.unclaimed = self.unclaimed.checked_sub(size).ok_or(RenderError::Overlap { at })?;
        Ok(())
    }

    fn slice(&self, at: usize, size: usize) -> Result<&'a [u8], RenderError> {
        at.checked_add(size).and_then(|end| self.bytes.get(at..end)).ok_or_else(|| self.outside(at, size as u64))
    }

    fn outside(&self, at: usize, size: u64) -> RenderError {
        RenderError::Outside { at: i64::try_from(at).unwrap_or(i64::MAX), size, length: self.bytes.len() }
    }

    fn get<const N: usize>(&self, at: usize) -> Result<[u8; N], RenderError> {
        self.slice(at, N).map(|bytes| bytes.try_into().expect("a slice of this length"))
    }

    /// A part of a value, `offset` behind its begin.
    fn part(&self, at: usize, offset: u64) -> Result<usize, RenderError> {
        usize::try_from(offset).ok().and_then(|offset| at.checked_add(offset)).ok_or_else(|| self.outside(at, offset))
    }

    /// What the relative pointer leads to, and claims `size` bytes there. `base` is what the offset counts from.
    fn target(&mut self, base: usize, offset: i32, size: u64) -> Result<usize, RenderError> {
        let length = self.bytes.len();
        let at = i64::try_from(base).unwrap_or(i64::MAX).saturating_add(i64::from(offset));
        let outside = RenderError::Outside { at, size, length };
        let start = usize::try_from(at).ok().ok_or(outside)?;
        let end = u64::try_from(at).ok().and_then(|at| at.checked_add(size));
        if end.is_none_or(|end| end > length as u64) {
            return Err(outside);
        }
        self.claim(start, size)?;
        Ok(start)
    }

    fn offset(&self, at: usize) -> Result<i32, RenderError> {
        self.get(at).map(i32::from_le_bytes)
    }

    fn length(&self, at: usize) -> Result<u64, RenderError> {
        self.get(at).map(|bytes| u64::from(u32::from_le_bytes(bytes)))
    }

    fn value(&mut self, node: &Node, at: usize) -> Result<Rendered, RenderError> {
        self.values_left = self.values_left.checked_sub(1).ok_or(RenderError::TooMany)?;
        Ok(match &node.shape {
            Shape::Unit => Rendered::Null,
            Shape::U8 => Rendered::Uint(u8::from_le_bytes(self.get(at)?).into()),
            Shape::U16 => Rendered::Uint(u16::from_le_bytes(self.get(at)?).into()),
            Shape::U32 => Rendered::Uint(u32::from_le_bytes(self.get(at)?).into()),
            Shape::U64 => Rendered::Uint(u64::from_le_bytes(self.get(at)?).into()),
            Shape::U128 => Rendered::Uint(u128::from_le_bytes(self.get(at)?)),
            Shape::I8 => Rendered::Int(i8::from_le_bytes(self.get(at)?).into()),
            Shape::I16 => Rendered::Int(i16::from_le_bytes(self.get(at)?).into()),
            Shape::I32 => Rendered::Int(i32::from_le_bytes(self.get(at)?).into()),
            Shape::I64 => Rendered::Int(i64::from_le_bytes(self.get(at)?).into()),
            Shape::I128 => Rendered::Int(i128::from_le_bytes(self.get(at)?)),
            Shape::F32 => float32(f32::from_le_bytes(self.get(at)?)),
            Shape::F64 => Rendered::Float(f64::from_le_bytes(self.get(at)?)),
            Shape::Bool => boolean(u8::from_le_bytes(self.get(at)?).into(), at)?,
            Shape::Char => character(u32::from_le_bytes(self.get(at)?).into(), at)?,
            Shape::Duration => self.duration(at)?,
            Shape::Ipv4Addr => shown(self.ipv4(at)?),
            Shape::Ipv6Addr => shown(self.ipv6(at)?),
            Shape::IpAddr if self.is_v6(at)? => shown(self.ipv6(self.part(at, 1)?)?),
            Shape::IpAddr => shown(self.ipv4(self.part(at, 1)?)?),
            Shape::SocketAddrV4 => shown(self.socket_v4(at)?),
            Shape::SocketAddrV6 => shown(self.socket_v6(at)?),
            Shape::SocketAddr if self.is_v6(at)? => shown(self.socket_v6(self.part(at, 4)?)?),
            Shape::SocketAddr => shown(self.socket_v4(self.part(at, 2)?)?),
            Shape::String => self.string(at)?,
            Shape::Bytes => self.byte_vec(at)?,
            Shape::Option(some) => self.option(some, at)?,
            Shape::Vec(item) if matches!(item.shape, Shape::U8) => self.byte_vec(at)?,
            Shape::Vec(item) => self.vec(item, at)?,
            Shape::Box(inner) => {
                let target = self.target(at, self.offset(at)?, inner.layout?.size)?;
                self.value(inner, target)?
            }
            Shape::Array(item, _) if matches!(item.shape, Shape::U8) => {
                let size = usize::try_from(node.layout?.size).ok().ok_or(NoLayout::TooLarge)?;
                Rendered::Bytes(self.slice(at, size)?.to_vec())
            }
            Shape::Array(item, length) => self.sequence(item, at, *length)?,
            Shape::Tuple(items) => {
                let mut layout = Fields::new();
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    let at = self.part(at, layout.next(item.layout?)?)?;
                    values.push(self.value(item, at)?);
                }
                Rendered::List(values)
            }
            Shape::Struct(fields) => self.fields(fields, Fields::new(), at)?.unwrap_or(Rendered::Null),
            Shape::Enum(variants) => self.variant(variants, at)?,
            Shape::BTreeMap(key, value) => Rendered::Map(self.btree(key, value, at)?),
            Shape::BTreeSet(item) => {
                let unit = Node { shape: Shape::Unit, layout: Ok(Layout::new(0, 1)) };
                let entries = self.btree(item, &unit, at)?;
                Rendered::List(entries.into_iter().map(|(item, _)| item).collect())
            }
            Shape::Map(..) => return Err(NoLayout::Map.into()),
            Shape::Counter => return Err(NoLayout::Counter.into()),
            Shape::Opaque(_) => return Err(NoLayout::Opaque.into()),
        })
    }

    fn duration(&self, at: usize) -> Result<Rendered, RenderError> {
        let seconds = u64::from_le_bytes(self.get(at)?);
        let nanos = u32::from_le_bytes(self.get(self.part(at, 8)?)?);
        if nanos >= NANOS_PER_SEC {
            return Err(RenderError::Invalid { at, expected: "duration" });
        }
        let fraction = format!("{nanos:09}");
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        Ok(Rendered::Text(format!("{seconds}{point}{fraction}s")))
    }

    /// Of an address of either kind, which one it is.
    fn is_v6(&self, at: usize) -> Result<bool, RenderError> {
        match u8::from_le_bytes(self.get(at)?) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RenderError::Invalid { at, expected: "address" }),
        }
    }

    fn ipv4(&self, at: usize) -> Result<Ipv4Addr, RenderError> {
        self.get::<4>(at).map(Ipv4Addr::from)
    }

    fn ipv6(&self, at: usize) -> Result<Ipv6Addr, RenderError> {
        self.get::<16>(at).map(Ipv6Addr::from)
    }

    fn socket_v4(&self, at: usize) -> Result<SocketAddrV4, RenderError> {
        let port = u16::from_le_bytes(self.get(self.part(at, 4)?)?);
        Ok(SocketAddrV4::new(self.ipv4(at)?, port))
    }

    fn socket_v6(&self, at: usize) -> Result<SocketAddrV6, RenderError> {
        let port = u16::from_le_bytes(self.get(self.part(at, 16)?)?);
        let flow = u32::from_le_bytes(self.get(self.part(at, 20)?)?);
        let scope = u32::from_le_bytes(self.get(self.part(at, 24)?)?);
        Ok(SocketAddrV6::new(self.ipv6(at)?, port, flow, scope))
    }

    /// A string of up to eight bytes is in the place of pointer and length, ended by 0xff, which no UTF-8 has; of a
    /// longer one, two bits of the length's first byte say so.
    fn string(&mut self, at: usize) -> Result<Rendered, RenderError> {
        const INLINE_BYTES: usize = 8;
        let inline: [u8; INLINE_BYTES] = self.get(at)?;
        if inline[0] & 0xc0 != 0x80 {
            let length = inline.iter().position(|byte| *byte == 0xff).unwrap_or(INLINE_BYTES);
            return text(&inline[..length], at);
        }
        let word = u32::from_le_bytes(self.get(at)?);
        let length = (word & 0x3f) | ((word & !0xff) >> 2);
        let offset = self.offset(self.part(at, 4)?)?;
        let target = self.target(at, offset, length.into())?;
        let size = usize::try_from(length).ok().ok_or(NoLayout::TooLarge)?;
        text(self.slice(target, size)?, target)
    }

    /// Where a vector's items are, and how many.
    fn items(&mut self, at: usize, item: Layout) -> Result<(usize, u64), RenderError> {
        let length = self.length(self.part(at, POINTER.size)?)?;
        // An empty vector points somewhere.
        if length == 0 {
            return Ok((at, 0));
        }
        let size = item.size.checked_mul(length).ok_or(NoLayout::TooLarge)?;
        let target = self.target(at, self.offset(at)?, size)?;
        Ok((target, length))
    }

    fn byte_vec(&mut self, at: usize) -> Result<Rendered, RenderError> {
        let (start, length) = self.items(at, Layout::new(1, 1))?;
        let length = usize::try_from(length).ok().ok_or(NoLayout::TooLarge)?;
        Ok(Rendered::Bytes(self.slice(start, length)?.to_vec()))
    }

    fn vec(&mut self, item: &Node, at: usize) -> Result<Rendered, RenderError> {
        let (start, length) = self.items(at, item.layout?)?;
        self.sequence(item, start, length)
    }

    fn sequence(&mut self, item: &Node, start: usize, length: u64) -> Result<Rendered, RenderError> {
        let stride = item.layout?.size;
        let mut values = Vec::new();
        let mut offset = 0_u64;
        for _ in 0..length {
            values.push(self.value(item, self.part(start, offset)?)?);
            offset = offset.saturating_add(stride);
        }
        Ok(Rendered::List(values))
    }

    fn option(&mut self, some: &Node, at: usize) -> Result<Rendered, RenderError> {
        match u8::from_le_bytes(self.get(at)?) {
            0 => Ok(Rendered::Null),
            1 => {
                let offset = Fields::after_tag().next(some.layout?)?;
                Ok(self.value(some, self.part(at, offset)?)?.into_some())
            }
            _ => Err(RenderError::Invalid { at, expected: "option" }),
        }
    }

    fn variant(&mut self, variants: &[OwnedVariant], at: usize) -> Result<Rendered, RenderError> {
        let tag = u8::from_le_bytes(self.get(at)?);
        let variant =
            variants.get(usize::from(tag)).ok_or(RenderError::Invalid { at, expected: "variant of the enum" })?;
        let held = self.fields(&variant.fields, Fields::after_tag(), at)?;
        Ok(Rendered::Variant(Arc::clone(&variant.name), held.map(Box::new)))
    }

    /// As serde would show them: nothing, the only value, a list, or an object.
    fn fields(
        &mut self,
        fields: &[OwnedField],
        mut layout: Fields,
        at: usize,
    ) -> Result<Option<Rendered>, RenderError> {
        let mut values = Vec::with_capacity(fields.len());
        for field in fields {
            let at = self.part(at, layout.next(field.structure.layout?)?)?;
            values.push((Arc::clone(&field.name), self.value(&field.structure, at)?));
        }
        // Field names of Rust never begin with a digit: these are a tuple's.
        Ok(match fields {
            [] => None,
            [first, ..] if &*first.name != "0" => Some(Rendered::Object(values)),
            [_] => values.pop().map(|(_, only)| only),
            _ => Some(Rendered::List(values.into_iter().map(|(_, value)| value).collect())),
        })
    }

    fn btree(&mut self, key: &Node, value: &Node, at: usize) -> Result<Vec<(Rendered, Rendered)>, RenderError> {
        let length = self.length(self.part(at, POINTER.size)?)?;
        let mut tree = BTree { key, value, nodes: BTreeNodes::of(key.layout?, value.layout?)?, entries: Vec::new() };
        if length > 0 {
            self.btree_node(&mut tree, at, 1)?;
        }
        if tree.entries.len() as u64 != length {
            return Err(RenderError::Invalid { at, expected: "tree of its length" });
        }
        Ok(tree.entries)
    }

    /// The node that the pointer at `at` leads to, and those below it, in order.
    fn btree_node(&mut self, tree: &mut BTree<'_>, at: usize, height: usize) -> Result<(), RenderError> {
        let offset = self.offset(at)?;
        let invalid = RenderError::Invalid { at, expected: "tree node" };
        if height > BTREE_HEIGHT_MAX {
            return Err(invalid);
        }
        // The kind says how long the node is; the claim checks that all of it is there.
        let start = self.target(at, offset, 0)?;
        match u8::from_le_bytes(self.get(start)?) {
            LEAF => {
                self.target(at, offset, tree.nodes.leaf.size)?;
                let length = self.length(self.part(start, tree.nodes.leaf_length)?)?;
                if length > BTREE_ENTRIES {
                    return Err(invalid);
                }
                (0..length).try_for_each(|index| self.btree_entry(tree, start, index))
            }
            INNER => {
                self.target(at, offset, tree.nodes.inner.size)?;
                for index in 0..BTREE_ENTRIES {
                    let lesser = self.part(start, tree.nodes.inner_lesser + index * POINTER.size)?;
                    self.btree_child(tree, lesser, height)?;
                    self.btree_entry(tree, start, index)?;
                }
                let greater = self.part(start, tree.nodes.inner_greater)?;
                self.btree_child(tree, greater, height)
            }
            _ => Err(invalid),
        }
    }

    fn btree_child(&mut self, tree: &mut BTree<'_>, at: usize, height: usize) -> Result<(), RenderError> {
        if self.offset(at)? == NULL_OFFSET {
            return Ok(());
        }
        self.btree_node(tree, at, height + 1)
    }

    fn btree_entry(&mut self, tree: &mut BTree<'_>, start: usize, index: u64) -> Result<(), RenderError> {
        let key = self.part(start, tree.nodes.keys + index * tree.key.layout?.size)?;
        let value = self.part(start, tree.nodes.values + index * tree.value.layout?.size)?;
        let entry = (self.value(tree.key, key)?, self.value(tree.value, value)?);
        tree.entries.push(entry);
        Ok(())
    }
}

/// A B-tree that is being read.
struct BTree<'a> {
    key: &'a Node,
    value: &'a Node,
    nodes: BTreeNodes,
    entries: Vec<(Rendered, Rendered)>,
}

/// An address, as its type writes it.
fn shown(address: impl Display) -> Rendered {
    Rendered::Text(address.to_string())
}

/// The decimal value that an `f32` shows, not the binary one with its tail of digits.
pub(super) fn float32(value: f32) -> Rendered {
    Rendered::Float(value.to_string().parse().unwrap_or_else(|_| f64::from(value)))
}

pub(super) const fn boolean(value: u64, at: usize) -> Result<Rendered, RenderError> {
    match value {
        0 => Ok(Rendered::Bool(false)),
        1 => Ok(Rendered::Bool(true)),
        _ => Err(RenderError::Invalid { at, expected: "bool" }),
    }
}

pub(super) fn character(value: u64, at: usize) -> Result<Rendered, RenderError> {
    u32::try_from(value)
        .ok()
        .and_then(char::from_u32)
        .map(|value| Rendered::Text(value.into()))
        .ok_or(RenderError::Invalid { at, expected: "char" })
}

pub(super) fn text(bytes: &[u8], at: usize) -> Result<Rendered, RenderError> {
    std::str::from_utf8(bytes)
        .map(|text| Rendered::Text(text.into()))
        .map_err(|error| RenderError::Invalid { at: at.saturating_add(error.valid_up_to()), expected: "UTF-8" })
}
