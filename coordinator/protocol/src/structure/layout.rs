//! Where the parts of an archived value are: sizes and alignments as rkyv 0.8 archives have them with the features
//! `little_endian`, `pointer_width_32` and `aligned`.
//!
//! Archived structs and tuples are `repr(C)`, archived enums and options `repr(u8)`: a union of `repr(C)` structs that
//! begin with the tag. Whatever owns memory is a relative pointer, with a length where it has many values.

use super::owned::{Node, OwnedVariant, Shape};

/// How large an archived value is, and how it is aligned, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Layout {
    pub(super) size: u64,
    pub(super) align: u64,
}

/// Why a structure cannot be inside an archive.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoLayout {
    /// The layout of a foreign type is known to its program only.
    #[error("the layout of an `opaque` value is known to its program only")]
    Opaque,
    /// A counter is a field.
    #[error("a counter cannot be inside an archive")]
    Counter,
    /// A `kiln::Map` is a field.
    #[error("a `map` cannot be inside an archive (a `btreemap` can)")]
    Map,
    /// There is no value of an enum without variants.
    #[error("an enum without variants has no values")]
    NoVariants,
    /// The tag of an enum is one byte.
    #[error("an enum of more than 256 variants cannot be archived")]
    TooManyVariants,
    /// The size does not fit 64 bits.
    #[error("a value of this structure would be too large")]
    TooLarge,
}

/// Entries of one node of an archived B-tree.
pub(super) const BTREE_ENTRIES: u64 = 5;
/// What a relative pointer takes.
pub(super) const POINTER: Layout = Layout::new(4, 4);

impl Layout {
    pub(super) const fn new(size: u64, align: u64) -> Self {
        Self { size, align }
    }

    const fn array(self, length: u64) -> Result<Self, NoLayout> {
        match self.size.checked_mul(length) {
            Some(size) => Ok(Self::new(size, self.align)),
            None => Err(NoLayout::TooLarge),
        }
    }
}

/// Lays the fields of a `repr(C)` struct out, one by one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    end: u64,
    align: u64,
}

impl Fields {
    pub(super) const fn new() -> Self {
        Self { end: 0, align: 1 }
    }

    /// The fields of an enum's variant: the first one is the tag.
    pub(super) const fn after_tag() -> Self {
        Self { end: 1, align: 1 }
    }

    /// Where the next field is.
    pub(super) fn next(&mut self, field: Layout) -> Result<u64, NoLayout> {
        let at = self.end.checked_next_multiple_of(field.align).ok_or(NoLayout::TooLarge)?;
        self.end = at.checked_add(field.size).ok_or(NoLayout::TooLarge)?;
        self.align = self.align.max(field.align);
        Ok(at)
    }

    /// The whole struct.
    pub(super) fn end(self) -> Result<Layout, NoLayout> {
        let size = self.end.checked_next_multiple_of(self.align).ok_or(NoLayout::TooLarge)?;
        Ok(Layout::new(size, self.align))
    }
}

/// The parts of a B-tree's nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct BTreeNodes {
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) leaf_length: u64,
    pub(super) leaf: Layout,
    pub(super) inner_lesser: u64,
    pub(super) inner_greater: u64,
    pub(super) inner: Layout,
}

impl BTreeNodes {
    pub(super) fn of(key: Layout, value: Layout) -> Result<Self, NoLayout> {
        let mut node = Fields::after_tag();
        let keys = node.next(key.array(BTREE_ENTRIES)?)?;
        let values = node.next(value.array(BTREE_ENTRIES)?)?;
        let node = node.end()?;

        let mut leaf = Fields::new();
        leaf.next(node)?;
        let leaf_length = leaf.next(Layout::new(4, 4))?;

        let mut inner = Fields::new();
        inner.next(node)?;
        let inner_lesser = inner.next(POINTER.array(BTREE_ENTRIES)?)?;
        let inner_greater = inner.next(POINTER)?;
        Ok(Self { keys, values, leaf_length, leaf: leaf.end()?, inner_lesser, inner_greater, inner: inner.end()? })
    }
}

/// The layout of a shape whose parts know theirs.
pub(super) fn of(shape: &Shape) -> Result<Layout, NoLayout> {
    Ok(match shape {
        Shape::Unit => Layout::new(0, 1),
        Shape::Bool | Shape::U8 | Shape::I8 => Layout::new(1, 1),
        Shape::U16 | Shape::I16 => Layout::new(2, 2),
        Shape::U32 | Shape::I32 | Shape::F32 | Shape::Char => Layout::new(4, 4),
        Shape::U64 | Shape::I64 | Shape::F64 => Layout::new(8, 8),
        Shape::U128 | Shape::I128 => Layout::new(16, 16),
        // Seconds and nanoseconds.
        Shape::Duration => Layout::new(16, 8),
        Shape::Ipv4Addr => Layout::new(4, 1),
        Shape::Ipv6Addr => Layout::new(16, 1),
        // A tag before the longer one.
        Shape::IpAddr => Layout::new(17, 1),
        // The address, its port, and of IPv6 the flow and the scope.
        Shape::SocketAddrV4 => Layout::new(6, 2),
        Shape::SocketAddrV6 => Layout::new(28, 4),
        Shape::SocketAddr => Layout::new(32, 4),
        // A pointer and a length. Strings of up to eight bytes are in their place.
        Shape::String | Shape::Bytes => Layout::new(8, 4),
        // What they point at must have a layout too, or their bytes could not be read.
        Shape::Vec(item) | Shape::BTreeSet(item) => item.layout.map(|_| Layout::new(8, 4))?,
        Shape::BTreeMap(key, value) => key.layout.and(value.layout).map(|_| Layout::new(8, 4))?,
        Shape::Box(inner) => inner.layout.map(|_| POINTER)?,
        Shape::Option(some) => variant(std::iter::once(some.as_ref()))?,
        Shape::Array(item, length) => item.layout?.array(*length)?,
        Shape::Tuple(items) => sequence(Fields::new(), items.iter())?,
        Shape::Struct(fields) => sequence(Fields::new(), fields.iter().map(|field| &field.structure))?,
        Shape::Enum(variants) => union(variants)?,
        Shape::Map(..) => return Err(NoLayout::Map),
        Shape::Counter => return Err(NoLayout::Counter),
        Shape::Opaque(_) => return Err(NoLayout::Opaque),
    })
}

fn sequence<'a>(mut fields: Fields, nodes: impl Iterator<Item = &'a Node>) -> Result<Layout, NoLayout> {
    for node in nodes {
        fields.next(node.layout?)?;
    }
    fields.end()
}

fn variant<'a>(nodes: impl Iterator<Item = &'a Node>) -> Result<Layout, NoLayout> {
    sequence(Fields::after_tag(), nodes)
}

fn union(variants: &[OwnedVariant]) -> Result<Layout, NoLayout> {
    if variants.is_empty() {
        return Err(NoLayout::NoVariants);
    }
    if variants.len() > 1 << u8::BITS {
        return Err(NoLayout::TooManyVariants);
    }
    let mut whole = Layout::new(1, 1);
    for each in variants {
        let layout = variant(each.fields.iter().map(|field| &field.structure))?;
        whole.size = whole.size.max(layout.size);
        whole.align = whole.align.max(layout.align);
    }
    whole.size = whole.size.checked_next_multiple_of(whole.align).ok_or(NoLayout::TooLarge)?;
    Ok(whole)
}
