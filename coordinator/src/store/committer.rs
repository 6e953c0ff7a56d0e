//! The threads of a log: one writes and syncs what has queued, one makes segments ahead.
//!
//! The committer takes all that queued while the sync before was running, writes it, syncs it, says so, and begins anew:
//! it never waits for more to come. Nothing here is on the coordinator's thread but putting into the queue.

use super::durable::LogOptions;
use super::format::LogId;
use super::medium::{Medium, is_full};
use super::segment::Segment;
use super::writer::{Batch, WriteError, Writer};
use crate::engine::LogSeq;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

/// When nothing has come for so long, it is written down that all is synced.
const MARK_DELAY: Duration = Duration::from_millis(50);
/// How often it is looked whether a full medium has room again.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// When no segment can be made, this much of the last one is kept for what cannot be refused.
const RESERVE_BYTES_MAX: u64 = 1 << 20;
const RESERVE_SHARE: u64 = 4;

/// When what was written is synced, and so what can be lost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SyncPolicy {
    /// Before anybody is told that it is safe: nothing is lost.
    #[default]
    Always,
    /// This often. A power cut or a crash of the system loses at most what was written since the last time; a crash of the
    /// coordinator alone loses nothing.
    Interval(Duration),
    /// When the system likes. A power cut or a crash of the system loses what it has not written by then; a crash of the
    /// coordinator alone loses nothing.
    Never,
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) medium: Arc<dyn Medium>,
    pub(super) id: LogId,
    sync: SyncPolicy,
    segment_bytes_max: u64,
    waiting_bytes_max: u64,
    state: Mutex<State>,
    /// For the committer.
    work: Condvar,
    /// For the thread that makes segments.
    files: Condvar,
    /// For whoever waits until something was synced.
    synced: Condvar,
}

#[derive(Debug)]
struct Want {
    ordinal: u64,
    bytes: u64,
    bytes_min: u64,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Batch>,
    /// Of all that was submitted and is not safe.
    waiting_bytes: u64,
    /// That was too much, and half of it still is not safe.
    is_behind: bool,
    /// Up to here it has to be synced, whatever the policy.
    sync_wanted: LogSeq,
    /// How many wait until something was synced.
    waiters: u32,
    stopping: bool,
    /// The committer has nothing to do.
    waiting: bool,
    /// The segment that is to be made: always the one after the committer's.
    want: Option<Want>,
    /// It is being made.
    making: bool,
    /// It was made.
    made: Option<Segment>,
    /// The last entry that counts as safe.
    safe: LogSeq,
    /// The last entry that was synced.
    synced: LogSeq,
    /// The medium had no room for a segment.
    no_segment: bool,
    /// The medium had no room for a write.
    no_write: bool,
    /// What is left of the segment that is being written.
    room: u64,
    /// What must be left of it when no other can be made.
    reserve: u64,
    failed: Option<io::Error>,
    ended: bool,
    waker: Waker,
}

