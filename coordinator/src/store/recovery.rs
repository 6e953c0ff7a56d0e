//! From files to a state, and to a log that can be written again: the newest snapshot, then the entries behind it.
//!
//! Where the log ends, what was being written when the coordinator ended is cut off. What is damaged before that is not
//! touched: nothing is changed before everything was read.

use super::ahead::{Decoded, Step, Steps, chunk, read_ahead};
use super::error::OpenError;
use super::format::{Damage, LogId};
use super::medium::Medium;
use super::segment::{self, Contents, FIRST, Rest, Segment, UNFINISHED};
use super::snapshot::{self, SnapshotReader};
use super::writer::{WriteError, Writer};
use crate::engine::{BadEntry, Entry, LogSeq, LogTime, Piece, Restore};
use std::io;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Who takes in what a log brings back, in this order: the pieces of the snapshot, if there is one; the entries behind
/// it.
pub trait Replay {
    /// A piece of the snapshot.
    ///
    /// # Errors
    /// When it does not fit those before it.
    fn piece(&mut self, piece: Piece) -> Result<(), BadEntry>;

    /// An entry.
    ///
    /// # Errors
    /// When it does not fit those before it.
    fn entry(&mut self, seq: LogSeq, time: LogTime, entry: Entry) -> Result<(), BadEntry>;
}

impl Replay for Restore {
    fn piece(&mut self, piece: Piece) -> Result<(), BadEntry> {
        self.take(piece)
    }

    fn entry(&mut self, seq: LogSeq, time: LogTime, entry: Entry) -> Result<(), BadEntry> {
        self.replay(seq, time, &entry)
    }
}

/// What was cut off at the end of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Torn {
    /// The segment.
    pub segment: u64,
    /// Where in it.
    pub at: u64,
    /// How many bytes.
    pub bytes: u64,
    /// What was wrong with them.
    pub damage: Damage,
}

/// A log that was read and can be written.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) id: LogId,
    pub(super) writer: Writer,
    /// When the last entry was made.
    pub(super) time: LogTime,
    pub(super) torn: Option<Torn>,
    pub(super) is_whole: bool,
    pub(super) bytes: u64,
}

/// The files of a log, by name.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Ascending.
    pub(super) snapshots: Vec<LogSeq>,
    /// Ascending.
    pub(super) segments: Vec<u64>,
    pub(super) unfinished: Vec<String>,
}

impl Files {
    pub(super) fn list(medium: &dyn Medium) -> io::Result<Self> {
        let mut files = Self::default();
        for name in medium.names()? {
            if let Some(ordinal) = segment::ordinal(&name) {
                files.segments.push(ordinal);
            } else if let Some(seq) = snapshot::seq(&name) {
                files.snapshots.push(seq);
            } else if name.ends_with(UNFINISHED) {
                files.unfinished.push(name);
            }
        }
        files.segments.sort_unstable();
        files.snapshots.sort_unstable();
        Ok(files)
    }

    /// The segments without a gap up to the last one: those before are left-overs of a removal that was cut short.
    pub(super) fn run(&self) -> &[u64] {
        let mut start = self.segments.len().saturating_sub(1);
        while start > 0 && self.segments[start - 1] + 1 == self.segments[start] {
            start -= 1;
        }
        &self.segments[start..]
    }
}

/// How far entries were read.
#[derive(Debug)]
pub(super) struct Progress {
    /// What the snapshot has.
    covered: LogSeq,
    /// The last entry that was read, or that the snapshot has.
    pub(super) last: LogSeq,
    pub(super) time: LogTime,
}

/// Where the log goes on.
struct Tail {
    segment: Segment,
    /// Behind its last record.
    at: usize,
    torn: Option<Torn>,
    /// Its last record says that all before it was synced.
    is_whole: bool,
    /// Of all records that were read.
    bytes: u64,
    /// A segment behind it without anything in it.
    next: Option<Segment>,
    /// Segments behind it with nothing whole in them.
    worthless: Vec<u64>,
}

/// Reads a log; makes one with this id when there is none.
pub(super) fn recover(
    medium: &dyn Medium,
    fresh: (LogId, u64),
    replay: &mut dyn Replay,
) -> Result<Recovered, OpenError> {
    let files = Files::list(medium).map_err(OpenError::io("list", medium.place()))?;
    let snapshot = files.snapshots.last().map(|seq| SnapshotReader::open(medium, *seq)).transpose()?;
    if snapshot.is_none() && files.segments.is_empty() {
        remove(medium, &files.unfinished)?;
        return create(medium, fresh.0, fresh.1);
    }
    let (segments, progress) = choose(medium, &files, snapshot.as_ref())?;
    let mut progress = progress;
    if let Some(snapshot) = snapshot {
        load(snapshot, replay)?;
    }
    let obsolete = files.segments.iter().copied().filter(|ordinal| *ordinal < segments[0].header.ordinal).collect();
    let id = segments[0].header.id;
    let tail = read(segments, &mut progress, replay)?;
    let (torn, is_whole, bytes) = (tail.torn, tail.is_whole && tail.torn.is_none(), tail.bytes);
    let writer = tail.go_on(medium, progress.last)?;
    clear(medium, &files, obsolete)?;
    Ok(Recovered { id, writer, time: progress.time, torn, is_whole, bytes })
}

