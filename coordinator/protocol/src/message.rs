//! The messages. Every node has one ordered stream in each direction; each message's answer, and who sends it, is in
//! `docs/PROTOCOL.md`.

use crate::ids::{
    BarrierId, CommitSeq, Epoch, FieldId, GroupId, Incarnation, ObjectId, RequestId, RootId, Secret, Token, TypeId,
    Version, WatchId,
};
use crate::schema::{RegisteredType, TypeBinding, TypeDescription};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::fmt;

/// What a peer attaches as.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
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
}

/// How a root treats its objects.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct RootOptions {
    /// An object that no node holds, locks or waits for is removed: named locks.
    pub ephemeral: bool,
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
        /// The writes themselves, for watches that asked for them.
        writes: Option<Bytes>,
    },
    /// The object was removed.
    Removed,
    /// The object has another key now.
    Renamed {
        /// The new key.
        to: Bytes,
    },
    /// Changes before this one may be missing.
    Gap,
}

/// From a node to the coordinator.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ToCoordinator {
    /// See [`Hello`]. Answer: [`ToNode::Welcome`] or [`ToNode::Refused`].
    Hello(Hello),
    /// Creates or opens a root and registers its type. Answer: [`ToNode::RootOpened`] or [`ToNode::Failed`].
    OpenRoot {
        /// Names the answer.
        request: RequestId,
        /// The root's name.
        name: String,
        /// The canonical text of the structure of its keys.
        key: String,
        /// The type of its objects.
        type_description: TypeDescription,
        /// How it treats its objects.
        options: RootOptions,
    },
    /// Faults an object in by key and records interest; creates it from `create` when absent.
    /// Answer: [`ToNode::Fetched`], [`ToNode::Absent`] or [`ToNode::Failed`].
    Fetch {
        /// Names the answer.
        request: RequestId,
        /// The root.
        root: RootId,
        /// The key's canonical bytes.
        key: Bytes,
        /// The slots of a new object (as writes), should it be absent.
        create: Option<Bytes>,
    },
    /// Asks for the whole record of an object that the node holds but whose copy is stale. Records interest.
    /// Answer: [`ToNode::Fetched`] or [`ToNode::Failed`].
    Refetch {
        /// Names the answer.
        request: RequestId,
        /// The object.
        object: ObjectId,
    },
    /// Puts a new object under a key; one that was there is destroyed first, after all its locks were taken.
    /// Answer: [`ToNode::Fetched`] or [`ToNode::Failed`].
    Insert {
        /// Names the answer.
        request: RequestId,
        /// The root.
        root: RootId,
        /// The key's canonical bytes.
        key: Bytes,
        /// The slots of the new object, as writes.
        writes: Bytes,
    },
    /// Destroys the object under a key after all its locks were taken. Answer: [`ToNode::Done`].
    Remove {
        /// Names the answer.
        request: RequestId,
        /// The root.
        root: RootId,
        /// The key's canonical bytes.
        key: Bytes,
        /// Answer only when no node shows the object any more.
        everywhere: bool,
    },
    /// Moves an object to another key after all its locks were taken. Answer: [`ToNode::Done`] (`false`: no such
    /// object) or [`ToNode::Failed`] with [`Failure::KeyTaken`].
    Rename {
        /// Names the answer.
        request: RequestId,
        /// The root.
        root: RootId,
        /// The present key.
        from: Bytes,
        /// The new key.
        to: Bytes,
    },
    /// Asks whether a key has an object. Answer: [`ToNode::Done`].
    Contains {
        /// Names the answer.
        request: RequestId,
        /// The root.
        root: RootId,
        /// The key's canonical bytes.
        key: Bytes,
    },
    /// Asks for keys in ascending byte order. Answer: [`ToNode::Keys`].
    Keys {
        /// Names the answer.
        request: RequestId,
        /// The root.
        root: RootId,
        /// Only keys after this one.
        after: Option<Bytes>,
        /// How many at most; the coordinator may send fewer.
        limit: u32,
    },
    /// Asks for a lock. Answer, some time: [`ToNode::Grant`], or [`ToNode::LockFailed`].
    Acquire {
        /// Names the answer.
        request: RequestId,
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The mode.
        mode: Mode,
        /// The node's copy is stale or absent: send the record with the grant.
        want_record: bool,
    },
    /// Takes a lock request back. No answer: a grant that is already on its way is cached or released.
    Withdraw {
        /// The request.
        request: RequestId,
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
    },
    /// Gives a grant back, or turns a write grant into a read grant. No answer.
    Release {
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The grant's token.
        token: Token,
        /// Keep a read grant.
        keep_read: bool,
    },
    /// The node dropped the object: its interest and its grants end. No answer.
    Forget {
        /// The object.
        object: ObjectId,
    },
    /// Starts a watch. Answer: [`ToNode::Done`], then [`ToNode::Event`]s.
    Watch {
        /// Names the answer.
        request: RequestId,
        /// The node's name for the watch.
        watch: WatchId,
        /// What to watch.
        target: WatchTarget,
        /// Send the writes along.
        with_writes: bool,
    },
    /// Ends a watch. No answer.
    Unwatch {
        /// The watch.
        watch: WatchId,
    },
    /// Everything in the stream before the barrier has been applied.
    Barrier {
        /// The barrier.
        barrier: BarrierId,
    },
    /// The node leaves: everything it holds is released. Answer: [`ToNode::Goodbye`].
    Bye,
    /// Asks about the cluster. Answer: [`ToNode::Status`].
    Status {
        /// Names the answer.
        request: RequestId,
    },
    /// Asks for the roots. Answer: [`ToNode::Roots`].
    Roots {
        /// Names the answer.
        request: RequestId,
    },
    /// Looks at an object without interest. Answer: [`ToNode::Fetched`], [`ToNode::Absent`] or [`ToNode::Failed`].
    Peek {
        /// Names the answer.
        request: RequestId,
        /// The root.
        root: RootId,
        /// The key's canonical bytes.
        key: Bytes,
    },
    /// Asks for the locks in use. Answer: [`ToNode::Locks`].
    Locks {
        /// Names the answer.
        request: RequestId,
    },
    // Last: a skipped variant shifts the numbers that serde gives to those behind it.
    /// See [`Commit`]. Answer: [`ToNode::Ack`] (cumulative) or [`ToNode::CommitRefused`].
    #[serde(skip)]
    Commit(Commit),
}

