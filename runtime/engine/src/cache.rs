//! The near cache: which objects are resident, by id and by key, and which of them go when room is needed.

use crate::binding::Binding;
use crate::entry::{Entry, State};
use crate::uses::Uses;
use dashmap::DashMap;
use hashbrown::HashMap;
use kiln_protocol::{ObjectId, RootId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// References to an entry that the cache itself holds: by id, and by key.
const OWN_REFERENCES: usize = 2;
/// Entries that one search for a victim looks at.
const SCAN_MAX: usize = 4096;

/// The resident objects of one root.
#[derive(Debug)]
pub struct RootCache {
    /// The root.
    pub id: RootId,
    /// Its name.
    pub name: String,
    /// What its objects' slots mean.
    pub binding: Arc<Binding>,
    /// With timeouts: where uses of its objects are noted.
    pub(crate) uses: Option<Arc<Uses>>,
    by_key: DashMap<Arc<[u8]>, Arc<Entry>, hashbrown::DefaultHashBuilder>,
}

impl RootCache {
    /// A root without resident objects.
    pub(crate) fn new(id: RootId, name: String, binding: Arc<Binding>, uses: Option<Arc<Uses>>) -> Self {
        Self { id, name, binding, uses, by_key: DashMap::default() }
    }

    /// The resident object under this key.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        let entry = Arc::clone(self.by_key.get(key)?.value());
        entry.touch();
        entry.note_use();
        Some(entry)
    }
}

#[derive(Debug, Default)]
struct ById {
    entries: HashMap<ObjectId, Arc<Entry>>,
    /// Every resident id, in the order in which the clock hand meets it. May name ids that are gone.
    clock: VecDeque<ObjectId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Cache {
    by_id: Mutex<ById>,
    roots: DashMap<RootId, Arc<RootCache>, hashbrown::DefaultHashBuilder>,
}

impl Cache {
    fn lock(&self) -> MutexGuard<'_, ById> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a root; the one that is there already wins.
    pub fn add_root(&self, root: RootCache) -> Arc<RootCache> {
        Arc::clone(self.roots.entry(root.id).or_insert_with(|| Arc::new(root)).value())
    }

    /// An open root.
    pub fn root(&self, id: RootId) -> Option<Arc<RootCache>> {
        Some(Arc::clone(self.roots.get(&id)?.value()))
    }

    /// A resident object.
    pub fn get(&self, id: ObjectId) -> Option<Arc<Entry>> {
        self.lock().entries.get(&id).cloned()
    }

    /// Makes an object resident.
    pub fn insert(&self, root: &RootCache, entry: &Arc<Entry>) {
        let mut by_id = self.lock();
        if by_id.entries.insert(entry.id(), Arc::clone(entry)).is_none() {
            by_id.clock.push_back(entry.id());
        }
        root.by_key.insert(entry.key(), Arc::clone(entry));
    }

    /// The object is gone from the cluster; handles keep what they have.
    pub fn remove(&self, id: ObjectId) -> Option<Arc<Entry>> {
        let mut by_id = self.lock();
        let entry = by_id.entries.remove(&id)?;
        self.forget_key(&entry);
        Some(entry)
    }

    fn forget_key(&self, entry: &Arc<Entry>) {
        if let Some(root) = self.roots.get(&entry.root) {
            // Another object may live under the key by now.
            root.by_key.remove_if(&entry.key()[..], |_, known| Arc::ptr_eq(known, entry));
        }
    }

    /// An object that was made here has its id.
    pub(crate) fn adopt(&self, entry: &Arc<Entry>, id: ObjectId) {
        let mut by_id = self.lock();
        drop(by_id.entries.remove(&entry.id()));
        entry.adopt(id);
        if by_id.entries.insert(id, Arc::clone(entry)).is_none() {
            by_id.clock.push_back(id);
        }
    }

    /// The object has another key.
    pub fn rename(&self, id: ObjectId, key: &[u8]) {
        let by_id = self.lock();
        if let Some(entry) = by_id.entries.get(&id) {
            self.forget_key(entry);
            *entry.key.lock().unwrap_or_else(PoisonError::into_inner) = key.into();
            if let Some(root) = self.roots.get(&entry.root) {
                root.by_key.insert(entry.key(), Arc::clone(entry));
            }
        }
    }

    /// Takes out an object that nobody uses, the least recently used ones first. `None`: all are in use.
    pub fn evict(&self) -> Option<Arc<Entry>> {
        let mut by_id = self.lock();
        let turns = (by_id.clock.len() * 2).min(SCAN_MAX);
        for _ in 0..turns {
            let id = by_id.clock.pop_front()?;
            let Some(entry) = by_id.entries.get(&id) else { continue };
            if Arc::strong_count(entry) > OWN_REFERENCES || entry.is_kept_local() || entry.untouch() {
                by_id.clock.push_back(id);
                continue;
            }
            // New references come from the map by key, whose shard is locked while the count is read, or from the map
            // by id, which is locked here.
            let root = self.roots.get(&entry.root).map(|root| Arc::clone(root.value()));
            let alone = |_: &Arc<[u8]>, known: &mut Arc<Entry>| {
                Arc::ptr_eq(known, entry) && Arc::strong_count(known) == OWN_REFERENCES
            };
            let unlinked = root.is_some_and(|root| root.by_key.remove_if_mut(&entry.key()[..], alone).is_some());
            if !unlinked {
                by_id.clock.push_back(id);
                continue;
            }
            return by_id.entries.remove(&id);
        }
        None
    }

    /// The objects whose copy is stale. Their ids only: a reference would keep them from being evicted.
    pub(crate) fn stale(&self) -> Vec<ObjectId> {
        let by_id = self.lock();
        let is_stale = |id: &ObjectId| by_id.entries.get(id).is_some_and(|entry| entry.state() == State::Stale);
        by_id.clock.iter().copied().filter(is_stale).collect()
    }

    /// Every resident object. While the references live, nothing can be evicted.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        let by_id = self.lock();
        by_id.clock.iter().filter_map(|id| by_id.entries.get(id).cloned()).collect()
    }

    /// How many objects are resident.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether no object is resident.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
