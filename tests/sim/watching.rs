//! A watcher: each version once, in order, from the first on for what it saw being made (S12).

use crate::node::SimNode;
use kiln_engine::{WatchEvent, WatchQueue};
use kiln_protocol::message::{Change, WatchTarget};
use kiln_protocol::{GroupId, ObjectId, RootId, WatchId};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) struct Watching {
    node: Rc<SimNode>,
    id: WatchId,
    queue: Arc<WatchQueue>,
    versions: BTreeMap<(ObjectId, GroupId), u64>,
    created: BTreeSet<ObjectId>,
    removed: BTreeSet<ObjectId>,
}

impl Watching {
    /// Starts a watch; the ticket is for its answer.
    pub(crate) fn start(
        node: &Rc<SimNode>,
        root: RootId,
    ) -> (Self, Arc<kiln_engine::Ticket<kiln_engine::Answer<bool>>>) {
        let (id, queue, ticket) = node.node.watch(WatchTarget::Root(root));
        let watching = Self {
            node: Rc::clone(node),
            id,
            queue,
            versions: BTreeMap::new(),
            created: BTreeSet::new(),
            removed: BTreeSet::new(),
        };
        (watching, ticket)
    }

    /// Takes what has arrived.
    pub(crate) fn look(&mut self) {
        while let Poll::Ready(Some(event)) = self.queue.poll_next(&Context::from_waker(Waker::noop())) {
            self.told(&event);
        }
    }

    fn told(&mut self, event: &WatchEvent) {
        let object = event.object;
        assert!(!self.removed.contains(&object), "{event:?} after its object was removed");
        match &event.change {
            Change::Created => assert!(self.created.insert(object), "{object} was created twice"),
            Change::Updated { group, version, .. } => {
                let now = version.number();
                let before = self.versions.insert((object, *group), now);
                let before = before.or_else(|| self.created.contains(&object).then_some(0));
                assert!(before.is_none_or(|before| now == before + 1), "{event:?} after version {before:?}");
            }
            Change::Removed => drop(self.removed.insert(object)),
            Change::Renamed { .. } => {}
            Change::Gap => {
                let was_slow = self.node.cuts.get() > 0 || self.node.was_behind.get();
                assert!(was_slow, "a gap, although nobody was slow");
                self.versions.clear();
                self.created.clear();
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.node.node.unwatch(self.id);
    }
}
