//! One anonymous mapping, and who owns which part of it.
//!
//! It gives out pieces by length and takes them back. What is in them, who may read them and when nobody does any
//! more is not its business.
#![expect(unsafe_code, reason = "links free blocks through their own bytes")]

use crate::class::Class;
use crate::limits::{ARENA_BYTES_MAX, ARENA_BYTES_MIN};
use crate::poison;
use crate::shard::{Held, NO_UNIT, Shards};
use crate::span::{Central, GRANULE_BYTES};
use memmap2::{MmapOptions, MmapRaw};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What offsets count, and how every block is aligned.
pub(crate) const UNIT_BYTES: usize = 16;

/// A part of the arena that was given out. No owner by itself: who holds one may not be the only one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Piece {
    /// Where it starts, in units; never [`NO_UNIT`] for a piece that was given out.
    pub(crate) unit: u32,
    /// How long it is, as asked for.
    pub(crate) bytes: u32,
}

impl Piece {
    /// How many bytes of the arena it takes.
    pub(crate) const fn footprint(self) -> usize {
        match Class::of(self.bytes as usize) {
            Some(class) => class.bytes(),
            None => (self.bytes as usize).next_multiple_of(GRANULE_BYTES),
        }
    }
}

/// The mapping and its free lists.
///
/// # Invariants
/// 1. `map` covers `bytes_max` bytes, is never moved, and is unmapped only with the arena.
/// 2. A piece that was given out and not freed overlaps no other, no free block and no free extent.
/// 3. Each free block's first four bytes hold the unit of the next one in its list.
#[derive(Debug)]
pub(crate) struct Arena {
    map: MmapRaw,
    bytes_max: usize,
    shards: Shards,
    central: Mutex<Central>,
    large_freed_bytes: AtomicU64,
    large_taken_bytes: AtomicU64,
    stamps: AtomicU64,
}

/// How many blocks a shard gets at once.
const BATCH: usize = 16;

impl Arena {
    /// Reserves `bytes_max` bytes of address space, rounded up to a granule and into the limits.
    pub(crate) fn new(bytes_max: usize) -> io::Result<Self> {
        let bytes_max = bytes_max.clamp(ARENA_BYTES_MIN, ARENA_BYTES_MAX).next_multiple_of(GRANULE_BYTES);
        let map = MmapOptions::new().len(bytes_max).no_reserve_swap().map_anon()?;
        let map = MmapRaw::from(map);
        poison::close(map.as_ptr(), bytes_max);
        Ok(Self {
            map,
            bytes_max,
            shards: Shards::new(),
            central: Mutex::new(Central::new(bytes_max)),
            large_freed_bytes: AtomicU64::new(0),
            large_taken_bytes: AtomicU64::new(0),
            stamps: AtomicU64::new(0),
        })
    }

