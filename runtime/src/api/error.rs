//! What can go wrong, by operation.

use super::commit::Commit;
use kiln_engine::{BindError, CommitFailure, Ended, LockFailure};
use kiln_object::ValueError;
use kiln_protocol::message::{Failure, WaitEdge};
use std::path::PathBuf;
use std::time::Duration;

const DISCONNECTED: &str = "there is no connection to the coordinator";
const DESTROYED: &str = "the object was removed from the cluster";

fn no_room(needed_bytes: usize, oldest_pin_ms: u64) -> String {
    format!(
        "the heap has no room for {needed_bytes} more bytes (the oldest reader has been pinned for {oldest_pin_ms} ms): \
         drop handles or views, or attach with a larger `heap_bytes`"
    )
}

fn journal_full(needed_bytes: usize, limit: usize) -> String {
    format!(
        "the journal of what is done here while the cluster is away would have {needed_bytes} bytes, the limit is {limit}: \
         attach with larger `journal_bytes`, and take the conflicts of the last return"
    )
}

fn late(commits: u64, bytes: usize, waited: Duration) -> String {
    if commits == 0 {
        return format!(
            "the coordinator did not answer the goodbye within {waited:?}: no commit was open, and what this node still \
             holds ends with its lease"
        );
    }
    let (counted, were, whose) = counted(commits);
    format!("{counted} ({bytes} bytes) {were} not acknowledged within {waited:?}: {whose} fate is unknown")
}

fn lost(commits: u64) -> String {
    let (counted, _, whose) = counted(commits);
    format!("the connection was lost with {counted} not acknowledged: {whose} fate is unknown")
}

fn counted(commits: u64) -> (String, &'static str, &'static str) {
    if commits == 1 { ("1 commit".to_owned(), "was", "its") } else { (format!("{commits} commits"), "were", "their") }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Why a runtime could not attach.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The profile cannot be read.
    #[error("cannot read the profile `{path}`: {error}; the coordinator writes one at its first start (`kiln serve`)")]
    ProfileFile {
        /// The profile.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The profile does not say what it must.
    #[error("the profile{}: {error}", .path.as_ref().map(|path| format!(" `{}`", path.display())).unwrap_or_default())]
    Profile {
        /// The profile, when it is a file.
        path: Option<PathBuf>,
        /// What is wrong.
        error: kiln_protocol::profile::ProfileError,
    },
    /// The credentials of the profile are of no use.
    #[error("the profile's credentials cannot be used: {what}; let the coordinator write the profile again")]
    Credentials {
        /// What is wrong.
        what: String,
    },
    /// The coordinator's address cannot be resolved.
    #[error("cannot resolve the coordinator's address `{address}`: {error}")]
    Resolve {
        /// The address.
        address: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The coordinator does not answer, or not as one.
    #[error(
        "cannot connect to the coordinator at `{address}`: {what}; is `kiln serve` running there, and is UDP let through?"
    )]
    Connect {
        /// The address.
        address: String,
        /// What happened.
        what: String,
    },
    /// The coordinator turned the node away.
    #[error("the coordinator at `{address}` refused the node: {failure}")]
    Refused {
        /// The address.
        address: String,
        /// Why.
        failure: Box<Failure>,
    },
    /// Commits are to be durable, but the coordinator keeps its state in memory.
    #[error(
        "the coordinator at `{address}` keeps its state in memory, where no commit can be `Level::Durable`: start it with \
         a data directory, or attach with another level"
    )]
    NotDurable {
        /// The address.
        address: String,
    },
    /// The heap cannot be made.
    #[error("cannot reserve a heap of {bytes} bytes: {error}")]
    Heap {
        /// Its size.
        bytes: usize,
        /// What the system says.
        error: std::io::Error,
    },
    /// The embedded coordinator did not start.
    #[error("the embedded coordinator did not start: {what}")]
    Embedded {
        /// Why.
        what: String,
    },
}

