//! S10: nothing resurrects a destroyed object: no grant, no record, no commit, no lock, and no other object with its id.

use crate::ledger::Ledger;
use kiln_protocol::ObjectId;

pub(crate) fn check(ledger: &Ledger, object: ObjectId, what: &str) {
    assert!(!ledger.is_removed(object), "S10: {object} is {what}, and was destroyed");
}

pub(crate) fn created(ledger: &Ledger, object: ObjectId) {
    assert!(!ledger.objects.contains_key(&object), "S10: {object} is created for the second time");
}
