//! What nodes do with locks: acquire, release, withdraw, forget; and what happens to the locks of one that leaves.

use super::Engine;
use super::lock::{Lock, Party, REQUESTS_OF_NODE_MAX, Released, Step, Waiter};
use super::nodes::NodeSlot;
use super::schema::at_most;
use kiln_protocol::message::Mode;
use kiln_protocol::{Failure, GroupId, ObjectId, RequestId, ToNode, Token};

impl Engine {
    /// A node asks for a lock.
    pub(super) fn acquire(
        &mut self,
        node: NodeSlot,
        request: RequestId,
        object: ObjectId,
        group: GroupId,
        mode: Mode,
        want_record: bool,
    ) {
        match self.check_acquire(node, object, group) {
            Ok(slot) => {
                let waiter = Waiter { party: Party::Node(node), mode, request, want_record, since: self.now };
                if let Some(node) = self.nodes.get_mut(node) {
                    node.requests += 1;
                }
                self.note_ephemeral(node, slot);
                self.state.objects.at_mut(slot).locks.lock(group).request(waiter);
                self.settle(slot, group);
                self.owners_requested(node, (object, group));
            }
            Err(failure) => {
                let failed = ToNode::LockFailed { request, object, group, failure };
                self.answer(node, failed);
            }
        }
    }

    fn check_acquire(&mut self, node: NodeSlot, object: ObjectId, group: GroupId) -> Result<u32, Failure> {
        self.check_request(node)?;
        let slot = self.state.objects.find(object).ok_or(Failure::Destroyed { object })?;
        let of = self.state.type_of(self.state.objects.at(slot));
        if of.group_name(group).is_none() {
            return Err(Failure::Violation { what: format!("type {} has no lock group {group}", of.info().name) });
        }
        let lock = self.state.objects.at_mut(slot).locks.lock(group);
        at_most(
            "the number of requests of one node that wait for one lock",
            lock.waiting(node) + 1,
            REQUESTS_OF_NODE_MAX,
        )?;
        Ok(slot)
    }

    /// Whether a node may ask for something that takes time.
    pub(super) fn check_request(&self, node: NodeSlot) -> Result<(), Failure> {
        if self.stopping {
            return Err(Failure::Stopping);
        }
        let requests = self.nodes.get(node).map_or(0, |node| node.requests);
        at_most("the number of requests without an answer", requests + 1, self.settings.requests_max)
    }

    /// A node gives a grant back. One that it has no more is ignored: it may have crossed with what ended it.
    pub(super) fn release(&mut self, node: NodeSlot, object: ObjectId, group: GroupId, token: Token, keep_read: bool) {
        let Some(slot) = self.state.objects.find(object) else {
            return;
        };
        let locks = &mut self.state.objects.at_mut(slot).locks;
        if !locks.groups().contains(&group) {
            return;
        }
        let lock = locks.lock(group);
        let previous = self.nodes.get(node).map(|node| &node.previous[..]).unwrap_or_default();
        let released = std::iter::once(node).chain(previous.iter().copied()).find_map(|of| {
            let released = lock.release(of, token, keep_read);
            (released != Released::Stale).then_some((of, released))
        });
        match released {
            None | Some((_, Released::Stale)) => {}
            Some((_, Released::Downgraded)) => self.settle(slot, group),
            Some((of, Released::Freed)) => {
                // What a slot of before held is not counted any more.
                self.count_grants(of, 1);
                self.settle(slot, group);
                self.remove_if_unused(slot);
            }
        }
    }

    /// A node takes a request back.
    pub(super) fn withdraw(&mut self, node: NodeSlot, request: RequestId, object: ObjectId, group: GroupId) {
        let Some(slot) = self.state.objects.find(object) else {
            return;
        };
        let locks = &mut self.state.objects.at_mut(slot).locks;
        if !locks.groups().contains(&group) || !locks.lock(group).withdraw(node, request) {
            return;
        }
        self.count_requests(node, 1);
        self.settle(slot, group);
        self.remove_if_unused(slot);
    }

    /// A node dropped an object.
    pub(super) fn forget(&mut self, node: NodeSlot, object: ObjectId) {
        let Some(slot) = self.state.objects.find(object) else {
            return;
        };
        let object = self.state.objects.at_mut(slot);
        let held = object.interest.remove_if(|other| other == node);
        for group in object.locks.groups() {
            if self.state.objects.at_mut(slot).locks.lock(group).drop_grant(node) {
                self.count_grants(node, 1);
                self.settle(slot, group);
            }
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.interest -= held as u64;
        }
        self.remove_if_unused(slot);
    }

    /// Lets a lock proceed as far as it can, and tells everybody.
    pub(super) fn settle(&mut self, slot: u32, group: GroupId) {
        let id = self.state.objects.at(slot).id;
        let waits = self.may_be_named(id) || self.unsynced.holds(id, group);
        let object = self.state.objects.at_mut(slot);
        let lock = object.locks.lock(group);
        lock.drop_holders(|node| !self.nodes.is_attached(node));
        if waits {
            lock.recall(&mut self.steps);
        } else {
            lock.advance(self.now, &mut self.tokens, &mut self.steps);
        }
        if lock.queue().is_empty() {
            self.contended.remove(&(id, group));
        } else {
            self.contended.insert((id, group));
        }
        if object.locks.compact(self.now) {
            self.cooling.push_back((self.now, id));
        }
        let mut steps = std::mem::take(&mut self.steps);
        for step in steps.drain(..) {
            self.tell(slot, id, group, step);
        }
        self.steps = steps;
    }

