//! Finding entries and walking over them.
#![expect(unsafe_code, reason = "follows offsets between nodes")]

use crate::arena::Arena;
use crate::tree::node::{Item, Node};
use smallvec::SmallVec;

/// The entry with this key.
///
/// # Safety
/// `root` is the root of a published tree, or zero, and the tree is alive for `'a`.
#[inline]
pub(crate) unsafe fn find<'a>(arena: &'a Arena, root: u32, key: &[u8]) -> Option<&'a Item> {
    if root == 0 {
        return None;
    }
    let mut unit = root;
    loop {
        // SAFETY: the caller's promise: all nodes of the tree are alive.
        let node = unsafe { Node::at(arena, unit) };
        if node.is_leaf() {
            // SAFETY: the caller's promise: all entries of the tree are alive.
            let at = unsafe { node.search(arena, key) }.ok()?;
            return Some(&node.items[at]);
        }
        // SAFETY: the caller's promise: all entries of the tree are alive.
        let at = unsafe { node.child(arena, key) };
        unit = node.items[at].child;
    }
}

/// Walks over the entries, ascending by key.
///
/// # Invariants
/// 1. The items are those of nodes of one tree that is alive for `'a`: the path to the next entry, root first.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    arena: &'a Arena,
    path: SmallVec<[std::slice::Iter<'a, Item>; 4]>,
}

impl<'a> Cursor<'a> {
    /// Before the first entry, or before the first whose key is not below `from`.
    ///
    /// # Safety
    /// `root` is the root of a published tree, or zero, and the tree is alive for `'a`.
    pub(crate) unsafe fn new(arena: &'a Arena, root: u32, from: &[u8]) -> Self {
        let mut path = SmallVec::new();
        let mut unit = root;
        while unit != 0 {
            // SAFETY: the caller's promise: all nodes of the tree are alive.
            let node = unsafe { Node::at(arena, unit) };
            let at = if node.is_leaf() {
                // SAFETY: the caller's promise: all entries of the tree are alive.
                unsafe { node.search(arena, from) }.unwrap_or_else(|at| at)
            } else {
                // SAFETY: as above.
                unsafe { node.child(arena, from) }
            };
            let mut rest = node.items[at..].iter();
            unit = if node.is_leaf() { 0 } else { rest.next().map_or(0, |item| item.child) };
            path.push(rest);
        }
        Self { arena, path }
    }
}

impl<'a> Iterator for Cursor<'a> {
    type Item = &'a Item;

    fn next(&mut self) -> Option<&'a Item> {
        loop {
            let Some(item) = self.path.last_mut()?.next() else {
                self.path.pop();
                continue;
            };
            if item.child == 0 {
                return Some(item);
            }
            // SAFETY: invariant 1: the child belongs to the same tree.
            let child = unsafe { Node::at(self.arena, item.child) };
            self.path.push(child.items.iter());
        }
    }
}

/// Frees a whole tree: its nodes and its entries.
///
/// # Safety
/// `root` is the root of a tree, which belongs to nobody and is seen by no reader.
pub(crate) unsafe fn free(arena: &Arena, root: u32) {
    let mut units: SmallVec<[u32; 32]> = SmallVec::new();
    units.push(root);
    while let Some(unit) = units.pop() {
        // SAFETY: the caller's promise; a node is freed after its items were read.
        let node = unsafe { Node::at(arena, unit) };
        if node.is_leaf() {
            for item in node.items {
                // SAFETY: the caller's promise; an entry is reachable from one leaf only.
                unsafe { arena.free(item.piece()) };
            }
        } else {
            units.extend(node.items.iter().map(|item| item.child));
        }
        let piece = node.piece(unit);
        // SAFETY: the caller's promise; a node is reachable from one parent only.
        unsafe { arena.free(piece) };
    }
}
