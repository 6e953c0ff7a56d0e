//! A directory for one embedded coordinator, and the removal of those whose process was killed.
//!
//! Whoever lives holds a lock on a file in its directory, which the system takes away with the process, however that
//! ends. A directory whose lock can be had belongs to nobody. Absent: directories without that file; they are not ours.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use tempfile::TempDir;

const PREFIX: &str = "kiln-embedded-";
const LOCK: &str = "alive";
/// Attempts that somebody who cleans up may spoil.
const ATTEMPTS_MAX: usize = 16;

/// See the module. It goes with the value.
#[derive(Debug)]
pub(super) struct Temporary {
    // Before the lock: while the directory is removed, it is nobody else's to remove.
    directory: TempDir,
    _alive: File,
}

impl Temporary {
    /// A new one; those in the same place that nobody holds any more are removed.
    pub(super) fn new() -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS_MAX {
            let owner_only = Permissions::from_mode(0o700);
            let directory = tempfile::Builder::new().prefix(PREFIX).permissions(owner_only).tempdir_in(parent)?;
            let path = directory.path().join(LOCK);
            let alive = File::create_new(&path)?;
            // Between the two steps somebody may have taken it for a dead one's.
            let is_held = alive.try_lock().is_ok() && fs::metadata(&path).is_ok();
            if is_held {
                remove_dead(parent, fs::metadata(directory.path())?.uid());
                return Ok(Self { directory, _alive: alive });
            }
        }
        Err(io::Error::other("others remove what this process makes"))
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes the directories of this user's processes that have ended. What cannot be looked at or removed stays.
fn remove_dead(parent: &Path, user: u32) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let is_named_so = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not through a link: whoever may write here could lead elsewhere.
        let is_ours = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user);
        if !is_named_so || !is_ours {
            continue;
        }
        let path = entry.path();
        // The lock is held until the directory is gone.
        let Ok(alive) = File::open(path.join(LOCK)) else { continue };
        if alive.try_lock().is_ok()
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::debug!(path = %path.display(), %error, "the directory of a coordinator that was killed stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// As a process that is killed leaves it: the lock goes, the directory stays.
    fn killed(temporary: Temporary) -> PathBuf {
        let Temporary { directory, _alive } = temporary;
        directory.keep()
    }

    #[test]
    fn the_dead_are_cleaned_up_behind_and_nobody_else() {
        let parent = tempfile::tempdir().unwrap();
        let living = Temporary::new_in(parent.path()).unwrap();
        let dead = killed(Temporary::new_in(parent.path()).unwrap());
        fs::write(dead.join("kiln.toml"), "a secret").unwrap();
        let unknown = parent.path().join("kiln-embedded-unknown");
        fs::create_dir(&unknown).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        File::create(elsewhere.path().join(LOCK)).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), parent.path().join("kiln-embedded-link")).unwrap();
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        File::create(other.join(LOCK)).unwrap();

        let new = Temporary::new_in(parent.path()).unwrap();
        assert!(!dead.exists());
        assert!(living.path().exists() && new.path().exists());
        assert!(unknown.exists() && other.exists() && elsewhere.path().join(LOCK).exists());
        assert_eq!(fs::metadata(new.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let gone = living.path().to_owned();
        drop(living);
        assert!(!gone.exists());
    }
}
