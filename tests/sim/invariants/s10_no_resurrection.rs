//! S10: nothing resurrects a destroyed object: no grant, no record, no commit, no lock, and no other object with its id.

use crate::grants::Grants;
use crate::ledger::Ledger;
use crate::process::Process;
use kiln_engine::State;
use kiln_protocol::ObjectId;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn check(ledger: &Ledger, object: ObjectId, what: &str) {
    assert!(!ledger.is_removed(object), "S10: {object} is {what}, and was destroyed");
}

/// Nothing is removed under its holder.
pub(crate) fn removed(grants: &Grants, object: ObjectId) {
    let held: Vec<_> = grants.all().filter(|((of, _), _)| *of == object).collect();
    assert!(held.is_empty(), "S10: {object} is removed, and held: {held:?}");
}

/// How things were when a connection began: what was removed, and how many keys each object has had.
#[derive(Debug)]
pub(crate) struct Before {
    removed: BTreeSet<ObjectId>,
    keys: BTreeMap<ObjectId, usize>,
}

impl Before {
    pub(crate) fn now(ledger: &Ledger) -> Self {
        Self {
            removed: ledger.objects.keys().copied().filter(|object| ledger.is_removed(*object)).collect(),
            keys: ledger.objects.iter().map(|(object, known)| (*object, known.old_keys.len())).collect(),
        }
    }

    /// A node that is back has heard of everything that was removed or renamed before.
    pub(crate) fn check_back(&self, ledger: &Ledger, process: &Process) {
        let there = process.node().cache.all().into_iter().filter(|entry| entry.state() != State::Destroyed);
        for entry in there {
            let (place, object) = (process.place, entry.id());
            assert!(!self.removed.contains(&object), "S10: node {place} is back, and keeps {object}, which is gone");
            let (Some(known), Some(before)) = (ledger.objects.get(&object), self.keys.get(&object)) else { continue };
            let mut keys = known.old_keys[(*before).min(known.old_keys.len())..].iter().chain([&known.key]);
            let is_known = keys.any(|key| **key == *entry.key());
            assert!(is_known, "L4: node {place} is back, and keeps {object} under a key that it had before");
        }
    }
}

pub(crate) fn created(ledger: &Ledger, object: ObjectId) {
    assert!(!ledger.objects.contains_key(&object), "S10: {object} is created for the second time");
}
