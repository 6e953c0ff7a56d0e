//! S5: versions of an (object, group) are gapless and never step back.
//!
//! Looked at where the coordinator applies commits; that no copy runs ahead of it is in `s06_same_bytes.rs`.

use crate::ledger::Ledger;
use kiln_protocol::message::Part;

pub(crate) fn check(ledger: &Ledger, part: &Part) {
    let before = ledger.versions.get(&(part.object, part.group)).copied().unwrap_or_default();
    let follows = part.version.number() == before.number() + 1 && part.version > before;
    assert!(follows, "S5: group {} of {} goes from {before} to {}", part.group, part.object, part.version);
}
