//! Taking a snapshot: its pieces as the engine hands them out, then its place, then the end of what it makes superfluous.

use super::codec::put_piece;
use super::committer::Shared;
use super::format::LogId;
use super::medium::{Medium, is_full};
use super::recovery::Files;
use super::segment::{self, Segment};
use super::snapshot::{self, SnapshotHeader, SnapshotWriter};
use crate::engine::{LogSeq, LogTime, Piece};
use std::io;
use std::sync::Arc;

/// Pieces go into chunks of about this length.
const CHUNK_BYTES: usize = 256 << 10;

/// Why there is no new snapshot. The older one and the log are as they were.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The medium is full.
    #[error("no room for a snapshot: {error}")]
    Full {
        /// What the system answered.
        error: io::Error,
    },
    /// The operating system could not write it.
    #[error("cannot write a snapshot: {error}")]
    Write {
        /// What the system answered.
        error: io::Error,
    },
    /// The entries that it is of will never be safe.
    #[error("the log ended before everything in the snapshot was safe")]
    LogEnded,
    /// More changed meanwhile than the medium could take, or the coordinator ended.
    #[error("the snapshot was given up")]
    GivenUp,
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { Self::Full { error } } else { Self::Write { error } }
    }
}

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SnapshotSize {
    /// Of the file.
    pub bytes: u64,
    /// Files that it made superfluous, and that are gone.
    pub removed: usize,
}

/// Where the entries of a snapshot are made safe.
#[derive(Clone, Debug)]
enum Synced {
    /// Here.
    By(Arc<Shared>),
    /// Up to this one they are.
    Already(LogSeq),
}

/// Begins snapshots beside a log, on any thread.
#[derive(Clone, Debug)]
pub struct Snapshots {
    medium: Arc<dyn Medium>,
    id: LogId,
    synced: Synced,
}

impl Snapshots {
    pub(super) fn of(shared: Arc<Shared>) -> Self {
        Self { medium: Arc::clone(&shared.medium), id: shared.id, synced: Synced::By(shared) }
    }

    pub(super) const fn after(medium: Arc<dyn Medium>, id: LogId, synced: LogSeq) -> Self {
        Self { medium, id, synced: Synced::Already(synced) }
    }

    /// Begins a snapshot of the state after this entry, which was made then.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn begin(&self, seq: LogSeq, time: LogTime) -> Result<Snapshot, SnapshotError> {
        let header = SnapshotHeader { id: self.id, seq, time };
        let writer = SnapshotWriter::create(Arc::clone(&self.medium), header)?;
        Ok(Snapshot { of: self.clone(), seq, writer, chunk: Vec::new(), is_done: false })
    }
}

/// A snapshot that is being written. Dropping it gives it up.
#[derive(Debug)]
pub struct Snapshot {
    of: Snapshots,
    seq: LogSeq,
    writer: SnapshotWriter,
    chunk: Vec<u8>,
    is_done: bool,
}

impl Snapshot {
    /// Appends a piece. Blocks while it is written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, piece: &Piece) -> Result<(), SnapshotError> {
        put_piece(&mut self.chunk, piece);
        if self.chunk.len() >= CHUNK_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.writer.push(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// Waits until all of its entries are safe, puts it in place, and removes what it makes superfluous. Blocks.
    ///
    /// # Errors
    /// When it cannot be put in place.
    pub fn finish(mut self) -> Result<SnapshotSize, SnapshotError> {
        self.write()?;
        let is_safe = match &self.of.synced {
            Synced::By(shared) => shared.wait_synced(self.seq),
            Synced::Already(synced) => self.seq <= *synced,
        };
        if !is_safe {
            return Err(SnapshotError::LogEnded);
        }
        self.writer.install()?;
        self.is_done = true;
        let removed = remove_superfluous(&*self.of.medium, self.seq)?;
        if let Synced::By(shared) = &self.of.synced {
            shared.room_was_made();
        }
        Ok(SnapshotSize { bytes: self.writer.bytes(), removed })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.is_done {
            // What cannot be removed now is removed at the next start.
            drop(self.writer.abandon());
        }
    }
}

/// Removes older snapshots, and the segments whose entries this one has all. One segment that begins at or before its
/// last entry stays: from it a start knows that none is missing.
fn remove_superfluous(medium: &dyn Medium, seq: LogSeq) -> io::Result<usize> {
    let files = Files::list(medium)?;
    let begins = |ordinal: u64| Segment::open(medium, ordinal).ok().and_then(|segment| segment.first());
    let needed = files.run().iter().rev().find(|ordinal| begins(**ordinal).is_some_and(|begin| begin <= seq));
    let segments = files.segments.iter().filter(|ordinal| needed.is_some_and(|needed| *ordinal < needed));
    let snapshots = files.snapshots.iter().filter(|other| **other < seq);
    let names: Vec<_> =
        segments.map(|ordinal| segment::name(*ordinal)).chain(snapshots.map(|seq| snapshot::name(*seq))).collect();
    for name in &names {
        medium.remove(name)?;
    }
    if !names.is_empty() {
        medium.sync()?;
    }
    Ok(names.len())
}
