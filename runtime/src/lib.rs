//! Live Rust objects shared between the processes of a cluster.
//!
//! Put a derive on a type, run a coordinator, attach a runtime, and every process sees the same object. Reads are plain
//! memory reads of the last version held; writes take a cluster-wide lock; only the fields that changed travel.

// The derive names this crate `::kiln`, also in here.
extern crate self as kiln;

mod api;
mod clock;
mod driver;
#[cfg(feature = "embedded")]
mod embedded;

pub use api::{
    AccessError, AttachError, Away, Builder, ChangedSlot, ClusterEvent, ClusterEvents, Commit, CommitError,
    CommitTogether, Conflict, ConflictKind, Counter, DetachError, Distribution, Event, EventKind, FieldConflict, Keys,
    Level, Listener, Lock, LockError, LockedGuard, NamedGuard, NamedLock, NodeInfo, Notice, ObjectName, ReadGuard,
    Root, RootError, RootSettings, Runtime, Shared, Stats, Told, Transaction, TransactionError, TransactionGuard,
    TryUpdateError, UpdateError, ViewTogether, Watch, WriteGuard,
};
pub use kiln_engine::{ConflictCause, Corrupt, Ended, LocalValue, OnReturn, Returned, State};
pub use kiln_object::*;
pub use kiln_protocol::message::{Failure, Fate, SlotChange, WaitEdge};
pub use kiln_protocol::profile::{Profile, ProfileError};
pub use kiln_protocol::{CommitSeq, Epoch, EventId, Incarnation, ObjectId, Version};
pub use rkyv;
