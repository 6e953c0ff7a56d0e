//! What one write has taken from the arena and will give up, until it is published or comes to nothing.
#![expect(unsafe_code, reason = "frees what was taken when a write comes to nothing")]

use crate::arena::{Arena, Piece};
use crate::tree;
use smallvec::SmallVec;

/// Pieces that go when the readers of today have gone. One of no length is the root of a tree, and stands for all of
/// it.
pub(crate) type Retired = SmallVec<[Piece; 4]>;

/// The arena has no room, whatever is collected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Full {
    pub(crate) needed_bytes: usize,
}

/// # Invariants
/// 1. `fresh` holds the pieces that this draft took; nobody else knows of them before [`Draft::finish`].
/// 2. `retired` holds pieces of the object's present content that its next content does not have, and fresh ones that
///    it gave up again; each once.
#[derive(Debug)]
pub(crate) struct Draft<'h> {
    arena: &'h Arena,
    fresh: Retired,
    retired: Retired,
    footprint: i64,
    stamp: u64,
}

impl<'h> Draft<'h> {
    pub(crate) fn new(arena: &'h Arena) -> Self {
        Self { arena, fresh: SmallVec::new(), retired: SmallVec::new(), footprint: 0, stamp: 0 }
    }

    pub(crate) const fn arena(&self) -> &'h Arena {
        self.arena
    }

    /// Takes a piece. `bytes` is not zero.
    pub(crate) fn allocate(&mut self, bytes: usize) -> Result<Piece, Full> {
        debug_assert!(bytes > 0, "a piece of no length stands for a tree");
        let piece = self.arena.allocate(bytes).ok_or(Full { needed_bytes: bytes })?;
        self.fresh.push(piece);
        self.footprint += piece.footprint() as i64;
        Ok(piece)
    }

    /// Gives up a piece of the present content, or a fresh one.
    pub(crate) fn retire(&mut self, piece: Piece) {
        self.footprint -= piece.footprint() as i64;
        self.retired.push(piece);
    }

    /// Gives up a whole tree, which has this footprint.
    pub(crate) fn retire_tree(&mut self, root: u32, footprint: i64) {
        self.footprint -= footprint;
        self.retired.push(Piece { unit: root, bytes: 0 });
    }

    /// By how much the object's footprint grows, so far.
    pub(crate) const fn footprint(&self) -> i64 {
        self.footprint
    }

    /// A number that marks what this draft took and may still change; never zero.
    pub(crate) fn stamp(&mut self) -> u64 {
        if self.stamp == 0 {
            self.stamp = self.arena.next_stamp();
        }
        self.stamp
    }

    /// The fresh pieces have become the object's; returns what it gave up.
    pub(crate) fn finish(mut self) -> Retired {
        self.fresh.clear();
        std::mem::take(&mut self.retired)
    }

    /// As [`Draft::finish`], for an object that nobody has seen: what was given up is freed at once.
    pub(crate) fn finish_unseen(self) {
        let arena = self.arena;
        for piece in self.finish() {
            // SAFETY: invariants 1 and 2: a new object has no earlier content, so the piece was fresh.
            unsafe { free(arena, piece) };
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        for piece in self.fresh.drain(..) {
            // SAFETY: invariant 1: nobody else knows of it.
            unsafe { self.arena.free(piece) };
        }
    }
}

/// Frees a retired piece, or a tree.
///
/// # Safety
/// It belongs to this arena and to nobody, and no reader sees it any more.
pub(crate) unsafe fn free(arena: &Arena, piece: Piece) {
    if piece.bytes == 0 {
        // SAFETY: the caller's promise; a piece of no length is the root of a tree.
        unsafe { tree::free(arena, piece.unit) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { arena.free(piece) };
    }
}
