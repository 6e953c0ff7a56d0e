//! The table of an object: its footprint, a version for each lock group, eight bytes for each slot.
//!
//! Immutable once published. Everything in it is a plain number; offsets stand for blocks and trees.
#![expect(unsafe_code, reason = "reads and fills tables where they lie in the arena")]

use crate::arena::{Arena, Piece};

const WORD_BYTES: usize = size_of::<u64>();

/// Where things are in the tables of one shape, in words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Layout {
    groups: u16,
    slots: u16,
}

impl Layout {
    /// Both numbers are within the limits of a shape.
    pub(crate) fn new(slots: usize, groups: usize) -> Self {
        let narrow = |number| u16::try_from(number).unwrap_or(u16::MAX);
        Self { groups: narrow(groups), slots: narrow(slots) }
    }

    pub(crate) const fn groups(self) -> usize {
        self.groups as usize
    }

    const fn words(self) -> usize {
        FIRST_VERSION + self.groups as usize + self.slots as usize
    }

    /// The table's length in bytes.
    pub(crate) const fn bytes(self) -> usize {
        self.words() * WORD_BYTES
    }

    /// The piece that holds the table at this unit.
    pub(crate) fn piece(self, unit: u32) -> Piece {
        Piece { unit, bytes: u32::try_from(self.bytes()).unwrap_or(u32::MAX) }
    }

    const fn version_at(self, group: u8) -> Option<usize> {
        if (group as u16) < self.groups { Some(FIRST_VERSION + group as usize) } else { None }
    }

    const fn slot_at(self, slot: u16) -> Option<usize> {
        if slot < self.slots { Some(FIRST_VERSION + self.groups as usize + slot as usize) } else { None }
    }
}

/// The footprint of everything the object holds in the arena.
const FOOTPRINT: usize = 0;
const FIRST_VERSION: usize = 1;

/// A table that may be read.
///
/// # Invariants
/// 1. `words` is the whole of a complete table of this layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    words: &'a [u64],
    layout: Layout,
}

impl<'a> Table<'a> {
    /// The table at this unit.
    ///
    /// # Safety
    /// A table of this layout is there, complete and alive for `'a`, and nobody writes it.
    #[inline]
    pub(crate) unsafe fn at(arena: &'a Arena, unit: u32, layout: Layout) -> Self {
        let start = arena.at(unit).cast::<u64>();
        // SAFETY: the caller's promise; pieces are aligned to 16.
        let words = unsafe { std::slice::from_raw_parts(start, layout.words()) };
        Self { words, layout }
    }

    /// The eight bytes of a slot, whatever they mean. `None` when there is no such slot.
    #[inline]
    pub(crate) fn slot(self, slot: u16) -> Option<u64> {
        self.layout.slot_at(slot).map(|at| self.words[at])
    }

    /// The version of a lock group. `None` when there is no such group.
    #[inline]
    pub(crate) fn version(self, group: u8) -> Option<u64> {
        self.layout.version_at(group).map(|at| self.words[at])
    }

    /// The bytes of the arena that the object takes.
    pub(crate) const fn footprint(self) -> u64 {
        self.words[FOOTPRINT]
    }
}

/// A table that is being filled, before anybody else can see it.
#[derive(Debug)]
pub(crate) struct NewTable<'a> {
    words: &'a mut [u64],
    layout: Layout,
}

impl<'a> NewTable<'a> {
    /// The table to be, all zeros or a copy.
    ///
    /// # Safety
    /// `piece` is as long as tables of this layout, and nobody else uses it for `'a`.
    pub(crate) unsafe fn at(arena: &'a Arena, piece: Piece, layout: Layout, from: Option<Table<'_>>) -> Self {
        let start = arena.at(piece.unit).cast::<u64>();
        // SAFETY: the caller's promise; pieces are aligned to 16, and any bytes make a number.
        let words = unsafe { std::slice::from_raw_parts_mut(start, layout.words()) };
        match from {
            Some(from) => words.copy_from_slice(from.words),
            None => words.fill(0),
        }
        Self { words, layout }
    }

    /// A slot of a shape that was checked to have it.
    pub(crate) fn slot_mut(&mut self, slot: u16) -> Option<&mut u64> {
        self.layout.slot_at(slot).map(|at| &mut self.words[at])
    }

    /// Sets the versions of some lock groups, which were checked to be there.
    #[inline]
    pub(crate) fn set_some_versions(&mut self, versions: &[(u8, u64)]) {
        for &(group, version) in versions {
            let Some(at) = self.layout.version_at(group) else {
                unreachable!("the groups were checked");
            };
            self.words[at] = version;
        }
    }

    /// Sets all versions.
    pub(crate) fn set_versions(&mut self, versions: &[u64]) {
        self.words[FIRST_VERSION..][..versions.len()].copy_from_slice(versions);
    }

    pub(crate) const fn footprint_mut(&mut self) -> &mut u64 {
        &mut self.words[FOOTPRINT]
    }
}

/// What the slot of a block holds; zero for an empty block.
pub(crate) const fn block_bits(piece: Piece) -> u64 {
    pair_bits(piece.unit, piece.bytes)
}

/// The block of a slot. Its length is zero when there is none.
pub(crate) const fn block_piece(bits: u64) -> Piece {
    let (unit, bytes) = pair(bits);
    Piece { unit, bytes }
}

/// Two halves of a slot.
pub(crate) const fn pair_bits(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << u32::BITS
}

/// The two halves of a slot.
#[expect(clippy::cast_possible_truncation, reason = "takes the number apart")]
pub(crate) const fn pair(bits: u64) -> (u32, u32) {
    (bits as u32, (bits >> u32::BITS) as u32)
}
