//! What nodes say about their transactions, and what they are told: see [`super::deadlock`].

use super::Engine;
use super::deadlock::{LockKey, LockTable, Owner, Told, WaitGraph};
use super::nodes::NodeSlot;
use super::state::State;
use kiln_protocol::limits::OWNER_LOCKS_MAX;
use kiln_protocol::message::{Mode, OwnerWait, Place, WaitEdge};
use kiln_protocol::schema::DEFAULT_GROUP;
use kiln_protocol::structure::{OwnedStructure, Rendered};
use kiln_protocol::{ObjectId, OwnerId, RequestId, ToNode};

impl LockTable for State {
    fn has_grant(&self, (object, group): LockKey, node: NodeSlot, mode: Mode) -> bool {
        self.objects.get(object).is_some_and(|object| object.locks.has_grant(group, node, mode))
    }

    fn asked(&self, (object, group): LockKey, node: NodeSlot) -> Option<Mode> {
        self.objects.get(object)?.locks.asked(group, node)
    }

    fn is_draining(&self, (object, group): LockKey, node: NodeSlot) -> bool {
        self.objects.get(object).is_some_and(|object| object.locks.is_draining(group, node))
    }

    fn is_behind(&self, (object, group): LockKey, reader: (NodeSlot, Place), writer: (NodeSlot, Place)) -> bool {
        self.objects.get(object).is_some_and(|object| object.locks.is_behind(group, reader, writer))
    }
}

impl Engine {
    /// A node's transaction waits.
    pub(super) fn owner_waits(&mut self, node: NodeSlot, wait: OwnerWait) {
        if wait.holds.len() > OWNER_LOCKS_MAX {
            if let Some(session) = self.nodes.session(node) {
                self.violation(session, "a transaction that holds too many locks");
            }
            return;
        }
        // Who waits for a lock of an object that is gone has been told so.
        if self.state.objects.get(wait.wanted.object).is_some() {
            let owner = Owner { node, id: wait.owner };
            self.with_owners(|owners, locks, out| owners.waits(owner, wait, locks, out));
        }
    }

    /// A node's transaction waits no more.
    pub(super) fn owner_goes_on(&mut self, node: NodeSlot, id: OwnerId, wait: RequestId) {
        self.with_owners(|owners, locks, out| owners.goes_on(Owner { node, id }, wait, locks, out));
    }

    /// A node asked for a lock.
    pub(super) fn owners_requested(&mut self, node: NodeSlot, lock: LockKey) {
        self.with_owners(|owners, locks, out| owners.requested(node, lock, locks, out));
    }

    /// A grant is wanted back for a writer.
    pub(super) fn owners_recalled(&mut self, lock: LockKey) {
        self.with_owners(|owners, locks, out| owners.recalled(lock, locks, out));
    }

    /// A node is gone.
    pub(super) fn owners_leave(&mut self, node: NodeSlot) {
        self.with_owners(|owners, locks, out| owners.leave(node, locks, out));
    }

    /// An object is gone.
    pub(super) fn owners_forget(&mut self, object: ObjectId) {
        self.with_owners(|owners, locks, out| owners.forget(object, locks, out));
    }

    fn with_owners(&mut self, change: impl FnOnce(&mut WaitGraph, &State, &mut Vec<Told>)) {
        let mut told = Vec::new();
        change(&mut self.owners, &self.state, &mut told);
        for told in told {
            match told {
                Told::Check { node, lock: (object, group), wait, check } => {
                    self.send(node, ToNode::CheckWait { object, group, wait, check });
                }
                Told::Deadlock { node, lock: (object, group), wait, cycle } => {
                    let cycle = cycle.into_iter().filter_map(|(owner, lock, mode)| self.wait_edge(owner, lock, mode));
                    let cycle = cycle.collect();
                    self.send(node, ToNode::Deadlock { object, group, wait, cycle });
                }
            }
        }
    }

    fn wait_edge(&self, owner: Owner, (object, group): LockKey, mode: Mode) -> Option<WaitEdge> {
        let (incarnation, node) = self.name_of(owner.node)?;
        let object = self.state.objects.get(object)?;
        let root = self.state.roots.get(object.root)?;
        let structure = root.key.parse::<OwnedStructure>().ok();
        let key = match structure.and_then(|structure| structure.render_key(object.key()).ok()) {
            Some(Rendered::Text(text)) => text,
            Some(key) => key.to_string(),
            None => format!("object {}", object.id),
        };
        Some(WaitEdge {
            node,
            incarnation,
            owner: owner.id,
            root: root.name.clone(),
            key,
            group: self
                .state
                .type_of(object)
                .group_name(group)
                .filter(|name| !name.is_empty())
                .unwrap_or(DEFAULT_GROUP)
                .into(),
            mode,
        })
    }
}
