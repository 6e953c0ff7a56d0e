//! One attached node: what it does with each message, and what its tasks ask of it.
//!
//! Tasks of the program and the driver share it; it waits for nobody. Time, sockets and threads belong to the driver.

use crate::binding::{BindError, Binding, describe};
use crate::cache::{Cache, RootCache};
use crate::entry::{Entry, State};
use crate::journal::Journal;
use crate::link::LinkState;
use crate::listen::Listeners;
use crate::lock::{LockFailure, RequestIds};
use crate::outbox::Outbox;
use crate::request::{Answer, Asked, Found, KeysPage, Pending, RequestError, Unanswered};
use crate::ticket::Ticket;
use crate::uses::Uses;
use crate::watch::WatchQueue;
use bytes::Bytes;
use kiln_heap::Heap;
use kiln_object::Clustered;
use kiln_protocol::message::{Failure, Fate, RootOptions, WatchTarget};
use kiln_protocol::schema::TypeBinding;
use kiln_protocol::{CommitSeq, Epoch, Incarnation, ObjectId, RequestId, RootId, ToCoordinator, WatchId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// What a node is attached as.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The epoch of the first connection.
    pub epoch: Epoch,
    /// The coordinator keeps a log: commits can be durable, and are kept until they are.
    pub durable: bool,
    /// How many bytes of commits that are not safe are kept.
    pub outbox_bytes_max: usize,
}

/// Why the node is no longer attached.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Ended {
    /// The node left.
    #[error("the node has left the cluster: attach a new runtime to go on")]
    Detached,
    /// The coordinator said that it stops.
    #[error("the coordinator has stopped: attach a new runtime once it runs again")]
    CoordinatorStopped,
    /// The coordinator came back without its state: what the node had does not exist any more.
    #[error(
        "the coordinator has lost its state, and with it every object: attach a new runtime, and open its roots anew"
    )]
    Reset,
    /// The connection was lost, or the coordinator closed it, for this reason.
    #[error("the connection to the coordinator has ended for good ({0}): attach a new runtime to go on")]
    Lost(String),
}

/// Figures of a node, all since it attached.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) faults: AtomicU64,
    pub(crate) recalls: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) stale: AtomicU64,
}

