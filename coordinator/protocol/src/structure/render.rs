//! From slot bytes to values, by the kind of slot.

use super::archive::{self, RenderError, boolean, character, float32, text};
use super::owned::{Node, OwnedStructure, Shape};
use super::rendered::Rendered;
use crate::schema::FieldKind;

impl OwnedStructure {
    /// The value of a field from the bytes of its slot: eight little-endian ones of a scalar or counter, the block of a
    /// block. A map field has no bytes of its own; see [`Self::render_entry`].
    ///
    /// # Errors
    /// When the bytes are not of this structure, or the structure is not of this kind.
    pub fn render(&self, kind: FieldKind, bytes: &[u8]) -> Result<Rendered, RenderError> {
        match kind {
            FieldKind::Scalar | FieldKind::Counter => {
                let bits =
                    bytes.try_into().ok().ok_or(RenderError::Invalid { at: 0, expected: "slot of eight bytes" })?;
                self.render_scalar(u64::from_le_bytes(bits))
            }
            FieldKind::Block => block(self.root(), bytes),
            FieldKind::Map => Err(RenderError::NotA("a field with a value of its own")),
        }
    }

    /// The value of a scalar or counter from the eight bytes of its slot as a number: unsigned integers zero-extended,
    /// signed ones sign-extended, floats as their bits, `bool` as 0 or 1, `char` as its code point.
    ///
    /// # Errors
    /// When the number is none of this structure, or the structure is not of a scalar.
    pub fn render_scalar(&self, bits: u64) -> Result<Rendered, RenderError> {
        scalar(self.root(), bits)
    }

    /// A key of an object or of a map's entry from its canonical bytes: strings and bytes as they are, integers
    /// big-endian with the sign bit flipped.
    ///
    /// # Errors
    /// When the bytes are not of this structure, or the structure is not one of keys.
    pub fn render_key(&self, bytes: &[u8]) -> Result<Rendered, RenderError> {
        key(self.root(), bytes)
    }