/// From the coordinator to a node.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ToNode {
    /// The node is attached.
    Welcome {
        /// The coordinator's [`crate::PROTOCOL_VERSION`].
        protocol: u16,
        /// The epoch of this connection; versions and tokens on the wire are relative to it.
        epoch: Epoch,
        /// The node's incarnation.
        incarnation: Incarnation,
        /// The incarnation's secret.
        secret: Secret,
    },
    /// The node is not attached; the connection ends.
    Refused {
        /// Why.
        failure: Failure,
    },
    /// The root is open.
    RootOpened {
        /// The request.
        request: RequestId,
        /// The root's id.
        root: RootId,
        /// The numbers of the type's fields and groups.
        binding: TypeBinding,
    },
    /// An object.
    Fetched {
        /// The request.
        request: RequestId,
        /// The object's slots.
        record: Record,
        /// The object was created by this request.
        created: bool,
        /// Write grants that come with a new object: every lock group, and its token.
        grants: Vec<(GroupId, Token)>,
    },
    /// No object has that key.
    Absent {
        /// The request.
        request: RequestId,
    },
    /// A yes or no.
    Done {
        /// The request.
        request: RequestId,
        /// What the request asks for was there, or was done.
        yes: bool,
    },
    /// A page of keys.
    Keys {
        /// The request.
        request: RequestId,
        /// The keys, ascending.
        keys: Vec<Bytes>,
        /// There are keys after the last one.
        more: bool,
    },
    /// The request was not carried out.
    Failed {
        /// The request.
        request: RequestId,
        /// Why.
        failure: Failure,
    },
    /// The lock is the node's.
    Grant {
        /// The request.
        request: RequestId,
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The mode.
        mode: Mode,
        /// The fencing token.
        token: Token,
        /// The node may keep the grant after its holder is done, until it is recalled.
        cached: bool,
        /// The object's slots, when the request asked for them.
        record: Option<Record>,
    },
    /// The lock request cannot be granted.
    LockFailed {
        /// The request.
        request: RequestId,
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// Why.
        failure: Failure,
    },
    /// Somebody else wants the lock: finish, flush and release.
    Recall {
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The token of the grant that is wanted back.
        token: Token,
        /// `Read`: a downgrade to a read grant is enough.
        wanted: Mode,
    },
    /// Every commit up to this one has been ordered, unless it was refused.
    Ack {
        /// The commit.
        applied: CommitSeq,
    },
    /// The commit was refused, whole; sent before the [`ToNode::Ack`] that covers it.
    CommitRefused {
        /// The commit.
        seq: CommitSeq,
        /// Why.
        failure: Failure,
    },
    /// Every interested node has applied the commit, or is gone.
    EverywhereReached {
        /// The commit.
        seq: CommitSeq,
    },
    /// The object was destroyed.
    Destroyed {
        /// The object.
        object: ObjectId,
    },
    /// The object has another key.
    Renamed {
        /// The object.
        object: ObjectId,
        /// The new key.
        key: Bytes,
    },
    /// Something happened to a watched object.
    Event {
        /// The watch.
        watch: WatchId,
        /// The object.
        object: ObjectId,
        /// The object's key (for [`Change::Renamed`] the old one).
        key: Bytes,
        /// The node that did it, and its name; `None` for the coordinator itself.
        writer: Option<(Incarnation, String)>,
        /// What happened.
        change: Change,
    },
    /// Answer with [`ToCoordinator::Barrier`] once everything before it is applied.
    Barrier {
        /// The barrier.
        barrier: BarrierId,
    },
    /// The coordinator is about to stop: everything acknowledged is kept as far as its store keeps it; the connection
    /// ends.
    Stopping,
    /// The node's [`ToCoordinator::Bye`] was carried out.
    Goodbye,
    /// About the cluster.
    Status {
        /// The request.
        request: RequestId,
        /// What there is.
        status: Status,
    },
    /// The roots.
    Roots {
        /// The request.
        request: RequestId,
        /// One row a root.
        roots: Vec<RootInfo>,
    },
    /// The locks in use.
    Locks {
        /// The request.
        request: RequestId,
        /// One row a lock, busiest first.
        locks: Vec<LockInfo>,
        /// Locks that did not fit into the answer.
        left_out: u64,
    },
    // Last: a skipped variant shifts the numbers that serde gives to those behind it.
    /// See [`Delta`].
    #[serde(skip)]
    Delta(Delta),
}

