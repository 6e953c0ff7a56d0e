//! Changes that stay in this process, because a field of theirs cannot be archived and its policy says so.

use super::commit::{Commit, Level, Terms, commit_error, queue_leaving};
use super::error::CommitError;
use super::guard::{Pending, is_locked};
use super::runtime::Attached;
use crate::clock::boot_nanos;
use kiln_engine::{Changed, Entry, State, apply_error};
use kiln_heap::{ApplyError, Object, Pinned, SlotKind, SlotWrite};
use kiln_object::{Change, Changes, KeptLocal};
use kiln_protocol::limits::RECORD_BYTES_MAX;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A longer commit is refused. Leaves room for what stands around the values.
const COMMIT_BYTES_MAX: usize = RECORD_BYTES_MAX - (1 << 20);

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
pub(super) fn shown<'a>(runtime: &Attached, entry: &'a Entry) -> &'a Object {
    if entry.is_kept_local() { shown_locally(runtime, entry) } else { &entry.object }
}

#[cold]
fn shown_locally<'a>(runtime: &Attached, entry: &'a Entry) -> &'a Object {
    let Some(copy) = LocalCopy::known(entry) else { return &entry.object };
    if let Err(error) = LocalCopy::refresh_all(runtime, entry) {
        // What is there is shown on. Whoever has a lock has made sure before.
        tracing::debug!(%error, object = %entry.id(), "what other nodes have changed is not shown");
    }
    // It may be distributed just now.
    if entry.is_kept_local() { &copy.object } else { &entry.object }
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
    /// They are on the way to the outbox: what is added meanwhile is not among them.
    is_leaving: bool,
}

/// Tells what the cluster has of an object from what it had before.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Base {
    rewrites: u32,
    versions: Vec<u64>,
    counters: Vec<u64>,
}

impl Base {
    /// Of an object that has had so many rewrites before it was pinned.
    fn of(entry: &Entry, rewrites: u32, pinned: &Pinned<'_>) -> Self {
        let groups = u8::try_from(entry.binding.shape.groups()).unwrap_or(u8::MAX);
        Self {
            rewrites,
            versions: (0..groups).map(|group| pinned.version(group)).collect(),
            counters: entry.binding.counters().map(|slot| pinned.scalar(slot)).collect(),
        }
    }
}

impl Kept {
    /// What is kept once these changes are as well.
    fn with(&self, changes: &Changes, unarchived: &[u16], shown: &Pinned<'_>) -> Self {
        let mut next = self.clone();
        for change in changes {
            next.unarchived.remove(&change.slot());
            next.keep(change.clone(), shown);
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
            && self.changes.values().map(|change| change.bytes()).sum::<usize>() <= COMMIT_BYTES_MAX
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
        if entry.is_kept_local() { Beside::of(entry).copy.get() } else { None }
    }

    /// The object's, made at its first use.
    pub(super) fn of(entry: &Entry) -> Result<&Self, ApplyError> {
        let copy = &Beside::of(entry).copy;
        if let Some(copy) = copy.get() {
            return Ok(copy);
        }
        let pinned = entry.object.pin();
        let versions = Base::of(entry, 0, &pinned).versions;
        let object = Object::new(entry.object.heap(), &entry.binding.shape, &content(entry, &pinned), &versions)?;
        Ok(copy.get_or_init(|| Self { object, turn: tokio::sync::Mutex::default(), kept: Mutex::default() }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a new guard sees is what the cluster has, with what is kept on top.
    pub(super) fn refresh_all(runtime: &Attached, entry: &Entry) -> Result<(), ApplyError> {
        Self::known(entry).map_or(Ok(()), |copy| runtime.node.with_room(|| copy.refresh(entry)))
    }

    /// Puts what is kept on top of what the cluster has by now.
    fn refresh(&self, entry: &Entry) -> Result<(), ApplyError> {
        let mut kept = self.kept();
        let rewrites = entry.rewrites();
        let pinned = entry.object.pin();
        let base = Base::of(entry, rewrites, &pinned);
        if !entry.is_kept_local() || kept.base.as_ref() == Some(&base) {
            return Ok(());
        }
        self.show(entry, &pinned, base, &mut kept)
    }

    fn show(&self, entry: &Entry, pinned: &Pinned<'_>, base: Base, kept: &mut Kept) -> Result<(), ApplyError> {
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
        changes: &Changes,
        why: Option<&KeptLocal>,
    ) -> Result<Placed<'a>, ApplyError> {
        let unarchived: Vec<_> = why.into_iter().flat_map(|why| unarchived_slots(entry, why)).collect();
        let mut kept = self.kept();
        let before = if entry.is_kept_local() { kept.clone() } else { Kept::default() };
        let rewrites = entry.rewrites();
        let pinned = entry.object.pin();
        let mut next = before.with(changes, &unarchived, &pinned);
        next.is_stopped |= why.is_some_and(|why| why.stops);
        if next.can_leave(entry, groups) {
            let all = next.changes.into_values().map(Arc::unwrap_or_clone).collect();
            kept.is_leaving = true;
            return Ok(Placed::Together(all, Leaving { copy: self, entry, before, is_queued: AtomicBool::new(false) }));
        }
        self.show(entry, &pinned, Base::of(entry, rewrites, &pinned), &mut next)?;
        *kept = next;
        entry.heal(changes.iter().map(Change::slot));
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
        let add = Change::Add { slot, amount };
        copy.object.apply(&[add.as_write()], &[])?;
        kept.keep(add, &entry.object.pin());
        Ok(true)
    }
}

/// Slots that a commit leaves out, because they cannot be archived.
pub(super) fn unarchived_slots<'a>(entry: &'a Entry, why: &'a KeptLocal) -> impl Iterator<Item = u16> {
    why.unarchived.iter().filter_map(|error| entry.binding.slot_named(error.field()))
}

/// A commit with all that was kept.
pub(super) struct Leaving<'a> {
    copy: &'a LocalCopy,
    entry: &'a Entry,
    before: Kept,
    is_queued: AtomicBool,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if !*self.is_queued.get_mut() {
            self.copy.kept().is_leaving = false;
        }
    }
}