/// Why an object could not be had, made, moved or removed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No answer within the deadline. Something that was asked to change may have changed.
    #[error(
        "no answer within {waited:?}; whether anything was changed is unknown. Somebody may hold the object's locks: \
         `kiln locks` shows who"
    )]
    Timeout {
        /// How long it waited.
        waited: Duration,
    },
    /// The connection was lost before the answer. Something that was asked to change may have changed.
    #[error("the connection was lost before the answer; whether anything was changed is unknown")]
    Unknown,
    /// The node is not connected, and does not wait (see [`Away`](crate::Away)).
    #[error("{DISCONNECTED}")]
    Disconnected,
    /// The node is no longer attached ([`Runtime::closed`](crate::Runtime::closed)).
    #[error("{0}")]
    Ended(Ended),
    /// The coordinator refused.
    #[error("{0}")]
    Refused(Failure),
    /// The heap is full of objects in use.
    #[error("{}", no_room(*needed_bytes, *oldest_pin_ms))]
    ArenaFull {
        /// How much room is needed.
        needed_bytes: usize,
        /// For how long the oldest reader has kept old versions alive.
        oldest_pin_ms: u64,
    },
    /// The cluster is away, and the journal of what was done here meanwhile is full. Nothing was done.
    #[error("{}", journal_full(*needed_bytes, *limit))]
    JournalFull {
        /// How many bytes it would have.
        needed_bytes: usize,
        /// Its limit.
        limit: usize,
    },
    /// The cluster is away: this node has removed the object, and will have it removed from the cluster first of all when
    /// that is back. Until then other nodes may show it.
    #[error("the cluster is away: the object is removed here, and everywhere only when the cluster is back")]
    RemovedHere,
    /// The object was made, and removed by somebody before there was room for it in the heap.
    #[error("the object was made in the cluster, and removed again before this node had room for it")]
    Removed,
    /// The record does not fit this program.
    #[error("the object's record cannot be read: {what}")]
    BadRecord {
        /// What is wrong.
        what: String,
    },
    /// The key is too long.
    #[error("the key has {bytes} bytes, the limit is {limit}")]
    KeyTooLong {
        /// Its length in canonical form.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The object is larger than allowed.
    #[error("the object has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A field of a new object cannot be archived.
    #[error(transparent)]
    Value(#[from] ValueError),
}

/// Why a root could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// See [`AccessError`].
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The coordinator's answer does not fit the type.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The root is open in this process with another type.
    #[error("root `{root}` is already open in this process as a root of `{open}`, not of `{wanted}`")]
    OtherType {
        /// The root.
        root: String,
        /// The type it is open with.
        open: &'static str,
        /// The type asked for.
        wanted: &'static str,
    },
}

/// Why a lock was not taken. Nothing is held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Not granted within the deadline.
    #[error("the lock was not granted within {waited:?}; `kiln locks` shows who holds it")]
    Timeout {
        /// How long it waited.
        waited: Duration,
    },
    /// Transactions wait for each other in a cycle, and this one has to give way; or a transaction takes a lock that it
    /// holds already. Roll back, and try again from the start.
    #[error("deadlock: {}", .cycle.iter().map(WaitEdge::to_string).collect::<Vec<_>>().join(", which is held or wanted first by: "))]
    Deadlock {
        /// The waits of the cycle, from this one on: each one's owner holds what the one before waits for, or waits for
        /// it in front of that one.
        cycle: Vec<WaitEdge>,
    },
    /// A named lock could not be looked up.
    #[error("the lock `{name}` cannot be looked up: {error}")]
    Name {
        /// The lock.
        name: String,
        /// Why.
        error: Box<RootError>,
    },
    /// The object was removed.
    #[error("{DESTROYED}")]
    Destroyed,
    /// The node is not connected, and does not wait (see [`Away`](crate::Away)), or it is no longer attached.
    #[error("{DISCONNECTED}")]
    Disconnected,
    /// The node's lease lapsed: its locks may be others' by now.
    #[error("the node's lease has lapsed: its locks were lost; try again")]
    Fenced,
    /// The coordinator refused.
    #[error("{0}")]
    Refused(Failure),
    /// The type has no such lock group.
    #[error("type `{type_name}` has no lock group `{group}`; its groups are {}", listed(known))]
    UnknownGroup {
        /// The type.
        type_name: &'static str,
        /// The group asked for.
        group: String,
        /// The groups there are.
        known: Vec<&'static str>,
    },
    /// The lock was granted, but the stale copy could not be fetched anew.
    #[error("the object's copy is stale and could not be fetched: {0}")]
    Fetch(AccessError),
}

