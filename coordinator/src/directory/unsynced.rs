//! Whether the system may have lost what was written: it ended, and not everything had been synced.

use super::{DirectoryError, file};
use std::fs;
use std::io;
use std::path::Path;

/// Another one after each start of the system.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file has the boot id of the system under which something is written without being synced.
pub(super) fn begin(path: &Path, unsynced: bool) -> Result<bool, DirectoryError> {
    // Without one nothing is known, and the worst is assumed.
    let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let before = file::read(path)?;
    let ended_since = before.is_some_and(|before| before.is_empty() || before != boot_id);
    if unsynced {
        file::write(path, &boot_id)?;
    } else {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DirectoryError::io("remove", path)(error)),
        }
    }
    Ok(ended_since)
}
