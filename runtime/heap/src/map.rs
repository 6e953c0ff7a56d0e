//! Reading the map of a slot.
#![expect(unsafe_code, reason = "reads entries of a pinned tree where they lie in the arena")]

use crate::archive::{Archivable, ArchiveType, access};
use crate::arena::Arena;
use crate::pin::wrong_value;
use crate::shape::BlockKind;
use crate::tree::{self, Cursor, Item};
use std::any::type_name;
use std::marker::PhantomData;

/// The map of a slot, as it was when its object was pinned.
///
/// # Invariants
/// 1. The tree of `root` is alive and unchanged for `'p`, and its values are of `kind`.
#[derive(Clone, Copy, Debug)]
pub struct MapRef<'p> {
    arena: &'p Arena,
    root: u32,
    count: u32,
    kind: BlockKind,
}

impl<'p> MapRef<'p> {
    /// # Safety
    /// The tree of `root` stays alive and unchanged for `'p`, has `count` entries, and its values are of `kind`.
    pub(crate) const unsafe fn new(arena: &'p Arena, root: u32, count: u32, kind: BlockKind) -> Self {
        Self { arena, root, count, kind }
    }

    /// How many entries there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is an entry with this key.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// The bytes of the value with this key, of whatever kind.
    #[must_use]
    pub fn get_bytes(&self, key: &[u8]) -> Option<&'p [u8]> {
        let item = self.find(key)?;
        // SAFETY: invariant 1.
        Some(unsafe { item.value(self.arena) })
    }

    /// The string with this key.
    ///
    /// # Panics
    /// When the map's values are not texts.
    #[must_use]
    #[track_caller]
    pub fn get_text(&self, key: &[u8]) -> Option<&'p str> {
        self.expect_text();
        // SAFETY: invariant 1: the values are texts.
        self.get_bytes(key).map(|bytes| unsafe { text(bytes) })
    }

    /// The archived value with this key.
    ///
    /// # Panics
    /// When the map's values are not archives of `T`.
    #[must_use]
    #[track_caller]
    pub fn get_archived<T: Archivable>(&self, key: &[u8]) -> Option<&'p T::Archived> {
        self.expect_archives_of::<T>();
        // SAFETY: invariant 1: the values are archives of `T`, aligned to 16.
        self.get_bytes(key).map(|bytes| unsafe { access::<T>(bytes) })
    }

    /// All entries, ascending by key.
    #[must_use]
    pub fn iter(&self) -> Entries<'p> {
        self.iter_from(&[])
    }

    /// The entries whose key is not below this one, ascending by key.
    #[must_use]
    pub fn iter_from(&self, key: &[u8]) -> Entries<'p> {
        // SAFETY: invariant 1.
        let cursor = unsafe { Cursor::new(self.arena, self.root, key) };
        Entries { arena: self.arena, cursor }
    }

    /// All entries, ascending by key.
    ///
    /// # Panics
    /// When the map's values are not texts.
    #[track_caller]
    pub fn iter_text(&self) -> impl Iterator<Item = (&'p [u8], &'p str)> + use<'p> {
        self.expect_text();
        // SAFETY: invariant 1: the values are texts.
        self.iter().map(|(key, value)| (key, unsafe { text(value) }))
    }

    /// All entries, ascending by key.
    ///
    /// # Panics
    /// When the map's values are not archives of `T`.
    #[must_use]
    #[track_caller]
    pub fn iter_archived<T: Archivable>(&self) -> ArchivedEntries<'p, T> {
        self.iter_archived_from(&[])
    }

    /// The entries whose key is not below this one, ascending by key.
    ///
    /// # Panics
    /// When the map's values are not archives of `T`.
    #[must_use]
    #[track_caller]
    pub fn iter_archived_from<T: Archivable>(&self, key: &[u8]) -> ArchivedEntries<'p, T> {
        self.expect_archives_of::<T>();
        ArchivedEntries { entries: self.iter_from(key), marker: PhantomData }
    }

    fn find(&self, key: &[u8]) -> Option<&'p Item> {
        // SAFETY: invariant 1.
        unsafe { tree::find(self.arena, self.root, key) }
    }

    #[track_caller]
    fn expect_text(&self) {
        if self.kind != BlockKind::Text {
            wrong_value(self.kind, "texts");
        }
    }

    #[track_caller]
    fn expect_archives_of<T: Archivable>(&self) {
        if self.kind != BlockKind::Archive(ArchiveType::of::<T>()) {
            wrong_value(self.kind, type_name::<T>());
        }
    }
}

impl<'p> IntoIterator for MapRef<'p> {
    type Item = (&'p [u8], &'p [u8]);
    type IntoIter = Entries<'p>;

    fn into_iter(self) -> Entries<'p> {
        self.iter()
    }
}

impl<'p> IntoIterator for &MapRef<'p> {
    type Item = (&'p [u8], &'p [u8]);
    type IntoIter = Entries<'p>;

    fn into_iter(self) -> Entries<'p> {
        self.iter()
    }
}

/// Entries of a map, ascending by key: the key, and the bytes of the value.
///
/// # Invariants
/// 1. The tree of `cursor` is alive and unchanged for `'p`.
#[derive(Clone, Debug)]
pub struct Entries<'p> {
    arena: &'p Arena,
    cursor: Cursor<'p>,
}

impl<'p> Iterator for Entries<'p> {
    type Item = (&'p [u8], &'p [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.cursor.next()?;
        // SAFETY: invariant 1.
        let key = unsafe { item.key(self.arena) };
        // SAFETY: invariant 1.
        let value = unsafe { item.value(self.arena) };
        Some((key, value))
    }
}

/// Entries of a map, ascending by key: the key, and the archived value.
///
/// # Invariants
/// 1. The values of `entries` are archives of `T`.
#[derive(Clone, Debug)]
pub struct ArchivedEntries<'p, T> {
    entries: Entries<'p>,
    marker: PhantomData<fn() -> T>,
}

impl<'p, T: Archivable> Iterator for ArchivedEntries<'p, T> {
    type Item = (&'p [u8], &'p T::Archived);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.entries.next()?;
        // SAFETY: invariant 1; values are aligned to 16.
        Some((key, unsafe { access::<T>(value) }))
    }
}

/// # Safety
/// The bytes were checked to be UTF-8.
unsafe fn text(bytes: &[u8]) -> &str {
    // SAFETY: the caller's promise.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}
