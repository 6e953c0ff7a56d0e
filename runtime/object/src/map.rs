//! `kiln::Map`: a map whose entries are read, written and sent one by one.

use crate::change::{Change, Changes};
use crate::declared::FieldInfo;
use crate::field_type::{FieldType, PlainField};
use crate::form::EntryForm;
use crate::key::Key;
use crate::map_mut::MapMut;
use crate::map_view::MapView;
use crate::value::{BadValue, Slot, Value, ValueError};
use kiln_heap::{Object, Pinned};
use kiln_protocol::limits::ENTRY_KEY_BYTES_MAX;
use kiln_protocol::schema::FieldKind;
use kiln_protocol::structure::Structure;
use std::borrow::Borrow;
use std::collections::{BTreeMap, btree_map};
use std::fmt;

/// A map as the field of a clustered struct: each entry is a slot of its own, so a commit of one entry sends one entry.
///
/// This is the owned form, as a new object is made from it and a copied one contains it. In a write guard the field is
/// a [`MapMut`], in a view a [`MapView`]; neither ever loads the whole map.
///
/// ```
/// # extern crate kiln_object as kiln;
/// #[derive(kiln::Clustered, Default)]
/// struct Session {
///     cart: kiln::Map<String, u32>,
/// }
///
/// impl SessionMut<'_> {
///     fn add_item(&mut self, sku: &str) {
///         *self.cart.get_or_insert_with(sku.to_owned(), u32::default) += 1;
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Map<K: Key, V: Value>(BTreeMap<K, V>);

impl<K: Key, V: Value> Map<K, V> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Puts an entry in; returns the value it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// The value of a key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    /// The value of a key, to be changed in place.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.0.get_mut(key)
    }

    /// Whether there is an entry with this key.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// Takes an entry out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.0.remove(key)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes every entry out.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The entries in the order of their keys.
    pub fn iter(&self) -> btree_map::Iter<'_, K, V> {
        self.0.iter()
    }
}

impl<K: Key, V: Value> Default for Map<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Key + fmt::Debug, V: Value + fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K: Key, V: Value> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<K: Key, V: Value, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        Self(entries.into())
    }
}

impl<K: Key, V: Value> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        self.0.extend(entries);
    }
}

impl<K: Key, V: Value> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = btree_map::IntoIter<K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'m, K: Key, V: Value> IntoIterator for &'m Map<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = btree_map::Iter<'m, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<K: Key, V: Value> FieldType for PlainField<Map<K, V>> {
    type Owned = Map<K, V>;
    type Mut<'a> = MapMut<'a, K, V>;
    type View<'a> = MapView<'a, K, V>;
    const FIELDS: &'static [FieldInfo] = &[FieldInfo::unnamed(
        FieldKind::Map,
        Structure::Map(&K::STRUCTURE, &V::STRUCTURE),
        <V::Form as EntryForm<V>>::map_kind,
    )];

    fn store(owned: &Map<K, V>, slot: u16, out: &mut Changes) -> Result<(), ValueError> {
        for (key, value) in owned {
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            put::<V>(slot, bytes, value, out)?;
        }
        Ok(())
    }

    fn guard(object: &Object, slot: u16) -> MapMut<'_, K, V> {
        MapMut::new(object, slot)
    }

    fn collect(guard: &mut MapMut<'_, K, V>, out: &mut Changes) -> Result<(), ValueError> {
        guard.collect(out)
    }

    fn view<'a>(pinned: &'a Pinned<'a>, slot: u16) -> MapView<'a, K, V> {
        MapView::new(Slot::new(pinned, slot).map())
    }

    fn load(pinned: &Pinned<'_>, slot: u16) -> Map<K, V> {
        MapView::new(Slot::new(pinned, slot).map()).load()
    }
}

/// Puts one entry.
pub(crate) fn put<V: Value>(slot: u16, key: Vec<u8>, value: &V, out: &mut Changes) -> Result<(), BadValue> {
    if key.len() > ENTRY_KEY_BYTES_MAX {
        return Err(BadValue::KeyTooLong { bytes: key.len(), max: ENTRY_KEY_BYTES_MAX });
    }
    let value = V::Form::store_entry(value)?;
    out.check_length(&value)?;
    out.push(Change::MapPut { slot, key, value });
    Ok(())
}
