//! Bytes in the arena: written once, before anybody else can see them, then only read.
#![expect(unsafe_code, reason = "reads and fills blocks where they lie in the arena")]

use crate::arena::{Arena, Piece};

/// The bytes at a unit, after `skip` others.
///
/// # Safety
/// They lie within one piece that was filled and is alive for `'a`, and nobody writes it. Or there are none of them:
/// then the unit may be any.
#[inline]
pub(crate) unsafe fn bytes(arena: &Arena, unit: u32, skip: u32, length: u32) -> &[u8] {
    let start = arena.at(unit).wrapping_add(skip as usize);
    // SAFETY: the caller's promise; an address in the mapping is never null, and good for no bytes at all.
    unsafe { std::slice::from_raw_parts(start, length as usize) }
}

/// Fills a piece with two runs of bytes, one after the other.
///
/// # Safety
/// The piece is as long as both together or longer, and nobody else uses it.
pub(crate) unsafe fn fill(arena: &Arena, piece: Piece, first: &[u8], second: &[u8]) {
    let start = arena.at(piece.unit);
    // SAFETY: the caller's promise; the source is a Rust slice and cannot overlap a piece that nobody uses.
    unsafe { start.copy_from_nonoverlapping(first.as_ptr(), first.len()) };
    let start = start.wrapping_add(first.len());
    // SAFETY: as above.
    unsafe { start.copy_from_nonoverlapping(second.as_ptr(), second.len()) };
}
