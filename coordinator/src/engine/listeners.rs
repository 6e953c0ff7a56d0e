//! Listeners: of all who listen in a group, one is handed its events, in order, until it leaves.
//!
//! Events are in a queue that outlives everybody (`queues.rs`). Each is handed out once it is safe, since an id that was
//! told must not come to mean something else, and leaves the queue when it is acknowledged. When the one who has them
//! leaves, or loses its connection, whatever it has not acknowledged is handed to the next one, with the same ids; that it
//! may have been handed out before is said with it. After a start with state that is said of all that was there.

use super::nodes::NodeSlot;
use super::queues::{Queue, QueueId};
use super::schema::{at_most, check_name};
use super::{Engine, Entry, LogSeq};
use kiln_protocol::limits::{LISTENER_GROUPS_MAX, LISTENERS_MAX};
use kiln_protocol::{EventId, Failure, ListenerId, RequestId, RootId, ToNode};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Events that one listener has and has not acknowledged.
pub(super) const WINDOW: usize = 64;

/// What is handed out of one queue.
#[derive(Debug, Default)]
struct Handing {
    /// Who listens. The first one is handed the events.
    members: VecDeque<(NodeSlot, ListenerId)>,
    /// So many events at the front of the queue the first member has.
    in_flight: usize,
    /// The last event that anybody was ever handed.
    handed: EventId,
    /// The last event that is safe.
    safe: EventId,
}

/// All listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    queues: BTreeMap<QueueId, Handing>,
    /// Events that are not safe: the entry that each waits for, and the last one of it.
    unsafe_events: VecDeque<(LogSeq, QueueId, EventId)>,
    /// Acknowledged, and not logged yet.
    heard: BTreeMap<QueueId, BTreeSet<EventId>>,
    /// Queues out of which something may be handed.
    due: BTreeSet<QueueId>,
}

impl Engine {
    /// At a start with state.
    pub(super) fn expect_listeners(&mut self) {
        for (id, queue) in self.state.queues.iter() {
            let handing = Handing { handed: queue.last, safe: queue.last, ..Handing::default() };
            self.listeners.queues.insert(id, handing);
        }
    }

    /// An entry was appended.
    pub(super) fn queued(&mut self, seq: LogSeq) {
        for id in std::mem::take(&mut self.state.queues.touched) {
            let Some(queue) = self.state.queues.get(id) else { continue };
            let handing = self.listeners.queues.entry(id).or_default();
            if self.settings.durable {
                self.listeners.unsafe_events.push_back((seq, id, queue.last));
            } else {
                handing.safe = queue.last;
            }
            self.listeners.due.insert(id);
        }
    }

    /// Everything up to this entry is safe.
    pub(super) fn safe_events(&mut self, seq: LogSeq) {
        let listeners = &mut self.listeners;
        while let Some((_, id, event)) = listeners.unsafe_events.pop_front_if(|(of, ..)| *of <= seq) {
            if let Some(handing) = listeners.queues.get_mut(&id) {
                handing.safe = event;
                listeners.due.insert(id);
            }
        }
    }

    pub(super) fn listen(
        &mut self,
        slot: NodeSlot,
        request: RequestId,
        listener: ListenerId,
        root: RootId,
        group: String,
    ) {
        let queue = match self.check_listen(slot, listener, root, &group) {
            Ok(Some(queue)) => queue,
            Ok(None) => {
                let queue = self.state.queues.next();
                let by = self.nodes.get(slot).map(|node| node.incarnation);
                self.append(Entry::QueueAdded { by, queue, root, name: group });
                queue
            }
            Err(failure) => return self.fail(slot, request, failure),
        };
        if let Some(node) = self.nodes.get_mut(slot) {
            node.listeners.insert(listener, queue);
        }
        self.wait_for_schema();
        self.answer(slot, ToNode::Done { request, yes: true });
        self.listeners.queues.entry(queue).or_default().members.push_back((slot, listener));
        self.listeners.due.insert(queue);
    }

    /// The queue, if there is one already.
    fn check_listen(
        &self,
        slot: NodeSlot,
        listener: ListenerId,
        root: RootId,
        group: &str,
    ) -> Result<Option<QueueId>, Failure> {
        if self.stopping {
            return Err(Failure::Stopping);
        }
        self.state.roots.known(root)?;
        check_name("a listener group's name", group)?;
        let listeners = self.nodes.get(slot).map(|node| &node.listeners).ok_or(Failure::Stopping)?;
        if listeners.contains_key(&listener) {
            let what = format!("listener {listener} is there already: end it first, or choose another number");
            return Err(Failure::Violation { what });
        }
        at_most("the number of listeners of a node", listeners.len() + 1, LISTENERS_MAX)?;
        let found = self.state.queues.find(root, group);
        if found.is_none() {
            at_most("the number of listener groups", self.state.queues.len() + 1, LISTENER_GROUPS_MAX)?;
            self.check_log()?;
        }
        Ok(found)
    }

