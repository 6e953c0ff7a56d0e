//! Spans: extents of the arena that were cut into blocks of one class.
//!
//! Bookkeeping only: it never touches the arena's bytes.

use crate::arena::UNIT_BYTES;
use crate::class::{CLASSES, Class};
use crate::extent::Extents;
use std::collections::BTreeMap;

/// What extents count.
pub(crate) const GRANULE_BYTES: usize = 1 << 10;

const GRANULE_UNITS: u32 = 64;
const _: () = assert!(GRANULE_UNITS as usize * UNIT_BYTES == GRANULE_BYTES);

/// A span is this long, or takes this many blocks, whatever is longer.
const SPAN_BYTES: usize = 16 << 10;
const SPAN_BLOCKS: usize = 4;

/// A sweep is worth its walk once this part of the arena was freed since the last.
const SWEEP_PART: u64 = 64;

/// An extent cut into blocks.
///
/// # Invariants
/// 1. The first `carved` of its `blocks` blocks were handed to the free lists.
#[derive(Debug)]
struct Span {
    class: Class,
    granules: u32,
    blocks: u32,
    carved: u32,
    /// Counted by a sweep, zero otherwise.
    free: u32,
}

/// Who has which granules.
///
/// # Invariants
/// 1. A granule is in one free extent, in one span or in one long piece.
/// 2. `carving[class]` is the start of a span of that class, in granules.
#[derive(Debug)]
pub(crate) struct Central {
    extents: Extents,
    spans: BTreeMap<u32, Span>,
    carving: [Option<u32>; CLASSES],
    sweep_step_bytes: u64,
    swept_at_freed_bytes: u64,
}

impl Central {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let granules = granules(bytes_max);
        // The first granule is given to nobody, so that unit 0 can mean "none".
        Self {
            extents: Extents::new(1, granules - 1),
            spans: BTreeMap::new(),
            carving: [None; CLASSES],
            sweep_step_bytes: bytes_max as u64 / SWEEP_PART,
            swept_at_freed_bytes: 0,
        }
    }

    /// Takes an extent for one long piece; returns its first unit.
    pub(crate) fn take_large(&mut self, bytes: usize) -> Option<u32> {
        self.extents.take(granules(bytes)).map(|start| start * GRANULE_UNITS)
    }

    /// Takes the extent of a long piece back.
    pub(crate) fn give_large(&mut self, unit: u32, bytes: usize) {
        self.extents.give(unit / GRANULE_UNITS, granules(bytes));
    }

    /// Cuts new blocks of a class; returns how many units were written.
    pub(crate) fn carve(&mut self, class: Class, units: &mut [u32]) -> usize {
        let Some(start) = self.carving[class.index()].or_else(|| self.add_span(class)) else {
            return 0;
        };
        let Some(span) = self.spans.get_mut(&start) else {
            unreachable!("invariant 2: a class carves a span that exists");
        };
        #[expect(clippy::cast_possible_truncation, reason = "a block has at most 64 KiB")]
        let block_units = (class.bytes() / UNIT_BYTES) as u32;
        let mut count = 0;
        for slot in units {
            if span.carved == span.blocks {
                break;
            }
            *slot = start * GRANULE_UNITS + span.carved * block_units;
            span.carved += 1;
            count += 1;
        }
        self.carving[class.index()] = (span.carved < span.blocks).then_some(start);
        count
    }

    fn add_span(&mut self, class: Class) -> Option<u32> {
        let mut bytes = SPAN_BYTES.max(class.bytes() * SPAN_BLOCKS);
        let (start, granules) = loop {
            let granules = granules(bytes);
            if let Some(start) = self.extents.take(granules) {
                break (start, granules);
            }
            if bytes <= class.bytes() || granules == 1 {
                return None;
            }
            // A crowded arena: a shorter span is better than none.
            bytes = (bytes / 2).max(class.bytes());
        };
        let blocks = granules as usize * GRANULE_BYTES / class.bytes();
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.spans.insert(start, Span { class, granules, blocks, carved: 0, free: 0 });
        Some(start)
    }

    /// Whether enough was freed since the last sweep; begins one if so. In an arena that is half empty anything is enough: a
    /// few blocks that were in use then may have kept all the spans that there are, and nothing else may ever be freed.
    pub(crate) const fn begin_sweep(&mut self, freed_bytes: u64, used_bytes: usize) -> bool {
        let freed = freed_bytes.wrapping_sub(self.swept_at_freed_bytes);
        let is_half_empty = (used_bytes as u64) < self.sweep_step_bytes * (SWEEP_PART / 2);
        if freed == 0 || (freed < self.sweep_step_bytes && !is_half_empty) {
            return false;
        }
        self.swept_at_freed_bytes = freed_bytes;
        true
    }

    /// Counts a free block of a span.
    pub(crate) fn count_free(&mut self, unit: u32) {
        if let Some((_, span)) = self.spans.range_mut(..=unit / GRANULE_UNITS).next_back() {
            span.free += 1;
        }
    }

    /// Whether all blocks of this block's span were counted.
    pub(crate) fn is_free_span(&self, unit: u32) -> bool {
        self.spans.range(..=unit / GRANULE_UNITS).next_back().is_some_and(|(_, span)| span.free == span.carved)
    }

    /// Turns the spans that are free back into extents; returns how many.
    pub(crate) fn end_sweep(&mut self) -> usize {
        let free: Vec<u32> =
            (self.spans.iter()).filter(|(_, span)| span.free == span.carved).map(|(&start, _)| start).collect();
        for start in &free {
            let Some(span) = self.spans.remove(start) else { continue };
            if self.carving[span.class.index()] == Some(*start) {
                self.carving[span.class.index()] = None;
            }
            self.extents.give(*start, span.granules);
        }
        for span in self.spans.values_mut() {
            span.free = 0;
        }
        free.len()
    }
}

fn granules(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(GRANULE_BYTES)).unwrap_or(u32::MAX)
}
