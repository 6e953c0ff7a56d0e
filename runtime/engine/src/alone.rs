//! Going on alone: what tasks may do while the cluster is away.
//!
//! The cluster is away from the lapse of the node's lease until the node is another incarnation. Before that it goes on
//! under its grants, which nobody else can have. After it nothing that is done here is so in the cluster: it is shown
//! here, marked [`State::Local`], and kept in the [journal](crate::journal). Locks hold among the tasks of this node,
//! and nowhere else.

use crate::apply::{Changed, Prepared, WantsRoom, check_size, merge_objects, publish, read_record};
use crate::binding::{Tail, slot_writes};
use crate::entry::{Entry, State};
use crate::journal::{ConflictCause, Journal, LocalWrite, OnReturn, Removal};
use crate::lock::LockFailure;
use crate::node::Node;
use crate::outbox::OutPart;
use crate::refusal::CommitError;
use crate::request::RequestError;
use bytes::Bytes;
use kiln_heap::Object;
use kiln_protocol::message::{Commit, Failure, Record};
use kiln_protocol::{CommitSeq, Incarnation, ObjectId, RootId};
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

/// Why nothing was done alone.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AloneError {
    /// The cluster is not away, or was not all the time since the locks were taken.
    #[error("the cluster is not away")]
    NotAway,
    /// The journal is full.
    #[error("the journal of local changes would have {needed_bytes} bytes, the limit is {limit}")]
    JournalFull {
        /// How many bytes it would have.
        needed_bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// As any commit.
    #[error(transparent)]
    Commit(CommitError),
    /// As any object that is made resident.
    #[error(transparent)]
    Object(RequestError),
}

impl AloneError {
    const fn full((needed_bytes, limit): (usize, usize)) -> Self {
        Self::JournalFull { needed_bytes, limit }
    }
}

impl WantsRoom for AloneError {
    fn needed_bytes(&self) -> Option<usize> {
        match self {
            Self::Commit(CommitError::ArenaFull { needed_bytes })
            | Self::Object(RequestError::ArenaFull { needed_bytes }) => Some(*needed_bytes),
            Self::Commit(_) | Self::Object(_) | Self::NotAway | Self::JournalFull { .. } => None,
        }
    }
}

impl Node {
    /// Whether the cluster is away.
    pub fn is_away(&self) -> bool {
        self.journal().is_away
    }

