//! Where the log is written: one segment after the other, each record behind the last.
//!
//! Makes no decision about when to sync and starts no thread: see `committer.rs`.

use super::codec;
use super::format::{RecordHeader, padded};
use super::medium::is_full;
use super::segment::{FIRST, Segment};
use crate::engine::{Entry, LogSeq, LogTime};
use std::collections::VecDeque;
use std::io;

/// One write takes at most this much, so that what it brings becomes safe soon.
const WRITE_BYTES: usize = 4 << 20;

/// What the engine keeps for an entry that is not safe, about.
const ENTRY_BYTES: u64 = 128;

/// Entries that go into one record.
#[derive(Debug)]
pub(super) struct Batch {
    first: LogSeq,
    time: LogTime,
    entries: u32,
    /// Room for the header, then the entries.
    record: Vec<u8>,
}

impl Batch {
    /// A batch whose first entry will be this one.
    pub(super) fn new(first: LogSeq) -> Self {
        Self { first, time: LogTime::default(), entries: 0, record: vec![0; RecordHeader::BYTES] }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.record.len()
    }

    /// Takes an entry in.
    pub(super) fn push(&mut self, time: LogTime, entry: &Entry) {
        if self.entries == 0 {
            self.time = time;
        }
        codec::put_entry(&mut self.record, self.time, time, entry);
        self.entries += 1;
    }

    /// What it takes while it waits: its bytes, and what the engine keeps for each entry until it is safe.
    pub(super) const fn waiting_bytes(&self) -> u64 {
        self.record.len() as u64 + self.entries as u64 * ENTRY_BYTES
    }

    /// The last entry in it.
    fn last(&self) -> LogSeq {
        LogSeq::from_bits(self.first.to_bits() + u64::from(self.entries) - 1)
    }

    const fn record_bytes(&self) -> usize {
        padded(self.record.len() - RecordHeader::BYTES)
    }
}

/// Why not all was written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The segment is full, and there is no next one with room for a record of this length. To be tried again with one.
    Segment {
        /// How long the next segment has to be at least.
        bytes_min: u64,
    },
    /// The medium is full. To be tried again.
    Full,
    /// Nothing is known any more of what was not safe before: the end.
    Failed(io::Error),
}

/// See the module.
///
/// 1. Everything of earlier segments was synced before the first record of a later one is written.
/// 2. `synced <= at`; the records before `synced` were synced.
#[derive(Debug)]
pub(super) struct Writer {
    segment: Segment,
    /// Where the next record goes.
    at: usize,
    synced: usize,
    /// The last entry that was written.
    written: LogSeq,
    /// The last entry that was synced.
    safe: LogSeq,
    /// A record behind the synced ones says that they are.
    vouched: bool,
    next: Option<Segment>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Goes on behind what is in a segment, all of which was synced.
    pub(super) const fn new(segment: Segment, at: usize, written: LogSeq) -> Self {
        Self { segment, at, synced: at, written, safe: written, vouched: at == FIRST, next: None, buffer: Vec::new() }
    }

    /// The last entry that was written.
    pub(super) const fn written(&self) -> LogSeq {
        self.written
    }

    /// The last entry that was synced.
    pub(super) const fn synced_entry(&self) -> LogSeq {
        self.safe
    }

    /// The segment that is being written.
    pub(super) const fn ordinal(&self) -> u64 {
        self.segment.header.ordinal
    }

    /// The length of the segment that is being written.
    pub(super) const fn segment_bytes(&self) -> u64 {
        self.segment.header.bytes
    }

    /// How much more fits into the segment.
    pub(super) const fn room(&self) -> u64 {
        self.segment.header.bytes - self.at as u64
    }

    /// Whether the segment that comes next is there.
    pub(super) const fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Whether a mark would say anything new.
    pub(super) const fn wants_mark(&self) -> bool {
        !self.vouched && self.synced == self.at
    }

    /// Whether something was written that was not synced.
    pub(super) const fn wants_sync(&self) -> bool {
        self.synced < self.at
    }

    /// Gives it the next segment, in place of one that it may have.
    pub(super) fn provide(&mut self, segment: Segment) {
        debug_assert_eq!(segment.header.ordinal, self.ordinal() + 1, "segments follow each other");
        self.next = Some(segment);
    }

    /// Writes batches, and takes out those that were written.
    pub(super) fn write(&mut self, batches: &mut VecDeque<Batch>) -> Result<(), WriteError> {
        while !batches.is_empty() {
            let count = self.fill(batches);
            if count == 0 {
                let bytes = batches.front().map_or(0, Batch::record_bytes);
                self.go_on(bytes)?;
                continue;
            }
            self.segment.file.write(self.at as u64, &self.buffer).map_err(failure)?;
            self.at += self.buffer.len();
            self.vouched = false;
            if let Some(last) = batches.drain(..count).next_back() {
                self.written = last.last();
            }
        }
        Ok(())
    }

    /// Seals as many records as fit, and says how many.
    fn fill(&mut self, batches: &VecDeque<Batch>) -> usize {
        self.buffer.clear();
        let mut count = 0;
        for batch in batches {
            let (start, bytes) = (self.buffer.len(), batch.record_bytes());
            if (start + bytes) as u64 > self.room() || start > 0 && start + bytes > WRITE_BYTES {
                break;
            }
            self.buffer.extend_from_slice(&batch.record);
            self.buffer.resize(start + bytes, 0);
            let (first, time, entries) = (batch.first, batch.time, batch.entries);
            let header = RecordHeader { first, synced: self.synced as u64, time, entries };
            let body_bytes = batch.record.len() - RecordHeader::BYTES;
            header.seal(&self.segment.header, self.at + start, &mut self.buffer[start..], body_bytes);
            count += 1;
        }
        count
    }

    /// Goes on to the next segment.
    fn go_on(&mut self, record_bytes: usize) -> Result<(), WriteError> {
        let bytes_min = (FIRST + record_bytes) as u64;
        let fits = self.next.as_ref().is_some_and(|next| next.header.bytes >= bytes_min);
        if !fits {
            return Err(WriteError::Segment { bytes_min });
        }
        self.sync().map_err(WriteError::Failed)?;
        if let Some(next) = self.next.take() {
            self.segment = next;
            (self.at, self.synced) = (FIRST, FIRST);
        }
        Ok(())
    }

    /// Waits until all that was written is safe. After an error there is nothing to be done: another sync would say
    /// that all is well although the system has dropped what it could not write.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.wants_sync() {
            self.segment.file.sync()?;
            (self.synced, self.safe) = (self.at, self.written);
        }
        Ok(())
    }

    /// Writes down that all is synced, so that damage to the last record is not taken for a write that was cut off.
    pub(super) fn mark(&mut self) -> Result<(), WriteError> {
        let bytes = padded(0);
        if bytes as u64 > self.room() {
            // The first record of the next segment will say it.
            self.vouched = true;
            return Ok(());
        }
        let mut record = vec![0; bytes];
        let (first, synced, time) = (self.written.next(), self.synced as u64, LogTime::default());
        let header = RecordHeader { first, synced, time, entries: 0 };
        header.seal(&self.segment.header, self.at, &mut record, 0);
        self.segment.file.write(self.at as u64, &record).map_err(failure)?;
        self.at += bytes;
        self.sync().map_err(WriteError::Failed)?;
        self.vouched = true;
        Ok(())
    }
}

pub(super) fn failure(error: io::Error) -> WriteError {
    if is_full(&error) { WriteError::Full } else { WriteError::Failed(error) }
}
