//! Coming back with a journal: what was done alone is done again in the cluster, or reported.
//!
//! The driver waits, this decides. Removals come first, so that no logout is undone. Then objects that share commits are
//! taken together: the write locks of what was changed are taken, the records are fetched, and while the locks are held
//! each commit whose bases all hold is queued like any other, the rest is a conflict. A record is put *under* the local
//! changes in one step, so that no reader here sees them go and come back.
//!
//! A commit stays in the journal until it is answered. When the lease lapses first, its fate is asked for on the next
//! return: nothing is made twice.

use crate::apply::{Prepared, publish, read_record};
use crate::entry::{Entry, State};
use crate::journal::{ConflictCause, Journal, LocalCommit, LocalId, OnReturn, Removal, address};
use crate::node::Node;
use crate::outbox::{CommitFailure, OutPart, Outcome, QueueError, Waiter};
use crate::own::Own;
use crate::request::{Answer, Found};
use crate::ticket::Ticket;
use bytes::Bytes;
use kiln_heap::Object;
use kiln_protocol::message::{Failure, Fate, Record};
use kiln_protocol::{CommitSeq, GroupId, Incarnation, ObjectId, RootId};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

/// What is to be done with a journal.
#[derive(Debug, Default)]
pub struct Comeback {
    /// Commits that were sent by an incarnation of this node whose lease lapsed before the answer: ask for their fate.
    pub unsure: Vec<(LocalId, Incarnation, CommitSeq)>,
    /// Removals, in order.
    pub removals: Vec<Removal>,
    /// Objects with changes; those that share a commit are together.
    pub objects: Vec<Vec<Arc<Entry>>>,
}

/// A commit of the journal that was sent.
#[derive(Debug)]
pub struct Replayed {
    /// Its place in the journal.
    pub id: LocalId,
    /// Completes with its outcome.
    pub outcome: Arc<Ticket<Outcome>>,
}

/// What [`Node::replay_next`] did.
#[derive(Debug)]
pub enum Step {
    /// It sent a commit.
    Sent(Replayed),
    /// It reported one.
    Reported,
    /// There is no more.
    Done,
    /// The outbox is full: wait for space.
    Full,
    /// The records have to be fetched once more.
    LookAgain,
    /// The connection and the lease are lost again.
    Lost,
}

impl Node {
    /// What is to be done with the journal now.
    pub fn comeback(&self) -> Comeback {
        let incarnation = self.link.incarnation();
        let journal = self.journal();
        if journal.is_away {
            return Comeback::default();
        }
        let sent = journal.commits.iter().filter_map(|(id, commit)| commit.sent.map(|(who, seq)| (*id, who, seq)));
        Comeback {
            unsure: sent.filter(|(_, who, _)| *who != incarnation).collect(),
            removals: journal.removals.clone(),
            objects: journal.together(),
        }
    }

    /// Whether the object under this key was removed here, and may still be in the cluster.
    pub fn is_removal_pending(&self, root: RootId, key: &[u8]) -> bool {
        self.journal().removals.iter().any(|removal| removal.root == root && removal.key == key)
    }

    /// What became of a commit that was sent by an earlier incarnation.
    pub fn decided(&self, id: LocalId, fate: Fate) {
        let mut journal = self.journal();
        let Some(commit) = journal.commits.get(&id) else { return };
        let entries: Vec<_> = commit.writes.iter().map(|(entry, _)| Arc::clone(entry)).collect();
        let is_discarded = commit.on_return == OnReturn::Discard;
        match fate {
            Fate::Applied => journal.finish_commit(id),
            Fate::NotApplied if is_discarded => {
                journal.drop_commits_named(ConflictCause::Discarded, &[id]);
            }
            Fate::NotApplied => journal.mark(id, None),
            Fate::Unknown => journal.drop_commits_named(ConflictCause::Unknown, &[id]),
        }
        for entry in entries {
            journal.settle_if_idle(&entry);
        }
        drop(journal);
        self.link.wake_waiting();
    }

    /// A removal was carried out, or refused.
    pub fn removed(&self, id: LocalId, done: Result<(), Failure>) {
        let mut journal = self.journal();
        match (journal.forget_removal(id), done) {
            (None, _) => {}
            (Some(_), Ok(())) => journal.returned.replayed += 1,
            (Some(removal), Err(failure)) => journal.report_removal(ConflictCause::Refused(failure), &removal),
        }
        drop(journal);
        self.link.wake_waiting();
    }

