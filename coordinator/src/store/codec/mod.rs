//! Entries and pieces of snapshots to bytes and back.
//!
//! Each is `kind byte | body`; numbers are varints, whatever has a length has it in front. Decoding allocates at most
//! what the bytes hold, shares keys and slot writes with them, and leaves nothing unread. A new kind gets a new number;
//! one whose body changes gets a new number as well, so that older files stay readable.

mod entry;
mod event;
mod piece;
#[cfg(test)]
mod tests;

pub use entry::{decode, encode};
pub use piece::{decode_piece, encode_piece};

use crate::engine::{Entry, LogTime, Piece, QueueId, SecretHash};
use bytes::{Buf as _, Bytes};
use kiln_protocol::codec::{Reader, Sink as _, frame, put_varint};
use kiln_protocol::limits::{FIELDS_MAX, NAME_BYTES_MAX, STRUCTURE_BYTES_MAX};
use kiln_protocol::message::{Role, RootOptions};
use kiln_protocol::schema::{FieldDescription, FieldKind, RegisteredField};
use kiln_protocol::{DecodeError, Epoch, FieldId, GroupId, Incarnation, ObjectId, RootId, TypeId, Version};

// Bits: what each of them says is behind them, in this order.
const OPTION_EPHEMERAL: u64 = 1;
const OPTION_IDLE: u64 = 1 << 1;
const OPTION_ABSOLUTE: u64 = 1 << 2;
const OPTION_LOCKING: u64 = 1 << 3;
const OPTION_HASHED_KEYS: u64 = 1 << 4;
const OPTIONS: u64 = OPTION_EPHEMERAL | OPTION_IDLE | OPTION_ABSOLUTE | OPTION_LOCKING | OPTION_HASHED_KEYS;

/// Bytes that are not an entry or piece, although their checksum is right: they were written by another version of the program,
/// or by a faulty one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadBytes {
    /// Cut off, or a number that does not fit.
    #[error("{0}")]
    Malformed(#[from] DecodeError),
    /// A kind that does not exist.
    #[error("unknown kind {kind}")]
    Kind {
        /// The kind byte.
        kind: u8,
    },
    /// More than there may be.
    #[error("{what} is {actual}, above the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much.
        actual: u64,
        /// How much there may be.
        limit: u64,
    },
    /// A text that is none.
    #[error("{what} is not UTF-8")]
    Text {
        /// Which text.
        what: &'static str,
    },
    /// A value that does not exist.
    #[error("{what} has no value {value}")]
    Value {
        /// Of what.
        what: &'static str,
        /// The number that was there.
        value: u64,
    },
    /// It goes on behind its end.
    #[error("{bytes} bytes behind its end")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Epoch and number one after the other: each is small.
fn put_stamp(out: &mut Vec<u8>, stamp: Version) {
    put_varint(out, stamp.epoch().to_bits().into());
    put_varint(out, stamp.number());
}

fn put_fields(out: &mut Vec<u8>, fields: &[RegisteredField]) {
    put_varint(out, fields.len() as u64);
    for field in fields {
        put_varint(out, field.id.to_bits().into());
        out.put(field.group.to_bits());
        put_bytes(out, field.description.name.as_bytes());
        out.put(match field.description.kind {
            FieldKind::Scalar => 0,
            FieldKind::Block => 1,
            FieldKind::Map => 2,
            FieldKind::Counter => 3,
        });
        put_bytes(out, field.description.structure.as_bytes());
        put_bytes(out, field.description.group.as_bytes());
    }
}

