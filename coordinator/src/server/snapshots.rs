//! Snapshots beside the running engine: it hands out pieces in small steps between its other turns, and a thread writes
//! them.

use super::Shared;
use crate::engine::Piece;
use crate::store::{Snapshot, SnapshotError, SnapshotSize, Snapshots};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What the engine hands out in one turn: it takes well under a millisecond.
const STEP_BYTES: usize = 128 << 10;
/// Steps that wait to be written.
const STEPS_AHEAD: usize = 8;
/// Copies of what changed before it was written. Above it the medium is too slow.
const SAVED_BYTES_MAX: usize = 1 << 30;
/// With less behind it a restart is quick anyway.
const LOG_BYTES_MIN: u64 = 64 << 20;
/// How often it is looked whether a snapshot is due.
const LOOK: Duration = Duration::from_secs(1);
/// How long after one that failed the next one is tried.
const AGAIN: Duration = Duration::from_secs(60);

/// Where snapshots go.
#[derive(Debug)]
pub(super) struct Snapshotting {
    place: Snapshots,
    /// What the log had since its last snapshot when the coordinator started, in bytes.
    found_bytes: u64,
    /// Writes, or has written.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Snapshotting {
    fn drop(&mut self) {
        self.writes(None);
    }
}

impl Snapshotting {
    pub(super) fn new(place: Snapshots, found_bytes: u64) -> Self {
        Self { place, found_bytes, writer: Mutex::default() }
    }

    /// Another thread writes now. Waits for the one before: no two are in the directory, and none is once this is gone.
    fn writes(&self, writer: Option<JoinHandle<()>>) {
        let before = std::mem::replace(&mut *self.writer.lock().unwrap_or_else(PoisonError::into_inner), writer);
        if let Some(before) = before {
            // A panic of it has been reported already.
            drop(before.join());
        }
    }
}

/// Takes snapshots when the log has become long, for as long as it is polled.
pub(super) async fn run(shared: Arc<Shared>) {
    let Some(snapshotting) = &shared.snapshots else { return };
    // What the log had when the last one was begun.
    let (mut since, mut found) = (0, snapshotting.found_bytes);
    loop {
        tokio::time::sleep(LOOK).await;
        let (submitted, state) = shared.core().sizes();
        if found + (submitted - since) <= state.max(LOG_BYTES_MIN) {
            continue;
        }
        match take(&shared, snapshotting).await {
            Ok(size) => {
                tracing::info!(bytes = size.bytes, removed = size.removed, "snapshot taken");
                (since, found) = (submitted, 0);
            }
            Err(error) => {
                tracing::warn!(%error, "no snapshot taken");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn take(shared: &Shared, snapshotting: &Snapshotting) -> Result<SnapshotSize, SnapshotError> {
    let (seq, time) = shared.core().begin_snapshot();
    let snapshot = snapshotting.place.begin(seq, time).inspect_err(|_| shared.core().give_up_snapshot())?;
    let (steps, to_write) = mpsc::channel(STEPS_AHEAD);
    let (done, is_done) = oneshot::channel();
    let spawned = std::thread::Builder::new().name("kiln-snapshot".into()).spawn(move || {
        // Nobody waits for it when the coordinator ends.
        drop(done.send(write(snapshot, to_write)));
    });
    match spawned {
        Ok(writer) => snapshotting.writes(Some(writer)),
        Err(error) => {
            shared.core().give_up_snapshot();
            return Err(SnapshotError::Write { error });
        }
    }
    let went_on = hand_out(shared, &steps).await;
    if !went_on {
        shared.core().give_up_snapshot();
    } else if steps.send(Step::Last).await.is_err() {
        tracing::debug!("the writer of the snapshot has ended");
    }
    drop(steps);
    is_done.await.unwrap_or(Err(SnapshotError::LogEnded))
}

enum Step {
    Pieces(Vec<Piece>),
    /// There are no more: without it the snapshot is not whole.
    Last,
}

/// Hands the pieces of the snapshot to its writer. `false` when it did not take them all.
async fn hand_out(shared: &Shared, steps: &mpsc::Sender<Step>) -> bool {
    loop {
        let mut pieces = Vec::new();
        let (more, saved_bytes) = shared.core().snapshot(STEP_BYTES, &mut pieces);
        if saved_bytes > SAVED_BYTES_MAX || steps.send(Step::Pieces(pieces)).await.is_err() {
            return false;
        }
        if !more {
            return true;
        }
        tokio::task::yield_now().await;
    }
}

fn write(mut snapshot: Snapshot, mut steps: mpsc::Receiver<Step>) -> Result<SnapshotSize, SnapshotError> {
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Pieces(pieces) => pieces.iter().try_for_each(|piece| snapshot.push(piece))?,
            Step::Last => return snapshot.finish(),
        }
    }
    Err(SnapshotError::GivenUp)
}
