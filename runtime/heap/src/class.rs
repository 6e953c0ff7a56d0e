//! Size classes: powers of two with quarter steps, so that a block wastes at most a fifth of its bytes.

use crate::arena::UNIT_BYTES;

/// The largest block that has a class; longer ones are extents of their own.
pub(crate) const SMALL_BYTES_MAX: usize = 64 << 10;
/// How many classes there are.
pub(crate) const CLASSES: usize = class_index(SMALL_BYTES_MAX) + 1;

const STEPS: usize = 4;
const STEPS_BITS: u32 = 2;
/// Up to here each step is one unit.
const LINEAR_BYTES_MAX: usize = UNIT_BYTES * STEPS;

/// One of the [`CLASSES`] sizes.
///
/// # Invariants
/// 1. The index is below [`CLASSES`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Class(u8);

impl Class {
    /// The class of the smallest blocks that take `bytes`, if they are small.
    #[inline]
    pub(crate) const fn of(bytes: usize) -> Option<Self> {
        if bytes <= TABLE_BYTES_MAX {
            return Some(Self(INDEX_BY_UNITS[bytes.div_ceil(UNIT_BYTES)]));
        }
        if bytes > SMALL_BYTES_MAX {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 256 classes")]
        Some(Self(class_index(bytes) as u8))
    }

    /// All classes, smallest first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES).map(|index| {
            #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 256 classes")]
            Self(index as u8)
        })
    }

    /// Its number.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// How long its blocks are.
    #[inline]
    pub(crate) const fn bytes(self) -> usize {
        BYTES[self.0 as usize] as usize
    }
}

/// Tables and most blocks are no longer than this: their class is looked up.
const TABLE_BYTES_MAX: usize = 1 << 10;

#[expect(clippy::cast_possible_truncation, reason = "there are fewer than 256 classes")]
static INDEX_BY_UNITS: [u8; TABLE_BYTES_MAX / UNIT_BYTES + 1] = {
    let mut table = [0; TABLE_BYTES_MAX / UNIT_BYTES + 1];
    let mut units = 0;
    while units < table.len() {
        table[units] = class_index(units * UNIT_BYTES) as u8;
        units += 1;
    }
    table
};

#[expect(clippy::cast_possible_truncation, reason = "a class has at most 64 KiB")]
static BYTES: [u32; CLASSES] = {
    let mut table = [0; CLASSES];
    let mut index = 0;
    while index < CLASSES {
        table[index] = class_bytes(index) as u32;
        index += 1;
    }
    table
};

const fn class_index(bytes: usize) -> usize {
    if bytes <= UNIT_BYTES {
        return 0;
    }
    if bytes <= LINEAR_BYTES_MAX {
        return bytes.div_ceil(UNIT_BYTES) - 1;
    }
    // The power of two below `bytes`, cut into STEPS equal steps.
    let power = (bytes - 1).ilog2();
    let step = (bytes - 1 - (1 << power)) >> (power - STEPS_BITS);
    STEPS + (power - LINEAR_BYTES_MAX.ilog2()) as usize * STEPS + step
}

const fn class_bytes(index: usize) -> usize {
    if index < STEPS {
        return (index + 1) * UNIT_BYTES;
    }
    let base = LINEAR_BYTES_MAX << ((index - STEPS) / STEPS);
    base + (base / STEPS) * ((index - STEPS) % STEPS + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gets_the_smallest_class_that_takes_it() {
        let sizes: Vec<usize> = Class::all().map(Class::bytes).collect();
        assert_eq!(sizes[..10], [16, 32, 48, 64, 80, 96, 112, 128, 160, 192]);
        assert_eq!(sizes.last(), Some(&SMALL_BYTES_MAX));
        for bytes in 0..=SMALL_BYTES_MAX {
            let class = Class::of(bytes).unwrap();
            assert!(class.bytes() >= bytes, "{bytes}");
            assert!(class.index() == 0 || sizes[class.index() - 1] < bytes, "{bytes}");
            assert_eq!(class.bytes() % UNIT_BYTES, 0, "{bytes}");
        }
        assert_eq!(Class::of(SMALL_BYTES_MAX + 1), None);
    }
}
