//! The log as the coordinator has it, with its threads.

use crate::history::{Brought, ID, entry, options, pieces, time};
use kiln_coordinator::engine::LogSeq;
use kiln_coordinator::store::{Directory, DurableLog, Log, LogError, LogOptions, Medium, SyncPolicy};
use kiln_tests::{Disk, Fate, PATIENCE};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Writer {
    log: DurableLog,
    waker: Waker,
    appended: u64,
    safe: u64,
}

fn open(medium: &Arc<dyn Medium>, options: &LogOptions) -> Writer {
    let mut brought = Brought::default();
    let opened = DurableLog::open(Arc::clone(medium), ID, options, &mut brought);
    let (log, found) = opened.unwrap_or_else(|error| panic!("after {:?}: {error}", brought.entries.last()));
    let last = brought.check();
    assert_eq!(found.last.to_bits(), last);
    Writer { log, waker: Arc::new(Unpark(thread::current())).into(), appended: last, safe: last }
}

impl Writer {
    fn append(&mut self, entries: u64) {
        for _ in 0..entries {
            self.appended += 1;
            self.log.append(LogSeq::from_bits(self.appended), time(self.appended), entry(self.appended));
        }
        self.log.submit();
    }

    /// Takes note of what is safe by now.
    fn poll(&mut self) -> Result<(), LogError> {
        while let Poll::Ready(safe) = self.log.poll_safe(&mut Context::from_waker(&self.waker)) {
            let safe = safe?.to_bits();
            assert!((self.safe..=self.appended).contains(&safe), "{} to {safe}", self.safe);
            self.safe = safe;
        }
        Ok(())
    }

    /// Polls until this is so; woken by the log alone.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        loop {
            self.poll().unwrap();
            if is_so(self) {
                return;
            }
            thread::park_timeout(PATIENCE);
            let woken = self.poll();
            woken.unwrap();
            assert!(is_so(self) || self.safe < self.appended, "waited in vain until {what}");
        }
    }

    fn until_all_is_safe(&mut self) {
        self.until("all is safe", |writer| writer.safe == writer.appended);
    }
}

fn with(sync: SyncPolicy) -> LogOptions {
    LogOptions { sync, ..options() }
}

#[test]
fn what_is_safe_is_there_with_each_policy_when_the_process_ends() {
    for sync in [SyncPolicy::Always, SyncPolicy::Interval(Duration::from_millis(5)), SyncPolicy::Never] {
        let directory = tempfile::tempdir().unwrap();
        let medium: Arc<dyn Medium> = Arc::new(Directory::open(&directory.path().join("log")).unwrap());
        for _ in 0..3 {
            let mut writer = open(&medium, &with(sync));
            for entries in [1, 50, 3, 200, 1] {
                writer.append(entries);
                writer.until_all_is_safe();
            }
            let many = writer.appended + 300;
            while writer.appended < many {
                writer.append(7);
                writer.poll().unwrap();
            }
            writer.until_all_is_safe();
        }
        let writer = open(&medium, &with(sync));
        assert!(writer.safe > 1600, "{}", writer.safe);
    }
}

#[test]
fn what_was_submitted_is_written_before_the_log_ends() {
    let disk = Disk::new();
    let medium: Arc<dyn Medium> = Arc::new(disk.clone());
    let mut writer = open(&medium, &with(SyncPolicy::Never));
    writer.append(40);
    drop(writer);
    let writer = open(&(Arc::new(disk.after(Fate::Lost)) as Arc<dyn Medium>), &options());
    assert_eq!(writer.safe, 40);
}

#[test]
fn snapshots_are_taken_while_the_log_goes_on() {
    for sync in [SyncPolicy::Always, SyncPolicy::Never] {
        let disk = Disk::new();
        let medium: Arc<dyn Medium> = Arc::new(disk.clone());
        let mut writer = open(&medium, &with(sync));
        for _ in 0..10 {
            writer.append(20);
            let (snapshots, seq) = (writer.log.snapshots(), writer.appended);
            let taken = thread::scope(|scope| {
                let taking = scope.spawn(move || {
                    let mut snapshot = snapshots.begin(LogSeq::from_bits(seq), time(seq)).unwrap();
                    pieces(seq).iter().for_each(|piece| snapshot.push(piece).unwrap());
                    snapshot.finish().unwrap()
                });
                writer.append(20);
                writer.until_all_is_safe();
                taking.join().unwrap()
            });
            assert!(taken.bytes > 500, "{taken:?}");
            // The snapshot and all of its entries are there although nothing else may be.
            let lost = Arc::new(disk.after(Fate::Lost)) as Arc<dyn Medium>;
            assert!(open(&lost, &options()).safe >= seq, "{sync:?}");
        }
        let segments = disk.files().iter().filter(|name| name.ends_with(".log")).count();
        assert!(segments <= 3, "{:?}", disk.files());
        drop(writer);
        assert_eq!(open(&medium, &options()).safe, 400);
    }
}

