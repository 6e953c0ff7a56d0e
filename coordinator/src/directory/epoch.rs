//! The epoch: stored before the first grant, so that no token is ever given twice.

use super::{DirectoryError, file};
use kiln_protocol::Epoch;
use std::path::Path;

const ADVICE: &str = "restore it, or write a number above every epoch there has been (`kiln status` shows it)";

/// Stores and returns the epoch after the stored one and after `above`. `beside` is a file that exists from the first start on.
pub(super) fn next(path: &Path, beside: &Path, above: Epoch) -> Result<Epoch, DirectoryError> {
    let corrupt = |what| DirectoryError::Corrupt { path: path.to_owned(), what, advice: ADVICE };
    let last = match file::read(path)? {
        Some(text) => {
            text.trim().parse::<u32>().map_err(|error| corrupt(format!("its text is not a number ({error})")))?
        }
        None => {
            return Err(DirectoryError::Missing { path: path.to_owned(), beside: beside.to_owned(), advice: ADVICE });
        }
    };
    let last = last.max(above.to_bits());
    if last >= Epoch::MAX.to_bits() {
        return Err(corrupt(format!("epochs end at {}", Epoch::MAX)));
    }
    let next = last + 1;
    file::write(path, &format!("{next}\n"))?;
    Ok(Epoch::from_bits(next))
}

/// Stores that there has been no epoch yet, unless one is stored.
pub(super) fn create(path: &Path) -> Result<(), DirectoryError> {
    if file::read(path)?.is_some() {
        return Ok(());
    }
    file::write(path, "0\n")
}
