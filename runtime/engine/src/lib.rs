//! The engine of a Kiln runtime: the near cache, this node's side of every lock, the outbox, and unanswered requests.
//!
//! Tasks of the program and the driver share one [`Node`]. It decides and remembers; bytes to send wait in its
//! [`Outbox`], and who must wait gets a [`Ticket`]. There is no I/O in here, no clock, no thread, no timer and no
//! randomness: a simulator drives it as the real driver does.

// The derives' output names `::kiln`.
#[cfg(test)]
extern crate kiln_object as kiln;

mod alone;
mod apply;
mod binding;
mod cache;
mod comeback;
mod entry;
mod grant;
mod handle;
mod journal;
mod link;
mod listen;
mod lock;
mod node;
mod outbox;
mod own;
mod pace;
mod refusal;
mod request;
mod sync;
mod ticket;
mod uses;
mod watch;

pub use alone::AloneError;
pub use apply::{Changed, WantsRoom};
pub use binding::{BindError, Binding, GroupIndex, describe};
pub use cache::{Cache, RootCache};
pub use comeback::{Comeback, Replayed, Step};
pub use entry::{Corrupt, Entry, Seen, State};
pub use grant::GrantCell;
pub use handle::Violation;
pub use journal::{
    ConflictCause, ConflictWrite, LocalConflict, LocalDeed, LocalId, LocalValue, OnReturn, Removal, Returned,
};
pub use link::{Lapse, LinkState, Member, UnknownCommit};
pub use listen::{Handed, ListenerQueue};
pub use lock::{Admission, Claim, GroupLock, LockContext, LockFailure, RECALL_BATCH_MAX, RequestIds};
pub use node::{Ended, Figures, Node, Settings};
pub use outbox::{CommitFailure, OutPart, Outbox, Outcome, Output, QueueError, Waiter};
pub use pace::{Adoption, LeaseKeeper, LeaseTurn, Retry, Welcome, trusted};
pub use refusal::{CommitError, apply_error};
pub use request::{Answer, Found, KeysPage, RequestError};
pub use ticket::{Ticket, Wait};
pub use watch::{WATCH_EVENTS_MAX, WatchEvent, WatchQueue};
