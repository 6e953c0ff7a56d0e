//! The forms in which a value is kept: in the table itself, as text, as bytes, or as one archive.

use crate::scalar::Scalar;
use crate::value::{Archival, BadValue, Slot, Stored, Value};
use kiln_heap::{ArchiveType, ArchivedBuf, BlockKind, MapRef, SlotKind};
use kiln_protocol::limits::ARCHIVE_DEPTH_MAX;
use kiln_protocol::schema::FieldKind;
use std::any::type_name;
use std::fmt;

/// How values of type `T` are kept as a field of their own.
pub trait Form<T>: Send + Sync + 'static {
    /// What reading in place gives.
    type View<'a>;
    /// How the protocol sees such a field.
    const KIND: FieldKind;

    /// How the heap keeps such a field.
    fn slot_kind() -> SlotKind;
    /// The value as a slot takes it.
    ///
    /// # Errors
    /// When it cannot be archived.
    fn store(value: &T) -> Result<Stored, BadValue>;
    /// A copy of the value in a slot.
    fn load(slot: Slot<'_>) -> T;
    /// The value in a slot, in place.
    fn view<'a>(slot: Slot<'a>) -> Self::View<'a>;
}

/// The same for the values of a map, which are all kept as blocks.
pub trait EntryForm<T>: Form<T> {
    /// How the heap keeps a map with such values.
    fn map_kind() -> SlotKind;
    /// The value as an entry of a map takes it.
    ///
    /// # Errors
    /// When it cannot be archived.
    fn store_entry(value: &T) -> Result<ArchivedBuf, BadValue>;
    /// A copy of the value of an entry.
    fn load_entry(map: MapRef<'_>, key: &[u8]) -> Option<T>;
    /// The value of an entry, in place.
    fn view_entry<'a>(map: MapRef<'a>, key: &[u8]) -> Option<Self::View<'a>>;
    /// The entries in the order of their keys, in place.
    fn entries<'a>(map: MapRef<'a>) -> impl Iterator<Item = (&'a [u8], Self::View<'a>)>;
}

/// Eight bytes in the table itself.
pub enum ScalarForm {}

impl<T: Scalar + Value> Form<T> for ScalarForm {
    type View<'a> = T;
    const KIND: FieldKind = FieldKind::Scalar;

    fn slot_kind() -> SlotKind {
        SlotKind::Scalar
    }

    fn store(value: &T) -> Result<Stored, BadValue> {
        Ok(Stored::Scalar(value.into_slot()))
    }

    fn load(slot: Slot<'_>) -> T {
        T::from_slot(slot.scalar())
    }

    fn view<'a>(slot: Slot<'a>) -> T {
        T::from_slot(slot.scalar())
    }
}

impl<T: Scalar + Value> EntryForm<T> for ScalarForm {
    fn map_kind() -> SlotKind {
        ArchiveForm::archive_map::<T>()
    }

    fn store_entry(value: &T) -> Result<ArchivedBuf, BadValue> {
        ArchiveForm::store_entry(value)
    }

    fn load_entry(map: MapRef<'_>, key: &[u8]) -> Option<T> {
        ArchiveForm::load_entry(map, key)
    }

    fn view_entry<'a>(map: MapRef<'a>, key: &[u8]) -> Option<T> {
        ArchiveForm::load_entry(map, key)
    }

    fn entries<'a>(map: MapRef<'a>) -> impl Iterator<Item = (&'a [u8], T)> {
        map.iter_archived::<T>().map(|(key, value)| (key, T::restore(value)))
    }
}

/// A block of UTF-8.
pub enum TextForm {}

impl Form<String> for TextForm {
    type View<'a> = &'a str;
    const KIND: FieldKind = FieldKind::Block;

    fn slot_kind() -> SlotKind {
        SlotKind::Text
    }

    fn store(value: &String) -> Result<Stored, BadValue> {
        Self::store_entry(value).map(Stored::Block)
    }

    fn load(slot: Slot<'_>) -> String {
        slot.text().to_owned()
    }

    fn view<'a>(slot: Slot<'a>) -> &'a str {
        slot.text()
    }
}

