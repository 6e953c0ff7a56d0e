//! A log that is written, and what has to be in it.

use bytes::Bytes;
use kiln_coordinator::engine::{BadEntry, Cut, Entry, LogSeq, LogTime, Piece};
use kiln_coordinator::store::{Found, InlineLog, Log, LogId, LogOptions, OpenError, Replay, SyncPolicy};
use kiln_protocol::{Epoch, Incarnation, ObjectId, RootId};
use kiln_tests::{Disk, Random};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) const ID: LogId = LogId::from_bytes(*b"a log of a test.");

/// Small, so that there are several segments soon.
pub(crate) fn options() -> LogOptions {
    LogOptions {
        sync: SyncPolicy::Always,
        first_segment_bytes: 2 << 10,
        segment_bytes_max: 8 << 10,
        ..LogOptions::default()
    }
}

/// The entry with this number: each one is different, some are long.
pub(crate) fn entry(seq: u64) -> Entry {
    let length = match seq % 17 {
        0 => 3000,
        _ => seq * 7 % 90,
    };
    let filled: Vec<u8> = (0..length).map(|at| low(seq * 31 + at * 7)).collect();
    match seq % 3 {
        0 => Entry::Removed { by: Some(Incarnation::from_bits(seq)), object: ObjectId::from_bits(seq) },
        1 => {
            // A key is never as long as an object may be.
            let key = Bytes::from(filled.into_iter().take(1000).collect::<Vec<_>>());
            Entry::Renamed { by: None, object: ObjectId::from_bits(seq), key }
        }
        _ => Entry::Created {
            by: None,
            object: ObjectId::from_bits(seq),
            root: RootId::from_bits(1),
            key: Bytes::from(seq.to_string()),
            writes: Bytes::from(filled),
        },
    }
}

fn low(number: u64) -> u8 {
    number.to_le_bytes()[0]
}

pub(crate) fn time(seq: u64) -> LogTime {
    LogTime::from_bits(1_000_000 + seq * 3)
}

/// The pieces of a snapshot after this entry.
pub(crate) fn pieces(seq: u64) -> Vec<Piece> {
    let start = Piece::Start(Cut {
        seq: LogSeq::from_bits(seq),
        time: time(seq),
        epoch: Epoch::from_bits(1),
        history: Epoch::from_bits(1),
        last_incarnation: Incarnation::from_bits(seq),
        last_object: seq,
    });
    let objects = (1..=seq.min(20)).map(|number| Piece::Object {
        object: ObjectId::from_bits(seq * 1000 + number),
        root: RootId::from_bits(1),
        key: Bytes::from(number.to_string()),
        versions: Vec::new(),
        times: None,
        writes: Bytes::from(vec![low(seq); 40]),
    });
    std::iter::once(start).chain(objects).collect()
}

/// What a log brought back.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) entries: Vec<(LogSeq, LogTime, Entry)>,
}

impl Replay for Brought {
    fn piece(&mut self, piece: Piece) -> Result<(), BadEntry> {
        self.pieces.push(piece);
        Ok(())
    }

    fn entry(&mut self, seq: LogSeq, time: LogTime, entry: Entry) -> Result<(), BadEntry> {
        self.entries.push((seq, time, entry));
        Ok(())
    }
}

impl Brought {
    /// Checks that this is the history up to some entry, and says up to which one.
    pub(crate) fn check(&self) -> u64 {
        let start = match self.pieces.first() {
            None => 0,
            Some(Piece::Start(cut)) => cut.seq.to_bits(),
            Some(other) => panic!("a snapshot begins with {other:?}"),
        };
        if start > 0 {
            assert_eq!(self.pieces, pieces(start), "the snapshot after {start} is not what it was");
        }
        for ((seq, at, entry), expected) in self.entries.iter().zip(start + 1..) {
            assert_eq!(seq.to_bits(), expected, "entries without a gap");
            assert_eq!(*at, time(expected), "the time of entry {expected}");
            assert_eq!(*entry, self::entry(expected), "entry {expected}");
        }
        start + self.entries.len() as u64
    }
}

/// Opens the log of a disk, and checks what it brings back.
pub(crate) fn open(disk: &Disk) -> Result<(InlineLog, Found, u64), OpenError> {
    let mut brought = Brought::default();
    let (log, found) = InlineLog::open(Arc::new(disk.clone()), ID, &options(), &mut brought)?;
    let last = brought.check();
    assert_eq!(found.last.to_bits(), last);
    Ok((log, found, last))
}

/// Writes a history, and keeps count of what it was told.
pub(crate) struct Writer {
    pub(crate) log: InlineLog,
    pub(crate) appended: u64,
    pub(crate) safe: u64,
}

impl Writer {
    pub(crate) fn new(log: InlineLog, last: u64) -> Self {
        Self { log, appended: last, safe: last }
    }

    /// Appends so many entries, as one batch. `false` when the log has failed.
    pub(crate) fn batch(&mut self, entries: u64) -> bool {
        for _ in 0..entries {
            self.appended += 1;
            self.log.append(LogSeq::from_bits(self.appended), time(self.appended), entry(self.appended));
        }
        self.log.submit();
        self.poll()
    }

    pub(crate) fn poll(&mut self) -> bool {
        match self.log.poll_safe(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(seq)) => {
                assert!(seq.to_bits() <= self.appended, "nothing is safe that was not appended");
                self.safe = seq.to_bits();
                true
            }
            Poll::Ready(Err(_)) => false,
            Poll::Pending => true,
        }
    }

    /// Takes a snapshot of what is safe.
    pub(crate) fn snapshot(&self) -> bool {
        let seq = self.safe;
        let Ok(mut snapshot) = self.log.snapshots().begin(LogSeq::from_bits(seq), time(seq)) else { return false };
        for piece in pieces(seq) {
            if snapshot.push(&piece).is_err() {
                return false;
            }
        }
        snapshot.finish().is_ok()
    }
}

/// A life of a coordinator: batches, marks and snapshots in some order. Returns the last entry that it was told is safe.
pub(crate) fn live(disk: &Disk, batches: usize, seed: u64) -> u64 {
    let random = Random::new(seed);
    let (log, last) = match open(disk) {
        Ok((log, _, last)) => (log, last),
        Err(error) => {
            assert!(disk.is_off(), "a log that nobody damaged opens: {error}");
            return 0;
        }
    };
    let mut writer = Writer::new(log, last);
    for _ in 0..batches {
        let went_on = match random.below(12) {
            0 => writer.snapshot(),
            1 | 2 => writer.log.mark().is_ok(),
            _ => writer.batch(1 + random.below(4) as u64),
        };
        if !went_on {
            assert!(disk.is_off(), "nothing fails while there is power");
            break;
        }
    }
    writer.safe
}
