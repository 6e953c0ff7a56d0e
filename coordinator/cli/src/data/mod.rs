//! What a coordinator keeps in its directory: looked at without the coordinator, and snapshots that it is asked for.

pub(crate) mod backup;
pub(crate) mod log;
mod progress;
pub(crate) mod snapshot;
pub(crate) mod verify;

use kiln_coordinator::directory::DirectoryError;
use kiln_coordinator::server::LOG;
use kiln_coordinator::store::{Directory, OpenError};
use std::io;
use std::path::{Path, PathBuf};

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    #[error("{} has no log of a coordinator ({error}): give the directory that `kiln serve --data` was given", path.display())]
    NoLog { path: PathBuf, error: io::Error },
    #[error("cannot use {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} has a log already: move it away, or choose another directory", path.display())]
    HasLog { path: PathBuf },
    #[error("{}: {error}", path.display())]
    Log { path: PathBuf, error: OpenError },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("{} is damaged in {problems} places", path.display())]
    Damaged { path: PathBuf, problems: usize },
}

/// The directory that `kiln serve` keeps its state in.
#[derive(clap::Args, Debug)]
pub(crate) struct Data {
    /// The directory of the coordinator, as given to `kiln serve`.
    #[arg(long = "data", env = "KILN_DATA", default_value = "kiln-data", value_name = "DIRECTORY")]
    path: PathBuf,
}

/// The log in such a directory.
fn log_in(directory: &Path) -> Result<Directory, DataError> {
    let path = directory.join(LOG);
    Directory::existing(&path).map_err(|error| DataError::NoLog { path, error })
}
