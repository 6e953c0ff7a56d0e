//! S6: the same object, group and version is the same bytes, everywhere.
//!
//! A delta has the bytes of the commit that made its version, and a copy at a version has the values of that version. A node
//! with commits that were not answered shows what it hopes for; it is looked at when it has none.

use crate::ledger::{Ledger, hash};
use kiln_engine::{Entry, State};
use kiln_protocol::Version;
use kiln_protocol::message::DeltaPart;

pub(crate) fn check_delta(ledger: &Ledger, part: &DeltaPart) {
    let version = (part.object, part.group, part.version.number());
    let content = ledger.contents.get(&version).map(|content| content.writes);
    assert_eq!(content, Some(hash(&part.writes)), "S6: a delta of {version:?} is not what was committed");
}

pub(crate) fn check_copy(ledger: &Ledger, entry: &Entry) {
    if entry.state() != State::Current {
        return;
    }
    for (group, index) in entry.binding.groups().iter().zip(0..) {
        let held = Version::from_bits(entry.object.version(index));
        let newest = ledger.versions.get(&(entry.id(), *group)).copied().unwrap_or_default();
        assert!(held <= newest, "S5: a copy of group {group} of {} is at {held}, committed is {newest}", entry.id());
        let Some(content) = ledger.contents.get(&(entry.id(), *group, held.number())) else { continue };
        for (field, value) in &content.values {
            assert_eq!(field.of(entry), *value, "S6: {field:?} of {} at version {held}", entry.id());
        }
    }
}
