//! Archives: bytes of which the type is known, and which were checked or made by serialising.
#![expect(unsafe_code, reason = "reads archives in place without a second check")]

use crate::limits::ARCHIVE_DEPTH_MAX;
use rkyv::api::access_with_context;
use rkyv::api::high::{HighSerializer, to_bytes};
use rkyv::api::low::LowValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::{Archive, Serialize};
use std::any::{TypeId, type_name};
use std::fmt;
use std::num::NonZeroUsize;

/// What can be kept as one archive: every type with rkyv's `Archive` and `Serialize`, whose archived form can be
/// checked. Shared pointers (`Rc`, `Arc`) cannot.
pub trait Archivable:
    Archive<Archived: Sync + for<'a> CheckBytes<LowValidator<'a, Error>>>
    + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>
    + 'static
{
}

impl<T> Archivable for T where
    T: Archive<Archived: Sync + for<'a> CheckBytes<LowValidator<'a, Error>>>
        + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>
        + 'static
{
}

/// A type whose archives a slot holds, and how to check one.
#[derive(Clone, Copy)]
pub struct ArchiveType {
    id: TypeId,
    name: fn() -> &'static str,
    check: fn(&[u8]) -> Result<(), Error>,
}

impl ArchiveType {
    /// The archives of `T`.
    #[must_use]
    pub const fn of<T: Archivable>() -> Self {
        const {
            assert!(align_of::<T::Archived>() <= ALIGNMENT, "archived types are aligned to 16 bytes at most");
        };
        Self { id: TypeId::of::<T>(), name: type_name::<T>, check: check::<T> }
    }

    /// Whether these are the archives of `T`.
    #[must_use]
    pub fn is<T: 'static>(&self) -> bool {
        self.id == TypeId::of::<T>()
    }

    /// The type's name, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        (self.name)()
    }

    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), ArchiveError> {
        (self.check)(bytes).map_err(ArchiveError)
    }
}

impl fmt::Debug for ArchiveType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArchiveType").field(&self.name()).finish()
    }
}

impl PartialEq for ArchiveType {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for ArchiveType {}

/// A value that cannot be archived, or bytes that are no archive of the type.
#[derive(Debug, thiserror::Error)]
#[error("not a valid archive: {0}")]
pub struct ArchiveError(Error);

const ALIGNMENT: usize = 16;

fn check<T: Archivable>(bytes: &[u8]) -> Result<(), Error> {
    // Without a depth limit a chain of boxes overflows the stack.
    let archive = ArchiveValidator::with_max_depth(bytes, NonZeroUsize::new(ARCHIVE_DEPTH_MAX));
    access_with_context::<T::Archived, _, Error>(bytes, &mut Validator::new(archive, ())).map(drop)
}

/// Reads an archive in place.
///
/// # Safety
/// The bytes are aligned to 16, and either passed [`ArchiveType::check`] of `T` or were made by serialising a `T`.
pub(crate) unsafe fn access<T: Archivable>(bytes: &[u8]) -> &T::Archived {
    // SAFETY: the caller's promise.
    unsafe { rkyv::access_unchecked::<T::Archived>(bytes) }
}

/// What an [`ArchivedBuf`] holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BufKind {
    Bytes,
    Text,
    Archive(TypeId),
}

/// The bytes of one value, ready to be copied into a slot or sent to a peer.
///
/// # Invariants
/// 1. A buffer of kind `Archive(id)` was made by serialising a value of that very type, and was not changed since.
/// 2. A buffer of kind `Text` is UTF-8.
/// 3. The bytes are aligned to 16.
#[derive(Clone)]
pub struct ArchivedBuf {
    kind: BufKind,
    bytes: AlignedVec<ALIGNMENT>,
}

impl ArchivedBuf {
    /// Serialises a value. Whether others can read it is another question: see [`Self::check`].
    ///
    /// # Errors
    /// When the value's own `Serialize` fails, or it is longer than 2 GiB.
    pub fn new<T: Archivable>(value: &T) -> Result<Self, ArchiveError> {
        let bytes = to_bytes::<Error>(value).map_err(ArchiveError)?;
        Ok(Self { kind: BufKind::Archive(TypeId::of::<T>()), bytes })
    }

    /// Makes the check that every reader of these bytes as a `T` makes.
    ///
    /// # Errors
    /// When readers refuse them: they nest deeper than `ARCHIVE_DEPTH_MAX`, or are no archive of a `T`.
    pub fn check<T: Archivable>(&self) -> Result<(), ArchiveError> {
        check::<T>(&self.bytes).map_err(ArchiveError)
    }

    /// A string, for a text slot.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { kind: BufKind::Text, bytes: aligned(text.as_bytes()) }
    }

    /// Bytes, for a slot of bytes. Other slots check them.
    #[must_use]
    pub fn raw(bytes: &[u8]) -> Self {
        Self { kind: BufKind::Bytes, bytes: aligned(bytes) }
    }

    /// The bytes, as they are stored and sent.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The archive in place, when this holds one of `T`.
    #[must_use]
    pub fn archived<T: Archivable>(&self) -> Option<&T::Archived> {
        (self.kind == BufKind::Archive(TypeId::of::<T>())).then(|| {
            // SAFETY: invariants 1 and 3.
            unsafe { access::<T>(&self.bytes) }
        })
    }

    pub(crate) const fn kind(&self) -> BufKind {
        self.kind
    }
}

impl fmt::Debug for ArchivedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchivedBuf").field("kind", &self.kind).field("bytes", &self.bytes.len()).finish()
    }
}

fn aligned(bytes: &[u8]) -> AlignedVec<ALIGNMENT> {
    let mut aligned = AlignedVec::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    aligned
}

impl ArchiveType {
    pub(crate) fn made(&self, buf: &ArchivedBuf) -> bool {
        buf.kind() == BufKind::Archive(self.id)
    }
}
