//! One resident object.

use crate::binding::{Binding, GroupIndex};
use crate::cache::RootCache;
use crate::lock::{GroupLock, LockContext, LockFailure, RequestIds};
use crate::outbox::Outbox;
use crate::refusal::CommitError;
use crate::uses::Noted;
use kiln_heap::{ApplyError, Object, SlotWrite};
use kiln_object::ValueError;
use kiln_protocol::{GroupId, Incarnation, ObjectId, RootId, Version};
use smallvec::SmallVec;
use std::any::Any;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How far the copy of a handle can be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Kept up to date by deltas.
    Current,
    /// A delta could not be kept: the last version held is shown, and the next coherent access fetches the object.
    Stale,
    /// Shows what was changed here while the cluster is away, or is not replayed yet: no other node shows that.
    Local,
    /// Removed from the cluster, or here while the cluster is away.
    Destroyed,
}

const CURRENT: u8 = 0;
const STALE: u8 = 1;
const DESTROYED: u8 = 2;
const LOCAL: u8 = 3;
/// Local changes on top of a record, under locks: kept up to date by deltas.
const LOCAL_OVER_RECORD: u8 = 4;
/// Objects that were made here while the cluster is away have ids of this node alone from the top downwards, where no
/// coordinator gets to.
const PROVISIONAL: u64 = u64::MAX << 48;

/// A field whose last write was not a valid archive of its type. The version before it is shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Corrupt {
    /// The field's name.
    pub field: &'static str,
    /// Who wrote it; `None` when it came with a record.
    pub writer: Option<Incarnation>,
    pub(crate) slot: u16,
}

/// The versions of the locked groups that whoever changes an object has seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The first group's local index.
    first: GroupIndex,
    versions: SmallVec<[u64; 4]>,
}

