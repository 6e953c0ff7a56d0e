//! A map inside a view: read in place.

use crate::form::EntryForm;
use crate::key::{Key, KeyBytes};
use crate::map::Map;
use crate::value::{Value, ViewOf};
use kiln_heap::MapRef;
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

/// A map inside a view. A lookup reads one path of the tree; nothing is copied.
pub struct MapView<'a, K, V> {
    map: MapRef<'a>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<'a, K: Key, V: Value> MapView<'a, K, V> {
    pub(crate) const fn new(map: MapRef<'a>) -> Self {
        Self { map, types: PhantomData }
    }

    /// The value of a key, in place.
    #[must_use]
    pub fn get<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Option<ViewOf<'a, V>>
    where
        K: Borrow<Q>,
    {
        key.with_bytes(|key| V::Form::view_entry(self.map, key))
    }

    /// Whether there is an entry with this key.
    #[must_use]
    pub fn contains_key<Q: KeyBytes + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        key.with_bytes(|key| self.map.contains(key))
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The entries in the order of their keys. Leaves out keys that are none of `K`, which only a faulty peer writes.
    pub fn iter(&self) -> impl Iterator<Item = (K, ViewOf<'a, V>)> + use<'a, K, V> {
        V::Form::entries(self.map).filter_map(|(key, value)| Some((K::decode(key)?, value)))
    }

    /// The keys in their order.
    pub fn keys(&self) -> impl Iterator<Item = K> + use<'a, K, V> {
        self.map.iter().filter_map(|(bytes, _)| K::decode(bytes))
    }

    pub(crate) fn load(self) -> Map<K, V> {
        let map = self.map;
        map.iter().filter_map(|(bytes, _)| Some((K::decode(bytes)?, V::Form::load_entry(map, bytes)?))).collect()
    }
}

impl<K, V> Clone for MapView<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for MapView<'_, K, V> {}

impl<K, V> fmt::Debug for MapView<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapView").field("len", &self.map.len()).finish_non_exhaustive()
    }
}