impl EntryForm<String> for TextForm {
    fn map_kind() -> SlotKind {
        SlotKind::Map(BlockKind::Text)
    }

    fn store_entry(value: &String) -> Result<ArchivedBuf, BadValue> {
        Ok(ArchivedBuf::text(value))
    }

    fn load_entry(map: MapRef<'_>, key: &[u8]) -> Option<String> {
        map.get_text(key).map(str::to_owned)
    }

    fn view_entry<'a>(map: MapRef<'a>, key: &[u8]) -> Option<&'a str> {
        map.get_text(key)
    }

    fn entries<'a>(map: MapRef<'a>) -> impl Iterator<Item = (&'a [u8], &'a str)> {
        map.iter_text()
    }
}

/// A block of bytes.
pub enum BytesForm {}

impl Form<Vec<u8>> for BytesForm {
    type View<'a> = &'a [u8];
    const KIND: FieldKind = FieldKind::Block;

    fn slot_kind() -> SlotKind {
        SlotKind::Bytes
    }

    fn store(value: &Vec<u8>) -> Result<Stored, BadValue> {
        Self::store_entry(value).map(Stored::Block)
    }

    fn load(slot: Slot<'_>) -> Vec<u8> {
        slot.bytes().to_owned()
    }

    fn view<'a>(slot: Slot<'a>) -> &'a [u8] {
        slot.bytes()
    }
}

impl EntryForm<Vec<u8>> for BytesForm {
    fn map_kind() -> SlotKind {
        SlotKind::Map(BlockKind::Bytes)
    }

    fn store_entry(value: &Vec<u8>) -> Result<ArchivedBuf, BadValue> {
        Ok(ArchivedBuf::raw(value))
    }

    fn load_entry(map: MapRef<'_>, key: &[u8]) -> Option<Vec<u8>> {
        map.get_bytes(key).map(<[u8]>::to_vec)
    }

    fn view_entry<'a>(map: MapRef<'a>, key: &[u8]) -> Option<&'a [u8]> {
        map.get_bytes(key)
    }

    fn entries<'a>(map: MapRef<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        map.iter()
    }
}

/// A block that is one rkyv archive.
pub enum ArchiveForm {}

impl ArchiveForm {
    fn archive_map<T: Archival>() -> SlotKind {
        SlotKind::Map(BlockKind::Archive(ArchiveType::of::<T>()))
    }
}

// `Value` implies `Archival`; a type without it is told so only because both are named.
impl<T: Archival + Value> Form<T> for ArchiveForm {
    type View<'a> = &'a T::Archived;
    const KIND: FieldKind = FieldKind::Block;

    fn slot_kind() -> SlotKind {
        SlotKind::Archive(ArchiveType::of::<T>())
    }

    fn store(value: &T) -> Result<Stored, BadValue> {
        Self::store_entry(value).map(Stored::Block)
    }

    fn load(slot: Slot<'_>) -> T {
        T::restore(slot.archived::<T>())
    }

    fn view<'a>(slot: Slot<'a>) -> &'a T::Archived {
        slot.archived::<T>()
    }
}

impl<T: Archival + Value> EntryForm<T> for ArchiveForm {
    fn map_kind() -> SlotKind {
        Self::archive_map::<T>()
    }

    fn store_entry(value: &T) -> Result<ArchivedBuf, BadValue> {
        archive(value, const { T::STRUCTURE.archive_depth_max() })
    }

    fn load_entry(map: MapRef<'_>, key: &[u8]) -> Option<T> {
        map.get_archived::<T>(key).map(T::restore)
    }

    fn view_entry<'a>(map: MapRef<'a>, key: &[u8]) -> Option<&'a T::Archived> {
        map.get_archived::<T>(key)
    }

    fn entries<'a>(map: MapRef<'a>) -> impl Iterator<Item = (&'a [u8], &'a T::Archived)> {
        map.iter_archived::<T>()
    }
}

/// One archive of a type that says nothing of its structure, and so perhaps holds itself: what nests deeper than other
/// nodes read is refused here, not there.
pub enum ForeignForm {}

impl<T: Archival> Form<T> for ForeignForm {
    type View<'a> = &'a T::Archived;
    const KIND: FieldKind = FieldKind::Block;

