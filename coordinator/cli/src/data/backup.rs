//! `kiln backup` and `kiln restore`.

use super::progress::Progress;
use super::{Data, DataError, log_in};
use crate::failure::Failure;
use crate::output::Output;
use kiln_coordinator::directory::Directory;
use kiln_coordinator::server::LOG;
use kiln_coordinator::store::{self, copy, is_there, verify};
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub(crate) struct BackUpArgs {
    /// Where to put it; made when it is not there.
    directory: PathBuf,
    #[command(flatten)]
    data: Data,
}

#[derive(clap::Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The backup.
    directory: PathBuf,
    #[command(flatten)]
    data: Data,
}

/// The coordinator may run meanwhile: what was safe when this began is in the backup.
pub(crate) fn back_up(args: &BackUpArgs) -> Result<(), Failure> {
    let from = log_in(&args.data.path)?;
    // Private, because of the keys, and nobody else's meanwhile.
    let _held = Directory::open(&args.directory).map_err(DataError::from)?;
    let to = empty_log(&args.directory)?;
    Directory::back_up(&args.data.path, &args.directory).map_err(DataError::from)?;
    let objects = copied(&from, &to, &args.data.path, &args.directory)?;
    let mut out = Output::new();
    out.line(format_args!(
        "{objects} objects backed up to {}; the private keys of the coordinator are in it",
        args.directory.display()
    ))?;
    Ok(out.flush()?)
}

pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let from = log_in(&args.directory)?;
    let directory = Directory::open(&args.data.path).map_err(DataError::from)?;
    let to = empty_log(&args.data.path)?;
    directory.restore(&args.directory).map_err(DataError::from)?;
    let objects = copied(&from, &to, &args.directory, &args.data.path)?;
    let mut out = Output::new();
    out.line(format_args!(
        "{objects} objects restored to {}; nodes that saw later ones begin anew when a coordinator starts there",
        args.data.path.display()
    ))?;
    Ok(out.flush()?)
}

/// A place for a log in a directory that has none.
fn empty_log(directory: &Path) -> Result<store::Directory, DataError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| DataError::Io { path, error }
    };
    let path = directory.join(LOG);
    let log = store::Directory::open(&path).map_err(failed(&path))?;
    if is_there(&log).map_err(failed(&path))? {
        return Err(DataError::HasLog { path });
    }
    Ok(log)
}

/// Copies a log, and reads the copy. Returns how many objects are in it.
fn copied(from: &store::Directory, to: &store::Directory, source: &Path, target: &Path) -> Result<u32, DataError> {
    let failed = |directory: &Path| {
        let path = directory.join(LOG);
        move |error| DataError::Log { path, error }
    };
    let mut progress = Progress::new();
    // Copied, then read: two halves of the bar.
    copy(from, to, &mut |done, all| progress.at(done, all * 2)).map_err(failed(source))?;
    let verified = verify(to, &mut |done, all| progress.at(all + done, all * 2)).map_err(failed(target))?;
    if verified.problems.is_empty() {
        return Ok(verified.objects);
    }
    Err(DataError::Damaged { path: target.join(LOG), problems: verified.problems.len() })
}
