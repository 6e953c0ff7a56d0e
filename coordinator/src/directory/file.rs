//! Reading and writing small private files: whole or not at all.

use super::DirectoryError;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub(super) const FILE_MODE: u32 = 0o600;
pub(super) const DIRECTORY_MODE: u32 = 0o700;
/// Far more than any of our files has; whoever points us at something else gets an error instead of an allocation.
const FILE_BYTES_MAX: u64 = 64 << 10;
const FOR_OTHERS: u32 = 0o077;

/// Refuses what others can reach.
pub(super) fn check_private(path: &Path, wanted: u32) -> Result<(), DirectoryError> {
    let metadata = fs::metadata(path).map_err(DirectoryError::io("look at", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & FOR_OTHERS == 0 {
        return Ok(());
    }
    Err(DirectoryError::NotPrivate { path: path.to_owned(), mode, wanted })
}

/// The text of a file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, DirectoryError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DirectoryError::io("open", path)(error)),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(DirectoryError::io("read", path))?;
    Ok(Some(text))
}

/// As [`read`], for a file that nobody else may read.
pub(super) fn read_private(path: &Path) -> Result<Option<String>, DirectoryError> {
    let text = read(path)?;
    if text.is_some() {
        check_private(path, FILE_MODE)?;
    }
    Ok(text)
}

/// Puts a file in place at once: after a crash there is the old one or the new one. Readable by its owner only.
pub(super) fn write(path: &Path, text: &str) -> Result<(), DirectoryError> {
    let fresh = beside(path);
    match fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DirectoryError::io("remove", &fresh)(error)),
    }
    let fill = || {
        let mut file = File::options().write(true).create_new(true).mode(FILE_MODE).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    // The file that was asked for is named, not the one on the way to it.
    fill().map_err(DirectoryError::io("write", path))?;
    fs::rename(&fresh, path).map_err(DirectoryError::io("write", path))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(DirectoryError::io("sync", directory))
}

fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}
