//! The runtime of a process: its connection to the cluster and all that hangs on it.

use super::builder::{Away, Builder, Options};
use super::cluster::ClusterEvent;
use super::commit::Commit;
use super::conflict::Conflict;
use super::error::{AccessError, AttachError, DetachError, RootError};
use super::room::Room;
use crate::clock::boot_nanos;
use crate::driver::Connection;
use kiln_engine::{AloneError, Answer, Ended, Entry, Node, RequestError, State, Ticket, Wait};
use kiln_object::Clustered;
use kiln_protocol::message::Fate;
use kiln_protocol::{Incarnation, ObjectId, RootId, ToCoordinator};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

/// How often a lease that is over is looked at until the driver has noticed.
pub(super) const LAPSE_NOTICED: Duration = Duration::from_millis(1);

/// A node of the cluster: this process, attached. Cheap to clone. The connection lives as long as a runtime, a root, a
/// handle or a watch does.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub(super) attached: Arc<Attached>,
}

/// What handles share.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) node: Arc<Node>,
    pub(crate) options: Options,
    profile_path: Option<PathBuf>,
    connection: Connection,
    pub(super) events: broadcast::Sender<ClusterEvent>,
    oldest_pin_ms: Arc<AtomicU64>,
    types: Mutex<BTreeMap<RootId, (TypeId, &'static str)>>,
    #[cfg(feature = "embedded")]
    server: Mutex<Option<crate::embedded::Embedded>>,
}

/// Who this node is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// Where a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Whereabouts {
    /// Connected.
    Together,
    /// The cluster is away, and tasks may go on alone.
    Alone,
    /// Not connected.
    Nowhere,
}

/// Figures of this node since it attached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Commits made here.
    pub commits: u64,
    /// Their bytes above QUIC.
    pub commit_bytes: u64,
    /// Commits made here that the coordinator refused.
    pub commits_refused: u64,
    /// Commits that the coordinator has not acknowledged.
    pub unacknowledged: u64,
    /// Their bytes.
    pub outbox_bytes: usize,
    /// Local changes that wait for the cluster to be back ([`Away::LocalReadWrite`]).
    pub journalled: usize,
    /// Their bytes, and those of conflicts that nobody has taken.
    pub journal_bytes: usize,
    /// Objects fetched because they were not resident.
    pub faults: u64,
    /// Grants that the coordinator wanted back.
    pub recalls: u64,
    /// Lock requests that had to wait.
    pub waits: u64,
    /// Objects evicted.
    pub evictions: u64,
    /// Deltas that found no room and made their object stale.
    pub stale: u64,
    /// Objects resident.
    pub resident_objects: usize,
    /// Bytes of the heap in use.
    pub resident_bytes: usize,
    /// For how long the oldest reader has kept old versions alive, sampled once a second.
    pub oldest_pin_ms: u64,
}

