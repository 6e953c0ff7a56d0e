//! The journal: what was changed here while the cluster is away, apart from the cache that shows it.
//!
//! Each change has the value that it was made from, its base, so that it can be made again on top of what the cluster has
//! by then, or reported. Who goes on alone writes it (`alone.rs`); who is back empties it (`comeback.rs`). It is memory
//! of this process: it ends with it.

use crate::entry::Entry;
use crate::node::Node;
use bytes::Bytes;
use kiln_heap::Object;
use kiln_protocol::message::Failure;
use kiln_protocol::{CommitSeq, Incarnation, ObjectId, RootId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

mod write;

pub use write::LocalValue;
pub(crate) use write::LocalWrite;

/// What the journal may hold unless something else is said.
pub(crate) const JOURNAL_BYTES_MAX: usize = 16 << 20;
/// What a commit, an object or a removal takes beside its bytes.
const HEAD_BYTES: usize = 128;
/// Removals of objects that this node does not hold take at most one part in so many of the journal.
const UNSEEN_SHARE: usize = 4;

/// What becomes of local changes when the cluster is back.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum OnReturn {
    /// They are dropped, and reported.
    Discard,
    /// Commits whose bases all hold are made again, whole; the others are reported.
    Replay,
}

kiln_protocol::id!(
    /// The place of something in the journal.
    pub LocalId(u64)
);

/// Why something that was done here while the cluster was away is not so in the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConflictCause {
    /// Somebody else has written what it was based on.
    Changed,
    /// An object that it changed was removed, or dropped with what was discarded.
    Destroyed,
    /// It was to be discarded.
    Discarded,
    /// The coordinator refused it.
    Refused(Failure),
    /// It was sent, and the connection lost before the answer: it may or may not have been applied.
    Unknown,
    /// The node ended first.
    Ended,
}

/// One write of a commit that was made here while the cluster was away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConflictWrite {
    /// The object's root.
    pub root: RootId,
    /// The object's key, in canonical form.
    pub key: Bytes,
    /// The object, as its handles here know it.
    pub object: ObjectId,
    /// The field.
    pub field: &'static str,
    /// The key of a map's entry, in canonical form.
    pub entry: Option<Bytes>,
    /// What was there when it was written here; `None` where that was not kept, because the commit was on its way to the
    /// cluster when the lease lapsed.
    pub base: Option<LocalValue>,
    /// What was written here.
    pub ours: LocalValue,
    /// What the cluster has; `None` where that is not known.
    pub theirs: Option<LocalValue>,
}

/// Something that was done here while the cluster was away, and is not so in the cluster. A commit is there as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalConflict {
    /// Why.
    pub cause: ConflictCause,
    /// What it was.
    pub deed: LocalDeed,
}

/// What was done here while the cluster was away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LocalDeed {
    /// A commit that wrote this.
    Commit(Vec<ConflictWrite>),
    /// The object under this key of this root was made.
    Creation(RootId, Bytes),
    /// The object under this key of this root was removed.
    Removal(RootId, Bytes),
}

/// What became of the journal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Returned {
    /// Commits and removals that were made again.
    pub replayed: u64,
    /// Those that were not.
    pub conflicts: u64,
    /// Those that were to be discarded.
    pub discarded: u64,
}

/// An object with local changes.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) entry: Arc<Entry>,
    /// What it is to be made of, if it was made here; what becomes of it.
    pub(crate) made: Option<(Bytes, OnReturn)>,
    /// Its locks are held, and its record is being fetched: to be put under the local changes.
    pub(crate) looking: bool,
    /// What the cluster has, with this node's unanswered commits: there while its locks are held.
    pub(crate) theirs: Option<Object>,
    /// What is shown has changes that will not be made.
    pub(crate) is_spoiled: bool,
    /// Commits in the journal that write it: those that are to be sent, and the others.
    pub(crate) unsent: BTreeSet<LocalId>,
    pub(crate) sent: BTreeSet<LocalId>,
}

