//! The cell's atomics: the real ones, or loom's when its model runs.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

/// Waits a moment for somebody who holds something for a few instructions: longer each time.
#[cfg(not(loom))]
pub(crate) fn pause(round: &mut u32) {
    const SPINS_LOG_MAX: u32 = 5;
    if *round > SPINS_LOG_MAX {
        std::thread::yield_now();
        return;
    }
    for _ in 0..1_u32 << *round {
        std::hint::spin_loop();
    }
    *round += 1;
}

/// Lets the others run. Two who wait can hand the processor to each other for ever: schedules in which somebody waits
/// for long are followed to their end, but not varied any further.
#[cfg(loom)]
pub(crate) fn pause(round: &mut u32) {
    const VARIED_ROUNDS: u32 = 3;
    if *round == VARIED_ROUNDS {
        loom::skip_branch();
    }
    *round += 1;
    loom::thread::yield_now();
}
