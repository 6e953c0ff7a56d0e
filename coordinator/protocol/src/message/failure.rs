//! What a peer is told when something was not done.

use crate::ids::{FieldId, GroupId, Incarnation, ObjectId, RootId, Token, Version};
use serde::{Deserialize, Serialize};

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
        "field `{field}` of type `{type_name}` is `{wanted}` in this program but `{registered}` in the cluster: if `{type_name}` is one type that changed, give the changed field a new name, or keep its structure; if these are two types of one name, give one of them another with `#[clustered(rename = \"..\")]`"
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
    #[error(
        "root `{root}` has {what} `{registered}` in the cluster but `{wanted}` in this program: a root is for good what it was \
         when it was opened first, so let all programs say the same, or take a root of another name"
    )]
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
    /// A resume with another secret than the incarnation's.
    #[error("this is not the secret of incarnation {incarnation}: only the process that was it can resume it")]
    BadSecret {
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// A resume that arrived after a later one.
    #[error("incarnation {incarnation} has come back on a later connection")]
    Superseded {
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// The node was not heard of for longer than its lease.
    #[error("the lease of incarnation {incarnation} has lapsed: its grants went to others")]
    Lapsed {
        /// The incarnation.
        incarnation: Incarnation,
    },
    /// Nobody waited for it any more.
    #[error("it was given up before it was done")]
    GivenUp,
    /// An observer asked for what only a node may do.
    #[error("an observer may not do this: attach as a node")]
    NotANode,
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
    /// A durable commit, to a coordinator without a log.
    #[error("this coordinator keeps its state in memory: no commit can be durable. Start it with a data directory")]
    NotDurable,
    /// The log takes nothing more until there is room, or until its disk has caught up with what waits for it.
    #[error(
        "the coordinator's log is full: nothing can be changed until there is room on its disk, or the disk has caught up. \
         Reads and locks go on"
    )]
    LogFull,
    /// The commit was refused before the coordinator was started again.
    #[error("the commit was refused; the coordinator was started again since then, and does not know why any more")]
    Forgotten,
    /// No snapshot was taken. What there was before is as it was.
    #[error("no snapshot was taken: {reason}")]
    NoSnapshot {
        /// For people.
        reason: String,
    },
    /// A root was asked for by an empty name.
    #[error("a root needs a name: the one asked for is empty")]
    UnnamedRoot,
}
