//! What changes the heap: records, deltas, commits, and the way back when one fails.

use crate::binding::{Binding, Decoded, Encoded, GroupIndex, Tail, slot_writes};
use crate::entry::{Entry, Seen, State};
use crate::journal::OnReturn;
use crate::node::{Counters, Node};
use crate::outbox::{OutPart, QueueError, Waiter};
use crate::own::Own;
use crate::refusal::{CommitError, apply_error};
use crate::request::{Pending, RequestError};
use kiln_heap::{ApplyError, Object, SlotWrite};
use kiln_object::Change;
use kiln_protocol::limits::{FRAME_BYTES_MAX, PARTS_MAX, RECORD_BYTES_MAX};
use kiln_protocol::message::{Commit, DeltaPart, Failure, Mode, Record};
use kiln_protocol::{CommitSeq, GroupId, Incarnation, RootId, ToCoordinator, Token, Version};
use smallvec::SmallVec;
use std::sync::{Arc, PoisonError, RwLockReadGuard};

/// To make room for one write, unused objects of this many bytes are evicted at most, and of so many times what the write
/// needs: freed room is in pieces. The limit is for heaps whose old versions a reader keeps, which no eviction frees.
const EVICTED_BYTES_MIN: usize = 64 << 10;
const EVICTED_TIMES_NEEDED: usize = 8;

/// An error that says when it is for want of room in the heap.
pub trait WantsRoom {
    /// How much room it is for want of.
    fn needed_bytes(&self) -> Option<usize>;
}

impl WantsRoom for ApplyError {
    fn needed_bytes(&self) -> Option<usize> {
        match self {
            Self::Full { needed_bytes } => Some(*needed_bytes),
            Self::Corrupt { .. } | Self::Missing { .. } | Self::BadSlot { .. } | Self::BadGroup { .. } => None,
        }
    }
}

impl WantsRoom for RequestError {
    fn needed_bytes(&self) -> Option<usize> {
        match self {
            Self::ArenaFull { needed_bytes } => Some(*needed_bytes),
            Self::Refused(_) | Self::BadRecord(_) | Self::Unknown | Self::Disconnected => None,
        }
    }
}

impl WantsRoom for QueueError<CommitError> {
    fn needed_bytes(&self) -> Option<usize> {
        match self {
            Self::Publish(CommitError::ArenaFull { needed_bytes }) => Some(*needed_bytes),
            Self::Publish(_) | Self::Full | Self::Closed | Self::Fenced => None,
        }
    }
}

/// What a commit changes in one object. The caller holds the write locks of the groups of the changed slots.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    /// The object.
    pub entry: &'a Arc<Entry>,
    /// Its changes.
    pub changes: &'a [Change],
    /// What they were made from; `None`: from nothing.
    pub seen: Option<&'a Seen>,
}

impl<'a> Changed<'a> {
    /// Changes that were made from nothing.
    pub const fn new(entry: &'a Arc<Entry>, changes: &'a [Change]) -> Self {
        Self { entry, changes, seen: None }
    }
}

pub(crate) struct Prepared<'a> {
    pub(crate) entry: &'a Arc<Entry>,
    pub(crate) writes: SmallVec<[SlotWrite<'a>; 4]>,
    pub(crate) versions: SmallVec<[(GroupIndex, u64); 2]>,
}

impl Node {
    /// Makes a record's object resident. The one that is resident already wins, unless it is stale.
    pub(crate) fn admit(&self, root: RootId, key: &[u8], record: &Record) -> Result<Arc<Entry>, RequestError> {
        let forget = || self.forget(self.unanswered(), record.object);
        if let Some(entry) = self.cache.get(record.object) {
            if entry.state() == State::Stale {
                self.install(&entry, record);
            }
            return Ok(entry);
        }
        if let Some(entry) = self.adopt(root, key, record.object) {
            return Ok(entry);
        }
        let Some(root) = self.cache.root(root) else {
            forget();
            return Err(RequestError::BadRecord("its root is not open here".to_owned()));
        };
        let made = self.with_room(|| {
            read_record(&root.binding, record, |writes, versions| {
                Object::new(&self.heap, &root.binding.shape, writes, versions)
            })
        });
        let (object, corrupt) = made.inspect_err(|_| forget())?;
        let entry = Arc::new(Entry::new(record.object, &root, key, object));
        for slot in corrupt {
            entry.mark_corrupt(slot, None);
        }
        // Commits of this node that the record lacks: made before an eviction, not yet acknowledged.
        self.outbox.with_unacknowledged(record.applied, |missing| {
            let mut tails = Own::tails(missing);
            if Own::new(&entry, missing, &mut tails).apply(&entry).is_err() {
                entry.set_state(State::Stale);
            }
            self.cache.insert(&root, &entry);
        });
        Ok(entry)
    }

