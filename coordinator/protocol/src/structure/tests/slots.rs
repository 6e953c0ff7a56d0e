//! Scalars, raw blocks, keys and map entries.

use super::super::{RenderError, Rendered};
use super::parse;
use crate::schema::FieldKind;

fn scalar(text: &str, bits: u64) -> Result<Rendered, RenderError> {
    parse(text).render(FieldKind::Scalar, &bits.to_le_bytes())
}

#[test]
fn scalars_are_read_from_their_slot() {
    let extended = |value: i64| value.cast_unsigned();
    assert_eq!(scalar("u8", 255), Ok(Rendered::Uint(255)));
    assert_eq!(scalar("i8", extended(-128)), Ok(Rendered::Int(-128)));
    assert_eq!(scalar("i64", extended(i64::MIN)), Ok(Rendered::Int(i64::MIN.into())));
    assert_eq!(scalar("counter", extended(-3)), Ok(Rendered::Int(-3)));
    assert_eq!(scalar("bool", 1), Ok(Rendered::Bool(true)));
    assert_eq!(scalar("char", 0x1f600), Ok(Rendered::Text("😀".into())));
    assert_eq!(scalar("f32", 0.1_f32.to_bits().into()), Ok(Rendered::Float(0.1)));
    assert_eq!(scalar("f64", 0.1_f64.to_bits()), Ok(Rendered::Float(0.1)));
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    for (text, bits) in [
        ("u8", 256),
        ("u32", 1 << 32),
        ("i8", 128),
        ("i32", 1 << 31),
        ("i16", u64::MAX - (1 << 15)),
        ("bool", 2),
        ("char", 0xd800),
        ("f32", 1 << 32),
    ] {
        assert!(matches!(scalar(text, bits), Err(RenderError::Invalid { .. })), "{text}");
    }
    assert_eq!(scalar("string", 0), Err(RenderError::NotA("a scalar")));
    assert!(parse("u8").render(FieldKind::Scalar, &[0; 7]).is_err());
}

#[test]
fn strings_bytes_and_foreign_archives_are_blocks_as_they_are() {
    let block = |text: &str, bytes: &[u8]| parse(text).render(FieldKind::Block, bytes);
    assert_eq!(block("string", "é".as_bytes()), Ok(Rendered::Text("é".into())));
    assert_eq!(block("bytes", &[1, 255]), Ok(Rendered::Bytes(vec![1, 255])));
    let foreign = block("opaque \"ip v1\"", &[0; 9]).unwrap();
    assert_eq!(foreign.to_string(), "opaque \"ip v1\", 9 bytes");
    assert_eq!(serde_json::to_string(&foreign).unwrap(), r#"{"opaque":"ip v1","bytes":9}"#);
}

#[test]
fn keys_are_read_from_their_canonical_bytes() {
    let key = |text: &str, bytes: &[u8]| parse(text).render_key(bytes);
    assert_eq!(key("string", b"ada"), Ok(Rendered::Text("ada".into())));
    assert_eq!(key("u32", &[0, 0, 1, 2]), Ok(Rendered::Uint(258)));
    assert_eq!(key("i16", &[0x7f, 0xff]), Ok(Rendered::Int(-1)));
    assert_eq!(key("i16", &[0x80, 0x00]), Ok(Rendered::Int(0)));
    assert_eq!(key("i128", &[0; 16]), Ok(Rendered::Int(i128::MIN)));
    assert_eq!(key("char", &[0, 0, 0, 97]), Ok(Rendered::Text("a".into())));
    assert_eq!(key("[u8; 2]", &[7, 8]), Ok(Rendered::Bytes(vec![7, 8])));
    assert_eq!(
        key("(u8, string)", b"\x07xy"),
        Ok(Rendered::List(vec![Rendered::Uint(7), Rendered::Text("xy".into())]))
    );
    assert!(key("u32", &[0; 3]).is_err());
    assert!(key("u32", &[0; 5]).is_err());
    assert_eq!(key("f64", &[0; 8]), Err(RenderError::NotA("a key")));
}

#[test]
fn entries_have_a_key_and_a_value() {
    let entry = |text: &str, value: &[u8]| parse(text).render_entry(b"sku", value);
    let sku = Rendered::Text("sku".into());
    assert_eq!(entry("map<string, u16>", &[7, 0]), Ok((sku.clone(), Rendered::Uint(7))));
    assert_eq!(entry("map<string, string>", b"x"), Ok((sku, Rendered::Text("x".into()))));
    assert!(entry("map<string, u16>", &[7]).is_err());
    assert_eq!(parse("u8").render_entry(b"", b""), Err(RenderError::NotA("a map")));
}

#[test]
fn maps_with_keys_that_json_has_not_are_lists_of_pairs() {
    let pairs = Rendered::Map(vec![(Rendered::List(vec![Rendered::Uint(1)]), Rendered::Null)]);
    assert_eq!(serde_json::to_string(&pairs).unwrap(), "[[[1],null]]");
    assert_eq!(pairs.to_string(), "{[1]: none}");
}
