//! The typed layer between a user's structs and the heap: which types a field may have ([`Value`], [`Map`]), which
//! structs can be shared ([`Clustered`]), what keys are ([`Key`]), and the fields of write guards and views.
//!
//! Absent: locks, commits and the wire; a guard only collects [`Changes`]. No unsafe code, here or in what the derives
//! emit: all of it is in `kiln-heap`, which hands out archives only after their check.

mod change;
mod clustered;
mod counter;
mod declared;
mod field;
mod field_type;
mod form;
mod held;
mod key;
pub mod loose;
mod map;
mod map_mut;
mod map_view;
mod scalar;
mod value;
mod values;

pub use change::{Change, Changes, IntoChanges, KeptLocal};
pub use clustered::Clustered;
pub use counter::{CounterMut, CounterSource, NestedCounters};
pub use declared::{FieldInfo, groups};
pub use field::Field;
pub use field_type::FieldType;
pub use form::{ArchiveForm, BytesForm, EntryForm, ForeignForm, Form, OwnForm, ScalarForm, TextForm};
pub use key::{FixedKey, Key, KeyBytes};
pub use kiln_macros::{Clustered, Value};
pub use map::Map;
pub use map_mut::{MapIter, MapMut};
pub use map_view::MapView;
pub use rkyv;
pub use scalar::Scalar;
pub use value::{Archival, BadValue, Slot, Stored, Value, ValueError, ViewOf};

/// What the derives' output names. No promise is made about it.
#[doc(hidden)]
pub mod private {
    pub use crate::change::{KeepLocal, collect_nested, collect_or_keep_local, collect_or_leave_out};
    pub use crate::declared::{Declared, fields, first_slot, names, names_bytes, no_such_slot, slots};
    pub use crate::field_type::{ArchiveField, CounterField, CounterType, NestedField, PlainField};
    pub use crate::held::Held;
    pub use kiln_heap::{Object, Pinned};
    pub use kiln_protocol::structure::{Field, Structure, Variant};
}
#[doc(hidden)]
pub use private as __private;
