//! Keys of roots and of map fields, and their canonical bytes.
//!
//! The bytes of a key name it everywhere: in the coordinator's index, in a delta and in the heap's tree. They order as
//! the keys do, and equal keys have equal bytes. Absent: floating-point keys, whose order is partial.

use kiln_protocol::structure::Structure;

/// Something that has the canonical bytes of a key: a [`Key`], or what one borrows as, like `str` for `String`.
///
/// Borrowing must keep the bytes: `key.borrow()` encodes to the same bytes as `key`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    note = "keys are `String`, integers, `bool`, `char`, `[u8; N]`, `Vec<u8>`, and pairs or triples that start with \
            keys of fixed size; for another type implement `kiln::KeyBytes` and `kiln::Key`"
)]
pub trait KeyBytes {
    /// Appends the canonical bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Calls `f` with the canonical bytes; keys that hold them in one piece do so without a copy.
    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        f(&bytes)
    }
}

/// The key type of a root or of a [`crate::Map`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    note = "keys are `String`, integers, `bool`, `char`, `[u8; N]`, `Vec<u8>`, and pairs or triples that start with \
            keys of fixed size; for another type implement `kiln::KeyBytes` and `kiln::Key`"
)]
pub trait Key: KeyBytes + Ord + Clone + Send + Sync + 'static {
    /// What the key is made of, for the schema registry.
    const STRUCTURE: Structure<'static>;

    /// The key with these canonical bytes; `None` when no key has them.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// A key whose canonical bytes always have the same length, so that another key may follow it in a tuple.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no fixed length as a key",
    note = "in a tuple key only the last part may vary in length, like `(u64, String)`"
)]
pub trait FixedKey: Key {
    /// The length of the canonical bytes.
    const BYTES: usize;
}

impl KeyBytes for str {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self.as_bytes())
    }
}

impl KeyBytes for String {
    fn encode(&self, out: &mut Vec<u8>) {
        self.as_str().encode(out);
    }

    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self.as_bytes())
    }
}

impl Key for String {
    const STRUCTURE: Structure<'static> = Structure::String;

    fn decode(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(Self::from)
    }
}

impl KeyBytes for [u8] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self)
    }
}

impl KeyBytes for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self)
    }
}

impl Key for Vec<u8> {
    const STRUCTURE: Structure<'static> = Structure::Bytes;

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

impl<const N: usize> KeyBytes for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(self)
    }
}

impl<const N: usize> Key for [u8; N] {
    const STRUCTURE: Structure<'static> = Structure::Array(&Structure::U8, N);

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

impl<const N: usize> FixedKey for [u8; N] {
    const BYTES: usize = N;
}

/// Integers: big-endian, the sign bit flipped in signed ones, so that bytes order as numbers do.
macro_rules! integer_keys {
    ($($int:ty, $structure:ident, $sign:expr;)*) => { $(
        impl KeyBytes for $int {
            fn encode(&self, out: &mut Vec<u8>) {
                self.with_bytes(|bytes| out.extend_from_slice(bytes));
            }

            #[expect(clippy::big_endian_bytes, reason = "the canonical order of bytes is the order of numbers")]
            fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
                f(&(self ^ $sign).to_be_bytes())
            }
        }

        impl Key for $int {
            const STRUCTURE: Structure<'static> = Structure::$structure;

            #[expect(clippy::big_endian_bytes, reason = "the canonical order of bytes is the order of numbers")]
            fn decode(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_be_bytes(bytes.try_into().ok()?) ^ $sign)
            }
        }

        impl FixedKey for $int {
            const BYTES: usize = size_of::<Self>();
        }
    )* };
}

integer_keys! {
    u8, U8, 0;
    u16, U16, 0;
    u32, U32, 0;
    u64, U64, 0;
    u128, U128, 0;
    i8, I8, Self::MIN;
    i16, I16, Self::MIN;
    i32, I32, Self::MIN;
    i64, I64, Self::MIN;
    i128, I128, Self::MIN;
}