impl Counters {
    pub(crate) fn count(counter: &AtomicU64) {
        // Relaxed: figures for people.
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A reading of [`Counters`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Objects fetched because they were not resident.
    pub faults: u64,
    /// Grants that the coordinator wanted back.
    pub recalls: u64,
    /// Lock requests that had to wait.
    pub waits: u64,
    /// Objects evicted.
    pub evictions: u64,
    /// Commits that the coordinator refused.
    pub refused: u64,
    /// Deltas that found no room and made their object stale.
    pub stale: u64,
}

/// Why the node ended, and who waits for that.
type EndedState = (Option<Ended>, Vec<Arc<Ticket<Ended>>>);

/// See the module.
#[derive(Debug)]
pub struct Node {
    /// What it is attached as.
    pub settings: Settings,
    /// Where its objects live.
    pub heap: Heap,
    /// Its way to the coordinator.
    pub outbox: Outbox,
    /// The resident objects.
    pub cache: Cache,
    /// Where its request ids come from.
    pub requests: RequestIds,
    /// Held to write while a commit over several objects is published; to read by who wants to see all or nothing.
    pub(crate) gate: RwLock<()>,
    pub(crate) counters: Counters,
    /// Its connection and its lease.
    pub link: LinkState,
    pub(crate) uses: Arc<Uses>,
    pub(crate) journal: Mutex<Journal>,
    /// Held while the lease lapses, and while the node becomes another incarnation.
    pub(crate) turning: Mutex<()>,
    unanswered: Mutex<Unanswered>,
    pub(crate) listeners: Mutex<Listeners>,
    pub(crate) watches: Mutex<(WatchId, BTreeMap<WatchId, Arc<WatchQueue>>)>,
    ended: Mutex<EndedState>,
    /// Commits that were refused although nobody waited for their answer: for the application, oldest first.
    refusals: Mutex<Vec<(Vec<ObjectId>, Failure)>>,
}

const REFUSALS_MAX: usize = 1024;

impl Node {
    /// A node that has just been welcomed.
    #[must_use]
    pub fn new(settings: Settings, heap: Heap) -> Self {
        Self {
            outbox: Outbox::new(settings.epoch, settings.outbox_bytes_max, settings.durable),
            link: LinkState::new(settings.epoch),
            settings,
            heap,
            cache: Cache::default(),
            requests: RequestIds::default(),
            gate: RwLock::default(),
            counters: Counters::default(),
            uses: Arc::default(),
            journal: Mutex::default(),
            turning: Mutex::default(),
            unanswered: Mutex::default(),
            listeners: Mutex::default(),
            watches: Mutex::default(),
            ended: Mutex::default(),
            refusals: Mutex::default(),
        }
    }

    pub(crate) fn unanswered(&self) -> MutexGuard<'_, Unanswered> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a question; its answer completes `pending`'s ticket.
    pub(crate) fn ask(&self, make: impl FnOnce(RequestId) -> (ToCoordinator, Pending)) -> RequestId {
        let mut unanswered = self.unanswered();
        let request = self.requests.take();
        let (question, pending) = make(request);
        if unanswered.closed {
            drop(unanswered);
            pending.fail(RequestError::Disconnected);
            return request;
        }
        // Sent under the lock: ids go up in the order of the stream.
        self.outbox.send(&question);
        let sent = self.outbox.is_up();
        unanswered.requests.insert(request, Asked { question, pending, sent });
        request
    }

    /// Opens a root.
    pub fn open_root<T: Clustered>(
        &self,
        name: &str,
        key: String,
        options: RootOptions,
    ) -> Arc<Ticket<Answer<(RootId, TypeBinding)>>> {
        let ticket = Ticket::new();
        self.ask(|request| {
            let question = ToCoordinator::OpenRoot {
                request,
                name: name.to_owned(),
                key,
                type_description: describe::<T>(),
                options,
            };
            (question, Pending::OpenRoot(Arc::clone(&ticket)))
        });
        ticket
    }

    /// Fetches an object by key; creates it from these encoded writes when absent.
    pub fn fetch(&self, root: RootId, key: Bytes, create: Option<Bytes>) -> Arc<Ticket<Answer<Option<Found>>>> {
        let ticket = Ticket::new();
        Counters::count(&self.counters.faults);
        self.ask(|request| {
            let question = ToCoordinator::Fetch { request, root, key: key.clone(), create };
            let pending = Pending::Fetch { root, key, question: question.clone(), ticket: Arc::clone(&ticket) };
            (question, pending)
        });
        ticket
    }

    /// Asks which object is under a key, without making it resident.
    pub fn peek(&self, root: RootId, key: Bytes) -> Arc<Ticket<Answer<Option<ObjectId>>>> {
        let ticket = Ticket::new();
        self.ask(|request| (ToCoordinator::Peek { request, root, key }, Pending::Peek(Arc::clone(&ticket))));
        ticket
    }

    /// Puts a new object under a key.
    pub fn insert(&self, root: RootId, key: Bytes, writes: Bytes) -> (RequestId, Arc<Ticket<Answer<Option<Found>>>>) {
        let ticket = Ticket::new();
        let request = self.ask(|request| {
            let question = ToCoordinator::Insert { request, root, key: key.clone(), writes };
            // Asked again it must not insert again: an answer that an eviction crossed is fetched.
            let again = ToCoordinator::Fetch { request, root, key: key.clone(), create: None };
            (question, Pending::Fetch { root, key, question: again, ticket: Arc::clone(&ticket) })
        });
        (request, ticket)
    }

    /// Fetches a stale object anew.
    pub fn refetch(&self, entry: &Arc<Entry>) -> Arc<Ticket<Answer<()>>> {
        let ticket = Ticket::new();
        self.ask(|request| {
            let pending = Pending::Refetch { entry: Arc::clone(entry), ticket: Some(Arc::clone(&ticket)) };
            (ToCoordinator::Refetch { request, object: entry.id() }, pending)
        });
        ticket
    }

    /// Asks a question with a yes or no for an answer.
    pub fn ask_yes_no(&self, make: impl FnOnce(RequestId) -> ToCoordinator) -> (RequestId, Arc<Ticket<Answer<bool>>>) {
        let ticket = Ticket::new();
        let request = self.ask(|request| (make(request), Pending::Done(Arc::clone(&ticket))));
        (request, ticket)
    }

    /// Asks what became of a commit.
    pub fn fate(&self, incarnation: Incarnation, seq: CommitSeq) -> Arc<Ticket<Answer<Fate>>> {
        let ticket = Ticket::new();
        self.ask(|request| (ToCoordinator::Fate { request, incarnation, seq }, Pending::Fate(Arc::clone(&ticket))));
        ticket
    }

    /// Nobody waits any more for the answer of an insert, remove or rename: whether it was done is unknown, unless it
    /// still waits for locks; then it is not.
    pub fn give_up(&self, request: RequestId) {
        // The answer is still to come: what it may bring must not be missed.
        if self.unanswered().requests.contains_key(&request) {
            self.outbox.send(&ToCoordinator::GiveUp { request });
        }
    }

    /// Asks for a page of keys.
    pub fn keys(&self, root: RootId, after: Option<Bytes>, limit: u32) -> Arc<Ticket<Answer<KeysPage>>> {
        let ticket = Ticket::new();
        self.ask(|request| (ToCoordinator::Keys { request, root, after, limit }, Pending::Keys(Arc::clone(&ticket))));
        ticket
    }

    /// Starts a watch. Its events may come before the answer.
    pub fn watch(&self, target: WatchTarget) -> (WatchId, Arc<WatchQueue>, Arc<Ticket<Answer<bool>>>) {
        let queue = Arc::new(WatchQueue::new(target.clone()));
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = watches.0.next();
        watches.0 = watch;
        watches.1.insert(watch, Arc::clone(&queue));
        drop(watches);
        let (_, ticket) =
            self.ask_yes_no(|request| ToCoordinator::Watch { request, watch, target, with_writes: false });
        (watch, queue, ticket)
    }

    pub(crate) fn watch_queue(&self, watch: WatchId) -> Option<Arc<WatchQueue>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).1.get(&watch).cloned()
    }

