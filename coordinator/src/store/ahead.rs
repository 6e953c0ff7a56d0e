//! Reading, checking and decoding on a thread of its own, while what was read is taken in.
//!
//! What is read comes in order, and so do its errors: whoever takes it in sees what one thread alone would see.

use super::codec::{self, BadBytes};
use super::error::OpenError;
use super::format::RecordHeader;
use super::segment::{Contents, FIRST, Record, Segment};
use super::snapshot::SnapshotReader;
use crate::engine::{Entry, LogTime, Piece};

/// With less to read no thread is worth its start.
const BYTES_MIN: u64 = 4 << 20;
/// So many steps are read ahead of those that are taken in.
const STEPS: usize = 8;
/// Records in one step.
const RECORDS: usize = 64;

/// Gives `take` what `read` returns, until that is `None` or one of them fails. `bytes` is about how much there is.
pub(super) fn read_ahead<T: Send>(
    bytes: u64,
    mut read: impl FnMut() -> Result<Option<T>, OpenError> + Send,
    mut take: impl FnMut(T) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    if bytes < BYTES_MIN {
        while let Some(one) = read()? {
            take(one)?;
        }
        return Ok(());
    }
    std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::sync_channel(STEPS);
        scope.spawn(move || {
            while let Some(one) = read().transpose() {
                let is_bad = one.is_err();
                // Nobody listens any more when what was read before could not be taken in.
                if sender.send(one).is_err() || is_bad {
                    return;
                }
            }
        });
        receiver.into_iter().try_for_each(|one| take(one?))
    })
}

/// Where a chunk of a snapshot is, and what is in it.
pub(super) type Chunk = (u64, Vec<Piece>);

/// The next chunk of a snapshot.
pub(super) fn chunk(snapshot: &mut SnapshotReader) -> Result<Option<Chunk>, OpenError> {
    let Some((at, mut chunk)) = snapshot.next()? else { return Ok(None) };
    let (file, seq) = (&snapshot.name, snapshot.header.seq);
    let pieces = std::iter::from_fn(|| codec::take_piece(&mut chunk).transpose()).collect::<Result<_, _>>();
    let pieces = pieces.map_err(|bad| OpenError::Bytes { file: file.clone(), at, seq, bad })?;
    Ok(Some((at, pieces)))
}

/// A record, and what is in it.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) at: u64,
    pub(super) header: RecordHeader,
    pub(super) entries: Vec<(LogTime, Entry)>,
    /// What is wrong behind these.
    pub(super) bad: Option<BadBytes>,
}

impl Decoded {
    pub(super) fn of(record: &Record) -> Self {
        let (header, mut body) = (record.header, record.body.clone());
        let mut entries = Vec::with_capacity(body.len().min(header.entries as usize));
        let bad = loop {
            match codec::take_entry(&mut body, header.time) {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => break None,
                Err(bad) => break Some(bad),
            }
        };
        let count = entries.len() as u64;
        let bad = bad.or_else(|| {
            let what = "the number of entries of a record";
            (count != u64::from(header.entries)).then_some(BadBytes::Value { what, value: count })
        });
        Self { at: record.at as u64, header, entries, bad }
    }
}

/// What is found in segments, from the front.
#[derive(Debug)]
pub(super) enum Step {
    /// Records of one segment.
    Records {
        /// Its number.
        ordinal: u64,
        /// These.
        records: Vec<Decoded>,
    },
    /// A segment has no more.
    End {
        /// This one.
        segment: Segment,
        /// Its bytes.
        contents: Contents,
        /// Behind its last record.
        at: usize,
    },
}

/// Walks over segments.
pub(super) struct Steps<S: Iterator<Item = Segment>> {
    /// Those to come.
    segments: std::iter::Enumerate<S>,
    /// From this one on it matters what the medium has, not what the system remembers.
    settled: usize,
    current: Option<(Segment, Contents, usize)>,
}

impl<S: Iterator<Item = Segment>> Steps<S> {
    pub(super) fn new(segments: impl IntoIterator<IntoIter = S>, settled: usize) -> Self {
        Self { segments: segments.into_iter().enumerate(), settled, current: None }
    }

    pub(super) fn next(&mut self) -> Result<Option<Step>, OpenError> {
        let (segment, contents, at) = match self.current.take() {
            Some(current) => current,
            None => {
                let Some((number, segment)) = self.segments.next() else { return Ok(None) };
                let contents = if number < self.settled { segment.read()? } else { segment.read_settled()? };
                (segment, contents, FIRST)
            }
        };
        let mut walk = contents.records_from(at);
        let records: Vec<_> = walk.by_ref().take(RECORDS).map(|record| Decoded::of(&record)).collect();
        let at = walk.at;
        if records.is_empty() {
            return Ok(Some(Step::End { segment, contents, at }));
        }
        let ordinal = segment.header.ordinal;
        self.current = Some((segment, contents, at));
        Ok(Some(Step::Records { ordinal, records }))
    }
}
