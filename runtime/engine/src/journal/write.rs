//! One write of the journal: what was there, and what was put there.

use super::ConflictWrite;
use crate::binding::GroupIndex;
use crate::entry::Entry;
use bytes::Bytes;
use kiln_heap::{Object, Pinned, SlotWrite};
use kiln_object::Change;
use kiln_protocol::{FieldId, Version, Write};
use std::sync::Arc;

const HEAD_BYTES: usize = 64;

/// What a field, or an entry of a map, held or was to hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LocalValue {
    /// A map has no such entry.
    Absent,
    /// A number, or what is kept as one.
    Scalar(u64),
    /// Added to a counter.
    Added(i64),
    /// The bytes of a value.
    Bytes(Bytes),
    /// All entries of a map, ascending by key.
    Entries(Vec<(Bytes, Bytes)>),
}

impl LocalValue {
    fn bytes(&self) -> usize {
        match self {
            Self::Absent | Self::Scalar(_) | Self::Added(_) => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Entries(entries) => entries.iter().map(|(key, value)| HEAD_BYTES + key.len() + value.len()).sum(),
        }
    }
}

#[derive(Clone, Debug)]
enum What {
    Scalar(u64),
    Add(i64),
    Block(Bytes),
    Put { key: Bytes, value: Bytes },
    Remove { key: Bytes },
    Clear,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct LocalWrite {
    slot: u16,
    what: What,
    base: Base,
}

/// What a write was made from.
#[derive(Clone, Debug)]
enum Base {
    /// This value.
    Value(LocalValue),
    /// The version of its lock group with this number: the commit was on its way to the cluster, which counts them.
    Version(GroupIndex, u64),
    /// Nothing: it is an add that was on its way.
    Nothing,
}

impl LocalWrite {
    /// A change that is about to be made to this content.
    pub(crate) fn new(change: &Change, before: &Pinned<'_>) -> Self {
        let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let what = match change {
            Change::Scalar { bits, .. } => What::Scalar(*bits),
            Change::Add { amount, .. } => What::Add(*amount),
            Change::Block { value, .. } => What::Block(copy(value.bytes())),
            Change::MapPut { key, value, .. } => What::Put { key: copy(key), value: copy(value.bytes()) },
            Change::MapRemove { key, .. } => What::Remove { key: copy(key) },
            Change::MapClear { .. } => What::Clear,
        };
        let base = Base::Value(present(before, change.slot(), &what));
        Self { slot: change.slot(), what, base }
    }

    /// A write of a commit that was sent, made from this version of this group.
    pub(crate) fn sent(write: &SlotWrite<'_>, base: Option<(GroupIndex, u64)>) -> Self {
        let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        let what = match write {
            SlotWrite::Scalar { bits, .. } => What::Scalar(*bits),
            SlotWrite::Add { amount, .. } => What::Add(*amount),
            SlotWrite::Block { bytes, .. } => What::Block(copy(bytes)),
            SlotWrite::Archived { value, .. } => What::Block(copy(value.bytes())),
            SlotWrite::MapPut { key, value, .. } => What::Put { key: copy(key), value: copy(value) },
            SlotWrite::MapPutArchived { key, value, .. } => What::Put { key: copy(key), value: copy(value.bytes()) },
            SlotWrite::MapRemove { key, .. } => What::Remove { key: copy(key) },
            SlotWrite::MapClear { .. } => What::Clear,
        };
        let base = base.filter(|_| !matches!(what, What::Add(_)));
        Self { slot: write.slot(), what, base: base.map_or(Base::Nothing, |(group, of)| Base::Version(group, of)) }
    }

    pub(crate) fn bytes(&self) -> usize {
        let what = match &self.what {
            What::Scalar(_) | What::Add(_) | What::Clear => 0,
            What::Block(bytes) | What::Remove { key: bytes } => bytes.len(),
            What::Put { key, value } => key.len() + value.len(),
        };
        let base = if let Base::Value(base) = &self.base { base.bytes() } else { 0 };
        HEAD_BYTES + what + base
    }

