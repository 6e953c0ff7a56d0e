//! The log on a medium: what the coordinator has of it.

use super::committer::{Shared, SyncPolicy};
use super::error::OpenError;
use super::format::LogId;
use super::install::Snapshots;
use super::medium::Medium;
use super::recovery::{Recovered, Replay, Torn, recover};
use super::writer::Batch;
use super::{Log, LogError};
use crate::engine::{Entry, LogSeq, LogTime};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

/// Entries of one turn go into records of about this length.
const RECORD_BYTES: usize = 1 << 20;

/// How to keep a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// When what was written is synced.
    pub sync: SyncPolicy,
    /// How long the first segment is, in bytes. Each later one is twice as long as the one before.
    pub first_segment_bytes: u64,
    /// How long segments get, in bytes; one whose first entry is longer is longer.
    pub segment_bytes_max: u64,
    /// How much may wait to become safe, in bytes, with 128 for each entry, before the log says that it has no room. It
    /// has again when half of that is safe.
    pub waiting_bytes_max: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Always,
            first_segment_bytes: 1 << 20,
            segment_bytes_max: 64 << 20,
            waiting_bytes_max: 512 << 20,
        }
    }
}

/// What was found on the medium.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// The last entry; the default one in a log that was made just now.
    pub last: LogSeq,
    /// When it was made.
    pub time: LogTime,
    /// What was cut off behind it.
    pub torn: Option<Torn>,
    /// The last record says that all before it was synced: so nothing is missing at the end.
    pub is_whole: bool,
    /// How much was read behind the snapshot, in bytes.
    pub bytes: u64,
}

impl Found {
    pub(super) const fn of(recovered: &Recovered) -> Self {
        let Recovered { writer, time, torn, is_whole, bytes, .. } = recovered;
        Self { last: writer.written(), time: *time, torn: *torn, is_whole: *is_whole, bytes: *bytes }
    }
}

/// A log on a medium. Dropping it writes and syncs what was submitted.
#[derive(Debug)]
pub struct DurableLog {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    appended: LogSeq,
    reported: LogSeq,
    /// Whole ones of this turn, and the one that is being filled.
    batches: Vec<Batch>,
    bytes: u64,
}

impl DurableLog {
    /// Opens a log; makes one with this id when there is none. Whoever opens it has made sure that nobody else does.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or cannot be written.
    pub fn open(
        medium: Arc<dyn Medium>,
        fresh: LogId,
        options: &LogOptions,
        replay: &mut dyn Replay,
    ) -> Result<(Self, Found), OpenError> {
        let recovered = recover(&*medium, (fresh, options.first_segment_bytes), replay)?;
        let (last, found) = (recovered.writer.written(), Found::of(&recovered));
        let shared = Arc::new(Shared::new(medium, recovered.id, options, &recovered.writer));
        let mut log = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
            appended: last,
            reported: last,
            batches: Vec::new(),
            bytes: 0,
        };
        let of_files = Arc::clone(&shared);
        log.spawn("kiln-segments", move || of_files.make_segments())?;
        log.spawn("kiln-log", move || shared.commit(recovered.writer))?;
        Ok((log, found))
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
        self.threads.push(thread.map_err(OpenError::io("start a thread for", self.shared.medium.place()))?);
        Ok(())
    }

    /// Writes snapshots beside this log.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots {
        Snapshots::of(Arc::clone(&self.shared))
    }

    fn failed(&self, error: io::Error) -> LogError {
        LogError::Write { safe: self.reported, error }
    }
}

impl Drop for DurableLog {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A panic of it has been reported already.
            drop(thread.join());
        }
    }
}

impl Log for DurableLog {
    fn kind(&self) -> &'static str {
        self.shared.kind()
    }

    fn append(&mut self, seq: LogSeq, time: LogTime, entry: Entry) {
        debug_assert_eq!(seq, self.appended.next(), "the engine numbers entries without gaps");
        if self.batches.last().is_none_or(|batch| batch.bytes() >= RECORD_BYTES) {
            self.batches.push(Batch::new(seq));
        }
        if let Some(batch) = self.batches.last_mut() {
            batch.push(time, &entry);
        }
        self.appended = seq;
    }

    fn submit(&mut self) {
        if !self.batches.is_empty() {
            self.bytes += self.batches.iter().map(|batch| batch.bytes() as u64).sum::<u64>();
            self.shared.submit(&mut self.batches);
        }
    }

    fn poll_safe(&mut self, context: &mut Context<'_>) -> Poll<Result<LogSeq, LogError>> {
        match self.shared.safe(context.waker()) {
            Ok(safe) if safe == self.reported => Poll::Pending,
            Ok(safe) => {
                self.reported = safe;
                Poll::Ready(Ok(safe))
            }
            Err(error) => Poll::Ready(Err(self.failed(error))),
        }
    }

    fn submitted_bytes(&self) -> u64 {
        self.bytes
    }

    fn has_room(&self) -> bool {
        self.shared.has_room()
    }
}
