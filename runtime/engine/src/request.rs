//! Questions to the coordinator that have not been answered.

use crate::entry::Entry;
use crate::ticket::Ticket;
use crate::watch::WatchQueue;
use bytes::Bytes;
use kiln_protocol::message::{Failure, Fate};
use kiln_protocol::schema::TypeBinding;
use kiln_protocol::{ObjectId, RequestId, RootId, ToCoordinator};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a question was not answered as asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The coordinator says so.
    #[error("{0}")]
    Refused(Failure),
    /// The object does not fit into the heap, even after everything unused was evicted.
    #[error("the heap has no room for {needed_bytes} more bytes")]
    ArenaFull {
        /// How much room the object needs.
        needed_bytes: usize,
    },
    /// The record cannot be kept by this version of the program.
    #[error("the record of the object cannot be read: {0}")]
    BadRecord(String),
    /// The connection was lost before the answer, and to ask again could do it twice.
    #[error("the connection was lost before the answer: whether it was done is unknown")]
    Unknown,
    /// The node is no longer attached.
    #[error("the connection to the coordinator is closed")]
    Disconnected,
}

/// What a waiter for an answer gets.
pub type Answer<T> = Result<T, RequestError>;

/// An object that was asked for.
#[derive(Clone, Debug)]
pub struct Found {
    /// The object, resident now.
    pub entry: Arc<Entry>,
    /// It was created by this request.
    pub created: bool,
}

/// A page of keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeysPage {
    /// The keys, in canonical form, ascending.
    pub keys: Vec<Bytes>,
    /// There are more.
    pub more: bool,
}

/// One question, and who waits for its answer.
#[derive(Debug)]
pub(crate) enum Pending {
    OpenRoot(Arc<Ticket<Answer<(RootId, TypeBinding)>>>),
    /// A fetch or an insert by key. The question is kept: it is asked again when an eviction crossed its answer.
    Fetch {
        root: RootId,
        key: Bytes,
        question: ToCoordinator,
        ticket: Arc<Ticket<Answer<Option<Found>>>>,
    },
    Refetch {
        entry: Arc<Entry>,
        ticket: Option<Arc<Ticket<Answer<()>>>>,
    },
    Peek(Arc<Ticket<Answer<Option<ObjectId>>>>),
    Done(Arc<Ticket<Answer<bool>>>),
    /// A watch goes on with another connection.
    WatchAgain(Arc<WatchQueue>),
    Keys(Arc<Ticket<Answer<KeysPage>>>),
    Fate(Arc<Ticket<Answer<Fate>>>),
}

impl Pending {
    /// Nobody waits any more.
    fn is_given_up(&self) -> bool {
        match self {
            Self::OpenRoot(ticket) => ticket.is_closed(),
            Self::Fetch { ticket, .. } => ticket.is_closed(),
            Self::Refetch { ticket, .. } => ticket.as_ref().is_some_and(|ticket| ticket.is_closed()),
            Self::Peek(ticket) => ticket.is_closed(),
            Self::Done(ticket) => ticket.is_closed(),
            Self::WatchAgain(queue) => queue.is_closed(),
            Self::Keys(ticket) => ticket.is_closed(),
            Self::Fate(ticket) => ticket.is_closed(),
        }
    }
}

/// A question, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) question: ToCoordinator,
    pub(crate) pending: Pending,
    /// It went out on a connection, which may have been lost since.
    pub(crate) sent: bool,
}

impl Asked {
    /// Whether it is to be asked once more, although it was perhaps carried out.
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever only looks may be asked again")]
    pub(crate) fn is_to_be_asked_again(&self) -> bool {
        if self.pending.is_given_up() {
            return false;
        }
        match self.question {
            ToCoordinator::Insert { .. } | ToCoordinator::Remove { .. } | ToCoordinator::Rename { .. } => !self.sent,
            _ => true,
        }
    }
}

impl Pending {
    pub(crate) fn fail(self, error: RequestError) {
        // A closed ticket belongs to a dropped future: nobody wants the error.
        match self {
            Self::OpenRoot(ticket) => drop(ticket.complete(Err(error))),
            Self::Fetch { ticket, .. } => drop(ticket.complete(Err(error))),
            Self::Refetch { ticket: Some(ticket), .. } => drop(ticket.complete(Err(error))),
            Self::Refetch { ticket: None, .. } => {}
            Self::Peek(ticket) => drop(ticket.complete(Err(error))),
            Self::Done(ticket) => drop(ticket.complete(Err(error))),
            Self::WatchAgain(queue) => queue.end(),
            Self::Keys(ticket) => drop(ticket.complete(Err(error))),
            Self::Fate(ticket) => drop(ticket.complete(Err(error))),
        }
    }
}

/// All that is unanswered.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    pub(crate) requests: BTreeMap<RequestId, Asked>,
    /// Objects that were given up while fetches were unanswered, and the first request sent after that. A record that
    /// answers an older request comes without interest by the time it arrives, and is fetched again.
    pub(crate) forgotten: BTreeMap<ObjectId, RequestId>,
    pub(crate) closed: bool,
}

impl Unanswered {
    pub(crate) fn take(&mut self, request: RequestId) -> Option<Pending> {
        let pending = self.requests.remove(&request);
        let oldest = self.requests.first_key_value().map(|(request, _)| *request);
        self.forgotten.retain(|_, before| oldest.is_some_and(|oldest| oldest < *before));
        pending.map(|asked| asked.pending)
    }

    /// Whether the answer to `request` lost its interest to an eviction of `object`.
    pub(crate) fn crossed(&self, request: RequestId, object: ObjectId) -> bool {
        self.forgotten.get(&object).is_some_and(|before| request < *before)
    }
}
