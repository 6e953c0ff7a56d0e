//! Changes that stay in this process, because a field of theirs cannot be archived and its policy says so.

use super::commit::Commit;
use super::error::CommitError;
use super::guard::is_locked;
use kiln_engine::Entry;
use kiln_heap::{ApplyError, Object, Pinned, SlotKind, SlotWrite};
use kiln_object::{Change, Changes, KeptLocal};
use kiln_protocol::Incarnation;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Whether what this process changes of an object goes to the other nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Distribution {
    /// It does.
    Distributed,
    /// It stays in this process for now, because a field with `on_archive_failure = "keep_local"` could not be archived.
    KeptLocal,
    /// It stays in this process for as long as the object is there, because a field with `on_archive_failure = "stop"` could
    /// not be archived.
    Stopped,
}

impl Distribution {
    pub(super) fn of(entry: &Entry) -> Self {
        if !entry.is_kept_local() {
            return Self::Distributed;
        }
        let is_stopped = LocalCopy::known(entry).is_some_and(|copy| copy.kept().is_stopped);
        if is_stopped { Self::Stopped } else { Self::KeptLocal }
    }
}

/// What this process keeps beside an object.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Its `local` fields.
    pub(super) fields: OnceLock<Box<dyn Any + Send + Sync>>,
    copy: OnceLock<LocalCopy>,
}

impl Beside {
    pub(super) fn of(entry: &Entry) -> &Self {
        let beside = entry.beside.get_or_init(|| Box::<Self>::default());
        beside.downcast_ref().expect("nothing else is ever put there")
    }
}

/// What this process shows of an object.
#[inline]
pub(super) fn shown(entry: &Entry) -> &Object {
    if entry.is_kept_local() { shown_locally(entry) } else { &entry.object }
}

#[cold]
fn shown_locally(entry: &Entry) -> &Object {
    let Some(copy) = LocalCopy::known(entry) else { return &entry.object };
    copy.refresh(entry);
    &copy.object
}

/// An object as the cluster has it, with the changes on top that stay in this process.
#[derive(Debug)]
pub(super) struct LocalCopy {
    object: Object,
    /// Commits take turns: one that distributes what is kept may have to wait for room.
    pub(super) turn: tokio::sync::Mutex<()>,
    kept: Mutex<Kept>,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    /// By slot, and of a map by key. A map's clear comes before its puts, and is the older one.
    changes: BTreeMap<(u16, Option<Vec<u8>>), Arc<Change>>,
    /// Slots whose last value could not be archived.
    unarchived: BTreeSet<u16>,
    /// What the copy was made of.
    base: Option<Base>,
    is_stopped: bool,
    /// They are being distributed: the cluster's version may have them already.
    is_leaving: bool,
}

/// Tells versions of an object apart. While changes are kept, this process commits none, so a version is not given twice.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Base {
    versions: Vec<u64>,
    counters: Vec<u64>,
}

impl Base {
    fn of(entry: &Entry, pinned: &Pinned<'_>) -> Self {
        let groups = u8::try_from(entry.binding.shape.groups()).unwrap_or(u8::MAX);
        Self {
            versions: (0..groups).map(|group| pinned.version(group)).collect(),
            counters: entry.binding.counters().map(|slot| pinned.scalar(slot)).collect(),
        }
    }
}

impl Kept {
    /// What is kept once these changes are as well.
    fn with(&self, changes: Changes, unarchived: &[u16], shown: &Pinned<'_>) -> Self {
        let mut next = self.clone();
        for change in changes {
            next.unarchived.remove(&change.slot());
            next.keep(change, shown);
        }
        next.unarchived.extend(unarchived);
        next
    }

    fn keep(&mut self, change: Change, shown: &Pinned<'_>) {
        let slot = change.slot();
        match change {
            Change::Scalar { .. } | Change::Block { .. } => drop(self.changes.insert((slot, None), Arc::new(change))),
            Change::Add { amount, .. } => {
                let before = match self.changes.get(&(slot, None)).map(|before| &**before) {
                    Some(Change::Add { amount, .. }) => *amount,
                    _ => 0,
                };
                let amount = before.wrapping_add(amount);
                self.changes.insert((slot, None), Arc::new(Change::Add { slot, amount }));
            }
            Change::MapPut { ref key, .. } => drop(self.changes.insert((slot, Some(key.clone())), Arc::new(change))),
            Change::MapRemove { ref key, .. } => {
                let at = (slot, Some(key.clone()));
                // What nobody else has need not be removed anywhere else.
                if shown.map(slot).contains(key) {
                    self.changes.insert(at, Arc::new(change));
                } else {
                    self.changes.remove(&at);
                }
            }
            Change::MapClear { .. } => {
                self.changes.retain(|(of, _), _| *of != slot);
                self.changes.insert((slot, None), Arc::new(change));
            }
        }
    }

    /// Whether other nodes can have all of it, under these locks.
    fn can_leave(&self, entry: &Entry, groups: &Range<usize>) -> bool {
        !self.is_stopped
            && self.unarchived.is_empty()
            && self.changes.values().all(|change| !change.is_too_long() && is_locked(entry, groups, change.slot()))
    }
}

/// Where a commit goes.
pub(super) enum Placed<'a> {
    /// To the other nodes, with all that was kept.
    Together(Vec<Change>, Leaving<'a>),
    /// Nowhere: it is kept.
    Here,
}

impl LocalCopy {
    fn known(entry: &Entry) -> Option<&Self> {
        entry.is_kept_local().then(|| Beside::of(entry).copy.get())?
    }

