//! Long runs of the arena: best fit over free extents that coalesce with their neighbours.
//!
//! Bookkeeping only: it never touches the arena's bytes.

use std::collections::{BTreeMap, BTreeSet};

/// The free extents of an arena, in granules.
///
/// # Invariants
/// 1. No two free extents overlap or touch.
/// 2. `by_length` holds exactly the extents of `by_start`.
/// 3. An extent that was taken and not returned overlaps no free one.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    by_start: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
}

impl Extents {
    /// All of `start..start + length` free.
    pub(crate) fn new(start: u32, length: u32) -> Self {
        let mut extents = Self::default();
        if length > 0 {
            extents.insert(start, length);
        }
        extents
    }

    /// Takes the start of the shortest free extent that is long enough.
    pub(crate) fn take(&mut self, length: u32) -> Option<u32> {
        let &(found, start) = self.by_length.range((length, 0)..).next()?;
        self.remove(start, found);
        if found > length {
            self.insert(start + length, found - length);
        }
        Some(start)
    }

    /// Takes back what [`Extents::take`] gave.
    pub(crate) fn give(&mut self, start: u32, length: u32) {
        let (mut start, mut length) = (start, length);
        if let Some((&before, &size)) = self.by_start.range(..start).next_back() {
            assert!(before + size <= start, "an extent was returned twice");
            if before + size == start {
                self.remove(before, size);
                start = before;
                length += size;
            }
        }
        if let Some((&after, &size)) = self.by_start.range(start..).next() {
            assert!(start + length <= after, "an extent was returned twice");
            if start + length == after {
                self.remove(after, size);
                length += size;
            }
        }
        self.insert(start, length);
    }

    fn insert(&mut self, start: u32, length: u32) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_coalesce() {
        let mut extents = Extents::new(1, 9);
        let taken: Vec<u32> = (0..3).map(|_| extents.take(3).unwrap()).collect();
        assert_eq!(taken, [1, 4, 7]);
        assert_eq!(extents.take(1), None);
        extents.give(1, 3);
        extents.give(7, 3);
        assert_eq!(extents.take(4), None);
        extents.give(4, 3);
        assert_eq!(extents.take(9), Some(1));
    }

    #[test]
    fn the_best_fit_is_taken() {
        let mut extents = Extents::new(0, 10);
        let first = extents.take(4).unwrap();
        let _kept = extents.take(1).unwrap();
        let second = extents.take(2).unwrap();
        let _kept = extents.take(3).unwrap();
        extents.give(first, 4);
        extents.give(second, 2);
        assert_eq!(extents.take(2), Some(second));
    }
}