impl Runtime {
    /// Attaches with the defaults to the coordinator of a client profile (`kiln.toml`). The driver's tasks run in the
    /// tokio runtime that this is called in.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(profile: impl AsRef<Path>) -> Result<Self, AttachError> {
        Self::builder().profile(profile).attach().await
    }

    /// Attaches with other settings.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Starts a coordinator in this process, for tests, development and first runs, and attaches to it. Other processes
    /// attach with the profile at [`profile_path`](Self::profile_path). The coordinator ends with the last handle.
    ///
    /// # Errors
    /// [`AttachError`].
    #[cfg(feature = "embedded")]
    pub async fn embedded() -> Result<Self, AttachError> {
        Self::builder().embedded().await
    }

    /// The file with the profile that this runtime attached with.
    #[must_use]
    pub fn profile_path(&self) -> Option<&Path> {
        self.attached.profile_path.as_deref()
    }

    /// Who this node is.
    #[must_use]
    pub fn node(&self) -> NodeInfo {
        let incarnation = self.attached.node.link.incarnation();
        NodeInfo { name: self.attached.options.node_name.clone(), incarnation }
    }

    /// Figures since it attached.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.attached.stats()
    }

    /// Commits of level `Queued`, and adds, that the coordinator refused since the last call: the objects and why.
    #[must_use]
    pub fn take_refusals(&self) -> Vec<(Vec<ObjectId>, kiln_protocol::Failure)> {
        self.attached.node.take_refusals()
    }

    /// Commits of which nobody was told that their fate became unknown when this node's lease lapsed: those of level
    /// `Queued`, adds, and those whose future was dropped. Each is told once; [`fate`](Self::fate) tells more.
    #[must_use]
    pub fn take_unknown(&self) -> Vec<Commit> {
        let unknown = self.attached.node.link.take_unknown();
        unknown
            .into_iter()
            .map(|of| Commit { incarnation: of.incarnation, seq: Some(of.seq), is_local: false })
            .collect()
    }

    /// What was done here while the cluster was away ([`Away::LocalReadWrite`]) and is not so in the cluster, and why. Each
    /// is told once; until it is taken it takes room in the journal.
    #[must_use]
    pub fn take_conflicts(&self) -> Vec<Conflict> {
        let node = &self.attached.node;
        node.take_conflicts().into_iter().map(|conflict| Conflict::new(node, conflict)).collect()
    }

    /// What became of a commit, of this node or another. A commit without changes counts as applied; that of
    /// a [local](Commit::is_local) one is unknown.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn fate(&self, commit: Commit) -> Result<Fate, AccessError> {
        match commit.seq {
            _ if commit.is_local => Ok(Fate::Unknown),
            None => Ok(Fate::Applied),
            Some(seq) => {
                self.attached.wait(self.attached.options.away, |node| node.fate(commit.incarnation, seq)).await
            }
        }
    }

    /// Waits until the node is no longer attached, and says why. A lost connection is no end: see
    /// [`events`](Self::events).
    pub async fn closed(&self) -> Ended {
        Wait::new(self.attached.node.wait_ended()).await
    }

    /// Leaves the cluster: sends what is in the outbox, waits for its acknowledgement, gives every grant back (without a
    /// connection they end with the lease). Handles keep showing what they have. The node is gone afterwards, whatever is returned.
    ///
    /// # Errors
    /// [`DetachError`] says what remained.
    pub async fn detach(self, deadline: Duration) -> Result<(), DetachError> {
        let attached = &self.attached;
        let node = &attached.node;
        // From here on commits are refused, so that none is under way when the node is gone.
        node.outbox.leave();
        let mut journalled = 0;
        let left = tokio::time::timeout(deadline, async {
            loop {
                let acknowledged = Wait::new(node.outbox.wait_for_space());
                if node.outbox.unacknowledged().0 == 0 || node.ended().is_some() {
                    break;
                }
                acknowledged.await;
            }
            journalled = node.unsent_changes();
            if !node.outbox.is_up() {
                // Nobody to say goodbye to: what is held ends with the lease.
                node.end(Ended::Detached);
            }
            node.outbox.send(&ToCoordinator::Bye);
            Wait::new(node.wait_ended()).await
        })
        .await;
        let (commits, bytes) = node.outbox.unacknowledged();
        let unknown = node.link.take_unknown().len() as u64;
        node.end(Ended::Detached);
        attached.connection.close();
        attached.connection.closed().await;
        #[cfg(feature = "embedded")]
        attached.stop_server(deadline).await;
        match left {
            Ok(_) if journalled > 0 => Err(DetachError::Journalled { changes: journalled }),
            Ok(_) if commits + unknown == 0 => Ok(()),
            Ok(_) => Err(DetachError::Lost { commits: commits + unknown }),
            Err(_elapsed) => Err(DetachError::Timeout { commits, bytes, waited: deadline }),
        }
    }
}

