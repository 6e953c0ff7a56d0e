//! S12: a watcher sees each version once, in order, from the first on for what it saw being made; or an explicit gap, and
//! that only when its node was cut off or slow.

use crate::process::Counts;
use kiln_engine::WatchEvent;
use kiln_protocol::message::Change;
use kiln_protocol::{GroupId, ObjectId};
use std::collections::{BTreeMap, BTreeSet};

/// What one watcher has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    versions: BTreeMap<(ObjectId, GroupId), u64>,
    created: BTreeSet<ObjectId>,
    removed: BTreeSet<ObjectId>,
}

impl Seen {
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
