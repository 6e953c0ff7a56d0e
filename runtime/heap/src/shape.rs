//! What the slots of an object hold.

use crate::archive::{ArchiveError, ArchiveType, ArchivedBuf, BufKind};
use crate::limits::{GROUPS_MAX, SLOTS_MAX};
use crate::table::Layout;
use std::sync::Arc;

/// What one block holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockKind {
    /// Any bytes.
    Bytes,
    /// UTF-8.
    Text,
    /// One archive of this type.
    Archive(ArchiveType),
}

/// What one slot holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlotKind {
    /// Eight bytes in the slot itself.
    Scalar,
    /// A block of any bytes.
    Bytes,
    /// A block of UTF-8.
    Text,
    /// A block with one archive of this type.
    Archive(ArchiveType),
    /// A map from bytes to blocks, ascending by key.
    Map(BlockKind),
}

/// Why bytes were refused.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A text block that is not UTF-8.
    #[error(transparent)]
    Utf8(#[from] std::str::Utf8Error),
    /// An archive that failed its check.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The key of a map entry that is longer than 1,024 bytes.
    #[error("an entry's key has {bytes} bytes, the limit is {}", crate::limits::ENTRY_KEY_BYTES_MAX)]
    Key {
        /// Its length.
        bytes: usize,
    },
}

impl BlockKind {
    /// Checks bytes that somebody else made. They are aligned to 16.
    pub(crate) fn check(self, bytes: &[u8]) -> Result<(), Cause> {
        match self {
            Self::Bytes => {}
            Self::Text => {
                std::str::from_utf8(bytes)?;
            }
            Self::Archive(archive) => archive.check(bytes)?,
        }
        Ok(())
    }

    /// Whether this buffer needs no check.
    pub(crate) fn trusts(self, buf: &ArchivedBuf) -> bool {
        match self {
            Self::Bytes => true,
            Self::Text => buf.kind() == BufKind::Text,
            Self::Archive(archive) => archive.made(buf),
        }
    }
}

impl SlotKind {
    /// What the slot's block holds, when it has one.
    pub(crate) const fn block(self) -> Option<BlockKind> {
        match self {
            Self::Scalar | Self::Map(_) => None,
            Self::Bytes => Some(BlockKind::Bytes),
            Self::Text => Some(BlockKind::Text),
            Self::Archive(archive) => Some(BlockKind::Archive(archive)),
        }
    }
}

/// A shape that is too large.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// Too many slots.
    #[error("a shape of {slots} slots; the limit is {}", SLOTS_MAX)]
    Slots {
        /// How many.
        slots: usize,
    },
    /// Too many lock groups.
    #[error("a shape of {groups} lock groups; the limit is {}", GROUPS_MAX)]
    Groups {
        /// How many.
        groups: usize,
    },
}

/// The slots of all objects of one type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shape {
    kinds: Box<[SlotKind]>,
    layout: Layout,
}

impl Shape {
    /// Slots in this order, and this many lock groups.
    ///
    /// # Errors
    /// When there are more than 65,000 slots or 256 groups.
    pub fn new(slots: impl IntoIterator<Item = SlotKind>, groups: usize) -> Result<Arc<Self>, ShapeError> {
        let kinds: Box<[SlotKind]> = slots.into_iter().take(SLOTS_MAX + 1).collect();
        if kinds.len() > SLOTS_MAX {
            return Err(ShapeError::Slots { slots: kinds.len() });
        }
        if groups > GROUPS_MAX {
            return Err(ShapeError::Groups { groups });
        }
        let layout = Layout::new(kinds.len(), groups);
        Ok(Arc::new(Self { kinds, layout }))
    }

    /// The kinds of the slots.
    #[must_use]
    pub fn slots(&self) -> &[SlotKind] {
        &self.kinds
    }

    /// How many lock groups there are.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.layout.groups()
    }

    pub(crate) const fn layout(&self) -> Layout {
        self.layout
    }

    #[inline]
    pub(crate) fn kind(&self, slot: u16) -> Option<&SlotKind> {
        self.kinds.get(usize::from(slot))
    }
}
