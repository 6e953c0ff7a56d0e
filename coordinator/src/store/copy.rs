//! Copying a log, also one that is being written: whatever was safe when the copy was begun is in it.

use super::error::OpenError;
use super::medium::{Medium, MediumFile};
use super::recovery::{Files, choose};
use super::segment::{self, Rest, Segment, UNFINISHED};
use super::snapshot::{self, SnapshotReader};
use crate::engine::LogSeq;
use std::io;

/// Files go away under a copy when a snapshot is installed; then it begins anew.
const TRIES: u32 = 10;
const COPY_BYTES: usize = 1 << 20;

/// Copies the newest snapshot and the segments behind it to an empty place. `progress` is told how many bytes of how many
/// were copied.
///
/// # Errors
/// When the log is damaged, or the system cannot read or write.
pub fn copy(from: &dyn Medium, to: &dyn Medium, progress: &mut dyn FnMut(u64, u64)) -> Result<(), OpenError> {
    let (snapshot, segments) = open(from)?;
    let bytes = |file: &dyn MediumFile, name: &str| file.bytes().map_err(OpenError::io("look at", name));
    let mut all = segments.iter().map(|segment| segment.header.bytes).sum();
    if let Some(snapshot) = &snapshot {
        all += snapshot.length();
    }
    let mut done = 0;
    // From the last to the first: when a segment has a record, all before it are whole, and stay so.
    let mut is_behind = false;
    for segment in segments.iter().rev() {
        let contents = segment.read()?;
        let mut records = contents.records();
        let has_records = (&mut records).count() > 0;
        let (end, name) = (records.at, segment::name(segment.header.ordinal));
        match contents.rest(end) {
            Rest::Damaged(damage) => return Err(OpenError::Damaged { file: name, at: end as u64, damage }),
            Rest::Torn { damage, .. } if is_behind => {
                return Err(OpenError::Damaged { file: name, at: end as u64, damage });
            }
            Rest::Nothing | Rest::Torn { .. } => {}
        }
        is_behind |= has_records;
        // What is being written just now is left out.
        let mut copied = contents.bytes[..end].to_vec();
        copied.resize(contents.bytes.len(), 0);
        put(to, &name, |file| file.write(0, &copied)).map_err(OpenError::io("write", &name))?;
        done += segment.header.bytes;
        progress(done, all);
    }
    if let Some(snapshot) = snapshot {
        let (name, length) = (snapshot.name.clone(), bytes(&*snapshot.file, &snapshot.name)?);
        put(to, &name, |file| {
            let (mut at, mut buffer) = (0, vec![0; COPY_BYTES]);
            while at < length {
                let part = usize::try_from(length - at).unwrap_or(COPY_BYTES).min(COPY_BYTES);
                snapshot.file.read(at, &mut buffer[..part])?;
                file.write(at, &buffer[..part])?;
                at += part as u64;
                progress(done + at, all);
            }
            Ok(())
        })
        .map_err(OpenError::io("copy", &name))?;
    }
    to.sync().map_err(OpenError::io("sync", to.place()))
}

type Opened = (Option<SnapshotReader>, Vec<Segment>);

/// Opens all files that a start would read. Once open, they stay readable.
fn open(from: &dyn Medium) -> Result<Opened, OpenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let open = || -> Result<Opened, OpenError> {
            let files = Files::list(from).map_err(OpenError::io("list", from.place()))?;
            let newest = files.snapshots.last();
            let snapshot = newest.map(|seq: &LogSeq| SnapshotReader::open(from, *seq)).transpose()?;
            let (segments, _) = choose(from, &files, snapshot.as_ref())?;
            Ok((snapshot, segments))
        };
        match open() {
            Err(OpenError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound && tries < TRIES => {}
            // Between the list and the look at them, all of them have gone.
            Err(OpenError::Missing { .. }) if tries < TRIES => {}
            opened => return opened,
        }
    }
}

fn put(to: &dyn Medium, name: &str, fill: impl FnOnce(&dyn MediumFile) -> io::Result<()>) -> io::Result<()> {
    let unfinished = format!("{name}{UNFINISHED}");
    let file = to.create(&unfinished)?;
    fill(&*file)?;
    file.sync()?;
    to.rename(&unfinished, name)
}

/// Whether there is a log.
///
/// # Errors
/// What the system answered.
pub fn is_there(medium: &dyn Medium) -> io::Result<bool> {
    let names = medium.names()?;
    Ok(names.iter().any(|name| segment::ordinal(name).is_some() || snapshot::seq(name).is_some()))
}