    pub(crate) const fn slot(&self) -> u16 {
        self.slot
    }

    /// Whether what it was made from is still there. Adds are made from nothing.
    pub(crate) fn holds(&self, theirs: &Pinned<'_>) -> bool {
        match &self.base {
            _ if matches!(self.what, What::Add(_)) => true,
            Base::Value(base) => present(theirs, self.slot, &self.what) == *base,
            Base::Version(group, number) => Version::from_bits(theirs.version(*group)).number() == *number,
            Base::Nothing => true,
        }
    }

    /// The write as the heap takes it.
    pub(crate) fn as_slot_write(&self) -> SlotWrite<'_> {
        let slot = self.slot;
        match &self.what {
            What::Scalar(bits) => SlotWrite::Scalar { slot, bits: *bits },
            What::Add(amount) => SlotWrite::Add { slot, amount: *amount },
            What::Block(bytes) => SlotWrite::Block { slot, bytes },
            What::Put { key, value } => SlotWrite::MapPut { slot, key, value },
            What::Remove { key } => SlotWrite::MapRemove { slot, key },
            What::Clear => SlotWrite::MapClear { slot },
        }
    }

    /// The write as it is sent.
    pub(crate) fn as_write(&self, field: FieldId) -> Write<'_> {
        match &self.what {
            What::Scalar(bits) => Write::Scalar { field, bits: *bits },
            What::Add(amount) => Write::Add { field, amount: *amount },
            What::Block(bytes) => Write::Block { field, bytes },
            What::Put { key, value } => Write::MapPut { field, key, value },
            What::Remove { key } => Write::MapRemove { field, key },
            What::Clear => Write::MapClear { field },
        }
    }

    /// The write as it is reported.
    pub(crate) fn conflict(&self, entry: &Arc<Entry>, theirs: Option<&Object>) -> ConflictWrite {
        let ours = match &self.what {
            What::Scalar(bits) => LocalValue::Scalar(*bits),
            What::Add(amount) => LocalValue::Added(*amount),
            What::Block(bytes) | What::Put { value: bytes, .. } => LocalValue::Bytes(bytes.clone()),
            What::Remove { .. } => LocalValue::Absent,
            What::Clear => LocalValue::Entries(Vec::new()),
        };
        let key = match &self.what {
            What::Put { key, .. } | What::Remove { key } => Some(key.clone()),
            What::Scalar(_) | What::Add(_) | What::Block(_) | What::Clear => None,
        };
        ConflictWrite {
            root: entry.root,
            key: Bytes::copy_from_slice(&entry.key()),
            object: entry.id(),
            field: entry.binding.slot_name(self.slot),
            entry: key,
            base: if let Base::Value(base) = &self.base { Some(base.clone()) } else { None },
            ours,
            theirs: theirs.map(|theirs| present(&theirs.pin(), self.slot, &self.what)),
        }
    }
}

impl ConflictWrite {
    pub(super) fn bytes(&self) -> usize {
        let values = [self.base.as_ref(), Some(&self.ours), self.theirs.as_ref()];
        let values: usize = values.into_iter().flatten().map(LocalValue::bytes).sum();
        HEAD_BYTES + self.key.len() + self.entry.as_ref().map_or(0, Bytes::len) + values
    }
}

/// What a content has where a write writes.
fn present(content: &Pinned<'_>, slot: u16, what: &What) -> LocalValue {
    match what {
        What::Scalar(_) | What::Add(_) => LocalValue::Scalar(content.scalar(slot)),
        What::Block(_) => LocalValue::Bytes(Bytes::copy_from_slice(content.bytes(slot))),
        What::Put { key, .. } | What::Remove { key } => {
            let value = content.map(slot).get_bytes(key);
            value.map_or(LocalValue::Absent, |value| LocalValue::Bytes(Bytes::copy_from_slice(value)))
        }
        What::Clear => {
            let copy = |(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            LocalValue::Entries(content.map(slot).iter().map(copy).collect())
        }
    }
}
