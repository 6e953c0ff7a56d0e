//! Bytes that no program of ours wrote.

use super::super::{NoLayout, RenderError};
use super::archives::{Outer, archive, outer_text, outers};
use super::parse;
use super::text::structures;
use crate::schema::FieldKind;
use proptest::prelude::*;
use rkyv::rancor;

fn render(text: &str, bytes: &[u8]) -> Result<String, RenderError> {
    parse(text).render(FieldKind::Block, bytes).map(|value| serde_json::to_string(&value).unwrap())
}

/// Serde writes `f32` with other digits, NaN as null, and all integers as numbers, which a JSON reader turns to floats.
fn comparable(mut value: serde_json::Value) -> serde_json::Value {
    match &mut value {
        serde_json::Value::Number(number) if number.is_f64() => {
            let shown = format!("{:.4e}", number.as_f64().unwrap());
            value = shown.into();
        }
        serde_json::Value::String(text) if matches!(text.as_str(), "NaN" | "inf" | "-inf") => value = ().into(),
        serde_json::Value::String(text) if text.len() > 18 => {
            if let Ok(wide) = text.parse::<f64>() {
                value = format!("{wide:.4e}").into();
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| *item = comparable(item.take())),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|field| *field = comparable(field.take())),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
    value
}

/// A relative pointer and a length: a vector's archive.
fn vec_header(offset: i32, length: u32) -> Vec<u8> {
    [offset.to_le_bytes(), length.to_le_bytes()].concat()
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(
        structure in structures(),
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..6_u8, 250..=255_u8], 0..200),
    ) {
        let structure = parse(&structure.to_string());
        for kind in [FieldKind::Block, FieldKind::Scalar, FieldKind::Counter, FieldKind::Map] {
            drop(structure.render(kind, &bytes));
        }
        drop(structure.render_key(&bytes));
        drop(structure.render_entry(&bytes, &bytes));
    }

    #[test]
    fn what_rkyv_accepts_is_read_as_rkyv_reads_it(
        value in outers(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = archive(&value);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let ours = render(&outer_text(), &bytes);
        if let Ok(read) = rkyv::from_bytes::<Outer, rancor::Error>(&bytes) {
            // Broken trees may have their keys in any order, or twice: then the last one counts.
            let mut ours: serde_json::Value = serde_json::from_str(&ours.unwrap()).unwrap();
            let set = ours["set"].as_array_mut().unwrap();
            set.sort_unstable_by_key(serde_json::Value::as_i64);
            set.dedup();
            let theirs = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
            prop_assert_eq!(comparable(ours), comparable(theirs));
        }
    }
}

#[test]
fn an_archive_that_is_too_short_is_refused() {
    assert_eq!(render("(u64, u8)", &[0; 15]), Err(RenderError::Outside { at: 0, size: 16, length: 15 }));
}

#[test]
fn pointers_outside_are_refused() {
    for offset in [-1, i32::MIN, i32::MAX, 8, 7] {
        assert!(matches!(render("vec<u16>", &vec_header(offset, 1)), Err(RenderError::Outside { .. })), "{offset}");
    }
    assert_eq!(render("vec<u16>", &vec_header(i32::MIN, 0)), Ok("[]".into()));
}

#[test]
fn parts_that_overlap_are_refused() {
    // Eight levels of vectors whose eight items are all the same one: 8^8 values in 128 bytes.
    let mut bytes = vec![0; 64];
    for _ in 0..8 {
        bytes.extend(vec_header(-64, 8));
    }
    let text = format!("{}u64{}", "vec<".repeat(9), ">".repeat(9));
    assert!(matches!(render(&text, &bytes), Err(RenderError::Overlap { .. })));
    // A tree whose only node is its own child.
    let mut node = vec![0; 64];
    node[0] = 1;
    node.extend(vec_header(-64, 5));
    assert!(matches!(
        render("btreemap<unit, unit>", &node),
        Err(RenderError::Overlap { .. } | RenderError::Outside { .. } | RenderError::Invalid { .. })
    ));
}

#[test]
fn values_that_take_no_bytes_are_counted() {
    assert_eq!(render("vec<unit>", &vec_header(0, u32::MAX)), Err(RenderError::TooMany));
    assert_eq!(render("[unit; 18446744073709551615]", &[]), Err(RenderError::TooMany));
    assert_eq!(
        render("vec<[u64; 18446744073709551615]>", &vec_header(0, 1)),
        Err(RenderError::NoLayout(NoLayout::TooLarge))
    );
}

#[test]
fn bytes_that_are_no_value_are_refused() {
    let invalid = |text, bytes: &[u8]| match render(text, bytes) {
        Err(RenderError::Invalid { .. }) => {}
        other => panic!("{text}: {other:?}"),
    };
    invalid("bool", &[2]);
    invalid("char", &0xd800_u32.to_le_bytes());
    invalid("option<unit>", &[2]);
    invalid("enum A { B }", &[1]);
    invalid("duration", &[0xff; 16]);
    invalid("(string,)", &[0xc0, 0, 0, 0, 0, 0, 0, 0]);
    invalid("string", &[0xff]);
}

#[test]
fn what_has_no_layout_is_refused_inside_archives() {
    for (text, reason) in [
        ("option<opaque \"x\">", NoLayout::Opaque),
        ("vec<map<u8, u8>>", NoLayout::Map),
        ("(counter,)", NoLayout::Counter),
        ("box<enum A {}>", NoLayout::NoVariants),
    ] {
        assert_eq!(render(text, &[0; 32]), Err(RenderError::NoLayout(reason)), "{text}");
    }
    let variants = vec!["A"; 257].join(", ");
    assert_eq!(
        render(&format!("enum A {{ {variants} }}"), &[0]),
        Err(RenderError::NoLayout(NoLayout::TooManyVariants))
    );
}