    /// How many bytes it can give out, less what the size classes waste.
    pub(crate) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Where a unit is. Any unit of a piece is inside the mapping.
    #[inline]
    pub(crate) fn at(&self, unit: u32) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(unit as usize * UNIT_BYTES)
    }

    /// A number that no earlier call returned, and never zero.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The footprints of all pieces given out and not freed. Exact when nobody is at it.
    pub(crate) fn used_bytes(&self) -> usize {
        let small: i64 = self.shards.iter().map(crate::shard::Shard::used_bytes).sum();
        let freed = self.large_freed_bytes.load(Ordering::Relaxed);
        let large = self.large_taken_bytes.load(Ordering::Relaxed).saturating_sub(freed);
        usize::try_from(small).unwrap_or(0) + usize::try_from(large).unwrap_or(usize::MAX)
    }

    /// Whether every piece was freed, and whoever freed the last one is done with the arena.
    ///
    /// For when nobody can take pieces any more: then the sum over the shards only falls, and taking each lock once
    /// waits for whoever freed a piece under it.
    pub(crate) fn is_idle(&self) -> bool {
        let small: i64 = self.shards.iter().map(|shard| shard.hold().used_bytes()).sum();
        let central = self.central();
        let freed = self.large_freed_bytes.load(Ordering::Relaxed);
        let large = self.large_taken_bytes.load(Ordering::Relaxed).wrapping_sub(freed);
        drop(central);
        small == 0 && large == 0
    }

    /// Bytes ever freed.
    pub(crate) fn freed_bytes(&self) -> u64 {
        let small: u64 = self.shards.iter().map(crate::shard::Shard::freed_bytes).sum();
        small.wrapping_add(self.large_freed_bytes.load(Ordering::Relaxed))
    }

    /// Gives out a piece of at least `bytes` bytes, aligned to a unit, holding anything. `None` when there is no room.
    #[inline]
    pub(crate) fn allocate(&self, bytes: usize) -> Option<Piece> {
        let Some(class) = Class::of(bytes) else {
            return self.allocate_large(bytes);
        };
        let mut held = self.shards.hold();
        let unit = if let Some(unit) = self.pop(&mut held, class) {
            held.count_taken(class);
            unit
        } else {
            drop(held);
            self.refill(class)?
        };
        poison::open(self.at(unit), bytes);
        #[expect(clippy::cast_possible_truncation, reason = "a small block has at most 64 KiB")]
        Some(Piece { unit, bytes: bytes as u32 })
    }

    /// Takes a piece back.
    ///
    /// # Safety
    /// [`Arena::allocate`] of this arena gave it out, it was not freed since, and nobody will use it any more.
    #[inline]
    pub(crate) unsafe fn free(&self, piece: Piece) {
        let at = self.at(piece.unit);
        // SAFETY: the piece is the caller's by its promise, so it is mapped and used by nobody.
        unsafe { poison::fill(at, piece.bytes as usize) };
        let Some(class) = Class::of(piece.bytes as usize) else {
            self.free_large(piece);
            return;
        };
        let mut held = self.shards.hold();
        self.push(&mut held, class, piece.unit);
        held.count_freed(class);
    }

    fn allocate_large(&self, bytes: usize) -> Option<Piece> {
        if bytes > self.bytes_max {
            return None;
        }
        let piece = Piece { unit: NO_UNIT, bytes: u32::try_from(bytes).ok()? };
        let mut central = self.central();
        let unit = central.take_large(piece.footprint())?;
        self.large_taken_bytes.fetch_add(piece.footprint() as u64, Ordering::Relaxed);
        drop(central);
        poison::open(self.at(unit), bytes);
        Some(Piece { unit, ..piece })
    }

    fn free_large(&self, piece: Piece) {
        poison::close(self.at(piece.unit), piece.footprint());
        let mut central = self.central();
        central.give_large(piece.unit, piece.footprint());
        self.large_freed_bytes.fetch_add(piece.footprint() as u64, Ordering::Relaxed);
    }

    /// Gives out one block of a class whose list was empty here, and brings this thread's shard some more.
    #[cold]
    fn refill(&self, class: Class) -> Option<u32> {
        let mut units = [NO_UNIT; BATCH];
        let mut count = self.steal(class, &mut units);
        if count == 0 {
            count = self.central().carve(class, &mut units);
        }
        let (&first, rest) = units[..count].split_first()?;
        let mut held = self.shards.hold();
        for &unit in rest {
            self.push(&mut held, class, unit);
        }
        held.count_taken(class);
        Some(first)
    }

    /// Takes free blocks of a class from any shard.
    fn steal(&self, class: Class, units: &mut [u32; BATCH]) -> usize {
        for shard in self.shards.iter() {
            let Some(mut held) = shard.try_hold() else { continue };
            let mut count = 0;
            while count < units.len()
                && let Some(unit) = self.pop(&mut held, class)
            {
                units[count] = unit;
                count += 1;
            }
            if count > 0 {
                return count;
            }
        }
        0
    }

    /// Gives spans whose blocks are all free back, so that other classes and long pieces can have them. Returns
    /// whether any was. Does nothing when little was freed since the last time and much is in use, because it walks every
    /// free block.
    pub(crate) fn sweep(&self) -> bool {
        let mut central = self.central();
        if !central.begin_sweep(self.freed_bytes(), self.used_bytes()) {
            return false;
        }
        let mut lists: Vec<(Class, u32)> = Vec::new();
        for shard in self.shards.iter() {
            let mut held = shard.hold();
            lists.extend(Class::all().filter_map(|class| {
                let first = std::mem::replace(&mut held[class.index()], NO_UNIT);
                (first != NO_UNIT).then_some((class, first))
            }));
        }
        for &(_, first) in &lists {
            let mut unit = first;
            while unit != NO_UNIT {
                central.count_free(unit);
                unit = self.link(unit);
            }
        }
        let mut held = self.shards.hold();
        for &(class, first) in &lists {
            let mut unit = first;
            while unit != NO_UNIT {
                let next = self.link(unit);
                if !central.is_free_span(unit) {
                    self.push(&mut held, class, unit);
                }
                unit = next;
            }
        }
        drop(held);
        central.end_sweep() > 0
    }

    #[inline]
    fn pop(&self, held: &mut Held<'_>, class: Class) -> Option<u32> {
        let unit = held[class.index()];
        if unit == NO_UNIT {
            return None;
        }
        held[class.index()] = self.link(unit);
        Some(unit)
    }

    /// Adds a free block to a list: one that was just freed or just carved.
    #[inline]
    fn push(&self, held: &mut Held<'_>, class: Class, unit: u32) {
        let at = self.at(unit);
        let next = std::mem::replace(&mut held[class.index()], unit);
        poison::open(at, UNIT_BYTES);
        // SAFETY: invariants 1 and 2: a free block is mapped, aligned to a unit, and used by nobody but the allocator.
        unsafe { at.cast::<u32>().write(next) };
        poison::close(at, class.bytes());
    }

    /// The block after this free one in its list.
    #[inline]
    fn link(&self, unit: u32) -> u32 {
        let at = self.at(unit);
        poison::open(at, UNIT_BYTES);
        // SAFETY: invariant 3; callers pass units of lists that they hold.
        let next = unsafe { at.cast::<u32>().read() };
        poison::close(at, UNIT_BYTES);
        next
    }

    fn central(&self) -> MutexGuard<'_, Central> {
        self.central.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // The next mapping at this address must not inherit the marks.
        poison::open(self.map.as_ptr(), self.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const ROUNDS: usize = 20_000;
    const THREADS: u8 = 8;

    /// One small block in each granule keeps every span at the first sweep, and frees almost nothing when it goes.
    #[test]
    fn an_empty_arena_has_room_for_anything() {
        const SMALL_BYTES: usize = 16;
        let arena = Arena::new(1 << 20).unwrap();
        let mut pieces: Vec<_> = std::iter::from_fn(|| arena.allocate(SMALL_BYTES)).collect();
        let granule = |piece: &Piece| piece.unit as usize * UNIT_BYTES / GRANULE_BYTES;
        pieces.sort_by_key(|piece| piece.unit);
        let kept: Vec<_> = pieces.chunk_by(|one, other| granule(one) == granule(other)).map(|of| of[0]).collect();
        pieces.retain(|piece| !kept.contains(piece));
        for piece in pieces {
            // SAFETY: it was just taken, and is used by nobody.
            unsafe { arena.free(piece) };
        }
        assert!(!arena.sweep(), "every span has a block that is in use");
        for piece in kept {
            // SAFETY: as above.
            unsafe { arena.free(piece) };
        }
        assert_eq!(arena.used_bytes(), 0);
        assert!(arena.sweep(), "everything is free");
        assert!(arena.allocate(900 << 10).is_some());
    }

    /// Fills each piece with the thread's number and looks whether that stayed, so that a piece with two owners shows.
    #[test]
    fn no_piece_has_two_owners() {
        let arena = Arena::new(4 << 20).unwrap();
        thread::scope(|scope| {
            for number in 1..=THREADS {
                let arena = &arena;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..ROUNDS {
                        let bytes = 1 + (round * 37 + usize::from(number)) % 120;
                        if let Some(piece) = arena.allocate(bytes) {
                            // SAFETY: the piece was just taken.
                            unsafe { arena.at(piece.unit).write_bytes(number, bytes) };
                            held.push(piece);
                        }
                        if held.len() > round % 7 {
                            let piece = held.swap_remove(round % held.len());
                            // SAFETY: the piece was filled above, and is this thread's.
                            let seen = unsafe { crate::block::bytes(arena, piece.unit, 0, piece.bytes) };
                            assert!(seen.iter().all(|byte| *byte == number), "a piece has two owners");
                            // SAFETY: it is this thread's, and taken out of `held`.
                            unsafe { arena.free(piece) };
                        }
                        if round % 1_000 == 0 {
                            arena.sweep();
                        }
                    }
                    for piece in held {
                        // SAFETY: as above.
                        unsafe { arena.free(piece) };
                    }
                });
            }
        });
        assert_eq!(arena.used_bytes(), 0);
        assert!(arena.is_idle());
    }
}
