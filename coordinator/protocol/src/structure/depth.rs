//! How deep the archives of a structure can nest, as the check of an archive counts: a level for each pointer that is
//! followed.

use super::{Field, Structure, Variant};
use crate::limits::RECORD_BYTES_MAX;

/// Nodes on the longest way down a B-tree of as many entries as a record has bytes: each has five entries and six
/// children, and all but the lowest are full.
const BTREE_LEVELS_MAX: usize = {
    let (mut levels, mut children) = (0, 1);
    while children - 1 < RECORD_BYTES_MAX {
        levels += 1;
        children *= 6;
    }
    levels
};

impl Structure<'_> {
    /// How many levels an archive of this structure has at most: one for the value itself, and those of what it points
    /// to. `usize::MAX` for foreign archives, about which nothing is known.
    #[must_use]
    pub const fn archive_depth_max(&self) -> usize {
        self.below().saturating_add(1)
    }

    const fn below(&self) -> usize {
        match self {
            Self::Unit
            | Self::Bool
            | Self::U8
            | Self::U16
            | Self::U32
            | Self::U64
            | Self::U128
            | Self::I8
            | Self::I16
            | Self::I32
            | Self::I64
            | Self::I128
            | Self::F32
            | Self::F64
            | Self::Char
            | Self::Duration
            | Self::IpAddr
            | Self::Ipv4Addr
            | Self::Ipv6Addr
            | Self::SocketAddr
            | Self::SocketAddrV4
            | Self::SocketAddrV6
            | Self::Counter => 0,
            Self::String | Self::Bytes => 1,
            Self::Option(inner) | Self::Array(inner, _) => inner.below(),
            Self::Vec(inner) | Self::Box(inner) => inner.below().saturating_add(1),
            Self::Tuple(items) => deepest_item(items),
            Self::Struct { fields, .. } => deepest_field(fields),
            Self::Enum { variants, .. } => deepest_variant(variants),
            Self::BTreeMap(key, value) => deeper(key.below(), value.below()).saturating_add(BTREE_LEVELS_MAX),
            Self::BTreeSet(item) => item.below().saturating_add(BTREE_LEVELS_MAX),
            // Each entry is an archive of its own.
            Self::Map(key, value) => deeper(key.below(), value.below()),
            Self::Opaque(_) => usize::MAX,
        }
    }
}

const fn deeper(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

const fn deepest_item(items: &[Structure<'_>]) -> usize {
    match items {
        [] => 0,
        [first, rest @ ..] => deeper(first.below(), deepest_item(rest)),
    }
}

const fn deepest_field(fields: &[Field<'_>]) -> usize {
    match fields {
        [] => 0,
        [first, rest @ ..] => deeper(first.structure.below(), deepest_field(rest)),
    }
}

const fn deepest_variant(variants: &[Variant<'_>]) -> usize {
    match variants {
        [] => 0,
        [first, rest @ ..] => deeper(deepest_field(first.fields), deepest_variant(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pointer_is_a_level() {
        let boxed = Structure::Box(&Structure::Option(&Structure::Vec(&Structure::U8)));
        let fields = [
            Field { name: "a", structure: Structure::U64 },
            Field { name: "b", structure: boxed },
            Field { name: "c", structure: Structure::String },
        ];
        assert_eq!(Structure::U64.archive_depth_max(), 1);
        assert_eq!(boxed.archive_depth_max(), 3);
        assert_eq!(Structure::Struct { name: "S", fields: &fields }.archive_depth_max(), 3);
        let variants = [Variant { name: "A", fields: &[] }, Variant { name: "B", fields: &fields }];
        assert_eq!(Structure::Enum { name: "E", variants: &variants }.archive_depth_max(), 3);
        assert_eq!(Structure::Tuple(&[Structure::U8, boxed]).archive_depth_max(), 3);
    }

    #[test]
    fn a_tree_has_as_many_levels_as_fit_into_a_record() {
        assert_eq!(BTREE_LEVELS_MAX, 10, "6^9 - 1 entries fit into nine levels, and a record has more bytes");
        let map = Structure::BTreeMap(&Structure::U8, &Structure::String);
        assert_eq!(Structure::BTreeSet(&Structure::Array(&map, 2)).archive_depth_max(), 1 + 10 + 10 + 1);
    }

    #[test]
    fn nothing_is_known_about_a_foreign_archive() {
        assert_eq!(Structure::Vec(&Structure::Opaque("x")).archive_depth_max(), usize::MAX);
    }
}