/// About the cluster.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The coordinator's program version.
    pub version: String,
    /// The epoch.
    pub epoch: Epoch,
    /// How long the coordinator has been up.
    pub uptime_ms: u64,
    /// Where the state is kept.
    pub store: String,
    /// Who is attached.
    pub nodes: Vec<NodeInfo>,
    /// How many roots there are.
    pub roots: u64,
    /// How many objects there are.
    pub objects: u64,
    /// Bytes of all slots and keys.
    pub object_bytes: u64,
    /// Commits applied in this epoch.
    pub commits: u64,
    /// Commits refused in this epoch.
    pub commits_refused: u64,
    /// Grants given in this epoch.
    pub grants: u64,
    /// Recalls sent in this epoch.
    pub recalls: u64,
}

/// One attached node.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: String,
    /// What it attached as.
    pub role: Role,
    /// How long it has been attached.
    pub attached_ms: u64,
    /// Objects it holds.
    pub interest: u64,
    /// Grants it holds.
    pub grants: u64,
    /// Its last applied commit.
    pub applied: CommitSeq,
}

/// One root.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RootInfo {
    /// Its id.
    pub root: RootId,
    /// Its name.
    pub name: String,
    /// The canonical text of the structure of its keys.
    pub key: String,
    /// How many objects it has.
    pub objects: u64,
    /// How it treats its objects.
    pub options: RootOptions,
    /// The type of its objects.
    pub type_info: RegisteredType,
}

