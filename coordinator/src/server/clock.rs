//! The only place of the coordinator that asks what time it is.

use rustls_pki_types::UnixTime;
use std::time::{Instant, SystemTime};

/// For durations.
#[expect(clippy::disallowed_methods, reason = "the driver's clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// For certificates.
pub(super) fn wall() -> UnixTime {
    UnixTime::now()
}

/// For entries of the log: milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the driver's clock")]
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
