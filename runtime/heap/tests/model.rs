//! Random writes against a plain model, in an arena so small that it is full now and then.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kiln_heap::{
    ApplyError, ArchiveType, ArchivedBuf, BlockKind, Heap, Object, Options, Pinned, Shape, SlotKind, SlotWrite,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

type Line = (u32, String);

const COUNT: u16 = 0;
const NAME: u16 = 1;
const LINE: u16 = 2;
const NOTES: u16 = 3;
const CART: u16 = 4;
const GROUPS: u8 = 3;

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    count: u64,
    name: String,
    line: Line,
    notes: BTreeMap<Vec<u8>, String>,
    cart: BTreeMap<Vec<u8>, Line>,
    versions: [u64; GROUPS as usize],
}

#[derive(Clone, Debug)]
enum Write {
    Count(u64),
    Add(i64),
    Name(String),
    Line(Line),
    Note(Vec<u8>, Option<String>),
    /// Many neighbouring notes at once: splits and merges.
    Notes(u16, u16, bool),
    Cart(Vec<u8>, Option<Line>),
    ClearNotes,
    ClearCart,
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Vec<Write>, Vec<(u8, u64)>),
    Replace(Vec<Write>, [u64; GROUPS as usize]),
    Pin,
    Unpin(usize),
}

impl Model {
    fn write(&mut self, write: &Write) {
        match write.clone() {
            Write::Count(bits) => self.count = bits,
            Write::Add(amount) => self.count = self.count.wrapping_add_signed(amount),
            Write::Name(name) => self.name = name,
            Write::Line(line) => self.line = line,
            Write::Note(key, Some(note)) => drop(self.notes.insert(key, note)),
            Write::Note(key, None) => drop(self.notes.remove(&key)),
            Write::Notes(start, count, is_put) => {
                for key in note_keys(start, count) {
                    if is_put {
                        self.notes.insert(key, "many".to_owned());
                    } else {
                        self.notes.remove(&key);
                    }
                }
            }
            Write::Cart(key, Some(line)) => drop(self.cart.insert(key, line)),
            Write::Cart(key, None) => drop(self.cart.remove(&key)),
            Write::ClearNotes => self.notes.clear(),
            Write::ClearCart => self.cart.clear(),
        }
    }

    fn check(&self, pinned: &Pinned<'_>) {
        assert_eq!(pinned.scalar(COUNT), self.count);
        assert_eq!(pinned.text(NAME), self.name);
        let line = pinned.archived::<Line>(LINE);
        assert_eq!((line.0.to_native(), line.1.as_str()), (self.line.0, self.line.1.as_str()));
        for (group, version) in (0..).zip(self.versions) {
            assert_eq!(pinned.version(group), version);
        }
        let notes = pinned.map(NOTES);
        assert_eq!(notes.len(), self.notes.len());
        assert!(notes.iter_text().eq(self.notes.iter().map(|(key, note)| (key.as_slice(), note.as_str()))));
        let cart = pinned.map(CART);
        assert_eq!(cart.len(), self.cart.len());
        let lines = cart.iter_archived::<Line>().map(|(key, line)| (key, line.0.to_native(), line.1.as_str()));
        assert!(lines.eq(self.cart.iter().map(|(key, line)| (key.as_slice(), line.0, line.1.as_str()))));
    }

    /// Single keys, there or not, and walks that start anywhere.
    fn check_key(&self, pinned: &Pinned<'_>, key: &[u8]) {
        let notes = pinned.map(NOTES);
        assert_eq!(notes.get_text(key), self.notes.get(key).map(String::as_str));
        assert_eq!(notes.contains(key), self.notes.contains_key(key));
        let from: Vec<&[u8]> = notes.iter_from(key).take(3).map(|(key, _)| key).collect();
        let expected: Vec<&[u8]> = self.notes.range(key.to_vec()..).take(3).map(|(key, _)| key.as_slice()).collect();
        assert_eq!(from, expected);
    }
}

fn note_keys(start: u16, count: u16) -> impl Iterator<Item = Vec<u8>> {
    (start..start.saturating_add(count)).map(|number| format!("note number {number:05}").into_bytes())
}

/// What owns the bytes of writes.
enum Owned {
    Scalar(u64),
    Add(i64),
    Block(u16, ArchivedBuf),
    Put(u16, Vec<u8>, ArchivedBuf),
    Remove(u16, Vec<u8>),
    Clear(u16),
}

fn owned(writes: &[Write]) -> Vec<Owned> {
    let archive = |line: &Line| ArchivedBuf::new(line).unwrap();
    let mut all = Vec::new();
    for write in writes {
        all.push(match write {
            Write::Count(bits) => Owned::Scalar(*bits),
            Write::Add(amount) => Owned::Add(*amount),
            Write::Name(name) => Owned::Block(NAME, ArchivedBuf::text(name)),
            Write::Line(line) => Owned::Block(LINE, archive(line)),
            Write::Note(key, Some(note)) => Owned::Put(NOTES, key.clone(), ArchivedBuf::text(note)),
            Write::Note(key, None) => Owned::Remove(NOTES, key.clone()),
            Write::Cart(key, Some(line)) => Owned::Put(CART, key.clone(), archive(line)),
            Write::Cart(key, None) => Owned::Remove(CART, key.clone()),
            Write::ClearNotes => Owned::Clear(NOTES),
            Write::ClearCart => Owned::Clear(CART),
            Write::Notes(start, count, is_put) => {
                all.extend(note_keys(*start, *count).map(|key| match is_put {
                    true => Owned::Put(NOTES, key, ArchivedBuf::text("many")),
                    false => Owned::Remove(NOTES, key),
                }));
                continue;
            }
        });
    }
    all
}

