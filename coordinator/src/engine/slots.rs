//! The slots of one object as bytes: scalars, blocks and counters, encoded as writes and sorted by field.
//!
//! Every function here takes time in proportion to the object and the commit together, never to their product: a commit
//! of many writes is gathered first and merged once.

use kiln_protocol::{FieldId, Write, Writes};
use smallvec::SmallVec;
use std::ops::Range;

/// Writes of one commit that are tried in place one by one before the rest is gathered.
const IN_PLACE_MAX: usize = 16;
/// Three for the field, eight for the scalar.
const SCALAR_WRITE_BYTES_MAX: usize = 11;

/// The next slot and where it is.
fn read_next(writes: &mut Writes<'_>) -> Option<(FieldId, Range<usize>)> {
    let start = Writes::position(writes);
    let field = writes.next()?.ok()?.field();
    Some((field, start..Writes::position(writes)))
}

fn locate(slots: &[u8], field: FieldId) -> Option<Range<usize>> {
    let mut writes = Writes::new(slots);
    loop {
        let (found, range) = read_next(&mut writes)?;
        if found >= field {
            return (found == field).then_some(range);
        }
    }
}

/// How long the slot of a field is; 0 when it is absent.
pub(super) fn slot_len(slots: &[u8], field: FieldId) -> usize {
    locate(slots, field).map_or(0, |range| range.len())
}

/// The new content of a slot.
enum Slot<'a> {
    /// An encoded write.
    Set(&'a [u8]),
    /// An encoded write of a counter's sum.
    Sum(Vec<u8>),
    /// Back to the default.
    Unset,
}

impl Slot<'_> {
    fn encoded(&self) -> &[u8] {
        match self {
            Self::Set(encoded) => encoded,
            Self::Sum(encoded) => encoded,
            Self::Unset => &[],
        }
    }
}

/// Gathers the slot writes of a commit; the last write of a field wins, adds are summed.
pub(super) struct Gathered<'a> {
    slots: SmallVec<[(FieldId, Slot<'a>); 4]>,
    tried: usize,
}

impl<'a> Gathered<'a> {
    pub(super) fn new() -> Self {
        Self { slots: SmallVec::new(), tried: 0 }
    }

    /// Takes one write: in place when nothing moves, else into the gathered ones. Map writes are none of its business.
    pub(super) fn write(&mut self, slots: &mut [u8], write: &Write<'_>, encoded: &'a [u8]) {
        if self.slots.is_empty() && self.tried < IN_PLACE_MAX {
            self.tried += 1;
            if in_place(slots, write, encoded) {
                return;
            }
        }
        let field = write.field();
        let at = self.slots.binary_search_by_key(&field, |(field, _)| *field);
        let slot = match *write {
            Write::Scalar { .. } | Write::Block { .. } => Slot::Set(encoded),
            Write::Unset { .. } => Slot::Unset,
            Write::Add { amount, .. } => {
                let sum = match at {
                    Ok(at) => scalar(self.slots[at].1.encoded()),
                    Err(_) => locate(slots, field).map_or(0, |range| scalar(&slots[range])),
                };
                let bits = sum.wrapping_add(amount.cast_unsigned());
                let mut encoded = Vec::with_capacity(SCALAR_WRITE_BYTES_MAX);
                Write::Scalar { field, bits }.encode(&mut encoded);
                Slot::Sum(encoded)
            }
            Write::MapPut { .. } | Write::MapRemove { .. } | Write::MapClear { .. } => return,
        };
        match at {
            Ok(at) => self.slots[at].1 = slot,
            Err(at) => self.slots.insert(at, (field, slot)),
        }
    }

    /// The slots with the gathered writes in them, behind `prefix` bytes that stay; `None` when they are as they were.
    pub(super) fn merge(self, flat: &[u8], prefix: usize) -> Option<Box<[u8]>> {
        if self.slots.is_empty() {
            return None;
        }
        let slots = &flat[prefix..];
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(self.slots.len() * 2 + 2);
        pieces.push(&flat[..prefix]);
        let mut writes = Writes::new(slots);
        let mut next = read_next(&mut writes);
        let mut kept = 0;
        for (field, slot) in &self.slots {
            while next.as_ref().is_some_and(|(next, _)| next < field) {
                next = read_next(&mut writes);
            }
            let at = next.as_ref().map_or(slots.len(), |(_, range)| range.start);
            pieces.push(&slots[kept..at]);
            kept = at;
            if let Some((_, range)) = next.take_if(|(next, _)| next == field) {
                kept = range.end;
                next = read_next(&mut writes);
            }
            pieces.push(slot.encoded());
        }
        pieces.push(&slots[kept..]);
        // Exactly as long as needed: a large object is worth no spare capacity.
        let mut merged = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        for piece in pieces {
            merged.extend_from_slice(piece);
        }
        Some(merged.into_boxed_slice())
    }
}

/// Overwrites a slot with one of the same length. Returns whether that was possible.
fn in_place(slots: &mut [u8], write: &Write<'_>, encoded: &[u8]) -> bool {
    let Some(range) = locate(slots, write.field()) else {
        return matches!(write, Write::Unset { .. });
    };
    let slot = &mut slots[range];
    match *write {
        Write::Scalar { .. } | Write::Block { .. } if slot.len() == encoded.len() => {
            slot.copy_from_slice(encoded);
            true
        }
        Write::Add { amount, .. } => {
            let sum = scalar(slot).wrapping_add(amount.cast_unsigned());
            if let Some(bits) = slot.last_chunk_mut() {
                *bits = sum.to_le_bytes();
            }
            true
        }
        Write::Scalar { .. }
        | Write::Block { .. }
        | Write::Unset { .. }
        | Write::MapPut { .. }
        | Write::MapRemove { .. }
        | Write::MapClear { .. } => false,
    }
}

/// The bits of an encoded scalar write; 0 of none.
fn scalar(encoded: &[u8]) -> u64 {
    encoded.last_chunk().map_or(0, |bits| u64::from_le_bytes(*bits))
}