    pub(super) fn unlisten(&mut self, slot: NodeSlot, listener: ListenerId) {
        let queue = self.nodes.get_mut(slot).and_then(|node| node.listeners.remove(&listener));
        if let Some(queue) = queue {
            self.leave_queue(queue, slot, listener);
        }
    }

    /// A node left, or lost its connection.
    pub(super) fn leave_listening(&mut self, slot: NodeSlot, listeners: BTreeMap<ListenerId, QueueId>) {
        for (listener, queue) in listeners {
            self.leave_queue(queue, slot, listener);
        }
    }

    fn leave_queue(&mut self, queue: QueueId, slot: NodeSlot, listener: ListenerId) {
        let Some(handing) = self.listeners.queues.get_mut(&queue) else { return };
        let Some(at) = handing.members.iter().position(|member| *member == (slot, listener)) else { return };
        handing.members.remove(at);
        if at == 0 {
            handing.in_flight = 0;
            self.listeners.due.insert(queue);
        }
    }

    /// Ends a group and all it has not heard.
    pub(super) fn end_listeners(&mut self, slot: NodeSlot, request: RequestId, root: RootId, group: &str) {
        let queue = match self.state.roots.known(root).and_then(|_| self.check_log()) {
            Ok(()) => self.state.queues.find(root, group),
            Err(failure) => return self.fail(slot, request, failure),
        };
        if let Some(queue) = queue {
            let by = self.nodes.get(slot).map(|node| node.incarnation);
            self.append(Entry::QueueRemoved { by, queue });
            self.listeners.heard.remove(&queue);
            self.listeners.due.remove(&queue);
            self.listeners.unsafe_events.retain(|(_, of, _)| *of != queue);
            let handing = self.listeners.queues.remove(&queue).unwrap_or_default();
            for (slot, listener) in handing.members {
                if let Some(node) = self.nodes.get_mut(slot) {
                    node.listeners.remove(&listener);
                }
                self.send(slot, ToNode::ListenerEnded { listener });
            }
        }
        self.wait_for_schema();
        self.answer(slot, ToNode::Done { request, yes: queue.is_some() });
    }

    /// An event was heard. One that is not in the queue any more was acknowledged before.
    pub(super) fn heard(&mut self, slot: NodeSlot, listener: ListenerId, event: EventId) {
        let queue = self.nodes.get(slot).and_then(|node| node.listeners.get(&listener));
        let Some((id, queue)) = queue.and_then(|id| Some((*id, self.state.queues.get(*id)?))) else { return };
        let was_handed = self.listeners.queues.get(&id).is_some_and(|handing| event <= handing.handed);
        if was_handed && queue.find(event).is_some() {
            self.listeners.heard.entry(id).or_default().insert(event);
        }
    }

    /// Logs what was heard, and hands out what may be.
    pub(super) fn hand_out(&mut self) {
        if !self.full {
            for (queue, events) in std::mem::take(&mut self.listeners.heard) {
                self.log_heard(queue, events.into_iter().collect());
            }
        }
        for id in std::mem::take(&mut self.listeners.due) {
            let mut notices = Vec::new();
            let (Some(queue), Some(handing)) = (self.state.queues.get(id), self.listeners.queues.get_mut(&id)) else {
                continue;
            };
            let Some((node, listener)) = handing.members.front().copied() else { continue };
            while let Some(notice) = handing.next(queue, listener) {
                notices.push(notice);
            }
            for notice in notices {
                self.send(node, notice);
            }
        }
    }

    fn log_heard(&mut self, id: QueueId, events: Vec<EventId>) {
        let Some(queue) = self.state.queues.get(id) else { return };
        if let Some(handing) = self.listeners.queues.get_mut(&id) {
            let had = events.iter().filter_map(|event| queue.find(*event)).filter(|at| *at < handing.in_flight);
            handing.in_flight -= had.count();
        }
        self.append(Entry::Heard { queue: id, events });
        self.listeners.due.insert(id);
    }
}

impl Handing {
    /// The next event that the first member may have.
    fn next(&mut self, queue: &Queue, listener: ListenerId) -> Option<ToNode> {
        let event = queue.get(self.in_flight).filter(|event| self.in_flight < WINDOW && event.id <= self.safe)?;
        let redelivered = event.id <= self.handed;
        self.handed = self.handed.max(event.id);
        self.in_flight += 1;
        Some(ToNode::Notice {
            listener,
            event: event.id,
            redelivered,
            object: event.object,
            key: event.key.clone(),
            writer: event.writer.clone(),
            change: event.change.clone(),
        })
    }
}
