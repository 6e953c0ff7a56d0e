//! Watches: what happens to an object, or to all objects of a root.

use super::error::AccessError;
use super::runtime::Attached;
use bytes::Bytes;
use kiln_engine::{Binding, WatchEvent, WatchQueue};
use kiln_object::Key;
use kiln_protocol::message::{Change, SlotChange, WatchTarget};
use kiln_protocol::{FieldId, Incarnation, ObjectId, Version, WatchId};
use std::borrow::Cow;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;

/// Something that happened to a watched object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event<K> {
    /// The object's key; when it was renamed, the old one. `None` for a gap, which may be of any object.
    pub key: Option<K>,
    /// The object.
    pub object: ObjectId,
    /// The node that did it, and its name; `None` for the coordinator.
    pub writer: Option<(Incarnation, String)>,
    /// What happened.
    pub kind: EventKind<K>,
}

/// What happened to a watched object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventKind<K> {
    /// It was created.
    Created,
    /// A commit changed it.
    Updated {
        /// The names of the fields that were written; `#7` for a field that this version of the program does not know.
        fields: Vec<Cow<'static, str>>,
        /// What became of each field, and of each entry of fields that are maps: 256 of them at most. None of a commit that the
        /// watch began behind, while it was not safe.
        slots: Vec<ChangedSlot>,
        /// The lock group; `default` for that of the fields without `lock`, `None` for adds and for groups this program does not know.
        group: Option<&'static str>,
        /// The version that the commit made.
        version: Version,
    },
    /// It was removed.
    Removed,
    /// The coordinator removed it: nobody had used it for too long, or it was too old
    /// ([`RootSettings`](crate::RootSettings)).
    Expired,
    /// It has another key now.
    Renamed {
        /// The new key.
        to: K,
    },
    /// Events may be missing here: the watcher was too slow, or the connection was lost meanwhile. Told at once, not only
    /// with the next event.
    Gap,
}

/// A field that a commit changed, or an entry of a field that is a map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChangedSlot {
    /// The name of the field; `#7` for a field that this version of the program does not know.
    pub field: Cow<'static, str>,
    entry: Option<Bytes>,
    /// What became of it. A field that was never written counts as added by its first write, and as removed when it goes back
    /// to its default unwritten.
    pub change: SlotChange,
}

impl ChangedSlot {
    /// The key of the entry, if the field is a map with keys of this type.
    #[must_use]
    pub fn entry<Q: Key>(&self) -> Option<Q> {
        self.entry.as_ref().and_then(|key| Q::decode(key))
    }
}

/// A watch. Each version is told once, in order, or there is a [`EventKind::Gap`]. Dropping it ends it.
#[derive(Debug)]
pub struct Watch<K> {
    runtime: Arc<Attached>,
    id: WatchId,
    queue: Arc<WatchQueue>,
    binding: Arc<Binding>,
    _key: PhantomData<fn() -> K>,
}

impl<K> Drop for Watch<K> {
    fn drop(&mut self) {
        self.runtime.node.unwatch(self.id);
    }
}

impl<K: Key> Watch<K> {
    pub(super) async fn start(
        runtime: &Arc<Attached>,
        target: WatchTarget,
        binding: Arc<Binding>,
    ) -> Result<Self, AccessError> {
        let mut started = None;
        let answer = runtime.wait(runtime.options.away, |node| {
            let (id, queue, ticket) = node.watch(target);
            // Made before the answer: a dropped future ends the watch.
            started = Some(Self { runtime: Arc::clone(runtime), id, queue, binding, _key: PhantomData });
            ticket
        });
        answer.await?;
        started.ok_or(AccessError::Disconnected)
    }

    /// The next event; `None` when the watch ended, because the object was removed or the node is no longer attached.
    pub async fn next(&mut self) -> Option<Event<K>> {
        loop {
            let event = poll_fn(|context| self.queue.poll_next(context)).await?;
            // A key that this program's key type cannot have is a defect elsewhere; it must not end the watch.
            if let Some(event) = decode(&self.binding, event) {
                return Some(event);
            }
        }
    }
}

/// `None` when the key is none of this program's type.
pub(super) fn decode<K: Key>(binding: &Binding, event: WatchEvent) -> Option<Event<K>> {
    let WatchEvent { object, key, writer, change } = event;
    let decode = |key: &Bytes| K::decode(key);
    let name =
        |field: FieldId| binding.field_name(field).map_or_else(|| Cow::Owned(format!("#{field}")), Cow::Borrowed);
    if change == Change::Gap {
        return Some(Event { key: None, object, writer, kind: EventKind::Gap });
    }
    let kind = match change {
        Change::Created => EventKind::Created,
        Change::Updated { group, version, fields, slots, .. } => EventKind::Updated {
            fields: fields.into_iter().map(name).collect(),
            slots: slots
                .into_iter()
                .map(|slot| ChangedSlot { field: name(slot.field), entry: slot.entry, change: slot.change })
                .collect(),
            group: binding
                .group_index(group)
                .filter(|index| *index != binding.commutative())
                .map(|index| binding.group_name(index)),
            version,
        },
        Change::Removed => EventKind::Removed,
        Change::Expired => EventKind::Expired,
        Change::Renamed { to } => EventKind::Renamed { to: decode(&to)? },
        Change::Missed { .. } | Change::Gap => EventKind::Gap,
    };
    Some(Event { key: Some(decode(&key)?), object, writer, kind })
}