impl KeyBytes for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Key for bool {
    const STRUCTURE: Structure<'static> = Structure::Bool;

    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl FixedKey for bool {
    const BYTES: usize = 1;
}

impl KeyBytes for char {
    fn encode(&self, out: &mut Vec<u8>) {
        u32::from(*self).encode(out);
    }
}

impl Key for char {
    const STRUCTURE: Structure<'static> = Structure::Char;

    fn decode(bytes: &[u8]) -> Option<Self> {
        Self::from_u32(u32::decode(bytes)?)
    }
}

impl FixedKey for char {
    const BYTES: usize = size_of::<u32>();
}

impl<A: FixedKey, B: Key> KeyBytes for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
}

impl<A: FixedKey, B: Key> Key for (A, B) {
    const STRUCTURE: Structure<'static> = Structure::Tuple(&[A::STRUCTURE, B::STRUCTURE]);

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, second) = bytes.split_at_checked(A::BYTES)?;
        Some((A::decode(first)?, B::decode(second)?))
    }
}

impl<A: FixedKey, B: FixedKey> FixedKey for (A, B) {
    const BYTES: usize = A::BYTES + B::BYTES;
}

impl<A: FixedKey, B: FixedKey, C: Key> KeyBytes for (A, B, C) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
        self.2.encode(out);
    }
}

impl<A: FixedKey, B: FixedKey, C: Key> Key for (A, B, C) {
    const STRUCTURE: Structure<'static> = Structure::Tuple(&[A::STRUCTURE, B::STRUCTURE, C::STRUCTURE]);

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_at_checked(A::BYTES)?;
        let (second, third) = rest.split_at_checked(B::BYTES)?;
        Some((A::decode(first)?, B::decode(second)?, C::decode(third)?))
    }
}

impl<A: FixedKey, B: FixedKey, C: FixedKey> FixedKey for (A, B, C) {
    const BYTES: usize = A::BYTES + B::BYTES + C::BYTES;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fmt::Debug;

    fn bytes_of<Q: KeyBytes + ?Sized>(key: &Q) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode(&mut out);
        assert_eq!(key.with_bytes(<[u8]>::to_vec), out);
        out
    }

    fn check<K: Key + Debug>(a: &K, b: &K) {
        let (x, y) = (bytes_of(a), bytes_of(b));
        assert_eq!(x.cmp(&y), a.cmp(b), "{a:?} {b:?}");
        assert_eq!(K::decode(&x).as_ref(), Some(a));
    }

    proptest! {
        #[test]
        fn bytes_order_as_keys_do(
            s in any::<(String, String)>(), i in any::<(i64, i64)>(), u in any::<(u32, u32)>(), w in any::<(i128, i128)>(),
            c in any::<(char, char)>(), v in any::<(Vec<u8>, Vec<u8>)>(), n in any::<([u8; 4], [u8; 4])>(),
            t in any::<((i16, String), (i16, String))>(), x in any::<((bool, u8, Vec<u8>), (bool, u8, Vec<u8>))>(),
        ) {
            check(&s.0, &s.1);
            check(&i.0, &i.1);
            check(&u.0, &u.1);
            check(&w.0, &w.1);
            check(&c.0, &c.1);
            check(&v.0, &v.1);
            check(&n.0, &n.1);
            check(&t.0, &t.1);
            check(&x.0, &x.1);
        }
    }

    #[test]
    fn a_borrowed_key_has_the_same_bytes() {
        assert_eq!(bytes_of("abc"), bytes_of(&String::from("abc")));
        assert_eq!(bytes_of(&[1_u8, 2][..]), bytes_of(&vec![1_u8, 2]));
    }

    #[test]
    fn bytes_that_no_key_has_are_refused() {
        assert_eq!(String::decode(&[0xff]), None);
        assert_eq!(bool::decode(&[2]), None);
        assert_eq!(char::decode(&[0, 0, 0xd8, 0]), None);
        assert_eq!(u32::decode(&[0; 5]), None);
        assert_eq!(<(u32, String)>::decode(&[0; 3]), None);
        assert_eq!(<[u8; 3]>::decode(&[0; 4]), None);
    }
}
