//! What owns locks in the wait-for graph: transactions, what they hold and what they wait for.

use super::Mode;
use crate::ids::{CheckId, GroupId, Incarnation, ObjectId, OwnerId, RequestId, Token};
use crate::schema::DEFAULT_GROUP;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A lock that an owner holds, to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct OwnerLock {
    /// The object.
    pub object: ObjectId,
    /// The group.
    pub group: GroupId,
    /// The mode.
    pub mode: Mode,
}

/// Whether a wait ends under the grant that its node has.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Turn {
    /// It is served before the grant is given back.
    Present,
    /// It is not served under it any more, or there is no grant of its mode.
    Over,
    /// That depends on whether others in front give up.
    Open,
}

/// Where a wait stands in its node's queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The grant that the node has, of any mode; [`Token::default`] for none.
    pub grant: Token,
    /// Whether the wait ends under it.
    pub turn: Turn,
    /// It would be served under a new grant of its mode, before that is given back.
    pub soon: bool,
}

impl Place {
    /// Whether the wait ends under a grant of its mode that the node has, or that is on its way to it.
    #[must_use]
    pub fn is_served_under(self, grant: Token) -> bool {
        if self.grant == grant { self.turn == Turn::Present } else { self.soon }
    }

    /// Whether the grant that the node has must go back before the wait ends.
    #[must_use]
    pub fn must_drain(self) -> bool {
        self.grant != Token::default() && self.turn == Turn::Over
    }

    /// Whether the wait does not end under this grant, which the node has.
    #[must_use]
    pub fn is_past(self, grant: Token) -> bool {
        self.grant == grant && self.turn == Turn::Over
    }
}

/// A transaction waits for a lock: behind others of its node, behind other nodes, or both. What it holds does not change
/// while it waits.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct OwnerWait {
    /// Who waits.
    pub owner: OwnerId,
    /// The newest grant that its node knew of when it began: of two owners, the one with the higher is younger.
    pub begun: Token,
    /// Names the wait. Of two waits of one node for one lock, the lower one is served first.
    pub wait: RequestId,
    /// What it waits for, and how.
    pub wanted: OwnerLock,
    /// Where it stands in its node's queue.
    pub place: Place,
    /// What it holds.
    pub holds: Vec<OwnerLock>,
    /// The question that this answers; [`CheckId::default`] when the wait has just begun.
    pub check: CheckId,
}

/// One wait of a cycle. The owner of the next one (after the last, of the first) holds what this one waits for, or waits
/// for it in front of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WaitEdge {
    /// The node of the transaction that waits.
    pub node: String,
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The transaction.
    pub owner: OwnerId,
    /// The root of the object whose lock it waits for.
    pub root: String,
    /// The object's key, as text. For a named lock its name.
    pub key: String,
    /// The lock group's name.
    pub group: String,
    /// What it waits for.
    pub mode: Mode,
}

impl fmt::Display for WaitEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, owner, root, key, group, mode, .. } = self;
        write!(f, "transaction {owner} of node `{node}` waits to {mode} `{key}` of root `{root}`")?;
        if group == DEFAULT_GROUP { Ok(()) } else { write!(f, ", group `{group}`") }
    }
}
