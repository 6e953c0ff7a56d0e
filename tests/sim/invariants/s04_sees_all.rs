//! S4: a new holder sees every commit of the holders before it.
//!
//! Under a lock, the copy shows what the coordinator has applied and what its own node has committed since. And whatever is
//! applied goes on from the value before it: an update that had not seen another one would take it back.

use crate::ledger::{Ledger, Made, Step};
use crate::process::Process;
use crate::program::Field;
use kiln_engine::Entry;
use std::ops::Range;

pub(crate) fn check_values(ledger: &Ledger, process: &Process, entry: &Entry, groups: &Range<usize>) {
    if !ledger.has_sessions(entry.root) {
        return;
    }
    for field in Field::ALL {
        let is_held = field.group().is_some_and(|group| groups.contains(&group));
        if is_held && !process.is_shaken(entry.id(), field) {
            let expected = ledger.value(entry.id(), field) + process.undecided(entry.id(), field);
            assert_eq!(field.of(entry), expected, "S4: {field:?} of {} under its lock", entry.id());
        }
    }
}

pub(crate) fn check_commit(made: &Made, steps: &[Step]) {
    for step in steps {
        let Step { object, field, before, after } = *step;
        let added = made.added.iter().filter(|(of, to, _)| (*of, *to) == (object, field));
        let added: i64 = added.map(|(_, _, amount)| *amount).sum();
        assert_eq!(after, before + added, "S4: {field:?} of {object} was {before}, {added} was added");
    }
}
