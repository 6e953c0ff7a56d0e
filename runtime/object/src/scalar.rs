//! Values that fit into the eight bytes of a slot.
//!
//! Unsigned numbers are extended by zeros, signed ones by their sign, floats are their bits. A peer may send any eight
//! bytes, so reading takes every pattern: numbers are cut to their width, a `bool` is "not zero", and bits that are no
//! `char` read as U+FFFD.

use crate::form::{ArchiveForm, BytesForm, ScalarForm};
use crate::value::Value;
use kiln_protocol::structure::Structure;

/// A value that fits into a slot.
pub trait Scalar: Copy {
    /// The slot's eight bytes, as a little-endian number.
    #[must_use]
    fn into_slot(self) -> u64;
    /// The value with these bytes; never fails.
    #[must_use]
    fn from_slot(bits: u64) -> Self;
}

macro_rules! integers {
    ($($int:ty => |$value:ident| $into:expr;)*) => { $(
        impl Scalar for $int {
            fn into_slot(self) -> u64 {
                let $value = self;
                $into
            }

            fn from_slot(bits: u64) -> Self {
                bits.to_le_bytes().first_chunk().map_or(0, |low| Self::from_le_bytes(*low))
            }
        }
    )* };
}

integers! {
    u8 => |value| u64::from(value);
    u16 => |value| u64::from(value);
    u32 => |value| u64::from(value);
    u64 => |value| value;
    i8 => |value| i64::from(value).cast_unsigned();
    i16 => |value| i64::from(value).cast_unsigned();
    i32 => |value| i64::from(value).cast_unsigned();
    i64 => |value| value.cast_unsigned();
}

impl Scalar for bool {
    fn into_slot(self) -> u64 {
        u64::from(self)
    }

    fn from_slot(bits: u64) -> Self {
        bits != 0
    }
}

impl Scalar for char {
    fn into_slot(self) -> u64 {
        u64::from(self)
    }

    fn from_slot(bits: u64) -> Self {
        u32::try_from(bits).ok().and_then(Self::from_u32).unwrap_or(Self::REPLACEMENT_CHARACTER)
    }
}

impl Scalar for f32 {
    fn into_slot(self) -> u64 {
        u64::from(self.to_bits())
    }

    fn from_slot(bits: u64) -> Self {
        Self::from_bits(u32::from_slot(bits))
    }
}

impl Scalar for f64 {
    fn into_slot(self) -> u64 {
        self.to_bits()
    }

    fn from_slot(bits: u64) -> Self {
        Self::from_bits(bits)
    }
}

macro_rules! scalar_values {
    ($($scalar:ty, $structure:ident;)*) => { $(
        impl Value for $scalar {
            type Form = ScalarForm;
            type ListForm = ArchiveForm;
            const STRUCTURE: Structure<'static> = Structure::$structure;
        }
    )* };
}

scalar_values! {
    bool, Bool;
    u16, U16;
    u32, U32;
    u64, U64;
    i8, I8;
    i16, I16;
    i32, I32;
    i64, I64;
    f32, F32;
    f64, F64;
    char, Char;
}

impl Value for u8 {
    type Form = ScalarForm;
    type ListForm = BytesForm;
    const STRUCTURE: Structure<'static> = Structure::U8;
    const LIST_STRUCTURE: Structure<'static> = Structure::Bytes;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Debug;

    fn check<T: Scalar + PartialEq + Debug>(value: T) {
        assert_eq!(T::from_slot(value.into_slot()), value);
    }

    proptest! {
        #[test]
        fn scalars_survive_the_slot(
            u in any::<(u8, u16, u32, u64)>(), i in any::<(i8, i16, i32, i64)>(), c in any::<char>(), b in any::<bool>(),
            f in any::<(f32, f64)>(),
        ) {
            check(u.0);
            check(u.1);
            check(u.2);
            check(u.3);
            check(i.0);
            check(i.1);
            check(i.2);
            check(i.3);
            check(c);
            check(b);
            check(f.0);
            check(f.1);
        }

        #[test]
        fn any_bits_are_some_scalar(bits in any::<u64>()) {
            let _ = (bool::from_slot(bits), char::from_slot(bits), u8::from_slot(bits), i16::from_slot(bits));
            let _ = (f32::from_slot(bits), f64::from_slot(bits));
        }
    }

    #[test]
    fn signed_numbers_are_extended_by_their_sign() {
        assert_eq!((-1_i8).into_slot(), u64::MAX);
        assert_eq!(200_u8.into_slot(), 200);
        assert_eq!(char::from_slot(0xd800), '\u{fffd}');
        assert_eq!(char::from_slot(u64::MAX), '\u{fffd}');
    }
}
