//! S10: nothing resurrects a destroyed object: no grant, no record, no commit, no lock, and no other object with its id.

use crate::grants::Grants;
use crate::ledger::Ledger;
use crate::process::Process;
use kiln_engine::State;
use kiln_protocol::ObjectId;
use std::collections::BTreeSet;

pub(crate) fn check(ledger: &Ledger, object: ObjectId, what: &str) {
    assert!(!ledger.is_removed(object), "S10: {object} is {what}, and was destroyed");
}

/// Nothing is removed under its holder.
pub(crate) fn removed(grants: &Grants, object: ObjectId) {
    let held: Vec<_> = grants.all().filter(|((of, _), _)| *of == object).collect();
    assert!(held.is_empty(), "S10: {object} is removed, and held: {held:?}");
}

/// A node that is back has heard of everything that was removed before.
pub(crate) fn check_back(process: &Process, removed: &BTreeSet<ObjectId>) {
    for entry in process.node().cache.all() {
        let is_there = entry.state() != State::Destroyed && removed.contains(&entry.id());
        assert!(!is_there, "S10: node {} is back, and keeps {}, which is gone", process.place, entry.id());
    }
}

pub(crate) fn created(ledger: &Ledger, object: ObjectId) {
    assert!(!ledger.objects.contains_key(&object), "S10: {object} is created for the second time");
}