impl Leaving<'_> {
    /// Tries to queue it. From then on nothing is kept, and nobody sees it twice, or not at all, between the two.
    pub(super) fn attempt<R, E>(&self, queue: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        let mut kept = self.copy.kept();
        let queued = queue()?;
        *kept = Kept::default();
        self.entry.keep_local(false);
        // Relaxed: only whoever has this value reads it.
        self.is_queued.store(true, Ordering::Relaxed);
        Ok(queued)
    }

    /// It was refused: what was kept before it is kept again, beneath what was since.
    pub(super) fn take_back(&self) -> Result<(), ApplyError> {
        let mut kept = self.copy.kept();
        let rewrites = self.entry.rewrites();
        let pinned = self.entry.object.pin();
        let mut next = self.before.clone();
        if self.entry.is_kept_local() {
            let since = Kept::clone(&kept);
            since.changes.into_values().for_each(|change| next.keep(Arc::unwrap_or_clone(change), &pinned));
            next.unarchived.extend(since.unarchived);
            next.is_stopped |= since.is_stopped;
        }
        if next.changes.is_empty() && next.unarchived.is_empty() {
            return Ok(());
        }
        self.copy.show(self.entry, &pinned, Base::of(self.entry, rewrites, &pinned), &mut next)?;
        *kept = next;
        self.entry.keep_local(true);
        Ok(())
    }
}

impl<T> Pending<'_, T> {
    /// As [`commit`](Self::commit), where changes stay in this process or did until now.
    pub(super) async fn place(
        self,
        why: Option<Box<KeptLocal>>,
        level: Level,
        queued: impl FnOnce(),
    ) -> Result<Commit, CommitError> {
        let Self { shared, groups, life, incarnation, changes, seen } = self;
        let (runtime, entry, timeout) = (&shared.runtime, &shared.entry, shared.timeout);
        let no_room = |error| commit_error(runtime, apply_error(entry, &error), timeout);
        let copy = runtime.node.with_room(|| LocalCopy::of(entry)).map_err(no_room)?;
        let turn = tokio::time::timeout(timeout, copy.turn.lock()).await;
        let turn = turn.map_err(|_elapsed| CommitError::OutboxFull { waited: timeout })?;
        let link = &runtime.node.link;
        if entry.state() == State::Destroyed {
            return Err(CommitError::Destroyed);
        }
        if runtime.node.ended().is_some() {
            return Err(CommitError::Disconnected);
        }
        if link.life() != life || !link.is_leased(boot_nanos()) {
            return Err(if shared.away.on_return().is_some() { CommitError::Away } else { CommitError::Fenced });
        }
        if seen.undone(entry).is_some() {
            return Err(CommitError::Undone);
        }
        let place = || copy.place(entry, groups, &changes, why.as_deref());
        match runtime.node.with_room(place).map_err(no_room)? {
            Placed::Here => {
                if let Some(why) = why {
                    let KeptLocal { unarchived, too_long, stops } = *why;
                    for error in unarchived.iter().chain(&too_long) {
                        tracing::warn!(%error, object = %entry.id(), for_good = stops, "changes stay in this process");
                    }
                    entry.leave_out(unarchived.into_iter().chain(too_long).collect());
                }
                drop(turn);
                queued();
                Ok(Commit { is_local: true, ..Commit::nothing(incarnation) })
            }
            Placed::Together(all, leaving) => {
                let changed = [Changed { entry, changes: &all, seen: Some(seen) }];
                let terms = Terms { incarnation, life, level, on_return: None, timeout };
                let made = queue_leaving(runtime, terms, &changed, &leaving).await?;
                drop(turn);
                queued();
                let settled = made.settle().await;
                if let Err(CommitError::Refused(_) | CommitError::Destroyed) = &settled {
                    runtime.node.with_room(|| leaving.take_back()).map_err(no_room)?;
                }
                settled
            }
        }
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
