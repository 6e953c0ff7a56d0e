//! Slot writes: the body of a commit, of a delta and of a record, byte for byte the same on every hop.
//!
//! A write is `varint(field << 3 | kind)` and then, by kind: scalar: 8 bytes little-endian; block: varint length and
//! bytes; unset: nothing; add: zigzag varint; map put: length-prefixed key and value; map remove: length-prefixed key;
//! map clear: nothing.

use crate::codec::{DecodeError, Reader, Sink, put_varint};
use crate::ids::FieldId;
use crate::limits::{ENTRY_KEY_BYTES_MAX, RECORD_BYTES_MAX};
use crate::schema::FieldKind;

/// The write of one slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Write<'a> {
    /// Sets a scalar; for a counter, its sum (in records only).
    Scalar {
        /// The field.
        field: FieldId,
        /// The slot's eight bytes, as a little-endian number.
        bits: u64,
    },
    /// Sets a block.
    Block {
        /// The field.
        field: FieldId,
        /// The block.
        bytes: &'a [u8],
    },
    /// Puts the field back to its default.
    Unset {
        /// The field.
        field: FieldId,
    },
    /// Adds to a counter.
    Add {
        /// The field.
        field: FieldId,
        /// How much; wraps.
        amount: i64,
    },
    /// Puts an entry into a map.
    MapPut {
        /// The field.
        field: FieldId,
        /// The entry's key, in canonical form.
        key: &'a [u8],
        /// The entry's value.
        value: &'a [u8],
    },
    /// Removes an entry from a map.
    MapRemove {
        /// The field.
        field: FieldId,
        /// The entry's key, in canonical form.
        key: &'a [u8],
    },
    /// Removes every entry from a map.
    MapClear {
        /// The field.
        field: FieldId,
    },
}

const SCALAR: u64 = 0;
const BLOCK: u64 = 1;
const UNSET: u64 = 2;
const ADD: u64 = 3;
const MAP_PUT: u64 = 4;
const MAP_REMOVE: u64 = 5;
const MAP_CLEAR: u64 = 6;
const KIND_BITS: u32 = 3;

/// Slot writes that are not well-formed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadDelta {
    /// The bytes end inside a write, or a number does not fit.
    #[error("a slot write is cut off or malformed at byte {at}")]
    Malformed {
        /// Where.
        at: usize,
    },
    /// A kind of write that does not exist.
    #[error("a slot write has unknown kind {kind}")]
    Kind {
        /// The kind.
        kind: u64,
    },
    /// An entry's key is too long.
    #[error("a map key has {bytes} bytes, the limit is {}", ENTRY_KEY_BYTES_MAX)]
    EntryKey {
        /// Its length.
        bytes: usize,
    },
    /// All writes together are too long.
    #[error("the slot writes have {bytes} bytes, the limit is {}", RECORD_BYTES_MAX)]
    TooLong {
        /// Their length.
        bytes: usize,
    },
}

impl<'a> Write<'a> {
    /// The field that is written.
    #[must_use]
    pub const fn field(&self) -> FieldId {
        match *self {
            Self::Scalar { field, .. }
            | Self::Block { field, .. }
            | Self::Unset { field }
            | Self::Add { field, .. }
            | Self::MapPut { field, .. }
            | Self::MapRemove { field, .. }
            | Self::MapClear { field } => field,
        }
    }

    /// Whether a field of this kind takes this write: `in_record` for the slots of a whole object.
    #[must_use]
    pub const fn fits(&self, kind: FieldKind, in_record: bool) -> bool {
        match self {
            Self::Scalar { .. } => {
                matches!(kind, FieldKind::Scalar) || (in_record && matches!(kind, FieldKind::Counter))
            }
            Self::Block { .. } => matches!(kind, FieldKind::Block),
            Self::Unset { .. } => matches!(kind, FieldKind::Scalar | FieldKind::Block) && !in_record,
            Self::Add { .. } => matches!(kind, FieldKind::Counter) && !in_record,
            Self::MapPut { .. } => matches!(kind, FieldKind::Map),
            Self::MapRemove { .. } | Self::MapClear { .. } => matches!(kind, FieldKind::Map) && !in_record,
        }
    }