    fn slot_kind() -> SlotKind {
        SlotKind::Archive(ArchiveType::of::<T>())
    }

    fn store(value: &T) -> Result<Stored, BadValue> {
        archive(value, usize::MAX).map(Stored::Block)
    }

    fn load(slot: Slot<'_>) -> T {
        T::restore(slot.archived::<T>())
    }

    fn view<'a>(slot: Slot<'a>) -> &'a T::Archived {
        slot.archived::<T>()
    }
}

/// Serialises a value, and makes sure that other nodes can read it: by its structure, or by looking.
fn archive<T: Archival>(value: &T, depth_max: usize) -> Result<ArchivedBuf, BadValue> {
    let archive = ArchivedBuf::new(value)?;
    if depth_max < ARCHIVE_DEPTH_MAX {
        debug_assert!(archive.check::<T>().is_ok(), "a {} serialises to no archive of itself", type_name::<T>());
    } else {
        archive.check::<T>().map_err(BadValue::Unreadable)?;
    }
    Ok(archive)
}

/// The form that [`Value::Form`] names; what a field has unless an attribute says otherwise.
pub enum OwnForm {}

impl<T: Value> Form<T> for OwnForm {
    type View<'a> = <T::Form as Form<T>>::View<'a>;
    const KIND: FieldKind = <T::Form as Form<T>>::KIND;

    fn slot_kind() -> SlotKind {
        T::Form::slot_kind()
    }

    fn store(value: &T) -> Result<Stored, BadValue> {
        T::Form::store(value)
    }

    fn load(slot: Slot<'_>) -> T {
        T::Form::load(slot)
    }

    fn view<'a>(slot: Slot<'a>) -> Self::View<'a> {
        T::Form::view(slot)
    }
}

macro_rules! uninhabited_debug {
    ($($form:ty)*) => { $(
        impl fmt::Debug for $form {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    )* };
}

uninhabited_debug!(ScalarForm TextForm BytesForm ArchiveForm ForeignForm OwnForm);

#[cfg(test)]
mod tests {
    use super::*;
    use rkyv::{Archive, Deserialize, Serialize, rancor};
    use std::collections::BTreeMap;

    #[derive(Archive, Deserialize, Serialize)]
    #[rkyv(
        serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rancor::Source),
        deserialize_bounds(__D::Error: rancor::Source),
        bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rancor::Source))
    )]
    struct Chain(#[rkyv(omit_bounds)] Option<Box<Self>>);

    fn chain(links: usize) -> Chain {
        (1..links).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain))))
    }

    #[test]
    fn a_foreign_value_that_nests_too_deep_is_refused_where_it_is_written() {
        // The value itself is the first level, so a chain of 63 links is the longest.
        assert!(matches!(<ForeignForm as Form<Chain>>::store(&chain(ARCHIVE_DEPTH_MAX - 1)), Ok(Stored::Block(_))));
        let error = <ForeignForm as Form<Chain>>::store(&chain(ARCHIVE_DEPTH_MAX)).unwrap_err();
        assert!(matches!(error, BadValue::Unreadable(_)));
        assert!(error.to_string().starts_with("other nodes could not read it, as when it nests 64 levels deep: "));
    }

    type Trees<T> = BTreeMap<u8, BTreeMap<u8, BTreeMap<u8, BTreeMap<u8, T>>>>;

    /// A tree of four levels whose lowest leaf holds the value.
    fn tree<T: Default>(value: T) -> BTreeMap<u8, T> {
        let mut tree: BTreeMap<_, _> = (0..=u8::MAX).map(|key| (key, T::default())).collect();
        tree.insert(0, value);
        tree
    }

    fn trees<T: Default>(value: T) -> Trees<T> {
        tree(tree(tree(tree(value))))
    }

    #[test]
    fn a_value_that_uses_all_the_depth_of_its_structure_is_refused_too() {
        assert!(ArchiveForm::store(&trees(trees(trees(Trees::<u8>::default())))).is_ok());
        let error = ArchiveForm::store(&trees(trees(trees(trees(0_u8))))).unwrap_err();
        assert!(matches!(error, BadValue::Unreadable(_)));
    }
}
