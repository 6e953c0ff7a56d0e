//! The log on a medium without threads: all I/O happens where a batch ends, on the thread of whoever ends it. For
//! simulations, which must go the same way twice, and for tools.

use super::durable::{Found, LogOptions};
use super::error::OpenError;
use super::format::LogId;
use super::install::Snapshots;
use super::medium::Medium;
use super::recovery::{Replay, recover};
use super::segment::Segment;
use super::writer::{Batch, WriteError, Writer};
use super::{Log, LogError};
use crate::engine::{Entry, LogSeq, LogTime};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

/// See the module. Syncs always.
#[derive(Debug)]
pub struct InlineLog {
    medium: Arc<dyn Medium>,
    id: LogId,
    segment_bytes_max: u64,
    writer: Writer,
    batches: VecDeque<Batch>,
    filling: Option<Batch>,
    appended: LogSeq,
    reported: LogSeq,
    full: bool,
    failed: Option<io::Error>,
}

impl InlineLog {
    /// Opens a log; makes one with this id when there is none.
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
        let log = Self {
            medium,
            id: recovered.id,
            segment_bytes_max: options.segment_bytes_max,
            writer: recovered.writer,
            batches: VecDeque::new(),
            filling: None,
            appended: last,
            reported: last,
            full: false,
            failed: None,
        };
        Ok((log, found))
    }

    /// Writes snapshots of what is safe by now.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots {
        Snapshots::after(Arc::clone(&self.medium), self.id, self.writer.written())
    }

    /// Writes down that all is synced, as a log does before it ends or when nothing comes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn mark(&mut self) -> io::Result<()> {
        match self.writer.wants_mark().then(|| self.writer.mark()) {
            None | Some(Ok(()) | Err(WriteError::Full | WriteError::Segment { .. })) => Ok(()),
            Some(Err(WriteError::Failed(error))) => Err(error),
        }
    }

    fn write(&mut self) -> Result<(), WriteError> {
        loop {
            match self.writer.write(&mut self.batches) {
                Err(WriteError::Segment { bytes_min }) => self.make_segment(bytes_min)?,
                Err(WriteError::Full) => {
                    // What was written is safe although the rest is not.
                    self.writer.sync().map_err(WriteError::Failed)?;
                    return Err(WriteError::Full);
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.writer.sync().map_err(WriteError::Failed)?;
        // Ahead, as the log with threads does.
        match (!self.writer.has_next()).then(|| self.make_segment(0)) {
            None | Some(Ok(()) | Err(WriteError::Full)) => Ok(()),
            Some(failed) => failed,
        }
    }

    fn make_segment(&mut self, bytes_min: u64) -> Result<(), WriteError> {
        let bytes = (self.writer.segment_bytes() * 2).min(self.segment_bytes_max).max(bytes_min);
        let segment = Segment::create(&*self.medium, self.id, self.writer.ordinal() + 1, bytes);
        self.writer.provide(segment.map_err(super::writer::failure)?);
        Ok(())
    }
}

impl Log for InlineLog {
    fn kind(&self) -> &'static str {
        "disk"
    }

    fn append(&mut self, seq: LogSeq, time: LogTime, entry: Entry) {
        debug_assert_eq!(seq, self.appended.next(), "the engine numbers entries without gaps");
        self.filling.get_or_insert_with(|| Batch::new(seq)).push(time, &entry);
        self.appended = seq;
    }

    fn submit(&mut self) {
        self.batches.extend(self.filling.take());
        if self.failed.is_some() {
            return;
        }
        match self.write() {
            Ok(()) => self.full = false,
            Err(WriteError::Failed(error)) => self.failed = Some(error),
            Err(WriteError::Full | WriteError::Segment { .. }) => self.full = true,
        }
    }

    // Never wakes anybody: nothing becomes safe later.
    fn poll_safe(&mut self, _context: &mut Context<'_>) -> Poll<Result<LogSeq, LogError>> {
        if let Some(error) = &self.failed {
            let error = io::Error::new(error.kind(), error.to_string());
            return Poll::Ready(Err(LogError::Write { safe: self.reported, error }));
        }
        let safe = self.writer.synced_entry();
        if safe == self.reported {
            return Poll::Pending;
        }
        self.reported = safe;
        Poll::Ready(Ok(safe))
    }

    fn has_room(&self) -> bool {
        !self.full
    }
}
