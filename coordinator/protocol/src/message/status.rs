//! What tools are told about a cluster.

use super::{Mode, Role, RootOptions};
use crate::ids::{CommitSeq, Epoch, Incarnation, ObjectId, RootId};
use crate::schema::RegisteredType;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

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

/// A snapshot that is in place.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// The last entry of the log that is part of it.
    pub entry: u64,
    /// How many objects are in it.
    pub objects: u64,
    /// The length of its file.
    pub bytes: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Segments and snapshots that it made superfluous, and that are gone.
    pub removed: u64,
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
    #[serde(rename = "objects")]
    pub interest: u64,
    /// Grants it holds.
    pub grants: u64,
    /// Its last applied commit.
    #[serde(rename = "commits")]
    pub applied: CommitSeq,
    /// For how long its connection has been lost, if it is.
    pub away_ms: Option<u64>,
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
    /// The node, and its name; `None` for the coordinator itself.
    pub node: Option<(Incarnation, String)>,
    /// What the node asked the coordinator to do: `insert`, `remove` or `rename`; `expire` of the coordinator's own. `None`: the node itself has or wants
    /// the lock.
    pub operation: Option<String>,
    /// Held or wanted.
    pub mode: Mode,
    /// For how long.
    pub age_ms: u64,
}
