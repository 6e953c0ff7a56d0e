//! One segment: a file of fixed length that is filled from the front.
//!
//! It is made under another name, filled with zeros, synced and renamed before anything is written to it: so whoever
//! finds one under its name finds all of it, and a write into it changes neither its length nor where it is kept.

use super::error::OpenError;
use super::format::{ALIGN, BadHeader, Damage, Found, LogId, RecordHeader, SegmentHeader, find};
use super::medium::{Medium, MediumFile};
use crate::engine::LogSeq;
use bytes::Bytes;
use std::io;

/// Files that are being made; whatever has such a name after a crash is worth nothing.
pub(super) const UNFINISHED: &str = ".new";
const SUFFIX: &str = ".log";
const DIGITS: usize = 12;
const FILL_BYTES: usize = 1 << 20;

/// The first place of a segment that a record can have.
pub(super) const FIRST: usize = SegmentHeader::BYTES;

/// The name of a segment.
pub(super) fn name(ordinal: u64) -> String {
    format!("{ordinal:0DIGITS$}{SUFFIX}")
}

/// The segment that a file name is of.
pub(super) fn ordinal(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A segment that is there, header and all.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: Box<dyn MediumFile>,
    pub(super) header: SegmentHeader,
}

impl Segment {
    /// Makes a segment. Once this returns it is there after a crash, too.
    pub(super) fn create(medium: &dyn Medium, id: LogId, ordinal: u64, bytes: u64) -> io::Result<Self> {
        let (unfinished, name) = (format!("{}{UNFINISHED}", name(ordinal)), name(ordinal));
        let header = SegmentHeader { id, ordinal, bytes };
        let file = medium.create(&unfinished)?;
        let filled = fill(&*file, &header);
        if let Err(error) = filled {
            drop(file);
            // The room it took is wanted back; when that fails, the next start removes it.
            drop(medium.remove(&unfinished));
            return Err(error);
        }
        medium.rename(&unfinished, &name)?;
        medium.sync()?;
        Ok(Self { file, header })
    }

    /// Opens a segment, and looks at its header.
    pub(super) fn open(medium: &dyn Medium, ordinal: u64) -> Result<Self, OpenError> {
        let name = name(ordinal);
        let file = medium.open(&name).map_err(OpenError::io("open", &name))?;
        let actual = file.bytes().map_err(OpenError::io("look at", &name))?;
        let bad = |bad| OpenError::Header { file: name.clone(), bad };
        let mut header = [0; SegmentHeader::BYTES];
        if actual < header.len() as u64 {
            return Err(bad(BadHeader::Length { actual, wanted: header.len() as u64 }));
        }
        file.read(0, &mut header).map_err(OpenError::io("read", &name))?;
        let header = SegmentHeader::decode(&header).map_err(bad)?;
        if header.ordinal != ordinal {
            return Err(bad(BadHeader::Name(header.ordinal)));
        }
        if header.bytes != actual {
            return Err(bad(BadHeader::Length { actual, wanted: header.bytes }));
        }
        Ok(Self { file, header })
    }

