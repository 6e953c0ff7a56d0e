//! What all programs that open a root agree on.

use super::error::RootError;
use super::root::Root;
use super::runtime::Runtime;
use kiln_object::{Clustered, Key};
use kiln_protocol::message::RootOptions;
use std::time::Duration;

/// What all programs that open a root agree on beyond its types: the first one says it, and the coordinator refuses others
/// that say something else, naming both. A root keeps it for good.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RootSettings {
    options: RootOptions,
}

impl RootSettings {
    /// As [`Runtime::root`] opens it: no timeouts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Objects that no node has used for this long are removed; in whole milliseconds, at least one. A use is any look-up,
    /// read, lock or commit, on whatever node. Time is the coordinator's. As nodes say only once in a heartbeat what they
    /// have used, an object lives for up to a lease longer, and some of those that nodes use while the cluster is away for
    /// longer than a lease may be gone when it is back. An object that is locked is not removed.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.options.idle_timeout_ms = ms(timeout);
        self
    }

    /// Objects are removed this long after they were made, used or not; in whole milliseconds, at least one. Who holds a
    /// lock of the object then may finish.
    #[must_use]
    pub fn absolute_timeout(mut self, timeout: Duration) -> Self {
        self.options.absolute_timeout_ms = ms(timeout);
        self
    }

    /// How the programs use the locks of its objects, in a word of their own, at most 255 bytes. Kiln only compares it.
    /// Default: `none`.
    #[must_use]
    pub fn locking(mut self, word: impl Into<String>) -> Self {
        let word = word.into();
        // What is not said is not sent.
        self.options.locking = if word == "none" { String::new() } else { word };
        self
    }

    /// Says that its keys are hashes (SHA-256, in hexadecimal) of what people know its objects by: `kiln get ROOT ID` then
    /// takes the id as well. The first program says it; the others need not say the same.
    #[must_use]
    pub fn hashed_keys(mut self) -> Self {
        self.options.hashed_keys = true;
        self
    }

    pub(super) fn options(&self) -> RootOptions {
        self.options.clone()
    }
}

fn ms(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Runtime {
    /// Opens a root whose objects expire, or about which programs agree on more than types.
    ///
    /// # Errors
    /// [`RootError`], as of [`root`](Self::root); and when the root was made with other settings, which it names.
    pub async fn root_with<K: Key, T: Clustered>(
        &self,
        name: &str,
        settings: &RootSettings,
    ) -> Result<Root<K, T>, RootError> {
        self.open_root(name, settings.options()).await
    }
}