    /// The key and value of one entry of a map field; values are blocks, also scalar ones.
    ///
    /// # Errors
    /// When the bytes are not of this structure, or the structure is not a map's.
    pub fn render_entry(&self, key_bytes: &[u8], value_bytes: &[u8]) -> Result<(Rendered, Rendered), RenderError> {
        let Shape::Map(key_node, value_node) = &self.root().shape else {
            return Err(RenderError::NotA("a map"));
        };
        Ok((key(key_node, key_bytes)?, block(value_node, value_bytes)?))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other block is an archive")]
fn block(node: &Node, bytes: &[u8]) -> Result<Rendered, RenderError> {
    match &node.shape {
        Shape::String => text(bytes, 0),
        Shape::Bytes => Ok(Rendered::Bytes(bytes.to_vec())),
        Shape::Opaque(tag) => Ok(Rendered::Opaque { tag: tag.clone(), bytes: bytes.len() }),
        _ => archive::render(node, bytes),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the other structures are blocks")]
fn scalar(node: &Node, bits: u64) -> Result<Rendered, RenderError> {
    let signed = bits.cast_signed();
    let unsigned_fits = |max: u64, expected| fits(bits <= max, Rendered::Uint(bits.into()), expected);
    let signed_fits = |min: i64, max: i64, expected| {
        let value = Rendered::Int(signed.into());
        fits((min..=max).contains(&signed), value, expected)
    };
    match node.shape {
        Shape::U8 => unsigned_fits(u8::MAX.into(), "u8"),
        Shape::U16 => unsigned_fits(u16::MAX.into(), "u16"),
        Shape::U32 => unsigned_fits(u32::MAX.into(), "u32"),
        Shape::U64 => Ok(Rendered::Uint(bits.into())),
        Shape::I8 => signed_fits(i8::MIN.into(), i8::MAX.into(), "i8"),
        Shape::I16 => signed_fits(i16::MIN.into(), i16::MAX.into(), "i16"),
        Shape::I32 => signed_fits(i32::MIN.into(), i32::MAX.into(), "i32"),
        Shape::I64 | Shape::Counter => Ok(Rendered::Int(signed.into())),
        Shape::F64 => Ok(Rendered::Float(f64::from_bits(bits))),
        Shape::F32 => u32::try_from(bits)
            .map(|bits| float32(f32::from_bits(bits)))
            .ok()
            .ok_or(RenderError::Invalid { at: 0, expected: "f32" }),
        Shape::Bool => boolean(bits, 0),
        Shape::Char => character(bits, 0),
        _ => Err(RenderError::NotA("a scalar")),
    }
}

fn fits(fits: bool, value: Rendered, expected: &'static str) -> Result<Rendered, RenderError> {
    if fits { Ok(value) } else { Err(RenderError::Invalid { at: 0, expected }) }
}

fn key(node: &Node, bytes: &[u8]) -> Result<Rendered, RenderError> {
    let mut rest = bytes;
    let key = key_part(node, &mut rest)?;
    if rest.is_empty() {
        Ok(key)
    } else {
        Err(RenderError::Invalid { at: bytes.len() - rest.len(), expected: "part of the key" })
    }
}

/// A key, or one of a tuple's. Strings and vectors of bytes go to the end.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other structures are not of keys")]
fn key_part(node: &Node, rest: &mut &[u8]) -> Result<Rendered, RenderError> {
    // A signed integer is stored with its sign bit flipped, so that the order of bytes is that of numbers.
    Ok(match &node.shape {
        Shape::Unit => Rendered::Null,
        Shape::Bool => boolean(take::<1>(rest, "bool")?[0].into(), 0)?,
        Shape::U8 => Rendered::Uint(u128::from(take::<1>(rest, "u8")?[0])),
        Shape::U16 => Rendered::Uint(from_big_endian(take::<2>(rest, "u16")?)),
        Shape::U32 => Rendered::Uint(from_big_endian(take::<4>(rest, "u32")?)),
        Shape::U64 => Rendered::Uint(from_big_endian(take::<8>(rest, "u64")?)),
        Shape::U128 => Rendered::Uint(from_big_endian(take::<16>(rest, "u128")?)),
        Shape::I8 => Rendered::Int(from_flipped(take::<1>(rest, "i8")?)),
        Shape::I16 => Rendered::Int(from_flipped(take::<2>(rest, "i16")?)),
        Shape::I32 => Rendered::Int(from_flipped(take::<4>(rest, "i32")?)),
        Shape::I64 => Rendered::Int(from_flipped(take::<8>(rest, "i64")?)),
        Shape::I128 => Rendered::Int(from_flipped(take::<16>(rest, "i128")?)),
        Shape::Char => {
            let bits = from_big_endian(take::<4>(rest, "char")?);
            character(u64::try_from(bits).unwrap_or(u64::MAX), 0)?
        }
        Shape::String => text(std::mem::take(rest), 0)?,
        Shape::Bytes => Rendered::Bytes(std::mem::take(rest).to_vec()),
        Shape::Vec(item) if matches!(item.shape, Shape::U8) => Rendered::Bytes(std::mem::take(rest).to_vec()),
        Shape::Array(item, length) if matches!(item.shape, Shape::U8) => {
            let bytes = usize::try_from(*length)
                .ok()
                .and_then(|length| rest.split_off(..length))
                .ok_or(RenderError::Invalid { at: 0, expected: "array of bytes" })?;
            Rendered::Bytes(bytes.to_vec())
        }
        Shape::Tuple(items) => Rendered::List(items.iter().map(|item| key_part(item, rest)).collect::<Result<_, _>>()?),
        _ => return Err(RenderError::NotA("a key")),
    })
}

fn take<const N: usize>(rest: &mut &[u8], expected: &'static str) -> Result<[u8; N], RenderError> {
    rest.split_off(..N).and_then(|bytes| bytes.try_into().ok()).ok_or(RenderError::Invalid { at: 0, expected })
}

fn from_big_endian<const N: usize>(bytes: [u8; N]) -> u128 {
    bytes.iter().fold(0, |value, byte| (value << u8::BITS) | u128::from(*byte))
}

fn from_flipped<const N: usize>(mut bytes: [u8; N]) -> i128 {
    bytes[0] ^= 0x80;
    // Shifted to the top and back, so that the sign fills the rest.
    let unused = u128::BITS - u8::BITS * u32::try_from(N).unwrap_or(0);
    (from_big_endian(bytes) << unused).cast_signed() >> unused
}
