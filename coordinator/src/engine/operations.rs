//! Insert, remove, rename and expiry: each takes every lock of the object first, so that no node writes to it meanwhile.
//!
//! An operation waits in the queue of each lock like a node, one group after the other, ascending. The node holders are
//! recalled, flush and release; then the operation acts in one step and is over. While it waited its key may have come to
//! mean another object: then it begins again with that one.

use super::barrier::Awaited;
use super::lock::{Party, Waiter};
use super::nodes::NodeSlot;
use super::schema::at_most;
use super::{Engine, Entry};
use bytes::Bytes;
use kiln_protocol::limits::KEY_BYTES_MAX;
use kiln_protocol::message::{Change, Mode};
use kiln_protocol::{Failure, GroupId, ObjectId, RequestId, RootId, ToNode};
use std::collections::{BTreeMap, VecDeque};

kiln_protocol::id!(
    /// One operation under way.
    pub(super) OperationId(u64)
);

/// What is to be done once all locks are taken.
#[derive(Clone, Debug)]
enum Act {
    Insert {
        writes: Bytes,
    },
    Remove {
        everywhere: bool,
    },
    Rename {
        to: Bytes,
    },
    /// The coordinator's own.
    Expire,
}

#[derive(Debug)]
struct Operation {
    /// Who asked for it; `None`: the coordinator.
    asker: Option<(NodeSlot, RequestId)>,
    root: RootId,
    key: Bytes,
    act: Act,
    /// The object whose locks are being taken.
    object: Option<ObjectId>,
    /// How many of them it has asked for.
    asked: usize,
}

/// All operations under way.
#[derive(Debug, Default)]
pub(super) struct Operations {
    operations: BTreeMap<OperationId, Operation>,
    by_request: BTreeMap<(NodeSlot, RequestId), OperationId>,
    last: OperationId,
    /// How many of them are expiries.
    expiring: usize,
    /// Those that something happened to.
    awake: VecDeque<OperationId>,
}

impl Operations {
    fn remove(&mut self, id: OperationId) -> Option<Operation> {
        let operation = self.operations.remove(&id)?;
        self.expiring -= usize::from(matches!(operation.act, Act::Expire));
        // Another one may have been asked for under the same id.
        if let Some(asker) = operation.asker
            && self.by_request.get(&asker) == Some(&id)
        {
            self.by_request.remove(&asker);
        }
        Some(operation)
    }

    /// How many objects are being removed because their time is over.
    pub(super) const fn expiring(&self) -> usize {
        self.expiring
    }

    /// Who asked for an operation, if not the coordinator, and what it is.
    pub(super) fn of(&self, id: OperationId) -> Option<(Option<NodeSlot>, &'static str)> {
        let operation = self.operations.get(&id)?;
        let what = match operation.act {
            Act::Insert { .. } => "insert",
            Act::Remove { .. } => "remove",
            Act::Rename { .. } => "rename",
            Act::Expire => "expire",
        };
        Some((operation.asker.map(|(node, _)| node), what))
    }

    /// Lets an operation look at its state again.
    pub(super) fn wake(&mut self, operation: OperationId) {
        self.awake.push_back(operation);
    }
}

impl Engine {
    pub(super) fn insert(&mut self, node: NodeSlot, request: RequestId, root: RootId, key: Bytes, writes: Bytes) {
        match self.check_create(root, &key, &writes, 0) {
            Ok(()) => self.begin(node, request, root, key, Act::Insert { writes }),
            Err(failure) => self.fail(node, request, failure),
        }
    }

    pub(super) fn remove(&mut self, node: NodeSlot, request: RequestId, root: RootId, key: Bytes, everywhere: bool) {
        self.begin(node, request, root, key, Act::Remove { everywhere });
    }

    pub(super) fn rename(&mut self, node: NodeSlot, request: RequestId, root: RootId, from: Bytes, to: Bytes) {
        match at_most("the length of a key in bytes", to.len(), KEY_BYTES_MAX) {
            Ok(()) => self.begin(node, request, root, from, Act::Rename { to }),
            Err(failure) => self.fail(node, request, failure),
        }
    }

    fn begin(&mut self, node: NodeSlot, request: RequestId, root: RootId, key: Bytes, act: Act) {
        let checked = self.check_request(node).and_then(|()| self.look_up(root, &key));
        if let Err(failure) = checked {
            return self.fail(node, request, failure);
        }
        let id = self.next_operation();
        if let Some(node) = self.nodes.get_mut(node) {
            node.requests += 1;
            node.operations.insert(id);
        }
        let asker = Some((node, request));
        let operation = Operation { asker, root, key, act, object: None, asked: 0 };
        self.operations.operations.insert(id, operation);
        self.operations.by_request.insert((node, request), id);
        self.operations.wake(id);
    }

    /// An object's time is over.
    pub(super) fn begin_expiry(&mut self, object: ObjectId) {
        let Some(of) = self.state.objects.get(object) else { return };
        let (root, key, object) = (of.root, Bytes::new(), Some(object));
        let id = self.next_operation();
        let operation = Operation { asker: None, root, key, act: Act::Expire, object, asked: 0 };
        self.operations.operations.insert(id, operation);
        self.operations.expiring += 1;
        self.operations.wake(id);
    }