impl Attached {
    pub(crate) fn new(
        node: Arc<Node>,
        options: Options,
        profile_path: Option<PathBuf>,
        connection: Connection,
        events: broadcast::Sender<ClusterEvent>,
        oldest_pin_ms: Arc<AtomicU64>,
    ) -> Self {
        Self {
            node,
            options,
            profile_path,
            connection,
            events,
            oldest_pin_ms,
            types: Mutex::default(),
            #[cfg(feature = "embedded")]
            server: Mutex::default(),
        }
    }

    /// Starts a request and waits for its answer, up to the runtime's deadline.
    pub(super) async fn wait<T>(
        &self,
        away: Away,
        start: impl FnOnce(&Node) -> Arc<Ticket<Answer<T>>>,
    ) -> Result<T, AccessError> {
        self.within_deadline(away, async { Wait::new(start(&self.node)).await }).await
    }

    /// As [`wait`](Self::wait), for a request that makes an object resident: asks again with `again` when there was no
    /// room for it, as long as there may be some.
    pub(super) async fn wait_resident<T>(
        &self,
        away: Away,
        start: impl FnOnce(&Node) -> Arc<Ticket<Answer<T>>>,
        again: impl Fn(&Node) -> Arc<Ticket<Answer<T>>>,
    ) -> Result<T, AccessError> {
        let attempts = async {
            let mut room = Room::new(self);
            let mut answer = Wait::new(start(&self.node)).await;
            while matches!(answer, Err(RequestError::ArenaFull { .. })) && room.wait().await {
                answer = Wait::new(again(&self.node)).await;
            }
            answer
        };
        self.within_deadline(away, attempts).await
    }

    pub(super) async fn within_deadline<T>(
        &self,
        away: Away,
        answer: impl Future<Output = Answer<T>>,
    ) -> Result<T, AccessError> {
        let waited = self.options.timeout;
        let answer =
            async { if self.is_online(away, waited).await { answer.await } else { Err(RequestError::Disconnected) } };
        match tokio::time::timeout(waited, answer).await {
            Ok(answer) => answer.map_err(|error| self.access_error(error)),
            Err(_elapsed) => Err(AccessError::Timeout { waited }),
        }
    }

    /// Whether the node is connected, perhaps after waiting for that as the runtime was told to.
    pub(super) async fn is_online(&self, away: Away, timeout: Duration) -> bool {
        self.whereabouts(away, timeout).await == Whereabouts::Together
    }

    /// Where the node is, perhaps after waiting for the connection as the runtime was told to.
    pub(super) async fn whereabouts(&self, away: Away, timeout: Duration) -> Whereabouts {
        let wait = match away {
            Away::Fail | Away::LocalReads => Duration::ZERO,
            Away::Block(wait) => wait.min(timeout),
            // The lease ends that.
            Away::LocalReadWrite { .. } => timeout,
        };
        let found = async {
            loop {
                let news = Wait::new(self.node.link.wait_synced());
                let here = self.present_whereabouts(away);
                if here != Whereabouts::Nowhere || wait.is_zero() || self.node.ended().is_some() {
                    return here;
                }
                if self.node.link.is_synced() {
                    // The lease is over, and nobody has said so yet; or it is renewed at the last moment.
                    tokio::time::sleep(LAPSE_NOTICED).await;
                } else {
                    news.await;
                }
            }
        };
        match self.present_whereabouts(away) {
            Whereabouts::Nowhere => tokio::time::timeout(wait, found).await.unwrap_or(Whereabouts::Nowhere),
            here @ (Whereabouts::Together | Whereabouts::Alone) => here,
        }
    }

    fn present_whereabouts(&self, away: Away) -> Whereabouts {
        let (node, link) = (&self.node, &self.node.link);
        if node.ended().is_some() {
            Whereabouts::Nowhere
        } else if link.is_synced() && link.is_leased(boot_nanos()) {
            Whereabouts::Together
        } else if away.on_return().is_some() && node.is_away() {
            Whereabouts::Alone
        } else {
            Whereabouts::Nowhere
        }
    }

