//! A map inside a write guard: an overlay of the touched entries over the heap's tree.

use crate::change::{Change, Changes};
use crate::form::EntryForm;
use crate::key::{Key, KeyBytes};
use crate::map::put;
use crate::value::{Slot, Value, ValueError};
use kiln_heap::{MapRef, Object};
use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque, btree_map};
use std::fmt;
use std::iter::Peekable;
use std::marker::PhantomData;

/// How many entries an iteration reads under one pin.
const BATCH_ENTRIES: usize = 32;

/// A map inside a write guard. Only touched entries are read from the heap, and only changed ones are written.
///
/// Holds no pin, so a guard may cross an `.await`. Entries come out as copies: the heap's own are archived, and change
/// under nobody's hands. To change one in place use [`MapMut::get_mut`].
pub struct MapMut<'a, K, V> {
    object: &'a Object,
    slot: u16,
    /// Whether the heap's entries count as gone; the overlay lies above that.
    cleared: bool,
    /// The changed entries by key; `None` is a removed one. No removed one that the heap does not have.
    overlay: BTreeMap<Vec<u8>, Option<V>>,
    key: PhantomData<fn() -> K>,
}

impl<'a, K: Key, V: Value> MapMut<'a, K, V> {
    pub(crate) const fn new(object: &'a Object, slot: u16) -> Self {
        Self { object, slot, cleared: false, overlay: BTreeMap::new(), key: PhantomData }
    }

    /// Puts an entry in, in place of one with the same key. Reads nothing.
    pub fn insert(&mut self, key: K, value: V) {
        self.overlay.insert(encoded(&key), Some(value));
    }

    /// A copy of the value of a key.
    #[must_use]
    pub fn get<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        V: Clone,
    {
        key.with_bytes(|key| match self.overlay.get(key) {
            Some(value) => value.clone(),
            None => self.load(key),
        })
    }

    /// The value of a key, to be changed in place. The entry counts as changed.
    pub fn get_mut<Q: KeyBytes + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let key = encoded(key);
        if !self.overlay.contains_key(&key) {
            let value = self.load(&key)?;
            self.overlay.insert(key.clone(), Some(value));
        }
        self.overlay.get_mut(&key)?.as_mut()
    }

    /// The value of a key, to be changed in place; when there is none, `make` makes it. The entry counts as changed.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let key = encoded(&key);
        let present = if self.overlay.contains_key(&key) { None } else { self.load(&key) };
        self.overlay.entry(key).or_insert(present).get_or_insert_with(make)
    }

    /// Changes the value of a key in place; `None` when there is none.
    pub fn update<Q: KeyBytes + ?Sized, R>(&mut self, key: &Q, change: impl FnOnce(&mut V) -> R) -> Option<R>
    where
        K: Borrow<Q>,
    {
        self.get_mut(key).map(change)
    }

    /// Takes an entry out; tells whether there was one.
    pub fn remove<Q: KeyBytes + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        key.with_bytes(|key| {
            let below = self.is_below(key);
            let above = self.overlay.remove(key);
            if below {
                self.overlay.insert(key.to_vec(), None);
            }
            above.map_or(below, |value| value.is_some())
        })
    }

    /// Takes an entry out and returns its value.
    pub fn take<Q: KeyBytes + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        key.with_bytes(|key| {
            let value = match self.overlay.remove(key) {
                Some(value) => value,
                None => self.load(key),
            };
            if self.is_below(key) {
                self.overlay.insert(key.to_vec(), None);
            }
            value
        })
    }

    /// Whether there is an entry with this key.
    #[must_use]
    pub fn contains_key<Q: KeyBytes + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        key.with_bytes(|key| self.overlay.get(key).map_or_else(|| self.is_below(key), Option::is_some))
    }

    /// Takes every entry out.
    pub fn clear(&mut self) {
        self.overlay.clear();
        self.cleared = self.cleared || self.below(|map| !map.is_empty());
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let changed = |map: Option<MapRef<'_>>| {
            let below = map.map_or(0, |map| map.len());
            self.overlay.iter().fold(below, |len, (key, value)| {
                let is_below = map.is_some_and(|map| contains(map, key));
                len + usize::from(value.is_some()) - usize::from(is_below)
            })
        };
        if self.cleared { changed(None) } else { self.below(|map| changed(Some(map))) }
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies of the entries in the order of their keys; reads a few at a time. Leaves out keys that are none of `K`,
    /// which only a faulty peer writes.
    #[must_use]
    pub fn iter(&self) -> MapIter<'_, 'a, K, V>
    where
        V: Clone,
    {
        MapIter {
            map: self,
            overlay: self.overlay.iter().peekable(),
            batch: VecDeque::new(),
            after: None,
            ended: self.cleared,
        }
    }

    pub(crate) fn collect(&mut self, out: &mut Changes) -> Result<(), ValueError> {
        if std::mem::take(&mut self.cleared) {
            out.push(Change::MapClear { slot: self.slot });
        }
        for (key, value) in std::mem::take(&mut self.overlay) {
            match value {
                Some(value) => put(self.slot, key, &value, out)?,
                None => out.push(Change::MapRemove { slot: self.slot, key }),
            }
        }
        Ok(())
    }

    /// Whether the heap has an entry that counts.
    fn is_below(&self, key: &[u8]) -> bool {
        !self.cleared && self.below(|map| contains(map, key))
    }

    fn load(&self, key: &[u8]) -> Option<V> {
        if self.cleared { None } else { self.below(|map| V::Form::load_entry(map, key)) }
    }

    fn below<R>(&self, read: impl FnOnce(MapRef<'_>) -> R) -> R {
        let pinned = self.object.pin();
        read(Slot::new(&pinned, self.slot).map())
    }
}