    const fn next_operation(&mut self) -> OperationId {
        let id = self.operations.last.next();
        self.operations.last = id;
        id
    }

    /// Lets every operation proceed that can.
    pub(super) fn run_operations(&mut self) {
        while let Some(id) = self.operations.awake.pop_front() {
            self.proceed(id);
        }
    }

    fn proceed(&mut self, id: OperationId) {
        let Some(operation) = self.operations.operations.get(&id) else {
            return;
        };
        let (root, taking) = (operation.root, operation.object);
        let target = match operation.act {
            // Under whatever key.
            Act::Expire => taking.and_then(|object| self.state.objects.find(object)),
            Act::Insert { .. } | Act::Remove { .. } | Act::Rename { .. } => {
                self.look_up(root, &operation.key).ok().flatten()
            }
        };
        let object = target.map(|slot| self.state.objects.at(slot).id);
        if taking.is_some() && taking != object {
            self.give_up_locks(id);
        }
        let Some(slot) = target else {
            return self.act_on_nothing(id);
        };
        if let Some(operation) = self.operations.operations.get_mut(&id) {
            operation.object = object;
        }
        if self.take_locks(id, slot) {
            self.act(id, slot);
        }
    }

    /// Asks for the next locks. Returns whether the operation has all.
    fn take_locks(&mut self, id: OperationId, slot: u32) -> bool {
        let groups = self.state.type_of(self.state.objects.at(slot)).groups();
        for (at, group) in groups.enumerate() {
            let Some(operation) = self.operations.operations.get_mut(&id) else {
                return false;
            };
            if at == operation.asked {
                operation.asked += 1;
                let waiter = Waiter {
                    party: Party::Operation(id),
                    mode: Mode::Write,
                    request: RequestId::default(),
                    want_record: false,
                    since: self.now,
                };
                self.state.objects.at_mut(slot).locks.lock(group).request(waiter);
                self.settle(slot, group);
            }
            let holders = self.state.objects.at_mut(slot).locks.lock(group).holders();
            if !holders.iter().any(|holder| holder.party == Party::Operation(id)) {
                return false;
            }
        }
        true
    }

    /// Gives back the locks of an operation, and its places in queues.
    fn give_up_locks(&mut self, id: OperationId) {
        let Some(operation) = self.operations.operations.get_mut(&id) else {
            return;
        };
        let asked = std::mem::take(&mut operation.asked);
        let Some(object) = operation.object.take() else { return };
        let Some(slot) = self.state.objects.find(object) else {
            return;
        };
        for group in (0..=u8::MAX).take(asked).map(GroupId::from_bits) {
            self.state.objects.at_mut(slot).locks.lock(group).drop_party(Party::Operation(id));
            self.settle(slot, group);
        }
        self.remove_if_unused(slot);
    }

    /// Nobody waits for an operation any more.
    pub(super) fn give_up(&mut self, node: NodeSlot, request: RequestId) {
        if let Some(id) = self.operations.by_request.get(&(node, request)).copied() {
            self.give_up_locks(id);
            self.finish(id);
            self.fail(node, request, Failure::GivenUp);
        }
    }

    /// Drops an operation whose node left.
    pub(super) fn cancel(&mut self, id: OperationId) {
        self.give_up_locks(id);
        self.operations.remove(id);
    }

    fn finish(&mut self, id: OperationId) -> Option<Operation> {
        let operation = self.operations.remove(id)?;
        if let Some((node, _)) = operation.asker
            && let Some(node) = self.nodes.get_mut(node)
        {
            node.requests -= 1;
            node.operations.remove(&id);
        }
        Some(operation)
    }

    fn act_on_nothing(&mut self, id: OperationId) {
        let Some(Operation { asker, root, key, act, .. }) = self.finish(id) else {
            return;
        };
        let Some((node, request)) = asker else { return };
        self.wait_for_keys();
        match act {
            Act::Expire => {}
            Act::Insert { writes } => self.insert_now(node, request, root, key, writes),
            Act::Rename { .. } => self.answer(node, ToNode::Done { request, yes: false }),
            Act::Remove { everywhere: false } => self.answer(node, ToNode::Done { request, yes: false }),
            Act::Remove { everywhere: true } => {
                // Another node may have removed it just now, and a third may show it still. Observers show nothing.
                let others = self.nodes.others(node);
                self.wait_for(node, &others, Awaited::Removal(request, false));
            }
        }
    }

