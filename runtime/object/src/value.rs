//! The types that a field of a clustered struct may have.

use crate::form::{EntryForm, Form};
use kiln_heap::{Archivable, ArchiveError, ArchivedBuf, MapRef, Pinned, SlotKind};
use kiln_protocol::schema::FieldKind;
use kiln_protocol::structure::Structure;
use rkyv::api::high::HighDeserializer;
use rkyv::rancor;
use rkyv::{Archive, Deserialize};

/// A type that a field may have, with a constant description of what it is made of.
///
/// Implemented for the scalars, `String`, `Vec`, `Option`, `Box`, arrays, tuples of up to six, `BTreeMap`, `BTreeSet`,
/// `Duration`, and the addresses of `std::net` (which need `#[clustered(default = ..)]`, having no `Default`). For a
/// struct or an enum of your own, derive it beside rkyv's traits:
///
/// ```
/// # extern crate kiln_object as kiln;
/// use kiln::rkyv;
///
/// #[derive(Clone, kiln::Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
/// #[rkyv(crate = kiln::rkyv)]
/// struct CartLine {
///     sku: String,
///     count: u32,
/// }
/// # fn main() {}
/// ```
///
/// How a value is kept: a scalar sits in the object's table; a `String` and a `Vec<u8>` are their own bytes; everything
/// else is one rkyv archive, read in place.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a shared value",
    label = "not a `kiln::Value`",
    note = "for a type of your own: `#[derive(kiln::Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]` with \
            `#[rkyv(crate = kiln::rkyv)]`",
    note = "instead of `HashMap` use `kiln::Map` (one delta per entry) or `BTreeMap` (one value as a whole), and \
            `BTreeSet` instead of `HashSet`",
    note = "`Rc`, `Arc`, locks and handles cannot be shared between processes: keep the field in this process with \
            `#[clustered(local)]`, or use the type that they point to",
    note = "instead of `usize` and `isize`, whose width is the machine's, use `u64` and `i64`",
    note = "for a foreign type that has rkyv's traits write `#[clustered(archive = \"tag\")]` on the field"
)]
pub trait Value: Archival + Send + Sync {
    /// How a field of this type is kept.
    type Form: EntryForm<Self>;
    /// How a field that is a `Vec` of this type is kept.
    type ListForm: EntryForm<Vec<Self>>;
    /// What a value is made of.
    const STRUCTURE: Structure<'static>;
    /// What a `Vec` of this type is made of.
    const LIST_STRUCTURE: Structure<'static> = Structure::Vec(&Self::STRUCTURE);
    /// How the protocol sees a field of this type.
    const KIND: FieldKind = <Self::Form as Form<Self>>::KIND;

    /// How the heap keeps a field of this type.
    #[must_use]
    fn slot_kind() -> SlotKind {
        Self::Form::slot_kind()
    }

    /// The value as a slot takes it.
    ///
    /// # Errors
    /// When it cannot be archived.
    fn store(&self) -> Result<Stored, BadValue> {
        Self::Form::store(self)
    }

    /// A copy of the value in a slot.
    ///
    /// # Panics
    /// When the slot is of another type, or the type's own rkyv code refuses to read back what its check let pass.
    #[must_use]
    fn load(slot: Slot<'_>) -> Self {
        Self::Form::load(slot)
    }

    /// The value in a slot, in place.
    ///
    /// # Panics
    /// When the slot is of another type.
    #[must_use]
    fn view<'a>(slot: Slot<'a>) -> ViewOf<'a, Self> {
        Self::Form::view(slot)
    }
}

/// What an accessor returns for a field of type `T`: scalars by value, `&str` for `String`, `&[u8]` for `Vec<u8>`, and
/// for everything else a reference to the archived value.
pub type ViewOf<'a, T> = <<T as Value>::Form as Form<T>>::View<'a>;