/// Why a commit failed. Except for `Timeout` and `Unknown`, nothing of it happened.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// No answer within the deadline: the commit is on its way, and may or may not be applied.
    #[error("no answer within {waited:?}: whether the commit was applied is unknown; `Runtime::fate` tells later")]
    Timeout {
        /// How long it waited.
        waited: Duration,
        /// The commit, to ask for its [fate](crate::Runtime::fate).
        commit: Commit,
    },
    /// The node's lease lapsed, or it ended, before the answer: the commit may or may not have been applied.
    #[error(
        "the node was cut off before the commit was answered: whether it was applied is unknown; `Runtime::fate` tells"
    )]
    Unknown {
        /// The commit, to ask for its [fate](crate::Runtime::fate).
        commit: Commit,
    },
    /// The node's lease lapsed since the locks were taken: others may have changed the object.
    #[error("the node's lease has lapsed since the locks were taken: nothing was changed; try again")]
    Fenced,
    /// What was seen under the lock was an earlier commit of this node, and the coordinator has refused that meanwhile. Nothing
    /// was changed.
    #[error(
        "an earlier commit of this node, which this one was made from, was refused meanwhile: nothing was changed; try again"
    )]
    Undone,
    /// The coordinator refused the commit, for example because its grant was lost.
    #[error("the coordinator refused the commit: {0}")]
    Refused(Failure),
    /// The commit was to be durable, but the coordinator keeps its state in memory.
    #[error(
        "the coordinator keeps its state in memory, where no commit can be `Level::Durable`: start it with a data \
         directory, or commit with another level"
    )]
    NotDurable,
    /// The outbox stayed full until the deadline.
    #[error("the outbox was full of unacknowledged commits for {waited:?}")]
    OutboxFull {
        /// How long it waited.
        waited: Duration,
    },
    /// The heap is full of objects in use.
    #[error("{}", no_room(*needed_bytes, *oldest_pin_ms))]
    ArenaFull {
        /// How much room is needed.
        needed_bytes: usize,
        /// For how long the oldest reader has kept old versions alive.
        oldest_pin_ms: u64,
    },
    /// The object was removed.
    #[error("{DESTROYED}")]
    Destroyed,
    /// The node is not connected, and does not wait (see [`Away`](crate::Away)), or it is no longer attached.
    #[error("{DISCONNECTED}")]
    Disconnected,
    /// The cluster is away: no level above `Applied` can be promised, and what stays in this process for a reason of its own
    /// ([`Shared::distribution`](crate::Shared::distribution)) is not changed. Nothing was changed.
    #[error(
        "the cluster is away: a commit of level `Durable` or `Everywhere`, or of an object whose changes stay in this process, \
         cannot be made"
    )]
    Away,
    /// The cluster is away, and the journal of what was changed here meanwhile is full. Nothing was changed.
    #[error("{}", journal_full(*needed_bytes, *limit))]
    JournalFull {
        /// How many bytes it would have.
        needed_bytes: usize,
        /// Its limit.
        limit: usize,
    },
    /// The commit is larger than allowed.
    #[error("the commit has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A field cannot be archived.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The object's changes stay in this process ([`Shared::distribution`](crate::Shared::distribution)), so a commit of
    /// several objects cannot have it: other nodes would see half. Nothing was changed.
    #[error(
        "the object's changes stay in this process, because a field cannot be archived: commit it alone, not together with others"
    )]
    KeptLocal,
    /// A field outside the locked group was changed.
    #[error(
        "field `{field}` belongs to lock group `{group}`, which this guard does not have locked: \
         take the lock of the whole object, or `write_group(\"{group}\")`"
    )]
    NotLocked {
        /// The field.
        field: &'static str,
        /// Its group; `default` for that of the fields without `lock`.
        group: &'static str,
    },
    /// A write that its slot does not take.
    #[error("field `{field}` cannot be written: {cause}")]
    BadWrite {
        /// The field.
        field: &'static str,
        /// Why.
        cause: String,
    },
}

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a fallible update failed.
#[derive(Debug, thiserror::Error)]
pub enum TryUpdateError<E> {
    /// The closure said no: everything it did was rolled back.
    #[error("rolled back: {0}")]
    RolledBack(E),
    /// The lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError<E> {
    /// The closure said no: everything it did was rolled back.
    #[error("rolled back: {0}")]
    RolledBack(E),
    /// The commit failed.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What was not done when the node left.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum DetachError {
    /// The deadline passed first.
    #[error("{}", late(*commits, *bytes, *waited))]
    Timeout {
        /// Unacknowledged commits.
        commits: u64,
        /// Their bytes.
        bytes: usize,
        /// How long it waited.
        waited: Duration,
    },
    /// The node left while the cluster was away, or before all that was done here meanwhile was done again: it is lost,
    /// and [`Runtime::take_conflicts`](crate::Runtime::take_conflicts) of another handle tells it.
    #[error("{changes} changes were made here while the cluster was away, and are not made in the cluster")]
    Journalled {
        /// Commits, made objects and removals in the journal.
        changes: usize,
    },
    /// The connection was gone already, or was lost on the way.
    #[error("{}", lost(*commits))]
    Lost {
        /// Unacknowledged commits that nobody was told of.
        commits: u64,
    },
}

