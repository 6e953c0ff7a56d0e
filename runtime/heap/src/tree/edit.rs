//! Changing a tree: the path to each change is copied, once per draft.
//!
//! A node that carries the draft's stamp was made by it, is seen by nobody else, and is changed in place; so a draft
//! with many entries copies each node once. Depth is bounded by the height of the tree, which the fan-out keeps low.
#![expect(unsafe_code, reason = "changes nodes that no reader can see yet")]

use crate::arena::Arena;
use crate::draft::{Draft, Full};
use crate::table::{pair, pair_bits};
use crate::tree::find;
use crate::tree::node::{ITEMS_MAX, Item, NewNode, Node, capacity_for, node_bytes, shared_bytes};

/// A node with fewer items looks for a neighbour to merge with.
const ITEMS_LOW: usize = ITEMS_MAX / 4;
/// Two neighbours with no more items together become one.
const ITEMS_MERGED_MAX: usize = ITEMS_MAX * 3 / 4;

/// Puts an entry into the map of a slot; returns the slot's next bits. The draft owns the entry's block.
pub(crate) fn put(draft: &mut Draft<'_>, bits: u64, key: &[u8], entry: Item) -> Result<u64, Full> {
    let (root, count) = pair(bits);
    let mut editor = Editor::new(draft, root, entry.piece().footprint() as i64);
    if root == 0 {
        let root = editor.create(0, &mut [entry])?;
        return Ok(editor.end(root, 1));
    }
    let Put { unit, split, replaced } = editor.put(root, key, entry)?;
    let root = match split {
        None => unit,
        Some(right) => {
            let level = editor.node(unit).head.level + 1;
            let mut items = [editor.item_of(unit), editor.item_of(right)];
            editor.create(level, &mut items)?
        }
    };
    Ok(editor.end(root, if replaced { count } else { count + 1 }))
}

/// Removes an entry from the map of a slot; returns the slot's next bits.
pub(crate) fn remove(draft: &mut Draft<'_>, bits: u64, key: &[u8]) -> Result<u64, Full> {
    let (root, count) = pair(bits);
    // SAFETY: the tree is the present one of the object, or this draft's; the draft's owner has the turn to write.
    if unsafe { find(draft.arena(), root, key) }.is_none() {
        return Ok(bits);
    }
    let mut editor = Editor::new(draft, root, 0);
    let mut root = editor.remove(root, key)?.unwrap_or(0);
    while root != 0 && !editor.node(root).is_leaf() && editor.node(root).items.len() == 1 {
        let only = editor.node(root).items[0].child;
        editor.retire(root);
        root = only;
    }
    if root != 0 {
        root = editor.own(root)?;
    }
    Ok(editor.end(root, count - 1))
}

/// Removes every entry from the map of a slot; returns the slot's next bits.
pub(crate) fn clear(draft: &mut Draft<'_>, bits: u64) -> u64 {
    let (root, _) = pair(bits);
    if root != 0 {
        // SAFETY: as in `remove`.
        let tree_bytes = unsafe { Node::at(draft.arena(), root) }.head.tree_bytes;
        draft.retire_tree(root, i64::try_from(tree_bytes).unwrap_or(i64::MAX));
    }
    0
}

struct Put {
    /// The node, or its copy.
    unit: u32,
    /// A new node after it, when it had too many items.
    split: Option<u32>,
    /// Whether the key was there.
    replaced: bool,
}

/// # Invariants
/// 1. All nodes and entries of the tree are alive: it is the object's present one, which stays so while the draft's
///    owner has the turn to write, or one that the draft made of it.
/// 2. Nodes with the draft's stamp are seen by nobody else.
struct Editor<'d, 'h> {
    arena: &'h Arena,
    draft: &'d mut Draft<'h>,
    stamp: u64,
    /// The footprint of the tree, less the draft's when the editor began.
    base_bytes: i64,
}

impl<'d, 'h> Editor<'d, 'h> {
    fn new(draft: &'d mut Draft<'h>, root: u32, entry_bytes: i64) -> Self {
        let stamp = draft.stamp();
        let arena = draft.arena();
        let mut editor = Self { arena, base_bytes: entry_bytes - draft.footprint(), draft, stamp };
        if root != 0 {
            editor.base_bytes += i64::try_from(editor.node(root).head.tree_bytes).unwrap_or(i64::MAX);
        }
        editor
    }

    /// The slot's bits for this root, which the draft made.
    fn end(&mut self, root: u32, count: u32) -> u64 {
        if root == 0 {
            return 0;
        }
        let tree_bytes = self.base_bytes + self.draft.footprint();
        self.node_mut(root).head.tree_bytes = tree_bytes.unsigned_abs();
        pair_bits(root, count)
    }

