//! What a coordinator keeps beside its state: its CA and certificates, its QUIC keys, its epoch, the client profile.
//!
//! One directory, mode 0700, used by one process at a time. Nothing in it is overwritten but the epoch and the profile,
//! and the server's certificate when it no longer covers the address; every write is a new file, synced and then
//! renamed. No network and no clock: whoever calls says what time it is.

mod authority;
mod epoch;
mod file;
mod identity;
mod quic_keys;
mod restored;
mod unsynced;

pub use identity::Identity;
pub(crate) use quic_keys::QuicKeys;

use kiln_protocol::Epoch;
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File};
use std::io;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const SERVER_CERTIFICATE: &str = "server.pem";
const SERVER_KEY: &str = "server.key";
const QUIC_KEY: &str = "quic.key";
const EPOCH: &str = "epoch";
const LOCK: &str = "lock";
const UNSYNCED: &str = "unsynced";
const RESTORED: &str = "restored";
/// What makes a coordinator the one that its nodes know.
const IDENTITY: [&str; 5] = [CA_CERTIFICATE, CA_KEY, SERVER_CERTIFICATE, SERVER_KEY, QUIC_KEY];
/// The profile's name where no other was asked for.
pub(crate) const PROFILE: &str = "kiln.toml";

/// Why the directory cannot be used. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The operating system said no.
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// Another coordinator runs here.
    #[error(
        "{} is in use by another coordinator{}: stop it, or choose another directory",
        path.display(),
        pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process, if it has said so.
        pid: Option<u32>,
    },
    /// Others may read what must stay secret.
    #[error(
        "{} has mode {mode:04o}, so others can reach private keys: run `chmod {wanted:o} {}`",
        path.display(),
        path.display()
    )]
    NotPrivate {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// A file is gone while one that belongs to it is there.
    #[error("{} is missing although {} is there: {advice}", path.display(), beside.display())]
    Missing {
        /// The file that is gone.
        path: PathBuf,
        /// The file that is there.
        beside: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A file does not hold what it should.
    #[error("{} cannot be used: {what}; {advice}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// The profile would overwrite a file that is not this coordinator's.
    #[error(
        "{} is not a profile of this coordinator ({what}): write the profile somewhere else, or remove that file",
        path.display()
    )]
    ForeignProfile {
        /// The file.
        path: PathBuf,
        /// How it differs.
        what: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {subject}: {what}")]
    Certificate {
        /// For whom.
        subject: String,
        /// Why.
        what: String,
    },
}

impl DirectoryError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing, path: path.to_owned(), error }
    }
}

/// The directory, held by this process until dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Keeps the lock: it ends when the file is closed.
    _lock: File,
}

impl Directory {
    /// Takes hold of the directory; makes it when there is none.
    ///
    /// # Errors
    /// When it cannot be made, is open to others, or another process holds it.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        make(path)?;
        file::check_private(path, file::DIRECTORY_MODE)?;
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where the profile goes when nobody says otherwise.
    #[must_use]
    pub fn profile_path(&self) -> PathBuf {
        self.path.join(PROFILE)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins the next epoch, which is also above this one: it is stored before this returns, and never given again.
    ///
    /// # Errors
    /// When it cannot be read or stored.
    pub fn next_epoch(&self, above: Epoch) -> Result<Epoch, DirectoryError> {
        epoch::next(&self.path.join(EPOCH), &self.path.join(CA_CERTIFICATE), above)
    }

    /// From now on files in it are written without being synced first, or not any more. Returns whether they were before,
    /// and the system has ended since: then it may not have written all of them.
    pub(crate) fn begin_unsynced(&self, unsynced: bool) -> Result<bool, DirectoryError> {
        unsynced::begin(&self.path.join(UNSYNCED), unsynced)
    }

    /// Copies who the coordinator of `from` is, and its epoch, to another directory, which is made.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn back_up(from: &Path, to: &Path) -> Result<(), DirectoryError> {
        make(to)?;
        for name in IDENTITY.into_iter().chain([EPOCH]) {
            if let Some(text) = file::read(&from.join(name))? {
                file::write(&to.join(name), &text)?;
            }
        }
        Ok(())
    }

    /// Takes over from a backup who the coordinator is, unless there is one already; all epochs from here on are above
    /// those that nodes of the one that was backed up have seen, and begin another history.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn restore(&self, backup: &Path) -> Result<(), DirectoryError> {
        let known = |path: &Path| -> Result<Epoch, DirectoryError> {
            let text = file::read(&path.join(EPOCH))?;
            Ok(text.and_then(|text| text.trim().parse().ok()).map_or_else(Epoch::default, Epoch::from_bits))
        };
        let above = restored::epoch_above([known(&self.path)?, known(backup)?]);
        // First, so that a restore that is cut short counts as one.
        restored::note(&self.file(RESTORED), above)?;
        if file::read(&self.file(CA_CERTIFICATE))?.is_none() {
            // The authority last: with it the others are there.
            for name in IDENTITY.into_iter().rev() {
                if let Some(text) = file::read_private(&backup.join(name))? {
                    file::write(&self.file(name), &text)?;
                }
            }
        }
        file::write(&self.file(EPOCH), &format!("{above}\n"))
    }

    /// Whether another history is to begin, because a backup was put in place, in a log whose last epoch is this one.
    pub(crate) fn is_restored(&self, last: Epoch) -> Result<bool, DirectoryError> {
        restored::is_to_begin(&self.file(RESTORED), last)
    }

    /// Random bytes.
    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], DirectoryError> {
        authority::random()
    }

    /// The keys that let a restarted coordinator recognise the packets of its former connections.
    pub(crate) fn quic_keys(&self) -> Result<QuicKeys, DirectoryError> {
        quic_keys::load_or_create(&self.path.join(QUIC_KEY))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn make(path: &Path) -> Result<(), DirectoryError> {
    let made = DirBuilder::new().recursive(true).mode(file::DIRECTORY_MODE).create(path);
    made.map_err(DirectoryError::io("create the directory", path))
}

fn lock(directory: &Path) -> Result<File, DirectoryError> {
    let path = directory.join(LOCK);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(file::FILE_MODE)
        .open(&path)
        .map_err(DirectoryError::io("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let pid = match file.read_to_string(&mut holder) {
                Ok(_) => holder.trim().parse().ok(),
                Err(_) => None,
            };
            return Err(DirectoryError::InUse { path: directory.to_owned(), pid });
        }
        Err(errno) => return Err(DirectoryError::io("lock", &path)(errno.into())),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(DirectoryError::io("write", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