fn put_options(out: &mut Vec<u8>, options: &RootOptions) {
    let RootOptions { ephemeral, idle_timeout_ms, absolute_timeout_ms, locking, hashed_keys } = options;
    let said = [
        (*ephemeral, OPTION_EPHEMERAL),
        (*idle_timeout_ms > 0, OPTION_IDLE),
        (*absolute_timeout_ms > 0, OPTION_ABSOLUTE),
        (!locking.is_empty(), OPTION_LOCKING),
        (*hashed_keys, OPTION_HASHED_KEYS),
    ];
    put_varint(out, said.iter().filter(|(is_said, _)| *is_said).map(|(_, bit)| bit).sum());
    if *idle_timeout_ms > 0 {
        put_varint(out, *idle_timeout_ms);
    }
    if *absolute_timeout_ms > 0 {
        put_varint(out, *absolute_timeout_ms);
    }
    if !locking.is_empty() {
        put_bytes(out, locking.as_bytes());
    }
}

fn put_role(out: &mut Vec<u8>, role: Role) {
    out.put(match role {
        Role::Node => 0,
        Role::Observer => 1,
    });
}

struct Fields<'a> {
    reader: Reader<'a>,
    bytes: &'a Bytes,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a Bytes) -> Self {
        Self { reader: Reader::new(bytes), bytes }
    }

    /// What was decoded, when nothing is left.
    fn finish<T>(self, decoded: T) -> Result<T, BadBytes> {
        match self.bytes.len() - self.reader.position() {
            0 => Ok(decoded),
            bytes => Err(BadBytes::Trailing { bytes }),
        }
    }

    fn number(&mut self) -> Result<u64, BadBytes> {
        Ok(self.reader.varint()?)
    }

    fn small<N: TryFrom<u64>>(&mut self, what: &'static str) -> Result<N, BadBytes> {
        let value = self.number()?;
        N::try_from(value).map_err(|_too_large| BadBytes::Value { what, value })
    }

    fn type_id(&mut self) -> Result<TypeId, BadBytes> {
        self.small("a type").map(TypeId::from_bits)
    }

    fn root(&mut self) -> Result<RootId, BadBytes> {
        self.small("a root").map(RootId::from_bits)
    }

    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, BadBytes> {
        let count = self.number()?;
        at_most(what, count, max)
    }

    fn share(&mut self, what: &'static str, bytes_max: usize) -> Result<Bytes, BadBytes> {
        let bytes = self.reader.bytes()?;
        at_most(what, bytes.len() as u64, bytes_max)?;
        Ok(self.bytes.slice_ref(bytes))
    }

    fn text(&mut self, what: &'static str, bytes_max: usize) -> Result<String, BadBytes> {
        let bytes = self.reader.bytes()?;
        at_most(what, bytes.len() as u64, bytes_max)?;
        let text = std::str::from_utf8(bytes).map_err(|_invalid| BadBytes::Text { what })?;
        Ok(text.to_owned())
    }

    fn options(&mut self) -> Result<RootOptions, BadBytes> {
        let bits = self.number()?;
        if bits & !OPTIONS != 0 {
            return Err(BadBytes::Value { what: "a root's options", value: bits });
        }
        let mut number = |bit| if bits & bit == 0 { Ok(0) } else { self.number() };
        let (idle_timeout_ms, absolute_timeout_ms) = (number(OPTION_IDLE)?, number(OPTION_ABSOLUTE)?);
        let locking = if bits & OPTION_LOCKING == 0 {
            String::new()
        } else {
            self.text("how a root's objects are locked", NAME_BYTES_MAX)?
        };
        let (ephemeral, hashed_keys) = (bits & OPTION_EPHEMERAL != 0, bits & OPTION_HASHED_KEYS != 0);
        Ok(RootOptions { ephemeral, idle_timeout_ms, absolute_timeout_ms, locking, hashed_keys })
    }

    fn time(&mut self) -> Result<LogTime, BadBytes> {
        self.number().map(LogTime::from_bits)
    }

    fn queue(&mut self) -> Result<QueueId, BadBytes> {
        self.small("a queue").map(QueueId::from_bits)
    }

    fn stamp(&mut self) -> Result<Version, BadBytes> {
        let (epoch, value) = (self.epoch()?, self.number()?);
        Version::new(epoch, value).ok_or(BadBytes::Value { what: "a version or token", value })
    }

    fn role(&mut self) -> Result<Role, BadBytes> {
        match self.reader.u8()? {
            0 => Ok(Role::Node),
            1 => Ok(Role::Observer),
            value => Err(BadBytes::Value { what: "a role", value: value.into() }),
        }
    }

    fn secret(&mut self) -> Result<SecretHash, BadBytes> {
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            *byte = self.reader.u8()?;
        }
        Ok(SecretHash::from_bytes(bytes))
    }

    fn incarnation(&mut self) -> Result<Incarnation, BadBytes> {
        self.number().map(Incarnation::from_bits)
    }

    fn object(&mut self) -> Result<ObjectId, BadBytes> {
        self.number().map(ObjectId::from_bits)
    }

    fn epoch(&mut self) -> Result<Epoch, BadBytes> {
        self.small("an epoch").map(Epoch::from_bits)
    }

    fn fields(&mut self) -> Result<Vec<RegisteredField>, BadBytes> {
        let count = self.count("the number of fields", FIELDS_MAX)?;
        (0..count).map(|_| self.field()).collect()
    }

    fn field(&mut self) -> Result<RegisteredField, BadBytes> {
        let id = FieldId::from_bits(self.small("a field")?);
        let group = GroupId::from_bits(self.reader.u8()?);
        let name = self.text("a field's name", NAME_BYTES_MAX)?;
        let kind = match self.reader.u8()? {
            0 => FieldKind::Scalar,
            1 => FieldKind::Block,
            2 => FieldKind::Map,
            3 => FieldKind::Counter,
            value => return Err(BadBytes::Value { what: "the kind of a field", value: value.into() }),
        };
        let structure = self.text("the structure of a field", STRUCTURE_BYTES_MAX)?;
        let group_name = self.text("a group's name", NAME_BYTES_MAX)?;
        let description = FieldDescription { name, kind, structure, group: group_name };
        Ok(RegisteredField { id, group, description })
    }
}

