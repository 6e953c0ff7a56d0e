//! What the coordinator says.

#[cfg(doc)]
use super::ToCoordinator;
use super::{Change, Delta, Failure, Fate, LockInfo, Mode, Past, Record, RootInfo, SnapshotInfo, Status, WaitEdge};
use crate::ids::{
    BarrierId, CheckId, CommitSeq, Epoch, EventId, GroupId, Incarnation, ListenerId, ObjectId, RequestId, RootId,
    Secret, Token, WatchId,
};
use crate::schema::TypeBinding;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
        /// How long the node may trust its grants after the sending of its last answered heartbeat, less a margin of
        /// its own.
        lease_ms: u32,
        /// The coordinator keeps a log: commits can be durable, and are kept by the node until they are.
        durable: bool,
        /// What became of the incarnation that the node wanted to resume.
        past: Past,
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
    /// The node's lease is renewed.
    Heartbeat {
        /// The heartbeat that this answers.
        number: u64,
    },
    /// A grant that was re-asserted is not the node's any more.
    GrantLost {
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The token of the grant.
        token: Token,
    },
    /// A copy that was revalidated is not current.
    Outdated {
        /// The object.
        object: ObjectId,
    },
    /// The node's copies and grants are as the coordinator knows them.
    Resynced,
    /// What became of a commit.
    Fate {
        /// The request.
        request: RequestId,
        /// What.
        fate: Fate,
    },
    /// A node joined the cluster, or left it.
    Member {
        /// Its incarnation.
        incarnation: Incarnation,
        /// Its name.
        name: String,
        /// It joined.
        joined: bool,
    },
    /// The wait seems to be one of a cycle: if it goes on, say so again with [`ToCoordinator::OwnerWaits`]. No answer
    /// when it is over.
    CheckWait {
        /// The object whose lock is waited for.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The wait.
        wait: RequestId,
        /// To be repeated.
        check: CheckId,
    },
    /// The wait is one of a cycle: it is to end, so that the others can go on.
    Deadlock {
        /// The object whose lock is waited for.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The wait.
        wait: RequestId,
        /// The whole cycle, from this wait on.
        cycle: Vec<WaitEdge>,
    },
    /// Every commit up to this one is safe in the coordinator's log: the node need not keep it any longer. Only of
    /// coordinators that have a log.
    Durable {
        /// The commit.
        seq: CommitSeq,
    },
    /// An event of a listener group, to be acknowledged with [`ToCoordinator::Heard`].
    Notice {
        /// The listener.
        listener: ListenerId,
        /// The event.
        event: EventId,
        /// It may have been handed to somebody before, under the same id.
        redelivered: bool,
        /// The object.
        object: ObjectId,
        /// The object's key (for [`Change::Renamed`] the old one).
        key: Bytes,
        /// The node that did it, and its name; `None` for the coordinator itself.
        writer: Option<(Incarnation, String)>,
        /// What happened.
        change: Change,
    },
    /// The listener's group was ended.
    ListenerEnded {
        /// The listener.
        listener: ListenerId,
    },
    /// A snapshot that was asked for is being written, or waits for the one before.
    SnapshotGoesOn {
        /// The request.
        request: RequestId,
        /// How many objects are in it by now.
        objects: u64,
        /// Of about how many.
        of: u64,
    },
    /// A snapshot that was asked for is in place.
    SnapshotTaken {
        /// The request.
        request: RequestId,
        /// What it is.
        snapshot: SnapshotInfo,
    },
    // Last: a skipped variant shifts the numbers that serde gives to those behind it.
    /// See [`Delta`].
    #[serde(skip)]
    Delta(Delta),
}