/// A commit that was made here.
#[derive(Debug)]
pub(crate) struct LocalCommit {
    pub(crate) on_return: OnReturn,
    pub(crate) writes: Vec<(Arc<Entry>, Vec<LocalWrite>)>,
    /// As what it was sent, if it was.
    pub(crate) sent: Option<(Incarnation, CommitSeq)>,
    bytes: usize,
}

/// The removal of the object under a key.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Its place in the journal.
    pub id: LocalId,
    /// The root.
    pub root: RootId,
    /// The key, in canonical form.
    pub key: Bytes,
    /// The object that was there; `None`: none that the cluster knows.
    pub object: Option<ObjectId>,
    /// Nothing was there.
    is_unseen: bool,
    pub(crate) on_return: OnReturn,
}

/// See the module.
///
/// # Invariants
/// 1. An entry that a commit writes has a place, which names the commit.
/// 2. `bytes` is what commits, made objects, removals and untaken conflicts take together; `unseen_bytes` is the part of it that
///    removals of objects take which this node does not hold.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The cluster is away: tasks go on alone.
    pub(crate) is_away: bool,
    /// By the address of the entry, because the id of an object that was made here changes.
    pub(crate) places: BTreeMap<usize, Place>,
    pub(crate) commits: BTreeMap<LocalId, LocalCommit>,
    pub(crate) removals: Vec<Removal>,
    conflicts: Vec<LocalConflict>,
    conflict_bytes: usize,
    pub(crate) returned: Returned,
    last: LocalId,
    bytes: usize,
    unseen_bytes: usize,
    pub(crate) bytes_max: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            is_away: false,
            places: BTreeMap::new(),
            commits: BTreeMap::new(),
            removals: Vec::new(),
            conflicts: Vec::new(),
            conflict_bytes: 0,
            returned: Returned::default(),
            last: LocalId::default(),
            bytes: 0,
            unseen_bytes: 0,
            bytes_max: JOURNAL_BYTES_MAX,
        }
    }
}

/// Where an entry has its place.
pub(crate) fn address(entry: &Arc<Entry>) -> usize {
    Arc::as_ptr(entry).addr()
}

fn bytes_of(writes: &[(Arc<Entry>, Vec<LocalWrite>)]) -> usize {
    HEAD_BYTES + writes.iter().flat_map(|(_, writes)| writes).map(LocalWrite::bytes).sum::<usize>()
}

impl Journal {
    pub(crate) fn take_id(&mut self) -> LocalId {
        self.last = self.last.next();
        self.last
    }

    /// Whether there is room for this many bytes more.
    fn check_room(&self, bytes: usize) -> Result<(), (usize, usize)> {
        let needed = self.bytes + self.conflict_bytes + bytes;
        if needed > self.bytes_max { Err((needed, self.bytes_max)) } else { Ok(()) }
    }

    pub(crate) fn place(&self, entry: &Arc<Entry>) -> Option<&Place> {
        self.places.get(&address(entry))
    }

    pub(crate) fn place_mut(&mut self, entry: &Arc<Entry>) -> Option<&mut Place> {
        self.places.get_mut(&address(entry))
    }

    /// Whether a commit of these writes fits.
    ///
    /// # Errors
    /// How many bytes the journal would have, and its limit.
    pub(crate) fn check_commit(&self, writes: &[(Arc<Entry>, Vec<LocalWrite>)]) -> Result<(), (usize, usize)> {
        let new = writes.iter().filter(|(entry, _)| self.place(entry).is_none()).count();
        self.check_room(bytes_of(writes) + new * HEAD_BYTES)
    }

    pub(crate) fn add_commit(&mut self, on_return: OnReturn, writes: Vec<(Arc<Entry>, Vec<LocalWrite>)>) -> LocalId {
        let bytes = bytes_of(&writes);
        self.bytes += bytes;
        let id = self.take_id();
        for (entry, _) in &writes {
            self.place_of(entry).unsent.insert(id);
        }
        self.commits.insert(id, LocalCommit { on_return, writes, sent: None, bytes });
        id
    }