    fn act(&mut self, id: OperationId, slot: u32) {
        if let Some(Operation { act: Act::Expire, .. }) = self.operations.operations.get(&id) {
            return self.expire_now(id, slot);
        }
        if let Err(failure) = self.check_log() {
            self.give_up_locks(id);
            if let Some(Operation { asker: Some((node, request)), .. }) = self.finish(id) {
                self.fail(node, request, failure);
            }
            return;
        }
        if let Some(operation) = self.operations.operations.get(&id)
            && let Act::Rename { to } = &operation.act
        {
            let to = to.clone();
            let answer = self.rename_now(id, slot, to);
            self.give_up_locks(id);
            if let Some(Operation { asker: Some((node, _)), .. }) = self.finish(id) {
                self.answer(node, answer);
            }
            return;
        }
        if let Err(failure) = self.check_insert(id, slot) {
            self.give_up_locks(id);
            if let Some((node, request)) = self.finish(id).and_then(|operation| operation.asker) {
                self.fail(node, request, failure);
            }
            return;
        }
        let Some(operation) = self.finish(id) else { return };
        let Some((node, request)) = operation.asker else { return };
        match operation.act {
            Act::Insert { writes } => {
                self.destroy(slot, Some(node));
                self.create(node, request, operation.root, operation.key, writes);
            }
            Act::Remove { everywhere } => {
                let mut others = self.destroy(slot, Some(node));
                others.retain(|other| everywhere && *other != node);
                if everywhere {
                    self.add_expected(node, &mut others);
                }
                self.wait_for(node, &others, Awaited::Removal(request, true));
            }
            Act::Rename { .. } | Act::Expire => {}
        }
    }

    /// Nobody holds the object's locks, so nobody uses it unless he has said so.
    fn expire_now(&mut self, id: OperationId, slot: u32) {
        let object = self.state.objects.at(slot).id;
        if self.is_due(object) {
            self.finish(id);
            self.end_object(slot, None, Entry::Expired { object }, &Change::Expired);
        } else {
            self.give_up_locks(id);
            self.finish(id);
        }
    }

    fn insert_now(&mut self, node: NodeSlot, request: RequestId, root: RootId, key: Bytes, writes: Bytes) {
        match self.check_create(root, &key, &writes, 0) {
            Ok(()) => self.create(node, request, root, key, writes),
            Err(failure) => self.fail(node, request, failure),
        }
    }

    /// The checks of an insert may have been a while ago; and this is before what is there goes.
    fn check_insert(&self, id: OperationId, slot: u32) -> Result<(), Failure> {
        match self.operations.operations.get(&id) {
            Some(Operation { act: Act::Insert { writes }, root, key, .. }) => {
                self.check_create(*root, key, writes, self.state.objects.at(slot).bytes() as u64)
            }
            _ => Ok(()),
        }
    }

    fn rename_now(&mut self, id: OperationId, slot: u32, to: Bytes) -> ToNode {
        let Some(operation) = self.operations.operations.get(&id) else {
            return ToNode::Stopping;
        };
        let Some((node, request)) = operation.asker else { return ToNode::Stopping };
        let root = operation.root;
        if operation.key == to {
            return ToNode::Done { request, yes: true };
        }
        if let Ok(Some(_)) = self.look_up(root, &to) {
            return ToNode::Failed { request, failure: Failure::KeyTaken };
        }
        let object = self.state.objects.at(slot).id;
        let notice = self.notice(Some(node), slot);
        let by = self.nodes.get(node).map(|node| node.incarnation);
        self.append(Entry::Renamed { by, object, key: to.clone() });
        let interested = self.state.objects.at(slot).interest.as_slice().to_vec();
        for other in interested {
            let renamed = ToNode::Renamed { object, key: to.clone() };
            self.answer(other, renamed);
        }
        self.notify(notice, &Change::Renamed { to });
        ToNode::Done { request, yes: true }
    }

    /// Destroys an object: whoever holds it is told, whoever waits for its locks fails (S10). Returns the nodes that
    /// held it.
    pub(super) fn destroy(&mut self, slot: u32, by: Option<NodeSlot>) -> Vec<NodeSlot> {
        let object = self.state.objects.at(slot).id;
        let incarnation = by.and_then(|by| self.nodes.get(by)).map(|node| node.incarnation);
        self.end_object(slot, by, Entry::Removed { by: incarnation, object }, &Change::Removed)
    }

    fn end_object(&mut self, slot: u32, by: Option<NodeSlot>, entry: Entry, change: &Change) -> Vec<NodeSlot> {
        let object = self.state.objects.at_mut(slot);
        let id = object.id;
        let interested = object.interest.as_slice().to_vec();
        let locks = object.locks.used();
        let notice = self.notice(by, slot);
        self.watches.end_object(id, &mut self.nodes);
        self.append(entry);
        self.forget_ephemeral(id);
        self.owners_forget(id);
        for node in &interested {
            if let Some(node) = self.nodes.get_mut(*node) {
                node.interest -= 1;
            }
            self.answer(*node, ToNode::Destroyed { object: id });
        }
        self.notify(notice, change);
        for (group, mut lock) in locks {
            self.contended.remove(&(id, group));
            for holder in lock.holders() {
                if let Party::Node(node) = holder.party {
                    self.count_grants(node, 1);
                }
            }
            for waiter in lock.take_waiters() {
                match waiter.party {
                    Party::Operation(operation) => self.operations.wake(operation),
                    Party::Node(node) => {
                        self.count_requests(node, 1);
                        let failed = ToNode::LockFailed {
                            request: waiter.request,
                            object: id,
                            group,
                            failure: Failure::Destroyed { object: id },
                        };
                        self.answer(node, failed);
                    }
                }
            }
        }
        interested
    }
}
