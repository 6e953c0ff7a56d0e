//! The clock of leases: it goes on while the machine sleeps, because the coordinator does not wait for it meanwhile.

use rustix::time::{ClockId, clock_gettime};

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
/// On macOS and the BSDs this one counts sleep as well.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds since some moment before this process began.
pub(crate) fn boot_nanos() -> u64 {
    let now = clock_gettime(CLOCK);
    // Neither part is ever negative.
    u64::try_from(now.tv_sec).unwrap_or(0) * NANOS_PER_SECOND + u64::try_from(now.tv_nsec).unwrap_or(0)
}
