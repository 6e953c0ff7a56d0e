//! The messages. Every node has one ordered stream in each direction; each message's answer, and who sends it, is in
//! `docs/PROTOCOL.md`.

use crate::ids::{CommitSeq, Epoch, FieldId, GroupId, Incarnation, ObjectId, RootId, Secret, Token, TypeId, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::fmt;

mod failure;
mod owner;
mod status;
mod to_coordinator;
mod to_node;

pub use failure::Failure;
pub use owner::{OwnerLock, OwnerWait, Place, Turn, WaitEdge};
pub use status::{LockInfo, LockParty, NodeInfo, RootInfo, SnapshotInfo, Status};
pub use to_coordinator::ToCoordinator;
pub use to_node::ToNode;

/// What a peer attaches as.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A process with a runtime: holds objects and locks.
    Node,
    /// A tool that only looks: no interest, no locks, no commits.
    Observer,
}

/// A lock's mode.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Shared.
    Read,
    /// Exclusive.
    Write,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Opens a connection. The first message of a node, and only the first.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's [`crate::PROTOCOL_VERSION`].
    pub protocol: u16,
    /// The node's name, for people; need not be unique.
    pub name: String,
    /// What the peer attaches as.
    pub role: Role,
    /// The incarnation that the node was, and wants to go on as.
    pub resume: Option<Resume>,
}

impl Hello {
    /// The Hello of a peer without a past.
    #[must_use]
    pub fn new(name: impl Into<String>, role: Role) -> Self {
        Self { protocol: crate::PROTOCOL_VERSION, name: name.into(), role, resume: None }
    }
}

/// Who a node was before its connection was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// The epoch of the connection that was lost.
    pub epoch: Epoch,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// The incarnation's secret.
    pub secret: Secret,
    /// Its last commit whose answer it has received.
    pub acked: CommitSeq,
    /// The node has given its lease up already: it wants to be another incarnation, and the locks of this one are free.
    pub lapsed: bool,
    /// Which of its attempts to come back this is, from 1: one that it has given up may arrive after a later one.
    pub attempt: u64,
}

/// What became of the incarnation that a Hello wanted to go on as.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Past {
    /// The Hello named none.
    #[default]
    None,
    /// The node goes on as that incarnation, whose commits up to this one were decided.
    Resumed {
        /// The last one that was decided.
        applied: CommitSeq,
    },
    /// Its lease lapsed: its grants went to others. The node is a new incarnation.
    Lapsed,
    /// The coordinator's state began anew since: none of the node's objects exists any more.
    Reset,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Fate {
    /// It was applied.
    Applied,
    /// It was refused, or never arrived and never will.
    NotApplied,
    /// The coordinator does not remember its incarnation, or the incarnation may still send it.
    Unknown,
}

/// How a root treats its objects. All who open it say the same.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct RootOptions {
    /// An object that no node holds, locks or waits for is removed: named locks.
    pub ephemeral: bool,
    /// An object that nobody has used for so many milliseconds is removed; 0: however long.
    pub idle_timeout_ms: u64,
    /// An object is removed so many milliseconds after it was made, used or not; 0: never.
    pub absolute_timeout_ms: u64,
    /// How the programs lock its objects, in a word of theirs; empty: nothing is said.
    pub locking: String,
    /// Its keys are hashes (SHA-256, in hexadecimal) of what people know its objects by. For tools that people ask; who
    /// opens the root need not say the same.
    pub hashed_keys: bool,
}

impl RootOptions {
    /// Whether its objects are removed some time.
    #[must_use]
    pub const fn has_timeouts(&self) -> bool {
        self.idle_timeout_ms > 0 || self.absolute_timeout_ms > 0
    }
}

/// The slots of a whole object.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The object.
    pub object: ObjectId,
    /// The object's type.
    pub type_id: TypeId,
    /// The version of each group that was ever committed to.
    pub versions: Vec<(GroupId, Version)>,
    /// Every slot, as writes (see [`crate::delta`]).
    pub writes: Bytes,
    /// The receiving node's last commit that is part of this record.
    pub applied: CommitSeq,
}

/// What a commit did to one (object, group).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Part {
    /// The object.
    pub object: ObjectId,
    /// The lock group. [`GroupId::COMMUTATIVE`] for adds, which have neither token nor version.
    pub group: GroupId,
    /// The token of the write grant it was made under.
    pub token: Token,
    /// The version that this commit makes.
    pub version: Version,
    /// The slot writes (see [`crate::delta`]).
    pub writes: Bytes,
}

/// Slot writes to one or more objects: all or nothing. Its sequence number is not sent: the stream is ordered, and
/// both sides count.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Commit {
    /// Answer with [`ToNode::EverywhereReached`] as well.
    pub everywhere: bool,
    /// Nobody else sees it, nor what comes after it in its groups, before it is safe in the coordinator's log.
    pub durable: bool,
    /// What it changed.
    pub parts: SmallVec<[Part; 1]>,
}

/// What one commit changed in one (object, group), on the way to a node that holds the object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeltaPart {
    /// The object.
    pub object: ObjectId,
    /// The lock group.
    pub group: GroupId,
    /// The version that the commit made.
    pub version: Version,
    /// The slot writes, byte for byte as committed.
    pub writes: Bytes,
}

/// The part of a commit that concerns a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delta {
    /// Who committed.
    pub writer: Incarnation,
    /// What changed; to be shown all at once.
    pub parts: SmallVec<[DeltaPart; 1]>,
}

/// What a watch is on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum WatchTarget {
    /// Every object of a root.
    Root(RootId),
    /// One object.
    Object(ObjectId),
}

/// What became of a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum SlotChange {
    /// It had nothing, or its field's default, unwritten.
    Added,
    /// It was written anew, perhaps as it was.
    Changed,
    /// It is no more, or back to its field's default.
    Removed,
}

/// A slot that a commit changed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ChangedSlot {
    /// The field.
    pub field: FieldId,
    /// The key of an entry, if the field is a map.
    pub entry: Option<Bytes>,
    /// What became of it.
    pub change: SlotChange,
}

/// What a watcher is told.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// The object was created.
    Created,
    /// A commit changed the object.
    Updated {
        /// The lock group.
        group: GroupId,
        /// The version that the commit made.
        version: Version,
        /// The fields it wrote.
        fields: Vec<FieldId>,
        /// Its slots, as many as an event names. None of a commit that the watch began behind, before it was safe.
        slots: Vec<ChangedSlot>,
        /// The writes themselves, for watches that asked for them.
        writes: Option<Bytes>,
    },
    /// The object was removed.
    Removed,
    /// The object was removed because it had not been used for too long, or was too old.
    Expired,
    /// The object has another key now.
    Renamed {
        /// The new key.
        to: Bytes,
    },
    /// So many changes found no room in the queue of a listener group, and are told to nobody.
    Missed {
        /// How many.
        events: u64,
    },
    /// Changes before this one may be missing.
    Gap,
}