impl From<LockFailure> for LockError {
    fn from(failure: LockFailure) -> Self {
        match failure {
            LockFailure::Refused(Failure::Destroyed { .. }) => Self::Destroyed,
            LockFailure::Refused(failure) => Self::Refused(failure),
            LockFailure::Fenced => Self::Fenced,
            LockFailure::Deadlock(cycle) => Self::Deadlock { cycle },
            LockFailure::Disconnected => Self::Disconnected,
        }
    }
}

impl AccessError {
    /// There was nobody to ask, or no answer.
    pub(super) const fn is_for_want_of_connection(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Disconnected | Self::Unknown)
    }
}

impl LockError {
    /// There was nobody to ask, or no answer.
    pub(super) const fn is_for_want_of_connection(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Disconnected | Self::Fenced)
    }
}

impl CommitError {
    pub(super) fn from_failure(failure: CommitFailure, commit: Commit) -> Self {
        match failure {
            CommitFailure::Refused(Failure::Destroyed { .. }) => Self::Destroyed,
            CommitFailure::Refused(failure) => Self::Refused(failure),
            CommitFailure::Unknown | CommitFailure::Kept => Self::Unknown { commit },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remained_is_counted() {
        let late = |commits| DetachError::Timeout { commits, bytes: 9, waited: Duration::from_secs(3) }.to_string();
        assert!(late(0).starts_with("the coordinator did not answer the goodbye within 3s: no commit was open"));
        assert_eq!(late(1), "1 commit (9 bytes) was not acknowledged within 3s: its fate is unknown");
        assert_eq!(late(2), "2 commits (9 bytes) were not acknowledged within 3s: their fate is unknown");
        let lost = DetachError::Lost { commits: 1 }.to_string();
        assert_eq!(lost, "the connection was lost with 1 commit not acknowledged: its fate is unknown");
    }
}