    /// All of its bytes, as the medium has them: a system that failed to write some may go on to show them as long as it
    /// remembers them. Whatever a record says was synced is on the medium, so only the rest is read again.
    pub(super) fn read_settled(&self) -> Result<Contents, OpenError> {
        let mut contents = self.read()?;
        let name = name(self.header.ordinal);
        // First, because what was not written yet would not be forgotten; and it is to be safe when it is built upon.
        self.file.sync().map_err(OpenError::io("sync", &name))?;
        let synced = contents.records().map(|record| record.header.synced).max().unwrap_or(FIRST as u64);
        let start = usize::try_from(synced).unwrap_or(FIRST).clamp(FIRST, contents.bytes.len());
        let used = contents.bytes[start..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used == 0 {
            return Ok(contents);
        }
        self.file.forget(start as u64, used as u64).map_err(OpenError::io("read", &name))?;
        let mut bytes = Vec::from(std::mem::take(&mut contents.bytes));
        self.file.read(start as u64, &mut bytes[start..start + used]).map_err(OpenError::io("read", &name))?;
        contents.bytes = bytes.into();
        Ok(contents)
    }

    /// All of its bytes.
    pub(super) fn read(&self) -> Result<Contents, OpenError> {
        let length = usize::try_from(self.header.bytes).expect("segments are bounded");
        let mut bytes = vec![0; length];
        let name = name(self.header.ordinal);
        self.file.read(0, &mut bytes).map_err(OpenError::io("read", name))?;
        Ok(Contents { header: self.header, bytes: bytes.into() })
    }

    /// The first entry of its first record, if its header is whole.
    pub(super) fn first(&self) -> Option<LogSeq> {
        let mut bytes = vec![0; FIRST + RecordHeader::BYTES];
        self.file.read(0, &mut bytes).ok()?;
        RecordHeader::peek(&self.header, &bytes, FIRST).map(|header| header.first)
    }
}

fn fill(file: &dyn MediumFile, header: &SegmentHeader) -> io::Result<()> {
    file.reserve(header.bytes)?;
    let zeros = vec![0; FILL_BYTES];
    let mut at = 0;
    while at < header.bytes {
        let length = (header.bytes - at).min(FILL_BYTES as u64);
        file.write(at, &zeros[..usize::try_from(length).expect("at most as long as the zeros")])?;
        at += length;
    }
    file.write(0, &header.encode())?;
    file.sync()
}

/// The bytes of a segment.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) header: SegmentHeader,
    pub(super) bytes: Bytes,
}

/// What is behind the last whole record before the first place without one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rest {
    /// Nothing but zeros.
    Nothing,
    /// Something that was being written when the coordinator ended: nobody was told that it is safe.
    Torn {
        damage: Damage,
        /// Behind the last byte that is not zero.
        end: usize,
    },
    /// Something that was synced once, since a record behind it says so.
    Damaged(Damage),
}

/// A record that is whole.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) at: usize,
    pub(super) header: RecordHeader,
    pub(super) body: Bytes,
}

/// Walks over the records of a segment.
#[derive(Debug)]
pub(super) struct Records<'a> {
    contents: &'a Contents,
    pub(super) at: usize,
}

impl Contents {
    pub(super) const fn records(&self) -> Records<'_> {
        self.records_from(FIRST)
    }

    /// Those from this place on, where one is.
    pub(super) const fn records_from(&self, at: usize) -> Records<'_> {
        Records { contents: self, at }
    }

    /// What is behind the place where [`Records`] ended.
    pub(super) fn rest(&self, at: usize) -> Rest {
        let Some(last) = self.bytes[at..].iter().rposition(|byte| *byte != 0) else {
            return Rest::Nothing;
        };
        let damage = match find(&self.header, &self.bytes, at) {
            Found::Bad(damage) => damage,
            Found::Nothing | Found::Record { .. } => Damage::Missing,
        };
        let vouched = self.later(at).any(|record| record.header.synced > at as u64);
        if vouched { Rest::Damaged(damage) } else { Rest::Torn { damage, end: at + last + 1 } }
    }

    /// Whole records anywhere behind a place without one.
    pub(super) fn later(&self, at: usize) -> impl Iterator<Item = Record> {
        let places = (at + ALIGN..self.bytes.len()).step_by(ALIGN);
        places.filter_map(|at| self.record(at).ok().flatten().map(|(record, _)| record))
    }

    /// The record at a place, and where it ends.
    fn record(&self, at: usize) -> Result<Option<(Record, usize)>, Damage> {
        match find(&self.header, &self.bytes, at) {
            Found::Record { header, body, end } => {
                Ok(Some((Record { at, header, body: self.bytes.slice_ref(body) }, end)))
            }
            Found::Nothing => Ok(None),
            Found::Bad(damage) => Err(damage),
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let (record, end) = self.contents.record(self.at).ok().flatten()?;
        self.at = end;
        Some(record)
    }
}
