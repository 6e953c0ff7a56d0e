//! One change of replicated state.

use super::{BadBytes, Fields, put_bytes, put_fields, put_options, put_role, put_stamp};
use crate::engine::Entry;
use bytes::Bytes;
use kiln_protocol::codec::{Sink as _, put_varint};
use kiln_protocol::limits::{
    KEY_BYTES_MAX, NAME_BYTES_MAX, PARTS_MAX, RECORD_BYTES_MAX, STRUCTURE_BYTES_MAX, USES_MAX,
};
use kiln_protocol::message::Part;
use kiln_protocol::{CommitSeq, GroupId, Incarnation, Token, Version};
use smallvec::SmallVec;

const ATTACHED: u8 = 1;
const GONE: u8 = 2;
const TYPE_ADDED: u8 = 3;
const FIELDS_ADDED: u8 = 4;
const ROOT_ADDED: u8 = 5;
const CREATED: u8 = 6;
const COMMITTED: u8 = 7;
const REFUSED: u8 = 8;
const REMOVED: u8 = 9;
const RENAMED: u8 = 10;
const STARTED: u8 = 11;
const EXPIRED: u8 = 12;
const USED: u8 = 13;
const QUEUE_ADDED: u8 = 14;
const QUEUE_REMOVED: u8 = 15;
const HEARD: u8 = 16;

/// Acknowledged events of one entry: as many as a queue has.
const HEARD_MAX: usize = 1 << 16;

/// Appends the bytes of an entry.
pub fn encode(out: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Committed { writer, seq, parts } => {
            out.put(COMMITTED);
            put_varint(out, writer.to_bits());
            put_varint(out, seq.to_bits());
            put_varint(out, parts.len() as u64);
            parts.iter().for_each(|part| put_part(out, part));
        }
        Entry::Refused { writer, first, last } => {
            out.put(REFUSED);
            put_varint(out, writer.to_bits());
            put_varint(out, first.to_bits());
            put_varint(out, last.to_bits());
        }
        Entry::Created { by, object, root, key, writes } => {
            out.put(CREATED);
            put_by(out, *by);
            put_varint(out, object.to_bits());
            put_varint(out, root.to_bits().into());
            put_bytes(out, key);
            put_bytes(out, writes);
        }
        Entry::Removed { by, object } => {
            out.put(REMOVED);
            put_by(out, *by);
            put_varint(out, object.to_bits());
        }
        Entry::Renamed { by, object, key } => {
            out.put(RENAMED);
            put_by(out, *by);
            put_varint(out, object.to_bits());
            put_bytes(out, key);
        }
        Entry::Expired { object } => {
            out.put(EXPIRED);
            put_varint(out, object.to_bits());
        }
        Entry::Used { objects } => {
            out.put(USED);
            put_varint(out, objects.len() as u64);
            objects.iter().for_each(|object| put_varint(out, object.to_bits()));
        }
        Entry::Heard { queue, events } => {
            out.put(HEARD);
            put_varint(out, queue.to_bits().into());
            put_varint(out, events.len() as u64);
            events.iter().for_each(|event| put_varint(out, event.to_bits()));
        }
        Entry::QueueAdded { .. }
        | Entry::QueueRemoved { .. }
        | Entry::Started { .. }
        | Entry::Attached { .. }
        | Entry::Gone { .. }
        | Entry::TypeAdded { .. }
        | Entry::FieldsAdded { .. }
        | Entry::RootAdded { .. } => encode_rare(out, entry),
    }
}

/// What there are only few of.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others are matched in `encode`")]
fn encode_rare(out: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Started { epoch, history, skipped } => {
            out.put(STARTED);
            put_varint(out, epoch.to_bits().into());
            put_varint(out, history.to_bits().into());
            put_varint(out, *skipped);
        }
        Entry::Attached { incarnation, name, role, secret } => {
            out.put(ATTACHED);
            put_varint(out, incarnation.to_bits());
            put_bytes(out, name.as_bytes());
            put_role(out, *role);
            out.put_slice(&secret.to_bytes());
        }
        Entry::Gone { incarnation, applied } => {
            out.put(GONE);
            put_varint(out, incarnation.to_bits());
            put_varint(out, applied.to_bits());
        }
        Entry::TypeAdded { by, id, name } => {
            out.put(TYPE_ADDED);
            put_by(out, *by);
            put_varint(out, id.to_bits().into());
            put_bytes(out, name.as_bytes());
        }
        Entry::FieldsAdded { by, id, fields } => {
            out.put(FIELDS_ADDED);
            put_by(out, *by);
            put_varint(out, id.to_bits().into());
            put_fields(out, fields);
        }
        Entry::RootAdded { by, root, name, key, type_id, options } => {
            out.put(ROOT_ADDED);
            put_by(out, *by);
            put_varint(out, root.to_bits().into());
            put_bytes(out, name.as_bytes());
            put_bytes(out, key.as_bytes());
            put_varint(out, type_id.to_bits().into());
            put_options(out, options);
        }
        Entry::QueueAdded { by, queue, root, name } => {
            out.put(QUEUE_ADDED);
            put_by(out, *by);
            put_varint(out, queue.to_bits().into());
            put_varint(out, root.to_bits().into());
            put_bytes(out, name.as_bytes());
        }
        Entry::QueueRemoved { by, queue } => {
            out.put(QUEUE_REMOVED);
            put_by(out, *by);
            put_varint(out, queue.to_bits().into());
        }
        _ => {}
    }
}

