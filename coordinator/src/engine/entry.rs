//! What the log keeps: each change of replicated state, as decided.
//!
//! Bodies are shared by reference count with the messages that carry them. No I/O: the driver hands entries to a log.

use bytes::Bytes;
use kiln_protocol::message::{Part, RootOptions};
use kiln_protocol::schema::RegisteredField;
use kiln_protocol::{CommitSeq, Incarnation, ObjectId, RootId, TypeId};
use smallvec::SmallVec;

kiln_protocol::id!(
    /// The place of an entry in the log, from 1.
    pub LogSeq(u64)
);

/// One change of replicated state. The same entries in the same order give the same state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// A node or observer was attached and got an incarnation.
    Attached {
        /// Its incarnation.
        incarnation: Incarnation,
        /// Its name.
        name: String,
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
        /// Its number.
        id: TypeId,
        /// Its name.
        name: String,
    },
    /// A type got fields that it did not have.
    FieldsAdded {
        /// The type.
        id: TypeId,
        /// The new fields, their numbers following on from those before.
        fields: Vec<RegisteredField>,
    },
    /// A root was created.
    RootAdded {
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
    /// A commit was refused, whole: kept so that a resend is counted and answered alike.
    Refused {
        /// Who committed.
        writer: Incarnation,
        /// The commit.
        seq: CommitSeq,
    },
    /// An object was destroyed.
    Removed {
        /// The object.
        object: ObjectId,
    },
    /// An object got another key.
    Renamed {
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
