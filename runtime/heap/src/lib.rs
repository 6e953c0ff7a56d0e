//! The memory-mapped heap of a Kiln runtime. The only crate with unsafe code.
//!
//! An [`Object`] is one word that leads to an immutable table in an arena: a version for each lock group and eight
//! bytes for each slot. Scalars lie in the slot; strings, bytes and archives are blocks; a map is a persistent tree of
//! blocks. A write makes a new table, publishes it with one store, and retires what it replaced; so a reader sees one
//! whole table, in place, and never waits. Writers of one object take turns through a bit of its word, for the copy.
//!
//! ```
//! use kiln_heap::{ApplyError, Heap, Object, Options, Shape, SlotKind, SlotWrite};
//!
//! let heap = Heap::new(Options::default())?;
//! let shape = Shape::new([SlotKind::Scalar, SlotKind::Text], 1)?;
//! let object = Object::new(&heap, &shape, &[SlotWrite::Scalar { slot: 0, bits: 7 }], &[1])?;
//! let before = object.pin();
//! object.apply(&[SlotWrite::Block { slot: 1, bytes: b"dark" }], &[(0, 2)])?;
//! assert_eq!((before.text(1), before.version(0)), ("", 1));
//! assert_eq!((object.pin().text(1), object.version(0)), ("dark", 2));
//! let refused = object.apply(&[SlotWrite::Block { slot: 1, bytes: b"\xff" }], &[(0, 3)]);
//! assert!(matches!(refused, Err(ApplyError::Corrupt { slot: 1, .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Why it is sound.** A slot's kind names the type of its archives. A block enters a slot only after it was checked
//! as that type, with a depth limit, or was made by serialising a value of that very type; it is never changed
//! after. So reading it in place needs no check, and asking for another type panics. What is replaced is retired
//! through crossbeam's epochs, and a [`Pinned`] holds one; dropping an [`Object`] needs no epoch, because a `Pinned`
//! borrows it.
//!
//! Absent: messages, field numbers, roots, locks, eviction (this says [`ApplyError::Full`], others choose what
//! goes), clocks, threads. Memory that was touched once is kept for reuse, not given back to the operating system.

mod archive;
mod arena;
mod block;
mod cell;
mod class;
mod draft;
mod extent;
mod heap;
pub mod limits;
mod map;
mod object;
mod pin;
mod poison;
mod probe;
mod shape;
mod shard;
mod span;
mod sync;
mod table;
mod tree;
mod write;

pub use archive::{Archivable, ArchiveError, ArchiveType, ArchivedBuf};
pub use heap::{Heap, Options};
pub use map::{ArchivedEntries, Entries, MapRef};
pub use object::{Object, Prepared};
pub use pin::Pinned;
pub use probe::Probe;
pub use shape::{BlockKind, Cause, Shape, ShapeError, SlotKind};
pub use write::{ApplyError, SlotWrite};
