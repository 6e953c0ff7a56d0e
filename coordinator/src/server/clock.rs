//! The only place of the coordinator that asks what time it is.

use rustls_pki_types::UnixTime;
use std::time::Instant;

/// For durations.
#[expect(clippy::disallowed_methods, reason = "the driver's clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// For certificates.
pub(super) fn wall() -> UnixTime {
    UnixTime::now()
}
