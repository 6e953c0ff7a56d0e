//! A directory that a backup was put into: its state is older than what nodes have seen.

use super::{DirectoryError, file};
use kiln_protocol::Epoch;
use std::fs;
use std::io;
use std::path::Path;

/// More epochs than are begun between two backups.
const EPOCHS: u32 = 1 << 10;
const ADVICE: &str = "put the backup in place again with `kiln restore`";

/// The epoch after which all begin that are begun here, given the last ones that are known.
pub(super) fn epoch_above(known: [Epoch; 2]) -> Epoch {
    let last = known.into_iter().max().unwrap_or_default();
    Epoch::from_bits(last.to_bits().saturating_add(EPOCHS).min(Epoch::MAX.to_bits()))
}

/// Notes that the directory was restored, and that all epochs of its new history are above this one.
pub(super) fn note(path: &Path, above: Epoch) -> Result<(), DirectoryError> {
    file::write(path, &format!("{above}\n"))
}

/// Whether the new history is still to begin in a log whose last epoch is this one.
pub(super) fn is_to_begin(path: &Path, last: Epoch) -> Result<bool, DirectoryError> {
    let Some(text) = file::read(path)? else { return Ok(false) };
    let above = text.trim().parse::<u32>().map(Epoch::from_bits).map_err(|error| DirectoryError::Corrupt {
        path: path.to_owned(),
        what: format!("its text is not a number ({error})"),
        advice: ADVICE,
    })?;
    if last <= above {
        return Ok(true);
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DirectoryError::io("remove", path)(error)),
    }
}
