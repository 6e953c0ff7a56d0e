//! What must be true: the values that were committed, who holds which lock, and what is destroyed.

use kiln_protocol::message::Mode;
use kiln_protocol::{CommitSeq, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

/// A field that the tasks change.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Field {
    Visits,
    Clicks,
    Balance,
}

impl Field {
    pub(crate) const ALL: [Self; 3] = [Self::Visits, Self::Clicks, Self::Balance];

    /// Its slot in the local struct.
    pub(crate) const fn slot(self) -> u16 {
        match self {
            Self::Visits => 2,
            Self::Clicks => 3,
            Self::Balance => 5,
        }
    }

    /// The local index of the lock group that guards it.
    pub(crate) const fn group(self) -> Option<usize> {
        match self {
            Self::Visits => Some(0),
            Self::Clicks => None,
            Self::Balance => Some(1),
        }
    }
}

/// A commit of a node, with what it added to which field.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) seq: CommitSeq,
    pub(crate) added: Vec<(ObjectId, Field, i64)>,
}

#[derive(Debug, Default)]
struct Holders {
    readers: usize,
    writers: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    values: BTreeMap<(ObjectId, Field), i64>,
    holders: BTreeMap<(ObjectId, usize), Holders>,
    pub(crate) destroyed: BTreeSet<ObjectId>,
    /// How much happened, so that no run passes because nothing did.
    pub(crate) commits: u64,
}

impl Model {
    pub(crate) fn value(&self, object: ObjectId, field: Field) -> i64 {
        self.values.get(&(object, field)).copied().unwrap_or_default()
    }

    pub(crate) fn committed(&mut self, made: &Made) {
        self.commits += 1;
        for (object, field, amount) in &made.added {
            *self.values.entry((*object, *field)).or_default() += amount;
        }
    }

    /// The commit died with its node.
    pub(crate) fn undo(&mut self, made: &Made) {
        for (object, field, amount) in &made.added {
            *self.values.entry((*object, *field)).or_default() -= amount;
        }
    }

    /// S1, S10.
    pub(crate) fn entered(&mut self, object: ObjectId, group: usize, mode: Mode) {
        assert!(!self.destroyed.contains(&object), "a lock of destroyed object {object} was taken");
        let holders = self.holders.entry((object, group)).or_default();
        assert_eq!(holders.writers, 0, "group {group} of {object}: entered for {mode} beside a writer");
        match mode {
            Mode::Read => holders.readers += 1,
            Mode::Write => {
                assert_eq!(holders.readers, 0, "group {group} of {object}: a writer beside readers");
                holders.writers += 1;
            }
        }
    }

    pub(crate) fn left(&mut self, object: ObjectId, group: usize, mode: Mode) {
        let holders = self.holders.get_mut(&(object, group)).unwrap();
        match mode {
            Mode::Read => holders.readers -= 1,
            Mode::Write => holders.writers -= 1,
        }
    }
}
