//! What the coordinator keeps: the real log and the real snapshots, on a disk that loses, tears and garbles what was not
//! synced when the coordinator dies.

use crate::coordinator::Kept;
use kiln_coordinator::engine::{BadEntry, Engine, Entry, LogSeq, LogTime, Piece, Restore};
use kiln_coordinator::store::{InlineLog, Log as _, LogId, LogOptions, Replay};
use kiln_tests::{Disk, Fate, Random};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

const ID: LogId = LogId::from_bytes(*b"the simulation's");
/// What the engine hands out for a snapshot in one go: little, so that much changes meanwhile.
const STEP_BYTES: usize = 512;
/// One in so many writes begins a snapshot.
const SNAPSHOT_EVERY: usize = 60;
/// Of a write, or a start, that the power ends: it goes at one of the first so many.
const CUT_STEPS: usize = 6;

fn options() -> LogOptions {
    LogOptions { first_segment_bytes: 8 << 10, segment_bytes_max: 32 << 10, ..LogOptions::default() }
}

/// See the module.
pub(crate) struct OnDisk {
    disk: Disk,
    log: InlineLog,
    /// Appended and not written yet.
    pending: VecDeque<Kept>,
    snapshot: Option<Snapshot>,
}

/// A snapshot under way.
struct Snapshot {
    seq: LogSeq,
    time: LogTime,
    pieces: Vec<Piece>,
    has_all: bool,
}

/// What a start brought back.
pub(crate) struct Recovered {
    pub(crate) kept: OnDisk,
    pub(crate) restore: Restore,
    /// The last entry that is part of it.
    pub(crate) last: LogSeq,
    pub(crate) had_snapshot: bool,
    pub(crate) was_torn: bool,
}

/// Takes in what is brought back, and compares it with what was appended.
struct Compared<'a> {
    restore: Restore,
    appended: &'a [Kept],
    pieces: u64,
}

impl Replay for Compared<'_> {
    fn piece(&mut self, piece: Piece) -> Result<(), BadEntry> {
        self.pieces += 1;
        self.restore.take(piece)
    }

    fn entry(&mut self, seq: LogSeq, time: LogTime, entry: Entry) -> Result<(), BadEntry> {
        let at = usize::try_from(seq.to_bits()).expect("as many as were appended") - 1;
        let appended =
            self.appended.get(at).unwrap_or_else(|| panic!("S16: entry {seq} was never appended: {entry:?}"));
        assert_eq!(
            (seq, time, &entry),
            (appended.0, appended.1, &appended.2),
            "S16: what was read is not what was written"
        );
        self.restore.replay(seq, time, &entry)
    }
}

impl OnDisk {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::open(Disk::new(), &[]).unwrap_or_else(|| unreachable!("there is power")).kept
    }

    /// `None` when the power goes.
    fn open(disk: Disk, appended: &[Kept]) -> Option<Recovered> {
        let mut compared = Compared { restore: Restore::new(), appended, pieces: 0 };
        match InlineLog::open(Arc::new(disk.clone()), ID, &options(), &mut compared) {
            Ok((log, found)) => Some(Recovered {
                kept: Self { disk, log, pending: VecDeque::new(), snapshot: None },
                restore: compared.restore,
                last: found.last,
                had_snapshot: compared.pieces > 0,
                was_torn: found.torn.is_some(),
            }),
            Err(error) => {
                assert!(disk.is_off(), "S16: nobody damaged this log: {error}");
                None
            }
        }
    }

    pub(crate) fn append(&mut self, entry: Kept) {
        self.pending.push_back(entry);
    }

    /// Writes and syncs everything up to this entry. Returns up to where all is safe then.
    pub(crate) fn write(&mut self, seq: LogSeq) -> LogSeq {
        while let Some((seq, time, entry)) = self.pending.pop_front_if(|(of, ..)| *of <= seq) {
            self.log.append(seq, time, entry);
        }
        self.log.submit();
        let mut safe = LogSeq::default();
        while let Poll::Ready(Ok(seq)) = self.log.poll_safe(&mut Context::from_waker(Waker::noop())) {
            safe = seq;
        }
        safe
    }

    /// Goes on with a snapshot, or begins one now and then.
    pub(crate) fn snapshot(&mut self, engine: &mut Engine, safe: LogSeq, random: &Random) {
        let Some(snapshot) = &mut self.snapshot else {
            if random.below(SNAPSHOT_EVERY) == 0 {
                let (seq, time) = (engine.begin_snapshot(), engine.time());
                self.snapshot = Some(Snapshot { seq, time, pieces: Vec::new(), has_all: false });
            }
            return;
        };
        if !snapshot.has_all {
            snapshot.has_all = !engine.snapshot(STEP_BYTES, &mut snapshot.pieces);
        } else if snapshot.seq <= safe {
            self.install();
        }
    }

    fn install(&mut self) {
        let Some(Snapshot { seq, time, pieces, .. }) = self.snapshot.take() else { return };
        let install = || {
            let mut snapshot = self.log.snapshots().begin(seq, time)?;
            pieces.iter().try_for_each(|piece| snapshot.push(piece))?;
            snapshot.finish()
        };
        let installed = install();
        assert!(installed.is_ok() || self.disk.is_off(), "a snapshot fails: {installed:?}");
    }

    /// The coordinator has died, perhaps in the middle of a write: the next one starts, perhaps not at once. What was
    /// `safe` must be there.
    pub(crate) fn crash(mut self, appended: &[Kept], safe: LogSeq, random: &Random) -> Recovered {
        self.disk.power_goes_at(self.disk.steps() + random.below(CUT_STEPS) as u64);
        let writing = random.below(self.pending.len() + 1);
        if let Some((seq, ..)) = writing.checked_sub(1).and_then(|at| self.pending.get(at)) {
            self.write(*seq);
        }
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.has_all && snapshot.seq <= safe) {
            self.install();
        }
        let mut disk = self.disk.after(fate(random));
        if random.below(4) == 0 {
            disk.power_goes_at(disk.steps() + random.below(CUT_STEPS) as u64);
            drop(Self::open(disk.clone(), appended));
            disk = disk.after(fate(random));
        }
        let recovered = Self::open(disk, appended).unwrap_or_else(|| unreachable!("there is power"));
        assert!(recovered.last >= safe, "S7: {safe} was safe, and only {} is there", recovered.last);
        recovered
    }
}

fn fate(random: &Random) -> Fate {
    match random.below(4) {
        0 => Fate::Lost,
        1 => Fate::Kept,
        2 => Fate::Torn { seed: random.next() },
        _ => Fate::Garbled { seed: random.next() },
    }
}

/// All that an engine would write down, objects in the order of their numbers.
pub(crate) fn everything(engine: &mut Engine) -> Vec<Piece> {
    let mut pieces = Vec::new();
    engine.begin_snapshot();
    while engine.snapshot(usize::MAX, &mut pieces) {}
    pieces.sort_by_key(|piece| match piece {
        Piece::Object { object, .. } => Some(*object),
        _ => None,
    });
    pieces
}
