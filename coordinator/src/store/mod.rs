//! Where the log of changes is kept.
//!
//! The engine numbers every change of replicated state and hands it out as an entry; the driver gives entries to a
//! [`Log`] in that order and tells the engine what has become safe. Three steps, so that safety never waits for a
//! round of its own:
//!
//! 1. [`Log::append`] takes an entry in. It does no I/O: a batch may append thousands.
//! 2. [`Log::submit`] ends a batch. A log that writes starts to here, or leaves the batch to the write that is
//!    already under way (one committer, always busy, never more than one sync in flight per file).
//! 3. [`Log::poll_safe`] says up to where everything is safe. What is ready at once costs no wake-up.
//!
//! Whatever must not be told to anybody before it is safe waits in the engine for that number; order of calls means
//! nothing.
//!
//! Present: [`memory::MemoryLog`], and [`DurableLog`]: append-only segments with checksums, and snapshots, on a
//! [`Medium`]; `docs/STORE.md` has their bytes. Absent: a log shared by a group of coordinators, which would be another
//! implementation of this trait.

mod ahead;
mod codec;
mod committer;
mod copy;
mod durable;
mod error;
mod format;
mod inline;
mod install;
mod medium;
pub mod memory;
mod read;
mod recovery;
mod segment;
mod snapshot;
mod verify;
mod writer;

pub use codec::{BadBytes, decode, decode_piece, encode, encode_piece};
pub use committer::SyncPolicy;
pub use copy::{copy, is_there};
pub use durable::{DurableLog, Found, LogOptions};
pub use error::OpenError;
pub use format::{BadHeader, Damage, FORMAT, LogId};
pub use inline::InlineLog;
pub use install::{Snapshot, SnapshotError, SnapshotSize, Snapshots};
pub use medium::{Directory, Medium, MediumFile};
pub use read::read;
pub use recovery::{Replay, Torn};
pub use verify::{Problem, Verified, verify};

use crate::engine::{Entry, LogSeq, LogTime};
use std::fmt;
use std::io;
use std::task::{Context, Poll};

/// The log can take nothing more in. The coordinator stops: it must not promise what it cannot keep.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system could not write.
    #[error("the log cannot be written after entry {safe}: {error}")]
    Write {
        /// The last entry that is safe.
        safe: LogSeq,
        /// What the system answered.
        error: io::Error,
    },
}

/// A log of changes, in order.
pub trait Log: Send + fmt::Debug {
    /// Where entries are kept, for people: `memory`.
    fn kind(&self) -> &'static str;

    /// Takes an entry in; `seq` follows the last one, `time` is not before that of the last one.
    fn append(&mut self, seq: LogSeq, time: LogTime, entry: Entry);

    /// Ends a batch of appended entries: they should become safe soon.
    fn submit(&mut self);

    /// The last entry up to which all are safe, once it is beyond the one that was returned before. Wakes the task
    /// when there is more to say.
    ///
    /// # Errors
    /// When nothing more can become safe.
    fn poll_safe(&mut self, context: &mut Context<'_>) -> Poll<Result<LogSeq, LogError>>;

    /// Whether there is room for more: on the medium, and in what waits for it. Without it entries are still taken in, but
    /// may not become safe before somebody makes room or the medium has caught up. The task that polls is woken when this changes.
    fn has_room(&self) -> bool {
        true
    }

    /// How much was submitted since the start, in bytes on the medium.
    fn submitted_bytes(&self) -> u64 {
        0
    }
}