/// Reads an entry.
///
/// # Errors
/// When the bytes are not one.
pub fn decode(bytes: &Bytes) -> Result<Entry, BadBytes> {
    let mut read = Fields::new(bytes);
    let entry = match read.reader.u8()? {
        COMMITTED => {
            let (writer, seq) = (read.incarnation()?, read.commit()?);
            let count = read.count("the number of parts of a commit", PARTS_MAX)?;
            let parts = (0..count).map(|_| read.part()).collect::<Result<SmallVec<_>, _>>()?;
            Entry::Committed { writer, seq, parts }
        }
        REFUSED => Entry::Refused { writer: read.incarnation()?, first: read.commit()?, last: read.commit()? },
        CREATED => Entry::Created {
            by: read.by()?,
            object: read.object()?,
            root: read.root()?,
            key: read.share("the length of a key", KEY_BYTES_MAX)?,
            writes: read.share("the length of an object", RECORD_BYTES_MAX)?,
        },
        REMOVED => Entry::Removed { by: read.by()?, object: read.object()? },
        RENAMED => Entry::Renamed {
            by: read.by()?,
            object: read.object()?,
            key: read.share("the length of a key", KEY_BYTES_MAX)?,
        },
        EXPIRED => Entry::Expired { object: read.object()? },
        USED => {
            let count = read.count("the number of objects that were used", USES_MAX)?;
            Entry::Used { objects: (0..count).map(|_| read.object()).collect::<Result<_, _>>()? }
        }
        HEARD => {
            let queue = read.queue()?;
            let count = read.count("the number of events that were heard", HEARD_MAX)?;
            Entry::Heard { queue, events: (0..count).map(|_| read.event()).collect::<Result<_, _>>()? }
        }
        QUEUE_ADDED => Entry::QueueAdded {
            by: read.by()?,
            queue: read.queue()?,
            root: read.root()?,
            name: read.text("a listener group's name", NAME_BYTES_MAX)?,
        },
        QUEUE_REMOVED => Entry::QueueRemoved { by: read.by()?, queue: read.queue()? },
        STARTED => Entry::Started { epoch: read.epoch()?, history: read.epoch()?, skipped: read.number()? },
        ATTACHED => Entry::Attached {
            incarnation: read.incarnation()?,
            name: read.text("a node's name", NAME_BYTES_MAX)?,
            role: read.role()?,
            secret: read.secret()?,
        },
        GONE => Entry::Gone { incarnation: read.incarnation()?, applied: read.commit()? },
        TYPE_ADDED => {
            Entry::TypeAdded { by: read.by()?, id: read.type_id()?, name: read.text("a type's name", NAME_BYTES_MAX)? }
        }
        FIELDS_ADDED => Entry::FieldsAdded { by: read.by()?, id: read.type_id()?, fields: read.fields()? },
        ROOT_ADDED => Entry::RootAdded {
            by: read.by()?,
            root: read.root()?,
            name: read.text("a root's name", NAME_BYTES_MAX)?,
            key: read.text("the structure of a key", STRUCTURE_BYTES_MAX)?,
            type_id: read.type_id()?,
            options: read.options()?,
        },
        kind => return Err(BadBytes::Kind { kind }),
    };
    read.finish(entry)
}

/// Nobody is 0: incarnations begin at 1.
fn put_by(out: &mut Vec<u8>, by: Option<Incarnation>) {
    put_varint(out, by.unwrap_or_default().to_bits());
}

fn put_part(out: &mut Vec<u8>, part: &Part) {
    put_varint(out, part.object.to_bits());
    out.put(part.group.to_bits());
    if part.group != GroupId::COMMUTATIVE {
        put_stamp(out, Version::from_bits(part.token.to_bits()));
    }
    put_stamp(out, part.version);
    put_bytes(out, &part.writes);
}

impl Fields<'_> {
    fn commit(&mut self) -> Result<CommitSeq, BadBytes> {
        self.number().map(CommitSeq::from_bits)
    }

    fn by(&mut self) -> Result<Option<Incarnation>, BadBytes> {
        let by = self.incarnation()?;
        Ok((by != Incarnation::default()).then_some(by))
    }

    fn part(&mut self) -> Result<Part, BadBytes> {
        let object = self.object()?;
        let group = GroupId::from_bits(self.reader.u8()?);
        let token = if group == GroupId::COMMUTATIVE { Version::default() } else { self.stamp()? };
        Ok(Part {
            object,
            group,
            token: Token::from_bits(token.to_bits()),
            version: self.stamp()?,
            writes: self.share("the length of a part", RECORD_BYTES_MAX)?,
        })
    }
}
