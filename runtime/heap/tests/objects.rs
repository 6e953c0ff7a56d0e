//! One object at a time: what is written is read, what is refused changes nothing, and everything is given back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kiln_heap::{
    ApplyError, ArchiveType, ArchivedBuf, BlockKind, Cause, Heap, Object, Options, Shape, SlotKind, SlotWrite,
};
use std::sync::Arc;

type Pair = (u32, String);

const COUNT: u16 = 0;
const NAME: u16 = 1;
const BLOB: u16 = 2;
const PAIR: u16 = 3;
const CART: u16 = 4;
const NOTES: u16 = 5;

fn heap() -> Heap {
    Heap::new(Options::default()).unwrap()
}

fn shape() -> Arc<Shape> {
    let slots = [
        SlotKind::Scalar,
        SlotKind::Text,
        SlotKind::Bytes,
        SlotKind::Archive(ArchiveType::of::<Pair>()),
        SlotKind::Map(BlockKind::Archive(ArchiveType::of::<Pair>())),
        SlotKind::Map(BlockKind::Text),
    ];
    Shape::new(slots, 2).unwrap()
}

fn pair(number: u32, text: &str) -> ArchivedBuf {
    ArchivedBuf::new(&(number, text.to_owned())).unwrap()
}

fn object(heap: &Heap) -> Object {
    let value = pair(1, "one");
    Object::new(heap, &shape(), &[SlotWrite::Archived { slot: PAIR, value: &value }], &[1, 1]).unwrap()
}

/// The other tests of this process pin too, so one collection may not be enough.
fn assert_shrinks_to(heap: &Heap, bytes: usize) {
    for _ in 0..100_000 {
        heap.collect();
        if heap.used_bytes() == bytes {
            return;
        }
    }
    panic!("{} bytes in use, not {bytes}", heap.used_bytes());
}

#[test]
fn a_new_object_holds_what_was_written_and_defaults_for_the_rest() {
    let heap = heap();
    let object = object(&heap);
    let pinned = object.pin();
    assert_eq!(pinned.scalar(COUNT), 0);
    assert_eq!(pinned.text(NAME), "");
    assert_eq!(pinned.bytes(BLOB), b"");
    assert_eq!(pinned.archived::<Pair>(PAIR).0, 1);
    assert_eq!(pinned.archived::<Pair>(PAIR).1, "one");
    assert!(pinned.map(CART).is_empty());
    assert_eq!((pinned.version(0), pinned.version(1)), (1, 1));
}

#[test]
fn every_kind_of_write_is_read_back() {
    let heap = heap();
    let object = object(&heap);
    let (two, line, text) = (pair(2, "two"), pair(3, "line"), ArchivedBuf::text("dark"));
    let writes = [
        SlotWrite::Scalar { slot: COUNT, bits: 40 },
        SlotWrite::Add { slot: COUNT, amount: -41 },
        SlotWrite::Archived { slot: NAME, value: &text },
        SlotWrite::Block { slot: BLOB, bytes: &[7; 100_000] },
        SlotWrite::Block { slot: PAIR, bytes: two.bytes() },
        SlotWrite::MapPut { slot: CART, key: b"sku-2", value: line.bytes() },
        SlotWrite::MapPutArchived { slot: CART, key: b"sku-1", value: &line },
        SlotWrite::MapPut { slot: NOTES, key: b"", value: b"" },
        SlotWrite::MapPut { slot: NOTES, key: b"a", value: b"b" },
    ];
    object.apply(&writes, &[(1, 9)]).unwrap();
    let pinned = object.pin();
    assert_eq!(pinned.scalar(COUNT), u64::MAX);
    assert_eq!(pinned.text(NAME), "dark");
    assert_eq!(pinned.bytes(BLOB), &[7; 100_000]);
    assert_eq!(pinned.archived::<Pair>(PAIR).1, "two");
    let keys: Vec<&[u8]> = pinned.map(CART).iter_archived::<Pair>().map(|(key, _)| key).collect();
    assert_eq!(keys, [b"sku-1", b"sku-2"]);
    assert_eq!(pinned.map(CART).get_archived::<Pair>(b"sku-2").unwrap().0, 3);
    let notes: Vec<_> = pinned.map(NOTES).iter_text().collect();
    assert_eq!(notes, [(&b""[..], ""), (b"a", "b")]);
    assert_eq!((pinned.version(0), pinned.version(1)), (1, 9));
    drop(pinned);
    drop(object);
    assert_shrinks_to(&heap, 0);
}

