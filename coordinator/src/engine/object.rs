//! One object: its key, its slots and versions (replicated), and who holds it and its locks (soft).
//!
//! Laid out for millions of objects: key and slots share one allocation; what most objects do without (map fields,
//! versions of groups beyond the default one, locks that somebody waits for) is behind one pointer each.

use super::grants::Locks;
use super::interest::Interest;
use super::slots::{Gathered, slot_len};
use bytes::Bytes;
use kiln_protocol::limits::{CHANGED_SLOTS_MAX, KEY_BYTES_MAX};
use kiln_protocol::message::{ChangedSlot, SlotChange};
use kiln_protocol::{BadDelta, FieldId, GroupId, ObjectId, RootId, Version, Write, Writes};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// A counter's sum as a write, at most.
const SUM_BYTES_MAX: usize = 11;

/// An object of the coordinator.
///
/// 1. `flat` is the key, then the slots that are no map entries as well-formed writes, sorted by field, each field once.
/// 2. `version` is that of the default group; the others are in `rest`.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) id: ObjectId,
    flat: Box<[u8]>,
    version: Version,
    rest: Option<Box<Rest>>,
    /// Soft: who holds and wants its locks.
    pub(super) locks: Locks,
    /// Soft: which nodes hold it.
    pub(super) interest: Interest,
    pub(super) root: RootId,
    key_len: u16,
    /// Soft: somebody watches this very object.
    pub(super) watched: bool,
}

/// What few objects have.
#[derive(Debug, Default)]
struct Rest {
    versions: SmallVec<[(GroupId, Version); 2]>,
    maps: Vec<(FieldId, EntryMap)>,
}

/// The entries of one map field.
#[derive(Debug, Default)]
struct EntryMap {
    entries: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// The length of all entries as encoded writes.
    bytes: usize,
}

impl Object {
    /// A new object with these slots.
    pub(super) fn new(id: ObjectId, root: RootId, key: &[u8], writes: &[u8]) -> Result<Self, BadDelta> {
        let mut object = Self {
            id,
            flat: key.into(),
            version: Version::default(),
            rest: None,
            locks: Locks::default(),
            interest: Interest::default(),
            root,
            key_len: key_len(key)?,
            watched: false,
        };
        object.apply(writes)?;
        Ok(object)
    }

    /// An object as it was when its slots were written down.
    ///
    /// # Errors
    /// When the key is too long, or a write is not well-formed.
    pub(super) fn restored(
        id: ObjectId,
        root: RootId,
        key: &[u8],
        versions: &[(GroupId, Version)],
        writes: &[u8],
    ) -> Result<Self, BadDelta> {
        let mut object = if is_flat(writes) {
            let mut object = Self::new(id, root, &[], &[])?;
            object.key_len = key_len(key)?;
            object.flat = [key, writes].concat().into_boxed_slice();
            object
        } else {
            Self::new(id, root, key, writes)?
        };
        for (group, version) in versions {
            object.set_version(*group, *version);
        }
        Ok(object)
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.flat[..usize::from(self.key_len)]
    }

    fn slots(&self) -> &[u8] {
        &self.flat[usize::from(self.key_len)..]
    }

    /// Gives the object another key.
    ///
    /// # Errors
    /// When the key is longer than any may be.
    pub(super) fn set_key(&mut self, key: &[u8]) -> Result<(), BadDelta> {
        let key_len = key_len(key)?;
        self.flat = [key, self.slots()].concat().into_boxed_slice();
        self.key_len = key_len;
        Ok(())
    }

    /// The version of a group; the default one for a group that was never committed to.
    pub(super) fn version(&self, group: GroupId) -> Version {
        if group == GroupId::DEFAULT {
            return self.version;
        }
        let rest = self.rest.iter().flat_map(|rest| &rest.versions);
        rest.clone().find(|(of, _)| *of == group).map_or_else(Version::default, |(_, version)| *version)
    }

    pub(super) fn set_version(&mut self, group: GroupId, version: Version) {
        if group == GroupId::DEFAULT {
            self.version = version;
            return;
        }
        let versions = &mut self.rest.get_or_insert_default().versions;
        match versions.binary_search_by_key(&group, |(group, _)| *group) {
            Ok(at) => versions[at].1 = version,
            Err(at) => versions.insert(at, (group, version)),
        }
    }

