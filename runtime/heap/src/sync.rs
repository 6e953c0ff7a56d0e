//! The cell's atomics: the real ones, or loom's when its model runs.

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicU64, Ordering},
    thread::yield_now,
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread::yield_now,
};

/// Waits a moment for somebody who holds something for a few instructions: longer each time.
pub(crate) fn pause(round: &mut u32) {
    const SPINS_LOG_MAX: u32 = 5;
    if cfg!(loom) || *round > SPINS_LOG_MAX {
        yield_now();
        return;
    }
    for _ in 0..1_u32 << *round {
        std::hint::spin_loop();
    }
    *round += 1;
}
