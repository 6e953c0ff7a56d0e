//! What sessions contained when requests loaded them.
//!
//! A store of tower-sessions is told no more than the record to be saved, and a record has no room for a note. But it has
//! a hash map, each hash map has a hasher with keys of its own, and keeps it for as long as it lives, also when it is
//! cleared or the record gets another id. So the map's hasher tells which loaded record this is.

use crate::stored::{Base, hash};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many entries a base has at most on average when all are kept.
const ENTRIES_EACH: usize = 16;
/// How many bases are kept, where nothing is said.
pub(crate) const BASES_MAX: usize = 262_144;

/// Which loaded record it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct RecordMark(u64);

impl RecordMark {
    /// The mark of a map with this hasher.
    pub(crate) fn of(hasher: &impl std::hash::BuildHasher) -> Self {
        Self(hasher.hash_one(0_u64))
    }
}

/// The base of a record, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    Base(Arc<Base>),
    /// The record was never loaded.
    Fresh,
    /// The record was never loaded, or so many were since that its base was dropped.
    PerhapsDropped,
}

/// The bases of the records that were loaded last.
#[derive(Debug)]
pub(crate) struct Bases {
    table: Mutex<Table>,
    max: usize,
}

#[derive(Debug, Default)]
struct Table {
    bases: BTreeMap<RecordMark, Arc<Base>>,
    /// Oldest first.
    order: VecDeque<RecordMark>,
    /// Of all bases together.
    entries: usize,
    has_dropped: bool,
}

impl Bases {
    pub(crate) fn new(max: usize) -> Self {
        Self { table: Mutex::default(), max: max.max(1) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a record consists of that was loaded or saved just now.
    pub(crate) fn note(&self, mark: RecordMark, base: Base) {
        let mut table = self.table();
        table.entries += base.entries.len();
        match table.bases.insert(mark, Arc::new(base)) {
            Some(former) => table.entries -= former.entries.len(),
            None => table.order.push_back(mark),
        }
        while (table.order.len() > self.max || table.entries > self.max.saturating_mul(ENTRIES_EACH))
            && let Some(oldest) = table.order.pop_front()
        {
            let dropped = table.bases.remove(&oldest).map_or(0, |base| base.entries.len());
            table.entries -= dropped;
            table.has_dropped = true;
        }
    }

    pub(crate) fn known(&self, mark: RecordMark, key: &str) -> Known {
        let table = self.table();
        match table.bases.get(&mark) {
            Some(base) if base.key == hash(key.as_bytes()) => Known::Base(Arc::clone(base)),
            _ if table.has_dropped => Known::PerhapsDropped,
            _ => Known::Fresh,
        }
    }

    /// The base that a record has, of whatever session.
    pub(crate) fn of(&self, mark: RecordMark) -> Option<Arc<Base>> {
        self.table().bases.get(&mark).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::RandomState;

    #[test]
    fn a_mark_stays_with_its_map_and_is_no_others() {
        let (one, other) = (RandomState::new(), RandomState::new());
        assert_eq!(RecordMark::of(&one), RecordMark::of(&one.clone()));
        assert_ne!(RecordMark::of(&one), RecordMark::of(&other));
    }

    #[test]
    fn the_oldest_base_goes_first_and_that_is_known() {
        let bases = Bases::new(2);
        let marks: Vec<_> = (0..3).map(|_| RecordMark::of(&RandomState::new())).collect();
        let base = |key: &str| Base::of(key, &[("k".to_owned(), vec![7])].into());
        bases.note(marks[0], base("a"));
        bases.note(marks[1], base("b"));
        assert!(matches!(bases.known(marks[0], "a"), Known::Base(_)));
        assert!(matches!(bases.known(marks[0], "b"), Known::Fresh), "the base is another session's");
        assert!(matches!(bases.known(marks[2], "c"), Known::Fresh));
        bases.note(marks[2], base("c"));
        assert!(matches!(bases.known(marks[0], "a"), Known::PerhapsDropped));
        assert!(matches!(bases.known(marks[2], "c"), Known::Base(_)));
        // A large one takes the room of many.
        let large = |entries: usize| Base::of("d", &(0..entries).map(|name| (name.to_string(), vec![])).collect());
        bases.note(marks[2], large(2 * ENTRIES_EACH - 1));
        assert!(matches!(bases.known(marks[1], "b"), Known::Base(_)));
        bases.note(marks[2], large(2 * ENTRIES_EACH));
        assert!(matches!(bases.known(marks[1], "b"), Known::PerhapsDropped));
        assert!(matches!(bases.known(marks[2], "d"), Known::Base(_)));
    }
}
