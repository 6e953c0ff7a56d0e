//! The nodes of a map's tree, and the blocks of its entries, as they lie in the arena.
//!
//! An entry is one block: its value, then its key. A node is a head and items; a leaf's item is an entry, an inner
//! node's item is a child and the first entry of that child.
#![expect(unsafe_code, reason = "reads nodes and entries where they lie in the arena")]

use crate::arena::{Arena, Piece, UNIT_BYTES};
use crate::block;
use std::cmp::Ordering;

/// The most items of one node: with the head, exactly a size class.
pub(crate) const ITEMS_MAX: usize = 31;

const HEAD_BYTES: usize = size_of::<Head>();
const ITEM_BYTES: usize = size_of::<Item>();
const PREFIX_BYTES: usize = size_of::<u64>();
const _: () = assert!(align_of::<Item>() <= UNIT_BYTES && align_of::<Head>() <= UNIT_BYTES);
const _: () = assert!(HEAD_BYTES.is_multiple_of(align_of::<Item>()));

/// The start of a node. Plain numbers: any bytes make one.
///
/// # Invariants
/// 1. The keys of all items begin with the same `skip` bytes, and the items' prefixes are those after these bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Head {
    /// The draft that made the node; that draft alone may change it, before it is published.
    pub(crate) stamp: u64,
    /// In the root: the footprint of the whole tree.
    pub(crate) tree_bytes: u64,
    /// Zero for a leaf.
    pub(crate) level: u16,
    pub(crate) count: u16,
    pub(crate) capacity: u16,
    /// How many bytes at their start the keys share. They are compared once for the node, not once for each item: keys
    /// often begin alike, and the bytes of a key are further away than its prefix.
    pub(crate) skip: u16,
}

/// An entry, or a child and its first entry. Plain numbers: any bytes make one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Item {
    /// Eight bytes of the key, after those that the node skips: most significant first, zeros after a shorter one.
    prefix: u64,
    /// The block of the entry.
    unit: u32,
    key_bytes: u32,
    value_bytes: u32,
    /// The child; zero in a leaf.
    pub(crate) child: u32,
}

impl Item {
    /// The entry of a block that was filled with the value and then the key. Not fit for a node yet.
    pub(crate) fn new(piece: Piece, key: &[u8], value_bytes: u32) -> Self {
        let key_bytes = u32::try_from(key.len()).unwrap_or(u32::MAX);
        Self { prefix: 0, unit: piece.unit, key_bytes, value_bytes, child: 0 }
    }

    /// The same entry, as the first of this child.
    pub(crate) const fn of_child(self, child: u32) -> Self {
        Self { child, ..self }
    }

    /// The same item, for a node that skips so many bytes of each key, and this item's key has as many.
    ///
    /// # Safety
    /// The entry's block is alive.
    pub(crate) unsafe fn skipping(self, arena: &Arena, skip: u16) -> Self {
        // SAFETY: the caller's promise.
        let key = unsafe { self.key(arena) };
        Self { prefix: prefix(key, usize::from(skip)), ..self }
    }

    /// The block of the entry.
    pub(crate) fn piece(&self) -> Piece {
        Piece { unit: self.unit, bytes: entry_bytes(self.key_bytes, self.value_bytes) }
    }

    /// The entry's key.
    ///
    /// # Safety
    /// The entry's block is alive for `'a`.
    #[inline]
    pub(crate) unsafe fn key<'a>(&self, arena: &'a Arena) -> &'a [u8] {
        // SAFETY: the caller's promise; the block was filled with the value and then the key.
        unsafe { block::bytes(arena, self.unit, self.value_bytes, self.key_bytes) }
    }

    /// The entry's value, aligned to 16.
    ///
    /// # Safety
    /// The entry's block is alive for `'a`.
    #[inline]
    pub(crate) unsafe fn value<'a>(&self, arena: &'a Arena) -> &'a [u8] {
        // SAFETY: the caller's promise; the block was filled with the value and then the key.
        unsafe { block::bytes(arena, self.unit, 0, self.value_bytes) }
    }

    /// How the item's key compares with `key`: both begin with the same `skip` bytes, and `key` has this prefix after
    /// them.
    ///
    /// # Safety
    /// The entry's block is alive.
    #[inline]
    unsafe fn compare(&self, arena: &Arena, skip: usize, prefix: u64, key: &[u8]) -> Ordering {
        self.prefix.cmp(&prefix).then_with(|| {
            if self.key_bytes as usize <= skip + PREFIX_BYTES && key.len() <= skip + PREFIX_BYTES {
                // They differ at most in zeros at the end.
                return (self.key_bytes as usize).cmp(&key.len());
            }
            // SAFETY: the caller's promise.
            unsafe { self.key(arena) }.cmp(key)
        })
    }
}

/// The length of an entry's block; never zero, because a piece of no length is a tree.
pub(crate) fn entry_bytes(key_bytes: u32, value_bytes: u32) -> u32 {
    (key_bytes + value_bytes).max(1)
}

