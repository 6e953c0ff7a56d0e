//! `kiln verify`: reads all that a coordinator keeps, and says all that is wrong with it.

use super::progress::Progress;
use super::{DataError, log_in};
use crate::failure::Failure;
use crate::output::{Output, note};
use kiln_coordinator::directory::Directory;
use kiln_coordinator::server::LOG;
use kiln_coordinator::store::{Problem, verify};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The directory of a coordinator that does not run, or a backup.
    #[arg(default_value = "kiln-data")]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let medium = log_in(&args.directory)?;
    // A log that is being written would look damaged.
    let _held = Directory::open(&args.directory).map_err(DataError::from)?;
    let mut progress = Progress::new();
    let verified = verify(&medium, &mut |done, all| progress.at(done, all));
    drop(progress);
    let path = args.directory.join(LOG);
    let verified = verified.map_err(|error| DataError::Log { path: path.clone(), error })?;
    let mut out = Output::new();
    for Problem { file, from, to, what } in &verified.problems {
        out.line(format_args!("{file}  bytes {from} to {to}: {what}"))?;
    }
    if let Some(Problem { file, from, to, .. }) = &verified.torn {
        note(format_args!(
            "{file}, bytes {from} to {to}: written when the coordinator ended, and safe to nobody; its next start cuts it off"
        ));
    }
    if !verified.problems.is_empty() {
        out.flush()?;
        return Err(DataError::Damaged { path, problems: verified.problems.len() }.into());
    }
    out.line(format_args!(
        "{} files, {} bytes, nothing wrong: {} objects after entry {}",
        verified.files, verified.bytes, verified.objects, verified.last
    ))?;
    Ok(out.flush()?)
}
