//! A heap with objects in it, without locks and wire.
#![expect(clippy::unwrap_used, reason = "a stage that cannot be set up fails the test")]

use kiln_heap::{Heap, Object, Options, Shape, SlotWrite};
use kiln_object::{Change, Changes, Clustered};
use std::fmt::Write as _;
use std::sync::Arc;

pub(crate) struct Stage {
    heap: Heap,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let heap = Heap::new(Options { bytes_max: 16 << 20 }).unwrap();
        Self { heap }
    }

    pub(crate) fn object<T: Clustered>(&self, value: &T) -> Object {
        let mut changes = Changes::new();
        value.store(&mut changes).unwrap();
        self.object_from::<T>(&changes)
    }

    pub(crate) fn object_from<T: Clustered>(&self, changes: &Changes) -> Object {
        Object::new(&self.heap, &shape::<T>(), &writes(changes), &[0]).unwrap()
    }

    pub(crate) fn apply(&self, object: &Object, changes: &Changes) {
        object.apply(&writes(changes), &[(0, object.version(0) + 1)]).unwrap();
    }
}

pub(crate) fn shape<T: Clustered>() -> Arc<Shape> {
    Shape::new(T::FIELDS.iter().map(|field| (field.slot_kind)()), 1).unwrap()
}

pub(crate) fn writes(changes: &Changes) -> Vec<SlotWrite<'_>> {
    changes.iter().map(Change::as_write).collect()
}

pub(crate) fn collect<T: Clustered>(guard: &mut T::Mut<'_>) -> Changes {
    let mut changes = Changes::new();
    T::collect(guard, &mut changes).unwrap();
    changes
}

pub(crate) fn describe<T: Clustered>(changes: &Changes) -> String {
    let mut text = String::new();
    for change in changes {
        let separator = if text.is_empty() { "" } else { ", " };
        write!(text, "{separator}{}: ", T::FIELDS[usize::from(change.slot())].name).unwrap();
        match change {
            Change::Scalar { bits, .. } => write!(text, "scalar {bits}"),
            Change::Block { .. } => write!(text, "block"),
            Change::Add { amount, .. } => write!(text, "add {amount}"),
            Change::MapPut { key, .. } => write!(text, "put {}", key.escape_ascii()),
            Change::MapRemove { key, .. } => write!(text, "remove {}", key.escape_ascii()),
            Change::MapClear { .. } => write!(text, "clear"),
        }
        .unwrap();
    }
    text
}
