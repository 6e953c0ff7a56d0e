//! The pin of a view: its own, or that of the view around it.

use kiln_heap::Pinned;
use std::ops::Deref;

/// A pinned table, owned by a view of a whole object and borrowed by the view of a nested struct.
#[derive(Debug)]
pub enum Held<'a> {
    /// Of a view of a whole object.
    Own(Pinned<'a>),
    /// Of a view of a nested struct.
    Outer(&'a Pinned<'a>),
}

impl<'a> Deref for Held<'a> {
    type Target = Pinned<'a>;

    #[inline]
    fn deref(&self) -> &Pinned<'a> {
        match self {
            Self::Own(pinned) => pinned,
            Self::Outer(pinned) => pinned,
        }
    }
}
