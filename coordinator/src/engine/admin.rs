//! What tools ask for: status, roots, locks. And the registry of types, which programs ask before their first use.

use super::Engine;
use super::lock::{Lock, Party};
use super::nodes::NodeSlot;
use super::object::Object;
use super::roots::Wanted;
use super::schema::{Type, field_bytes};
use bytes::Bytes;
use kiln_protocol::limits::{FRAME_BYTES_MAX, LOCKS_PAGE_MAX};
use kiln_protocol::message::{LockInfo, LockParty, Mode, NodeInfo, RootInfo, RootOptions, Status};
use kiln_protocol::schema::{RegisteredType, TypeDescription};
use kiln_protocol::{Failure, GroupId, RequestId, ToCoordinator, ToNode};
use std::cmp::Reverse;
use std::time::Duration;

/// Objects that are looked at for one answer to `Locks`, besides those that somebody waits for.
const OBJECTS_SEEN_MAX: usize = 1 << 14;
/// Text in one answer, so that it fits into a frame.
const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;
/// Holders, and waiters, that are named for one lock.
const PARTIES_MAX: usize = 32;

impl Engine {
    pub(super) fn open_root(
        &mut self,
        node: NodeSlot,
        request: RequestId,
        name: &str,
        key: &str,
        description: &TypeDescription,
        options: &RootOptions,
    ) {
        let wanted = Wanted { name, key, type_name: &description.name, options };
        match self.register(node, &wanted, description) {
            Ok(opened) => {
                self.wait_for_schema();
                self.answer(node, opened(request));
            }
            Err(failure) => self.fail(node, request, failure),
        }
    }