    /// Waits until what was done alone with an object is done again, or reported; or until the cluster is away again.
    pub(super) async fn replayed(&self, entry: &Entry) {
        self.while_connected(|| entry.state() == State::Local).await;
    }

    /// Waits while this is so and the node is connected.
    pub(super) async fn while_connected(&self, is_so: impl Fn() -> bool) {
        loop {
            let news = Wait::new(self.node.link.wait_synced());
            if !is_so() || !self.node.link.is_synced() {
                return;
            }
            news.await;
        }
    }

    /// Waits for an answer, or until tasks go on alone.
    pub(super) async fn unless_alone<T>(
        &self,
        away: Away,
        answer: impl Future<Output = Result<T, AccessError>>,
    ) -> Result<T, AccessError> {
        let alone = async {
            loop {
                let news = Wait::new(self.node.link.wait_synced());
                if self.present_whereabouts(away) == Whereabouts::Alone {
                    return;
                }
                news.await;
            }
        };
        tokio::select! {
            biased;
            answered = answer => answered,
            () = alone, if away.on_return().is_some() => Err(AccessError::Disconnected),
        }
    }

    pub(super) fn access_error(&self, error: RequestError) -> AccessError {
        match error {
            RequestError::ArenaFull { needed_bytes } => {
                AccessError::ArenaFull { needed_bytes, oldest_pin_ms: self.oldest_pin_ms() }
            }
            RequestError::Refused(failure) => AccessError::Refused(failure),
            RequestError::BadRecord(what) => AccessError::BadRecord { what },
            RequestError::Unknown => AccessError::Unknown,
            RequestError::Disconnected => self.node.ended().map_or(AccessError::Disconnected, AccessError::Ended),
        }
    }

    pub(super) fn alone_error(&self, error: AloneError) -> AccessError {
        match error {
            AloneError::NotAway => AccessError::Disconnected,
            AloneError::JournalFull { needed_bytes, limit } => AccessError::JournalFull { needed_bytes, limit },
            AloneError::Object(error) => self.access_error(error),
            AloneError::Commit(error) => AccessError::BadRecord { what: error.to_string() },
        }
    }

    /// Slots are read as the type that a root was first opened with.
    pub(super) fn claim_type<T: Clustered>(&self, root: RootId, name: &str) -> Result<(), RootError> {
        let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        let (type_id, open) = *types.entry(root).or_insert_with(|| (TypeId::of::<T>(), std::any::type_name::<T>()));
        if type_id == TypeId::of::<T>() {
            return Ok(());
        }
        Err(RootError::OtherType { root: name.to_owned(), open, wanted: std::any::type_name::<T>() })
    }

    /// A reader has been pinned for this long at least.
    pub(super) fn note_pin(&self, age: Duration) {
        // Relaxed: a figure for people.
        self.oldest_pin_ms.fetch_max(u64::try_from(age.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn oldest_pin_ms(&self) -> u64 {
        // Relaxed: a figure for people.
        self.oldest_pin_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn stats(&self) -> Stats {
        let node = &self.node;
        let figures = node.figures();
        let (unacknowledged, outbox_bytes) = node.outbox.unacknowledged();
        let (commits, commit_bytes) = node.outbox.totals();
        let (journalled, journal_bytes) = node.journalled();
        Stats {
            commits,
            commit_bytes,
            commits_refused: figures.refused,
            unacknowledged,
            outbox_bytes,
            journalled,
            journal_bytes,
            faults: figures.faults,
            recalls: figures.recalls,
            waits: figures.waits,
            evictions: figures.evictions,
            stale: figures.stale,
            resident_objects: node.cache.len(),
            resident_bytes: node.heap.used_bytes(),
            oldest_pin_ms: self.oldest_pin_ms(),
        }
    }
}

#[cfg(feature = "embedded")]
impl Attached {
    pub(super) fn keep(&self, server: crate::embedded::Embedded) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
    }

    async fn stop_server(&self, deadline: Duration) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            server.stop(deadline).await;
        }
    }
}
