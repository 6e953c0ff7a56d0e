//! The cell of one object: a word that leads to its present table.
#![expect(unsafe_code, reason = "reads, publishes and frees the tables that the word leads to")]

use crate::arena::Piece;
use crate::cell::{Turn, Word};
use crate::draft::{self, Draft, Full, Retired};
use crate::heap::Heap;
use crate::pin::Pinned;
use crate::shape::{Shape, SlotKind};
use crate::table::{NewTable, Table};
use crate::write::{self, ApplyError, SlotWrite};
use crossbeam_epoch as epoch;
use std::sync::Arc;

/// One object. Read by [`Object::pin`] without waiting; written by any number of threads, which take turns for the
/// copy of its table.
///
/// # Invariants
/// 1. `word` leads to a complete table of `shape`'s layout in `heap`'s arena, which is alive.
/// 2. The blocks and trees of that table are alive, belong to this object only, and hold what the kinds of their slots
///    say: they were checked, or made by serialising that very type.
/// 3. A table, block or tree that was published is not changed any more, and is retired after it was replaced.
#[derive(Debug)]
pub struct Object {
    word: Word,
    shape: Arc<Shape>,
    heap: Heap,
}

impl Object {
    /// A new object. A scalar that is not written is 0, a block is empty, a map has no entries.
    ///
    /// # Errors
    /// [`ApplyError::Missing`] when a slot that holds an archive is not written; otherwise as [`Object::apply`].
    pub fn new(
        heap: &Heap,
        shape: &Arc<Shape>,
        writes: &[SlotWrite<'_>],
        versions: &[u64],
    ) -> Result<Self, ApplyError> {
        check_whole(shape, writes, versions)?;
        with_room(heap, || {
            let mut draft = Draft::new(heap.arena());
            let unit = Content { shape, writes, versions }.build(&mut draft)?;
            draft.finish_unseen();
            Ok(Self { word: Word::new(unit), shape: Arc::clone(shape), heap: heap.clone() })
        })
    }

    /// Writes some slots and the versions of some lock groups, by index: all or nothing. Readers see the table
    /// before or the table after. Later writes of a slot win.
    ///
    /// # Errors
    /// Nothing was changed: the arena is full, bytes failed their check, or the shape has no such slot or group.
    pub fn apply(&self, writes: &[SlotWrite<'_>], versions: &[(u8, u64)]) -> Result<(), ApplyError> {
        self.check_groups(versions)?;
        if write::are_scalars(&self.shape, writes) {
            return with_room(&self.heap, || Ok(self.apply_scalars(writes, versions)?));
        }
        with_room(&self.heap, || {
            let mut draft = Draft::new(self.heap.arena());
            let (turn, unit) = self.make(&mut draft, writes, versions)?;
            self.publish(turn, unit, draft);
            Ok(())
        })
    }

    /// As [`Object::apply`], but keeps the turn to write until [`Prepared::publish`]: for writes of several objects
    /// that must all succeed. Every other writer of the object waits meanwhile, so prepare in ascending order of
    /// something that all callers order by, and never the same object twice.
    ///
    /// # Errors
    /// As [`Object::apply`].
    pub fn prepare(&self, writes: &[SlotWrite<'_>], versions: &[(u8, u64)]) -> Result<Prepared<'_>, ApplyError> {
        self.check_groups(versions)?;
        with_room(&self.heap, || {
            let mut draft = Draft::new(self.heap.arena());
            let (turn, unit) = self.make(&mut draft, writes, versions)?;
            Ok(Prepared { object: self, unit, turn, draft })
        })
    }

    fn check_groups(&self, versions: &[(u8, u64)]) -> Result<(), ApplyError> {
        let mut groups = versions.iter().map(|&(group, _)| usize::from(group));
        match groups.find(|group| *group >= self.shape.groups()) {
            Some(group) => Err(ApplyError::BadGroup { group }),
            None => Ok(()),
        }
    }

    /// The common case made short: no blocks, so the table is all that can lack room.
    fn apply_scalars(&self, writes: &[SlotWrite<'_>], versions: &[(u8, u64)]) -> Result<(), Full> {
        let (arena, layout) = (self.heap.arena(), self.shape.layout());
        let needed_bytes = layout.bytes();
        let piece = arena.allocate(needed_bytes).ok_or(Full { needed_bytes })?;
        let turn = self.word.turn();
        let (mut table, _) = self.copy(&turn, piece);
        write::fill_scalars(&mut table, writes);
        table.set_some_versions(versions);
        let replaced = turn.publish(piece.unit);
        // SAFETY: the word does not lead to it any more, and did until now.
        unsafe { self.heap.retire(layout.piece(replaced), Retired::new()) };
        Ok(())
    }

    /// A copy of the present table in a piece that was just taken for it; and the present one.
    #[inline]
    fn copy<'t>(&'t self, turn: &'t Turn<'_>, piece: Piece) -> (NewTable<'t>, Table<'t>) {
        let (arena, layout) = (self.heap.arena(), self.shape.layout());
        // SAFETY: invariant 1, and the turn: nobody else replaces the present table while it lasts.
        let present = unsafe { Table::at(arena, turn.present(), layout) };
        // SAFETY: the piece was just taken, for this layout.
        let table = unsafe { NewTable::at(arena, piece, layout, Some(present)) };
        (table, present)
    }

    /// Makes the next table, and takes the turn to publish it.
    fn make(
        &self,
        draft: &mut Draft<'_>,
        writes: &[SlotWrite<'_>],
        versions: &[(u8, u64)],
    ) -> Result<(Turn<'_>, u32), ApplyError> {
        // Whatever can be done before the turn is: it is held for the copy only.
        let pieces = write::prepare(draft, &self.shape, writes)?;
        let piece = draft.allocate(self.shape.layout().bytes())?;
        let turn = self.word.turn();
        let (mut table, present) = self.copy(&turn, piece);
        write::fill(draft, &mut table, writes, &pieces)?;
        table.set_some_versions(versions);
        let growth = draft.footprint() - piece.footprint() as i64;
        *table.footprint_mut() = present.footprint().saturating_add_signed(growth);
        Ok((turn, piece.unit))
    }

    /// Publishes a table that was made of the present one or instead of it.
    #[inline]
    fn publish(&self, turn: Turn<'_>, unit: u32, draft: Draft<'_>) {
        let replaced = turn.publish(unit);
        let retired = draft.finish();
        // SAFETY: the word does not lead to them any more, and did until now.
        unsafe { self.heap.retire(self.shape.layout().piece(replaced), retired) };
    }

    /// Replaces the whole content, as [`Object::new`] would make it: all or nothing.
    ///
    /// # Errors
    /// As [`Object::new`]; nothing was changed.
    pub fn replace(&self, writes: &[SlotWrite<'_>], versions: &[u64]) -> Result<(), ApplyError> {
        check_whole(&self.shape, writes, versions)?;
        with_room(&self.heap, || {
            let (arena, layout) = (self.heap.arena(), self.shape.layout());
            let mut draft = Draft::new(arena);
            let unit = Content { shape: &self.shape, writes, versions }.build(&mut draft)?;
            let turn = self.word.turn();
            // SAFETY: invariant 1, and the turn: nobody else replaces the present table.
            let present = unsafe { Table::at(arena, turn.present(), layout) };
            for (slot, &kind) in (0..).zip(self.shape.slots()) {
                write::retire_slot(&mut draft, kind, present.slot(slot).unwrap_or(0));
            }
            self.publish(turn, unit, draft);
            Ok(())
        })
    }

    /// The present content, for as long as the pin is held. Never waits. Hold it briefly: nothing that is retired
    /// anywhere can be freed meanwhile.
    #[inline]
    #[must_use]
    pub fn pin(&self) -> Pinned<'_> {
        let guard = epoch::pin();
        // SAFETY: invariant 1 and 3: pinned before the load, so the table stays until the guard is dropped.
        let table = unsafe { Table::at(self.heap.arena(), self.word.load(), self.shape.layout()) };
        // SAFETY: the table was found under this guard, in this object.
        unsafe { Pinned::new(guard, self, table) }
    }

    /// The version of a lock group.
    ///
    /// # Panics
    /// When the shape has no such group.
    #[must_use]
    pub fn version(&self, group: u8) -> u64 {
        self.pin().version(group)
    }

    /// The bits of a scalar slot.
    ///
    /// # Panics
    /// When the shape has no such slot.
    #[must_use]
    pub fn scalar(&self, slot: u16) -> u64 {
        self.pin().scalar(slot)
    }

    /// What the slots hold.
    #[must_use]
    pub const fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// The heap it lives in.
    #[must_use]
    pub const fn heap(&self) -> &Heap {
        &self.heap
    }

    /// The bytes of the arena that its present content takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pin().footprint()
    }
}

/// A write that is ready to be shown. Dropped without [`Prepared::publish`] it comes to nothing.
///
/// # Invariants
/// 1. `unit` is a complete table of the object's shape, made from the present one, and a fresh piece of `draft`.
/// 2. Fields are dropped in this order: the turn ends before the draft frees what nobody saw.
#[derive(Debug)]
pub struct Prepared<'a> {
    object: &'a Object,
    unit: u32,
    turn: Turn<'a>,
    draft: Draft<'a>,
}

impl Prepared<'_> {
    /// Shows the write to readers, and lets the next writer have its turn.
    #[inline]
    pub fn publish(self) {
        self.object.publish(self.turn, self.unit, self.draft);
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let (arena, layout) = (self.heap.arena(), self.shape.layout());
        // No pin and no epoch: a `Pinned` borrows its object, so there is no reader.
        let unit = self.word.load();
        // SAFETY: invariant 1.
        let table = unsafe { Table::at(arena, unit, layout) };
        for (slot, &kind) in (0..).zip(self.shape.slots()) {
            if let Some(piece) = write::slot_piece(kind, table.slot(slot).unwrap_or(0)) {
                // SAFETY: invariant 2, and there is no reader.
                unsafe { draft::free(arena, piece) };
            }
        }
        // SAFETY: invariant 1, and there is no reader.
        unsafe { arena.free(layout.piece(unit)) };
    }
}

/// A whole content, checked by [`check_whole`].
struct Content<'a> {
    shape: &'a Shape,
    writes: &'a [SlotWrite<'a>],
    versions: &'a [u64],
}

