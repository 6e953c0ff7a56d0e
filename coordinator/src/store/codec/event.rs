//! One event in the queue of a listener group.

use super::{BadBytes, Fields, put_bytes, put_stamp};
use crate::engine::QueuedEvent;
use kiln_protocol::codec::{Sink as _, put_varint};
use kiln_protocol::limits::{CHANGED_SLOTS_MAX, ENTRY_KEY_BYTES_MAX, FIELDS_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX};
use kiln_protocol::message::{Change, ChangedSlot, SlotChange};
use kiln_protocol::{EventId, FieldId, GroupId, Incarnation};

const CREATED: u8 = 1;
const UPDATED: u8 = 2;
const REMOVED: u8 = 3;
const EXPIRED: u8 = 4;
const RENAMED: u8 = 5;
const MISSED: u8 = 6;
const GAP: u8 = 7;

const ADDED: u8 = 1;
const CHANGED: u8 = 2;
const TAKEN_OUT: u8 = 3;
/// Beside one of these: a key follows.
const OF_ENTRY: u8 = 1 << 7;

pub(super) fn put_event(out: &mut Vec<u8>, event: &QueuedEvent) {
    let QueuedEvent { id, object, key, writer, change } = event;
    put_varint(out, id.to_bits());
    put_varint(out, object.to_bits());
    put_bytes(out, key);
    // Nobody is 0: incarnations begin at 1.
    let nobody = (Incarnation::default(), String::new());
    let (incarnation, name) = writer.as_ref().unwrap_or(&nobody);
    put_varint(out, incarnation.to_bits());
    put_bytes(out, name.as_bytes());
    match change {
        Change::Created => out.put(CREATED),
        Change::Updated { group, version, fields, slots, writes: _ } => {
            out.put(UPDATED);
            out.put(group.to_bits());
            put_stamp(out, *version);
            put_varint(out, fields.len() as u64);
            fields.iter().for_each(|field| put_varint(out, field.to_bits().into()));
            put_varint(out, slots.len() as u64);
            slots.iter().for_each(|slot| put_slot(out, slot));
        }
        Change::Removed => out.put(REMOVED),
        Change::Expired => out.put(EXPIRED),
        Change::Renamed { to } => {
            out.put(RENAMED);
            put_bytes(out, to);
        }
        Change::Missed { events } => {
            out.put(MISSED);
            put_varint(out, *events);
        }
        Change::Gap => out.put(GAP),
    }
}

fn put_slot(out: &mut Vec<u8>, slot: &ChangedSlot) {
    let ChangedSlot { field, entry, change } = slot;
    put_varint(out, field.to_bits().into());
    let change = match change {
        SlotChange::Added => ADDED,
        SlotChange::Changed => CHANGED,
        SlotChange::Removed => TAKEN_OUT,
    };
    out.put(change | if entry.is_some() { OF_ENTRY } else { 0 });
    if let Some(key) = entry {
        put_bytes(out, key);
    }
}

impl Fields<'_> {
    fn slot(&mut self) -> Result<ChangedSlot, BadBytes> {
        let field = FieldId::from_bits(self.small("a field")?);
        let bits = self.reader.u8()?;
        let change = match bits & !OF_ENTRY {
            ADDED => SlotChange::Added,
            CHANGED => SlotChange::Changed,
            TAKEN_OUT => SlotChange::Removed,
            value => return Err(BadBytes::Value { what: "what became of a slot", value: value.into() }),
        };
        let entry =
            if bits & OF_ENTRY == 0 { None } else { Some(self.share("the length of a key", ENTRY_KEY_BYTES_MAX)?) };
        Ok(ChangedSlot { field, entry, change })
    }

    pub(super) fn event(&mut self) -> Result<EventId, BadBytes> {
        self.number().map(EventId::from_bits)
    }

    pub(super) fn queued_event(&mut self) -> Result<QueuedEvent, BadBytes> {
        let (id, object) = (self.event()?, self.object()?);
        let key = self.share("the length of a key", KEY_BYTES_MAX)?;
        let (incarnation, name) = (self.incarnation()?, self.text("a node's name", NAME_BYTES_MAX)?);
        let writer = (incarnation != Incarnation::default()).then_some((incarnation, name));
        let change = match self.reader.u8()? {
            CREATED => Change::Created,
            UPDATED => {
                let (group, version) = (GroupId::from_bits(self.reader.u8()?), self.stamp()?);
                let count = self.count("the number of fields", FIELDS_MAX)?;
                let field = |read: &mut Self| read.small("a field").map(FieldId::from_bits);
                let fields = (0..count).map(|_| field(self)).collect::<Result<_, _>>()?;
                let count = self.count("the number of slots", CHANGED_SLOTS_MAX)?;
                let slots = (0..count).map(|_| self.slot()).collect::<Result<_, _>>()?;
                Change::Updated { group, version, fields, slots, writes: None }
            }
            REMOVED => Change::Removed,
            EXPIRED => Change::Expired,
            RENAMED => Change::Renamed { to: self.share("the length of a key", KEY_BYTES_MAX)? },
            MISSED => Change::Missed { events: self.number()? },
            GAP => Change::Gap,
            value => return Err(BadBytes::Value { what: "what happened to an object", value: value.into() }),
        };
        Ok(QueuedEvent { id, object, key, writer, change })
    }
}
