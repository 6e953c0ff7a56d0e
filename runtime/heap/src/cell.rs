//! The word of an object: where its table is, and whose turn it is to write.
//!
//! Readers load it and never wait. Writers take turns through one bit of it, so that several of them can publish one
//! object without losing a slot. Knows nothing about what a table is; the loom model runs this very code.

use crate::sync::{AtomicU64, Ordering, pause};

/// Set while somebody writes. Tables are aligned to 16 bytes, so an offset leaves it free.
const WRITER: u64 = 1;
const UNIT_SHIFT: u32 = 4;

/// The table of an object, and the turn to replace it.
///
/// # Invariants
/// 1. The offset is that of a table which was complete before it was published here.
/// 2. Only who set [`WRITER`] changes the word, until it clears it with the next table or the same.
#[derive(Debug)]
pub(crate) struct Word(AtomicU64);

impl Word {
    /// A word that leads to a first, complete table.
    pub(crate) fn new(unit: u32) -> Self {
        Self(AtomicU64::new(u64::from(unit) << UNIT_SHIFT))
    }

    /// The unit of the present table. Whoever is pinned may read that table.
    #[inline]
    pub(crate) fn load(&self) -> u32 {
        // Acquire: pairs with the release in `Turn::publish`, so the table's bytes are seen complete.
        unit(self.0.load(Ordering::Acquire))
    }

    /// Waits for the turn to write. Held for a copy of the table, by everybody.
    #[inline]
    pub(crate) fn turn(&self) -> Turn<'_> {
        let mut round = 0;
        loop {
            let word = self.0.load(Ordering::Relaxed);
            // Acquire: pairs with the releases in `Turn::publish` and `Turn::drop`: the previous writer's table is
            // seen complete, and so is everything that writer did to it.
            if word & WRITER == 0
                && (self.0)
                    .compare_exchange_weak(word, word | WRITER, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return Turn {
                    word: &self.0,
                    unit: unit(word),
                };
            }
            pause(&mut round);
        }
    }
}

/// The turn to replace the table. Dropped without [`Turn::publish`] it leaves the table that was there.
///
/// # Invariants
/// 1. [`WRITER`] is set in `word` on behalf of this value, and `unit` is the word's table.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    word: &'a AtomicU64,
    unit: u32,
}

impl Turn<'_> {
    /// The unit of the present table. It stays the present table, hence alive, until the turn ends: no pin is needed.
    #[inline]
    pub(crate) const fn present(&self) -> u32 {
        self.unit
    }

    /// Publishes a complete table and ends the turn. Returns the unit of the replaced one, which the caller retires.
    #[inline]
    pub(crate) fn publish(self, unit: u32) -> u32 {
        let replaced = self.unit;
        // Release: pairs with the acquire in `Word::load` and in `Word::turn`. Also clears the bit.
        self.word.store(u64::from(unit) << UNIT_SHIFT, Ordering::Release);
        std::mem::forget(self);
        replaced
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release: pairs with the acquire in `Word::turn`.
        self.word.store(u64::from(self.unit) << UNIT_SHIFT, Ordering::Release);
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a word holds a 32-bit unit and four bits below it"
)]
const fn unit(word: u64) -> u32 {
    (word >> UNIT_SHIFT) as u32
}