/// Types with rkyv's traits: they can be archived, checked and read back.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be archived",
    label = "lacks rkyv's traits",
    note = "for a type of your own: `#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]` and \
            `#[rkyv(crate = kiln::rkyv)]` beside `kiln::Value`, with `use kiln::rkyv;`",
    note = "a foreign type has them when its crate supports rkyv 0.8, often through a feature"
)]
pub trait Archival: Archivable + Archive<Archived: Deserialize<Self, HighDeserializer<rancor::Error>>> + Sized {
    /// A copy of the archived value.
    ///
    /// # Panics
    /// When the type's own rkyv code refuses to read back what its check let pass.
    #[must_use]
    fn restore(archived: &Self::Archived) -> Self;
}

// Not recommended: which of rkyv's bounds is missing is of no help to whoever forgot the derives.
#[diagnostic::do_not_recommend]
impl<T: Archivable + Archive<Archived: Deserialize<T, HighDeserializer<rancor::Error>>>> Archival for T {
    fn restore(archived: &Self::Archived) -> Self {
        rkyv::deserialize::<Self, rancor::Error>(archived).expect("a checked archive can be read back")
    }
}

/// One slot of an object's table, pinned.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'p> {
    pinned: &'p Pinned<'p>,
    index: u16,
}

impl<'p> Slot<'p> {
    /// The slot with this index.
    #[inline]
    #[must_use]
    pub const fn new(pinned: &'p Pinned<'p>, index: u16) -> Self {
        Self { pinned, index }
    }

    #[inline]
    pub(crate) fn scalar(self) -> u64 {
        self.pinned.scalar(self.index)
    }

    #[inline]
    pub(crate) fn bytes(self) -> &'p [u8] {
        self.pinned.bytes(self.index)
    }

    #[inline]
    pub(crate) fn text(self) -> &'p str {
        self.pinned.text(self.index)
    }

    pub(crate) fn archived<T: Archivable>(self) -> &'p T::Archived {
        self.pinned.archived::<T>(self.index)
    }

    #[inline]
    pub(crate) fn map(self) -> MapRef<'p> {
        self.pinned.map(self.index)
    }
}

/// A value as a slot takes it.
#[derive(Debug)]
pub enum Stored {
    /// The slot's eight bytes, as a little-endian number.
    Scalar(u64),
    /// A block.
    Block(ArchivedBuf),
}

/// A value that cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum BadValue {
    /// rkyv cannot archive it.
    #[error("it cannot be archived: {0}")]
    Archive(#[from] ArchiveError),
    /// Other nodes would refuse its archive: it nests deeper than they read.
    #[error(
        "other nodes could not read it, as when it nests {} levels deep: {_0}",
        kiln_protocol::limits::ARCHIVE_DEPTH_MAX
    )]
    Unreadable(#[source] ArchiveError),
    /// It is longer than a record may be.
    #[error("it takes {bytes} bytes, the limit is {max}: split it over several fields, map entries or objects")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A map's key is too long.
    #[error("a key of an entry takes {bytes} bytes, the limit is {max}")]
    KeyTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// A field whose value cannot be stored. Nothing of the commit happened.
#[derive(Debug, thiserror::Error)]
#[error("field `{field}` cannot be stored: {cause}")]
pub struct ValueError {
    field: String,
    #[source]
    cause: BadValue,
}

impl ValueError {
    /// The field's name, with the names of nested structs before it: `address.city`.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What is wrong with its value.
    #[must_use]
    pub const fn cause(&self) -> &BadValue {
        &self.cause
    }

    /// The error as the struct around it sees it: `name` is the field's name there.
    #[doc(hidden)]
    #[must_use]
    pub fn within(mut self, name: &str) -> Self {
        self.field = if self.field.is_empty() { name.to_owned() } else { format!("{name}.{}", self.field) };
        self
    }
}

impl From<BadValue> for ValueError {
    fn from(cause: BadValue) -> Self {
        Self { field: String::new(), cause }
    }
}
