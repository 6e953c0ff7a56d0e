//! What tools ask for: status, roots, locks. And the registry of types, which programs ask before their first use.

use super::Engine;
use super::grants::Locks;
use super::lock::{Lock, Party};
use super::nodes::NodeSlot;
use super::object::Object;
use super::roots::Wanted;
use bytes::Bytes;
use kiln_protocol::limits::LOCKS_PAGE_MAX;
use kiln_protocol::message::{LockInfo, LockParty, Mode, NodeInfo, RootInfo, RootOptions, Status};
use kiln_protocol::schema::TypeDescription;
use kiln_protocol::{Failure, GroupId, RequestId, ToCoordinator, ToNode};
use std::cmp::Reverse;
use std::time::Duration;

/// Objects that are looked at for one answer to `Locks`, besides those that somebody waits for.
const OBJECTS_SEEN_MAX: usize = 1 << 14;

impl Engine {
    pub(super) fn open_root(
        &mut self,
        node: NodeSlot,
        request: RequestId,
        name: &str,
        key: &str,
        description: &TypeDescription,
        options: RootOptions,
    ) {
        let wanted = Wanted { name, key, type_name: &description.name, options };
        match self.register(&wanted, description) {
            Ok(opened) => self.answer(node, opened(request)),
            Err(failure) => self.fail(node, request, failure),
        }
    }

    /// Registers what is new; nothing when anything is refused.
    fn register(
        &mut self,
        wanted: &Wanted<'_>,
        description: &TypeDescription,
    ) -> Result<impl FnOnce(RequestId) -> ToNode + use<>, Failure> {
        if self.stopping {
            return Err(Failure::Stopping);
        }
        wanted.check()?;
        let schema = &self.state.schema;
        let entries = schema.decide(description, self.settings.schema_bytes_max)?;
        let type_id = schema.find(&description.name).map_or_else(|| schema.next_type(), |of| of.info().id);
        let root = self.state.roots.decide(schema, wanted, type_id)?;
        for entry in entries.into_iter().chain(root) {
            self.append(entry);
        }
        let binding = self.state.schema.binding(description);
        let root = self.state.roots.find(wanted.name);
        match (root, binding) {
            (Some(root), Some(binding)) => Ok(move |request| ToNode::RootOpened { request, root, binding }),
            _ => Err(Failure::Stopping),
        }
    }

    pub(super) fn status(&mut self, node: NodeSlot, request: RequestId) {
        let nodes = self.nodes.iter().map(|(_, node)| NodeInfo {
            incarnation: node.incarnation,
            name: node.name.clone(),
            role: node.role,
            attached_ms: ms(self.now.saturating_sub(node.attached)),
            interest: node.interest,
            grants: node.grants,
            applied: self.state.applied(node.incarnation),
        });
        let status = Status {
            version: self.settings.version.clone(),
            epoch: self.settings.epoch,
            uptime_ms: ms(self.now),
            store: self.settings.store.clone(),
            nodes: nodes.collect(),
            roots: self.state.roots.len() as u64,
            objects: self.state.objects.len().into(),
            object_bytes: self.state.object_bytes,
            commits: self.totals.commits,
            commits_refused: self.totals.commits_refused,
            grants: self.totals.grants,
            recalls: self.totals.recalls,
        };
        self.answer(node, ToNode::Status { request, status });
    }

    pub(super) fn list_roots(&mut self, node: NodeSlot, request: RequestId) {
        let rows = self.state.roots.iter().filter_map(|root| {
            let type_info = self.state.schema.get(root.type_id)?.info().clone();
            Some(RootInfo {
                root: root.id,
                name: root.name.clone(),
                key: root.key.clone(),
                objects: root.keys.len() as u64,
                options: root.options,
                type_info,
            })
        });
        let roots = rows.collect();
        self.answer(node, ToNode::Roots { request, roots });
    }

    /// The locks that somebody waits for, and as many others as a look at some objects finds; busiest first.
    pub(super) fn list_locks(&mut self, node: NodeSlot, request: RequestId) {
        let mut locks = Vec::new();
        for (id, group) in self.contended.iter().take(LOCKS_PAGE_MAX) {
            if let Some(object) = self.state.objects.get(*id) {
                let used = object.locks.used();
                let lock = used.iter().find(|(of, _)| of == group);
                locks.extend(lock.map(|(group, lock)| self.lock_info(object, *group, lock)));
            }
        }
        let mut seen = 0;
        for chunk in 0..self.state.objects.chunks() {
            if locks.len() >= LOCKS_PAGE_MAX || seen >= OBJECTS_SEEN_MAX {
                break;
            }
            for object in self.state.objects.chunk(chunk) {
                seen += 1;
                if matches!(object.locks, Locks::Free) {
                    continue;
                }
                let used = object.locks.used();
                let others = used.iter().filter(|(group, _)| !self.contended.contains(&(object.id, *group)));
                locks.extend(others.map(|(group, lock)| self.lock_info(object, *group, lock)));
            }
        }
        locks.retain(|lock| !lock.holders.is_empty() || !lock.waiters.is_empty());
        locks.truncate(LOCKS_PAGE_MAX);
        locks.sort_by_key(|lock| (Reverse(lock.waiters.len()), Reverse(lock.hand_offs)));
        let grants: u64 = self.nodes.iter().map(|(_, node)| node.grants).sum();
        let shown: usize = locks.iter().map(|lock| lock.holders.len()).sum();
        let left_out = grants.saturating_sub(shown as u64);
        self.answer(node, ToNode::Locks { request, locks, left_out });
    }

    fn lock_info(&self, object: &Object, group: GroupId, lock: &Lock) -> LockInfo {
        let of = self.state.type_of(object);
        let root = self.state.roots.get(object.root);
        let party = |party: Party, mode: Mode, since: Duration| {
            let node = match party {
                Party::Operation(_) => None,
                Party::Node(node) => Some(self.name_of(node)?),
            };
            let age_ms = ms(self.now.saturating_sub(since));
            Some(LockParty { node, mode, age_ms })
        };
        let holders = lock.holders().iter();
        let waiters = lock.queue().iter();
        LockInfo {
            root: root.map_or_else(String::new, |root| root.name.clone()),
            key: Bytes::copy_from_slice(object.key()),
            object: object.id,
            group: of.group_name(group).unwrap_or_default().to_owned(),
            holders: holders.filter_map(|holder| party(holder.party, holder.mode, holder.since)).collect(),
            waiters: waiters.filter_map(|waiter| party(waiter.party, waiter.mode, waiter.since)).collect(),
            hand_offs: lock.hand_offs(),
            cached: lock.is_cached(),
        }
    }

    /// An observer asked for what only a node may do.
    pub(super) fn refuse_observer(&mut self, node: NodeSlot, message: &ToCoordinator) {
        match *message {
            ToCoordinator::OpenRoot { request, .. }
            | ToCoordinator::Fetch { request, .. }
            | ToCoordinator::Refetch { request, .. }
            | ToCoordinator::Insert { request, .. }
            | ToCoordinator::Remove { request, .. }
            | ToCoordinator::Rename { request, .. } => self.fail(node, request, Failure::NotANode),
            ToCoordinator::Acquire { request, object, group, .. } => {
                let failed = ToNode::LockFailed { request, object, group, failure: Failure::NotANode };
                self.answer(node, failed);
            }
            // It has nothing to release, withdraw or forget.
            _ => {}
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