    /// The version of each group that was ever committed to.
    pub(super) fn versions(&self) -> Vec<(GroupId, Version)> {
        let default = (self.version != Version::default()).then_some((GroupId::DEFAULT, self.version));
        let rest = self.rest.iter().flat_map(|rest| rest.versions.iter().copied());
        default.into_iter().chain(rest).collect()
    }

    /// Carries out slot writes that were checked against the type.
    ///
    /// # Errors
    /// At the first write that is not well-formed; those before it were carried out.
    pub(super) fn apply(&mut self, writes: &[u8]) -> Result<(), BadDelta> {
        let prefix = usize::from(self.key_len);
        let mut gathered = Gathered::new();
        let mut read = Writes::new(writes);
        let mut start = 0;
        while let Some(write) = read.next() {
            let write = write?;
            let encoded = &writes[start..read.position()];
            start = read.position();
            match write {
                Write::MapPut { field, key, value } => self.map(field).put(field, key, value),
                Write::MapRemove { field, key } => self.map(field).remove(field, key),
                Write::MapClear { field } => *self.map(field) = EntryMap::default(),
                Write::Scalar { .. } | Write::Block { .. } | Write::Unset { .. } | Write::Add { .. } => {
                    gathered.write(&mut self.flat[prefix..], &write, encoded);
                }
            }
        }
        if let Some(flat) = gathered.merge(&self.flat, prefix) {
            self.flat = flat;
        }
        Ok(())
    }

    fn map(&mut self, field: FieldId) -> &mut EntryMap {
        let maps = &mut self.rest.get_or_insert_default().maps;
        let at = match maps.binary_search_by_key(&field, |(field, _)| *field) {
            Ok(at) => at,
            Err(at) => {
                maps.insert(at, (field, EntryMap::default()));
                at
            }
        };
        &mut maps[at].1
    }

    fn maps(&self) -> &[(FieldId, EntryMap)] {
        self.rest.as_ref().map_or(&[], |rest| &rest.maps)
    }

    fn entries(&self, field: FieldId) -> Option<&EntryMap> {
        let at = self.maps().binary_search_by_key(&field, |(field, _)| *field).ok()?;
        Some(&self.maps()[at].1)
    }

    /// The length of all slots, as writes.
    pub(super) fn slot_bytes(&self) -> usize {
        self.slots().len() + self.maps().iter().map(|(_, map)| map.bytes).sum::<usize>()
    }

    /// The length of the key and all slots.
    pub(super) fn bytes(&self) -> usize {
        usize::from(self.key_len) + self.slot_bytes()
    }

    /// Every slot, as writes.
    pub(super) fn writes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.slot_bytes());
        out.extend_from_slice(self.slots());
        for (field, map) in self.maps() {
            for (key, value) in &map.entries {
                Write::MapPut { field: *field, key, value }.encode(&mut out);
            }
        }
        Bytes::from(out)
    }

    /// How long all slots would be after these writes, which are well-formed. Each body is of another group, so no slot
    /// is written by two of them.
    pub(super) fn slot_bytes_after<'a>(&self, bodies: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut growth = Growth::default();
        let mut encoded = Vec::new();
        for body in bodies {
            let mut read = Writes::new(body);
            while let Some(Ok(write)) = read.next() {
                encoded.clear();
                write.encode(&mut encoded);
                growth.write(self, &write, encoded.len());
            }
        }
        let new: usize = growth.slots.values().chain(growth.entries.values()).sum();
        self.slot_bytes() - growth.old + new
    }

    /// What these writes, which are well-formed, will do to slots; of very many, to some.
    pub(super) fn changed_by<'a>(&'a self, writes: &'a [u8]) -> Vec<ChangedSlot> {
        let mut stays = BTreeMap::new();
        for write in Writes::new(writes).flatten() {
            let field = write.field();
            let (key, stay) = match write {
                Write::Scalar { .. } | Write::Block { .. } | Write::Add { .. } => (None, true),
                Write::Unset { .. } => (None, false),
                Write::MapPut { key, .. } => (Some(key), true),
                Write::MapRemove { key, .. } => (Some(key), false),
                Write::MapClear { .. } => {
                    stays.retain(|(of, _), _| *of != field);
                    let entries = self.entries(field).into_iter().flat_map(|map| map.entries.keys());
                    stays.extend(entries.map(|key| ((field, Some(&key[..])), false)));
                    continue;
                }
            };
            stays.insert((field, key), stay);
        }
        let changed = stays.into_iter().filter_map(|((field, key), stays)| {
            let was = match key {
                Some(key) => self.entry_len(field, key) > 0,
                None => slot_len(self.slots(), field) > 0,
            };
            let change = match (was, stays) {
                (false, true) => SlotChange::Added,
                (true, true) => SlotChange::Changed,
                (true, false) => SlotChange::Removed,
                (false, false) => return None,
            };
            Some(ChangedSlot { field, entry: key.map(Bytes::copy_from_slice), change })
        });
        changed.take(CHANGED_SLOTS_MAX).collect()
    }

    fn entry_len(&self, field: FieldId, key: &[u8]) -> usize {
        let value = self.entries(field).and_then(|map| map.entries.get(key));
        value.map_or(0, |value| entry_len(field, key, value))
    }
}

