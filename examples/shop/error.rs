//! The error of a program: a sentence for the person who started it.

use std::error::Error;
use std::fmt;

/// What was being done, and why it failed.
#[derive(Debug)]
pub(crate) struct Failed {
    doing: String,
    cause: Box<dyn Error + Send + Sync>,
}

impl Failed {
    /// Made for `map_err`: says what was being done.
    pub(crate) fn to<E: Into<Box<dyn Error + Send + Sync>>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |cause| Self { doing, cause: cause.into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.cause)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}
