//! Slot writes: checked and copied into the arena first, then put into a table in one short step.
#![expect(unsafe_code, reason = "fills blocks that nobody else can see yet")]

use crate::archive::ArchivedBuf;
use crate::arena::Piece;
use crate::block;
use crate::draft::{Draft, Full};
use crate::limits::ENTRY_KEY_BYTES_MAX;
use crate::shape::{BlockKind, Cause, Shape, SlotKind};
use crate::table::{NewTable, block_bits, block_piece, pair};
use crate::tree;
use smallvec::SmallVec;

/// The write of one slot.
#[derive(Clone, Copy, Debug)]
pub enum SlotWrite<'a> {
    /// Sets a scalar.
    Scalar {
        /// The slot.
        slot: u16,
        /// Its eight bytes, as a number.
        bits: u64,
    },
    /// Adds to a scalar; wraps.
    Add {
        /// The slot.
        slot: u16,
        /// How much.
        amount: i64,
    },
    /// Sets a block, from bytes that somebody else made: they are checked.
    Block {
        /// The slot.
        slot: u16,
        /// Its bytes; any alignment.
        bytes: &'a [u8],
    },
    /// Sets a block. Checked only when the buffer was not made for what the slot holds.
    Archived {
        /// The slot.
        slot: u16,
        /// Its value.
        value: &'a ArchivedBuf,
    },
    /// Puts an entry into a map, from bytes that somebody else made: they are checked.
    MapPut {
        /// The slot.
        slot: u16,
        /// The entry's key, at most 1,024 bytes.
        key: &'a [u8],
        /// The entry's value; any alignment.
        value: &'a [u8],
    },
    /// Puts an entry into a map. Checked only when the buffer was not made for what the map holds.
    MapPutArchived {
        /// The slot.
        slot: u16,
        /// The entry's key, at most 1,024 bytes.
        key: &'a [u8],
        /// The entry's value.
        value: &'a ArchivedBuf,
    },
    /// Removes an entry from a map; one that is not there is no error.
    MapRemove {
        /// The slot.
        slot: u16,
        /// The entry's key.
        key: &'a [u8],
    },
    /// Removes every entry from a map.
    MapClear {
        /// The slot.
        slot: u16,
    },
}

impl SlotWrite<'_> {
    /// The slot that is written.
    #[must_use]
    pub const fn slot(&self) -> u16 {
        match *self {
            Self::Scalar { slot, .. }
            | Self::Add { slot, .. }
            | Self::Block { slot, .. }
            | Self::Archived { slot, .. }
            | Self::MapPut { slot, .. }
            | Self::MapPutArchived { slot, .. }
            | Self::MapRemove { slot, .. }
            | Self::MapClear { slot } => slot,
        }
    }
}

/// Why a write changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The arena has no room, even after everything was collected that no reader can see. Evict something, or end
    /// the reader that has been pinned for long.
    #[error("the heap has no room for {needed_bytes} bytes more; evict objects or make it larger")]
    Full {
        /// The length of the piece that did not fit.
        needed_bytes: usize,
    },
    /// Bytes that are not what the slot holds. The object keeps its last good content.
    #[error("the bytes written to slot {slot} are refused")]
    Corrupt {
        /// The slot.
        slot: u16,
        /// What is wrong with them.
        #[source]
        cause: Cause,
    },
    /// A slot that holds an archive was not written in a whole content.
    #[error("slot {slot} holds an archive and was not written")]
    Missing {
        /// The slot.
        slot: u16,
    },
    /// The shape has no such slot, or it does not take this kind of write.
    #[error("slot {slot} does not exist or does not take this kind of write")]
    BadSlot {
        /// The slot.
        slot: u16,
    },
    /// The shape has no such lock group, or versions were not given for all groups of a whole content.
    #[error("lock group {group} does not exist or has no version")]
    BadGroup {
        /// The group's index.
        group: usize,
    },
}

impl From<Full> for ApplyError {
    fn from(full: Full) -> Self {
        Self::Full { needed_bytes: full.needed_bytes }
    }
}

/// The blocks of writes, in their order; one of no length for a write that has none.
pub(crate) type Pieces = SmallVec<[Piece; 4]>;

const NO_PIECE: Piece = Piece { unit: 0, bytes: 0 };

/// Checks all writes and copies their bytes into the arena.
pub(crate) fn prepare(draft: &mut Draft<'_>, shape: &Shape, writes: &[SlotWrite<'_>]) -> Result<Pieces, ApplyError> {
    let mut pieces = Pieces::new();
    for write in writes {
        let slot = write.slot();
        let kind = *shape.kind(slot).ok_or(ApplyError::BadSlot { slot })?;
        let block = |kind: SlotKind| kind.block().ok_or(ApplyError::BadSlot { slot });
        pieces.push(match (*write, kind) {
            (SlotWrite::Scalar { .. } | SlotWrite::Add { .. }, SlotKind::Scalar)
            | (SlotWrite::MapRemove { .. } | SlotWrite::MapClear { .. }, SlotKind::Map(_)) => NO_PIECE,
            (SlotWrite::Block { bytes, .. }, kind) => copy(draft, slot, block(kind)?, bytes, &[], false)?,
            (SlotWrite::Archived { value, .. }, kind) => {
                let kind = block(kind)?;
                copy(draft, slot, kind, value.bytes(), &[], kind.trusts(value))?
            }
            (SlotWrite::MapPut { key, value, .. }, SlotKind::Map(kind)) => {
                copy(draft, slot, kind, value, check_key(slot, key)?, false)?
            }
            (SlotWrite::MapPutArchived { key, value, .. }, SlotKind::Map(kind)) => {
                copy(draft, slot, kind, value.bytes(), check_key(slot, key)?, kind.trusts(value))?
            }
            _ => return Err(ApplyError::BadSlot { slot }),
        });
    }
    Ok(pieces)
}

