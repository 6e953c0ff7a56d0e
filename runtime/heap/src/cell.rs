//! The word of an object: where its table is, and whose turn it is to write.
//!
//! Readers load it and never wait. Writers take turns through one bit of it, so that several of them can publish one
//! object without losing a slot. Knows nothing about what a table is; the loom model runs this very code.

use crate::sync::{AtomicU64, Ordering, pause};

/// Set while somebody writes. Tables are aligned to 16 bytes, so an offset leaves it free.
const WRITER: u64 = 1;
const UNIT_SHIFT: u32 = 4;

/// The table of an object, and the turn to replace it.
///
/// # Invariants
/// 1. The offset is that of a table which was complete before it was published here.
/// 2. Only who set [`WRITER`] changes the word, until it clears it with the next table or the same.
#[derive(Debug)]
pub(crate) struct Word(AtomicU64);

impl Word {
    /// A word that leads to a first, complete table.
    pub(crate) fn new(unit: u32) -> Self {
        Self(AtomicU64::new(u64::from(unit) << UNIT_SHIFT))
    }

    /// The unit of the present table. Whoever is pinned may read that table.
    #[inline]
    pub(crate) fn load(&self) -> u32 {
        // Acquire: pairs with the release in `Turn::publish`, so the table's bytes are seen complete.
        unit(self.0.load(Ordering::Acquire))
    }

    /// Waits for the turn to write. Held for a copy of the table, by everybody.
    #[inline]
    pub(crate) fn turn(&self) -> Turn<'_> {
        let mut round = 0;
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let free = word & !WRITER;
            // Acquire: pairs with the releases in `Turn::publish` and `Turn::drop`: the previous writer's table is
            // seen complete, and so is everything that writer did to it.
            match self.0.compare_exchange(free, free | WRITER, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Turn { word: &self.0, unit: unit(free) },
                Err(now) => word = now,
            }
            pause(&mut round);
        }
    }
}

/// The turn to replace the table. Dropped without [`Turn::publish`] it leaves the table that was there.
///
/// # Invariants
/// 1. [`WRITER`] is set in `word` on behalf of this value, and `unit` is the word's table.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    word: &'a AtomicU64,
    unit: u32,
}