#[test]
fn a_pinned_reader_keeps_the_content_it_saw() {
    let heap = heap();
    let object = object(&heap);
    object.apply(&[SlotWrite::Block { slot: NAME, bytes: b"before" }], &[]).unwrap();
    let before = object.pin();
    let again = before.clone();
    for round in 0..1000 {
        object.apply(&[SlotWrite::Block { slot: NAME, bytes: b"after" }], &[(0, round)]).unwrap();
    }
    heap.collect();
    assert_eq!(before.text(NAME), "before");
    drop(before);
    heap.collect();
    assert_eq!(again.text(NAME), "before");
    assert_eq!(object.pin().text(NAME), "after");
}

#[test]
fn bad_bytes_are_refused_and_change_nothing() {
    let heap = heap();
    let object = object(&heap);
    let used = heap.used_bytes();
    let good = SlotWrite::Scalar { slot: COUNT, bits: 1 };
    let long_key = [0; kiln_heap::limits::ENTRY_KEY_BYTES_MAX + 1];
    let raw = ArchivedBuf::raw(b"\xff");
    let bad = [
        SlotWrite::Block { slot: NAME, bytes: b"\xff" },
        SlotWrite::Archived { slot: NAME, value: &raw },
        SlotWrite::Block { slot: PAIR, bytes: b"" },
        SlotWrite::Block { slot: PAIR, bytes: &[0xfe; 12] },
        SlotWrite::Block { slot: PAIR, bytes: &[0xff; 13] },
        SlotWrite::MapPut { slot: CART, key: b"k", value: &[0xfe; 12] },
        SlotWrite::MapPut { slot: NOTES, key: b"k", value: b"\xff" },
        SlotWrite::MapPutArchived { slot: NOTES, key: b"k", value: &raw },
        SlotWrite::MapPut { slot: NOTES, key: &long_key, value: b"" },
    ];
    for bad in bad {
        let refused = object.apply(&[good, bad, good], &[(0, 7)]);
        assert!(matches!(refused, Err(ApplyError::Corrupt { slot, .. }) if slot == bad.slot()), "{bad:?}");
    }
    assert_eq!((object.scalar(COUNT), object.version(0)), (0, 1));
    assert_eq!(heap.used_bytes(), used);
}

#[test]
fn writes_that_do_not_fit_the_shape_are_refused() {
    let heap = heap();
    let object = object(&heap);
    let bad = [
        SlotWrite::Scalar { slot: NAME, bits: 0 },
        SlotWrite::Add { slot: CART, amount: 0 },
        SlotWrite::Block { slot: COUNT, bytes: b"" },
        SlotWrite::Block { slot: CART, bytes: b"" },
        SlotWrite::MapPut { slot: NAME, key: b"", value: b"" },
        SlotWrite::MapRemove { slot: PAIR, key: b"" },
        SlotWrite::MapClear { slot: COUNT },
        SlotWrite::Scalar { slot: 6, bits: 0 },
        SlotWrite::Scalar { slot: u16::MAX, bits: 0 },
    ];
    for bad in bad {
        let refused = object.apply(&[bad], &[]);
        assert!(matches!(refused, Err(ApplyError::BadSlot { slot }) if slot == bad.slot()), "{bad:?}");
    }
    assert!(matches!(object.apply(&[], &[(2, 0)]), Err(ApplyError::BadGroup { group: 2 })));
    assert!(matches!(Object::new(&heap, &shape(), &[], &[1, 1]), Err(ApplyError::Missing { slot: PAIR })));
    assert!(matches!(object.replace(&[], &[1, 1]), Err(ApplyError::Missing { slot: PAIR })));
    assert!(matches!(object.replace(&[], &[1]), Err(ApplyError::BadGroup { group: 1 })));
}

#[test]
fn replace_leaves_nothing_of_the_content_before() {
    let heap = heap();
    let object = object(&heap);
    let fresh = object.bytes();
    object.apply(&[SlotWrite::Block { slot: NAME, bytes: b"x" }], &[]).unwrap();
    for number in 0..500_u32 {
        let line = pair(number, "line");
        let key = number.to_string();
        let put = SlotWrite::MapPutArchived { slot: CART, key: key.as_bytes(), value: &line };
        object.apply(&[put], &[(0, 5)]).unwrap();
    }
    assert_eq!(object.pin().map(CART).len(), 500);
    assert!(object.bytes() > 500 * 32);
    let one = pair(1, "one");
    object.replace(&[SlotWrite::Archived { slot: PAIR, value: &one }], &[8, 9]).unwrap();
    assert_eq!(object.bytes(), fresh);
    assert_eq!((object.version(0), object.version(1)), (8, 9));
    assert!(object.pin().map(CART).is_empty());
    assert_shrinks_to(&heap, fresh);
    drop(object);
    assert_shrinks_to(&heap, 0);
}

