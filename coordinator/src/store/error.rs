//! Why a log cannot be opened. Each says where, and what to do.

use super::codec::BadBytes;
use super::format::{BadHeader, Damage};
use crate::engine::{BadEntry, LogSeq};
use std::io;

const RESTORE: &str = "nothing was changed; put a backup in place of this directory with `kiln restore`, or, to look at \
                       all of the damage, run `kiln verify`";

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system said no.
    #[error("cannot {doing} {file}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        file: String,
        /// What the system answered.
        error: io::Error,
    },
    /// A file that is none of ours, or of another version.
    #[error("{file} cannot be used: {bad}; {RESTORE}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong.
        bad: BadHeader,
    },
    /// A record that was whole once.
    #[error("{file} is damaged at byte {at}: {damage}; {RESTORE}")]
    Damaged {
        /// The file.
        file: String,
        /// Where the damaged part begins.
        at: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// A segment is gone that was there.
    #[error("{file} is missing, and with it the entries after {last}; {RESTORE}")]
    Missing {
        /// The file.
        file: String,
        /// The last entry that is there.
        last: LogSeq,
    },
    /// A file with another log's entries.
    #[error("{file} is of another log than the files beside it; {RESTORE}")]
    Foreign {
        /// The file.
        file: String,
    },
    /// Bytes that are whole, but no entry.
    #[error("{file}, byte {at}: entry {seq} cannot be read: {bad}; another version of Kiln may have written it")]
    Bytes {
        /// The file.
        file: String,
        /// Where its record begins.
        at: u64,
        /// The entry.
        seq: LogSeq,
        /// What is wrong.
        bad: BadBytes,
    },
    /// An entry that does not fit those before it.
    #[error("{file}, byte {at}: entry {seq} does not fit those before it: {bad}; {RESTORE}")]
    Entry {
        /// The file.
        file: String,
        /// Where its record or chunk begins.
        at: u64,
        /// The entry.
        seq: LogSeq,
        /// What is wrong.
        bad: BadEntry,
    },
}

impl OpenError {
    /// The file that it is about, and the byte.
    pub(super) fn place(&self) -> (String, u64) {
        match self {
            Self::Io { file, .. } | Self::Header { file, .. } | Self::Missing { file, .. } | Self::Foreign { file } => {
                (file.clone(), 0)
            }
            Self::Damaged { file, at, .. } | Self::Bytes { file, at, .. } | Self::Entry { file, at, .. } => {
                (file.clone(), *at)
            }
        }
    }

    /// What is wrong, without the place and what to do.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Io { error, .. } => error.to_string(),
            Self::Header { bad, .. } => bad.to_string(),
            Self::Damaged { damage, .. } => damage.to_string(),
            Self::Missing { last, .. } => format!("it is missing, and with it the entries after {last}"),
            Self::Foreign { .. } => "it is of another log than the files beside it".to_owned(),
            Self::Bytes { seq, bad, .. } => format!("entry {seq} cannot be read: {bad}"),
            Self::Entry { seq, bad, .. } => format!("entry {seq} does not fit those before it: {bad}"),
        }
    }

    pub(super) fn io(doing: &'static str, file: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |error| Self::Io { doing, file, error }
    }
}