    /// Registers what is new; nothing when anything is refused.
    fn register(
        &mut self,
        node: NodeSlot,
        wanted: &Wanted<'_>,
        description: &TypeDescription,
    ) -> Result<impl FnOnce(RequestId) -> ToNode + use<>, Failure> {
        if self.stopping {
            return Err(Failure::Stopping);
        }
        wanted.check()?;
        let by = self.nodes.get(node).map(|node| node.incarnation);
        let schema = &self.state.schema;
        let entries = schema.decide(by, description, self.settings.schema_bytes_max)?;
        let type_id = schema.find(&description.name).map_or_else(|| schema.next_type(), |of| of.info().id);
        let root = self.state.roots.decide(schema, by, wanted, type_id)?;
        let entries: Vec<_> = entries.into_iter().chain(root).collect();
        if !entries.is_empty() {
            self.check_log()?;
        }
        for entry in entries {
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
            away_ms: node.away.map(|since| ms(self.now.saturating_sub(since))),
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

    /// The roots, as many as fit into an answer: types that are too long for it are listed without their fields.
    pub(super) fn list_roots(&mut self, node: NodeSlot, request: RequestId) {
        let mut left = ANSWER_BYTES_MAX;
        let mut roots = Vec::new();
        for root in self.state.roots.iter() {
            let Some(of) = self.state.schema.get(root.type_id).map(Type::info) else {
                continue;
            };
            let mut row_bytes = root.name.len() + root.key.len() + of.name.len();
            let fields_bytes = of.fields.iter().map(|field| field_bytes(&field.description)).sum::<usize>();
            let with_fields = row_bytes + fields_bytes <= left;
            row_bytes += if with_fields { fields_bytes } else { 0 };
            if row_bytes > left {
                break;
            }
            left -= row_bytes;
            roots.push(RootInfo {
                root: root.id,
                name: root.name.clone(),
                key: root.key.clone(),
                objects: root.keys.len() as u64,
                options: root.options.clone(),
                type_info: RegisteredType {
                    id: of.id,
                    name: of.name.clone(),
                    fields: if with_fields { of.fields.clone() } else { Vec::new() },
                },
            });
        }
        self.answer(node, ToNode::Roots { request, roots });
    }

    /// The locks that somebody waits for, and as many others as a look at some objects finds; busiest first. What is
    /// left out is counted by grants.
    pub(super) fn list_locks(&mut self, node: NodeSlot, request: RequestId) {
        let mut listing = Listing::default();
        for (id, group) in &self.contended {
            if let Some(object) = self.state.objects.get(*id) {
                let used = object.locks.used();
                let lock = used.iter().find(|(of, _)| of == group);
                lock.inspect(|(group, lock)| listing.add(self, object, *group, lock));
            }
            if listing.is_full() {
                break;
            }
        }
        let mut seen = 0;
        for chunk in 0..self.state.objects.chunks() {
            if listing.is_full() || seen >= OBJECTS_SEEN_MAX {
                break;
            }
            for object in self.state.objects.chunk(chunk) {
                seen += 1;
                let used = object.locks.used();
                let others = used.iter().filter(|(group, _)| !self.contended.contains(&(object.id, *group)));
                others.for_each(|(group, lock)| listing.add(self, object, *group, lock));
            }
        }
        let mut locks = listing.locks;
        locks.sort_by_key(|lock| (Reverse(lock.waiters.len()), Reverse(lock.hand_offs)));
        let grants: u64 = self.nodes.iter().map(|(_, node)| node.grants).sum();
        let left_out = grants.saturating_sub(listing.grants);
        self.answer(node, ToNode::Locks { request, locks, left_out });
    }

    fn lock_info(&self, object: &Object, group: GroupId, lock: &Lock) -> LockInfo {
        let of = self.state.type_of(object);
        let root = self.state.roots.get(object.root);
        let party = |party: Party, mode: Mode, since: Duration| {
            let (node, operation) = match party {
                Party::Operation(id) => self.operations.of(id).map(|(node, what)| (node, Some(what.to_owned())))?,
                Party::Node(node) => (Some(node), None),
            };
            let age_ms = ms(self.now.saturating_sub(since));
            // The grant of a node that left is nobody's.
            let node = node.map(|node| self.name_of(node).ok_or(())).transpose().ok()?;
            Some(LockParty { node, operation, mode, age_ms })
        };
        let holders = lock.holders().iter().filter_map(|holder| party(holder.party, holder.mode, holder.since));
        let waiters = lock.queue().iter().filter_map(|waiter| party(waiter.party, waiter.mode, waiter.since));
        LockInfo {
            root: root.map_or_else(String::new, |root| root.name.clone()),
            key: Bytes::copy_from_slice(object.key()),
            object: object.id,
            group: of.group_name(group).unwrap_or_default().to_owned(),
            holders: holders.take(PARTIES_MAX).collect(),
            waiters: waiters.take(PARTIES_MAX).collect(),
            hand_offs: lock.hand_offs(),
            cached: lock.is_cached(),
        }
    }

    /// An observer asked for what only a node may do.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what needs no answer gets none")]
    pub(super) fn refuse_observer(&mut self, node: NodeSlot, message: &ToCoordinator) {
        match *message {
            ToCoordinator::OpenRoot { request, .. }
            | ToCoordinator::Fetch { request, .. }
            | ToCoordinator::Refetch { request, .. }
            | ToCoordinator::Insert { request, .. }
            | ToCoordinator::Remove { request, .. }
            | ToCoordinator::Rename { request, .. }
            | ToCoordinator::Listen { request, .. }
            | ToCoordinator::EndListeners { request, .. } => self.fail(node, request, Failure::NotANode),
            ToCoordinator::Acquire { request, object, group, .. } => {
                let failed = ToNode::LockFailed { request, object, group, failure: Failure::NotANode };
                self.answer(node, failed);
            }
            // It has nothing to release, withdraw or forget.
            _ => {}
        }
    }
}

/// Rows of an answer to `Locks`.
#[derive(Default)]
struct Listing {
    locks: Vec<LockInfo>,
    bytes: usize,
    /// Grants of the locks that are listed.
    grants: u64,
}

impl Listing {
    const fn is_full(&self) -> bool {
        self.locks.len() >= LOCKS_PAGE_MAX || self.bytes >= ANSWER_BYTES_MAX
    }

    fn add(&mut self, engine: &Engine, object: &Object, group: GroupId, lock: &Lock) {
        if self.is_full() {
            return;
        }
        let info = engine.lock_info(object, group, lock);
        if info.holders.is_empty() && info.waiters.is_empty() {
            return;
        }
        let parties = info.holders.iter().chain(&info.waiters);
        let names: usize = parties.map(|party| party.node.as_ref().map_or(0, |(_, name)| name.len())).sum();
        self.bytes += info.root.len() + info.key.len() + info.group.len() + names;
        self.grants += lock.holders().len() as u64;
        self.locks.push(info);
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
