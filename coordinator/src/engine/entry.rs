//! What the log keeps: each change of replicated state, as decided.
//!
//! Bodies are shared by reference count with the messages that carry them. No I/O: the driver hands entries to a log.

use super::queues::QueueId;
use bytes::Bytes;
use kiln_protocol::message::{Part, Role, RootOptions};
use kiln_protocol::schema::RegisteredField;
use kiln_protocol::{CommitSeq, Epoch, EventId, Incarnation, ObjectId, RootId, Secret, TypeId};
use smallvec::SmallVec;
use std::fmt;

kiln_protocol::id!(
    /// The place of an entry in the log, from 1.
    pub LogSeq(u64)
);

kiln_protocol::id!(
    /// When an entry was made: milliseconds since 1970 by the coordinator's clock. Never goes back, from one start of the
    /// coordinator to the next either.
    pub LogTime(u64)
);

/// What a secret is known by: who reads a log or a snapshot must not be able to go on as a node.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// The SHA-256 of a secret, which has 128 random bits and needs no salt.
    pub(super) fn of(secret: Secret) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, &secret.to_bytes());
        Self(digest.as_ref().try_into().expect("a SHA-256 has 32 bytes"))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// One change of replicated state. The same entries in the same order give the same state.
///
/// `by` is who asked for it; `None`: the coordinator by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A coordinator began an epoch. The first entry of each life of the coordinator.
    Started {
        /// The epoch.
        epoch: Epoch,
        /// The first epoch whose nodes may go on. When it is `epoch` itself, every incarnation ends here.
        history: Epoch,
        /// So many numbers of objects and of incarnations are left out: entries that were lost may have given them.
        skipped: u64,
    },
    /// A node or observer was attached and got an incarnation.
    Attached {
        /// Its incarnation.
        incarnation: Incarnation,
        /// Its name.
        name: String,
        /// What it is.
        role: Role,
        /// What shows that somebody is it.
        secret: SecretHash,
    },
    /// An incarnation ended: nothing is accepted from it any more.
    Gone {
        /// The incarnation.
        incarnation: Incarnation,
        /// Its last commit that was decided.
        applied: CommitSeq,
    },
    /// A type got its number.
    TypeAdded {
        /// Who asked for it.
        by: Option<Incarnation>,
        /// Its number.
        id: TypeId,
        /// Its name.
        name: String,
    },
    /// A type got fields that it did not have.
    FieldsAdded {
        /// Who asked for it.
        by: Option<Incarnation>,
        /// The type.
        id: TypeId,
        /// The new fields, their numbers following on from those before.
        fields: Vec<RegisteredField>,
    },
    /// A root was created.
    RootAdded {
        /// Who asked for it.
        by: Option<Incarnation>,
        /// Its number.
        root: RootId,
        /// Its name.
        name: String,
        /// The canonical text of the structure of its keys.
        key: String,
        /// The type of its objects.
        type_id: TypeId,
        /// How it treats its objects.
        options: RootOptions,
    },
    /// An object was created.
    Created {
        /// Who asked for it.
        by: Option<Incarnation>,
        /// Its id.
        object: ObjectId,
        /// Its root.
        root: RootId,
        /// Its key.
        key: Bytes,
        /// Its slots, as writes.
        writes: Bytes,
    },
    /// A commit was applied, whole.
    Committed {
        /// Who committed.
        writer: Incarnation,
        /// The commit.
        seq: CommitSeq,
        /// What it changed; commutative parts carry the version that they were given.
        parts: SmallVec<[Part; 1]>,
    },
    /// Commits were refused, each whole: kept so that a resend is counted and answered alike.
    Refused {
        /// Who committed.
        writer: Incarnation,
        /// The first of them.
        first: CommitSeq,
        /// The last of them; mostly the same.
        last: CommitSeq,
    },
    /// An object was destroyed.
    Removed {
        /// Who asked for it.
        by: Option<Incarnation>,
        /// The object.
        object: ObjectId,
    },
    /// An object was destroyed because it had not been used for too long, or was too old.
    Expired {
        /// The object.
        object: ObjectId,
    },
    /// Objects of roots with timeouts were used. Written at most once in a tenth of the idle timeout for each of them.
    Used {
        /// The objects.
        objects: Vec<ObjectId>,
    },
    /// A listener group was made: what happens in the root from now on is in its queue.
    QueueAdded {
        /// Who asked for it.
        by: Option<Incarnation>,
        /// The number of its queue.
        queue: QueueId,
        /// The root.
        root: RootId,
        /// Its name.
        name: String,
    },
    /// A listener group was ended.
    QueueRemoved {
        /// Who asked for it.
        by: Option<Incarnation>,
        /// Its queue.
        queue: QueueId,
    },
    /// Events of a listener group were heard.
    Heard {
        /// Its queue.
        queue: QueueId,
        /// The events.
        events: Vec<EventId>,
    },
    /// An object got another key.
    Renamed {
        /// Who asked for it.
        by: Option<Incarnation>,
        /// The object.
        object: ObjectId,
        /// Its new key.
        key: Bytes,
    },
}

/// An entry that does not fit the state it is applied to: the log is damaged, or of another history.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadEntry {
    /// A number that does not follow the last one of its kind.
    #[error("{what} {number} does not follow {last}")]
    OutOfOrder {
        /// Which kind of number.
        what: &'static str,
        /// The entry's.
        number: u64,
        /// The state's last one.
        last: u64,
    },
    /// Something the entry refers to does not exist.
    #[error("{what} {number} does not exist")]
    Missing {
        /// Which kind of thing.
        what: &'static str,
        /// Its number.
        number: u64,
    },
    /// Something that may come only once, or only behind something else.
    #[error("{what} is out of place")]
    OutOfPlace {
        /// What it is.
        what: &'static str,
    },
    /// A key that already has an object.
    #[error("object {object} would take the key of another object")]
    KeyTaken {
        /// The entry's object.
        object: ObjectId,
    },
    /// Slot writes that are not well-formed.
    #[error("object {object}: {bad}")]
    Writes {
        /// The object.
        object: ObjectId,
        /// What is wrong.
        bad: kiln_protocol::BadDelta,
    },
}