    /// Asks for an object that was made here to be made in the cluster, or for the one that is there. `None`: it was not
    /// made here.
    pub fn make_again(&self, entry: &Arc<Entry>) -> Option<Arc<Ticket<Answer<Option<Found>>>>> {
        let made = self.journal().place(entry).and_then(|place| place.made.as_ref()).map(|(made, _)| made.clone())?;
        Some(self.fetch(entry.root, Bytes::copy_from_slice(&entry.key()), Some(made)))
    }

    /// The coordinator does not make it.
    pub fn not_made(&self, entry: &Arc<Entry>, failure: Failure) {
        let mut journal = self.journal();
        self.destroy_here(entry);
        journal.drop_made(ConflictCause::Refused(failure), entry);
        journal.settle_if_idle(entry);
        drop(journal);
        self.link.wake_waiting();
    }

    /// The cluster has an object under the key of one that was made here: that one is it.
    pub(crate) fn adopt(&self, root: RootId, key: &[u8], object: ObjectId) -> Option<Arc<Entry>> {
        let mut journal = self.journal();
        let entry = self.cache.root(root)?.get(key).filter(|entry| entry.is_provisional())?;
        self.cache.adopt(&entry, object);
        if journal.place(&entry).is_some_and(|place| place.made.is_some()) {
            journal.forget_made(&entry);
            journal.returned.replayed += 1;
        }
        journal.settle_if_idle(&entry);
        drop(journal);
        for (index, lock) in entry.locks().iter().enumerate() {
            lock.adopted(entry.lock_context(index, &self.outbox, &self.requests));
        }
        self.link.wake_waiting();
        Some(entry)
    }