    /// The commit was sent, or is known not to have been applied.
    pub(crate) fn mark(&mut self, id: LocalId, sent: Option<(Incarnation, CommitSeq)>) {
        let Some(commit) = self.commits.get_mut(&id) else { return };
        commit.sent = sent;
        for (entry, _) in &commit.writes {
            if let Some(place) = self.places.get_mut(&address(entry)) {
                let Place { unsent, sent: others, .. } = place;
                let (from, to) = if sent.is_some() { (unsent, others) } else { (others, unsent) };
                from.remove(&id);
                to.insert(id);
            }
        }
    }

    fn place_of(&mut self, entry: &Arc<Entry>) -> &mut Place {
        let bytes = &mut self.bytes;
        self.places.entry(address(entry)).or_insert_with(|| {
            *bytes += HEAD_BYTES;
            Place {
                entry: Arc::clone(entry),
                made: None,
                looking: false,
                theirs: None,
                is_spoiled: false,
                unsent: BTreeSet::new(),
                sent: BTreeSet::new(),
            }
        })
    }

    /// # Errors
    /// As [`Journal::check_commit`].
    pub(crate) fn check_made(&self, made: &Bytes) -> Result<(), (usize, usize)> {
        self.check_room(made.len() + HEAD_BYTES)
    }

    pub(crate) fn add_made(&mut self, entry: &Arc<Entry>, made: Bytes, on_return: OnReturn) {
        self.bytes += made.len();
        self.place_of(entry).made = Some((made, on_return));
    }

    /// The cluster has the object, or it will not be made.
    pub(crate) fn forget_made(&mut self, entry: &Arc<Entry>) {
        if let Some(made) = self.place_mut(entry).and_then(|place| place.made.take()) {
            self.bytes -= made.0.len();
        }
    }

    /// # Errors
    /// As [`Journal::check_commit`].
    pub(crate) fn add_removal(
        &mut self,
        (root, key): (RootId, &Bytes),
        entry: Option<&Arc<Entry>>,
        on_return: OnReturn,
    ) -> Result<(), (usize, usize)> {
        let bytes = key.len() + HEAD_BYTES;
        self.check_room(bytes)?;
        let is_unseen = entry.is_none();
        if is_unseen {
            // Whether there is such an object nobody can say, so whoever asks may make keys up: they do not fill all of it.
            let (needed, share) = (self.unseen_bytes + bytes, self.bytes_max / UNSEEN_SHARE);
            if needed > share {
                return Err((needed, share));
            }
            self.unseen_bytes = needed;
        }
        self.bytes += bytes;
        let id = self.take_id();
        let object = entry.filter(|entry| !entry.is_provisional()).map(|entry| entry.id());
        self.removals.push(Removal { id, root, key: key.clone(), object, is_unseen, on_return });
        Ok(())
    }

    pub(crate) fn forget_removal(&mut self, id: LocalId) -> Option<Removal> {
        let at = self.removals.iter().position(|removal| removal.id == id)?;
        let removal = self.removals.remove(at);
        let bytes = removal.key.len() + HEAD_BYTES;
        self.bytes -= bytes;
        self.unseen_bytes -= if removal.is_unseen { bytes } else { 0 };
        Some(removal)
    }

    /// Takes a commit out; its objects keep their places until [`Journal::forget_place`].
    pub(crate) fn take_commit(&mut self, id: LocalId) -> Option<LocalCommit> {
        let commit = self.commits.remove(&id)?;
        self.bytes -= commit.bytes;
        for (entry, _) in &commit.writes {
            if let Some(place) = self.place_mut(entry) {
                place.unsent.remove(&id);
                place.sent.remove(&id);
            }
        }
        Some(commit)
    }

    /// Ends the place of an object that nothing here is about any more. Returns whether it did.
    pub(crate) fn forget_place(&mut self, entry: &Arc<Entry>) -> bool {
        let is_done = self.place(entry).is_some_and(Place::is_idle);
        if is_done && self.places.remove(&address(entry)).is_some() {
            self.bytes -= HEAD_BYTES;
        }
        is_done
    }