impl Seen {
    /// Whether something of that is not so any more. Under a lock it can only have been a commit of this node that was refused.
    pub fn undone(&self, entry: &Entry) -> Option<CommitError> {
        let pinned = entry.object.pin();
        let (index, seen, current) = (self.first..)
            .zip(&self.versions)
            .map(|(index, seen)| (index, Version::from_bits(*seen), Version::from_bits(pinned.version(index))))
            .find(|(_, seen, current)| seen.number() != current.number())?;
        let group = entry.binding.groups()[usize::from(index)];
        Some(CommitError::Undone { object: entry.id(), group, current, seen })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Entry {
    id: AtomicU64,
    /// Its root.
    pub root: RootId,
    /// Its slots.
    pub object: Object,
    /// What its slots mean.
    pub binding: Arc<Binding>,
    pub(crate) key: Mutex<Arc<[u8]>>,
    locks: Box<[GroupLock]>,
    state: AtomicU8,
    touched: AtomicBool,
    /// Of a root with timeouts.
    noted: Option<Noted>,
    /// Whether `corrupt` or `left_out` was ever more than empty: commits look here first.
    any_missing: AtomicBool,
    corrupt: Mutex<Vec<Corrupt>>,
    /// Fields that a commit of this node left out, by slot.
    left_out: Mutex<Vec<(u16, Arc<ValueError>)>>,
    /// This process shows the object with changes that it keeps to itself.
    kept_local: AtomicBool,
    rewrites: AtomicU32,
    /// What this process keeps beside the object, made at first use.
    pub beside: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Entry {
    pub(crate) fn new(id: ObjectId, root: &RootCache, key: &[u8], object: Object) -> Self {
        let (noted, binding) = (root.uses.clone().map(Noted::new), Arc::clone(&root.binding));
        let locks = binding.groups().iter().map(|_| GroupLock::default()).collect();
        Self {
            id: AtomicU64::new(id.to_bits()),
            root: root.id,
            object,
            binding,
            key: Mutex::new(key.into()),
            locks,
            state: AtomicU8::new(CURRENT),
            touched: AtomicBool::new(true),
            noted,
            any_missing: AtomicBool::new(false),
            corrupt: Mutex::default(),
            left_out: Mutex::default(),
            kept_local: AtomicBool::new(false),
            rewrites: AtomicU32::new(0),
            beside: OnceLock::new(),
        }
    }

    /// The object's id. It changes once for an object that was made here while the cluster was away.
    pub fn id(&self) -> ObjectId {
        // Acquire: pairs with the release in `adopt`.
        ObjectId::from_bits(self.id.load(Ordering::Acquire))
    }

    /// The `number`-th id of an object that only this node knows.
    pub(crate) const fn provisional_id(number: u64) -> ObjectId {
        ObjectId::from_bits(u64::MAX - number)
    }

    /// Whether only this node knows the object.
    pub fn is_provisional(&self) -> bool {
        Self::is_provisional_id(self.id())
    }

    pub(crate) const fn is_provisional_id(id: ObjectId) -> bool {
        id.to_bits() >= PROVISIONAL
    }

    /// The cluster knows the object by this id.
    pub(crate) fn adopt(&self, id: ObjectId) {
        self.id.store(id.to_bits(), Ordering::Release);
    }

    /// The object's key, in canonical form.
    pub fn key(&self) -> Arc<[u8]> {
        Arc::clone(&self.key.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this is the object's key.
    pub fn has_key(&self, key: &[u8]) -> bool {
        **self.key.lock().unwrap_or_else(PoisonError::into_inner) == *key
    }

    /// How far this copy can be trusted.
    pub fn state(&self) -> State {
        // Acquire: pairs with the release in `set_state`; what made the copy current is seen.
        match self.state.load(Ordering::Acquire) {
            CURRENT => State::Current,
            STALE => State::Stale,
            LOCAL | LOCAL_OVER_RECORD => State::Local,
            _ => State::Destroyed,
        }
    }

    /// Whether deltas lead from what is shown to what is current.
    pub(crate) fn takes_deltas(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), CURRENT | LOCAL_OVER_RECORD)
    }

    /// What is shown is a record, with local changes on top.
    pub(crate) fn is_over_record(&self) -> bool {
        self.state.load(Ordering::Acquire) == LOCAL_OVER_RECORD
    }

    /// A record was put under the local changes.
    pub(crate) fn set_over_record(&self) {
        self.change_state(|now| if now == LOCAL { LOCAL_OVER_RECORD } else { now });
    }

    /// There are no local changes any more. What is shown is current if a record is under it that `is_good`.
    pub(crate) fn settle(&self, is_good: bool) {
        self.change_state(|now| match now {
            LOCAL_OVER_RECORD if is_good => CURRENT,
            LOCAL | LOCAL_OVER_RECORD => STALE,
            other => other,
        });
    }

    pub(crate) fn set_state(&self, state: State) {
        self.change_state(|now| match (state, now) {
            (State::Current, _) => CURRENT,
            // Local changes stay until they are settled.
            (State::Stale, LOCAL | LOCAL_OVER_RECORD) | (State::Local, _) => LOCAL,
            (State::Stale, _) => STALE,
            (State::Destroyed, _) => DESTROYED,
        });
    }

    fn change_state(&self, next: impl Fn(u8) -> u8) {
        // Nothing comes back from destruction (S10). Release: pairs with the acquire in `state`.
        let change = |now| (now != DESTROYED).then(|| next(now));
        let _before = self.state.fetch_update(Ordering::Release, Ordering::Relaxed, change);
    }

    /// The versions of these groups that are shown here now.
    pub fn seen(&self, groups: Range<usize>) -> Seen {
        let pinned = self.object.pin();
        let first = GroupIndex::try_from(groups.start).unwrap_or(GroupIndex::MAX);
        Seen { first, versions: (first..).take(groups.len()).map(|group| pinned.version(group)).collect() }
    }

    /// Replaces what is shown.
    pub(crate) fn replace(&self, writes: &[SlotWrite<'_>], versions: &[u64]) -> Result<(), ApplyError> {
        self.object.replace(writes, versions)?;
        self.note_rewrite();
        Ok(())
    }

    /// What is shown is not the same any more, whatever its versions are.
    pub(crate) fn note_rewrite(&self) {
        // Release: whoever sees the number sees what it is about.
        self.rewrites.fetch_add(1, Ordering::Release);
    }

    /// A number that is another one after something was shown that its version does not tell from what was shown before: of a
    /// commit that was refused, or of one that was made alone. To be read before the object is.
    pub fn rewrites(&self) -> u32 {
        self.rewrites.load(Ordering::Acquire)
    }

    /// Marks the object as used, for eviction.
    pub fn touch(&self) {
        // Relaxed: a hint. Loaded first, so that readers of one object do not write to a shared line each time.
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// The program uses the object: in a root with timeouts it is not idle.
    #[inline]
    pub fn note_use(&self) {
        if let Some(noted) = &self.noted {
            noted.note(|| self.id());
        }
    }

    /// Whether this process shows the object with changes that it keeps to itself: they are beside it, and only there.
    #[inline]
    pub fn is_kept_local(&self) -> bool {
        // Acquire: pairs with the release in `keep_local`; what is beside the object is seen.
        self.kept_local.load(Ordering::Acquire)
    }

    /// See [`is_kept_local`](Self::is_kept_local). Such an object is not evicted.
    pub fn keep_local(&self, kept_local: bool) {
        self.kept_local.store(kept_local, Ordering::Release);
    }

    pub(crate) fn untouch(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }

    /// The locks, by local group index.
    pub fn locks(&self) -> &[GroupLock] {
        &self.locks
    }

    /// What the lock with this local index needs.
    pub fn lock_context<'a>(&self, index: usize, outbox: &'a Outbox, requests: &'a RequestIds) -> LockContext<'a> {
        LockContext { object: self.id(), group: self.binding.groups()[index], outbox, requests }
    }

    pub(crate) fn lock_of(&self, group: GroupId) -> Option<(usize, &GroupLock)> {
        let index = self.binding.groups().iter().position(|known| *known == group)?;
        Some((index, &self.locks[index]))
    }

    pub(crate) fn lose_locks(&self, failure: &LockFailure) {
        for lock in &self.locks {
            lock.lost(failure);
        }
    }

    /// Fields whose last write was not a valid archive.
    pub fn corrupt(&self) -> Vec<Corrupt> {
        self.corrupt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn mark_corrupt(&self, slot: u16, writer: Option<Incarnation>) {
        let field = self.binding.slot_name(slot);
        let mut corrupt = self.corrupt.lock().unwrap_or_else(PoisonError::into_inner);
        corrupt.retain(|known| known.slot != slot);
        corrupt.push(Corrupt { field, writer, slot });
        // Relaxed: the lock of the group orders whoever marks a field before whoever writes it again.
        self.any_missing.store(true, Ordering::Relaxed);
    }

    /// Fields whose last change here could not be archived, and that nobody has changed since.
    pub fn left_out(&self) -> Vec<Arc<ValueError>> {
        let left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.iter().map(|(_, error)| Arc::clone(error)).collect()
    }

    /// A commit goes on without these fields.
    pub fn leave_out(&self, errors: Vec<ValueError>) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        for error in errors {
            let Some(slot) = self.binding.slot_named(error.field()) else { continue };
            left_out.retain(|(known, _)| *known != slot);
            left_out.push((slot, Arc::new(error)));
        }
        // Relaxed: as in `mark_corrupt`.
        self.any_missing.store(true, Ordering::Relaxed);
    }

    /// These slots are written: what was wrong with them before is not any more.
    pub fn heal(&self, slots: impl Iterator<Item = u16>) {
        if !self.any_missing.load(Ordering::Relaxed) {
            return;
        }
        let mut corrupt = self.corrupt.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if !corrupt.is_empty() || !left_out.is_empty() {
            for slot in slots {
                corrupt.retain(|known| known.slot != slot);
                left_out.retain(|(known, _)| *known != slot);
            }
        }
    }
}
