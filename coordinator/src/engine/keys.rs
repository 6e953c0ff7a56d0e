//! The keys of one root, in order: which object slot each belongs to.
//!
//! Keys are stored once, with their objects; this index holds four bytes for each, in sorted chunks, and asks its
//! caller for a slot's key while it searches. One ordered structure serves look-ups and paged listing: measured against a
//! `BTreeMap` that owns its keys it saves about 60 bytes an object, and unlike a hash index its cost does not depend on
//! keys that a stranger may have chosen.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Slots in one chunk: a chunk's search touches seven keys.
const CHUNK_SLOTS_MAX: usize = 128;
/// Slots in a chunk of an index that is made at once: there is room for more keys between them.
const CHUNK_SLOTS_FILLED: usize = 96;
/// A chunk this short is joined to the one before it, when both fit well.
const CHUNK_SLOTS_SMALL: usize = 32;

/// An ordered index of the keys of one root.
#[derive(Debug)]
pub(super) struct KeyIndex {
    /// Each chunk under a key that is not above its first one and above all of the chunk before. The first is under the
    /// empty key, and always there.
    chunks: BTreeMap<Box<[u8]>, Vec<u32>>,
    len: usize,
}

impl KeyIndex {
    pub(super) fn new() -> Self {
        let mut chunks = BTreeMap::new();
        chunks.insert(Box::default(), Vec::new());
        Self { chunks, len: 0 }
    }