fn create(medium: &dyn Medium, id: LogId, bytes: u64) -> Result<Recovered, OpenError> {
    let segment = Segment::create(medium, id, 1, bytes).map_err(OpenError::io("make", segment::name(1)))?;
    let writer = Writer::new(segment, FIRST, LogSeq::default());
    Ok(Recovered { id, writer, time: LogTime::default(), torn: None, is_whole: true, bytes: 0 })
}

/// The segments to read: the last one that begins with an entry that the snapshot has, and all behind.
pub(super) fn choose(
    medium: &dyn Medium,
    files: &Files,
    snapshot: Option<&SnapshotReader>,
) -> Result<(Vec<Segment>, Progress), OpenError> {
    let header = snapshot.map(|snapshot| snapshot.header);
    let covered = header.map(|header| header.seq).unwrap_or_default();
    let time = header.map(|header| header.time).unwrap_or_default();
    let run = files.run();
    let missing = |ordinal| OpenError::Missing { file: segment::name(ordinal), last: covered };
    let Some(first) = run.first() else {
        return Err(missing(1));
    };
    let mut segments = run.iter().map(|ordinal| Segment::open(medium, *ordinal)).collect::<Result<Vec<_>, _>>()?;
    let id = header.map_or(segments[0].header.id, |header| header.id);
    if let Some(foreign) = segments.iter().find(|segment| segment.header.id != id) {
        return Err(OpenError::Foreign { file: segment::name(foreign.header.ordinal) });
    }
    // A record that begins later need not be whole. The segments of a restored backup begin behind its snapshot.
    let start = segments.iter().rposition(|segment| segment.first().is_some_and(|begin| begin <= covered));
    let start = match start {
        Some(start) => start,
        None if header.is_none() && *first == 1 => 0,
        None if begins_whole(&segments[0], covered.next())? => 0,
        None => {
            return Err(match segments[0].read()?.rest(FIRST) {
                Rest::Torn { damage, .. } | Rest::Damaged(damage) if segments[0].first().is_none() => {
                    damaged(*first, FIRST as u64, damage)
                }
                Rest::Nothing | Rest::Torn { .. } | Rest::Damaged(_) => missing(first - 1),
            });
        }
    };
    segments.drain(..start);
    Ok((segments, Progress { covered, last: covered, time }))
}

fn begins_whole(segment: &Segment, with: LogSeq) -> Result<bool, OpenError> {
    Ok(segment.read()?.records().next().is_some_and(|record| record.header.first == with))
}

pub(super) fn load(mut snapshot: SnapshotReader, replay: &mut dyn Replay) -> Result<(), OpenError> {
    let (file, seq) = (snapshot.name.clone(), snapshot.header.seq);
    read_ahead(
        snapshot.length(),
        || chunk(&mut snapshot),
        |(at, pieces)| {
            let refused = |bad| OpenError::Entry { file: file.clone(), at, seq, bad };
            pieces.into_iter().try_for_each(|piece| replay.piece(piece)).map_err(refused)
        },
    )
}

impl Progress {
    /// Takes in the entries of a record of this segment.
    pub(super) fn record(
        &mut self,
        ordinal: u64,
        record: Decoded,
        take: &mut dyn FnMut(LogSeq, LogTime, Entry) -> Result<(), BadEntry>,
    ) -> Result<(), OpenError> {
        let (file, at) = (|| segment::name(ordinal), record.at);
        let mut seq = record.header.first;
        let follows = seq == self.last.next() || seq <= self.covered && self.last == self.covered;
        if !follows {
            return Err(OpenError::Damaged { file: file(), at, damage: Damage::Gap });
        }
        for (time, entry) in record.entries {
            if seq > self.last {
                take(seq, time, entry).map_err(|bad| OpenError::Entry { file: file(), at, seq, bad })?;
                self.last = seq;
                self.time = self.time.max(time);
            }
            seq = seq.next();
        }
        record.bad.map_or(Ok(()), |bad| Err(OpenError::Bytes { file: file(), at, seq, bad }))
    }
}

