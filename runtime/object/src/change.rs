//! What a guard changed: typed slot writes, before they are encoded for the wire and applied to the heap.

use crate::value::{Stored, ValueError};
use kiln_heap::{ArchivedBuf, SlotWrite};
use smallvec::SmallVec;

/// The write of one slot. Slots count the shared fields of the struct, those of nested structs included, from 0.
#[derive(Debug)]
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
    pub(crate) fn push_stored(&mut self, slot: u16, stored: Stored) {
        self.push(match stored {
            Stored::Scalar(bits) => Change::Scalar { slot, bits },
            Stored::Block(value) => Change::Block { slot, value },
        });
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
    }

    /// The changed fields that are not among the changes, because they cannot be archived and may be left out.
    #[must_use]
    pub fn take_left_out(&mut self) -> Vec<ValueError> {
        std::mem::take(&mut self.left_out)
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

/// For the derive: collects a nested struct. What that leaves out has the name of the field before its own.
///
/// # Errors
/// Those of the fields that may not be left out.
pub fn collect_nested(
    out: &mut Changes,
    name: &str,
    collect: impl FnOnce(&mut Changes) -> Result<(), ValueError>,
) -> Result<(), ValueError> {
    let before = out.left_out.len();
    collect(out).map_err(|error| error.within(name))?;
    let inner = out.left_out.split_off(before);
    out.left_out.extend(inner.into_iter().map(|error| error.within(name)));
    Ok(())
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