#[test]
fn an_archive_that_nests_too_deep_is_refused() {
    #[derive(rkyv::Archive, rkyv::Serialize)]
    #[rkyv(serialize_bounds(__S: rkyv::ser::Writer, <__S as rkyv::rancor::Fallible>::Error: rkyv::rancor::Source))]
    #[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, <__C as rkyv::rancor::Fallible>::Error: rkyv::rancor::Source)))]
    struct Chain {
        #[rkyv(omit_bounds)]
        next: Option<Box<Self>>,
    }
    let chain = |links: usize| (0..links).fold(Chain { next: None }, |next, _| Chain { next: Some(Box::new(next)) });
    let heap = heap();
    let shape = Shape::new([SlotKind::Archive(ArchiveType::of::<Chain>())], 0).unwrap();
    let short = ArchivedBuf::new(&chain(10)).unwrap();
    let object = Object::new(&heap, &shape, &[SlotWrite::Block { slot: 0, bytes: short.bytes() }], &[]).unwrap();
    let long = rkyv::to_bytes::<rkyv::rancor::Error>(&chain(100)).unwrap();
    let refused = object.apply(&[SlotWrite::Block { slot: 0, bytes: &long }], &[]);
    assert!(matches!(refused, Err(ApplyError::Corrupt { slot: 0, cause: Cause::Archive(_) })));
}

#[test]
#[should_panic(expected = "slot 3 is Archive")]
fn reading_another_type_panics() {
    let heap = heap();
    assert_eq!(object(&heap).pin().archived::<(u64, String)>(PAIR).0, 1);
}

#[test]
#[should_panic(expected = "slot 2 is Bytes, not a text")]
fn reading_bytes_as_text_panics() {
    let heap = heap();
    assert_eq!(object(&heap).pin().text(BLOB), "");
}

#[test]
fn memory_that_small_blocks_held_serves_large_ones() {
    let heap = Heap::new(Options { bytes_max: 1 << 20 }).unwrap();
    let shape = Shape::new([SlotKind::Bytes], 0).unwrap();
    let new = |bytes: usize| Object::new(&heap, &shape, &[SlotWrite::Block { slot: 0, bytes: &vec![1; bytes] }], &[]);
    for bytes in [1, 300, 5_000, 60_000] {
        let objects: Vec<Object> = std::iter::from_fn(|| new(bytes).ok()).collect();
        assert!(heap.used_bytes() > heap.bytes_max() / 2, "{} bytes in blocks of {bytes}", heap.used_bytes());
        drop(objects);
        assert_eq!(heap.used_bytes(), 0);
        let large = new(1_000_000).unwrap();
        assert!(matches!(new(1_000_000), Err(ApplyError::Full { needed_bytes: 1_000_000 })));
        assert_eq!(large.pin().bytes(0), vec![1; 1_000_000]);
    }
}

#[test]
fn a_map_that_shrank_takes_little() {
    let heap = heap();
    let shape = Shape::new([SlotKind::Map(BlockKind::Bytes)], 0).unwrap();
    let object = Object::new(&heap, &shape, &[], &[]).unwrap();
    let keys: Vec<Vec<u8>> = (0..10_000).map(|number| format!("{number:05}").into_bytes()).collect();
    let puts: Vec<_> = keys.iter().map(|key| SlotWrite::MapPut { slot: 0, key, value: b"v" }).collect();
    object.apply(&puts, &[]).unwrap();
    let full = object.bytes();
    let removes: Vec<_> = (keys.iter().enumerate())
        .filter(|(at, _)| at % 100 != 0)
        .map(|(_, key)| SlotWrite::MapRemove { slot: 0, key })
        .collect();
    removes.chunks(77).for_each(|some| object.apply(some, &[]).unwrap());
    assert_eq!(object.pin().map(0).len(), 100);
    assert!(object.pin().map(0).iter().map(|(key, _)| key).eq(keys.iter().step_by(100).map(|key| &key[..])));
    assert!(object.bytes() < full / 25, "{} bytes of {full} are left", object.bytes());
    object.apply(&[SlotWrite::MapClear { slot: 0 }], &[]).unwrap();
    assert_eq!(object.bytes(), 16);
}

#[test]
fn a_shape_has_limits() {
    assert!(Shape::new(vec![SlotKind::Scalar; kiln_heap::limits::SLOTS_MAX], 256).is_ok());
    assert!(Shape::new(vec![SlotKind::Scalar; kiln_heap::limits::SLOTS_MAX + 1], 0).is_err());
    assert!(Shape::new([], 257).is_err());
    assert!(Shape::new(std::iter::repeat(SlotKind::Scalar), 0).is_err());
}
