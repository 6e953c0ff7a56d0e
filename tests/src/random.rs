//! Numbers that look random and are the same for the same seed (SplitMix64).

use std::cell::Cell;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// Those of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Any number.
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`.
    ///
    /// # Panics
    /// When nothing is below it.
    pub fn below(&self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a bound of that type")
    }

    /// A time up to this one, that included.
    ///
    /// # Panics
    /// When that is longer than the world exists.
    pub fn up_to(&self, most: Duration) -> Duration {
        let micros = usize::try_from(most.as_micros()).expect("a time to wait");
        Duration::from_micros(self.below(micros + 1) as u64)
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn one_of<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}
