//! Reading: one whole table of an object, in place.
#![expect(unsafe_code, reason = "reads blocks of a pinned table where they lie in the arena")]

use crate::archive::{Archivable, access};
use crate::block;
use crate::map::MapRef;
use crate::object::Object;
use crate::shape::{BlockKind, SlotKind};
use crate::table::{Table, block_piece, pair};
use crossbeam_epoch::{self as epoch, Guard};
use std::fmt;

/// The content of an object as it was when it was pinned. Not `Send`. While it lives, nothing that is retired in the
/// process can be freed.
///
/// # Invariants
/// 1. `table` was published in `object` while `guard` was pinned: it, its blocks and its trees stay as long as this.
pub struct Pinned<'a> {
    object: &'a Object,
    table: Table<'a>,
    _guard: Guard,
}

impl<'a> Pinned<'a> {
    /// # Safety
    /// `table` was found in `object` while `guard` was pinned.
    #[inline]
    pub(crate) const unsafe fn new(guard: Guard, object: &'a Object, table: Table<'a>) -> Self {
        Self { object, table, _guard: guard }
    }

    /// The object.
    #[must_use]
    pub const fn object(&self) -> &'a Object {
        self.object
    }

    /// The bits of a scalar slot.
    ///
    /// # Panics
    /// When the shape has no such slot.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn scalar(&self, slot: u16) -> u64 {
        debug_assert_eq!(self.object.shape().kind(slot), Some(&SlotKind::Scalar), "the kind of slot {slot}");
        self.bits(slot)
    }

    /// The bytes of a block slot, of whatever kind. Empty when it was never written.
    ///
    /// # Panics
    /// When the slot is not a block.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn bytes(&self, slot: u16) -> &[u8] {
        match self.object.shape().kind(slot) {
            // SAFETY: the slot is a block.
            Some(SlotKind::Bytes | SlotKind::Text | SlotKind::Archive(_)) => unsafe { self.block(slot) },
            kind => wrong_kind(slot, kind, "a block"),
        }
    }

    /// The string of a text slot. Empty when it was never written.
    ///
    /// # Panics
    /// When the slot is not a text.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn text(&self, slot: u16) -> &str {
        match self.object.shape().kind(slot) {
            Some(SlotKind::Text) => {
                // SAFETY: the slot is a block.
                let bytes = unsafe { self.block(slot) };
                // SAFETY: Object invariant 2: blocks of text slots were checked to be UTF-8.
                unsafe { std::str::from_utf8_unchecked(bytes) }
            }
            kind => wrong_kind(slot, kind, "a text"),
        }
    }

    /// The archived value of a slot.
    ///
    /// # Panics
    /// When the slot does not hold archives of `T`.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn archived<T: Archivable>(&self, slot: u16) -> &T::Archived {
        match self.object.shape().kind(slot) {
            Some(SlotKind::Archive(archive)) if archive.is::<T>() => {
                // SAFETY: the slot is a block.
                let bytes = unsafe { self.block(slot) };
                // SAFETY: Object invariant 2: it holds an archive of `T`, because a slot of archives is always
                // written. Blocks are aligned to 16.
                unsafe { access::<T>(bytes) }
            }
            kind => wrong_kind(slot, kind, std::any::type_name::<T>()),
        }
    }

    /// The map of a slot.
    ///
    /// # Panics
    /// When the slot is not a map.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn map(&self, slot: u16) -> MapRef<'_> {
        match self.object.shape().kind(slot) {
            Some(SlotKind::Map(kind)) => {
                let (root, count) = pair(self.bits(slot));
                // SAFETY: invariant 1, and Object invariant 2: the map's values are of its kind.
                unsafe { MapRef::new(self.object.heap().arena(), root, count, *kind) }
            }
            kind => wrong_kind(slot, kind, "a map"),
        }
    }

    /// The version of a lock group.
    ///
    /// # Panics
    /// When the shape has no such group.
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn version(&self, group: u8) -> u64 {
        match self.table.version(group) {
            Some(version) => version,
            None => panic!("the shape has no lock group {group}"),
        }
    }

    pub(crate) fn footprint(&self) -> usize {
        usize::try_from(self.table.footprint()).unwrap_or(usize::MAX)
    }

    #[inline]
    #[track_caller]
    fn bits(&self, slot: u16) -> u64 {
        match self.table.slot(slot) {
            Some(bits) => bits,
            None => panic!("the shape has no slot {slot}"),
        }
    }

    /// # Safety
    /// The slot is a block.
    #[inline]
    unsafe fn block(&self, slot: u16) -> &[u8] {
        let piece = block_piece(self.bits(slot));
        // SAFETY: invariant 1 and the caller's promise; an empty block has no bytes.
        unsafe { block::bytes(self.object.heap().arena(), piece.unit, 0, piece.bytes) }
    }
}

impl Clone for Pinned<'_> {
    /// The same content, pinned once more.
    fn clone(&self) -> Self {
        // A thread that is pinned stays in its epoch when it pins again: the table stays as long as either.
        Self { object: self.object, table: self.table, _guard: epoch::pin() }
    }
}

impl fmt::Debug for Pinned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned")
            .field("slots", &self.object.shape().slots().len())
            .field("footprint", &self.footprint())
            .finish_non_exhaustive()
    }
}

#[cold]
#[track_caller]
fn wrong_kind(slot: u16, kind: Option<&SlotKind>, wanted: &str) -> ! {
    match kind {
        Some(kind) => panic!("slot {slot} is {kind:?}, not {wanted}"),
        None => panic!("the shape has no slot {slot}"),
    }
}

#[cold]
#[track_caller]
pub(crate) fn wrong_value(kind: BlockKind, wanted: &str) -> ! {
    panic!("the map's values are {kind:?}, not {wanted}")
}
