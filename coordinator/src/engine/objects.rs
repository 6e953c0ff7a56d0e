//! All objects: a slab, and a hash index from ids to its slots.
//!
//! The slab is chunked, so that it never doubles or moves; the index is sharded, so that growing one never stalls the
//! engine. The index is only looked up, never iterated: its order could not show.

use super::object::Object;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use kiln_protocol::ObjectId;

const CHUNK_SLOTS: usize = 256;
const SHARDS: usize = 256;
const SHARD_SHIFT: u32 = 32;
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Objects, by id and by slot.
#[derive(Debug)]
pub(super) struct Objects {
    chunks: Vec<Box<[Option<Object>]>>,
    free: Vec<u32>,
    used: u32,
    index: Box<[HashTable<u32>]>,
    /// Slots from this one on are in no index yet: see [`Objects::index`].
    indexed: u32,
}

/// Ids are given by the coordinator, so nobody can choose them to collide; a fixed hash will do.
fn hash(id: ObjectId) -> u64 {
    let product = u128::from(id.to_bits()) * u128::from(MULTIPLIER);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the product are folded into one")]
    let folded = (product as u64) ^ ((product >> u64::BITS) as u64);
    folded.wrapping_mul(MULTIPLIER).rotate_left(SHARD_SHIFT) ^ folded
}

const fn shard(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
}

const fn split(slot: u32) -> (usize, usize) {
    (slot as usize / CHUNK_SLOTS, slot as usize % CHUNK_SLOTS)
}

impl Objects {
    pub(super) fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            used: 0,
            index: (0..SHARDS).map(|_| HashTable::new()).collect(),
            indexed: 0,
        }
    }

    /// How many there are.
    pub(super) const fn len(&self) -> u32 {
        self.used - self.free_len()
    }

    #[expect(clippy::cast_possible_truncation, reason = "there are no more free slots than slots")]
    const fn free_len(&self) -> u32 {
        self.free.len() as u32
    }

    /// The slot of an object.
    pub(super) fn find(&self, id: ObjectId) -> Option<u32> {
        let hash = hash(id);
        let found = self.index[shard(hash)].find(hash, |slot| self.slot(*slot).is_some_and(|object| object.id == id));
        found.copied()
    }

    /// How many slots there are, in use or not.
    pub(super) const fn slots(&self) -> u32 {
        self.used
    }

    /// What is in a slot.
    pub(super) fn slot(&self, slot: u32) -> Option<&Object> {
        let (chunk, at) = split(slot);
        self.chunks.get(chunk)?[at].as_ref()
    }

    /// The object in a slot that [`Objects::find`] or a key index gave.
    pub(super) fn at(&self, slot: u32) -> &Object {
        self.slot(slot).expect("a slot in use")
    }

    /// The object in a slot that [`Objects::find`] or a key index gave.
    pub(super) fn at_mut(&mut self, slot: u32) -> &mut Object {
        let (chunk, at) = split(slot);
        self.chunks[chunk][at].as_mut().expect("a slot in use")
    }

    /// Looks an object up.
    pub(super) fn get_mut(&mut self, id: ObjectId) -> Option<&mut Object> {
        self.find(id).map(|slot| self.at_mut(slot))
    }

    /// Looks an object up.
    pub(super) fn get(&self, id: ObjectId) -> Option<&Object> {
        self.find(id).map(|slot| self.at(slot))
    }

    /// Adds an object to those that are not in the index. [`Objects::index`] is to follow on the last one. Returns its
    /// slot; `None` when there are four thousand million already.
    pub(super) fn append(&mut self, object: Object) -> Option<u32> {
        debug_assert!(self.free.is_empty(), "a slab that is being filled has no holes");
        let slot = self.next_slot()?;
        let (chunk, at) = split(slot);
        self.chunks[chunk][at] = Some(object);
        Some(slot)
    }

    /// Brings all objects into the index. All at once: shard by shard it is several times as fast as one after the other,
    /// because one shard fits into the processor's cache and has its room from the start.
    ///
    /// # Errors
    /// An id that two objects have.
    pub(super) fn index(&mut self) -> Result<(), ObjectId> {
        let mut shards = vec![Vec::new(); SHARDS];
        for slot in self.indexed..self.used {
            if let Some(object) = self.slot(slot) {
                let hash = hash(object.id);
                shards[shard(hash)].push((hash, object.id, slot));
            }
        }
        let chunks = &self.chunks;
        let id_of = |slot: &u32| {
            let (chunk, at) = split(*slot);
            chunks[chunk][at].as_ref().map_or_else(|| ObjectId::from_bits(0), |object| object.id)
        };
        for (index, new) in self.index.iter_mut().zip(shards) {
            index.reserve(new.len(), |slot| hash(id_of(slot)));
            for (hash, id, slot) in new {
                match index.entry(hash, |other| id_of(other) == id, |slot| self::hash(id_of(slot))) {
                    Entry::Occupied(_) => return Err(id),
                    Entry::Vacant(vacant) => drop(vacant.insert(slot)),
                }
            }
        }
        self.indexed = self.used;
        Ok(())
    }

    fn next_slot(&mut self) -> Option<u32> {
        let slot = self.used;
        self.used = self.used.checked_add(1)?;
        if split(slot).0 == self.chunks.len() {
            self.chunks.push((0..CHUNK_SLOTS).map(|_| None).collect());
        }
        Some(slot)
    }

    /// Adds an object whose id is new. Returns its slot; `None` when there are four thousand million already.
    pub(super) fn insert(&mut self, object: Object) -> Option<u32> {
        debug_assert_eq!(self.indexed, self.used, "everything before it is in the index");
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.next_slot()?,
        };
        self.indexed = self.used;
        let hash = hash(object.id);
        let (chunk, at) = split(slot);
        self.chunks[chunk][at] = Some(object);
        let chunks = &self.chunks;
        self.index[shard(hash)].insert_unique(hash, slot, |slot| {
            let (chunk, at) = split(*slot);
            chunks[chunk][at].as_ref().map_or(0, |object| self::hash(object.id))
        });
        Some(slot)
    }

    /// Takes an object out of its slot.
    pub(super) fn remove(&mut self, slot: u32) -> Option<Object> {
        let (chunk, at) = split(slot);
        let object = self.chunks.get_mut(chunk)?[at].take()?;
        let hash = hash(object.id);
        if let Ok(entry) = self.index[shard(hash)].find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        Some(object)
    }

    /// How many steps a walk over all objects takes.
    pub(super) const fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The objects of one step of such a walk.
    pub(super) fn chunk(&self, chunk: usize) -> impl Iterator<Item = &Object> {
        self.chunks.get(chunk).into_iter().flatten().flatten()
    }

    /// The objects of one step of such a walk.
    pub(super) fn chunk_mut(&mut self, chunk: usize) -> impl Iterator<Item = &mut Object> {
        self.chunks.get_mut(chunk).into_iter().flatten().flatten()
    }
}