impl State {
    const fn has_room(&self) -> bool {
        !(self.is_behind || self.no_write || self.no_segment && self.room < self.reserve)
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of a thread that waits")]
fn now() -> Instant {
    Instant::now()
}

impl Shared {
    pub(super) fn new(medium: Arc<dyn Medium>, id: LogId, options: &LogOptions, writer: &Writer) -> Self {
        let LogOptions { sync, segment_bytes_max, waiting_bytes_max, .. } = *options;
        let last = writer.written();
        let mut state = State {
            queue: VecDeque::new(),
            waiting_bytes: 0,
            is_behind: false,
            sync_wanted: last,
            waiters: 0,
            stopping: false,
            waiting: false,
            want: None,
            making: false,
            made: None,
            safe: last,
            synced: last,
            no_segment: false,
            no_write: false,
            room: 0,
            reserve: 0,
            failed: None,
            ended: false,
            waker: Waker::noop().clone(),
        };
        state.look(writer, segment_bytes_max);
        let [work, files, synced] = [const { Condvar::new() }; 3];
        let state = Mutex::new(state);
        Self { medium, id, sync, segment_bytes_max, waiting_bytes_max, state, work, files, synced }
    }

    /// Each change of the state is whole before anything can panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues batches to be written.
    pub(super) fn submit(&self, batches: &mut Vec<Batch>) {
        let mut state = self.lock();
        state.waiting_bytes += batches.iter().map(Batch::waiting_bytes).sum::<u64>();
        state.is_behind |= state.waiting_bytes > self.waiting_bytes_max;
        state.queue.extend(batches.drain(..));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        if waiting {
            self.work.notify_one();
        }
    }

    /// What is safe; an error once the log has failed. Wakes the task when that changes, or when there is room or none.
    pub(super) fn safe(&self, waker: &Waker) -> Result<LogSeq, io::Error> {
        let mut state = self.lock();
        if !state.waker.will_wake(waker) {
            state.waker.clone_from(waker);
        }
        match &state.failed {
            None => Ok(state.safe),
            Some(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// For people.
    pub(super) const fn kind(&self) -> &'static str {
        match self.sync {
            SyncPolicy::Always => "disk, synced always",
            SyncPolicy::Interval(_) => "disk, synced at intervals",
            SyncPolicy::Never => "disk, never synced",
        }
    }

    /// Whether more can be written before somebody makes room.
    pub(super) fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.work.notify_all();
        self.files.notify_all();
    }

    /// Room may have been made: another try at once.
    pub(super) fn room_was_made(&self) {
        self.work.notify_all();
        self.files.notify_all();
    }

    /// Waits until everything up to this entry was synced. `false` when it never will be.
    pub(super) fn wait_synced(&self, seq: LogSeq) -> bool {
        let mut state = self.lock();
        state.sync_wanted = state.sync_wanted.max(seq);
        self.work.notify_one();
        state.waiters += 1;
        while state.synced < seq && !state.ended {
            state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiters -= 1;
        state.synced >= seq
    }

    /// Changes the state, and wakes the coordinator when that is something to it.
    fn publish(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = (state.safe, state.has_room(), state.failed.is_some());
        change(&mut state);
        let waker = ((state.safe, state.has_room(), state.failed.is_some()) != before).then(|| state.waker.clone());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn fail(&self, error: io::Error) {
        self.publish(|state| {
            state.failed.get_or_insert(error);
        });
    }

    /// Writes until told to stop.
    pub(super) fn commit(&self, writer: Writer) {
        let mut committer = Committer { shared: self, writer, batches: VecDeque::new(), last_sync: now() };
        if let Err(error) = committer.run() {
            self.fail(error);
        }
        self.lock().ended = true;
        self.synced.notify_all();
        self.files.notify_all();
    }

    /// Makes segments until the committer has ended.
    pub(super) fn make_segments(&self) {
        let mut state = self.lock();
        while !state.ended {
            let Some(want) = state.want.take() else {
                state = self.files.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.making = true;
            drop(state);
            match self.make(&want) {
                Ok(segment) => self.publish(|state| {
                    (state.made, state.making, state.no_segment) = (Some(segment), false, false);
                }),
                Err(error) if is_full(&error) => {
                    self.publish(|state| {
                        (state.want, state.making, state.no_segment) = (Some(want), false, true);
                    });
                    let waited = self.files.wait_timeout(self.lock(), FULL_RETRY);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
                Err(error) => self.fail(error),
            }
            self.work.notify_one();
            state = self.lock();
        }
    }

    /// A shorter one is better than none.
    fn make(&self, want: &Want) -> io::Result<Segment> {
        let mut bytes = want.bytes.max(want.bytes_min);
        loop {
            match Segment::create(&*self.medium, self.id, want.ordinal, bytes) {
                Err(error) if is_full(&error) && bytes / 2 >= want.bytes_min.max(RESERVE_BYTES_MAX) => bytes /= 2,
                made => return made,
            }
        }
    }
}

impl State {
    /// Takes over what the writer is at: segments are made while the one before is being written.
    fn look(&mut self, writer: &Writer, segment_bytes_max: u64) {
        self.room = writer.room();
        self.reserve = (writer.segment_bytes() / RESERVE_SHARE).min(RESERVE_BYTES_MAX);
        if !writer.has_next() {
            self.want(writer, segment_bytes_max, 0);
        }
    }

    /// Has the next segment made, unless it is being made.
    fn want(&mut self, writer: &Writer, segment_bytes_max: u64, bytes_min: u64) {
        if self.making || self.made.is_some() {
            return;
        }
        let bytes = (writer.segment_bytes() * 2).min(segment_bytes_max);
        let want = self.want.get_or_insert_with(|| Want { ordinal: writer.ordinal() + 1, bytes, bytes_min });
        want.bytes_min = want.bytes_min.max(bytes_min);
    }
}

struct Committer<'a> {
    shared: &'a Shared,
    writer: Writer,
    batches: VecDeque<Batch>,
    last_sync: Instant,
}

/// Why the committer goes on.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Turn {
    Work,
    Idle,
    Stop,
}

impl Committer<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            match self.next() {
                // What could not be written is never followed by anything.
                Turn::Work if !self.work()? => return Ok(()),
                Turn::Work => {}
                Turn::Idle => self.idle()?,
                Turn::Stop => {
                    self.writer.sync()?;
                    self.publish();
                    return self.mark();
                }
            }
        }
    }

    /// Waits until there is something to do.
    fn next(&mut self) -> Turn {
        let mut state = self.shared.lock();
        loop {
            if let Some(segment) = state.made.take() {
                self.writer.provide(segment);
                state.look(&self.writer, self.shared.segment_bytes_max);
            }
            self.batches.append(&mut state.queue);
            if !self.batches.is_empty() || state.sync_wanted > state.synced && self.writer.wants_sync() {
                return Turn::Work;
            }
            if state.stopping || state.failed.is_some() {
                return Turn::Stop;
            }
            state.waiting = true;
            let Some(timeout) = self.patience() else {
                state = self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.shared.work.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            if waited.1.timed_out() && state.queue.is_empty() && !state.stopping {
                return Turn::Idle;
            }
        }
    }

    /// How long to wait before something is done although nothing came.
    fn patience(&self) -> Option<Duration> {
        match self.shared.sync {
            SyncPolicy::Interval(interval) if self.writer.wants_sync() => {
                Some(interval.saturating_sub(now().duration_since(self.last_sync)))
            }
            SyncPolicy::Always | SyncPolicy::Interval(_) if self.writer.wants_mark() => Some(MARK_DELAY),
            SyncPolicy::Always | SyncPolicy::Interval(_) | SyncPolicy::Never => None,
        }
    }

    fn idle(&mut self) -> io::Result<()> {
        if self.writer.wants_sync() {
            self.sync()?;
            self.publish();
            return Ok(());
        }
        self.mark()
    }

    fn mark(&mut self) -> io::Result<()> {
        if !self.writer.wants_mark() {
            return Ok(());
        }
        match self.writer.mark() {
            // Only a help: what comes later says the same.
            Ok(()) | Err(WriteError::Full | WriteError::Segment { .. }) => Ok(()),
            Err(WriteError::Failed(error)) => Err(error),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.writer.sync()?;
        if matches!(self.shared.sync, SyncPolicy::Interval(_)) {
            self.last_sync = now();
        }
        Ok(())
    }

    /// Whether what was written is to be synced before it counts as safe.
    fn is_sync_due(&self) -> bool {
        let wanted = match self.shared.sync {
            SyncPolicy::Always => true,
            SyncPolicy::Interval(interval) => now().duration_since(self.last_sync) >= interval,
            SyncPolicy::Never => false,
        };
        wanted || {
            let state = self.shared.lock();
            state.sync_wanted > state.synced
        }
    }

    /// Writes what there is. `false` when the log ends before it could.
    fn work(&mut self) -> io::Result<bool> {
        loop {
            let before = self.waiting_bytes();
            let written = self.writer.write(&mut self.batches);
            if self.is_sync_due() {
                self.sync()?;
            }
            self.less_waits(before - self.waiting_bytes());
            self.publish();
            if !matches!(written, Err(WriteError::Full)) {
                self.shared.publish(|state| state.no_write = false);
            }
            match written {
                Ok(()) => return Ok(true),
                Err(WriteError::Failed(error)) => return Err(error),
                Err(WriteError::Segment { bytes_min }) if !self.wait_for_segment(bytes_min) => return Ok(false),
                Err(WriteError::Full) if !self.wait_for_room() => return Ok(false),
                Err(WriteError::Segment { .. } | WriteError::Full) => {}
            }
        }
    }

    /// Of what is still to be written.
    fn waiting_bytes(&self) -> u64 {
        self.batches.iter().map(Batch::waiting_bytes).sum()
    }

    /// So much counts as safe from here on.
    fn less_waits(&self, bytes: u64) {
        self.shared.publish(|state| {
            state.waiting_bytes -= bytes;
            state.is_behind &= state.waiting_bytes > self.shared.waiting_bytes_max / 2;
        });
    }

    /// Says how far it is.
    fn publish(&self) {
        let written = self.writer.written();
        self.shared.publish(|state| {
            state.synced = self.writer.synced_entry();
            state.safe = if matches!(self.shared.sync, SyncPolicy::Always) { state.synced } else { written };
            state.look(&self.writer, self.shared.segment_bytes_max);
        });
        let state = self.shared.lock();
        let (is_wanted, is_awaited) = (state.want.is_some() && !state.no_segment, state.waiters > 0);
        drop(state);
        if is_wanted {
            self.shared.files.notify_one();
        }
        if is_awaited {
            self.shared.synced.notify_all();
        }
    }

    /// Waits until the next segment is there. `false` when the log is to stop instead.
    fn wait_for_segment(&mut self, bytes_min: u64) -> bool {
        let mut state = self.shared.lock();
        loop {
            if let Some(segment) = state.made.take() {
                self.writer.provide(segment);
                return true;
            }
            if state.failed.is_some() || state.stopping && state.no_segment {
                return false;
            }
            // In place of one that is too short, if there is one.
            state.want(&self.writer, self.shared.segment_bytes_max, bytes_min);
            self.shared.files.notify_one();
            state = self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits a while for the medium to have room again. `false` when the log is to stop instead.
    fn wait_for_room(&self) -> bool {
        self.shared.publish(|state| state.no_write = true);
        let state = self.shared.lock();
        if state.stopping {
            return false;
        }
        let waited = self.shared.work.wait_timeout(state, FULL_RETRY).unwrap_or_else(PoisonError::into_inner);
        drop(waited);
        true
    }
}
