//! The queues of listener groups: what happened in a root, kept until somebody has acknowledged it.
//!
//! Replicated state: an event enters the queue with the entry that it tells of, and leaves it with one that says it was
//! heard. So neither the end of a node nor one of the coordinator loses any. Who listens, and what is handed to whom, is
//! soft (`listeners.rs`).

use super::entry::BadEntry;
use bytes::Bytes;
use kiln_protocol::message::Change;
use kiln_protocol::{EventId, Incarnation, ObjectId, RootId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Events of one queue. What comes when it is full is counted, and one event in its place says how many there were.
pub(super) const QUEUED_MAX: usize = 1 << 14;
/// About how many bytes the events of one queue may take.
const QUEUED_BYTES_MAX: usize = 64 << 20;

kiln_protocol::id!(
    /// The queue of one listener group.
    pub QueueId(u32)
);

/// One event in a queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueuedEvent {
    /// Its place among all events of the queue, from 1.
    pub id: EventId,
    /// The object; 0 for [`Change::Missed`].
    pub object: ObjectId,
    /// Its key; when it was renamed, the old one.
    pub key: Bytes,
    /// The node that did it, and its name; `None` for the coordinator.
    pub writer: Option<(Incarnation, String)>,
    /// What happened.
    pub change: Change,
}

impl QueuedEvent {
    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let change = match &self.change {
            Change::Updated { fields, slots, .. } => {
                let keys: usize = slots.iter().filter_map(|slot| slot.entry.as_ref()).map(Bytes::len).sum();
                size_of_val(&fields[..]) + size_of_val(&slots[..]) + keys
            }
            Change::Renamed { to } => to.len(),
            Change::Created | Change::Removed | Change::Expired | Change::Missed { .. } | Change::Gap => 0,
        };
        size_of::<Self>() + self.key.len() + self.writer.as_ref().map_or(0, |(_, name)| name.len()) + change
    }
}

/// One queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) root: RootId,
    /// That of the listener group.
    pub(super) name: String,
    /// The last event that was given an id.
    pub(super) last: EventId,
    /// Ascending.
    events: VecDeque<Arc<QueuedEvent>>,
    /// About how many bytes they take.
    bytes: usize,
}

impl Queue {
    pub(super) const fn new(root: RootId, name: String, last: EventId) -> Self {
        Self { root, name, last, events: VecDeque::new(), bytes: 0 }
    }

    /// The event at this place in the queue.
    pub(super) fn get(&self, at: usize) -> Option<&Arc<QueuedEvent>> {
        self.events.get(at)
    }

    /// The place of an event.
    pub(super) fn find(&self, id: EventId) -> Option<usize> {
        self.events.binary_search_by_key(&id, |event| event.id).ok()
    }

    fn push(&mut self, object: ObjectId, key: Bytes, writer: Option<(Incarnation, String)>, change: Change) {
        if self.events.len() < QUEUED_MAX && self.bytes < QUEUED_BYTES_MAX {
            self.last = self.last.next();
            self.put(Arc::new(QueuedEvent { id: self.last, object, key, writer, change }));
            return;
        }
        // Whatever was handed out is at the front.
        if let Some(last) = self.events.back_mut()
            && let Change::Missed { events } = last.change
        {
            Arc::make_mut(last).change = Change::Missed { events: events + 1 };
            return;
        }
        self.last = self.last.next();
        let (object, change) = (ObjectId::from_bits(0), Change::Missed { events: 1 });
        self.put(Arc::new(QueuedEvent { id: self.last, object, key: Bytes::new(), writer: None, change }));
    }

    fn put(&mut self, event: Arc<QueuedEvent>) {
        self.bytes += event.bytes();
        self.events.push_back(event);
    }
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Queues {
    queues: BTreeMap<QueueId, Queue>,
    /// Soft: those with events that the engine has not looked at.
    pub(super) touched: BTreeSet<QueueId>,
}

impl Queues {
    pub(super) fn get(&self, queue: QueueId) -> Option<&Queue> {
        self.queues.get(&queue)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (QueueId, &Queue)> {
        self.queues.iter().map(|(id, queue)| (*id, queue))
    }

    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn find(&self, root: RootId, name: &str) -> Option<QueueId> {
        let found = self.queues.iter().find(|(_, queue)| queue.root == root && queue.name == name);
        found.map(|(id, _)| *id)
    }

    /// The number that the next queue gets.
    pub(super) fn next(&self) -> QueueId {
        self.queues.last_key_value().map(|(last, _)| *last).unwrap_or_default().next()
    }

    /// Whether somebody is to hear what happens in a root.
    pub(super) fn has(&self, root: RootId) -> bool {
        self.queues.values().any(|queue| queue.root == root)
    }

    pub(super) fn add(&mut self, id: QueueId, queue: Queue) -> Result<(), BadEntry> {
        if self.find(queue.root, &queue.name).is_some() || self.queues.contains_key(&id) {
            return Err(BadEntry::OutOfPlace { what: "a second queue of one listener group" });
        }
        self.queues.insert(id, queue);
        Ok(())
    }

    pub(super) fn remove(&mut self, id: QueueId) -> Result<(), BadEntry> {
        self.queues.remove(&id).map(drop).ok_or_else(|| missing(id))
    }

    /// Something happened in a root.
    pub(super) fn push(
        &mut self,
        root: RootId,
        object: ObjectId,
        key: &Bytes,
        writer: Option<&(Incarnation, String)>,
        change: &Change,
    ) {
        for (id, queue) in self.queues.iter_mut().filter(|(_, queue)| queue.root == root) {
            queue.push(object, key.clone(), writer.cloned(), change.clone());
            self.touched.insert(*id);
        }
    }

    /// An event of a snapshot.
    pub(super) fn restore(&mut self, id: QueueId, event: Arc<QueuedEvent>) -> Result<(), BadEntry> {
        let queue = self.queues.get_mut(&id).ok_or_else(|| missing(id))?;
        let last = queue.events.back().map(|last| last.id).unwrap_or_default();
        if event.id <= last || event.id > queue.last {
            let (number, last) = (event.id.to_bits(), last.to_bits());
            return Err(BadEntry::OutOfOrder { what: "event", number, last });
        }
        queue.put(event);
        Ok(())
    }

    /// Events were heard.
    pub(super) fn heard(&mut self, id: QueueId, events: &[EventId]) -> Result<(), BadEntry> {
        let queue = self.queues.get_mut(&id).ok_or_else(|| missing(id))?;
        for event in events {
            let at = queue.find(*event);
            let at = at.ok_or_else(|| BadEntry::Missing { what: "event", number: event.to_bits() })?;
            queue.bytes -= queue.events.remove(at).map_or(0, |event| event.bytes());
        }
        Ok(())
    }

    /// All queues and events.
    pub(super) fn pieces(&self) -> Vec<super::Piece> {
        let mut pieces = Vec::new();
        for (id, queue) in self.iter() {
            let Queue { root, name, last, events, bytes: _ } = queue;
            pieces.push(super::Piece::Queue { queue: id, root: *root, name: name.clone(), last: *last });
            let events = events.iter().map(|event| super::Piece::Event { queue: id, event: Arc::clone(event) });
            pieces.extend(events);
        }
        pieces
    }
}

fn missing(queue: QueueId) -> BadEntry {
    BadEntry::Missing { what: "queue", number: queue.to_bits().into() }
}