impl Turn<'_> {
    /// The unit of the present table. It stays the present table, hence alive, until the turn ends: no pin is needed.
    #[inline]
    pub(crate) const fn present(&self) -> u32 {
        self.unit
    }

    /// Publishes a complete table and ends the turn. Returns the unit of the replaced one, which the caller retires.
    #[inline]
    pub(crate) fn publish(self, unit: u32) -> u32 {
        let replaced = self.unit;
        // Release: pairs with the acquire in `Word::load` and in `Word::turn`. Also clears the bit.
        self.word.store(u64::from(unit) << UNIT_SHIFT, Ordering::Release);
        std::mem::forget(self);
        replaced
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Release: pairs with the acquire in `Word::turn`.
        self.word.store(u64::from(self.unit) << UNIT_SHIFT, Ordering::Release);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a word holds a 32-bit unit and four bits below it")]
const fn unit(word: u64) -> u32 {
    (word >> UNIT_SHIFT) as u32
}

/// Every interleaving of a few writers and a reader, over a stand-in for the arena and its epochs:
/// `RUSTFLAGS="--cfg loom" cargo test -p kiln-heap --release --lib cell`
#[cfg(all(test, loom))]
#[expect(unsafe_code, reason = "reads and writes the stand-in's tables")]
mod model {
    use super::Word;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    const TABLES: usize = 5;
    const FREED: u64 = u64::MAX;

    /// Slots come in pairs that are always written together, so that a mixed table shows.
    type Slots = [u64; 6];

    struct Heap {
        word: Word,
        tables: [UnsafeCell<Slots>; TABLES],
        /// Which table is next does not matter here, so loom need not know of it.
        next: std::sync::atomic::AtomicUsize,
        pins: AtomicUsize,
    }

    impl Heap {
        fn new() -> Arc<Self> {
            let tables = std::array::from_fn(|_| UnsafeCell::new([0; 6]));
            Arc::new(Self { word: Word::new(0), tables, next: 1.into(), pins: AtomicUsize::new(0) })
        }

        /// As `Object::apply` does it: take the turn, copy, change, publish. Returns the table to retire.
        fn apply(&self, pair: usize, amount: u64) -> u32 {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            let turn = self.word.turn();
            let mut slots = self.table(turn.present(), |slots| *slots);
            slots[pair] += amount;
            slots[pair + 1] += amount;
            self.write(unit, slots);
            turn.publish(u32::try_from(unit).unwrap())
        }

        /// As a write that finds the arena full: the turn is dropped.
        fn fail(&self) {
            drop(self.word.turn());
        }

        fn read(&self) -> Slots {
            self.table(self.word.load(), |slots| *slots)
        }

        /// Stands for the epoch: frees the table when nobody is pinned, else never. Both sides change `pins`, so that
        /// a reader that pins after this sees the new word.
        fn retire(&self, unit: u32) {
            if self.pins.fetch_add(0, Ordering::AcqRel) == 0 {
                self.write(unit as usize, [FREED; 6]);
            }
        }

        fn read_pinned(&self) -> Slots {
            self.pins.fetch_add(1, Ordering::AcqRel);
            let slots = self.read();
            self.pins.fetch_sub(1, Ordering::AcqRel);
            slots
        }

        fn table<R>(&self, unit: u32, read: impl FnOnce(&Slots) -> R) -> R {
            // SAFETY: loom reports a write that is not ordered with this read.
            self.tables[unit as usize].with(|slots| read(unsafe { &*slots }))
        }

        fn write(&self, unit: usize, next: Slots) {
            // SAFETY: loom reports any access that is not ordered with this write.
            self.tables[unit].with_mut(|slots| unsafe { *slots = next });
        }
    }

    fn assert_whole(slots: Slots) {
        for pair in slots.chunks(2) {
            assert_eq!(pair[0], pair[1], "a mixed table");
            assert_ne!(pair[0], FREED, "a freed table");
        }
    }

    fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(model);
    }

    fn spawn(heap: &Arc<Heap>, run: impl FnOnce(&Heap) + 'static) -> thread::JoinHandle<()> {
        let heap = Arc::clone(heap);
        thread::spawn(move || run(&heap))
    }

    #[test]
    fn two_groups_and_a_delta_lose_no_slot() {
        explore(3, || {
            let heap = Heap::new();
            let group = spawn(&heap, |heap| {
                heap.apply(0, 1);
            });
            let other = spawn(&heap, |heap| {
                heap.apply(2, 10);
            });
            heap.apply(4, 100);
            group.join().unwrap();
            other.join().unwrap();
            assert_eq!(heap.read(), [1, 1, 10, 10, 100, 100]);
        });
    }

    // Loom remembers one last access of each atomic, so a writer's first load hides a reader's load before it: the
    // reader comes last here, and loom gives it each table that it may see.
    #[test]
    fn a_reader_sees_whole_tables_and_a_failed_writer_blocks_nobody() {
        explore(3, || {
            let heap = Heap::new();
            let failing = spawn(&heap, Heap::fail);
            let reader = spawn(&heap, |heap| {
                let seen = [heap.read(), heap.read()];
                seen.into_iter().for_each(assert_whole);
                assert!(seen[0][0] <= seen[1][0], "a step back");
            });
            heap.apply(0, 1);
            failing.join().unwrap();
            reader.join().unwrap();
            assert_eq!(heap.read()[0], 1);
        });
    }

    #[test]
    fn a_pinned_reader_sees_no_freed_table() {
        explore(3, || {
            let heap = Heap::new();
            let writers = [(0, 1), (2, 10)].map(|(pair, amount)| {
                spawn(&heap, move |heap| {
                    let replaced = heap.apply(pair, amount);
                    heap.retire(replaced);
                })
            });
            assert_whole(heap.read_pinned());
            for writer in writers {
                writer.join().unwrap();
            }
            assert_eq!(heap.read_pinned()[..4], [1, 1, 10, 10]);
        });
    }
}