const fn check_key(slot: u16, key: &[u8]) -> Result<&[u8], ApplyError> {
    if key.len() > ENTRY_KEY_BYTES_MAX {
        return Err(ApplyError::Corrupt { slot, cause: Cause::Key { bytes: key.len() } });
    }
    Ok(key)
}

/// Copies a value, and the key of a map's entry after it, into one block. Checks the value there, where it is aligned.
fn copy(
    draft: &mut Draft<'_>,
    slot: u16,
    kind: BlockKind,
    value: &[u8],
    key: &[u8],
    is_trusted: bool,
) -> Result<Piece, ApplyError> {
    let bytes = value.len() + key.len();
    let (Ok(value_bytes), Ok(_)) = (u32::try_from(value.len()), u32::try_from(bytes)) else {
        return Err(ApplyError::Full { needed_bytes: bytes });
    };
    let piece = if bytes == 0 { NO_PIECE } else { draft.allocate(bytes)? };
    // SAFETY: the piece was just taken, for all of these bytes; or there are none.
    unsafe { block::fill(draft.arena(), piece, value, key) };
    if !is_trusted {
        // SAFETY: the piece was just filled, and the draft keeps it.
        let copied = unsafe { block::bytes(draft.arena(), piece.unit, 0, value_bytes) };
        kind.check(copied).map_err(|cause| ApplyError::Corrupt { slot, cause })?;
    }
    Ok(piece)
}

/// Whether all writes are of scalars, and fit the shape: they need no preparation.
#[inline]
pub(crate) fn are_scalars(shape: &Shape, writes: &[SlotWrite<'_>]) -> bool {
    writes.iter().all(|write| {
        matches!(write, SlotWrite::Scalar { .. } | SlotWrite::Add { .. })
            && matches!(shape.kind(write.slot()), Some(SlotKind::Scalar))
    })
}

/// Puts writes of scalars into a table that is being filled.
#[inline]
pub(crate) fn fill_scalars(table: &mut NewTable<'_>, writes: &[SlotWrite<'_>]) {
    for write in writes {
        if let Some(bits) = table.slot_mut(write.slot()) {
            set_scalar(bits, write);
        }
    }
}

/// Does nothing for writes of other kinds.
#[inline]
const fn set_scalar(bits: &mut u64, write: &SlotWrite<'_>) {
    if let SlotWrite::Scalar { bits: next, .. } = *write {
        *bits = next;
    } else if let SlotWrite::Add { amount, .. } = *write {
        *bits = bits.wrapping_add_signed(amount);
    }
}

/// Puts prepared writes into a table that is being filled.
pub(crate) fn fill(
    draft: &mut Draft<'_>,
    table: &mut NewTable<'_>,
    writes: &[SlotWrite<'_>],
    pieces: &[Piece],
) -> Result<(), Full> {
    for (write, &piece) in writes.iter().zip(pieces) {
        let Some(bits) = table.slot_mut(write.slot()) else {
            unreachable!("prepared writes are of slots that exist");
        };
        match *write {
            SlotWrite::Scalar { .. } | SlotWrite::Add { .. } => set_scalar(bits, write),
            SlotWrite::Block { .. } | SlotWrite::Archived { .. } => {
                let replaced = block_piece(*bits);
                if replaced != NO_PIECE {
                    draft.retire(replaced);
                }
                *bits = block_bits(piece);
            }
            SlotWrite::MapPut { key, value, .. } => put(draft, bits, key, value, piece)?,
            SlotWrite::MapPutArchived { key, value, .. } => put(draft, bits, key, value.bytes(), piece)?,
            SlotWrite::MapRemove { key, .. } => *bits = tree::remove(draft, *bits, key)?,
            SlotWrite::MapClear { .. } => *bits = tree::clear(draft, *bits),
        }
    }
    Ok(())
}

fn put(draft: &mut Draft<'_>, bits: &mut u64, key: &[u8], value: &[u8], piece: Piece) -> Result<(), Full> {
    let piece = if piece == NO_PIECE { draft.allocate(1)? } else { piece };
    let value_bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
    *bits = tree::put(draft, *bits, key, tree::Item::new(piece, key, value_bytes))?;
    Ok(())
}

/// Gives up everything that a slot holds.
pub(crate) fn retire_slot(draft: &mut Draft<'_>, kind: SlotKind, bits: u64) {
    match kind {
        SlotKind::Scalar => {}
        SlotKind::Map(_) => {
            tree::clear(draft, bits);
        }
        SlotKind::Bytes | SlotKind::Text | SlotKind::Archive(_) => {
            let piece = block_piece(bits);
            if piece != NO_PIECE {
                draft.retire(piece);
            }
        }
    }
}

/// Everything that a slot holds, for who frees it at once.
pub(crate) fn slot_piece(kind: SlotKind, bits: u64) -> Option<Piece> {
    let piece = match kind {
        SlotKind::Scalar => NO_PIECE,
        SlotKind::Map(_) => Piece { unit: pair(bits).0, bytes: 0 },
        SlotKind::Bytes | SlotKind::Text | SlotKind::Archive(_) => block_piece(bits),
    };
    (piece != NO_PIECE).then_some(piece)
}
