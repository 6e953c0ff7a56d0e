//! What the store needs of a file system: one directory of files, and the four ways in which something reaches the
//! medium (a write, a sync of a file, a rename, a sync of the directory).
//!
//! A seam, so that a test can stand in for the disk, remember what was synced and what was not, and stop at any of those
//! steps. [`Directory`] is the real one.
//!
//! What is assumed of a medium is in `docs/STORE.md`.

mod directory;

pub use directory::Directory;

use std::fmt;
use std::io;

/// One directory.
pub trait Medium: Send + Sync + fmt::Debug {
    /// Where this is, for people.
    fn place(&self) -> String;

    /// The names of all files, in no particular order.
    ///
    /// # Errors
    /// What the system answered.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// What the system answered.
    fn open(&self, name: &str) -> io::Result<Box<dyn MediumFile>>;

    /// Makes an empty file in the place of one that may be there.
    ///
    /// # Errors
    /// What the system answered.
    fn create(&self, name: &str) -> io::Result<Box<dyn MediumFile>>;

    /// Gives a file another name, in the place of one that may be there. Is there after a crash only once the directory
    /// was synced.
    ///
    /// # Errors
    /// What the system answered.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Is gone after a crash only once the directory was synced.
    ///
    /// # Errors
    /// What the system answered.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Waits until all files that were made, renamed and removed are so after a crash.
    ///
    /// # Errors
    /// What the system answered.
    fn sync(&self) -> io::Result<()>;
}

/// One file.
pub trait MediumFile: Send + Sync + fmt::Debug {
    /// How long it is, in bytes.
    ///
    /// # Errors
    /// What the system answered.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills the buffer from this place on.
    ///
    /// # Errors
    /// What the system answered; `UnexpectedEof` when the file ends before.
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Has the system forget what it remembers of this part and has written, so that the next read shows what the medium
    /// has.
    ///
    /// # Errors
    /// What the system answered.
    fn forget(&self, at: u64, bytes: u64) -> io::Result<()>;

    /// Makes room for a file of this length, so that a full disk is noticed before anything is written.
    ///
    /// # Errors
    /// What the system answered.
    fn reserve(&self, bytes: u64) -> io::Result<()>;

    /// Writes all of it, from this place on. Is there after a crash only once the file was synced.
    ///
    /// # Errors
    /// What the system answered; any part of it may have been written.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Waits until what was written is there after a crash. When it fails, nothing is known of what was written since
    /// the last one, and another try says nothing either.
    ///
    /// # Errors
    /// What the system answered.
    fn sync(&self) -> io::Result<()>;
}

/// Whether this error says that the medium is full, which may pass.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
