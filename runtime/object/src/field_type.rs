//! The ways in which a declared field takes part in its object; what the derive plugs together.

use crate::change::{Change, Changes};
use crate::clustered::Clustered;
use crate::counter::CounterMut;
use crate::declared::FieldInfo;
use crate::field::Field;
use crate::form::{ForeignForm, Form};
use crate::held::Held;
use crate::value::{Archival, Slot, Value, ValueError, ViewOf};
use kiln_heap::{Object, Pinned, SlotKind};
use kiln_protocol::schema::FieldKind;
use kiln_protocol::structure::Structure;
use std::marker::PhantomData;

/// How a declared field takes part: as a plain [`Value`] or `kiln::Map`, or as its attributes `counter`, `nested` and
/// `archive` say. Not to be implemented outside of Kiln.
pub trait FieldType {
    /// The field's type in the struct.
    type Owned;
    /// The field in a write guard.
    type Mut<'a>: Send + Sync;
    /// What the view's accessor returns.
    type View<'a>;
    /// Its slots: one without a name, or those of a nested struct.
    const FIELDS: &'static [FieldInfo];

    /// Writes its slots, from `slot` on.
    ///
    /// # Errors
    /// When the value cannot be stored.
    fn store(owned: &Self::Owned, slot: u16, out: &mut Changes) -> Result<(), ValueError>;
    /// The field in a guard of which nothing is changed yet.
    fn guard(object: &Object, slot: u16) -> Self::Mut<'_>;
    /// Writes the slots that the guard changed.
    ///
    /// # Errors
    /// When a value cannot be stored.
    fn collect(guard: &mut Self::Mut<'_>, out: &mut Changes) -> Result<(), ValueError>;
    /// The value in place.
    fn view<'a>(pinned: &'a Pinned<'a>, slot: u16) -> Self::View<'a>;
    /// A copy of the value.
    fn load(pinned: &Pinned<'_>, slot: u16) -> Self::Owned;
}

/// A field without an attribute that says otherwise.
#[derive(Debug)]
pub struct PlainField<T>(PhantomData<T>);

impl<T: Value> FieldType for PlainField<T> {
    type Owned = T;
    type Mut<'a> = Field<'a, T>;
    type View<'a> = ViewOf<'a, T>;
    const FIELDS: &'static [FieldInfo] = &[FieldInfo::unnamed(T::KIND, T::STRUCTURE, T::slot_kind)];

    fn store(owned: &T, slot: u16, out: &mut Changes) -> Result<(), ValueError> {
        Ok(out.push_stored(slot, Value::store(owned)?)?)
    }

    fn guard(object: &Object, slot: u16) -> Field<'_, T> {
        Field::new(object, slot)
    }

    fn collect(guard: &mut Field<'_, T>, out: &mut Changes) -> Result<(), ValueError> {
        guard.collect(out)
    }

    fn view<'a>(pinned: &'a Pinned<'a>, slot: u16) -> ViewOf<'a, T> {
        <T as Value>::view(Slot::new(pinned, slot))
    }

    fn load(pinned: &Pinned<'_>, slot: u16) -> T {
        <T as Value>::load(Slot::new(pinned, slot))
    }
}

/// A field with `#[clustered(archive = "tag")]`.
#[derive(Debug)]
pub struct ArchiveField<T>(PhantomData<T>);

impl<T: Archival + Send + Sync> FieldType for ArchiveField<T> {
    type Owned = T;
    type Mut<'a> = Field<'a, T, ForeignForm>;
    type View<'a> = &'a T::Archived;
    /// The derive knows the tag and gives the table itself.
    const FIELDS: &'static [FieldInfo] = &[FieldInfo::opaque::<T>("")];

    fn store(owned: &T, slot: u16, out: &mut Changes) -> Result<(), ValueError> {
        Ok(out.push_stored(slot, ForeignForm::store(owned)?)?)
    }

    fn guard(object: &Object, slot: u16) -> Self::Mut<'_> {
        Field::new(object, slot)
    }

    fn collect(guard: &mut Self::Mut<'_>, out: &mut Changes) -> Result<(), ValueError> {
        guard.collect(out)
    }

    fn view<'a>(pinned: &'a Pinned<'a>, slot: u16) -> Self::View<'a> {
        <ForeignForm as Form<T>>::view(Slot::new(pinned, slot))
    }

    fn load(pinned: &Pinned<'_>, slot: u16) -> T {
        ForeignForm::load(Slot::new(pinned, slot))
    }
}

/// What a counter may be.
#[diagnostic::on_unimplemented(
    message = "a counter is an `i64`, not `{Self}`",
    label = "must be `i64`",
    note = "counters add signed 64-bit amounts; for another type leave `counter` out and change the field under the lock"
)]
pub trait CounterType: Copy {
    /// As the number it is.
    fn into_sum(self) -> i64;
    /// From the number it is.
    fn from_sum(sum: i64) -> Self;
}

impl CounterType for i64 {
    fn into_sum(self) -> i64 {
        self
    }

    fn from_sum(sum: i64) -> Self {
        sum
    }
}

/// A field with `#[clustered(counter)]`.
#[derive(Debug)]
pub struct CounterField<T>(PhantomData<T>);

impl<T: CounterType> FieldType for CounterField<T> {
    type Owned = T;
    type Mut<'a> = CounterMut<'a>;
    type View<'a> = T;
    const FIELDS: &'static [FieldInfo] =
        &[FieldInfo::unnamed(FieldKind::Counter, Structure::Counter, || SlotKind::Scalar)];

    fn store(owned: &T, slot: u16, out: &mut Changes) -> Result<(), ValueError> {
        out.push(Change::Scalar { slot, bits: owned.into_sum().cast_unsigned() });
        Ok(())
    }

    fn guard(object: &Object, slot: u16) -> CounterMut<'_> {
        CounterMut::new(object, slot)
    }

    fn collect(guard: &mut CounterMut<'_>, out: &mut Changes) -> Result<(), ValueError> {
        guard.collect(out);
        Ok(())
    }

    fn view<'a>(pinned: &'a Pinned<'a>, slot: u16) -> T {
        T::from_sum(pinned.scalar(slot).cast_signed())
    }

    fn load(pinned: &Pinned<'_>, slot: u16) -> T {
        T::from_sum(pinned.scalar(slot).cast_signed())
    }
}

/// A field with `#[clustered(nested)]`.
#[derive(Debug)]
pub struct NestedField<T>(PhantomData<T>);

impl<T: Clustered> FieldType for NestedField<T> {
    type Owned = T;
    type Mut<'a> = T::Mut<'a>;
    type View<'a> = T::View<'a>;
    const FIELDS: &'static [FieldInfo] = T::FIELDS;

    fn store(owned: &T, slot: u16, out: &mut Changes) -> Result<(), ValueError> {
        owned.store_at(slot, out)
    }

    fn guard(object: &Object, slot: u16) -> T::Mut<'_> {
        T::guard_at(object, slot)
    }

    fn collect(guard: &mut T::Mut<'_>, out: &mut Changes) -> Result<(), ValueError> {
        T::collect(guard, out)
    }

    fn view<'a>(pinned: &'a Pinned<'a>, slot: u16) -> T::View<'a> {
        T::view_at(Held::Outer(pinned), slot)
    }

    fn load(pinned: &Pinned<'_>, slot: u16) -> T {
        T::load(&T::view_at(Held::Outer(pinned), slot))
    }
}
