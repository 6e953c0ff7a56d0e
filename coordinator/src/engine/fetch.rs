//! Faulting objects in: fetch, refetch, peek; and what can be asked about keys.

use super::nodes::NodeSlot;
use super::schema::at_most;
use super::{Engine, Entry};
use bytes::Bytes;
use kiln_protocol::limits::{KEY_BYTES_MAX, KEYS_PAGE_BYTES_MAX, KEYS_PAGE_MAX, RECORD_BYTES_MAX};
use kiln_protocol::message::{Change, Record};
use kiln_protocol::{BadDelta, Failure, GroupId, ObjectId, RequestId, RootId, ToCoordinator, ToNode, Token, Writes};

impl Engine {
    /// A node wants the object under a key, made if need be.
    pub(super) fn fetch(
        &mut self,
        node: NodeSlot,
        request: RequestId,
        root: RootId,
        key: Bytes,
        create: Option<Bytes>,
    ) {
        let found = match self.look_up(root, &key) {
            Ok(found) => found,
            Err(failure) => return self.fail(node, request, failure),
        };
        match (found, create) {
            (Some(slot), create) if self.is_too_early(node, self.state.objects.at(slot).id) => {
                self.ask_later(node, ToCoordinator::Fetch { request, root, key, create });
            }
            (Some(slot), _) => self.fetched(node, request, slot),
            (None, None) => {
                self.wait_for_keys();
                self.answer(node, ToNode::Absent { request });
            }
            (None, Some(writes)) => match self.check_create(root, &key, &writes, 0) {
                Ok(()) => self.create(node, request, root, key, writes),
                Err(failure) => self.fail(node, request, failure),
            },
        }
    }

    fn fetched(&mut self, node: NodeSlot, request: RequestId, slot: u32) {
        let record = self.hold(node, slot);
        self.note_use(record.object);
        self.totals.faults += 1;
        let fetched = ToNode::Fetched { request, record, created: false, grants: Vec::new() };
        self.answer(node, fetched);
    }

    /// A node's copy is stale.
    pub(super) fn refetch(&mut self, node: NodeSlot, request: RequestId, object: ObjectId) {
        match self.state.objects.find(object) {
            Some(_) if self.is_too_early(node, object) => {
                self.ask_later(node, ToCoordinator::Refetch { request, object });
            }
            Some(slot) => self.fetched(node, request, slot),
            None => {
                self.wait_for_keys();
                self.fail(node, request, Failure::Destroyed { object });
            }
        }
    }

    /// Somebody looks at an object.
    pub(super) fn peek(&mut self, node: NodeSlot, request: RequestId, root: RootId, key: &[u8]) {
        match self.look_up(root, key) {
            Ok(Some(slot)) => {
                self.wait_for_object(self.state.objects.at(slot).id);
                let fetched =
                    ToNode::Fetched { request, record: self.record(node, slot), created: false, grants: Vec::new() };
                self.answer(node, fetched);
            }
            Ok(None) => {
                self.wait_for_keys();
                self.answer(node, ToNode::Absent { request });
            }
            Err(failure) => self.fail(node, request, failure),
        }
    }

    pub(super) fn contains(&mut self, node: NodeSlot, request: RequestId, root: RootId, key: &[u8]) {
        match self.look_up(root, key) {
            Ok(found) => {
                self.wait_for_keys();
                self.answer(node, ToNode::Done { request, yes: found.is_some() });
            }
            Err(failure) => self.fail(node, request, failure),
        }
    }

    /// A page of keys.
    pub(super) fn list_keys(
        &mut self,
        node: NodeSlot,
        request: RequestId,
        root: RootId,
        after: Option<&[u8]>,
        limit: u32,
    ) {
        let root = match self.state.roots.known(root) {
            Ok(root) => root,
            Err(failure) => return self.fail(node, request, failure),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, KEYS_PAGE_MAX);
        let mut keys = Vec::new();
        let mut bytes = 0;
        let mut more = false;
        let key_of = |slot| self.state.objects.at(slot).key();
        for slot in root.keys.after(after, key_of) {
            let key = key_of(slot);
            bytes += key.len();
            if keys.len() == limit || bytes > KEYS_PAGE_BYTES_MAX {
                more = true;
                break;
            }
            keys.push(Bytes::copy_from_slice(key));
        }
        self.wait_for_keys();
        self.answer(node, ToNode::Keys { request, keys, more });
    }

