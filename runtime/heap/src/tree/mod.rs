//! The persistent map of a slot: a B+ tree that is copied along the path of each change.
//!
//! A root belongs to one table version. Readers of an older table keep the older root; what the newer one does not
//! share is retired when that is published. No reference counts: a node or an entry is reachable from one place of
//! one root, and whoever replaces it retires it.
//!
//! Nodes that lost items are merged with a neighbour when both are small; the tree is otherwise not rebalanced.

mod edit;
mod node;
mod read;

pub(crate) use edit::{clear, put, remove};
pub(crate) use node::Item;
pub(crate) use read::{Cursor, find, free};
