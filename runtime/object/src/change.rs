//! What a guard changed: typed slot writes, before they are encoded for the wire and applied to the heap.

use crate::value::{BadValue, Stored, ValueError};
use kiln_heap::{ArchivedBuf, SlotWrite};
use kiln_protocol::limits::RECORD_BYTES_MAX;
use smallvec::SmallVec;

/// The write of one slot. Slots count the shared fields of the struct, those of nested structs included, from 0.
#[derive(Clone, Debug)]
pub enum Change {
    /// Sets a scalar; in a new object also the start of a counter.
    Scalar {
        /// The slot.
        slot: u16,
        /// The slot's eight bytes, as a little-endian number.
        bits: u64,
    },
    /// Sets a block.
    Block {
        /// The slot.
        slot: u16,
        /// The block.
        value: ArchivedBuf,
    },
    /// Adds to a counter.
    Add {
        /// The slot.
        slot: u16,
        /// How much; wraps.
        amount: i64,
    },
    /// Puts an entry into a map.
    MapPut {
        /// The slot.
        slot: u16,
        /// The entry's key, in canonical form.
        key: Vec<u8>,
        /// The entry's value.
        value: ArchivedBuf,
    },
    /// Removes an entry from a map.
    MapRemove {
        /// The slot.
        slot: u16,
        /// The entry's key, in canonical form.
        key: Vec<u8>,
    },
    /// Removes every entry from a map.
    MapClear {
        /// The slot.
        slot: u16,
    },
}

impl Change {
    /// The slot that is written.
    #[must_use]
    pub const fn slot(&self) -> u16 {
        match *self {
            Self::Scalar { slot, .. }
            | Self::Block { slot, .. }
            | Self::Add { slot, .. }
            | Self::MapPut { slot, .. }
            | Self::MapRemove { slot, .. }
            | Self::MapClear { slot } => slot,
        }
    }

    /// Whether its value is longer than other nodes take.
    #[must_use]
    pub fn is_too_long(&self) -> bool {
        match self {
            Self::Block { value, .. } | Self::MapPut { value, .. } => check_length(value).is_err(),
            Self::Scalar { .. } | Self::Add { .. } | Self::MapRemove { .. } | Self::MapClear { .. } => false,
        }
    }

    /// The bytes of its key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Block { value, .. } => value.bytes().len(),
            Self::MapPut { key, value, .. } => key.len() + value.bytes().len(),
            Self::MapRemove { key, .. } => key.len(),
            Self::Scalar { .. } | Self::Add { .. } | Self::MapClear { .. } => size_of::<u64>(),
        }
    }

    /// The same write as the heap takes it.
    #[inline]
    #[must_use]
    pub fn as_write(&self) -> SlotWrite<'_> {
        match self {
            Self::Scalar { slot, bits } => SlotWrite::Scalar { slot: *slot, bits: *bits },
            Self::Block { slot, value } => SlotWrite::Archived { slot: *slot, value },
            Self::Add { slot, amount } => SlotWrite::Add { slot: *slot, amount: *amount },
            Self::MapPut { slot, key, value } => SlotWrite::MapPutArchived { slot: *slot, key, value },
            Self::MapRemove { slot, key } => SlotWrite::MapRemove { slot: *slot, key },
            Self::MapClear { slot } => SlotWrite::MapClear { slot: *slot },
        }
    }
}

/// The slot writes of one commit or of one new object, in the order of the fields. A map's clear comes before its puts.
#[derive(Debug, Default)]
pub struct Changes {
    writes: SmallVec<[Change; 4]>,
    left_out: Vec<ValueError>,
    kept_local: Option<Box<KeptLocal>>,
    /// Values that are too long are taken for now, and the last of them is told here.
    too_long: Option<Option<BadValue>>,
}

/// Why changes stay in this process: the fields that cannot be archived, and whose policy says so.
#[derive(Debug, Default)]
pub struct KeptLocal {
    /// Those that are not among the changes.
    pub unarchived: Vec<ValueError>,
    /// Those that are among them nevertheless, and are only too long for other nodes.
    pub too_long: Vec<ValueError>,
    /// Whether the object is not distributed any more.
    pub stops: bool,
}

/// What becomes of the changes of a field that cannot be archived, where they are neither refused nor left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeepLocal {
    /// They stay in this process until they can be distributed.
    ForNow,
    /// They stay in this process, and so does every later one of the object.
    ForGood,
}

fn check_length(value: &ArchivedBuf) -> Result<(), BadValue> {
    let (bytes, max) = (value.bytes().len(), RECORD_BYTES_MAX);
    if bytes > max { Err(BadValue::TooLong { bytes, max }) } else { Ok(()) }
}

impl Changes {
    /// No change.
    #[inline]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a change.
    #[inline]
    pub fn push(&mut self, change: Change) {
        self.writes.push(change);
    }

