//! What nodes say.

use super::{Commit, Hello, Mode, OwnerWait, RootOptions, WatchTarget};
#[cfg(doc)]
use super::{Failure, ToNode};
use crate::ids::{
    BarrierId, CommitSeq, EventId, GroupId, Incarnation, ListenerId, ObjectId, OwnerId, RequestId, RootId, Token,
    Version, WatchId,
};
use crate::schema::TypeDescription;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

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
    /// Nobody waits any more for the answer to an [`Insert`](Self::Insert), [`Remove`](Self::Remove) or
    /// [`Rename`](Self::Rename): if it still waits for locks, it is not done, and answered with [`Failure::GivenUp`].
    GiveUp {
        /// The request.
        request: RequestId,
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
    /// Renews the node's lease. Answer: [`ToNode::Heartbeat`].
    Heartbeat {
        /// Names the answer.
        number: u64,
    },
    /// After a resume and its resends: the node still has this grant. Answer:
    /// [`ToNode::GrantLost`] if it is not so.
    Reassert {
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The grant's token.
        token: Token,
        /// Its mode.
        mode: Mode,
    },
    /// After a resume: the node holds the object at these versions. Records interest. Answer:
    /// [`ToNode::Outdated`] or [`ToNode::Destroyed`] if it is not
    /// current.
    Revalidate {
        /// The object.
        object: ObjectId,
        /// The key that the node knows it by.
        key: Bytes,
        /// The version of each group that the node's program knows.
        versions: Vec<(GroupId, Version)>,
    },
    /// After a resume: grants that were not re-asserted are given back. Answer:
    /// [`ToNode::Resynced`].
    Resynced,
    /// Answer with [`ToNode::EverywhereReached`] once no node shows what was before
    /// this commit of the sender, which has been applied.
    AwaitEverywhere {
        /// The commit.
        seq: CommitSeq,
    },
    /// What became of a commit, of whomever? Answer: [`ToNode::Fate`].
    Fate {
        /// Names the answer.
        request: RequestId,
        /// Who made it.
        incarnation: Incarnation,
        /// The commit.
        seq: CommitSeq,
    },
    /// A transaction began to wait for a lock, or still waits. Answer, only if it is one of a cycle:
    /// [`ToNode::CheckWait`], then, for one of them, [`ToNode::Deadlock`].
    OwnerWaits(OwnerWait),
    /// A transaction does not wait any more. No answer.
    OwnerGoesOn {
        /// The transaction.
        owner: OwnerId,
        /// The wait that is over.
        wait: RequestId,
    },
    /// The node has used these objects of roots with timeouts since it last said so, or since it was made. No answer.
    Used {
        /// The objects, of which some may be no more.
        objects: Vec<ObjectId>,
    },
    /// Listens in a group, which is made when there is none of that name. Answer: [`ToNode::Done`], then, to one listener of
    /// all of the group, [`ToNode::Notice`]s of what happens in the root from then on that the group was made.
    Listen {
        /// Names the answer.
        request: RequestId,
        /// The node's name for the listener.
        listener: ListenerId,
        /// The root.
        root: RootId,
        /// The group's name.
        group: String,
    },
    /// Ends a listener: what it has not acknowledged is handed to another one of its group. No answer.
    Unlisten {
        /// The listener.
        listener: ListenerId,
    },
    /// An event of a group was heard, and is not handed to anybody any more. No answer.
    Heard {
        /// The listener that was handed it.
        listener: ListenerId,
        /// The event.
        event: EventId,
    },
    /// Ends a listener group, and with it all that it has not heard. Answer: [`ToNode::Done`] (`false`: there was none) and,
    /// to all who listen, [`ToNode::ListenerEnded`].
    EndListeners {
        /// Names the answer.
        request: RequestId,
        /// The root.
        root: RootId,
        /// The group's name.
        group: String,
    },
    /// Asks for a snapshot of what is there now. Answer, some time: [`ToNode::SnapshotTaken`] or [`ToNode::Failed`] with
    /// [`Failure::NoSnapshot`]; before that, several times a second, [`ToNode::SnapshotGoesOn`].
    Snapshot {
        /// Names the answer.
        request: RequestId,
    },
    // Last: a skipped variant shifts the numbers that serde gives to those behind it.
    /// See [`Commit`]. Answer: [`ToNode::Ack`] (cumulative) or [`ToNode::CommitRefused`].
    #[serde(skip)]
    Commit(Commit),
}