    /// Waits while the node is about to lose its lease, or to be another incarnation: for moments, and for nobody else.
    pub fn wait_out_turn(&self) {
        drop(self.turning.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// While the cluster is away, lets the tasks of this node have these locks of an object among themselves. `false`:
    /// it is not away.
    pub fn share_alone(&self, entry: &Entry, groups: Range<usize>) -> bool {
        // Held meanwhile: whoever ends the time alone takes away what was given before.
        let journal = self.journal();
        for index in groups.filter(|_| journal.is_away) {
            entry.locks()[index].grant_alone(entry.lock_context(index, &self.outbox, &self.requests));
        }
        journal.is_away
    }

    /// Makes a commit that is shown here alone: all or nothing. `life` as of [`Node::commit`].
    ///
    /// # Errors
    /// [`AloneError`]; then nothing happened.
    pub fn commit_alone(
        &self,
        life: Option<u64>,
        on_return: OnReturn,
        changed: &[Changed<'_>],
    ) -> Result<(), AloneError> {
        self.with_room(|| {
            let _all = (changed.len() > 1).then(|| self.gate.write().unwrap_or_else(PoisonError::into_inner));
            self.try_commit_alone(life, on_return, changed)
        })
    }

    fn try_commit_alone(
        &self,
        life: Option<u64>,
        on_return: OnReturn,
        changed: &[Changed<'_>],
    ) -> Result<(), AloneError> {
        let mut journal = self.journal();
        // An object that the cluster does not know yet takes adds only in here.
        let is_alone = journal.is_away || changed.iter().all(|one| one.entry.is_provisional());
        if !is_alone || life.is_some_and(|life| life != self.link.life()) {
            return Err(AloneError::NotAway);
        }
        let mut parts: SmallVec<[OutPart; 2]> = SmallVec::new();
        let mut prepared: SmallVec<[Prepared<'_>; 1]> = SmallVec::new();
        let mut kept: Vec<(Arc<Entry>, Vec<LocalWrite>)> = Vec::new();
        for Changed { entry, changes, seen } in changed {
            if entry.state() == State::Destroyed {
                return Err(AloneError::Commit(CommitError::Destroyed { object: entry.id() }));
            }
            if let Some(undone) = seen.and_then(|seen| seen.undone(entry)) {
                return Err(AloneError::Commit(undone));
            }
            // The coordinator's limits, before it sees any of this.
            parts.extend(entry.binding.encode(changes).into_iter().map(|(index, of)| self.out_part(entry, index, of)));
            prepared.push(Prepared { entry, writes: slot_writes(changes), versions: SmallVec::new() });
            let before = entry.object.pin();
            let writes = changes.iter().map(|change| LocalWrite::new(change, &before));
            match kept.iter_mut().find(|(known, _)| Arc::ptr_eq(known, entry)) {
                Some((_, kept)) => kept.extend(writes),
                None => kept.push((Arc::clone(entry), writes.collect())),
            }
        }
        check_size(&parts).map_err(AloneError::Commit)?;
        journal.check_commit(&kept).map_err(AloneError::full)?;
        merge_objects(&mut prepared);
        publish(&prepared).map_err(AloneError::Commit)?;
        for one in &prepared {
            one.entry.heal(one.writes.iter().map(kiln_heap::SlotWrite::slot));
            one.entry.note_rewrite();
            one.entry.set_state(State::Local);
        }
        journal.add_commit(on_return, kept);
        Ok(())
    }

    /// Makes an object that only this node knows, unless one with this key is resident.
    ///
    /// # Errors
    /// [`AloneError`]; then nothing happened.
    pub fn create_alone(
        &self,
        root: RootId,
        key: &Bytes,
        writes: &Bytes,
        on_return: OnReturn,
    ) -> Result<(Arc<Entry>, bool), AloneError> {
        self.with_room(|| self.try_create_alone(root, key, writes, on_return))
    }

    fn try_create_alone(
        &self,
        root: RootId,
        key: &Bytes,
        writes: &Bytes,
        on_return: OnReturn,
    ) -> Result<(Arc<Entry>, bool), AloneError> {
        let mut journal = self.journal();
        if !journal.is_away {
            return Err(AloneError::NotAway);
        }
        let bad = |what: &str| AloneError::Object(RequestError::BadRecord(what.to_owned()));
        let root = self.cache.root(root).ok_or_else(|| bad("its root is not open here"))?;
        if let Some(known) = root.get(key) {
            return Ok((known, false));
        }
        journal.check_made(writes).map_err(AloneError::full)?;
        let object = Entry::provisional_id(journal.take_id().to_bits());
        let record = new_record(object, writes, root.binding.type_id);
        let made = read_record(&root.binding, &record, |writes, versions| {
            Object::new(&self.heap, &root.binding.shape, writes, versions)
        });
        let (object, corrupt) = made.map_err(AloneError::Object)?;
        if let Some(slot) = corrupt.first() {
            return Err(bad(&format!("field `{}` is no valid archive", root.binding.slot_name(*slot))));
        }
        let entry = Arc::new(Entry::new(record.object, &root, key, object));
        entry.set_state(State::Local);
        self.cache.insert(&root, &entry);
        journal.add_made(&entry, writes.clone(), on_return);
        Ok((entry, true))
    }

    /// Removes the object under a key, here. Whether one is resident. The caller holds its write locks.
    ///
    /// # Errors
    /// [`AloneError`]; then nothing happened.
    pub fn remove_alone(&self, root: RootId, key: &Bytes, on_return: OnReturn) -> Result<bool, AloneError> {
        let mut journal = self.journal();
        if !journal.is_away {
            return Err(AloneError::NotAway);
        }
        let entry = self.cache.root(root).and_then(|root| root.get(key));
        let is_same = |removal: &Removal| removal.root == root && removal.key == *key && removal.on_return == on_return;
        if entry.is_none() && journal.removals.iter().any(is_same) {
            return Ok(false);
        }
        journal.add_removal((root, key), entry.as_ref(), on_return).map_err(AloneError::full)?;
        let Some(entry) = entry else { return Ok(false) };
        self.destroy_here(&entry);
        journal.forget_removed(&entry);
        Ok(true)
    }

    pub(crate) fn destroy_here(&self, entry: &Arc<Entry>) {
        let object = entry.id();
        drop(self.cache.remove(object));
        entry.set_state(State::Destroyed);
        entry.lose_locks(&LockFailure::Refused(Failure::Destroyed { object }));
    }

    /// Commits that were not safe when the lease lapsed: those that fit go into the journal, to be asked for on the return.
    /// Returns which.
    pub(crate) fn keep_unanswered(
        &self,
        incarnation: Incarnation,
        commits: Vec<(CommitSeq, OnReturn, Commit)>,
    ) -> BTreeSet<CommitSeq> {
        let mut journal = self.journal();
        let mut kept = BTreeSet::new();
        // What is being made again is in the journal until it is answered.
        let known: BTreeSet<_> = journal.commits.values().filter_map(|commit| commit.sent).collect();
        let is_new = |seq: &CommitSeq| !known.contains(&(incarnation, *seq));
        for (seq, on_return, commit) in commits.into_iter().filter(|(seq, ..)| is_new(seq)) {
            let Some(writes) = self.writes_of(&commit) else { continue };
            if journal.check_commit(&writes).is_ok() {
                let id = journal.add_commit(on_return, writes);
                journal.mark(id, Some((incarnation, seq)));
                kept.insert(seq);
            }
        }
        kept
    }

    /// The writes of a commit of this node; `None` when one of its objects is not resident any more.
    fn writes_of(&self, commit: &Commit) -> Option<Vec<(Arc<Entry>, Vec<LocalWrite>)>> {
        let mut kept: Vec<(Arc<Entry>, Vec<LocalWrite>)> = Vec::new();
        for part in &commit.parts {
            let entry = self.cache.get(part.object)?;
            let mut tail = Tail::default();
            let decoded = entry.binding.decode(&part.writes, &mut tail).ok()?;
            // The version that it was made from, by its number: the coordinator's count of the group's commits.
            let before = part.version.number().checked_sub(1);
            let base = entry.binding.group_index(part.group).zip(before);
            let writes = decoded.writes.iter().map(|write| LocalWrite::sent(write, base));
            match kept.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &entry)) {
                Some((_, kept)) => kept.extend(writes),
                None => kept.push((Arc::clone(&entry), writes.collect())),
            }
        }
        Some(kept)
    }

    /// The lease has lapsed: from now on tasks go on alone.
    pub(crate) fn go_alone(&self) {
        let mut journal = self.journal();
        journal.is_away = true;
        for place in journal.places.values_mut() {
            (place.looking, place.theirs) = (false, None);
            place.entry.set_state(State::Local);
        }
    }

    /// The cluster is back, and the node about to be another incarnation: what was to be discarded is, and the locks
    /// that tasks had among themselves are gone.
    pub(crate) fn end_alone(&self) {
        let mut journal = self.journal();
        journal.is_away = false;
        let made = journal.places.values().filter(|place| place.is_made_to(OnReturn::Discard));
        for entry in made.map(|place| Arc::clone(&place.entry)).collect::<Vec<_>>() {
            self.destroy_here(&entry);
            journal.drop_made(ConflictCause::Discarded, &entry);
        }
        journal.drop_commits(ConflictCause::Discarded, |commit| {
            commit.sent.is_none() && commit.on_return == OnReturn::Discard
        });
        journal.drop_removals(ConflictCause::Discarded, |removal| removal.on_return == OnReturn::Discard);
        journal.settle_idle();
        drop(journal);
        for entry in self.cache.all() {
            for lock in entry.locks() {
                lock.end_alone();
            }
        }
    }

    /// The node has ended: what is in the journal will not be so.
    pub(crate) fn close_journal(&self) {
        let mut journal = self.journal();
        journal.is_away = false;
        let made = journal.places.values().filter(|place| place.made.is_some());
        for entry in made.map(|place| Arc::clone(&place.entry)).collect::<Vec<_>>() {
            journal.drop_made(ConflictCause::Ended, &entry);
        }
        journal.drop_commits(ConflictCause::Unknown, |commit| commit.sent.is_some());
        journal.drop_commits(ConflictCause::Ended, |_| true);
        journal.drop_removals(ConflictCause::Ended, |_| true);
        journal.settle_idle();
    }
}

impl Journal {
    /// The object was removed here: what was done to it alone needs no mention.
    fn forget_removed(&mut self, entry: &Arc<Entry>) {
        self.forget_made(entry);
        let ids: Vec<_> = self.place(entry).into_iter().flat_map(|place| place.unsent.iter().copied()).collect();
        for id in ids {
            let is_of_it_alone = self.commits.get(&id).is_some_and(|commit| commit.writes.len() == 1);
            if is_of_it_alone {
                drop(self.take_commit(id));
            }
        }
        self.forget_place(entry);
    }
}

/// The record of an object that nobody has committed to.
fn new_record(object: ObjectId, writes: &Bytes, type_id: kiln_protocol::TypeId) -> Record {
    Record { object, type_id, versions: Vec::new(), writes: writes.clone(), applied: CommitSeq::default() }
}
