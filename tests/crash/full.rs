//! A full disk is an error that passes (L6).

use crate::history::{Writer, open};
use kiln_coordinator::store::Log as _;
use kiln_tests::Disk;

#[test]
fn a_full_disk_takes_no_more_until_it_has_room() {
    let disk = Disk::new();
    let (log, _, last) = open(&disk).unwrap();
    let mut writer = Writer::new(log, last);
    disk.set_room(Some(disk.used() + 3000));
    let mut batches = 0;
    while writer.log.has_room() {
        assert!(writer.batch(2), "a full disk is no failure");
        batches += 1;
        assert!(batches < 1000, "the disk fills");
    }
    let (safe, appended) = (writer.safe, writer.appended);
    assert!(writer.batch(2) && writer.safe == safe, "what finds no room is not safe");
    assert!(!writer.log.has_room());
    // What was safe is there, whatever happens now.
    let (_, _, kept) = open(&disk.copy()).unwrap();
    assert!(kept >= safe, "{kept} of {safe}");
    disk.set_room(None);
    assert!(writer.batch(1) && writer.log.has_room());
    assert_eq!(writer.safe, appended + 3, "all that waited is safe");
    let (_, _, kept) = open(&disk.copy()).unwrap();
    assert_eq!(kept, writer.safe);
}

#[test]
fn a_snapshot_that_finds_no_room_leaves_the_log_as_it_was() {
    let disk = Disk::new();
    let (log, _, last) = open(&disk).unwrap();
    let mut writer = Writer::new(log, last);
    assert!(writer.batch(12));
    let before = disk.files();
    disk.set_room(Some(disk.used() + 100));
    assert!(!writer.snapshot());
    assert_eq!(disk.files(), before, "what there was of it is gone");
    disk.set_room(None);
    assert!(writer.snapshot() && writer.batch(3));
    let (_, _, kept) = open(&disk.copy()).unwrap();
    assert_eq!(kept, writer.safe);
}
