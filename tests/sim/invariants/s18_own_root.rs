//! S18: an id is valid only in its root: whatever a node keeps, it keeps in the root that the object was created in.

use crate::ledger::Ledger;
use kiln_engine::Entry;

pub(crate) fn check(ledger: &Ledger, entry: &Entry) {
    let root = ledger.objects.get(&entry.id()).map(|known| known.root);
    assert_eq!(root, Some(entry.root), "S18: object {} is kept in root {}", entry.id(), entry.root);
}
