//! Archives that rkyv made, against what serde makes of the same values.

use super::super::RenderError;
use super::super::layout::Layout;
use super::parse;
use crate::schema::FieldKind;
use proptest::prelude::*;
use rkyv::rancor;
use rkyv::util::AlignedVec;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Serialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Newtype(i16);

#[derive(Clone, Debug, PartialEq, Serialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum Color {
    Red,
    Rgb(u8, u16, u64),
    Named(String),
    Deep { flag: bool, inner: Option<Box<Inner>> },
    Wide(i128),
}

#[derive(Clone, Debug, PartialEq, Serialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Inner {
    small: i8,
    text: String,
    colors: Vec<Option<Color2>>,
    tail: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum Color2 {
    Only { x: u32, y: f32, unit: () },
    Pair((u8, char), [u16; 3]),
}

#[derive(Clone, Debug, PartialEq, Serialize, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(super) struct Outer {
    a: u8,
    unit: Unit,
    newtype: Newtype,
    color: Color,
    b: u16,
    map: BTreeMap<u16, (String, u8)>,
    c: bool,
    by_name: BTreeMap<String, Option<u64>>,
    set: BTreeSet<i64>,
    d: f64,
    long: i128,
    nested: Vec<Vec<String>>,
}

const COLOR2: &str = "enum Color2 { Only { x: u32, y: f32, unit: unit }, Pair { 0: (u8, char), 1: [u16; 3] } }";

pub(super) fn outer_text() -> String {
    let inner = format!("struct Inner {{ small: i8, text: string, colors: vec<option<{COLOR2}>>, tail: u8 }}");
    let color = format!(
        "enum Color {{ Red, Rgb {{ 0: u8, 1: u16, 2: u64 }}, Named {{ 0: string }}, \
         Deep {{ flag: bool, inner: option<box<{inner}>> }}, Wide {{ 0: i128 }} }}"
    );
    format!(
        "struct Outer {{ a: u8, unit: struct Unit {{}}, newtype: struct Newtype {{ 0: i16 }}, color: {color}, b: u16, \
         map: btreemap<u16, (string, u8)>, c: bool, by_name: btreemap<string, option<u64>>, set: btreeset<i64>, \
         d: f64, long: i128, nested: vec<vec<string>> }}"
    )
}

pub(super) fn archive<T>(value: &T) -> AlignedVec
where
    T: for<'a> rkyv::Serialize<
            rkyv::api::high::HighSerializer<AlignedVec, rkyv::ser::allocator::ArenaHandle<'a>, rancor::Error>,
        >,
{
    rkyv::to_bytes::<rancor::Error>(value).unwrap()
}

fn layout_of<T: rkyv::Archive>(text: &str) {
    let rkyv = Layout::new(size_of::<T::Archived>() as u64, align_of::<T::Archived>() as u64);
    assert_eq!(parse(text).root().layout, Ok(rkyv), "{text}");
}

#[test]
fn layouts_are_those_of_rkyv() {
    layout_of::<()>("unit");
    layout_of::<u128>("u128");
    layout_of::<char>("char");
    layout_of::<Duration>("duration");
    layout_of::<IpAddr>("ipaddr");
    layout_of::<Ipv4Addr>("ipv4addr");
    layout_of::<Ipv6Addr>("ipv6addr");
    layout_of::<SocketAddr>("socketaddr");
    layout_of::<SocketAddrV4>("socketaddrv4");
    layout_of::<SocketAddrV6>("socketaddrv6");
    layout_of::<String>("string");
    layout_of::<Vec<u128>>("vec<u128>");
    layout_of::<Vec<u8>>("bytes");
    layout_of::<Box<u128>>("box<u128>");
    layout_of::<Option<()>>("option<unit>");
    layout_of::<Option<u128>>("option<u128>");
    layout_of::<Option<Option<u16>>>("option<option<u16>>");
    layout_of::<(u8, u32, u8)>("(u8, u32, u8)");
    layout_of::<(u64,)>("(u64,)");
    layout_of::<[(u16, u8); 5]>("[(u16, u8); 5]");
    layout_of::<[u64; 0]>("[u64; 0]");
    layout_of::<BTreeMap<u8, u128>>("btreemap<u8, u128>");
    layout_of::<BTreeSet<u8>>("btreeset<u8>");
    layout_of::<Color2>(COLOR2);
    layout_of::<Outer>(&outer_text());
}