    /// The index of these keys, which ascend; `None` when they do not.
    pub(super) fn of_sorted<'a>(slots: &[u32], key_of: impl Fn(u32) -> &'a [u8]) -> Option<Self> {
        let mut index = Self::new();
        let mut last = None;
        for chunk in slots.chunks(CHUNK_SLOTS_FILLED) {
            for slot in chunk {
                let key = Some(key_of(*slot));
                if last.is_some() && key <= last {
                    return None;
                }
                last = key;
            }
            let first = if index.len == 0 { Box::default() } else { key_of(chunk[0]).into() };
            index.chunks.insert(first, chunk.to_vec());
            index.len += chunk.len();
        }
        Some(index)
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The object slot of a key.
    pub(super) fn find<'a>(&self, key: &[u8], key_of: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        let (_, chunk) = self.chunks.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        let at = chunk.binary_search_by(|slot| key_of(*slot).cmp(key)).ok()?;
        Some(chunk[at])
    }

    /// Adds a key. Returns whether it was not there before.
    pub(super) fn insert<'a>(&mut self, key: &[u8], slot: u32, key_of: impl Fn(u32) -> &'a [u8]) -> bool {
        let mut range = self.chunks.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        let (_, chunk) = range.next_back().expect("the first chunk is under the empty key");
        let Err(at) = chunk.binary_search_by(|slot| key_of(*slot).cmp(key)) else {
            return false;
        };
        self.len += 1;
        if chunk.len() < CHUNK_SLOTS_MAX {
            chunk.insert(at, slot);
            return true;
        }
        let appending = at == chunk.len();
        // Keys that arrive in order fill their chunks; others split one in halves.
        let mut upper = chunk.split_off(if appending { at } else { CHUNK_SLOTS_MAX / 2 });
        if at < chunk.len() {
            chunk.insert(at, slot);
        } else {
            upper.insert(at - chunk.len(), slot);
        }
        chunk.shrink_to_fit();
        let first = if upper[0] == slot { key } else { key_of(upper[0]) };
        self.chunks.insert(first.into(), upper);
        true
    }

    /// Takes a key out. Returns the slot it had.
    pub(super) fn remove<'a>(&mut self, key: &[u8], key_of: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        let mut range = self.chunks.range_mut::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        let (first, chunk) = range.next_back()?;
        let at = chunk.binary_search_by(|slot| key_of(*slot).cmp(key)).ok()?;
        let slot = chunk.remove(at);
        self.len -= 1;
        if chunk.len() <= CHUNK_SLOTS_SMALL {
            let first = first.clone();
            self.join(&first);
        }
        Some(slot)
    }

    /// Joins a short chunk to the one before it.
    fn join(&mut self, first: &[u8]) {
        let Some(short) = self.chunks.get_mut(first) else {
            return;
        };
        short.shrink_to(CHUNK_SLOTS_SMALL);
        let short_len = short.len();
        let before = self.chunks.range_mut::<[u8], _>((Bound::Unbounded, Bound::Excluded(first))).next_back();
        let Some((before, chunk)) = before else { return };
        if chunk.len() + short_len > CHUNK_SLOTS_MAX - CHUNK_SLOTS_SMALL {
            return;
        }
        let before = before.clone();
        let mut joined = std::mem::take(chunk);
        joined.extend(self.chunks.remove(first).unwrap_or_default());
        self.chunks.insert(before, joined);
    }

    /// The slots of all keys after `after`, in ascending order of their keys.
    pub(super) fn after<'a, 'k: 'a>(
        &'a self,
        after: Option<&'a [u8]>,
        key_of: impl Fn(u32) -> &'k [u8] + 'a,
    ) -> impl Iterator<Item = u32> + 'a {
        let key = after.unwrap_or_default();
        let start = self
            .chunks
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .map_or(key, |(first, _)| first);
        let mut past = after.is_none();
        self.chunks
            .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
            .flat_map(|(_, chunk)| chunk.iter().copied())
            .skip_while(move |slot| {
                past = past || after.is_none_or(|after| key_of(*slot) > after);
                !past
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static KEYS: LazyLock<Vec<[u8; 2]>> =
        LazyLock::new(|| (0..4).flat_map(|high| (0..=u8::MAX).map(move |low| [high, low])).collect());

    fn key(slot: u32) -> &'static [u8] {
        &KEYS[slot as usize]
    }

    proptest! {
        #[test]
        fn an_index_is_a_sorted_set(steps in prop::collection::vec((0_u32..1024, prop::bool::weighted(0.6)), 0..3000)) {
            let mut index = KeyIndex::new();
            let mut model = BTreeMap::new();
            for (slot, add) in steps {
                if add {
                    prop_assert_eq!(index.insert(key(slot), slot, key), model.insert(key(slot), slot).is_none());
                } else {
                    prop_assert_eq!(index.remove(key(slot), key), model.remove(key(slot)));
                }
                prop_assert_eq!(index.len(), model.len());
            }
            prop_assert!(index.after(None, key).eq(model.values().copied()));
            for slot in (0..1024).step_by(37) {
                prop_assert_eq!(index.find(key(slot), key), model.get(key(slot)).copied());
                let rest = model.range::<[u8], _>((Bound::Excluded(key(slot)), Bound::Unbounded)).map(|(_, slot)| *slot);
                prop_assert!(index.after(Some(key(slot)), key).eq(rest));
            }
        }
    }

    #[test]
    fn an_index_that_is_made_at_once_is_like_any_other() {
        let slots: Vec<_> = (0..1000).collect();
        let mut index = KeyIndex::of_sorted(&slots, key).unwrap();
        assert!(index.after(None, key).eq(slots.iter().copied()));
        assert_eq!((index.len(), index.find(key(577), key)), (1000, Some(577)));
        assert!(index.insert(key(1001), 1001, key) && !index.insert(key(0), 0, key));
        assert_eq!(index.remove(key(0), key), Some(0));
        assert!(KeyIndex::of_sorted(&[1, 1], key).is_none() && KeyIndex::of_sorted(&[2, 1], key).is_none());
        assert_eq!(KeyIndex::of_sorted(&[], key).unwrap().len(), 0);
    }

    #[test]
    fn keys_in_order_fill_their_chunks() {
        let mut index = KeyIndex::new();
        for slot in 0..1024 {
            index.insert(key(slot), slot, key);
        }
        assert_eq!(index.chunks.len(), 1024 / CHUNK_SLOTS_MAX);
    }

    #[test]
    fn an_emptied_index_keeps_one_chunk() {
        let mut index = KeyIndex::new();
        for slot in 0..1024 {
            index.insert(key(slot), slot, key);
        }
        for slot in 0..1024 {
            index.remove(key(slot), key);
        }
        assert_eq!((index.len(), index.chunks.len()), (0, 1));
    }
}