impl Content<'_> {
    /// Makes a table of it; returns its unit.
    fn build(&self, draft: &mut Draft<'_>) -> Result<u32, ApplyError> {
        let layout = self.shape.layout();
        let prepared = write::prepare(draft, self.shape, self.writes)?;
        let piece = draft.allocate(layout.bytes())?;
        // SAFETY: the piece was just taken, for this layout.
        let mut table = unsafe { NewTable::at(draft.arena(), piece, layout, None) };
        write::fill(draft, &mut table, self.writes, &prepared)?;
        table.set_versions(self.versions);
        *table.footprint_mut() = draft.footprint().unsigned_abs();
        Ok(piece.unit)
    }
}

fn check_whole(shape: &Shape, writes: &[SlotWrite<'_>], versions: &[u64]) -> Result<(), ApplyError> {
    if versions.len() != shape.groups() {
        return Err(ApplyError::BadGroup { group: versions.len().min(shape.groups()) });
    }
    let mut is_written = vec![false; shape.slots().len()];
    for write in writes {
        if let Some(slot) = is_written.get_mut(usize::from(write.slot())) {
            *slot = true;
        }
    }
    for ((slot, kind), is_written) in (0..).zip(shape.slots()).zip(is_written) {
        if matches!(kind, SlotKind::Archive(_)) && !is_written {
            return Err(ApplyError::Missing { slot });
        }
    }
    Ok(())
}

/// Tries again once, after making room.
#[inline]
fn with_room<T>(heap: &Heap, attempt: impl Fn() -> Result<T, ApplyError>) -> Result<T, ApplyError> {
    match attempt() {
        Err(ApplyError::Full { needed_bytes }) if needed_bytes < heap.bytes_max() => after_reclaim(heap, &attempt),
        done => done,
    }
}

#[cold]
fn after_reclaim<T>(heap: &Heap, attempt: &dyn Fn() -> Result<T, ApplyError>) -> Result<T, ApplyError> {
    heap.reclaim();
    attempt()
}