    /// Ends a watch.
    pub fn unwatch(&self, watch: WatchId) {
        let removed = self.watches.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&watch);
        if let Some(queue) = removed {
            queue.close();
            self.outbox.send(&ToCoordinator::Unwatch { watch });
        }
    }

    /// Evicts one unused object. `false`: all are in use.
    pub fn evict_one(&self) -> bool {
        self.evict().is_some()
    }

    /// Tells the coordinator that this node does not hold an object. Under the lock of the unanswered: a fetch is sent
    /// either before this, and then known to cross it, or after.
    pub(crate) fn forget(&self, mut unanswered: MutexGuard<'_, Unanswered>, object: ObjectId) {
        if !unanswered.requests.is_empty() {
            unanswered.forgotten.insert(object, self.requests.take());
        }
        self.outbox.send(&ToCoordinator::Forget { object });
    }

    /// Evicts one unused object; says how many bytes of the heap it took.
    pub(crate) fn evict(&self) -> Option<usize> {
        let unanswered = self.unanswered();
        let entry = self.cache.evict()?;
        self.forget(unanswered, entry.id());
        Counters::count(&self.counters.evictions);
        Some(entry.object.bytes())
    }

    /// Opens a root that the coordinator answered for, when asked with these options.
    ///
    /// # Errors
    /// When the answer does not fit the type.
    pub fn add_root<T: Clustered>(
        &self,
        name: &str,
        root: RootId,
        answer: &TypeBinding,
        options: &RootOptions,
    ) -> Result<Arc<RootCache>, BindError> {
        if let Some(known) = self.cache.root(root) {
            return Ok(known);
        }
        let binding = Arc::new(Binding::new::<T>(answer)?);
        let uses = options.has_timeouts().then(|| Arc::clone(&self.uses));
        Ok(self.cache.add_root(RootCache::new(root, name.to_owned(), binding, uses)))
    }

    /// The node is no longer attached. Every waiter is told.
    pub fn end(&self, why: Ended) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.0.is_some() {
            return;
        }
        ended.0 = Some(why.clone());
        let waiting = std::mem::take(&mut ended.1);
        drop(ended);
        self.outbox.close();
        self.close_journal();
        let mut unanswered = self.unanswered();
        unanswered.closed = true;
        let requests = std::mem::take(&mut unanswered.requests);
        drop(unanswered);
        for asked in requests.into_values() {
            asked.pending.fail(RequestError::Disconnected);
        }
        for entry in self.cache.all() {
            entry.lose_locks(&LockFailure::Disconnected);
            entry.set_state(State::Stale);
        }
        let watches = std::mem::take(&mut self.watches.lock().unwrap_or_else(PoisonError::into_inner).1);
        for queue in watches.into_values() {
            queue.close();
        }
        self.end_listeners();
        for ticket in waiting {
            drop(ticket.complete(why.clone()));
        }
        self.link.wake_waiting();
    }

    /// Why the node is no longer attached; `None` while it is.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Completes when the node is no longer attached.
    pub fn wait_ended(&self) -> Arc<Ticket<Ended>> {
        let ticket = Ticket::new();
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        match &ended.0 {
            Some(why) => drop(ticket.complete(why.clone())),
            None => ended.1.push(Arc::clone(&ticket)),
        }
        ticket
    }

    pub(crate) fn note_refusal(&self, objects: Vec<ObjectId>, failure: Failure) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() < REFUSALS_MAX {
            refusals.push((objects, failure));
        }
    }

    /// Commits that were refused although nobody waited for their answer; each is told once.
    pub fn take_refusals(&self) -> Vec<(Vec<ObjectId>, Failure)> {
        std::mem::take(&mut *self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Figures since the node attached.
    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            faults: read(&self.counters.faults),
            recalls: read(&self.counters.recalls),
            waits: read(&self.counters.waits),
            evictions: read(&self.counters.evictions),
            refused: read(&self.counters.refused),
            stale: read(&self.counters.stale),
        }
    }

    /// Counts a lock request that has to wait.
    pub fn count_wait(&self) {
        Counters::count(&self.counters.waits);
    }
}