/// Every other block is written as untrusted bytes.
fn slot_writes(owned: &[Owned]) -> Vec<SlotWrite<'_>> {
    (owned.iter().enumerate())
        .map(|(at, owned)| match owned {
            Owned::Scalar(bits) => SlotWrite::Scalar { slot: COUNT, bits: *bits },
            Owned::Add(amount) => SlotWrite::Add { slot: COUNT, amount: *amount },
            Owned::Block(slot, value) if at % 2 == 0 => SlotWrite::Block { slot: *slot, bytes: value.bytes() },
            Owned::Block(slot, value) => SlotWrite::Archived { slot: *slot, value },
            Owned::Put(slot, key, value) if at % 2 == 0 => SlotWrite::MapPut { slot: *slot, key, value: value.bytes() },
            Owned::Put(slot, key, value) => SlotWrite::MapPutArchived { slot: *slot, key, value },
            Owned::Remove(slot, key) => SlotWrite::MapRemove { slot: *slot, key },
            Owned::Clear(slot) => SlotWrite::MapClear { slot: *slot },
        })
        .collect()
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(0_u8..3, 0..4),
        (0_u16..400).prop_map(|number| format!("note number {number:05}").into_bytes()),
        vec(any::<u8>(), 0..40),
        (0_usize..=1024).prop_map(|length| vec![7; length]),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    (any::<u32>(), "[a-z]{0,40}")
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        2 => any::<u64>().prop_map(Write::Count),
        2 => any::<i64>().prop_map(Write::Add),
        2 => "[a-z]{0,300}".prop_map(Write::Name),
        2 => line().prop_map(Write::Line),
        8 => (key(), proptest::option::of("[a-z]{0,40}")).prop_map(|(key, note)| Write::Note(key, note)),
        4 => (0_u16..400, 0_u16..200, any::<bool>()).prop_map(|(start, count, put)| Write::Notes(start, count, put)),
        8 => (key(), proptest::option::of(line())).prop_map(|(key, line)| Write::Cart(key, line)),
        1 => Just(Write::ClearNotes),
        1 => Just(Write::ClearCart),
        1 => (0_usize..100_000).prop_map(|length| Write::Name("x".repeat(length))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let versions = vec((0..GROUPS, any::<u64>()), 0..3);
    prop_oneof![
        10 => (vec(write(), 0..8), versions).prop_map(|(writes, versions)| Step::Apply(writes, versions)),
        1 => (vec(write(), 0..8), any::<[u64; 3]>()).prop_map(|(writes, versions)| Step::Replace(writes, versions)),
        1 => Just(Step::Pin),
        2 => (0_usize..4).prop_map(Step::Unpin),
    ]
}

fn shape() -> Arc<Shape> {
    let slots = [
        SlotKind::Scalar,
        SlotKind::Text,
        SlotKind::Archive(ArchiveType::of::<Line>()),
        SlotKind::Map(BlockKind::Text),
        SlotKind::Map(BlockKind::Archive(ArchiveType::of::<Line>())),
    ];
    Shape::new(slots, usize::from(GROUPS)).unwrap()
}

fn run(steps: &[Step], bytes_max: usize) -> usize {
    let heap = Heap::new(Options { bytes_max }).unwrap();
    let first = ArchivedBuf::new(&Line::default()).unwrap();
    let first = [SlotWrite::Archived { slot: LINE, value: &first }];
    let object = Object::new(&heap, &shape(), &first, &[0; GROUPS as usize]).unwrap();
    let mut model = Model::default();
    let mut pins = Vec::new();
    let mut full = 0;
    for step in steps {
        let mut next = model.clone();
        let result = match step {
            Step::Apply(writes, versions) => {
                writes.iter().for_each(|write| next.write(write));
                versions.iter().for_each(|&(group, version)| next.versions[usize::from(group)] = version);
                object.apply(&slot_writes(&owned(writes)), versions)
            }
            Step::Replace(writes, versions) => {
                next = Model { versions: *versions, ..Model::default() };
                writes.iter().for_each(|write| next.write(write));
                let owned = owned(writes);
                let mut writes = first.to_vec();
                writes.extend(slot_writes(&owned));
                object.replace(&writes, versions)
            }
            Step::Pin => {
                pins.push((object.pin(), model.clone()));
                Ok(())
            }
            Step::Unpin(at) => {
                if *at < pins.len() {
                    let (pinned, seen) = pins.remove(*at);
                    seen.check(&pinned);
                }
                Ok(())
            }
        };
        match result {
            Ok(()) => model = next,
            Err(ApplyError::Full { .. }) => full += 1,
            Err(error) => panic!("{error:?}"),
        }
        model.check(&object.pin());
        for write in 0..20 {
            model.check_key(&object.pin(), format!("note number {:05}", write * 37 % 400).as_bytes());
        }
    }
    for (pinned, seen) in pins {
        seen.check(&pinned);
    }
    // The other test of this process pins too, so one collection may not be enough.
    let is_clean = (0..100_000).any(|_| {
        heap.collect();
        heap.used_bytes() == object.bytes()
    });
    assert!(is_clean, "{} bytes in use, {} by the object", heap.used_bytes(), object.bytes());
    drop(object);
    assert_eq!(heap.used_bytes(), 0, "everything is given back");
    full
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_object_is_its_model(steps in vec(step(), 1..60), small in any::<bool>()) {
        run(&steps, if small { 160 << 10 } else { 4 << 20 });
    }
}

#[test]
fn the_small_arena_is_full_at_times() {
    let put = |start| Step::Apply(vec![Write::Notes(start, 200, true)], Vec::new());
    let steps: Vec<Step> = (0..20).map(|round| put(round * 200)).collect();
    assert!(run(&steps, 160 << 10) > 0);
    assert_eq!(run(&steps, 4 << 20), 0);
}
