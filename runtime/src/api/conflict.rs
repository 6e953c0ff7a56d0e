//! What was done here while the cluster was away, and is not so in the cluster.

use bytes::Bytes;
use kiln_engine::{ConflictCause, ConflictWrite, LocalConflict, LocalDeed, LocalValue, Node};
use kiln_object::{Key, Value, loose};
use kiln_protocol::{ObjectId, RootId};

/// Something that was done here while the cluster was away and is not so in the cluster, from
/// [`Runtime::take_conflicts`](crate::Runtime::take_conflicts). A commit is there as a whole, and nothing of it was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conflict {
    /// Why.
    pub cause: ConflictCause,
    /// What it was.
    pub kind: ConflictKind,
}

/// What was done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConflictKind {
    /// A commit, which wrote these fields.
    Commit(Vec<FieldConflict>),
    /// An object was created.
    Creation(ObjectName),
    /// An object was removed.
    Removal(ObjectName),
}

/// The name of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ObjectName {
    /// The name of its root.
    pub root: String,
    key: Bytes,
}

/// One field, or one entry of a map, that a commit wrote.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldConflict {
    /// The object.
    pub name: ObjectName,
    write: ConflictWrite,
}

impl Conflict {
    pub(super) fn new(node: &Node, conflict: LocalConflict) -> Self {
        let name = |root: RootId, key: Bytes| {
            let root = node.cache.root(root).map_or_else(String::new, |root| root.name.clone());
            ObjectName { root, key }
        };
        let field = |write: ConflictWrite| FieldConflict { name: name(write.root, write.key.clone()), write };
        let kind = match conflict.deed {
            LocalDeed::Commit(writes) => ConflictKind::Commit(writes.into_iter().map(field).collect()),
            LocalDeed::Creation(root, key) => ConflictKind::Creation(name(root, key)),
            LocalDeed::Removal(root, key) => ConflictKind::Removal(name(root, key)),
        };
        Self { cause: conflict.cause, kind }
    }

    /// The fields that it wrote; none when it was no commit.
    #[must_use]
    pub fn fields(&self) -> &[FieldConflict] {
        match &self.kind {
            ConflictKind::Commit(fields) => fields,
            ConflictKind::Creation(_) | ConflictKind::Removal(_) => &[],
        }
    }
}

impl ObjectName {
    /// The key; `None` when it is no key of this type.
    #[must_use]
    pub fn key<K: Key>(&self) -> Option<K> {
        K::decode(&self.key)
    }
}

impl FieldConflict {
    /// The object, as its handles on this node knew it.
    #[must_use]
    pub const fn object(&self) -> ObjectId {
        self.write.object
    }

    /// The field's name.
    #[must_use]
    pub const fn field(&self) -> &'static str {
        self.write.field
    }

    /// The key of the entry of a map; `None` when the whole field was written, or the key is none of this type.
    #[must_use]
    pub fn entry<K: Key>(&self) -> Option<K> {
        K::decode(self.write.entry.as_ref()?)
    }

    /// What was there when it was written here; `None` when a map had no such entry, when it was not kept (the commit was
    /// on its way when the lease lapsed), or when it is no value of this type.
    #[must_use]
    pub fn base<T: Value>(&self) -> Option<T> {
        self.load(self.write.base.as_ref()?)
    }

    /// What was written here, or added; `None` when an entry of a map was removed, or it is no value of this type.
    #[must_use]
    pub fn ours<T: Value>(&self) -> Option<T> {
        self.load(&self.write.ours)
    }

    /// What the cluster has; `None` when that is not known (the object was removed, or the change was not compared), when
    /// a map has no such entry, or when it is no value of this type.
    #[must_use]
    pub fn theirs<T: Value>(&self) -> Option<T> {
        self.load(self.write.theirs.as_ref()?)
    }

    /// The three values as they are kept: base, ours, theirs.
    #[must_use]
    pub const fn values(&self) -> (Option<&LocalValue>, &LocalValue, Option<&LocalValue>) {
        (self.write.base.as_ref(), &self.write.ours, self.write.theirs.as_ref())
    }

    fn load<T: Value>(&self, value: &LocalValue) -> Option<T> {
        match value {
            LocalValue::Scalar(bits) => loose::load_scalar(*bits),
            LocalValue::Added(amount) => loose::load_scalar(amount.cast_unsigned()),
            LocalValue::Bytes(bytes) if self.write.entry.is_some() => loose::load_entry(bytes),
            LocalValue::Bytes(bytes) => loose::load_block(bytes),
            LocalValue::Absent | LocalValue::Entries(_) => None,
        }
    }
}
