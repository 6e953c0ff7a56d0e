//! Watches: nodes and observers that are told what happens to an object, or to every object of a root.
//!
//! Events follow the delta of the same commit in the same stream, and go to the writer's node as well.

use super::Engine;
use super::commit::Changed;
use super::nodes::{NodeSlot, Nodes};
use super::schema::at_most;
use super::state::State;
use bytes::Bytes;
use kiln_protocol::limits::WATCHES_MAX;
use kiln_protocol::message::{Change, DeltaPart, WatchTarget};
use kiln_protocol::{Failure, FieldId, Incarnation, ObjectId, RequestId, RootId, ToNode, WatchId, Writes};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
struct Watcher {
    node: NodeSlot,
    watch: WatchId,
    with_writes: bool,
}

/// What is said about an object, and to whom.
#[derive(Debug)]
pub(super) struct Notice {
    watchers: Vec<Watcher>,
    object: ObjectId,
    /// The key it has, or had.
    key: Bytes,
    writer: Option<(Incarnation, String)>,
}

/// All watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    roots: BTreeMap<RootId, Vec<Watcher>>,
    objects: BTreeMap<ObjectId, Vec<Watcher>>,
}

impl Watches {
    /// Whether any root is watched.
    pub(super) fn any_root(&self) -> bool {
        !self.roots.is_empty()
    }

    fn add(&mut self, watcher: Watcher, target: &WatchTarget) {
        match target {
            WatchTarget::Root(root) => self.roots.entry(*root).or_default().push(watcher),
            WatchTarget::Object(object) => self.objects.entry(*object).or_default().push(watcher),
        }
    }

    /// Ends a watch.
    pub(super) fn remove(&mut self, node: NodeSlot, watch: WatchId, target: &WatchTarget, state: &mut State) {
        let other = |watcher: &Watcher| (watcher.node, watcher.watch) != (node, watch);
        match target {
            WatchTarget::Root(root) => {
                if let Some(watchers) = self.roots.get_mut(root) {
                    watchers.retain(other);
                    if watchers.is_empty() {
                        self.roots.remove(root);
                    }
                }
            }
            WatchTarget::Object(id) => {
                if let Some(watchers) = self.objects.get_mut(id) {
                    watchers.retain(other);
                    if watchers.is_empty() {
                        self.objects.remove(id);
                        if let Some(object) = state.objects.get_mut(*id) {
                            object.watched = false;
                        }
                    }
                }
            }
        }
    }

    /// Ends all watches of an object that is no more.
    pub(super) fn end_object(&mut self, object: ObjectId, nodes: &mut Nodes) {
        for watcher in self.objects.remove(&object).unwrap_or_default() {
            if let Some(node) = nodes.get_mut(watcher.node) {
                node.watches.remove(&watcher.watch);
            }
        }
    }

    fn of(&self, root: RootId, object: ObjectId) -> Vec<Watcher> {
        let roots = self.roots.get(&root).into_iter().flatten();
        let objects = self.objects.get(&object).into_iter().flatten();
        objects.chain(roots).copied().collect()
    }
}

impl Engine {
    pub(super) fn watch(
        &mut self,
        slot: NodeSlot,
        request: RequestId,
        watch: WatchId,
        target: WatchTarget,
        with_writes: bool,
    ) {
        match self.check_watch(slot, watch, &target) {
            Err(failure) => self.fail(slot, request, failure),
            Ok(()) => {
                if let WatchTarget::Object(object) = target
                    && let Some(object) = self.state.objects.get_mut(object)
                {
                    object.watched = true;
                }
                let watcher = Watcher { node: slot, watch, with_writes };
                self.watches.add(watcher, &target);
                if let Some(node) = self.nodes.get_mut(slot) {
                    node.watches.insert(watch, target);
                }
                self.answer(slot, ToNode::Done { request, yes: true });
            }
        }
    }

    fn check_watch(&self, slot: NodeSlot, watch: WatchId, target: &WatchTarget) -> Result<(), Failure> {
        if self.stopping {
            return Err(Failure::Stopping);
        }
        match *target {
            WatchTarget::Root(root) => {
                self.state.roots.known(root)?;
            }
            WatchTarget::Object(object) => {
                self.state.objects.find(object).ok_or(Failure::Destroyed { object })?;
            }
        }
        let Some(node) = self.nodes.get(slot) else {
            return Err(Failure::Stopping);
        };
        if node.watches.contains_key(&watch) {
            return Err(Failure::Violation {
                what: format!("watch {watch} is there already: end it first, or choose another number"),
            });
        }
        at_most("the number of watches of a node", node.watches.len() + 1, WATCHES_MAX)
    }

    pub(super) fn unwatch(&mut self, slot: NodeSlot, watch: WatchId) {
        if let Some(node) = self.nodes.get_mut(slot)
            && let Some(target) = node.watches.remove(&watch)
        {
            self.watches.remove(slot, watch, &target, &mut self.state);
        }
    }

    /// Tells watchers what a commit changed.
    pub(super) fn watch_commit(&mut self, by: Option<NodeSlot>, slots: &[u32], parts: &[DeltaPart], changed: &Changed) {
        for (at, (slot, part)) in slots.iter().zip(parts).enumerate() {
            let object = self.state.objects.at(*slot);
            if !object.watched && !self.watches.any_root() {
                continue;
            }
            let watchers = self.watches.of(object.root, object.id);
            if watchers.is_empty() {
                continue;
            }
            let key = Bytes::copy_from_slice(object.key());
            let fields: BTreeSet<FieldId> = Writes::new(&part.writes).flatten().map(|write| write.field()).collect();
            let writer = by.and_then(|by| self.name_of(by));
            for watcher in watchers {
                let change = Change::Updated {
                    group: part.group,
                    version: part.version,
                    fields: fields.iter().copied().collect(),
                    slots: changed.get(at).cloned().unwrap_or_default(),
                    writes: watcher.with_writes.then(|| part.writes.clone()),
                };
                self.event(watcher, part.object, key.clone(), writer.clone(), change);
            }
        }
    }

    /// Who is to be told about an object, taken down while it is there.
    pub(super) fn notice(&self, by: Option<NodeSlot>, slot: u32) -> Notice {
        let object = self.state.objects.at(slot);
        let watchers = self.watches.of(object.root, object.id);
        let told = !watchers.is_empty();
        Notice {
            watchers,
            object: object.id,
            key: Bytes::copy_from_slice(if told { object.key() } else { &[] }),
            writer: by.filter(|_| told).and_then(|by| self.name_of(by)),
        }
    }

    /// Tells them.
    pub(super) fn notify(&mut self, notice: Notice, change: &Change) {
        for watcher in notice.watchers {
            let (key, writer) = (notice.key.clone(), notice.writer.clone());
            self.event(watcher, notice.object, key, writer, change.clone());
        }
    }

    fn event(
        &mut self,
        to: Watcher,
        object: ObjectId,
        key: Bytes,
        writer: Option<(Incarnation, String)>,
        change: Change,
    ) {
        if self.is_gap_told_later(to.node, to.watch) {
            return;
        }
        let event = ToNode::Event { watch: to.watch, object, key, writer, change };
        self.send(to.node, event);
    }

    /// A node's incarnation and name, for people.
    pub(super) fn name_of(&self, node: NodeSlot) -> Option<(Incarnation, String)> {
        self.nodes.get(node).map(|node| (node.incarnation, node.name.clone()))
    }
}