    /// Replaces a stale copy by a record, with this node's unacknowledged commits on top. Without room for it, the copy
    /// stays stale.
    pub(crate) fn install(&self, entry: &Arc<Entry>, record: &Record) {
        if entry.state() == State::Local {
            return self.install_under_changes(entry, record);
        }
        let replace = || {
            self.outbox.with_unacknowledged(record.applied, |missing| {
                let mut tails = Own::tails(missing);
                let own = Own::new(entry, missing, &mut tails);
                let ((), corrupt) = read_record(&entry.binding, record, |writes, of| {
                    entry.replace(&own.over(writes, &[]), &own.versions(of))
                })?;
                entry.heal(0..u16::MAX);
                for slot in corrupt {
                    entry.mark_corrupt(slot, None);
                }
                entry.set_state(State::Current);
                Ok::<_, RequestError>(())
            })
        };
        // What is stale stays so, and whoever needs it asks again.
        drop(self.with_room(replace));
    }

    /// Tries again after evicting unused objects, while the heap is full. Not under the outbox's lock: evicting sends.
    pub fn with_room<R, E: WantsRoom>(&self, attempt: impl Fn() -> Result<R, E>) -> Result<R, E> {
        let mut evicted_bytes = 0;
        loop {
            let error = match attempt() {
                Err(error) => error,
                done @ Ok(_) => return done,
            };
            let Some(needed_bytes) = error.needed_bytes() else { return Err(error) };
            if evicted_bytes > EVICTED_BYTES_MIN.saturating_add(needed_bytes.saturating_mul(EVICTED_TIMES_NEEDED)) {
                return Err(error);
            }
            let Some(bytes) = self.evict() else { return Err(error) };
            evicted_bytes += bytes;
            self.heap.collect();
        }
    }

    pub(crate) fn apply_delta(&self, entry: &Arc<Entry>, part: &DeltaPart, writer: Incarnation, decoded: &Decoded<'_>) {
        // Its versions do not tell what a stale copy lacks: it may have missed adds, and a refused commit has taken the
        // number of the one that won.
        if !entry.takes_deltas() {
            return;
        }
        let mut versions: SmallVec<[(GroupIndex, u64); 1]> = SmallVec::new();
        if let Some(index) = entry.binding.group_index(part.group) {
            let held = Version::from_bits(entry.object.version(index)).number();
            let next = part.version.number();
            if next <= held {
                return;
            }
            // The coordinator numbers adds, and does not send this node its own.
            if part.group != GroupId::COMMUTATIVE && next != held + 1 {
                self.make_stale(entry);
                return;
            }
            versions.push((index, part.version.to_bits()));
        }
        let mut good = decoded.writes.clone();
        loop {
            match self.with_room(|| entry.object.apply(&good, &versions)) {
                Ok(()) => {
                    entry.heal(good.iter().map(SlotWrite::slot));
                    return self.reset_slots(entry, &decoded.unset);
                }
                Err(ApplyError::Corrupt { slot, .. }) if good.iter().any(|write| write.slot() == slot) => {
                    entry.mark_corrupt(slot, Some(writer));
                    good.retain(|write| write.slot() != slot);
                }
                Err(_) => {
                    self.make_stale(entry);
                    return;
                }
            }
        }
    }

    fn reset_slots(&self, entry: &Arc<Entry>, slots: &[u16]) {
        for slot in slots {
            let Ok(defaults) = entry.binding.default_of(*slot) else {
                continue;
            };
            if self.with_room(|| entry.object.apply(&slot_writes(defaults.as_slice()), &[])).is_err() {
                self.make_stale(entry);
            }
            entry.note_rewrite();
        }
    }

    fn make_stale(&self, entry: &Arc<Entry>) {
        Counters::count(&self.counters.stale);
        entry.set_state(State::Stale);
    }