/// Whether these writes are slots as an object keeps them.
fn is_flat(writes: &[u8]) -> bool {
    let mut last = None;
    Writes::new(writes).all(|write| {
        let Ok(write @ (Write::Scalar { .. } | Write::Block { .. })) = write else { return false };
        let ascends = last < Some(write.field());
        last = Some(write.field());
        ascends
    })
}

fn key_len(key: &[u8]) -> Result<u16, BadDelta> {
    let len = u16::try_from(key.len()).ok().filter(|_| key.len() <= KEY_BYTES_MAX);
    len.ok_or(BadDelta::TooLong { bytes: key.len() })
}

/// Adds up what a commit replaces and what it puts in its stead.
#[derive(Default)]
struct Growth<'a> {
    old: usize,
    slots: BTreeMap<FieldId, usize>,
    entries: BTreeMap<(FieldId, &'a [u8]), usize>,
    cleared: BTreeSet<FieldId>,
}

impl<'a> Growth<'a> {
    fn write(&mut self, object: &Object, write: &Write<'a>, encoded_len: usize) {
        let field = write.field();
        match *write {
            Write::Scalar { .. } | Write::Block { .. } => self.slot(object, field, encoded_len),
            Write::Unset { .. } => self.slot(object, field, 0),
            Write::Add { .. } => self.slot(object, field, SUM_BYTES_MAX),
            Write::MapPut { key, .. } => self.entry(object, field, key, encoded_len),
            Write::MapRemove { key, .. } => self.entry(object, field, key, 0),
            Write::MapClear { .. } => self.clear(object, field),
        }
    }

    fn clear(&mut self, object: &Object, field: FieldId) {
        let mut counted = 0;
        while let Some((entry, _)) = self.entries.range((field, &[][..])..).next()
            && entry.0 == field
        {
            let entry = *entry;
            counted += object.entry_len(field, entry.1);
            self.entries.remove(&entry);
        }
        if self.cleared.insert(field) {
            self.old += object.entries(field).map_or(0, |map| map.bytes) - counted;
        }
    }

    fn slot(&mut self, object: &Object, field: FieldId, new: usize) {
        if self.slots.insert(field, new).is_none() {
            self.old += slot_len(object.slots(), field);
        }
    }

    fn entry(&mut self, object: &Object, field: FieldId, key: &'a [u8], new: usize) {
        if self.entries.insert((field, key), new).is_none() && !self.cleared.contains(&field) {
            self.old += object.entry_len(field, key);
        }
    }
}

impl EntryMap {
    fn put(&mut self, field: FieldId, key: &[u8], value: &[u8]) {
        self.bytes += entry_len(field, key, value);
        if let Some(old) = self.entries.get_mut(key) {
            self.bytes -= entry_len(field, key, old);
            *old = value.into();
        } else {
            self.entries.insert(key.into(), value.into());
        }
    }

    fn remove(&mut self, field: FieldId, key: &[u8]) {
        if let Some(old) = self.entries.remove(key) {
            self.bytes -= entry_len(field, key, &old);
        }
    }
}

const fn varint_len(value: usize) -> usize {
    ((usize::BITS - (value | 1).leading_zeros()).div_ceil(7)) as usize
}

/// How long the put of an entry is.
fn entry_len(field: FieldId, key: &[u8], value: &[u8]) -> usize {
    let head = varint_len(usize::from(field.to_bits()) << 3);
    head + varint_len(key.len()) + key.len() + varint_len(value.len()) + value.len()
}
