use super::super::owned::{Node, OwnedField, Shape};
use super::super::{Field, OwnedStructure, Structure, StructureError, Variant};
use super::parse;
use crate::limits::{STRUCTURE_BYTES_MAX, STRUCTURE_DEPTH_MAX};
use proptest::prelude::*;

const LINE: Structure<'_> = Structure::Struct {
    name: "CartLine",
    fields: &[Field { name: "sku", structure: Structure::String }, Field { name: "count", structure: Structure::U32 }],
};

#[test]
fn texts_are_as_documented() {
    let color = Structure::Enum {
        name: "Color",
        variants: &[
            Variant { name: "Red", fields: &[] },
            Variant { name: "Grey", fields: &[Field { name: "0", structure: Structure::U8 }] },
        ],
    };
    let odd =
        Structure::Struct { name: "größe", fields: &[Field { name: "a \"b\" \\ \n", structure: Structure::Unit }] };
    let cases = [
        (Structure::Option(&Structure::String), "option<string>"),
        (Structure::Vec(&LINE), "vec<struct CartLine { sku: string, count: u32 }>"),
        (color, "enum Color { Red, Grey { 0: u8 } }"),
        (Structure::Map(&Structure::String, &Structure::Bytes), "map<string, bytes>"),
        (Structure::Tuple(&[]), "()"),
        (Structure::Tuple(&[Structure::F64]), "(f64,)"),
        (Structure::Tuple(&[Structure::F64, Structure::Char]), "(f64, char)"),
        (Structure::Array(&Structure::U8, 16), "[u8; 16]"),
        (Structure::Struct { name: "E", fields: &[] }, "struct E {}"),
        (Structure::Enum { name: "E", variants: &[] }, "enum E {}"),
        (Structure::Opaque("a>\"b\""), r#"opaque "a>\"b\"""#),
        (odd, r#"struct "größe" { "a \"b\" \\ \u{a}": unit }"#),
    ];
    for (structure, text) in cases {
        assert_eq!(structure.to_string(), text);
        assert!(same(&structure, parse(text).root()), "{text}");
    }
}

#[test]
fn other_spellings_are_refused_with_their_place() {
    let cases = [
        ("", 0),
        ("u7", 0),
        ("U8", 0),
        (" u8", 0),
        ("u8 ", 2),
        ("option<u8", 9),
        ("option< u8>", 7),
        ("map<u8,u8>", 6),
        ("(u8)", 3),
        ("(u8, u8,)", 7),
        ("[u8; 01]", 5),
        ("[u8; +1]", 5),
        ("[u8; 18446744073709551616]", 5),
        ("struct { a: u8 }", 7),
        ("struct A { }", 11),
        ("struct A {a: u8}", 10),
        (r#"struct "A" {}"#, 7),
        (r#"struct "" "#, 9),
        ("enum A { B {} }", 12),
        (r#"opaque "\a""#, 7),
        (r#"opaque "\u{0a}""#, 7),
        ("opaque \"\n\"", 7),
        (r#"opaque "a"#, 7),
        ("opaque a", 7),
    ];
    for (text, place) in cases {
        match text.parse::<OwnedStructure>() {
            Err(StructureError::Expected { at, .. }) => assert_eq!(at, place, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn length_and_depth_are_limited() {
    let deep = |depth: usize| format!("{}u8{}", "box<".repeat(depth - 1), ">".repeat(depth - 1));
    parse(&deep(STRUCTURE_DEPTH_MAX));
    assert_eq!(
        deep(STRUCTURE_DEPTH_MAX + 1).parse::<OwnedStructure>(),
        Err(StructureError::TooDeep { at: 4 * STRUCTURE_DEPTH_MAX })
    );
    let long = "(".repeat(STRUCTURE_BYTES_MAX + 1);
    assert_eq!(long.parse::<OwnedStructure>(), Err(StructureError::TooLong { bytes: long.len() }));
    assert!(long[1..].parse::<OwnedStructure>().is_err());
}

proptest! {
    #[test]
    fn a_structure_is_what_its_text_says(structure in structures()) {
        let text = structure.to_string();
        let parsed = parse(&text);
        prop_assert_eq!(parsed.as_str(), &text);
        prop_assert!(same(&structure, parsed.root()), "{}", text);
    }

    #[test]
    fn no_text_breaks_the_parser(
        structure in structures(),
        at in any::<prop::sample::Index>(),
        with in "[ -~]{0,2}|[<>{}(), \"\\\\;:\\[\\]]",
    ) {
        // One edit away from a canonical text: refused, or canonical again.
        let mut characters: Vec<char> = structure.to_string().chars().collect();
        let at = at.index(characters.len());
        characters.splice(at..=at, with.chars());
        let text: String = characters.into_iter().collect();
        if let Ok(parsed) = text.parse::<OwnedStructure>() {
            prop_assert_eq!(parsed.as_str(), &text);
        }
    }
}

/// Tests leak: a structure borrows its parts, and a strategy has nowhere to keep them.
fn leak<T>(value: Vec<T>) -> &'static [T] {
    Vec::leak(value)
}

fn names() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof!["[a-z_][a-z0-9_]{0,6}", "\\PC{0,4}", "[\"\\\\\n\u{1}a-c]{0,5}"]
        .prop_map(|name| String::leak(name) as &'static str)
}

pub(super) fn structures() -> impl Strategy<Value = Structure<'static>> {
    use Structure as S;
    let leaf = prop_oneof![
        prop::sample::select(vec![
            S::Unit,
            S::Bool,
            S::U8,
            S::U16,
            S::U32,
            S::U64,
            S::U128,
            S::I8,
            S::I16,
            S::I32,
            S::I64,
            S::I128,
            S::F32,
            S::F64,
            S::Char,
            S::String,
            S::Bytes,
            S::Duration,
            S::IpAddr,
            S::Ipv4Addr,
            S::Ipv6Addr,
            S::SocketAddr,
            S::SocketAddrV4,
            S::SocketAddrV6,
            S::Counter
        ]),
        names().prop_map(S::Opaque),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let one = inner.clone().prop_map(|structure| &leak(vec![structure])[0]);
        let fields = prop::collection::vec((names(), inner.clone()), 0..4).prop_map(|fields| {
            let field = |(name, structure)| Field { name, structure };
            leak(fields.into_iter().map(field).collect())
        });
        let variants = prop::collection::vec((names(), fields.clone()), 0..4).prop_map(|variants| {
            let variant = |(name, fields)| Variant { name, fields };
            leak(variants.into_iter().map(variant).collect())
        });
        prop_oneof![
            one.clone().prop_map(S::Option),
            one.clone().prop_map(S::Vec),
            one.clone().prop_map(S::Box),
            one.clone().prop_map(S::BTreeSet),
            (one.clone(), 0..5_usize).prop_map(|(item, length)| S::Array(item, length)),
            prop::collection::vec(inner, 0..4).prop_map(|items| S::Tuple(leak(items))),
            (names(), fields).prop_map(|(name, fields)| S::Struct { name, fields }),
            (names(), variants).prop_map(|(name, variants)| S::Enum { name, variants }),
            (one.clone(), one.clone()).prop_map(|(key, value)| S::BTreeMap(key, value)),
            (one.clone(), one).prop_map(|(key, value)| S::Map(key, value)),
        ]
    })
}

fn same(structure: &Structure<'_>, node: &Node) -> bool {
    use Structure as S;
    let fields = |fields: &[Field<'_>], owned: &[OwnedField]| {
        let pair = |(field, owned): (&Field<'_>, &OwnedField)| {
            field.name == &*owned.name && same(&field.structure, &owned.structure)
        };
        fields.len() == owned.len() && fields.iter().zip(owned).all(pair)
    };
    match (structure, &node.shape) {
        (S::Option(a), Shape::Option(b))
        | (S::Vec(a), Shape::Vec(b))
        | (S::Box(a), Shape::Box(b))
        | (S::BTreeSet(a), Shape::BTreeSet(b)) => same(a, b),
        (S::Array(a, length), Shape::Array(b, owned)) => *length as u64 == *owned && same(a, b),
        (S::BTreeMap(k, v), Shape::BTreeMap(a, b)) | (S::Map(k, v), Shape::Map(a, b)) => same(k, a) && same(v, b),
        (S::Tuple(a), Shape::Tuple(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (S::Struct { fields: a, .. }, Shape::Struct(b)) => fields(a, b),
        (S::Enum { variants, .. }, Shape::Enum(owned)) => {
            variants.len() == owned.len()
                && variants.iter().zip(owned).all(|(a, b)| a.name == &*b.name && fields(a.fields, &b.fields))
        }
        (S::Opaque(a), Shape::Opaque(b)) => *a == &**b,
        // What has no parts is called the same on both sides.
        (leaf, owned) => format!("{leaf:?}") == format!("{owned:?}"),
    }
}