    /// Makes a commit: publishes it here and queues it, all or nothing. `life` is the node's from before the locks were
    /// taken that it is made under, if any were.
    ///
    /// # Errors
    /// [`CommitError`]; then nothing happened.
    pub fn commit(&self, life: Option<u64>, changed: &[Changed<'_>], waiter: Waiter) -> Result<CommitSeq, CommitError> {
        self.commit_to_keep(life, None, changed, waiter)
    }

    /// As [`commit`](Self::commit). When the lease lapses before the answer, the commit goes into the journal.
    ///
    /// # Errors
    /// [`CommitError`]; then nothing happened.
    pub fn commit_to_keep(
        &self,
        life: Option<u64>,
        keep: Option<OnReturn>,
        changed: &[Changed<'_>],
        waiter: Waiter,
    ) -> Result<CommitSeq, CommitError> {
        let mut parts: SmallVec<[OutPart; 2]> = SmallVec::new();
        let mut prepared: SmallVec<[Prepared<'_>; 1]> = SmallVec::new();
        for Changed { entry, changes, seen } in changed {
            if entry.state() == State::Destroyed {
                return Err(CommitError::Destroyed { object: entry.id() });
            }
            if entry.is_provisional() {
                // The cluster does not know it yet.
                return Err(CommitError::Fenced);
            }
            let mut versions = SmallVec::new();
            for (index, writes) in entry.binding.encode(changes) {
                let part = self.out_part(entry, index, writes);
                if part.group != GroupId::COMMUTATIVE {
                    versions.push((index, part.version.to_bits()));
                }
                parts.push(part);
            }
            // Behind the numbers of the parts: when a copy is put right after this, they are too high, and the coordinator refuses.
            if let Some(undone) = seen.and_then(|seen| seen.undone(entry)) {
                // After a lapse others may have had the lock.
                let is_fenced = life.is_some_and(|life| life != self.link.life());
                return Err(if is_fenced { CommitError::Fenced } else { undone });
            }
            prepared.push(Prepared { entry, writes: slot_writes(changes), versions });
        }
        check_size(&parts)?;
        merge_objects(&mut prepared);
        // Before the outbox is locked: the gate comes first wherever both are taken.
        let _all = (prepared.len() > 1).then(|| self.gate.write().unwrap_or_else(PoisonError::into_inner));
        let queued =
            self.with_room(|| self.outbox.commit_to_keep(life, keep, &parts, waiter.clone(), || publish(&prepared)));
        let seq = queued.map_err(|error| match error {
            QueueError::Publish(error) => error,
            QueueError::Full => CommitError::OutboxFull,
            QueueError::Closed => CommitError::Disconnected,
            QueueError::Fenced => CommitError::Fenced,
        })?;
        for one in &prepared {
            one.entry.heal(one.writes.iter().map(SlotWrite::slot));
        }
        Ok(seq)
    }

    pub(crate) fn out_part(&self, entry: &Entry, index: GroupIndex, writes: Encoded) -> OutPart {
        let object = entry.id();
        match entry.binding.groups().get(usize::from(index)) {
            Some(&group) => {
                let version = Version::from_bits(entry.object.version(index)).next_in(self.link.epoch());
                OutPart { object, group, token: entry.locks()[usize::from(index)].token(), version, writes }
            }
            None => {
                let (token, version) = (Token::default(), Version::default());
                OutPart { object, group: GroupId::COMMUTATIVE, token, version, writes }
            }
        }
    }

    /// A commit of this node was refused: what it published here is not so. The objects are fetched anew.
    pub(crate) fn undo(&self, commit: Option<Commit>, told: bool, failure: Failure) {
        Counters::count(&self.counters.refused);
        let Some(commit) = commit else { return };
        for part in &commit.parts {
            let Some(entry) = self.cache.get(part.object) else {
                continue;
            };
            entry.set_state(State::Stale);
            self.refetch_quietly(&entry);
        }
        if !told {
            self.note_refusal(commit.parts.iter().map(|part| part.object).collect(), failure);
        }
    }

    /// Fetches a stale object anew, without anybody waiting for it.
    pub(crate) fn refetch_quietly(&self, entry: &Arc<Entry>) {
        self.ask(|request| {
            let pending = Pending::Refetch { entry: Arc::clone(entry), ticket: None };
            (ToCoordinator::Refetch { request, object: entry.id() }, pending)
        });
    }

    /// Fetches every stale object anew, without anybody waiting for it. Nothing while the connection is lost: what is
    /// asked for then is kept, to be asked once there is another.
    pub fn refetch_stale(&self) {
        if !self.link.is_synced() {
            return;
        }
        for id in self.cache.stale() {
            if let Some(entry) = self.cache.get(id) {
                self.refetch_quietly(&entry);
            }
        }
    }

    /// Holds commits over several objects back, so that their objects can be looked at together.
    pub fn view_together(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves some lock groups of an object.
    pub fn leave_groups(&self, entry: &Entry, groups: std::ops::Range<usize>, mode: Mode) {
        for index in groups {
            entry.locks()[index].leave(entry.lock_context(index, &self.outbox, &self.requests), mode);
        }
    }
}

/// Decodes a record and gives it to `store`; bad archives are replaced by their field's default.
pub(crate) fn read_record<R>(
    binding: &Binding,
    record: &Record,
    store: impl Fn(&[SlotWrite<'_>], &[u64]) -> Result<R, ApplyError>,
) -> Result<(R, Vec<u16>), RequestError> {
    let bad = |error: &dyn std::fmt::Display| RequestError::BadRecord(error.to_string());
    let mut versions = vec![0; binding.groups().len() + 1];
    for (group, version) in &record.versions {
        if let Some(index) = binding.group_index(*group) {
            versions[usize::from(index)] = version.to_bits();
        }
    }
    let mut tail = Tail::default();
    let decoded = binding.decode(&record.writes, &mut tail).map_err(|error| bad(&error))?;
    let mut corrupt: Vec<u16> = Vec::new();
    for _ in 0..=usize::from(u16::MAX) {
        let good = || decoded.writes.iter().filter(|write| !corrupt.contains(&write.slot()));
        let defaults = binding.defaults_for(good().map(SlotWrite::slot)).map_err(|error| bad(&error))?;
        let mut writes: SmallVec<[SlotWrite<'_>; 16]> = good().copied().collect();
        writes.extend(slot_writes(defaults.as_slice()));
        match store(&writes, &versions) {
            Ok(made) => return Ok((made, corrupt)),
            Err(ApplyError::Corrupt { slot, .. }) if !corrupt.contains(&slot) => corrupt.push(slot),
            Err(ApplyError::Full { needed_bytes }) => return Err(RequestError::ArenaFull { needed_bytes }),
            Err(error) => return Err(bad(&error)),
        }
    }
    Err(RequestError::BadRecord("every slot is corrupt".to_owned()))
}

/// Guards of several groups of one object make one table of it. In the order of ids, in which writers of several
/// objects take their turns.
pub(crate) fn merge_objects(prepared: &mut SmallVec<[Prepared<'_>; 1]>) {
    prepared.sort_by_key(|one| one.entry.id());
    prepared.dedup_by(|later, earlier| {
        let same = later.entry.id() == earlier.entry.id();
        if same {
            earlier.writes.append(&mut later.writes);
            earlier.versions.append(&mut later.versions);
        }
        same
    });
}

pub(crate) fn publish(prepared: &[Prepared<'_>]) -> Result<(), CommitError> {
    if let [one] = prepared {
        return one.entry.object.apply(&one.writes, &one.versions).map_err(|error| apply_error(one.entry, &error));
    }
    let mut ready = SmallVec::<[_; 4]>::new();
    for one in prepared {
        let next = one.entry.object.prepare(&one.writes, &one.versions);
        ready.push(next.map_err(|error| apply_error(one.entry, &error))?);
    }
    for next in ready {
        next.publish();
    }
    Ok(())
}

pub(crate) fn check_size(parts: &[OutPart]) -> Result<(), CommitError> {
    if parts.len() > PARTS_MAX {
        return Err(CommitError::TooLarge { bytes: parts.len(), limit: PARTS_MAX });
    }
    let bytes: usize = parts.iter().map(|part| part.writes.len()).sum();
    // A frame has room for the heads of the parts beside the largest record.
    let limit = RECORD_BYTES_MAX.min(FRAME_BYTES_MAX - parts.len() * 64);
    if bytes > limit { Err(CommitError::TooLarge { bytes, limit }) } else { Ok(()) }
}

#[cfg(all(test, not(loom)))]
mod tests;