fn at_most(what: &'static str, actual: u64, limit: usize) -> Result<usize, BadBytes> {
    let bounded = usize::try_from(actual).ok().filter(|actual| *actual <= limit);
    bounded.ok_or(BadBytes::Limit { what, actual, limit: limit as u64 })
}

/// Takes what [`frame`] appended off the front; `None` at the end.
pub(super) fn unframed(body: &mut Bytes) -> Result<Option<Bytes>, BadBytes> {
    if body.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader::new(body);
    let frame = body.slice_ref(reader.bytes()?);
    body.advance(reader.position());
    Ok(Some(frame))
}

/// Appends an entry as records have it: its length, how long after the record it was made, the entry.
pub(super) fn put_entry(out: &mut Vec<u8>, record: LogTime, time: LogTime, entry: &Entry) {
    frame(out, |out| {
        put_varint(out, time.to_bits().saturating_sub(record.to_bits()));
        encode(out, entry);
    });
}

/// Appends a piece as chunks have it: its length, then the piece.
pub(super) fn put_piece(out: &mut Vec<u8>, piece: &Piece) {
    frame(out, |out| encode_piece(out, piece));
}

/// Takes a piece off the front of a chunk; `None` at the end.
pub(super) fn take_piece(chunk: &mut Bytes) -> Result<Option<Piece>, BadBytes> {
    unframed(chunk)?.map(|frame| decode_piece(&frame)).transpose()
}

/// Takes an entry of a record off the front of its body; `None` at the end.
pub(super) fn take_entry(body: &mut Bytes, record: LogTime) -> Result<Option<(LogTime, Entry)>, BadBytes> {
    let Some(mut frame) = unframed(body)? else { return Ok(None) };
    let mut reader = Reader::new(&frame);
    let time = LogTime::from_bits(record.to_bits().saturating_add(reader.varint()?));
    frame.advance(reader.position());
    decode(&frame).map(|entry| Some((time, entry)))
}