#[test]
fn the_power_may_go_at_any_step_of_the_threads() {
    for step in (0..140).step_by(3) {
        let disk = Disk::new();
        disk.power_goes_at(step + 14);
        let medium: Arc<dyn Medium> = Arc::new(disk.clone());
        let mut writer = open(&medium, &options());
        let failed = loop {
            writer.append(3);
            if let Err(error) = writer.poll() {
                break error;
            }
            thread::yield_now();
        };
        assert!(matches!(failed, LogError::Write { safe, .. } if safe.to_bits() == writer.safe), "{failed}");
        assert!(writer.poll().is_err(), "an error is for good");
        for fate in [Fate::Lost, Fate::Kept, Fate::Torn { seed: step }, Fate::Garbled { seed: step }] {
            let after = Arc::new(disk.after(fate)) as Arc<dyn Medium>;
            let kept = open(&after, &options()).safe;
            assert!(kept >= writer.safe, "step {step}, {fate:?}: {kept} of {}", writer.safe);
        }
    }
}

#[test]
fn a_sync_that_fails_is_not_tried_again() {
    let disk = Disk::new();
    let medium: Arc<dyn Medium> = Arc::new(disk.clone());
    let mut writer = open(&medium, &options());
    writer.append(5);
    writer.until_all_is_safe();
    disk.sync_fails(true);
    writer.append(5);
    let error = loop {
        match writer.poll() {
            Ok(()) => thread::park_timeout(PATIENCE),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the log cannot be written after entry 5: the file cannot be synced");
    disk.sync_fails(false);
    writer.append(5);
    assert!(writer.poll().is_err(), "nothing is safe any more");
    assert_eq!(writer.safe, 5);
    drop(writer);
    // The system shows what it failed to write, as long as it remembers it: a start does not believe that.
    let kept = open(&(Arc::new(disk.after(Fate::Kept)) as Arc<dyn Medium>), &options());
    assert_eq!(kept.safe, 5);
}

#[test]
fn a_disk_that_stalls_takes_a_bounded_part_and_goes_on() {
    const MOST: u64 = 20_000;
    let disk = Disk::new();
    let medium: Arc<dyn Medium> = Arc::new(disk.clone());
    let mut writer = open(&medium, &LogOptions { waiting_bytes_max: MOST, ..options() });
    for _ in 0..2 {
        let (before, bytes) = (writer.appended, writer.log.submitted_bytes());
        disk.stall(true);
        while writer.log.has_room() {
            writer.append(5);
            writer.poll().unwrap();
        }
        let (entries, bytes) = (writer.appended - before, writer.log.submitted_bytes() - bytes);
        assert!((MOST..2 * MOST).contains(&(bytes + 128 * entries)), "{entries} entries with {bytes} bytes");
        // What cannot be refused is taken all the same.
        writer.append(1);
        writer.poll().unwrap();
        assert!(!writer.log.has_room() && writer.safe <= before + 5, "nothing that waits for the disk is safe");
        disk.stall(false);
        writer.until("the disk has caught up", |writer| writer.log.has_room() && writer.safe == writer.appended);
    }
    let all = writer.appended;
    drop(writer);
    assert_eq!(open(&medium, &options()).safe, all);
}

#[test]
fn a_full_disk_is_told_and_writing_goes_on_when_there_is_room() {
    let disk = Disk::new();
    let medium: Arc<dyn Medium> = Arc::new(disk.clone());
    let mut writer = open(&medium, &options());
    disk.set_room(Some(disk.used() + 5000));
    while writer.log.has_room() {
        writer.append(1);
        writer.poll().unwrap();
        thread::yield_now();
    }
    for _ in 0..100 {
        writer.append(10);
        writer.poll().unwrap();
    }
    assert!(writer.safe < writer.appended, "there is no room for all of it");
    disk.set_room(None);
    writer.until("there is room", |writer| writer.log.has_room() && writer.safe == writer.appended);
    let all = writer.appended;
    drop(writer);
    assert_eq!(open(&medium, &options()).safe, all);
}
