//! What a read and a write of one resident object cost, beside their budgets.
//!
//! `cargo bench -p kiln-heap`
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use kiln_heap::{ArchiveType, ArchivedBuf, BlockKind, Heap, Object, Options, Shape, SlotKind, SlotWrite};
use std::hint::black_box;
use std::sync::Arc;

type Line = (u32, String);

fn heap() -> Heap {
    Heap::new(Options::default()).unwrap()
}

/// Eight slots: six scalars, a text and an archive.
fn session_shape() -> Arc<Shape> {
    let mut slots = vec![SlotKind::Scalar; 6];
    slots.extend([SlotKind::Text, SlotKind::Archive(ArchiveType::of::<Line>())]);
    Shape::new(slots, 1).unwrap()
}

fn session(heap: &Heap) -> Object {
    let line = ArchivedBuf::new(&(1, "sku-1 and some more".to_owned())).unwrap();
    new_session(heap, &session_shape(), &line)
}

fn new_session(heap: &Heap, shape: &Arc<Shape>, line: &ArchivedBuf) -> Object {
    let writes = [SlotWrite::Archived { slot: 7, value: line }, SlotWrite::Block { slot: 6, bytes: b"dark" }];
    Object::new(heap, shape, &writes, &[1]).unwrap()
}

fn reads(c: &mut Criterion) {
    let heap = heap();
    let object = session(&heap);
    let mut group = c.benchmark_group("read");
    group.bench_function("floor: a pin alone", |b| b.iter(crossbeam_epoch::pin));
    group.bench_function("pin and one scalar", |b| {
        b.iter(|| black_box(&object).pin().scalar(black_box(3)));
    });
    let pinned = object.pin();
    group.bench_function("one scalar, pinned", |b| {
        b.iter(|| black_box(&pinned).scalar(black_box(3)));
    });
    group.bench_function("one text, pinned", |b| {
        b.iter(|| black_box(&pinned).text(black_box(6)).len());
    });
    group.bench_function("one archive, pinned", |b| {
        b.iter(|| black_box(&pinned).archived::<Line>(black_box(7)).0.to_native());
    });
    group.finish();
}

fn writes(c: &mut Criterion) {
    let heap = heap();
    let object = session(&heap);
    let mut group = c.benchmark_group("apply");
    let mut version = 1;
    group.bench_function("one scalar", |b| {
        b.iter(|| {
            version += 1;
            object.apply(&[SlotWrite::Scalar { slot: 3, bits: version }], &[(0, version)]).unwrap();
        });
    });
    let text = "a theme of forty bytes, give or take one";
    group.bench_function("one text of 40 bytes", |b| {
        b.iter(|| {
            object.apply(&[SlotWrite::Block { slot: 6, bytes: black_box(text).as_bytes() }], &[]).unwrap();
        });
    });
    let line = ArchivedBuf::new(&(1, text.to_owned())).unwrap();
    group.bench_function("one archive, trusted", |b| {
        b.iter(|| {
            object.apply(&[SlotWrite::Archived { slot: 7, value: black_box(&line) }], &[]).unwrap();
        });
    });
    group.bench_function("one archive, checked", |b| {
        b.iter(|| {
            object.apply(&[SlotWrite::Block { slot: 7, bytes: black_box(line.bytes()) }], &[]).unwrap();
        });
    });
    group.finish();
    let (shape, line) = (session_shape(), ArchivedBuf::new(&(1, text.to_owned())).unwrap());
    c.bench_function("new and drop, two blocks", |b| {
        b.iter(|| drop(new_session(&heap, &shape, &line)));
    });
}

/// Keys whose first bytes say little, as they often are.
fn key(number: u64) -> Vec<u8> {
    format!("entry {number:012}").into_bytes()
}

fn filled(heap: &Heap, entries: u64, line: &ArchivedBuf) -> Object {
    let shape = Shape::new([SlotKind::Map(BlockKind::Archive(ArchiveType::of::<Line>()))], 1).unwrap();
    let keys: Vec<Vec<u8>> = (0..entries).map(key).collect();
    let puts: Vec<_> = keys.iter().map(|key| put(key, line)).collect();
    Object::new(heap, &shape, &puts, &[0]).unwrap()
}

const fn put<'a>(key: &'a [u8], value: &'a ArchivedBuf) -> SlotWrite<'a> {
    SlotWrite::MapPutArchived { slot: 0, key, value }
}

/// Numbers below a bound, in no order.
fn scattered(bound: u64) -> impl FnMut() -> u64 {
    let mut number = 0_u64;
    move || {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % bound
    }
}

fn maps(c: &mut Criterion) {
    let heap = heap();
    let line = ArchivedBuf::new(&(1, "sku-1 and some more".to_owned())).unwrap();
    let mut group = c.benchmark_group("map");
    for entries in [100_u64, 10_000, 100_000] {
        group.bench_function(BenchmarkId::new("put one", entries), |b| {
            let object = filled(&heap, entries, &line);
            let mut next = scattered(entries);
            b.iter_batched(
                || key(next()),
                |key| object.apply(&[put(&key, &line)], &[(0, 1)]).unwrap(),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("get one", entries), |b| {
            let object = filled(&heap, entries, &line);
            let mut next = scattered(entries);
            b.iter_batched(
                || key(next()),
                |key| object.pin().map(0).get_archived::<Line>(&key).unwrap().0.to_native(),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("put all at once", entries), |b| {
            b.iter(|| drop(filled(&heap, entries, &line)));
        });
    }
    group.finish();
}

criterion_group!(heap_benches, reads, writes, maps);
criterion_main!(heap_benches);
