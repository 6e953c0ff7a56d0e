//! Real threads: nothing is lost, nothing is mixed, nothing that a reader sees is reused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kiln_heap::{ApplyError, ArchivedBuf, BlockKind, Heap, Object, Options, Shape, SlotKind, SlotWrite};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const ROUNDS: u64 = if cfg!(any(debug_assertions, kiln_asan)) { 5_000 } else { 50_000 };

const FIRST: u16 = 0;
const SECOND: u16 = 1;
const SUM: u16 = 2;
const TEXT: u16 = 3;
const MAP: u16 = 4;

fn object(heap: &Heap) -> Object {
    let slots = [SlotKind::Scalar, SlotKind::Scalar, SlotKind::Scalar, SlotKind::Text, SlotKind::Map(BlockKind::Text)];
    Object::new(heap, &Shape::new(slots, 2).unwrap(), &[], &[0, 0]).unwrap()
}

fn assert_given_back(heap: &Heap) {
    // Other tests of this process pin too, so one collection may not be enough.
    let is_clean = (0..100_000).any(|_| {
        heap.collect();
        heap.used_bytes() == 0
    });
    assert!(is_clean, "{} bytes are still in use", heap.used_bytes());
}

#[test]
fn two_groups_a_counter_and_a_map_are_written_at_once_and_lose_nothing() {
    let heap = Heap::new(Options { bytes_max: 8 << 20 }).unwrap();
    let object = object(&heap);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut writers = Vec::new();
        for (group, slot) in [(0, FIRST), (1, SECOND)] {
            let object = &object;
            writers.push(scope.spawn(move || {
                for round in 1..=ROUNDS {
                    object.apply(&[SlotWrite::Scalar { slot, bits: round }], &[(group, round)]).unwrap();
                }
            }));
        }
        writers.push(scope.spawn(|| {
            for round in 0..ROUNDS {
                let text = "x".repeat(usize::try_from(round % 100).unwrap());
                let writes =
                    [SlotWrite::Add { slot: SUM, amount: 1 }, SlotWrite::Block { slot: TEXT, bytes: text.as_bytes() }];
                object.apply(&writes, &[]).unwrap();
            }
        }));
        writers.push(scope.spawn(|| {
            for round in 0..ROUNDS {
                let key = (round % 300).to_le_bytes();
                let value = ArchivedBuf::text(&round.to_string());
                let put = SlotWrite::MapPutArchived { slot: MAP, key: &key, value: &value };
                object.apply(&[put, SlotWrite::Add { slot: SUM, amount: 1 }], &[]).unwrap();
            }
        }));
        scope.spawn(|| {
            let mut last = [0, 0];
            while !is_done.load(Ordering::Relaxed) {
                let pinned = object.pin();
                for (at, (group, slot)) in [(0, FIRST), (1, SECOND)].into_iter().enumerate() {
                    assert_eq!(pinned.scalar(slot), pinned.version(group), "a commit is seen whole");
                    assert!(last[at] <= pinned.version(group), "a version steps back");
                    last[at] = pinned.version(group);
                }
                assert!(pinned.text(TEXT).bytes().all(|byte| byte == b'x'));
                let map = pinned.map(MAP);
                assert_eq!(
                    map.iter_text().inspect(|(_, text)| assert!(text.parse::<u64>().is_ok())).count(),
                    map.len()
                );
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let pinned = object.pin();
    assert_eq!((pinned.scalar(FIRST), pinned.scalar(SECOND), pinned.scalar(SUM)), (ROUNDS, ROUNDS, 2 * ROUNDS));
    assert_eq!(pinned.map(MAP).len(), 300);
    drop(pinned);
    drop(object);
    assert_given_back(&heap);
}

#[test]
fn an_arena_too_small_for_its_writers_refuses_some_and_stays_whole() {
    let heap = Heap::new(Options { bytes_max: 256 << 10 }).unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let heap = &heap;
            scope.spawn(move || {
                let object = object(heap);
                let mut written = 0;
                for round in 1..ROUNDS / 10 {
                    let length = usize::try_from(round * 7919 % 90_000).unwrap();
                    let text = "x".repeat(length);
                    let writes = [
                        SlotWrite::Block { slot: TEXT, bytes: text.as_bytes() },
                        SlotWrite::Scalar { slot: FIRST, bits: round },
                    ];
                    match object.apply(&writes, &[(0, round)]) {
                        Ok(()) => written = round,
                        Err(ApplyError::Full { .. }) => {}
                        Err(error) => panic!("thread {thread}: {error}"),
                    }
                    let pinned = object.pin();
                    assert_eq!((pinned.scalar(FIRST), pinned.version(0)), (written, written));
                    assert_eq!(pinned.text(TEXT).len() as u64, written * 7919 % 90_000);
                }
                assert!(written > 0);
            });
        }
    });
    assert_given_back(&heap);
}

#[test]
fn objects_made_here_and_dropped_there_are_given_back() {
    let heap = Heap::new(Options { bytes_max: 16 << 20 }).unwrap();
    let (sender, receiver) = std::sync::mpsc::sync_channel::<Object>(16);
    thread::scope(|scope| {
        scope.spawn(|| {
            for object in receiver {
                assert_eq!(object.pin().text(TEXT), "one of many");
            }
        });
        for _ in 0..ROUNDS {
            let object = object(&heap);
            object.apply(&[SlotWrite::Block { slot: TEXT, bytes: b"one of many" }], &[]).unwrap();
            sender.send(object).unwrap();
        }
        drop(sender);
    });
    assert_given_back(&heap);
}

#[test]
fn a_prepared_write_is_seen_when_it_is_published_and_not_before() {
    let heap = Heap::new(Options { bytes_max: 1 << 20 }).unwrap();
    let (one, two) = (object(&heap), object(&heap));
    let write = [SlotWrite::Block { slot: TEXT, bytes: b"both" }];
    let first = one.prepare(&write, &[(0, 1)]).unwrap();
    let second = two.prepare(&write, &[(0, 1)]).unwrap();
    assert_eq!((one.pin().text(TEXT), two.pin().text(TEXT)), ("", ""));
    first.publish();
    second.publish();
    assert_eq!((one.pin().text(TEXT), two.pin().text(TEXT)), ("both", "both"));
    drop(one.prepare(&[SlotWrite::Block { slot: TEXT, bytes: b"neither" }], &[(0, 2)]).unwrap());
    assert_eq!((one.pin().text(TEXT), one.version(0)), ("both", 1));
    one.apply(&write, &[(0, 3)]).unwrap();
    drop((one, two));
    assert_given_back(&heap);
}

#[test]
fn a_probe_is_done_when_the_readers_of_its_day_have_gone() {
    let heap = Heap::new(Options { bytes_max: 1 << 20 }).unwrap();
    let object = object(&heap);
    let (pinned, unpin) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let held = object.pin();
            pinned.wait();
            unpin.wait();
            drop(held);
        });
        pinned.wait();
        let probe = heap.probe();
        assert!(!probe.is_done(), "a reader is pinned");
        unpin.wait();
        reader.join().unwrap();
        assert!((0..100_000).any(|_| probe.is_done()), "nobody is pinned for long any more");
    });
}