/// One lock in use.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LockInfo {
    /// The root of the object.
    pub root: String,
    /// The object's key.
    pub key: Bytes,
    /// The object.
    pub object: ObjectId,
    /// The group's name; empty for the default one.
    pub group: String,
    /// Who holds it.
    pub holders: Vec<LockParty>,
    /// Who waits for it, in order.
    pub waiters: Vec<LockParty>,
    /// How often it went from one node to another.
    pub hand_offs: u64,
    /// The holder keeps it between uses.
    pub cached: bool,
}

/// A holder of, or a waiter for, a lock.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct LockParty {
    /// The node, and its name; `None` for an operation of the coordinator (insert, remove, rename).
    pub node: Option<(Incarnation, String)>,
    /// Held or wanted.
    pub mode: Mode,
    /// For how long.
    pub age_ms: u64,
}

/// Why something was not done. Each says what, where, and what to do.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The peer speaks another protocol.
    #[error(
        "this coordinator speaks protocol {ours}, the peer speaks {theirs}: run the same major version of Kiln on both"
    )]
    Protocol {
        /// The coordinator's.
        ours: u16,
        /// The peer's.
        theirs: u16,
    },
    /// A message that breaks the protocol; the connection ends.
    #[error("protocol violation: {what}")]
    Violation {
        /// Which rule.
        what: String,
    },
    /// Something is larger than allowed.
    #[error("{what} is {actual}, the limit is {limit}")]
    Limit {
        /// What is too large or too many.
        what: String,
        /// How large it is.
        actual: u64,
        /// How large it may be.
        limit: u64,
    },
    /// A name or structure that cannot be registered.
    #[error("bad schema of type `{type_name}`: {what}")]
    Schema {
        /// The type.
        type_name: String,
        /// What is wrong.
        what: String,
    },
    /// A field has another structure in this cluster.
    #[error(
        "field `{field}` of type `{type_name}` is `{wanted}` in this program but `{registered}` in the cluster: give the changed field a new name, or keep its structure"
    )]
    FieldChanged {
        /// The type.
        type_name: String,
        /// The field.
        field: String,
        /// The cluster's.
        registered: String,
        /// This program's.
        wanted: String,
    },
    /// The root holds another type or another kind of key.
    #[error("root `{root}` has {what} `{registered}` in the cluster but `{wanted}` in this program")]
    RootChanged {
        /// The root.
        root: String,
        /// Type, key or options.
        what: String,
        /// The cluster's.
        registered: String,
        /// This program's.
        wanted: String,
    },
    /// No such root.
    #[error("root {root} does not exist")]
    UnknownRoot {
        /// The root.
        root: RootId,
    },
    /// The object was destroyed, or never existed.
    #[error("object {object} does not exist (it may have been removed)")]
    Destroyed {
        /// The object.
        object: ObjectId,
    },
    /// Renaming onto a key that has an object.
    #[error("the new key already has an object")]
    KeyTaken,
    /// A commit or release without the current grant.
    #[error(
        "group {group} of object {object}: the commit's grant {token} is not the current one: it was lost, or given back"
    )]
    Fenced {
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The stale token.
        token: Token,
    },
    /// A commit that does not follow the current version.
    #[error("group {group} of object {object} is at version {current}; the commit makes {proposed}")]
    VersionGap {
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The coordinator's.
        current: Version,
        /// The commit's.
        proposed: Version,
    },
    /// A write that its field's declaration does not allow.
    #[error("object {object}, field {field}: {what}")]
    BadWrite {
        /// The object.
        object: ObjectId,
        /// The field.
        field: FieldId,
        /// What is wrong.
        what: String,
    },
    /// An observer asked for what only a node may do.
    #[error("an observer may not do this: attach as a node")]
    NotANode,
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
}
