//! Where a coordinator keeps its state, and the engine that goes on with what is there.

use super::StartError;
use super::clock;
use crate::directory::Directory;
use crate::engine::{Engine, LogTime, Restore, Settings};
use crate::store::memory::MemoryLog;
use crate::store::{self, DurableLog, Log, LogId, LogOptions, Snapshots, SyncPolicy};
use kiln_protocol::Epoch;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The log's own directory in the coordinator's.
pub const LOG: &str = "log";
/// More ids than can have been given between two writes of the system.
const SKIPPED: u64 = 1 << 24;

/// Where the state is kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Storage {
    /// In memory: it ends with the process.
    #[default]
    Memory,
    /// In the coordinator's directory, synced so.
    Disk(SyncPolicy),
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Disk(SyncPolicy::Always) => f.write_str("disk, always synced"),
            Self::Disk(SyncPolicy::Interval(interval)) => write!(f, "disk, synced every {interval:?}"),
            Self::Disk(SyncPolicy::Never) => f.write_str("disk, not synced"),
        }
    }
}

/// An engine, and the log for what it does from here on.
pub(super) struct Opened {
    pub(super) engine: Engine,
    pub(super) log: Box<dyn Log>,
    /// What a log on disk has since its last snapshot, and where the next one goes.
    pub(super) snapshots: Option<(Snapshots, u64)>,
}

/// Begins an epoch with what is kept in the directory.
pub(super) fn open(directory: &Directory, storage: &Storage, lease: Duration) -> Result<Opened, StartError> {
    let path = directory.path().join(LOG);
    match storage {
        Storage::Memory if path.exists() => Err(StartError::HasLog { path }),
        Storage::Memory => {
            let epoch = directory.next_epoch(Epoch::default())?;
            let settings = Settings { lease, ..Settings::new(epoch, storage.to_string(), env!("CARGO_PKG_VERSION")) };
            Ok(Opened { engine: Engine::new(settings), log: Box::new(MemoryLog::new()), snapshots: None })
        }
        Storage::Disk(sync) => on_disk(directory, &path, *sync, storage.to_string(), lease),
    }
}

fn on_disk(
    directory: &Directory,
    path: &Path,
    sync: SyncPolicy,
    store: String,
    lease: Duration,
) -> Result<Opened, StartError> {
    let failed = |error| StartError::Log { path: path.to_owned(), error };
    let medium = store::Directory::open(path)
        .map_err(|error| failed(store::OpenError::Io { doing: "open", file: path.display().to_string(), error }))?;
    let id = LogId::from_bytes(directory.random()?);
    let options = LogOptions { sync, ..LogOptions::default() };
    let begun = clock::now();
    let mut restore = Restore::new();
    let (log, found) = DurableLog::open(Arc::new(medium), id, &options, &mut restore).map_err(failed)?;
    if let Some(torn) = found.torn {
        tracing::warn!(
            segment = torn.segment,
            at = torn.at,
            bytes = torn.bytes,
            "the log ended in the middle of a write, as after a crash; nobody had been told that it was safe"
        );
    }
    let is_short = directory.begin_unsynced(sync != SyncPolicy::Always)? && !found.is_whole;
    if is_short {
        tracing::warn!("the system ended while not all of the log was on disk: nodes begin anew with what is there");
    }
    let is_restored = directory.is_restored(restore.epoch())?;
    if is_restored {
        tracing::info!("the log is of a backup that was put in place: nodes begin anew with what is there");
    }
    let epoch = directory.next_epoch(restore.epoch())?;
    let started = LogTime::from_bits(clock::wall_ms()).max(found.time);
    let settings = Settings {
        lease,
        durable: true,
        started,
        history: (is_short || is_restored).then_some(epoch),
        skipped: if is_short || is_restored { SKIPPED } else { 0 },
        ..Settings::new(epoch, store, env!("CARGO_PKG_VERSION"))
    };
    let (entries, objects) = (found.last, restore.objects());
    let engine = restore.engine(settings).map_err(|bad| StartError::Epoch { path: path.to_owned(), bad })?;
    tracing::info!(%entries, objects, took = ?clock::now().duration_since(begun), "log read");
    let snapshots = Some((log.snapshots(), found.bytes));
    Ok(Opened { engine, log: Box::new(log), snapshots })
}
