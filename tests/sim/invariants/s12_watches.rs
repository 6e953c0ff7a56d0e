//! S12: a watcher sees each version once, in order, from the first on for what it saw being made; or an explicit gap, and
//! that only when its node was cut off or slow.

use crate::ledger::Ledger;
use crate::process::Counts;
use kiln_engine::WatchEvent;
use kiln_protocol::message::Change;
use kiln_protocol::{GroupId, ObjectId, RootId};
use std::collections::{BTreeMap, BTreeSet};

/// What one watcher has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    versions: BTreeMap<(ObjectId, GroupId), u64>,
    created: BTreeSet<ObjectId>,
    removed: BTreeSet<ObjectId>,
}

impl Seen {
    /// Whether it was told of everything that happened in its root in that time.
    pub(crate) fn check_whole(&self, ledger: &Ledger, (root, since, until): (RootId, u64, u64)) {
        let is_due = |at: u64| since < at && at < until;
        for (object, known) in ledger.objects.iter().filter(|(_, known)| known.root == root) {
            let removed = known.removed.is_some_and(is_due);
            assert!(!removed || self.removed.contains(object), "S12: nobody is told that {object} was removed");
        }
        for ((object, group), at) in ledger.changed.iter().filter(|(_, at)| is_due(**at)) {
            let version = ledger.versions.get(&(*object, *group)).copied().unwrap_or_default().number();
            let seen = self.versions.get(&(*object, *group)).copied();
            let is_of_root = ledger.objects.get(object).is_some_and(|known| known.root == root);
            let told = !is_of_root || seen.is_some_and(|seen| seen >= version);
            assert!(told, "S12: version {version} of group {group} of {object}, made at {at}, is not told: {seen:?}");
        }
    }

    /// Returns whether it is a gap.
    pub(crate) fn told(&mut self, counts: &Counts, event: &WatchEvent) -> bool {
        let object = event.object;
        if event.change == Change::Gap {
            let was_slow = counts.cuts.get() > 0 || counts.lapses.get() > 0 || counts.was_behind.get();
            assert!(was_slow, "S12: a gap, although nobody was slow");
            self.versions.clear();
            self.created.clear();
            return true;
        }
        assert!(!self.removed.contains(&object), "S12: {event:?} after its object was removed");
        match &event.change {
            Change::Created => assert!(self.created.insert(object), "S12: {object} was created twice"),
            Change::Updated { group, version, .. } => {
                let now = version.number();
                let before = self.versions.insert((object, *group), now);
                let before = before.or_else(|| self.created.contains(&object).then_some(0));
                assert!(before.is_none_or(|before| now == before + 1), "S12: {event:?} after version {before:?}");
            }
            Change::Removed | Change::Expired => drop(self.removed.insert(object)),
            Change::Renamed { .. } | Change::Missed { .. } | Change::Gap => {}
        }
        false
    }
}