/// Reads all segments up to where the log ends.
fn read(segments: Vec<Segment>, progress: &mut Progress, replay: &mut dyn Replay) -> Result<Tail, OpenError> {
    let last = segments.iter().rposition(|segment| segment.first().is_some()).unwrap_or_default();
    let bytes = segments.iter().map(|segment| segment.header.bytes).sum();
    let first = segments[0].header.ordinal;
    let (mut tail, mut is_whole): (Option<Tail>, _) = (None, true);
    let mut steps = Steps::new(segments, last);
    let take = |step| match step {
        Step::Records { ordinal, records } => {
            // What is behind something torn was never synced, unless it is not torn but damaged.
            if let Some(torn) = tail.as_ref().and_then(|tail| tail.torn) {
                return Err(damaged(torn.segment, torn.at, torn.damage));
            }
            records.into_iter().try_for_each(|record| {
                is_whole = record.header.entries == 0;
                progress.record(ordinal, record, &mut |seq, time, entry| replay.entry(seq, time, entry))
            })
        }
        Step::End { segment, contents, at } => {
            let is_whole = std::mem::replace(&mut is_whole, true);
            // The snapshot has its first entry, so that was synced.
            let is_covered = segment.header.ordinal == first && progress.covered != LogSeq::default();
            end(&mut tail, segment, (&contents, at), is_covered, is_whole)
        }
    };
    read_ahead(bytes, || steps.next(), take)?;
    Ok(tail.expect("at least one segment was chosen"))
}

/// A segment has no more records behind this place.
fn end(
    tail: &mut Option<Tail>,
    segment: Segment,
    (contents, at): (&Contents, usize),
    is_covered: bool,
    is_whole: bool,
) -> Result<(), OpenError> {
    let ordinal = segment.header.ordinal;
    let torn = match contents.rest(at) {
        Rest::Nothing => None,
        Rest::Damaged(damage) => return Err(damaged(ordinal, at as u64, damage)),
        Rest::Torn { damage, .. } if is_covered && at == FIRST => return Err(damaged(ordinal, at as u64, damage)),
        Rest::Torn { damage, end } => Some(Torn { segment: ordinal, at: at as u64, bytes: (end - at) as u64, damage }),
    };
    match tail {
        Some(tail) if at == FIRST => {
            if let Some(torn) = tail.torn
                && contents.later(FIRST).next().is_some()
            {
                return Err(damaged(torn.segment, torn.at, torn.damage));
            }
            tail.skip(segment, torn);
        }
        _ => {
            let bytes = tail.as_ref().map_or(0, |tail| tail.bytes) + (at - FIRST) as u64;
            *tail = Some(Tail { segment, at, torn, is_whole, bytes, next: None, worthless: Vec::new() });
        }
    }
    Ok(())
}

fn damaged(ordinal: u64, at: u64, damage: Damage) -> OpenError {
    OpenError::Damaged { file: segment::name(ordinal), at, damage }
}

impl Tail {
    /// A segment behind the last record has none.
    fn skip(&mut self, segment: Segment, torn: Option<Torn>) {
        let follows = segment.header.ordinal == self.segment.header.ordinal + 1;
        if torn.is_none() && follows {
            self.next = Some(segment);
        } else {
            self.worthless.push(segment.header.ordinal);
        }
        self.torn = self.torn.or(torn);
    }

    /// Makes everything up to the end safe, and nothing behind it.
    fn go_on(self, medium: &dyn Medium, last: LogSeq) -> Result<Writer, OpenError> {
        let name = segment::name(self.segment.header.ordinal);
        let worthless: Vec<_> = self.worthless.iter().map(|ordinal| segment::name(*ordinal)).collect();
        // Before anything is written: what is whole in them by chance would count as the log's once more is before it.
        remove(medium, &worthless)?;
        let torn = self.torn.filter(|torn| torn.segment == self.segment.header.ordinal);
        if let Some(torn) = torn {
            wipe(&self.segment, torn.at, torn.at + torn.bytes).map_err(OpenError::io("write", &name))?;
        }
        let mut writer = Writer::new(self.segment, self.at, last);
        if let Some(next) = self.next {
            writer.provide(next);
        }
        if writer.wants_mark() {
            match writer.mark() {
                // The mark is for later; a full disk is no reason not to start.
                Ok(()) | Err(WriteError::Full | WriteError::Segment { .. }) => {}
                Err(WriteError::Failed(error)) => return Err(OpenError::io("write", name)(error)),
            }
        }
        Ok(writer)
    }
}

fn wipe(segment: &Segment, mut at: u64, end: u64) -> io::Result<()> {
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        segment.file.write(at, &ZEROS[..length])?;
        at += length as u64;
    }
    segment.file.sync()
}

/// Removes what a snapshot has made superfluous, and what was never finished.
fn clear(medium: &dyn Medium, files: &Files, obsolete: Vec<u64>) -> Result<(), OpenError> {
    let (_newest, older) =
        files.snapshots.split_last().map_or((None, &[][..]), |(newest, older)| (Some(newest), older));
    let older = older.iter().map(|seq| snapshot::name(*seq));
    let obsolete = obsolete.into_iter().map(segment::name);
    let names: Vec<_> = obsolete.chain(older).chain(files.unfinished.iter().cloned()).collect();
    remove(medium, &names)
}

fn remove(medium: &dyn Medium, names: &[String]) -> Result<(), OpenError> {
    for name in names {
        medium.remove(name).map_err(OpenError::io("remove", name))?;
    }
    if names.is_empty() {
        return Ok(());
    }
    medium.sync().map_err(OpenError::io("sync", medium.place()))
}
