//! Reading everything, and saying all that is wrong with it. Changes nothing.

use super::codec;
use super::error::OpenError;
use super::medium::Medium;
use super::read::read;
use super::recovery::Files;
use super::segment::{self, Contents, Rest, Segment};
use super::snapshot::SnapshotReader;
use crate::engine::{LogSeq, Restore};
use std::io;

/// What is wrong with a part of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The first byte of the part.
    pub from: u64,
    /// The first byte behind it.
    pub to: u64,
    /// What is wrong.
    pub what: String,
}

/// What was read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verified {
    /// How many files.
    pub files: usize,
    /// How many bytes.
    pub bytes: u64,
    /// The last entry.
    pub last: LogSeq,
    /// How many objects there are after it; only counted when nothing is wrong.
    pub objects: u32,
    /// What is at the end of the log and will be cut off: a write that was under way when the coordinator ended.
    pub torn: Option<Problem>,
    /// What is wrong, file by file.
    pub problems: Vec<Problem>,
}

/// Reads all of a log. `progress` is told how many bytes of how many were read.
///
/// # Errors
/// When the system cannot read it.
pub fn verify(medium: &dyn Medium, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, OpenError> {
    let files = Files::list(medium).map_err(OpenError::io("list", medium.place()))?;
    let size = |name: &str| -> io::Result<u64> { medium.open(name)?.bytes() };
    let segments = files.segments.iter().map(|ordinal| segment::name(*ordinal));
    let names: Vec<_> = files.snapshots.iter().map(|seq| super::snapshot::name(*seq)).chain(segments).collect();
    let mut sizes = Vec::new();
    for name in &names {
        sizes.push(size(name).map_err(OpenError::io("look at", name))?);
    }
    let mut verifier = Verifier { medium, all: sizes.iter().sum(), done: 0, found: Verified::default(), progress };
    for (seq, bytes) in files.snapshots.iter().zip(&sizes) {
        verifier.snapshot(*seq)?;
        verifier.read(*bytes);
    }
    let run = files.run();
    for (ordinal, bytes) in files.segments.iter().zip(&sizes[files.snapshots.len()..]) {
        let is_last = run.last() == Some(ordinal);
        verifier.segment(*ordinal, is_last)?;
        verifier.read(*bytes);
    }
    let mut found = verifier.found;
    found.files = names.len();
    if found.problems.is_empty() && !names.is_empty() {
        whole(medium, &mut found)?;
    }
    Ok(found)
}

struct Verifier<'a> {
    medium: &'a dyn Medium,
    all: u64,
    done: u64,
    found: Verified,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl Verifier<'_> {
    fn read(&mut self, bytes: u64) {
        self.done += bytes;
        self.found.bytes = self.done;
        (self.progress)(self.done, self.all);
    }

    fn problem(&mut self, file: &str, from: u64, to: u64, what: impl ToString) {
        self.found.problems.push(Problem { file: file.to_owned(), from, to, what: what.to_string() });
    }

    /// Notes what cannot be opened as a problem; an error of the system is none of the file.
    fn opened<T>(&mut self, file: &str, opened: Result<T, OpenError>) -> Result<Option<T>, OpenError> {
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error @ OpenError::Io { .. }) => Err(error),
            Err(OpenError::Header { bad, .. }) => {
                self.problem(file, 0, 64, bad);
                Ok(None)
            }
            Err(other) => {
                self.problem(file, 0, 64, other);
                Ok(None)
            }
        }
    }

    fn snapshot(&mut self, seq: LogSeq) -> Result<(), OpenError> {
        let name = super::snapshot::name(seq);
        let opened = SnapshotReader::open(self.medium, seq);
        let Some(mut snapshot) = self.opened(&name, opened)? else { return Ok(()) };
        loop {
            match snapshot.next() {
                Ok(None) => return Ok(()),
                Ok(Some((at, mut chunk))) => {
                    let end = snapshot.position();
                    let readable =
                        std::iter::from_fn(|| codec::take_piece(&mut chunk).transpose()).find_map(Result::err);
                    if let Some(bad) = readable {
                        self.problem(&name, at, end, bad);
                    }
                }
                Err(OpenError::Damaged { at, damage, .. }) => {
                    let next = snapshot.skip_damage()?;
                    self.problem(&name, at, next.unwrap_or_else(|| snapshot.length()), damage);
                    if next.is_none() {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn segment(&mut self, ordinal: u64, is_last: bool) -> Result<(), OpenError> {
        let name = segment::name(ordinal);
        let opened = Segment::open(self.medium, ordinal);
        let Some(segment) = self.opened(&name, opened)? else { return Ok(()) };
        let contents = segment.read()?;
        let mut at = segment::FIRST;
        loop {
            let mut records = contents.records_from(at);
            for record in &mut records {
                let mut body = record.body.clone();
                let read = std::iter::from_fn(|| codec::take_entry(&mut body, record.header.time).transpose());
                if let Some(bad) = read.into_iter().find_map(Result::err) {
                    self.problem(&name, record.at as u64, records_end(&contents, record.at), bad);
                }
            }
            let (from, rest) = (records.at, contents.rest(records.at));
            let next = contents.later(from).next().map(|record| record.at);
            let (damage, end) = match (rest, next) {
                (Rest::Nothing, _) => return Ok(()),
                (Rest::Torn { damage, end }, None) if is_last => {
                    let (from, to) = (from as u64, end as u64);
                    self.found.torn = Some(Problem { file: name, from, to, what: damage.to_string() });
                    return Ok(());
                }
                (Rest::Torn { damage, end }, None) => (damage, end),
                (Rest::Torn { damage, .. } | Rest::Damaged(damage), Some(next)) => (damage, next),
                (Rest::Damaged(damage), None) => (damage, contents.bytes.len()),
            };
            self.problem(&name, from as u64, end as u64, damage);
            let Some(next) = next else { return Ok(()) };
            at = next;
        }
    }
}

/// Where the record ends that is at this place.
fn records_end(contents: &Contents, at: usize) -> u64 {
    let mut records = contents.records_from(at);
    drop(records.next());
    records.at as u64
}

/// Reads it as a start does, into a state.
fn whole(medium: &dyn Medium, found: &mut Verified) -> Result<(), OpenError> {
    let mut restore = Restore::new();
    match read(medium, &mut restore) {
        Ok(last) => {
            (found.last, found.objects) = (last, restore.objects());
            Ok(())
        }
        Err(error @ OpenError::Io { .. }) => Err(error),
        Err(error) => {
            let (file, from) = error.place();
            found.problems.push(Problem { file, from, to: from, what: error.what() });
            Ok(())
        }
    }
}
