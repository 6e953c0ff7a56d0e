//! What a program holds: runtimes, roots, handles, guards, watches.

mod builder;
mod cluster;
mod commit;
mod conflict;
mod counter;
mod error;
mod guard;
mod keys;
mod listen;
mod local_copy;
mod lock;
mod named;
mod room;
mod root;
mod runtime;
mod settings;
mod shared;
mod together;
mod transaction;
mod watch;

pub use builder::{Away, Builder};
pub use cluster::{ClusterEvent, ClusterEvents};
pub use commit::{Commit, Level};
pub use conflict::{Conflict, ConflictKind, FieldConflict, ObjectName};
pub use counter::Counter;
pub use error::{
    AccessError, AttachError, CommitError, DetachError, LockError, RootError, TransactionError, TryUpdateError,
    UpdateError,
};
pub use guard::{ReadGuard, WriteGuard};
pub use keys::Keys;
pub use listen::{Listener, Notice, Told};
pub use local_copy::Distribution;
pub use lock::{Lock, LockedGuard};
pub use named::{NamedGuard, NamedLock};
pub use root::Root;
pub use runtime::{NodeInfo, Runtime, Stats};
pub use settings::RootSettings;
pub use shared::Shared;
pub use together::{CommitTogether, ViewTogether};
pub use transaction::{Transaction, TransactionGuard};
pub use watch::{ChangedSlot, Event, EventKind, Watch};

/// What the driver needs of this module.
pub(crate) mod internals {
    pub(crate) use super::builder::Options;
    pub(crate) use super::cluster::ClusterEvent;
    pub(crate) use super::runtime::Attached;
}
