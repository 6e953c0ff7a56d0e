//! Reading a log without changing it, also one that is being written.

use super::ahead::Decoded;
use super::error::OpenError;
use super::medium::Medium;
use super::recovery::{Files, Replay, choose, load};
use super::snapshot::SnapshotReader;
use crate::engine::LogSeq;

/// Reads the newest snapshot and the entries behind it, up to the first place without a whole record. Returns the last
/// entry.
///
/// # Errors
/// When it cannot be read, or does not fit together.
pub fn read(medium: &dyn Medium, replay: &mut dyn Replay) -> Result<LogSeq, OpenError> {
    let files = Files::list(medium).map_err(OpenError::io("list", medium.place()))?;
    let snapshot = files.snapshots.last().map(|seq| SnapshotReader::open(medium, *seq)).transpose()?;
    let (segments, mut progress) = choose(medium, &files, snapshot.as_ref())?;
    if let Some(snapshot) = snapshot {
        load(snapshot, replay)?;
    }
    let mut segments = segments.iter().peekable();
    while let Some(segment) = segments.next() {
        // Asked first: once the next one has a record, this one is whole.
        let goes_on = segments.peek().is_some_and(|next| next.first().is_some());
        let contents = segment.read()?;
        for record in contents.records() {
            progress.record(contents.header.ordinal, Decoded::of(&record), &mut |seq, time, entry| {
                replay.entry(seq, time, entry)
            })?;
        }
        if !goes_on {
            break;
        }
    }
    Ok(progress.last)
}