    fn node(&self, unit: u32) -> Node<'_> {
        // SAFETY: invariant 1; `node_mut` borrows the editor, so nobody writes meanwhile.
        unsafe { Node::at(self.arena, unit) }
    }

    fn node_mut(&mut self, unit: u32) -> NewNode<'_> {
        assert_eq!(self.node(unit).head.stamp, self.stamp, "a published node is never changed");
        // SAFETY: invariant 2, and the mutable borrow of the editor.
        unsafe { NewNode::at(self.arena, unit) }
    }

    fn is_own(&self, unit: u32) -> bool {
        self.node(unit).head.stamp == self.stamp
    }

    fn item_of(&self, child: u32) -> Item {
        self.node(child).items[0].of_child(child)
    }

    fn retire(&mut self, unit: u32) {
        let piece = self.node(unit).piece(unit);
        self.draft.retire(piece);
    }

    /// Makes items fit one node; returns how many bytes of each key it skips.
    fn fit_all(&self, items: &mut [Item]) -> u16 {
        let (Some(first), Some(last)) = (items.first(), items.last()) else { return 0 };
        // Keys ascend, so what the first and the last share is in all of them.
        // SAFETY: invariant 1.
        let first = unsafe { first.key(self.arena) };
        // SAFETY: invariant 1.
        let skip = shared_bytes(first, unsafe { last.key(self.arena) });
        for item in items {
            // SAFETY: invariant 1.
            *item = unsafe { item.skipping(self.arena, skip) };
        }
        skip
    }

    /// Makes an item fit a node of this draft. A node that skips more than the item's key shares skips less from now on.
    fn fit(&mut self, unit: u32, item: Item) -> Item {
        let node = self.node(unit);
        // SAFETY: invariant 1.
        let shared = unsafe { node.items[0].key(self.arena) };
        // SAFETY: invariant 1.
        let skip = shared_bytes(&shared[..usize::from(node.head.skip)], unsafe { item.key(self.arena) });
        if skip < node.head.skip {
            let (arena, count) = (self.arena, node.items.len());
            let node = self.node_mut(unit);
            node.head.skip = skip;
            for other in &mut node.items[..count] {
                // SAFETY: invariant 1.
                *other = unsafe { other.skipping(arena, skip) };
            }
        }
        // SAFETY: invariant 1.
        unsafe { item.skipping(self.arena, skip) }
    }

    /// Sets an item of a node of this draft.
    fn set(&mut self, unit: u32, at: usize, item: Item) {
        let item = self.fit(unit, item);
        self.node_mut(unit).items[at] = item;
    }

    /// Makes a node with these items.
    fn create(&mut self, level: u16, items: &mut [Item]) -> Result<u32, Full> {
        let skip = self.fit_all(items);
        self.create_with(level, skip, items, capacity_for(items.len()))
    }

    /// Makes a node with items that fit it.
    fn create_with(&mut self, level: u16, skip: u16, items: &[Item], capacity: u16) -> Result<u32, Full> {
        let piece = self.draft.allocate(node_bytes(capacity) as usize)?;
        // SAFETY: the piece was just taken, for this capacity.
        unsafe { NewNode::create(self.arena, piece, self.stamp, level, capacity) };
        let mut node = self.node_mut(piece.unit);
        node.head.skip = skip;
        node.extend(items);
        Ok(piece.unit)
    }

    /// The node itself if this draft made it, else a copy in its place.
    fn own(&mut self, unit: u32) -> Result<u32, Full> {
        if self.is_own(unit) {
            return Ok(unit);
        }
        self.copy(unit, 0)
    }

    /// A copy with room for more items, in the node's place.
    fn copy(&mut self, unit: u32, more: usize) -> Result<u32, Full> {
        // SAFETY: invariant 1; meanwhile only the copy is written, and the node is not freed before the draft ends.
        let node = unsafe { Node::at(self.arena, unit) };
        let capacity = capacity_for((node.items.len() + more).min(ITEMS_MAX));
        let copy = self.create_with(node.head.level, node.head.skip, node.items, capacity)?;
        self.retire(unit);
        Ok(copy)
    }

    fn put(&mut self, unit: u32, key: &[u8], entry: Item) -> Result<Put, Full> {
        let node = self.node(unit);
        if node.is_leaf() {
            // SAFETY: invariant 1.
            return match unsafe { node.search(self.arena, key) } {
                Ok(at) => {
                    let replaced = node.items[at].piece();
                    let unit = self.own(unit)?;
                    self.draft.retire(replaced);
                    self.set(unit, at, entry);
                    Ok(Put { unit, split: None, replaced: true })
                }
                Err(at) => {
                    let (unit, split) = self.insert(unit, at, entry)?;
                    Ok(Put { unit, split, replaced: false })
                }
            };
        }
        // SAFETY: invariant 1.
        let at = unsafe { node.child(self.arena, key) };
        let child = node.items[at].child;
        let put = self.put(child, key, entry)?;
        let unit = self.own(unit)?;
        self.set(unit, at, self.item_of(put.unit));
        let Some(right) = put.split else {
            return Ok(Put { unit, ..put });
        };
        let item = self.item_of(right);
        let (unit, split) = self.insert(unit, at + 1, item)?;
        Ok(Put { unit, split, ..put })
    }

    /// Adds an item to a node; returns the node or its copy, and the new node after it if it had to be split.
    fn insert(&mut self, unit: u32, at: usize, item: Item) -> Result<(u32, Option<u32>), Full> {
        let node = self.node(unit);
        let (level, count, capacity) = (node.head.level, node.items.len(), usize::from(node.head.capacity));
        if count == ITEMS_MAX {
            return self.split(unit, at, item).map(|(left, right)| (left, Some(right)));
        }
        let unit = if !self.is_own(unit) {
            self.copy(unit, 1)?
        } else if count == capacity {
            // More are likely to follow in the same draft.
            self.copy(unit, (count / 2).max(1))?
        } else {
            unit
        };
        debug_assert_eq!(self.node(unit).head.level, level);
        let item = self.fit(unit, item);
        self.node_mut(unit).insert(at, item);
        Ok((unit, None))
    }

    fn split(&mut self, unit: u32, at: usize, item: Item) -> Result<(u32, u32), Full> {
        let node = self.node(unit);
        let level = node.head.level;
        if at == ITEMS_MAX {
            // Keys that come in ascending order leave full nodes behind.
            return Ok((unit, self.create(level, &mut [item])?));
        }
        let mut items = [item; ITEMS_MAX + 1];
        items[..at].copy_from_slice(&node.items[..at]);
        items[at + 1..].copy_from_slice(&node.items[at..]);
        let (left, right) = items.split_at_mut(ITEMS_MAX.div_ceil(2));
        let right = self.create(level, right)?;
        if self.is_own(unit) {
            let skip = self.fit_all(left);
            let mut node = self.node_mut(unit);
            node.head.skip = skip;
            node.head.count = 0;
            node.extend(left);
            return Ok((unit, right));
        }
        let left = self.create(level, left)?;
        self.retire(unit);
        Ok((left, right))
    }

    /// Removes the entry, which is there; returns the node or its copy, `None` when nothing is left of it.
    fn remove(&mut self, unit: u32, key: &[u8]) -> Result<Option<u32>, Full> {
        let node = self.node(unit);
        let count = node.items.len();
        let (at, child) = if node.is_leaf() {
            // SAFETY: invariant 1.
            let at = unsafe { node.search(self.arena, key) }.unwrap_or_else(|_| unreachable!("it was found before"));
            let entry = node.items[at].piece();
            self.draft.retire(entry);
            (at, None)
        } else {
            // SAFETY: invariant 1.
            let at = unsafe { node.child(self.arena, key) };
            let child = node.items[at].child;
            (at, self.remove(child, key)?)
        };
        let Some(child) = child else {
            if count == 1 {
                self.retire(unit);
                return Ok(None);
            }
            let unit = self.own(unit)?;
            self.node_mut(unit).remove(at);
            return Ok(Some(unit));
        };
        let unit = self.own(unit)?;
        self.set(unit, at, self.item_of(child));
        if self.node(child).items.len() < ITEMS_LOW {
            let is_merged = at + 1 < count && self.merge(unit, at)?;
            if !is_merged && at > 0 {
                self.merge(unit, at - 1)?;
            }
        }
        Ok(Some(unit))
    }

    /// Makes one node of the child at `at` and the next, if they are small together; tells whether they were. `unit`
    /// is the draft's.
    fn merge(&mut self, unit: u32, at: usize) -> Result<bool, Full> {
        let children = self.node(unit).items;
        let (left, right) = (children[at].child, children[at + 1].child);
        let (left_count, right_count) = (self.node(left).items.len(), self.node(right).items.len());
        let count = left_count + right_count;
        if count > ITEMS_MERGED_MAX {
            return Ok(false);
        }
        let level = self.node(left).head.level;
        let mut items = [Item::default(); ITEMS_MAX];
        items[..left_count].copy_from_slice(self.node(left).items);
        items[left_count..count].copy_from_slice(self.node(right).items);
        let merged = self.create(level, &mut items[..count])?;
        self.retire(left);
        self.retire(right);
        self.set(unit, at, self.item_of(merged));
        self.node_mut(unit).remove(at + 1);
        Ok(true)
    }
}