/// The JSON of the archive, read through the structure.
fn json(text: &str, bytes: &[u8]) -> String {
    let rendered = parse(text).render(FieldKind::Block, bytes).unwrap();
    serde_json::to_string(&rendered).unwrap()
}

#[test]
fn options_of_options_are_told_apart() {
    type Deep = Option<Option<Option<u8>>>;
    for (value, shown, as_json) in [
        (None, "none", "null"),
        (Some(None), "Some(none)", r#"{"Some":null}"#),
        (Some(Some(None)), "Some(Some(none))", r#"{"Some":{"Some":null}}"#),
        (Some(Some(Some(7))), "7", "7"),
    ] {
        let bytes = archive::<Deep>(&value);
        let rendered = parse("option<option<option<u8>>>").render(FieldKind::Block, &bytes).unwrap();
        assert_eq!(rendered.to_string(), shown);
        assert_eq!(json("option<option<option<u8>>>", &bytes), as_json);
    }
    assert_eq!(json("option<unit>", &archive(&Some(()))), r#"{"Some":null}"#);
    assert_eq!(json("option<unit>", &archive(&None::<()>)), "null");
}

#[test]
fn trees_of_every_height_are_read() {
    for count in (0..60).chain([214, 215, 216, 217, 1295, 1296, 3000]) {
        let map: BTreeMap<u32, u128> = (0..count).map(|key| (key, u128::from(key) << 40)).collect();
        let read = json("btreemap<u32, u128>", &archive(&map));
        assert_eq!(read, serde_json::to_string(&map).unwrap(), "{count} entries");
    }
}

#[test]
fn strings_of_every_length_are_read() {
    for length in (0..80).chain([255, 256, 257, 16_383, 16_384, 100_000]) {
        // In a struct, because a string that is a field of its own is not archived.
        let value = (7_u8, "é".repeat(length / 2) + &"x".repeat(length % 2));
        assert_eq!(json("(u8, string)", &archive(&value)), serde_json::to_string(&value).unwrap(), "{length} bytes");
    }
}

#[test]
fn bytes_durations_and_wide_integers_have_texts() {
    let value = (vec![0_u8, 255], [1_u8, 2], Duration::new(3, 50_000_000), Duration::from_secs(1));
    let text = "(vec<u8>, [u8; 2], duration, duration)";
    assert_eq!(json(text, &archive(&value)), r#"["00ff","0102","3.05s","1s"]"#);
    assert_eq!(json(&text.replace("vec<u8>", "bytes"), &archive(&value)), r#"["00ff","0102","3.05s","1s"]"#);
    let wide = (u128::MAX, i128::MIN, f64::NAN, 0.1_f32);
    assert_eq!(
        json("(u128, i128, f64, f32)", &archive(&wide)),
        r#"["340282366920938463463374607431768211455","-170141183460469231731687303715884105728","NaN",0.1]"#
    );
}

#[test]
fn addresses_are_read_as_they_are_written() {
    let v4 = Ipv4Addr::new(127, 0, 0, 1);
    let v6 = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x12, 0x3456);
    let (socket_v4, socket_v6) = (SocketAddrV4::new(v4, 4747), SocketAddrV6::new(v6, 65_535, 7, 9));
    let value = (
        // Not aligned by chance.
        (3_u8, v4, v6),
        (IpAddr::V4(v4), IpAddr::V6(v6)),
        (5_u8, socket_v4, socket_v6),
        (SocketAddr::V4(socket_v4), SocketAddr::V6(socket_v6)),
    );
    let text =
        "((u8, ipv4addr, ipv6addr), (ipaddr, ipaddr), (u8, socketaddrv4, socketaddrv6), (socketaddr, socketaddr))";
    let archive = archive(&value);
    let read = json(text, &archive);
    assert_eq!(read, serde_json::to_string(&value).unwrap());
    assert!(read.contains(r#"[5,"127.0.0.1:4747","[fe80::12:3456%9]:65535"]"#), "{read}");
}

#[test]
fn an_address_of_neither_kind_is_refused() {
    let mut bytes = archive(&IpAddr::V4(Ipv4Addr::LOCALHOST)).to_vec();
    bytes[0] = 2;
    let refused = parse("ipaddr").render(FieldKind::Block, &bytes);
    assert_eq!(refused, Err(RenderError::Invalid { at: 0, expected: "address" }));
}

#[test]
fn people_see_names_and_no_control_characters() {
    let value = Inner {
        small: -1,
        text: "a\u{1b}[31m".into(),
        colors: vec![None, Some(Color2::Pair((1, '"'), [1, 2, 3])), Some(Color2::Only { x: 5, y: 0.5, unit: () })],
        tail: 9,
    };
    let text = format!("struct Inner {{ small: i8, text: string, colors: vec<option<{COLOR2}>>, tail: u8 }}");
    let shown = parse(&text).render(FieldKind::Block, &archive(&value)).unwrap().to_string();
    assert_eq!(
        shown,
        r#"{ small: -1, text: "a\u{1b}[31m", colors: [none, Pair([1, "\""], [1, 2, 3]), Only { x: 5, y: 0.5, unit: none }], tail: 9 }"#
    );
}

proptest! {
    #[test]
    fn values_are_what_serde_makes_of_them(value in outers()) {
        prop_assert_eq!(json(&outer_text(), &archive(&value)), serde_json::to_string(&value).unwrap());
    }
}

fn color2s() -> impl Strategy<Value = Color2> {
    prop_oneof![
        (any::<u32>(), small_floats()).prop_map(|(x, y)| Color2::Only { x, y, unit: () }),
        (any::<u8>(), any::<char>(), any::<[u16; 3]>()).prop_map(|(a, b, c)| Color2::Pair((a, b), c)),
    ]
}

/// Exact in decimal: of several shortest forms, serde and the standard library may choose different ones.
fn small_floats() -> impl Strategy<Value = f32> {
    any::<i16>().prop_map(|eighths| f32::from(eighths) / 8.0)
}

fn inners() -> impl Strategy<Value = Inner> {
    let colors = prop::collection::vec(prop::option::of(color2s()), 0..5);
    (any::<i8>(), ".{0,12}", colors, any::<u8>()).prop_map(|(small, text, colors, tail)| Inner {
        small,
        text,
        colors,
        tail,
    })
}

fn colors() -> impl Strategy<Value = Color> {
    prop_oneof![
        Just(Color::Red),
        any::<(u8, u16, u64)>().prop_map(|(r, g, b)| Color::Rgb(r, g, b)),
        ".{0,12}".prop_map(Color::Named),
        (any::<bool>(), prop::option::of(inners().prop_map(Box::new)))
            .prop_map(|(flag, inner)| Color::Deep { flag, inner }),
        any::<i64>().prop_map(|wide| Color::Wide(wide.into())),
    ]
}

pub(super) fn outers() -> impl Strategy<Value = Outer> {
    let map = prop::collection::btree_map(any::<u16>(), (".{0,12}", any::<u8>()), 0..40);
    let by_name = prop::collection::btree_map(".{0,12}", any::<Option<u64>>(), 0..12);
    let set = prop::collection::btree_set(any::<i64>(), 0..12);
    let nested = prop::collection::vec(prop::collection::vec(".{0,12}", 0..3), 0..4);
    (any::<(u8, i16, u16, bool, f64, i64)>(), colors(), map, by_name, set, nested).prop_map(
        |((a, newtype, b, c, d, long), color, map, by_name, set, nested)| Outer {
            a,
            unit: Unit,
            newtype: Newtype(newtype),
            color,
            b,
            map,
            c,
            by_name,
            set,
            d,
            long: long.into(),
            nested,
        },
    )
}