    pub(super) fn fail(&mut self, node: NodeSlot, request: RequestId, failure: Failure) {
        self.answer(node, ToNode::Failed { request, failure });
    }

    /// The slot of the object under a key that a peer named.
    pub(super) fn look_up(&self, root: RootId, key: &[u8]) -> Result<Option<u32>, Failure> {
        let root = self.state.roots.known(root)?;
        at_most("the length of a key in bytes", key.len(), KEY_BYTES_MAX)?;
        Ok(self.state.find(root, key))
    }

    /// Records interest, and makes the record in the same step: no delta can fall between.
    pub(super) fn hold(&mut self, node: NodeSlot, slot: u32) -> Record {
        self.hold_copy(node, slot);
        let object = self.state.objects.at(slot).id;
        self.wait_for_object(object);
        self.tell_all_outdated(node);
        self.tell_halves_outdated(node, object);
        self.record(node, slot)
    }

    /// Records interest.
    pub(super) fn hold_copy(&mut self, node: NodeSlot, slot: u32) {
        self.note_ephemeral(node, slot);
        let first = self.state.objects.at_mut(slot).interest.insert(node);
        if let Some(node) = self.nodes.get_mut(node) {
            node.interest += u64::from(first);
        }
    }

    fn record(&self, node: NodeSlot, slot: u32) -> Record {
        let object = self.state.objects.at(slot);
        Record {
            object: object.id,
            type_id: self.state.type_of(object).info().id,
            versions: object.versions(),
            writes: object.writes(),
            applied: self.applied(node),
        }
    }

    /// Whether an object with these slots may be made, where one of so many bytes goes.
    pub(super) fn check_create(&self, root: RootId, key: &[u8], writes: &Bytes, freed: u64) -> Result<(), Failure> {
        if self.stopping {
            return Err(Failure::Stopping);
        }
        self.check_log()?;
        let known = self.state.roots.known(root)?;
        at_most("the length of a key in bytes", key.len(), KEY_BYTES_MAX)?;
        at_most("the length of an object in bytes", writes.len(), RECORD_BYTES_MAX)?;
        self.check_room(key.len() + writes.len(), freed)?;
        let of = self.state.schema.get(known.type_id).ok_or(Failure::UnknownRoot { root })?;
        let Some(object) = self.state.next_object(root, key) else {
            return Err(Failure::Limit {
                what: "the number of objects ever made".to_owned(),
                actual: u64::MAX,
                limit: u64::MAX,
            });
        };
        for write in Writes::new(writes) {
            let write = write.map_err(|bad: BadDelta| Failure::Violation {
                what: format!("a new object of root {}: {bad}", known.name),
            })?;
            of.check(&write, None).map_err(|error| Failure::BadWrite {
                object,
                field: write.field(),
                what: error.what(),
            })?;
        }
        Ok(())
    }

    /// Makes an object whose key is free and whose slots were checked, and gives it and its locks to `node`: nobody
    /// else can want them yet.
    pub(super) fn create(&mut self, node: NodeSlot, request: RequestId, root: RootId, key: Bytes, writes: Bytes) {
        let Some(object) = self.state.next_object(root, &key) else {
            return;
        };
        let by = self.nodes.get(node).map(|node| node.incarnation);
        self.append(Entry::Created { by, object, root, key, writes });
        let Some(slot) = self.state.objects.find(object) else {
            return;
        };
        let record = self.hold(node, slot);
        let grants = self.give_all(node, slot);
        self.totals.faults += 1;
        let fetched = ToNode::Fetched { request, record, created: true, grants };
        self.answer(node, fetched);
        let notice = self.notice(Some(node), slot);
        self.notify(notice, &Change::Created);
    }

    fn give_all(&mut self, slot_of_node: NodeSlot, slot: u32) -> Vec<(GroupId, Token)> {
        let groups = self.state.type_of(self.state.objects.at(slot)).groups();
        let object = self.state.objects.at_mut(slot);
        let mut grants = Vec::new();
        for group in groups {
            let token = self.tokens.next();
            object.locks.give(group, slot_of_node, token, self.now);
            grants.push((group, token));
        }
        self.totals.grants += grants.len() as u64;
        if let Some(node) = self.nodes.get_mut(slot_of_node) {
            node.grants += grants.len() as u64;
        }
        grants
    }
}