    /// The lock groups that an object's part of the journal was made under.
    pub fn groups_to_replay(&self, entry: &Arc<Entry>) -> Vec<usize> {
        let journal = self.journal();
        let groups = journal.unsent(entry).map(|write| usize::from(entry.binding.slot_group(write.slot())));
        groups.filter(|group| *group < entry.locks().len()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Fetches the record of an object, to be put under its local changes. The caller holds its locks.
    pub fn look(&self, entry: &Arc<Entry>) -> Arc<Ticket<Answer<()>>> {
        if let Some(place) = self.journal().place_mut(entry) {
            place.looking = true;
            entry.set_state(State::Local);
        }
        self.refetch(entry)
    }

    /// Puts a record under the local changes of an object, if that is what it was fetched for.
    pub(crate) fn install_under_changes(&self, entry: &Arc<Entry>, record: &Record) {
        let installed = self.with_room(|| {
            let mut journal = self.journal();
            if !journal.place(entry).is_some_and(|place| place.looking) {
                return Ok(());
            }
            let overlay: Vec<_> = journal.unsent(entry).map(|write| write.as_slot_write()).collect();
            let theirs = self.outbox.with_unacknowledged(record.applied, |missing| {
                let mut tails = Own::tails(missing);
                let own = Own::new(entry, missing, &mut tails);
                let (theirs, _) = read_record(&entry.binding, record, |writes, of| {
                    Object::new(&self.heap, &entry.binding.shape, &own.over(writes, &[]), &own.versions(of))
                })?;
                let ((), corrupt) = read_record(&entry.binding, record, |writes, of| {
                    entry.replace(&own.over(writes, &overlay), &own.versions(of))
                })?;
                entry.heal(0..u16::MAX);
                for slot in corrupt {
                    entry.mark_corrupt(slot, None);
                }
                entry.set_over_record();
                Ok::<_, crate::request::RequestError>(theirs)
            })?;
            if let Some(place) = journal.place_mut(entry) {
                place.theirs = Some(theirs);
            }
            Ok::<_, crate::request::RequestError>(())
        });
        // What has no record under it is looked at again.
        drop(installed);
    }

    /// Makes the next commit of these objects again, or reports it. The caller holds their locks, taken in this life of
    /// the node, and has looked at them since.
    pub fn replay_next(&self, life: u64, entries: &[Arc<Entry>]) -> Step {
        // Before the outbox and the journal are locked: the gate comes first wherever both are taken.
        let _all = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut journal = self.journal();
        let Some((id, commit)) = journal.next_unsent(entries) else { return Step::Done };
        match journal.verdict(commit) {
            Verdict::Good => {}
            Verdict::NotLooked => return Step::LookAgain,
            Verdict::Bad(cause) => {
                journal.drop_commits_named(cause, &[id]);
                return Step::Reported;
            }
        }
        let incarnation = self.link.incarnation();
        let (parts, prepared) = self.prepare_again(commit);
        let outcome = Ticket::new();
        let waiter = Waiter::Applied(Arc::clone(&outcome));
        let keep = Some(commit.on_return);
        let queued = self.outbox.commit_to_keep(Some(life), keep, &parts, waiter, || publish(&prepared));
        drop(prepared);
        let seq = match queued {
            Ok(seq) => seq,
            Err(QueueError::Full) => return Step::Full,
            Err(QueueError::Publish(_)) => return Step::LookAgain,
            Err(QueueError::Closed | QueueError::Fenced) => return Step::Lost,
        };
        journal.note_sent(id, (incarnation, seq));
        Step::Sent(Replayed { id, outcome })
    }

    /// A commit as it is sent. What it writes is shown already: only the versions are to be published.
    fn prepare_again<'c>(&self, commit: &'c LocalCommit) -> (SmallVec<[OutPart; 2]>, SmallVec<[Prepared<'c>; 1]>) {
        let (mut parts, mut prepared) = (SmallVec::new(), SmallVec::new());
        for (entry, writes) in &commit.writes {
            let mut versions = SmallVec::new();
            for (index, encoded) in entry.binding.encode_local(writes) {
                let part = self.out_part(entry, index, encoded);
                if part.group != GroupId::COMMUTATIVE {
                    versions.push((index, part.version.to_bits()));
                }
                parts.push(part);
            }
            prepared.push(Prepared { entry, writes: SmallVec::new(), versions });
        }
        prepared.sort_by_key(|one: &Prepared<'_>| one.entry.id());
        (parts, prepared)
    }

    /// These objects have been replayed, or will be another time: whoever waits for that goes on. Returns whether
    /// nothing of them is left to be sent.
    pub fn settle(&self, entries: &[Arc<Entry>]) -> bool {
        let incarnation = self.link.incarnation();
        let mut journal = self.journal();
        if journal.is_away {
            return false;
        }
        let mut is_done = true;
        let mut spoiled = Vec::new();
        for entry in entries {
            let is_left = entry.is_provisional() || journal.has_unsent(entry, incarnation);
            let Some(place) = journal.place_mut(entry) else { continue };
            (place.looking, place.theirs) = (false, None);
            if is_left && entry.state() != State::Destroyed {
                is_done = false;
                continue;
            }
            let is_good = !std::mem::take(&mut place.is_spoiled);
            entry.settle(is_good);
            if entry.state() == State::Stale {
                spoiled.push(Arc::clone(entry));
            }
            journal.forget_place(entry);
        }
        drop(journal);
        for entry in spoiled {
            self.refetch_quietly(&entry);
        }
        self.link.wake_waiting();
        is_done
    }

    /// A commit that was sent has been answered, or will not be.
    pub fn replayed(&self, id: LocalId, outcome: Outcome) {
        let mut journal = self.journal();
        match outcome {
            Ok(()) => journal.finish_commit(id),
            Err(CommitFailure::Refused(Failure::Destroyed { .. })) => {
                journal.drop_commits_named(ConflictCause::Destroyed, &[id]);
            }
            Err(CommitFailure::Refused(failure)) => {
                journal.drop_commits_named(ConflictCause::Refused(failure), &[id]);
            }
            // To be asked for on the next return; or the node has ended, and has reported it.
            Err(CommitFailure::Unknown | CommitFailure::Kept) => {}
        }
    }
}

enum Verdict {
    Good,
    NotLooked,
    Bad(ConflictCause),
}

impl Journal {
    /// Whether an object has commits that were not sent by this incarnation.
    fn has_unsent(&self, entry: &Arc<Entry>, incarnation: Incarnation) -> bool {
        let Some(place) = self.place(entry) else { return false };
        let mut sent = place.sent.iter().filter_map(|id| self.commits.get(id)?.sent);
        !place.unsent.is_empty() || sent.any(|(who, _)| who != incarnation)
    }

    fn next_unsent(&self, entries: &[Arc<Entry>]) -> Option<(LocalId, &LocalCommit)> {
        let places = entries.iter().filter_map(|entry| self.place(entry));
        let id = places.filter_map(|place| place.unsent.first()).min()?;
        Some((*id, self.commits.get(id)?))
    }

    fn verdict(&self, commit: &LocalCommit) -> Verdict {
        for (entry, _) in &commit.writes {
            if entry.state() == State::Destroyed {
                return Verdict::Bad(ConflictCause::Destroyed);
            }
        }
        for (entry, writes) in &commit.writes {
            let Some(theirs) = self.place(entry).and_then(|place| place.theirs.as_ref()) else {
                return Verdict::NotLooked;
            };
            if !entry.is_over_record() {
                return Verdict::NotLooked;
            }
            let pinned = theirs.pin();
            if !writes.iter().all(|write| write.holds(&pinned)) {
                return Verdict::Bad(ConflictCause::Changed);
            }
        }
        Verdict::Good
    }

    /// A commit is on its way: the ones after it are made on top of it.
    fn note_sent(&mut self, id: LocalId, sent: (Incarnation, CommitSeq)) {
        self.mark(id, Some(sent));
        let Some(commit) = self.commits.get(&id) else { return };
        for (entry, writes) in &commit.writes {
            let Some(place) = self.places.get_mut(&address(entry)) else { continue };
            let groups = writes.iter().map(|write| entry.binding.slot_group(write.slot()));
            let groups: BTreeSet<_> = groups.filter(|group| *group != entry.binding.commutative()).collect();
            let versions: Vec<_> = groups.into_iter().map(|group| (group, entry.object.version(group))).collect();
            let writes: Vec<_> = writes.iter().map(|write| write.as_slot_write()).collect();
            let applied = place.theirs.as_ref().map(|theirs| theirs.apply(&writes, &versions));
            if !matches!(applied, Some(Ok(()))) {
                place.theirs = None;
            }
        }
    }

    fn finish_commit(&mut self, id: LocalId) {
        if let Some(commit) = self.take_commit(id) {
            self.returned.replayed += 1;
            for (entry, _) in &commit.writes {
                if entry.state() != State::Local {
                    self.forget_place(entry);
                }
            }
        }
    }

    pub(crate) fn drop_commits_named(&mut self, cause: ConflictCause, ids: &[LocalId]) {
        for id in ids {
            if let Some(commit) = self.take_commit(*id) {
                self.report(cause.clone(), &commit);
                for (entry, _) in &commit.writes {
                    if entry.state() != State::Local {
                        self.forget_place(entry);
                    }
                }
            }
        }
    }

    pub(crate) fn drop_commits(&mut self, cause: ConflictCause, which: impl Fn(&LocalCommit) -> bool) {
        let ids: Vec<_> = self.commits.iter().filter(|(_, commit)| which(commit)).map(|(id, _)| *id).collect();
        self.drop_commits_named(cause, &ids);
    }

    pub(crate) fn drop_removals(&mut self, cause: ConflictCause, which: impl Fn(&Removal) -> bool) {
        let ids: Vec<_> = self.removals.iter().filter(|removal| which(removal)).map(|removal| removal.id).collect();
        for id in ids {
            if let Some(removal) = self.forget_removal(id) {
                self.report_removal(cause.clone(), &removal);
            }
        }
    }

    /// An object that was made here will not be made in the cluster.
    pub(crate) fn drop_made(&mut self, cause: ConflictCause, entry: &Arc<Entry>) {
        if self.place(entry).is_some_and(|place| place.made.is_some()) {
            self.forget_made(entry);
            self.report_made(cause, entry);
        }
    }

    /// Objects that nothing here is about any more have no local changes that will be made.
    pub(crate) fn settle_idle(&mut self) {
        for entry in self.places.values().map(|place| Arc::clone(&place.entry)).collect::<Vec<_>>() {
            self.settle_if_idle(&entry);
        }
    }

    fn settle_if_idle(&mut self, entry: &Arc<Entry>) {
        if self.forget_place(entry) {
            entry.settle(false);
        }
    }

    /// Objects with something to be sent, those that share a commit together.
    fn together(&self) -> Vec<Vec<Arc<Entry>>> {
        let mut leaders: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, place) in &self.places {
            if place.made.is_some() {
                leaders.insert(*at, *at);
            }
        }
        for commit in self.commits.values().filter(|commit| commit.sent.is_none()) {
            let mut places = commit.writes.iter().map(|(entry, _)| address(entry));
            let Some(first) = places.next() else { continue };
            let leader = leader_of(&mut leaders, first);
            for other in places {
                let other = leader_of(&mut leaders, other);
                leaders.insert(other, leader);
            }
        }
        let mut groups: BTreeMap<usize, Vec<Arc<Entry>>> = BTreeMap::new();
        for at in leaders.keys().copied().collect::<Vec<_>>() {
            let leader = leader_of(&mut leaders, at);
            if let Some(place) = self.places.get(&at) {
                groups.entry(leader).or_default().push(Arc::clone(&place.entry));
            }
        }
        // Addresses differ from run to run, keys do not.
        let place = |entry: &Arc<Entry>| (entry.root, entry.key());
        let mut groups: Vec<_> = groups.into_values().collect();
        for group in &mut groups {
            group.sort_by_cached_key(place);
        }
        groups.sort_by_cached_key(|group| group.first().map(place));
        groups
    }
}

/// The one that stands for all that a place is together with.
fn leader_of(leaders: &mut BTreeMap<usize, usize>, place: usize) -> usize {
    let mut at = place;
    loop {
        let next = *leaders.entry(at).or_insert(at);
        if next == at {
            break;
        }
        at = next;
    }
    leaders.insert(place, at);
    at
}

#[cfg(all(test, not(loom)))]
mod tests;
