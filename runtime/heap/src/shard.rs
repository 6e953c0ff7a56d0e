//! Free lists of small blocks, one set of them per shard, so that threads seldom meet.
//!
//! A shard is held for a handful of instructions; who finds it held goes to the next one.
#![expect(unsafe_code, reason = "guards the lists with a bit of its own")]

use crate::class::{CLASSES, Class};
use std::cell::{Cell, UnsafeCell};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// The unit that starts no block: the end of a list.
pub(crate) const NO_UNIT: u32 = 0;

/// The first block of each class's list; the others follow by the link in each block's first bytes.
pub(crate) type Heads = [u32; CLASSES];

/// One set of free lists.
///
/// # Invariants
/// 1. `heads` is touched only by who turned `busy` from false to true, until it turns it back.
/// 2. Each block in a list is free and in no other list.
/// 3. `used_bytes` and `freed_bytes` are written only by who holds the shard.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Shard {
    busy: AtomicBool,
    heads: UnsafeCell<Heads>,
    used_bytes: AtomicI64,
    freed_bytes: AtomicU64,
}

// SAFETY: by invariant 1 no two threads touch `heads` at once; the rest is atomic.
unsafe impl Sync for Shard {}

impl Shard {
    pub(crate) const fn new() -> Self {
        Self {
            busy: AtomicBool::new(false),
            heads: UnsafeCell::new([NO_UNIT; CLASSES]),
            used_bytes: AtomicI64::new(0),
            freed_bytes: AtomicU64::new(0),
        }
    }

    /// Holds the shard, unless somebody else does.
    pub(crate) fn try_hold(&self) -> Option<Held<'_>> {
        // Acquire: pairs with the release in `Held::drop`.
        let is_ours = self.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        // Made only when it is ours: dropping one lets go of the shard, whoever holds it.
        is_ours.then(|| Held { shard: self })
    }

    /// Holds the shard, after whoever does.
    pub(crate) fn hold(&self) -> Held<'_> {
        loop {
            if let Some(held) = self.try_hold() {
                return held;
            }
            std::thread::yield_now();
        }
    }

    /// Bytes taken less bytes freed through this shard; below zero when more were freed here than taken.
    pub(crate) fn used_bytes(&self) -> i64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Bytes ever freed through this shard.
    pub(crate) fn freed_bytes(&self) -> u64 {
        self.freed_bytes.load(Ordering::Relaxed)
    }
}

/// A shard that is held.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    shard: &'a Shard,
}

impl Held<'_> {
    /// As [`Shard::used_bytes`], and whoever changed it before is done with the shard.
    pub(crate) fn used_bytes(&self) -> i64 {
        self.shard.used_bytes()
    }

    /// Counts a block that was taken.
    pub(crate) fn count_taken(&self, class: Class) {
        let used = self.shard.used_bytes.load(Ordering::Relaxed);
        self.shard.used_bytes.store(used + class.bytes() as i64, Ordering::Relaxed);
    }

    /// Counts a block that was freed.
    pub(crate) fn count_freed(&self, class: Class) {
        let bytes = class.bytes() as i64;
        let used = self.shard.used_bytes.load(Ordering::Relaxed);
        self.shard.used_bytes.store(used - bytes, Ordering::Relaxed);
        let freed = self.shard.freed_bytes.load(Ordering::Relaxed);
        self.shard.freed_bytes.store(freed.wrapping_add(bytes.unsigned_abs()), Ordering::Relaxed);
    }
}

impl Deref for Held<'_> {
    type Target = Heads;

    fn deref(&self) -> &Heads {
        // SAFETY: Shard invariant 1: a `Held` exists only between the two turns of `busy`.
        unsafe { &*self.shard.heads.get() }
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Heads {
        // SAFETY: Shard invariant 1: a `Held` exists only between the two turns of `busy`.
        unsafe { &mut *self.shard.heads.get() }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Release: pairs with the acquire in `Shard::try_hold`.
        self.shard.busy.store(false, Ordering::Release);
    }
}

/// The shards of an arena.
#[derive(Debug)]
pub(crate) struct Shards(Box<[Shard]>);

impl Shards {
    /// Enough for the processors of this machine.
    pub(crate) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shards = (processors * 2).next_power_of_two().min(SHARDS_MAX);
        Self((0..shards).map(|_| Shard::new()).collect())
    }

    /// Holds this thread's shard, or the next that is not held.
    pub(crate) fn hold(&self) -> Held<'_> {
        let own = thread_number();
        loop {
            for step in 0..self.0.len() {
                if let Some(held) = self.0[(own + step) & (self.0.len() - 1)].try_hold() {
                    return held;
                }
            }
            std::thread::yield_now();
        }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Shard> {
        self.0.iter()
    }
}

const SHARDS_MAX: usize = 32;

/// Spreads threads over shards; says nothing else about a thread.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const UNSET: usize = usize::MAX;
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(UNSET) };
    }
    NUMBER.with(|number| {
        if number.get() == UNSET {
            number.set(NEXT.fetch_add(1, Ordering::Relaxed) & (UNSET >> 1));
        }
        number.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_a_shard_held_leaves_it_held() {
        let shard = Shard::new();
        let held = shard.try_hold();
        assert!(held.is_some());
        assert!(shard.try_hold().is_none());
        assert!(shard.try_hold().is_none(), "the attempt before let go of a shard that was not its own");
        drop(held);
        assert!(shard.try_hold().is_some());
    }
}