    /// The object's, made at its first use.
    pub(super) fn of(entry: &Entry) -> Result<&Self, ApplyError> {
        let copy = &Beside::of(entry).copy;
        if let Some(copy) = copy.get() {
            return Ok(copy);
        }
        let pinned = entry.object.pin();
        let versions = Base::of(entry, &pinned).versions;
        let object = Object::new(entry.object.heap(), &entry.binding.shape, &content(entry, &pinned), &versions)?;
        Ok(copy.get_or_init(|| Self { object, turn: tokio::sync::Mutex::default(), kept: Mutex::default() }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what is kept on top of what the cluster has by now.
    fn refresh(&self, entry: &Entry) {
        let mut kept = self.kept();
        let pinned = entry.object.pin();
        let is_behind = kept.base.as_ref() != Some(&Base::of(entry, &pinned));
        // Without room for it what is there is shown on.
        if is_behind && !kept.is_leaving && self.show(entry, &pinned, &mut kept).is_err() {
            tracing::debug!(object = %entry.id(), "no room in the heap for what other nodes changed");
        }
    }

    fn show(&self, entry: &Entry, pinned: &Pinned<'_>, kept: &mut Kept) -> Result<(), ApplyError> {
        let base = Base::of(entry, pinned);
        let mut writes = content(entry, pinned);
        writes.extend(kept.changes.values().map(|change| change.as_write()));
        self.object.replace(&writes, &base.versions)?;
        kept.base = Some(base);
        Ok(())
    }

    /// Keeps a commit, or says how it is distributed. The caller has its turn.
    pub(super) fn place<'a>(
        &'a self,
        entry: &'a Entry,
        groups: &Range<usize>,
        changes: Changes,
        why: Option<&KeptLocal>,
    ) -> Result<Placed<'a>, ApplyError> {
        let written: Vec<_> = changes.iter().map(Change::slot).collect();
        let unarchived: Vec<_> = why
            .into_iter()
            .flat_map(|why| &why.unarchived)
            .filter_map(|error| entry.binding.slot_named(error.field()))
            .collect();
        let mut kept = self.kept();
        let before = if entry.is_kept_local() { kept.clone() } else { Kept::default() };
        let pinned = entry.object.pin();
        let mut next = before.with(changes, &unarchived, &pinned);
        next.is_stopped |= why.is_some_and(|why| why.stops);
        if next.can_leave(entry, groups) {
            kept.is_leaving = entry.is_kept_local();
            let all = next.changes.into_values().map(Arc::unwrap_or_clone).collect();
            return Ok(Placed::Together(all, Leaving { copy: self, entry }));
        }
        self.show(entry, &pinned, &mut next)?;
        *kept = next;
        entry.heal(written.into_iter());
        entry.keep_local(true);
        Ok(Placed::Here)
    }

    /// Adds to a counter; `false` when that is for the other nodes.
    pub(super) fn add(entry: &Entry, slot: u16, amount: i64) -> Result<bool, ApplyError> {
        let Some(copy) = Self::known(entry) else { return Ok(false) };
        let mut kept = copy.kept();
        if kept.is_leaving || !entry.is_kept_local() {
            return Ok(false);
        }
        let pinned = entry.object.pin();
        let mut next = kept.clone();
        next.keep(Change::Add { slot, amount }, &pinned);
        copy.show(entry, &pinned, &mut next)?;
        *kept = next;
        Ok(true)
    }
}

/// A commit with all that was kept. Dropped before it is [`done`](Self::done), that is kept on.
pub(super) struct Leaving<'a> {
    copy: &'a LocalCopy,
    entry: &'a Entry,
}

impl Leaving<'_> {
    /// It is queued.
    pub(super) fn done(self) {
        let mut kept = self.copy.kept();
        *kept = Kept::default();
        self.entry.keep_local(false);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.copy.kept().is_leaving = false;
    }
}

/// The writes that make what is pinned.
fn content<'p>(entry: &Entry, pinned: &'p Pinned<'p>) -> Vec<SlotWrite<'p>> {
    let mut writes = Vec::new();
    for (slot, kind) in (0..).zip(entry.binding.shape.slots()) {
        match kind {
            SlotKind::Scalar => writes.push(SlotWrite::Scalar { slot, bits: pinned.scalar(slot) }),
            SlotKind::Text | SlotKind::Bytes | SlotKind::Archive(_) => {
                writes.push(SlotWrite::Block { slot, bytes: pinned.bytes(slot) });
            }
            SlotKind::Map(_) => {
                writes.extend(pinned.map(slot).iter().map(|(key, value)| SlotWrite::MapPut { slot, key, value }));
            }
        }
    }
    writes
}

/// A commit that stays in this process.
pub(super) const fn kept_commit(incarnation: Incarnation) -> Commit {
    Commit { is_local: true, ..Commit::nothing(incarnation) }
}

/// Without a policy that keeps them here, or where only half of a commit could be kept: nothing is committed.
pub(super) fn refuse_to_keep(entry: &Entry, changes: &mut Changes) -> Result<(), CommitError> {
    match changes.take_kept_local() {
        Some(why) => {
            let mut errors = why.unarchived.into_iter().chain(why.too_long);
            errors.next().map_or(Ok(()), |error| Err(error.into()))
        }
        None if entry.is_kept_local() && !changes.is_empty() => Err(CommitError::KeptLocal),
        None => Ok(()),
    }
}