fn prefix(key: &[u8], skip: usize) -> u64 {
    let rest = key.get(skip..).unwrap_or(&[]);
    if let Some(first) = rest.first_chunk() {
        return u64::from_le_bytes(*first).swap_bytes();
    }
    let mut first = [0; PREFIX_BYTES];
    first[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(first).swap_bytes()
}

/// How many bytes at their start two keys share.
pub(crate) fn shared_bytes(one: &[u8], other: &[u8]) -> u16 {
    let count = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// A node that may be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) head: &'a Head,
    pub(crate) items: &'a [Item],
}

impl<'a> Node<'a> {
    /// The node at a unit.
    ///
    /// # Safety
    /// A complete node is there, alive for `'a`, and nobody writes it.
    #[inline]
    pub(crate) unsafe fn at(arena: &'a Arena, unit: u32) -> Self {
        let start = arena.at(unit);
        // SAFETY: the caller's promise; pieces are aligned to 16.
        let head = unsafe { &*start.cast::<Head>() };
        let items = start.wrapping_add(HEAD_BYTES).cast::<Item>();
        // SAFETY: the caller's promise: `count` items follow the head.
        let items = unsafe { std::slice::from_raw_parts(items, usize::from(head.count)) };
        Self { head, items }
    }

    /// Whether its items are entries.
    pub(crate) const fn is_leaf(&self) -> bool {
        self.head.level == 0
    }

    /// The piece that holds it.
    pub(crate) fn piece(&self, unit: u32) -> Piece {
        Piece { unit, bytes: node_bytes(self.head.capacity) }
    }

    /// Where the key is among the items, or where it belongs.
    ///
    /// # Safety
    /// The blocks of the items' entries are alive.
    #[inline]
    pub(crate) unsafe fn search(&self, arena: &Arena, key: &[u8]) -> Result<usize, usize> {
        let skip = usize::from(self.head.skip);
        if skip > 0 {
            // SAFETY: the caller's promise; a node that skips has items.
            let shared = &unsafe { self.items[0].key(arena) }[..skip];
            match key.get(..skip).unwrap_or(key).cmp(shared) {
                Ordering::Less => return Err(0),
                Ordering::Greater => return Err(self.items.len()),
                Ordering::Equal => {}
            }
        }
        let prefix = prefix(key, skip);
        self.items.binary_search_by(|item| {
            // SAFETY: the caller's promise.
            unsafe { item.compare(arena, skip, prefix, key) }
        })
    }

    /// The child under which the key is or belongs. For inner nodes.
    ///
    /// # Safety
    /// The blocks of the items' entries are alive.
    #[inline]
    pub(crate) unsafe fn child(&self, arena: &Arena, key: &[u8]) -> usize {
        // SAFETY: the caller's promise.
        match unsafe { self.search(arena, key) } {
            Ok(at) => at,
            Err(at) => at.saturating_sub(1),
        }
    }
}

/// The length of a node that takes so many items.
pub(crate) fn node_bytes(capacity: u16) -> u32 {
    u32::try_from(HEAD_BYTES + usize::from(capacity) * ITEM_BYTES).unwrap_or(u32::MAX)
}

/// How many items fit where `count` have to.
pub(crate) fn capacity_for(count: usize) -> u16 {
    let needed = Piece { unit: 0, bytes: node_bytes(u16::try_from(count).unwrap_or(u16::MAX)) };
    let capacity = (needed.footprint() - HEAD_BYTES) / ITEM_BYTES;
    u16::try_from(capacity.min(ITEMS_MAX)).unwrap_or(u16::MAX)
}

/// A node that is being filled, before anybody else can see it.
#[derive(Debug)]
pub(crate) struct NewNode<'a> {
    pub(crate) head: &'a mut Head,
    /// As many as its capacity; only the first `count` mean anything.
    pub(crate) items: &'a mut [Item],
}

impl<'a> NewNode<'a> {
    /// A new node without items.
    ///
    /// # Safety
    /// The piece takes `capacity` items, and nobody else uses it.
    pub(crate) unsafe fn create(arena: &Arena, piece: Piece, stamp: u64, level: u16, capacity: u16) {
        let head = Head { stamp, tree_bytes: 0, level, count: 0, capacity, skip: 0 };
        // SAFETY: the caller's promise; pieces are aligned to 16.
        unsafe { arena.at(piece.unit).cast::<Head>().write(head) };
    }

    /// A node of this draft.
    ///
    /// # Safety
    /// [`NewNode::create`] made it, nobody but the caller's draft knows of it, and no other reference into it is in use.
    pub(crate) unsafe fn at(arena: &'a Arena, unit: u32) -> Self {
        let start = arena.at(unit);
        // SAFETY: the caller's promise.
        let head = unsafe { &mut *start.cast::<Head>() };
        let items = start.wrapping_add(HEAD_BYTES).cast::<Item>();
        // SAFETY: the caller's promise; any bytes make an item.
        let items = unsafe { std::slice::from_raw_parts_mut(items, usize::from(head.capacity)) };
        Self { head, items }
    }

    /// Adds an item. There is room for it.
    pub(crate) fn insert(&mut self, at: usize, item: Item) {
        let count = usize::from(self.head.count);
        self.items.copy_within(at..count, at + 1);
        self.items[at] = item;
        self.head.count += 1;
    }

    /// Removes an item.
    pub(crate) fn remove(&mut self, at: usize) {
        let count = usize::from(self.head.count);
        self.items.copy_within(at + 1..count, at);
        self.head.count -= 1;
    }

    /// Adds items at the end. There is room for them.
    pub(crate) fn extend(&mut self, items: &[Item]) {
        let count = usize::from(self.head.count);
        self.items[count..count + items.len()].copy_from_slice(items);
        self.head.count += u16::try_from(items.len()).unwrap_or(0);
    }
}