    #[inline]
    pub(crate) fn push_stored(&mut self, slot: u16, stored: Stored) -> Result<(), BadValue> {
        let change = match stored {
            Stored::Scalar(bits) => Change::Scalar { slot, bits },
            Stored::Block(value) => {
                self.check_length(&value)?;
                Change::Block { slot, value }
            }
        };
        self.push(change);
        Ok(())
    }

    pub(crate) fn check_length(&mut self, value: &ArchivedBuf) -> Result<(), BadValue> {
        let checked = check_length(value);
        match &mut self.too_long {
            Some(too_long) => {
                *too_long = checked.err().or_else(|| too_long.take());
                Ok(())
            }
            None => checked,
        }
    }

    /// The changes, in order.
    #[inline]
    pub fn iter(&self) -> std::slice::Iter<'_, Change> {
        self.writes.iter()
    }

    /// The changes, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Change] {
        &self.writes
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Forgets all changes, keeping the room they took.
    pub fn clear(&mut self) {
        self.writes.clear();
        self.left_out.clear();
        self.kept_local = None;
    }

    /// The changed fields that are not among the changes, because they cannot be archived and may be left out.
    #[must_use]
    pub fn take_left_out(&mut self) -> Vec<ValueError> {
        std::mem::take(&mut self.left_out)
    }

    /// Whether the changes must stay in this process, and why.
    #[must_use]
    pub const fn take_kept_local(&mut self) -> Option<Box<KeptLocal>> {
        self.kept_local.take()
    }
}

/// For the derive: collects a field that is left out when it cannot be archived.
pub fn collect_or_leave_out(
    out: &mut Changes,
    name: &str,
    collect: impl FnOnce(&mut Changes) -> Result<(), ValueError>,
) {
    let before = out.writes.len();
    if let Err(error) = collect(out) {
        out.writes.truncate(before);
        out.left_out.push(error.within(name));
    }
}

/// For the derive: collects a field whose changes stay in this process when it cannot be archived.
pub fn collect_or_keep_local(
    out: &mut Changes,
    name: &str,
    policy: KeepLocal,
    collect: impl FnOnce(&mut Changes) -> Result<(), ValueError>,
) {
    let before = out.writes.len();
    out.too_long = Some(None);
    let collected = collect(out);
    let too_long = out.too_long.take().flatten();
    let (unarchived, too_long) = match collected {
        Err(error) => {
            out.writes.truncate(before);
            (Some(error), None)
        }
        Ok(()) => (None, too_long.map(ValueError::from)),
    };
    if unarchived.is_some() || too_long.is_some() {
        let kept = out.kept_local.get_or_insert_default();
        kept.unarchived.extend(unarchived.map(|error| error.within(name)));
        kept.too_long.extend(too_long.map(|error| error.within(name)));
        kept.stops |= policy == KeepLocal::ForGood;
    }
}

/// For the derive: collects a nested struct. What that leaves out has the name of the field before its own.
///
/// # Errors
/// Those of the fields that may not be left out.
pub fn collect_nested(
    out: &mut Changes,
    name: &str,
    collect: impl FnOnce(&mut Changes) -> Result<(), ValueError>,
) -> Result<(), ValueError> {
    let (left_out, kept_local) = (std::mem::take(&mut out.left_out), out.kept_local.take());
    let collected = collect(out).map_err(|error| error.within(name));
    let within = |inner: Vec<ValueError>| inner.into_iter().map(|error| error.within(name));
    let inner = std::mem::replace(&mut out.left_out, left_out);
    out.left_out.extend(within(inner));
    let inner = std::mem::replace(&mut out.kept_local, kept_local);
    if let Some(inner) = inner {
        let kept = out.kept_local.get_or_insert_default();
        kept.unarchived.extend(within(inner.unarchived));
        kept.too_long.extend(within(inner.too_long));
        kept.stops |= inner.stops;
    }
    collected
}

impl<'c> IntoIterator for &'c Changes {
    type Item = &'c Change;
    type IntoIter = std::slice::Iter<'c, Change>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Changes {
    type Item = Change;
    type IntoIter = IntoChanges;

    fn into_iter(self) -> IntoChanges {
        IntoChanges(self.writes.into_iter())
    }
}

/// Hands out [`Changes`] one by one.
#[derive(Debug)]
pub struct IntoChanges(smallvec::IntoIter<[Change; 4]>);

impl Iterator for IntoChanges {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value as _;

    #[test]
    fn a_value_that_is_too_long_is_refused() {
        let mut changes = Changes::new();
        let fits = vec![0_u8; RECORD_BYTES_MAX];
        changes.push_stored(0, fits.store().unwrap()).unwrap();
        let too_long = vec![0_u8; RECORD_BYTES_MAX + 1];
        let error = changes.push_stored(0, too_long.store().unwrap()).unwrap_err();
        assert!(matches!(error, BadValue::TooLong { bytes, max } if bytes == max + 1));
        assert_eq!(changes.len(), 1, "the one that fits");
    }
}
