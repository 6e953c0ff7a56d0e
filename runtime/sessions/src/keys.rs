//! The keys of ids that were presented lately, so that a visitor's next request need not hash the id again: with SHA-256
//! that is most of what a read of a resident session costs.
//!
//! Absent: sessions. A key is a function of its id and of nothing else, so what is kept here is never wrong: whether there
//! is a session under the key, of a visitor who may have logged out, is asked of the root each time.

use crate::SessionId;
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ids that share a place, and a lock. The oldest of them goes first.
const PLACE_IDS_MAX: usize = 8;
/// How many places there are: 65,536 ids in some 12 MB, when all are taken.
const PLACES: usize = 8192;

/// See the module.
pub(crate) struct KnownKeys {
    places: Box<[Mutex<VecDeque<Known>>]>,
    /// Has a secret of this process: who presents an id knows neither its place nor its hash.
    hasher: RandomState,
}

struct Known {
    hash: u64,
    id: SessionId,
    key: Arc<str>,
}

impl Default for KnownKeys {
    fn default() -> Self {
        Self::with_places(PLACES)
    }
}

impl KnownKeys {
    fn with_places(places: usize) -> Self {
        Self { places: (0..places).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// The key of an id, if the id is known.
    pub(crate) fn get(&self, id: &SessionId) -> Option<Arc<str>> {
        let hash = self.hasher.hash_one(id.expose());
        let place = self.place(hash);
        // Only an id with the same secret hash is compared as a whole, so the time tells nothing about the others.
        let known = place.iter().find(|known| known.hash == hash && known.id == *id)?;
        Some(Arc::clone(&known.key))
    }

    /// Keeps the key of an id that somebody has. Ids of nobody are not kept: they could be made up to fill the room.
    pub(crate) fn keep(&self, id: &SessionId, key: &str) {
        let hash = self.hasher.hash_one(id.expose());
        let mut place = self.place(hash);
        if place.iter().any(|known| known.id == *id) {
            return;
        }
        if place.len() == PLACE_IDS_MAX {
            place.pop_front();
        }
        place.push_back(Known { hash, id: id.clone(), key: key.into() });
    }

    fn place(&self, hash: u64) -> MutexGuard<'_, VecDeque<Known>> {
        let places = self.places.len() as u64;
        let index = usize::try_from(hash % places).unwrap_or_default();
        self.places[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_id_is_its_own_and_the_room_has_an_end() {
        let keys = KnownKeys::with_places(2);
        let ids: Vec<_> = (0..100).map(|_| SessionId::random().unwrap()).collect();
        for id in &ids {
            assert_eq!(keys.get(id), None);
            keys.keep(id, &id.key());
            keys.keep(id, &id.key());
            assert_eq!(keys.get(id).as_deref(), Some(id.key().as_str()));
        }
        let kept: Vec<_> = ids.iter().filter_map(|id| Some((id, keys.get(id)?))).collect();
        assert_eq!(kept.len(), 2 * PLACE_IDS_MAX);
        assert!(kept.iter().all(|(id, key)| **key == *id.key()));
    }
}
