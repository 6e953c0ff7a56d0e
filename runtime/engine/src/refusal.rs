//! Why a commit is not made here.

use crate::entry::Entry;
use kiln_heap::ApplyError;
use kiln_protocol::{GroupId, ObjectId, Version};

/// Why a commit was not made. Nothing of it happened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitError {
    /// The outbox is full: wait for space.
    #[error("the outbox is full of commits that the coordinator has not acknowledged")]
    OutboxFull,
    /// The node is no longer attached.
    #[error("the connection to the coordinator is closed")]
    Disconnected,
    /// The node's lease has lapsed since the locks were taken: others may have them.
    #[error("the node's lease has lapsed, and its locks with it")]
    Fenced,
    /// The object was removed.
    #[error("object {object} was removed from the cluster")]
    Destroyed {
        /// The object.
        object: ObjectId,
    },
    /// What was seen under the lock was a commit of this node, and that has been refused meanwhile.
    #[error("group {group} of object {object} is at version {current} again, and not at {seen} any more")]
    Undone {
        /// The object.
        object: ObjectId,
        /// The group.
        group: GroupId,
        /// The version that is shown.
        current: Version,
        /// The one that was seen.
        seen: Version,
    },
    /// The heap has no room, even after everything unused was evicted.
    #[error("the heap has no room for {needed_bytes} more bytes")]
    ArenaFull {
        /// How much room is needed.
        needed_bytes: usize,
    },
    /// The commit is larger than allowed.
    #[error("the commit has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A slot does not take its write: a defect of the typed layer.
    #[error("field `{field}` of object {object} cannot be written: {cause}")]
    BadWrite {
        /// The object.
        object: ObjectId,
        /// The field.
        field: &'static str,
        /// Why.
        cause: String,
    },
}

/// Why a write of the object failed, as a commit has it.
pub fn apply_error(entry: &Entry, error: &ApplyError) -> CommitError {
    match error {
        ApplyError::Full { needed_bytes } => CommitError::ArenaFull { needed_bytes: *needed_bytes },
        ApplyError::Corrupt { slot, .. } | ApplyError::Missing { slot } | ApplyError::BadSlot { slot } => {
            let field = entry.binding.slot_name(*slot);
            CommitError::BadWrite { object: entry.id(), field, cause: error.to_string() }
        }
        ApplyError::BadGroup { .. } => {
            CommitError::BadWrite { object: entry.id(), field: "(a lock group)", cause: error.to_string() }
        }
    }
}
