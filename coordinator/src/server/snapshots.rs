//! Snapshots beside the running engine: it hands out pieces in small steps between its other turns, and a thread writes
//! them.

use super::core::Core;
use super::{Shared, clock};
use crate::engine::{Piece, SessionId};
use crate::store::{Snapshot, SnapshotError, SnapshotSize, Snapshots};
use kiln_protocol::message::SnapshotInfo;
use kiln_protocol::{Failure, RequestId, ToNode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

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
/// How often whoever asked for one is told how far it is.
const TELL: Duration = Duration::from_millis(200);
/// So many may wait for one.
const ASKERS_MAX: usize = 64;

/// Who asked for a snapshot.
#[derive(Clone, Copy, Debug)]
struct Asker {
    session: SessionId,
    request: RequestId,
}

/// Where snapshots go.
#[derive(Debug)]
pub(super) struct Snapshotting {
    place: Snapshots,
    /// What the log had since its last snapshot when the coordinator started, in bytes.
    found_bytes: u64,
    /// Writes, or has written.
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Who waits for the next one.
    askers: Mutex<Vec<Asker>>,
    asked: Notify,
}

impl Drop for Snapshotting {
    fn drop(&mut self) {
        self.writes(None);
    }
}

impl Snapshotting {
    pub(super) fn new(place: Snapshots, found_bytes: u64) -> Self {
        Self { place, found_bytes, writer: Mutex::default(), askers: Mutex::default(), asked: Notify::new() }
    }

    fn askers(&self) -> MutexGuard<'_, Vec<Asker>> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, asker: Asker) -> Result<(), &'static str> {
        let mut askers = self.askers();
        if askers.len() == ASKERS_MAX {
            return Err("too many wait for one already");
        }
        askers.push(asker);
        self.asked.notify_one();
        Ok(())
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

/// Somebody asks for a snapshot of what is there now.
pub(super) fn ask(shared: &Shared, core: &mut Core, session: SessionId, request: RequestId) {
    let asked = match &shared.snapshots {
        None => Err("the coordinator keeps its state in memory"),
        Some(snapshotting) => snapshotting.ask(Asker { session, request }),
    };
    if let Err(reason) = asked {
        core.say(session, &failed(request, reason));
    }
}

fn failed(request: RequestId, reason: impl Into<String>) -> ToNode {
    ToNode::Failed { request, failure: Failure::NoSnapshot { reason: reason.into() } }
}

/// Takes snapshots when the log has become long or somebody asks, for as long as it is polled.
pub(super) async fn run(shared: Arc<Shared>) {
    let Some(snapshotting) = &shared.snapshots else { return };
    // What the log had when the last one was begun.
    let (mut since, mut found) = (0, snapshotting.found_bytes);
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            () = snapshotting.asked.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        // Whoever asks from here on is served by the next one.
        let askers = std::mem::take(&mut *snapshotting.askers());
        let (submitted, state) = shared.core().sizes();
        let is_long = found + (submitted - since) > state.max(LOG_BYTES_MIN);
        if askers.is_empty() && !(is_long && Instant::now() >= not_before) {
            continue;
        }
        let taken = take_and_tell(&shared, snapshotting, &askers).await;
        match &taken {
            Ok(snapshot) => {
                let SnapshotInfo { entry, objects, bytes, took_ms, removed } = *snapshot;
                tracing::info!(entry, objects, bytes, took_ms, removed, "snapshot taken");
                (since, found) = (submitted, 0);
            }
            Err(error) => {
                tracing::warn!(%error, "no snapshot taken");
                not_before = Instant::now() + AGAIN;
            }
        }
        tell(&shared, &askers, |request| match &taken {
            Ok(snapshot) => ToNode::SnapshotTaken { request, snapshot: *snapshot },
            Err(error) => failed(request, error.to_string()),
        });
    }
}

/// Takes a snapshot, and tells whoever asked for it or for the next one how far it is.
async fn take_and_tell(
    shared: &Shared,
    snapshotting: &Snapshotting,
    askers: &[Asker],
) -> Result<SnapshotInfo, SnapshotError> {
    let (taken, of) = (AtomicU64::new(0), shared.core().objects());
    let mut taking = std::pin::pin!(take(shared, snapshotting, &taken));
    let mut ticks = tokio::time::interval(TELL);
    loop {
        tokio::select! {
            snapshot = &mut taking => return snapshot,
            _ = ticks.tick() => {
                let waiting = snapshotting.askers().clone();
                // Relaxed: for people.
                let objects = taken.load(Ordering::Relaxed);
                tell(shared, askers, |request| ToNode::SnapshotGoesOn { request, objects, of });
                tell(shared, &waiting, |request| ToNode::SnapshotGoesOn { request, objects: 0, of });
            }
        }
    }
}

fn tell(shared: &Shared, askers: &[Asker], message: impl Fn(RequestId) -> ToNode) {
    if askers.is_empty() {
        return;
    }
    let mut core = shared.core();
    core.begin();
    for asker in askers {
        core.say(asker.session, &message(asker.request));
    }
    core.finish();
}

async fn take(
    shared: &Shared,
    snapshotting: &Snapshotting,
    objects: &AtomicU64,
) -> Result<SnapshotInfo, SnapshotError> {
    let begun = clock::now();
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
    let went_on = hand_out(shared, &steps, objects).await;
    if !went_on {
        shared.core().give_up_snapshot();
    } else if steps.send(Step::Last).await.is_err() {
        tracing::debug!("the writer of the snapshot has ended");
    }
    drop(steps);
    let SnapshotSize { bytes, removed } = is_done.await.unwrap_or(Err(SnapshotError::LogEnded))?;
    let took_ms = u64::try_from(clock::now().duration_since(begun).as_millis()).unwrap_or(u64::MAX);
    // Relaxed: this task alone writes it.
    let objects = objects.load(Ordering::Relaxed);
    Ok(SnapshotInfo { entry: seq.to_bits(), objects, bytes, took_ms, removed: removed as u64 })
}

enum Step {
    Pieces(Vec<Piece>),
    /// There are no more: without it the snapshot is not whole.
    Last,
}

/// Hands the pieces of the snapshot to its writer. `false` when it did not take them all.
async fn hand_out(shared: &Shared, steps: &mpsc::Sender<Step>, objects: &AtomicU64) -> bool {
    loop {
        let mut pieces = Vec::new();
        let (more, saved_bytes) = shared.core().snapshot(STEP_BYTES, &mut pieces);
        let more_objects = pieces.iter().filter(|piece| matches!(piece, Piece::Object { .. })).count();
        // Relaxed: for people.
        objects.fetch_add(more_objects as u64, Ordering::Relaxed);
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
