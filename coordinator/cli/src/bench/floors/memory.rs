//! Look-ups and pins in memory.

use crate::bench::clock::Laps;
use crate::bench::row::Figures;
use crate::bench::{Bench, BenchError};
use crossbeam_epoch::{self as epoch, Atomic};
use dashmap::DashMap;
use std::hint::black_box;
use std::sync::atomic::Ordering;

pub(in crate::bench) const FEW_KEYS: u32 = 1_000;
pub(in crate::bench) const MANY_KEYS: u32 = 1_000_000;
/// Operations between two reads of the clock.
pub(in crate::bench) const BATCH: u32 = 1_000;

/// Every number below a count, in an order that no prefetcher knows, again and again.
pub(in crate::bench) struct Order {
    order: Vec<u32>,
    at: usize,
}

impl Order {
    pub(in crate::bench) fn new(count: u32) -> Self {
        let mut order: Vec<u32> = (0..count).collect();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for last in (1..count).rev() {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let other = random % (u64::from(last) + 1);
            order.swap(last as usize, usize::try_from(other).unwrap_or(0));
        }
        Self { order, at: 0 }
    }

    /// The same order from another place on.
    pub(in crate::bench) const fn starting_at(mut self, place: usize) -> Self {
        self.at = place % self.order.len();
        self
    }

    pub(in crate::bench) fn next(&mut self) -> usize {
        if self.at == self.order.len() {
            self.at = 0;
        }
        let next = self.order[self.at];
        self.at += 1;
        next as usize
    }
}

/// String keys in such an order. The same for a floor and its row.
pub(in crate::bench) struct Keys {
    keys: Vec<String>,
    order: Order,
}

impl Keys {
    pub(in crate::bench) fn new(count: u32) -> Self {
        Self { keys: (0..count).map(|key| format!("user-{key:011}")).collect(), order: Order::new(count) }
    }

    pub(in crate::bench) fn all(&self) -> &[String] {
        &self.keys
    }

    pub(in crate::bench) fn next(&mut self) -> &str {
        &self.keys[self.order.next()]
    }
}

pub(super) async fn measure_dashmap(bench: &Bench, count: u32) -> Result<Figures, BenchError> {
    let mut keys = Keys::new(count);
    let map: DashMap<String, u64> = keys.all().iter().map(|key| (key.clone(), 1)).collect();
    let mut laps = Laps::new(bench.secs());
    while let Some(lap) = laps.next() {
        for _ in 0..BATCH {
            black_box(map.get(keys.next()).map(|value| *value));
        }
        laps.end(lap, BATCH);
    }
    Ok(Figures::nanos(laps.times()).noted(format!("{} keys", map.len())))
}

pub(super) async fn measure_pin(bench: &Bench) -> Result<Figures, BenchError> {
    let value = Atomic::new(1_u64);
    let mut laps = Laps::new(bench.secs());
    while let Some(lap) = laps.next() {
        for _ in 0..BATCH {
            let guard = epoch::pin();
            // Acquire: as a reader of a published table loads it.
            black_box(value.load(Ordering::Acquire, &guard).is_null());
        }
        laps.end(lap, BATCH);
    }
    // The value itself is freed with the process: it is eight bytes, and its destructor would be unsafe code.
    Ok(Figures::nanos(laps.times()))
}
