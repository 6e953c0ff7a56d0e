//! One resident object.

use crate::binding::Binding;
use crate::lock::{GroupLock, LockContext, LockFailure, RequestIds};
use crate::outbox::Outbox;
use kiln_heap::Object;
use kiln_protocol::{GroupId, Incarnation, ObjectId, RootId};
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// How far the copy of a handle can be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Kept up to date by deltas.
    Current,
    /// A delta could not be kept: the last version held is shown, and the next coherent access fetches the object.
    Stale,
    /// Removed from the cluster.
    Destroyed,
}

const CURRENT: u8 = 0;
const STALE: u8 = 1;
const DESTROYED: u8 = 2;

/// A field whose last write was not a valid archive of its type. The version before it is shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Corrupt {
    /// The field's name.
    pub field: &'static str,
    /// Who wrote it; `None` when it came with a record.
    pub writer: Option<Incarnation>,
    pub(crate) slot: u16,
}

/// See the module.
#[derive(Debug)]
pub struct Entry {
    /// The object's id.
    pub id: ObjectId,
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
    /// Whether `corrupt` was ever more than empty: commits look here first.
    any_corrupt: AtomicBool,
    corrupt: Mutex<Vec<Corrupt>>,
    /// What this process keeps beside the object, made at first use.
    pub local: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Entry {
    pub(crate) fn new(id: ObjectId, root: RootId, key: &[u8], object: Object, binding: Arc<Binding>) -> Self {
        let locks = binding.groups().iter().map(|_| GroupLock::default()).collect();
        Self {
            id,
            root,
            object,
            binding,
            key: Mutex::new(key.into()),
            locks,
            state: AtomicU8::new(CURRENT),
            touched: AtomicBool::new(true),
            any_corrupt: AtomicBool::new(false),
            corrupt: Mutex::default(),
            local: OnceLock::new(),
        }
    }

    /// The object's key, in canonical form.
    pub fn key(&self) -> Arc<[u8]> {
        Arc::clone(&self.key.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far this copy can be trusted.
    pub fn state(&self) -> State {
        // Acquire: pairs with the release in `set_state`; what made the copy current is seen.
        match self.state.load(Ordering::Acquire) {
            CURRENT => State::Current,
            STALE => State::Stale,
            _ => State::Destroyed,
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        let to = match state {
            State::Current => CURRENT,
            State::Stale => STALE,
            State::Destroyed => DESTROYED,
        };
        let mut now = self.state.load(Ordering::Relaxed);
        // Nothing comes back from destruction (S10).
        while now != DESTROYED {
            match self.state.compare_exchange_weak(now, to, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    /// Marks the object as used, for eviction.
    pub fn touch(&self) {
        // Relaxed: a hint. Loaded first, so that readers of one object do not write to a shared line each time.
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
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
        LockContext { object: self.id, group: self.binding.groups()[index], outbox, requests }
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
        self.any_corrupt.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self, slots: impl Iterator<Item = u16>) {
        if !self.any_corrupt.load(Ordering::Relaxed) {
            return;
        }
        let mut corrupt = self.corrupt.lock().unwrap_or_else(PoisonError::into_inner);
        if !corrupt.is_empty() {
            for slot in slots {
                corrupt.retain(|known| known.slot != slot);
            }
        }
    }
}
