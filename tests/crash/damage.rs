//! Torn writes at every byte, and a flip of every byte.

use crate::history::{Writer, open};
use kiln_coordinator::store::{OpenError, Problem, verify};
use kiln_tests::Disk;

/// What a process that is killed leaves: nothing is marked, everything is on the disk.
fn killed(batches: &[u64], mark: bool) -> (Disk, u64) {
    let disk = Disk::new();
    let (log, _, last) = open(&disk).unwrap();
    let mut writer = Writer::new(log, last);
    for entries in batches {
        assert!(writer.batch(*entries));
    }
    if mark {
        writer.log.mark().unwrap();
    }
    (disk.copy(), writer.safe)
}

fn segment(number: u64) -> String {
    format!("{number:012}.log")
}

/// Where the bytes of a file that are not zero end.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn a_last_record_that_is_torn_at_any_byte_is_cut_off() {
    let (before, safe) = killed(&[3, 1, 2], false);
    let (after, _) = killed(&[3, 1, 2, 2], false);
    let (before, after) = (before.bytes(&segment(1)), after.bytes(&segment(1)));
    let (start, end) = (used(&before).next_multiple_of(8), used(&after));
    assert!(end - start > 60, "the last record is from {start} to {end}");
    let mut torn = 0;
    for cut in start..end {
        // Its first bytes only, its last bytes only, and all but one part of it.
        let first = [&after[..cut], &before[cut..]].concat();
        let last = [&before[..cut], &after[cut..]].concat();
        let mut holed = after.clone();
        holed[cut..(cut + 8).min(end)].fill(0);
        for bytes in [first, last, holed] {
            if bytes == after {
                continue;
            }
            let disk = Disk::new();
            disk.put(&segment(1), bytes.clone());
            let (log, found, last) = open(&disk).unwrap();
            assert_eq!(last, safe, "cut at {cut}");
            assert_eq!(found.torn.is_some(), bytes[start..end].iter().any(|byte| *byte != 0), "cut at {cut}");
            let mut writer = Writer::new(log, last);
            assert!(writer.batch(5));
            drop(writer);
            let (_, found, last) = open(&disk.copy()).unwrap();
            assert_eq!((last, found.torn), (safe + 5, None), "cut at {cut}");
            torn += 1;
        }
    }
    assert!(torn > 200, "{torn}");
}

/// Flips each byte of a file in several ways, and counts those that a start refuses. Nothing else than the history is
/// ever read.
fn flip(disk: &Disk, name: &str, last: u64, mut harmless: impl FnMut(usize) -> bool) -> usize {
    let bytes = disk.bytes(name);
    let mut refused = 0;
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut flipped = bytes.clone();
            flipped[at] ^= mask;
            let damaged = disk.copy();
            damaged.put(name, flipped);
            let untouched = damaged.files();
            match open(&damaged) {
                Ok((_, _, all)) => {
                    assert!(harmless(at), "{name}: a flip of byte {at} was not noticed");
                    assert_eq!(all, last, "{name}: a flip of byte {at} cost something");
                }
                Err(error) => {
                    assert!(!matches!(error, OpenError::Io { .. }), "{error}");
                    let says = error.to_string();
                    assert!(says.contains(name) || says.contains("another log"), "byte {at}: {says}");
                    assert!(says.contains("kiln "), "byte {at}: {says}");
                    assert_eq!(damaged.files(), untouched, "nothing is removed");
                    refused += 1;
                }
            }
        }
    }
    refused
}

#[test]
fn a_flip_of_any_byte_of_a_log_is_noticed() {
    let (disk, last) = killed(&[3, 1, 2, 2, 1], true);
    // The mark is behind the last record, and nothing but it says that the records before it are whole.
    let (without, _) = killed(&[3, 1, 2, 2, 1], false);
    let mark = used(&without.bytes(&segment(1))).next_multiple_of(8);
    let refused = flip(&disk, &segment(1), last, |at| at >= mark);
    assert_eq!(refused, 3 * mark, "every byte before the mark");
}

#[test]
fn a_flip_of_any_byte_of_an_earlier_segment_is_noticed() {
    let (disk, last) = killed(&[4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4], false);
    assert!(disk.files().contains(&segment(3)), "{:?}", disk.files());
    let end = used(&disk.bytes(&segment(1))).next_multiple_of(8);
    let refused = flip(&disk, &segment(1), last, |at| at >= end);
    assert!(refused >= 3 * end, "{refused} of {}", 3 * end);
}

