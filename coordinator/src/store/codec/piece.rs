//! One piece of a snapshot.

use super::event::put_event;
use super::{BadBytes, Fields, put_bytes, put_fields, put_options, put_role, put_stamp};
use crate::engine::{Cut, LogSeq, LogTime, Piece};
use bytes::Bytes;
use kiln_protocol::codec::{Sink as _, put_varint};
use kiln_protocol::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, STRUCTURE_BYTES_MAX};
use kiln_protocol::{CommitSeq, GroupId};
use std::sync::Arc;

const START: u8 = 1;
const TYPE: u8 = 2;
const ROOT: u8 = 3;
const LIFE: u8 = 4;
const OBJECT: u8 = 5;
const TIMED_OBJECT: u8 = 6;
const QUEUE: u8 = 7;
const EVENT: u8 = 8;

/// The groups that a byte can name.
const VERSIONS_MAX: usize = 256;
/// More refused commits than anybody remembers.
const REFUSED_MAX: usize = 1 << 16;

/// Appends the bytes of a piece.
pub fn encode_piece(out: &mut Vec<u8>, piece: &Piece) {
    match piece {
        Piece::Object { object, root, key, versions, times, writes } => {
            out.put(if times.is_some() { TIMED_OBJECT } else { OBJECT });
            put_varint(out, object.to_bits());
            put_varint(out, root.to_bits().into());
            put_bytes(out, key);
            put_varint(out, versions.len() as u64);
            for (group, version) in versions {
                out.put(group.to_bits());
                put_stamp(out, *version);
            }
            if let Some((created, used)) = times {
                put_varint(out, created.to_bits());
                put_varint(out, used.to_bits());
            }
            put_bytes(out, writes);
        }
        Piece::Queue { queue, root, name, last } => {
            out.put(QUEUE);
            put_varint(out, queue.to_bits().into());
            put_varint(out, root.to_bits().into());
            put_bytes(out, name.as_bytes());
            put_varint(out, last.to_bits());
        }
        Piece::Event { queue, event } => {
            out.put(EVENT);
            put_varint(out, queue.to_bits().into());
            put_event(out, event);
        }
        Piece::Start(cut) => {
            out.put(START);
            put_varint(out, cut.seq.to_bits());
            put_varint(out, cut.time.to_bits());
            put_varint(out, cut.epoch.to_bits().into());
            put_varint(out, cut.history.to_bits().into());
            put_varint(out, cut.last_incarnation.to_bits());
            put_varint(out, cut.last_object);
        }
        Piece::Type { id, name, fields } => {
            out.put(TYPE);
            put_varint(out, id.to_bits().into());
            put_bytes(out, name.as_bytes());
            put_fields(out, fields);
        }
        Piece::Root { root, name, key, type_id, options } => {
            out.put(ROOT);
            put_varint(out, root.to_bits().into());
            put_bytes(out, name.as_bytes());
            put_bytes(out, key.as_bytes());
            put_varint(out, type_id.to_bits().into());
            put_options(out, options);
        }
        Piece::Life { incarnation, name, role, secret, living, applied, refused, forgotten } => {
            out.put(LIFE);
            put_varint(out, incarnation.to_bits());
            put_bytes(out, name.as_bytes());
            put_role(out, *role);
            out.put_slice(&secret.to_bytes());
            out.put((*living).into());
            put_varint(out, applied.to_bits());
            put_varint(out, refused.len() as u64);
            refused.iter().for_each(|seq| put_varint(out, seq.to_bits()));
            put_varint(out, forgotten.to_bits());
        }
    }
}

/// Reads a piece.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_piece(bytes: &Bytes) -> Result<Piece, BadBytes> {
    let mut read = Fields::new(bytes);
    let piece = match read.reader.u8()? {
        kind @ (OBJECT | TIMED_OBJECT) => {
            let (object, root) = (read.object()?, read.root()?);
            let key = read.share("the length of a key", KEY_BYTES_MAX)?;
            let count = read.count("the number of groups", VERSIONS_MAX)?;
            let version = |read: &mut Fields<'_>| Ok((GroupId::from_bits(read.reader.u8()?), read.stamp()?));
            let versions = (0..count).map(|_| version(&mut read)).collect::<Result<_, BadBytes>>()?;
            let times = if kind == TIMED_OBJECT { Some((read.time()?, read.time()?)) } else { None };
            let writes = read.share("the length of an object", RECORD_BYTES_MAX)?;
            Piece::Object { object, root, key, versions, times, writes }
        }
        QUEUE => Piece::Queue {
            queue: read.queue()?,
            root: read.root()?,
            name: read.text("a listener group's name", NAME_BYTES_MAX)?,
            last: read.event()?,
        },
        EVENT => Piece::Event { queue: read.queue()?, event: Arc::new(read.queued_event()?) },
        START => Piece::Start(Cut {
            seq: LogSeq::from_bits(read.number()?),
            time: LogTime::from_bits(read.number()?),
            epoch: read.epoch()?,
            history: read.epoch()?,
            last_incarnation: read.incarnation()?,
            last_object: read.number()?,
        }),
        TYPE => Piece::Type {
            id: read.type_id()?,
            name: read.text("a type's name", NAME_BYTES_MAX)?,
            fields: read.fields()?,
        },
        ROOT => Piece::Root {
            root: read.root()?,
            name: read.text("a root's name", NAME_BYTES_MAX)?,
            key: read.text("the structure of a key", STRUCTURE_BYTES_MAX)?,
            type_id: read.type_id()?,
            options: read.options()?,
        },
        LIFE => {
            let (incarnation, name) = (read.incarnation()?, read.text("a node's name", NAME_BYTES_MAX)?);
            let (role, secret) = (read.role()?, read.secret()?);
            let living = match read.reader.u8()? {
                0 => false,
                1 => true,
                value => return Err(BadBytes::Value { what: "whether a node lives", value: value.into() }),
            };
            let applied = CommitSeq::from_bits(read.number()?);
            let count = read.count("the number of refused commits", REFUSED_MAX)?;
            let refused = (0..count).map(|_| read.number().map(CommitSeq::from_bits)).collect::<Result<_, _>>()?;
            let forgotten = CommitSeq::from_bits(read.number()?);
            Piece::Life { incarnation, name, role, secret, living, applied, refused, forgotten }
        }
        kind => return Err(BadBytes::Kind { kind }),
    };
    read.finish(piece)
}