    /// What is to be shown of an object on top of a record: the commits that were not sent, in order.
    pub(crate) fn unsent<'a>(&'a self, entry: &'a Arc<Entry>) -> impl Iterator<Item = &'a LocalWrite> {
        let ids = self.place(entry).into_iter().flat_map(|place| &place.unsent);
        let unsent = ids.filter_map(|id| self.commits.get(id));
        let of_entry = unsent.flat_map(|commit| &commit.writes).filter(|(known, _)| Arc::ptr_eq(known, entry));
        of_entry.flat_map(|(_, writes)| writes)
    }

    /// Reports a commit that will not be made.
    pub(crate) fn report(&mut self, cause: ConflictCause, commit: &LocalCommit) {
        let mut writes = Vec::new();
        for (entry, of_entry) in &commit.writes {
            let theirs = self.place(entry).and_then(|place| place.theirs.as_ref());
            for write in of_entry {
                writes.push(write.conflict(entry, theirs));
            }
            if let Some(place) = self.place_mut(entry) {
                place.is_spoiled = true;
            }
        }
        self.note(LocalConflict { cause, deed: LocalDeed::Commit(writes) });
    }

    pub(crate) fn report_removal(&mut self, cause: ConflictCause, removal: &Removal) {
        self.note(LocalConflict { cause, deed: LocalDeed::Removal(removal.root, removal.key.clone()) });
    }

    pub(crate) fn report_made(&mut self, cause: ConflictCause, entry: &Entry) {
        let key = Bytes::copy_from_slice(&entry.key());
        self.note(LocalConflict { cause, deed: LocalDeed::Creation(entry.root, key) });
    }

    fn note(&mut self, conflict: LocalConflict) {
        if conflict.cause == ConflictCause::Discarded {
            self.returned.discarded += 1;
        } else {
            self.returned.conflicts += 1;
        }
        self.conflict_bytes += conflict.bytes();
        self.conflicts.push(conflict);
    }

    /// Commits, made objects and removals that are still to be made again.
    pub(crate) fn len(&self) -> usize {
        let made = self.places.values().filter(|place| place.made.is_some()).count();
        self.commits.len() + self.removals.len() + made
    }
}

impl Place {
    fn is_idle(&self) -> bool {
        self.unsent.is_empty() && self.sent.is_empty() && self.made.is_none()
    }

    pub(crate) fn is_made_to(&self, on_return: OnReturn) -> bool {
        self.made.as_ref().is_some_and(|(_, made)| *made == on_return)
    }
}

impl LocalConflict {
    fn bytes(&self) -> usize {
        HEAD_BYTES
            + match &self.deed {
                LocalDeed::Commit(writes) => writes.iter().map(ConflictWrite::bytes).sum::<usize>(),
                LocalDeed::Creation(_, key) | LocalDeed::Removal(_, key) => key.len(),
            }
    }
}

impl Node {
    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes the journal may have.
    pub fn limit_journal(&self, bytes_max: usize) {
        self.journal().bytes_max = bytes_max;
    }

    /// What was done here while the cluster was away and will not be so in the cluster; each is told once. Until it is
    /// taken, it takes room in the journal.
    pub fn take_conflicts(&self) -> Vec<LocalConflict> {
        let mut journal = self.journal();
        journal.conflict_bytes = 0;
        std::mem::take(&mut journal.conflicts)
    }

    /// What became of the journal since the last call; `None` while it is not empty, and when nothing did.
    pub fn take_returned(&self) -> Option<Returned> {
        let mut journal = self.journal();
        let is_news = journal.len() == 0 && journal.returned != Returned::default();
        is_news.then(|| std::mem::take(&mut journal.returned))
    }

    /// What of the journal is not on its way to the coordinator.
    pub fn unsent_changes(&self) -> usize {
        let journal = self.journal();
        journal.len() - journal.commits.values().filter(|commit| commit.sent.is_some()).count()
    }

    /// Commits, made objects and removals in the journal, and the bytes of all that it holds.
    pub fn journalled(&self) -> (usize, usize) {
        let journal = self.journal();
        (journal.len(), journal.bytes + journal.conflict_bytes)
    }
}