    fn tell(&mut self, slot: u32, object: ObjectId, group: GroupId, step: Step) {
        match step {
            Step::Recall { node, token, wanted } => {
                self.totals.recalls += 1;
                let recall = ToNode::Recall { object, group, token, wanted };
                self.send(node, recall);
                if wanted == Mode::Write {
                    self.owners_recalled((object, group));
                }
            }
            Step::Grant { waiter, mode, token, cached, first } => match waiter.party {
                Party::Operation(operation) => self.operations.wake(operation),
                Party::Node(node) => {
                    self.totals.grants += 1;
                    self.count_requests(node, 1);
                    if let Some(node) = self.nodes.get_mut(node) {
                        node.grants += u64::from(first);
                    }
                    self.wait_for_ends();
                    self.tell_outdated(node, object);
                    let record = waiter.want_record.then(|| self.hold(node, slot));
                    let grant = ToNode::Grant { request: waiter.request, object, group, mode, token, cached, record };
                    self.answer(node, grant);
                }
            },
        }
    }

    pub(super) fn count_grants(&mut self, node: NodeSlot, gone: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.grants -= gone as u64;
        }
    }

    pub(super) fn count_requests(&mut self, node: NodeSlot, done: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.requests -= done;
        }
    }

    /// A node left: nobody waits for it any more. Grants of its that nobody waits for end when somebody asks, or with
    /// the sweep.
    pub(super) fn leave_queues(&mut self, node: NodeSlot) {
        self.change_contended(|lock| lock.drop_party(Party::Node(node)) != (0, 0));
    }

    /// A node's connection is lost: it waits for nothing any more.
    pub(super) fn leave_waiting(&mut self, node: NodeSlot) {
        self.change_contended(|lock| lock.drop_waiting(node));
    }

    /// Changes every lock that somebody waits for; those that changed proceed.
    fn change_contended(&mut self, change: impl Fn(&mut Lock) -> bool) {
        let contended: Vec<_> = self.contended.iter().copied().collect();
        for (object, group) in contended {
            let Some(slot) = self.state.objects.find(object) else {
                continue;
            };
            if change(self.state.objects.at_mut(slot).locks.lock(group)) {
                self.settle(slot, group);
            }
        }
    }

    /// Remembers that a node has to do with an object of an ephemeral root, to look at it when the node leaves.
    pub(super) fn note_ephemeral(&mut self, slot_of_node: NodeSlot, slot: u32) {
        let object = self.state.objects.at(slot);
        if self.state.roots.get(object.root).is_some_and(|root| root.options.ephemeral)
            && let Some(node) = self.nodes.get_mut(slot_of_node)
        {
            node.ephemeral.insert(object.id);
            self.ephemeral.insert((object.id, slot_of_node));
        }
    }

    /// An object is no more.
    pub(super) fn forget_ephemeral(&mut self, object: ObjectId) {
        while let Some((of, node)) = self.ephemeral.range((object, NodeSlot::FIRST)..).next().copied()
            && of == object
        {
            self.ephemeral.remove(&(of, node));
            if let Some(node) = self.nodes.get_mut(node) {
                node.ephemeral.remove(&object);
            }
        }
    }

    /// A node that had to do with an object of an ephemeral root left.
    pub(super) fn leave_object(&mut self, node: NodeSlot, object: ObjectId) {
        self.ephemeral.remove(&(object, node));
        let Some(slot) = self.state.objects.find(object) else {
            return;
        };
        let object = self.state.objects.at_mut(slot);
        object.interest.remove_if(|other| other == node);
        object.locks.drop_holders(|other| other == node);
        object.locks.compact(self.now);
        self.remove_if_unused(slot);
    }

    /// Removes an object of an ephemeral root that no node holds, locks or waits for.
    pub(super) fn remove_if_unused(&mut self, slot: u32) {
        let object = self.state.objects.at(slot);
        let (id, root) = (object.id, self.state.roots.get(object.root));
        if !root.is_some_and(|root| root.options.ephemeral) {
            return;
        }
        if self.full || self.may_be_named(id) {
            self.unused.insert(id);
            return;
        }
        let object = self.state.objects.at_mut(slot);
        let nodes = &self.nodes;
        object.interest.remove_if(|node| !nodes.is_attached(node));
        object.locks.drop_holders(|node| !nodes.is_attached(node));
        if object.interest.as_slice().is_empty() && object.locks.is_free() {
            self.destroy(slot, None);
        }
    }

    /// Forgets the past of locks that have been free for a while.
    pub(super) fn cool(&mut self) {
        while let Some((since, object)) = self.cooling.front().copied()
            && self.now.saturating_sub(since) > super::lock::QUIET
        {
            self.cooling.pop_front();
            if let Some(object) = self.state.objects.get_mut(object) {
                object.locks.compact(self.now);
            }
        }
    }
}
