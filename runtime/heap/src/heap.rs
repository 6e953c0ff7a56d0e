//! The handle on an arena: its life, and the way retired pieces get back into it.
#![expect(unsafe_code, reason = "frees retired pieces once no reader can see them, and ends arenas by hand")]

use crate::arena::{Arena, Piece};
use crate::draft::Retired;
use crate::limits::ARENA_BYTES_DEFAULT;
use crate::probe::Probe;
use crossbeam_epoch as epoch;
use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// How much a heap may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// The bytes of the arena. Address space is reserved at once, memory is used as it is written. At least 64 KiB,
    /// at most 64 GiB: other numbers are moved into that range.
    pub bytes_max: usize,
}

impl Default for Options {
    /// 256 MiB.
    fn default() -> Self {
        Self { bytes_max: ARENA_BYTES_DEFAULT }
    }
}

/// Where objects live. Cheap to clone; the arena goes when the last clone and the last object have gone.
#[derive(Clone, Debug)]
pub struct Heap(Arc<Life>);

/// The arena as its handles and objects share it; drops into [`WAITING`].
#[derive(Debug)]
struct Life {
    arena: OwnedArena,
}

/// # Invariants
/// 1. It came from a `Box`, and is alive as long as a handle or a retired piece of it is.
#[derive(Clone, Copy, Debug)]
struct OwnedArena(NonNull<Arena>);

// SAFETY: an `Arena` is Send and Sync, and this is but a way to it.
unsafe impl Send for OwnedArena {}
// SAFETY: as above.
unsafe impl Sync for OwnedArena {}

/// Arenas without a handle, some of whose pieces wait for a reader or for a thread that retired them and went quiet.
///
/// # Invariants
/// 1. Each is here once and has no handle; only retired pieces still point to it.
static WAITING: Mutex<Vec<OwnedArena>> = Mutex::new(Vec::new());

/// How often [`Heap::collect`] pushes the epoch at most: 64 pieces and more per push.
const COLLECT_ROUNDS_MAX: usize = 4096;
/// It gives up after so many pushes without any effect.
const COLLECT_IDLE_ROUNDS_MAX: usize = 8;
/// A thread that retired this much hands it over at once, so that a thread that goes quiet keeps little.
const KEPT_BYTES_MAX: usize = 64 << 10;

impl Heap {
    /// Reserves an arena.
    ///
    /// # Errors
    /// The operating system's, when it refuses the address space.
    pub fn new(options: Options) -> io::Result<Self> {
        bury(None);
        let arena = Box::into_raw(Box::new(Arena::new(options.bytes_max)?));
        let Some(arena) = NonNull::new(arena) else {
            unreachable!("a box is never null");
        };
        Ok(Self(Arc::new(Life { arena: OwnedArena(arena) })))
    }

    /// Bytes in use, with what the size classes add, retired pieces included. Exact when nobody writes meanwhile.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.arena().used_bytes()
    }

    /// Bytes ever freed: whether room was made between two looks.
    #[must_use]
    pub fn freed_bytes(&self) -> u64 {
        self.arena().freed_bytes()
    }

    /// The size of the arena.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.arena().bytes_max()
    }

    /// Frees what was retired and can be seen by no reader any more. Bounded, and never waits for a reader. What
    /// other threads retired last (up to 64 pieces or 64 KiB each) stays until they write again, or end.
    pub fn collect(&self) {
        collect(self.arena());
    }

    /// Starts a measurement of how long the oldest reader stays pinned.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe::new()
    }

    pub(crate) fn arena(&self) -> &Arena {
        // SAFETY: OwnedArena invariant 1: `self` is a handle.
        unsafe { self.0.arena.0.as_ref() }
    }

    /// Makes room after an allocation failed: collects, then gives free spans back.
    pub(crate) fn reclaim(&self) {
        self.collect();
        self.arena().sweep();
    }

    /// Frees pieces once every reader that is pinned now has unpinned.
    ///
    /// # Safety
    /// The pieces were given out by this heap's arena and not freed or retired before, and readers that pin from now
    /// on cannot find them.
    pub(crate) unsafe fn retire(&self, table: Piece, mut rest: Retired) {
        let arena = self.0.arena.0;
        let bytes = table.footprint() + rest.iter().map(|piece| piece.footprint()).sum::<usize>();
        let guard = epoch::pin();
        match rest.as_slice() {
            // Up to two pieces and the arena are what a deferred call holds without a box.
            // SAFETY: the caller's promise.
            [] => unsafe { defer(&guard, arena, [table]) },
            // SAFETY: the caller's promise.
            &[other] => unsafe { defer(&guard, arena, [other, table]) },
            _ => {
                rest.push(table);
                // SAFETY: the caller's promise.
                unsafe { defer(&guard, arena, rest.into_boxed_slice()) };
            }
        }
        thread_local! {
            static KEPT_BYTES: Cell<usize> = const { Cell::new(0) };
        }
        let kept = KEPT_BYTES.get() + bytes;
        KEPT_BYTES.set(kept);
        if kept > KEPT_BYTES_MAX {
            KEPT_BYTES.set(0);
            guard.flush();
        }
    }
}

/// Frees the pieces once the readers of today have gone.
///
/// # Safety
/// As of [`Heap::retire`]. There is at least one piece.
unsafe fn defer(guard: &epoch::Guard, arena: NonNull<Arena>, pieces: impl AsRef<[Piece]>) {
    let run = move || {
        // SAFETY: the caller's promise; whoever could see the pieces has unpinned when this runs.
        unsafe { free(arena, pieces.as_ref()) }
    };
    // SAFETY: what `run` holds may go to another thread and outlive this call: numbers, and an arena that lives until
    // its last piece is freed.
    unsafe { guard.defer_unchecked(run) };
}

/// Frees retired pieces, roots of trees among them.
///
/// # Safety
/// As of [`Heap::retire`], and no reader sees them any more. The slice is not empty.
unsafe fn free(arena: NonNull<Arena>, pieces: &[Piece]) {
    // SAFETY: OwnedArena invariant 1: the arena lives until its last piece is freed, which is the last thing done here.
    let arena = unsafe { arena.as_ref() };
    for &piece in pieces {
        // SAFETY: the caller's promise.
        unsafe { crate::draft::free(arena, piece) };
    }
}

fn collect(arena: &Arena) {
    let mut idle = 0;
    let mut used = arena.used_bytes();
    for _ in 0..COLLECT_ROUNDS_MAX {
        epoch::pin().flush();
        let now = arena.used_bytes();
        if now == used {
            idle += 1;
            // A reader that is about to unpin may be waiting for this processor.
            std::thread::yield_now();
        } else {
            idle = 0;
        }
        used = now;
        if idle == COLLECT_IDLE_ROUNDS_MAX || used == 0 {
            break;
        }
    }
}

/// Ends the arenas that wait and are idle by now, after adding one.
fn bury(arena: Option<OwnedArena>) {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.extend(arena);
    let done: Vec<OwnedArena> = waiting
        .extract_if(.., |arena| {
            // SAFETY: WAITING invariant 1: it is alive until it is taken out here.
            unsafe { arena.0.as_ref() }.is_idle()
        })
        .collect();
    drop(waiting);
    for arena in done {
        // SAFETY: WAITING invariant 1, and idle: no handle, no object and no retired piece points to it any more.
        drop(unsafe { Box::from_raw(arena.0.as_ptr()) });
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // SAFETY: OwnedArena invariant 1: the last handle is only about to go.
        collect(unsafe { self.arena.0.as_ref() });
        bury(Some(self.arena));
    }
}