impl<K: Key, V: Value> Extend<(K, V)> for MapMut<'_, K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<'m, 'a, K: Key, V: Value + Clone> IntoIterator for &'m MapMut<'a, K, V> {
    type Item = (K, V);
    type IntoIter = MapIter<'m, 'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K, V> fmt::Debug for MapMut<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapMut")
            .field("cleared", &self.cleared)
            .field("changed", &self.overlay.len())
            .finish_non_exhaustive()
    }
}

/// Copies of the entries of a [`MapMut`]; holds no pin between them.
pub struct MapIter<'m, 'a, K, V> {
    map: &'m MapMut<'a, K, V>,
    overlay: Peekable<btree_map::Iter<'m, Vec<u8>, Option<V>>>,
    /// Entries of the heap that the overlay does not change, and that come next.
    batch: VecDeque<(Vec<u8>, V)>,
    /// The last of the heap's keys that was looked at.
    after: Option<Vec<u8>>,
    /// The heap has no more.
    ended: bool,
}

impl<K: Key, V: Value> MapIter<'_, '_, K, V> {
    /// Reads on in the heap until there is an entry, or no more.
    fn refill(&mut self) {
        let map = self.map;
        while self.batch.is_empty() && !self.ended {
            map.below(|below| {
                let after = self.after.take();
                let mut last = None;
                let rest = below.iter_from(after.as_deref().unwrap_or_default());
                let new = rest.map(|(key, _)| key).skip_while(|key| after.as_deref() == Some(*key));
                let mut seen = 0;
                for key in new.take(BATCH_ENTRIES) {
                    seen += 1;
                    last = Some(key);
                    if !map.overlay.contains_key(key)
                        && let Some(value) = V::Form::load_entry(below, key)
                    {
                        self.batch.push_back((key.to_vec(), value));
                    }
                }
                self.after = last.map(<[u8]>::to_vec);
                self.ended = seen < BATCH_ENTRIES;
            });
        }
    }
}

impl<K: Key, V: Value + Clone> Iterator for MapIter<'_, '_, K, V> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        loop {
            self.refill();
            let below = self.batch.front().map(|(key, _)| key);
            let above_first = self.overlay.peek().is_some_and(|(above, _)| below.is_none_or(|below| *above < below));
            let (key, value) = if above_first {
                let (key, value) = self.overlay.next()?;
                (K::decode(key), value.clone())
            } else {
                let (key, value) = self.batch.pop_front()?;
                (K::decode(&key), Some(value))
            };
            if let (Some(key), Some(value)) = (key, value) {
                return Some((key, value));
            }
        }
    }
}

impl<K, V> fmt::Debug for MapIter<'_, '_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapIter").field("map", self.map).finish_non_exhaustive()
    }
}

fn encoded<Q: KeyBytes + ?Sized>(key: &Q) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

/// Whether the heap's tree has this key.
fn contains(map: MapRef<'_>, key: &[u8]) -> bool {
    map.contains(key)
}