#[test]
fn a_flip_of_any_byte_of_a_snapshot_is_noticed() {
    let disk = Disk::new();
    let (log, _, last) = open(&disk).unwrap();
    let mut writer = Writer::new(log, last);
    assert!(writer.batch(9));
    assert!(writer.snapshot());
    assert!(writer.batch(2));
    let name = disk.files().into_iter().find(|name| name.ends_with(".snapshot")).unwrap();
    let refused = flip(&disk.copy(), &name, writer.safe, |_| false);
    assert_eq!(refused, 3 * disk.bytes(&name).len());
}

#[test]
fn a_snapshot_that_is_cut_anywhere_is_noticed() {
    let disk = Disk::new();
    let (log, _, last) = open(&disk).unwrap();
    let mut writer = Writer::new(log, last);
    assert!(writer.batch(9));
    assert!(writer.snapshot());
    let name = disk.files().into_iter().find(|name| name.ends_with(".snapshot")).unwrap();
    let bytes = disk.bytes(&name);
    for length in 0..bytes.len() {
        let damaged = disk.copy();
        damaged.put(&name, bytes[..length].to_vec());
        let error = open(&damaged).unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
    }
    let damaged = disk.copy();
    damaged.put(&name, [&bytes[..], &[0]].concat());
    assert!(matches!(open(&damaged), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_segment_that_is_gone_or_of_another_log_is_noticed() {
    let (disk, last) = killed(&[4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4], true);
    let segments: Vec<_> = disk.files();
    assert!(segments.len() >= 3, "{segments:?}");
    for gone in &segments[..segments.len() - 1] {
        let damaged = disk.copy();
        damaged.take(gone);
        let error = open(&damaged).unwrap_err();
        assert!(matches!(error, OpenError::Missing { .. }), "without {gone}: {error}");
    }
    let swapped = disk.copy();
    swapped.put(&segments[0], disk.bytes(&segments[1]));
    assert!(matches!(open(&swapped), Err(OpenError::Header { .. })));
    let (_, _, all) = open(&disk).unwrap();
    assert_eq!(all, last);
}

#[test]
fn a_format_of_the_future_is_refused() {
    let (disk, _) = killed(&[3], true);
    let mut bytes = disk.bytes(&segment(1));
    bytes[8] = 2;
    let checksum = crc32fast::hash(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&checksum);
    disk.put(&segment(1), bytes);
    let error = open(&disk).unwrap_err().to_string();
    assert!(error.contains("format version 2") && error.contains("reads version 1 only"), "{error}");
}

/// Everything that is wrong with a disk, as `kiln verify` says it.
fn wrong(disk: &Disk) -> Vec<Problem> {
    let verified = verify(disk, &mut |_, _| {}).unwrap();
    verified.problems.into_iter().chain(verified.torn).collect()
}

#[test]
fn a_verification_says_where_each_flipped_byte_is() {
    let disk = Disk::new();
    let (log, _, last) = open(&disk).unwrap();
    let mut writer = Writer::new(log, last);
    for entries in [4, 1, 3, 4, 4, 2, 4, 4] {
        assert!(writer.batch(entries));
    }
    assert!(writer.snapshot());
    assert!(writer.batch(2));
    writer.log.mark().unwrap();
    let disk = disk.copy();
    for name in disk.files() {
        let bytes = disk.bytes(&name);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            let damaged = disk.copy();
            damaged.put(&name, flipped);
            let wrong = wrong(&damaged);
            let at = at as u64;
            let is_told = wrong.iter().any(|problem| problem.file == name && (problem.from..problem.to).contains(&at));
            assert!(is_told, "{name}, byte {at}: {wrong:?}");
        }
    }
}

#[test]
fn a_verification_goes_on_behind_damage() {
    let (disk, _) = killed(&[3, 1, 2, 2, 1, 1, 1], true);
    let mut bytes = disk.bytes(&segment(1));
    let (first, second) = (70, used(&bytes) - 100);
    bytes[first] ^= 1;
    bytes[second] ^= 1;
    disk.put(&segment(1), bytes);
    let wrong = wrong(&disk);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    for (problem, at) in wrong.iter().zip([first, second]) {
        assert!((problem.from..problem.to).contains(&(at as u64)), "{wrong:?}");
    }
}
