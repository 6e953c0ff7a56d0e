//! Logs and snapshots that are long enough to be read on a thread of their own: what is found is the same.

use crate::history::{Brought, ID, Writer, entry, options, pieces, time};
use bytes::Bytes;
use kiln_coordinator::engine::{LogSeq, Piece};
use kiln_coordinator::store::{InlineLog, LogOptions, OpenError};
use kiln_protocol::{ObjectId, RootId};
use kiln_tests::Disk;
use std::sync::Arc;

/// Longer than what is read without a thread.
const SEGMENT_BYTES: u64 = 5 << 20;
const BATCHES: u64 = 300;
const OBJECTS: u64 = 60;

fn open(disk: &Disk) -> Result<(InlineLog, Brought), OpenError> {
    let long = LogOptions { first_segment_bytes: SEGMENT_BYTES, segment_bytes_max: SEGMENT_BYTES, ..options() };
    let mut brought = Brought::default();
    InlineLog::open(Arc::new(disk.clone()), ID, &long, &mut brought).map(|(log, _)| (log, brought))
}

fn written() -> (Disk, Writer) {
    let disk = Disk::new();
    let mut writer = Writer::new(open(&disk).unwrap().0, 0);
    for _ in 0..BATCHES {
        assert!(writer.batch(7));
    }
    (disk, writer)
}

/// A snapshot with this many objects of a hundred thousand bytes.
fn long_pieces(seq: u64) -> Vec<Piece> {
    let object = |number| Piece::Object {
        object: ObjectId::from_bits(number),
        root: RootId::from_bits(1),
        key: Bytes::from(number.to_string()),
        versions: Vec::new(),
        times: None,
        writes: Bytes::from(vec![7; 100_000]),
    };
    pieces(seq).into_iter().take(1).chain((1..=OBJECTS).map(object)).collect()
}

#[test]
fn all_of_a_long_log_is_brought_back() {
    let (disk, writer) = written();
    let (_, brought) = open(&disk.copy()).unwrap();
    assert_eq!((brought.check(), writer.safe), (7 * BATCHES, 7 * BATCHES));
}

#[test]
fn damage_to_a_long_log_is_found_where_it_is() {
    let (disk, writer) = written();
    drop(writer);
    let name = "000000000001.log";
    let whole = disk.bytes(name);
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for at in (64..used - 8000).step_by(used / 6) {
        let damaged = disk.copy();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        damaged.put(name, bytes.clone());
        match open(&damaged) {
            Err(OpenError::Damaged { file, at: found, .. }) => {
                assert!(file == name && found <= at as u64 && at as u64 - found < 4000, "{found} of {at}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
        assert_eq!(damaged.bytes(name), bytes, "nothing was changed");
    }
}

#[test]
fn a_long_snapshot_is_brought_back_and_damage_to_it_is_found() {
    let (disk, mut writer) = written();
    let seq = writer.safe;
    let mut snapshot = writer.log.snapshots().begin(LogSeq::from_bits(seq), time(seq)).unwrap();
    long_pieces(seq).iter().for_each(|piece| snapshot.push(piece).unwrap());
    snapshot.finish().unwrap();
    assert!(writer.batch(3));
    let (_, brought) = open(&disk.copy()).unwrap();
    assert_eq!(brought.pieces, long_pieces(seq));
    let behind: Vec<_> = (seq + 1..=seq + 3).map(|seq| (LogSeq::from_bits(seq), time(seq), entry(seq))).collect();
    assert_eq!(brought.entries, behind);
    let name = disk.files().into_iter().find(|name| name.ends_with(".snapshot")).unwrap();
    let whole = disk.bytes(&name);
    for at in (0..whole.len()).step_by(whole.len() / 20) {
        let damaged = disk.copy();
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        damaged.put(&name, bytes);
        let error = open(&damaged).unwrap_err();
        assert!(error.to_string().contains(&name), "byte {at}: {error}");
    }
}