    /// Appends the encoded write.
    pub fn encode<S: Sink>(&self, out: &mut S) {
        let head =
            |out: &mut S, field: FieldId, kind| put_varint(out, (u64::from(field.to_bits()) << KIND_BITS) | kind);
        match *self {
            Self::Scalar { field, bits } => {
                head(out, field, SCALAR);
                out.put_slice(&bits.to_le_bytes());
            }
            Self::Block { field, bytes } => {
                head(out, field, BLOCK);
                put_bytes(out, bytes);
            }
            Self::Unset { field } => head(out, field, UNSET),
            Self::Add { field, amount } => {
                head(out, field, ADD);
                put_varint(out, zigzag(amount));
            }
            Self::MapPut { field, key, value } => {
                head(out, field, MAP_PUT);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Self::MapRemove { field, key } => {
                head(out, field, MAP_REMOVE);
                put_bytes(out, key);
            }
            Self::MapClear { field } => head(out, field, MAP_CLEAR),
        }
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, BadDelta> {
        let at = reader.position();
        let malformed = |_: DecodeError| BadDelta::Malformed { at };
        let head = reader.varint().map_err(malformed)?;
        let Ok(field) = u16::try_from(head >> KIND_BITS) else {
            return Err(BadDelta::Malformed { at });
        };
        let field = FieldId::from_bits(field);
        let entry_key = |reader: &mut Reader<'a>| {
            let key = reader.bytes().map_err(malformed)?;
            if key.len() > ENTRY_KEY_BYTES_MAX {
                return Err(BadDelta::EntryKey { bytes: key.len() });
            }
            Ok(key)
        };
        Ok(match head & ((1 << KIND_BITS) - 1) {
            SCALAR => Self::Scalar { field, bits: reader.u64().map_err(malformed)? },
            BLOCK => Self::Block { field, bytes: reader.bytes().map_err(malformed)? },
            UNSET => Self::Unset { field },
            ADD => Self::Add { field, amount: unzigzag(reader.varint().map_err(malformed)?) },
            MAP_PUT => {
                let key = entry_key(reader)?;
                Self::MapPut { field, key, value: reader.bytes().map_err(malformed)? }
            }
            MAP_REMOVE => Self::MapRemove { field, key: entry_key(reader)? },
            MAP_CLEAR => Self::MapClear { field },
            kind => return Err(BadDelta::Kind { kind }),
        })
    }
}

/// Reads encoded slot writes one by one; ends after the first error.
#[derive(Clone, Debug)]
pub struct Writes<'a> {
    reader: Reader<'a>,
}

impl<'a> Writes<'a> {
    /// The writes in these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes) }
    }

    /// Reads all of them once.
    ///
    /// # Errors
    /// The first write that is not well-formed.
    pub fn check(bytes: &'a [u8]) -> Result<(), BadDelta> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(BadDelta::TooLong { bytes: bytes.len() });
        }
        Self::new(bytes).try_for_each(|write| write.map(drop))
    }

    /// How many bytes have been read.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.reader.position()
    }
}

impl<'a> Iterator for Writes<'a> {
    type Item = Result<Write<'a>, BadDelta>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let write = Write::decode(&mut self.reader);
        if write.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(write)
    }
}

fn put_bytes(out: &mut impl Sink, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(n: u16) -> FieldId {
        FieldId::from_bits(n)
    }

    #[test]
    fn every_write_survives_the_wire() {
        let writes = [
            Write::Scalar { field: field(0), bits: u64::MAX },
            Write::Block { field: field(15), bytes: b"abc" },
            Write::Unset { field: field(16) },
            Write::Add { field: field(2), amount: i64::MIN },
            Write::Add { field: field(2), amount: -1 },
            Write::MapPut { field: field(3), key: b"k", value: b"" },
            Write::MapRemove { field: field(3), key: b"" },
            Write::MapClear { field: field(u16::MAX) },
        ];
        let mut bytes = Vec::new();
        for write in &writes {
            write.encode(&mut bytes);
        }
        let read: Vec<_> = Writes::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(read, writes);
        for cut in 1..bytes.len() {
            let good: Vec<_> = Writes::new(&bytes[..cut]).filter_map(Result::ok).collect();
            assert_eq!(good, writes[..good.len()], "cut at {cut}");
        }
    }

    #[test]
    fn a_scalar_of_a_low_field_takes_nine_bytes() {
        let mut bytes = Vec::new();
        Write::Scalar { field: field(15), bits: 1 }.encode(&mut bytes);
        assert_eq!(bytes.len(), 9);
    }

    #[test]
    fn bad_writes_are_refused() {
        assert_eq!(Writes::check(&[7]), Err(BadDelta::Kind { kind: 7 }));
        assert_eq!(Writes::check(&[0, 1, 2]), Err(BadDelta::Malformed { at: 0 }));
        let mut long = Vec::new();
        Write::MapRemove { field: field(0), key: &[0; ENTRY_KEY_BYTES_MAX + 1] }.encode(&mut long);
        assert_eq!(Writes::check(&long), Err(BadDelta::EntryKey { bytes: ENTRY_KEY_BYTES_MAX + 1 }));
    }
}
