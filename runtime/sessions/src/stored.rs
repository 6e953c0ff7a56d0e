//! A session as the stores keep it: an entry of a map for each top-level key, so that what two requests change in two keys
//! is merged. What a value consists of is the framework's business: a value is never merged into another.

use crate::SessionError;
use kiln::{Clustered, Level, Map, Root, RootSettings, Runtime, Shared};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Where the sessions are kept, where no root is named.
pub(crate) const ROOT: &str = "sessions";
/// How many sessions that were gone already are known. A request changes an id within its life.
const FOUND_GONE_MAX: usize = 65_536;
/// The expiry of a session that is about to be removed. No save brings it back.
const CONDEMNED: i64 = i64::MIN;

/// One session.
#[derive(Clustered, Debug, Default)]
#[clustered(rename = "KilnStoredSession")]
pub(crate) struct StoredSession {
    /// The values in the framework's own form, mostly JSON.
    data: Map<String, Vec<u8>>,
    /// Seconds since 1970.
    expires_secs: i64,
    /// And nanoseconds on top.
    expires_nanos: u32,
}

/// A point in time: seconds since 1970, and nanoseconds on top.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment {
    pub(crate) secs: i64,
    pub(crate) nanos: u32,
}

/// The content of a session.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

/// What a session contained when a request loaded it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Base {
    /// The hash of the session's key.
    pub(crate) key: u64,
    /// And of each value.
    pub(crate) values: BTreeMap<String, u64>,
}

impl Base {
    pub(crate) fn of(key: &str, data: &Data) -> Self {
        let values = data.iter().map(|(name, value)| (name.clone(), hash(value))).collect();
        Self { key: hash(key.as_bytes()), values }
    }

    pub(crate) fn is_of(&self, key: &str) -> bool {
        self.key == hash(key.as_bytes())
    }

    /// Whether it has this value under this name.
    pub(crate) fn has(&self, name: &str, value: &[u8]) -> bool {
        self.values.get(name) == Some(&hash(value))
    }
}

/// Hashes differ from process to process, as nobody else needs them.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new).hash_one(bytes)
}

/// What a save is to do with what is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Merge<'a> {
    /// Write the keys that differ from the base, remove those that are gone since.
    Since(&'a Base),
    /// The record is the whole session.
    Replace,
}

/// What became of a save.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Saved {
    Done,
    /// There is no such session, or no more: nothing was saved.
    Gone,
}

/// The sessions of one root.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: Root<String, StoredSession>,
    pub(crate) level: Level,
    found_gone: Arc<FoundGone>,
}

/// Sessions that somebody wanted to delete here and that were gone already, by the hashes of their keys: the latest of them.
#[derive(Debug, Default)]
struct FoundGone(Mutex<VecDeque<u64>>);

impl FoundGone {
    fn keys(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: u64) {
        let mut keys = self.keys();
        if keys.len() == FOUND_GONE_MAX {
            keys.pop_front();
        }
        keys.push_back(key);
    }
}

impl Store {
    pub(crate) async fn open(kiln: &Runtime, root: &str, settings: &RootSettings) -> Result<Self, SessionError> {
        let settings = settings.clone().hashed_keys();
        let root = kiln.root_with(root, &settings).await?;
        Ok(Self { root, level: Level::Everywhere, found_gone: Arc::default() })
    }

    /// A new session; `false`, and nothing changed, when the key is in use.
    pub(crate) async fn create(&self, key: String, data: Data, expires: Moment) -> Result<bool, SessionError> {
        let Moment { secs, nanos } = expires;
        let session = StoredSession { data: data.into_iter().collect(), expires_secs: secs, expires_nanos: nanos };
        Ok(self.root.insert_new(key, session).await?.is_some())
    }

    /// The session's content and expiry, if it has not expired.
    pub(crate) async fn load(&self, key: &str, now: Moment) -> Result<Option<(Data, Moment)>, SessionError> {
        let Some(shared) = self.root.get(key).await? else { return Ok(None) };
        let loaded = shared.get(|session| (session.content(), session.expires()));
        Ok(Some(loaded).filter(|(_, expires)| *expires > now))
    }

    /// Makes what is there what it is to be, under the session's lock. A session that is gone stays gone.
    pub(crate) async fn save(
        &self,
        key: &str,
        data: &Data,
        merge: Merge<'_>,
        expires: Moment,
    ) -> Result<Saved, SessionError> {
        let change = |session: &mut StoredSessionMut<'_>| {
            session.merge(data, merge);
            session.expire_at(expires);
        };
        self.change(key, change).await
    }

    /// Moves the session's expiry.
    pub(crate) async fn extend(&self, key: &str, expires: Moment) -> Result<Saved, SessionError> {
        self.change(key, |session| session.expire_at(expires)).await
    }

    /// Ends a session: when it returns, no node has it. `false` when there was none.
    pub(crate) async fn delete(&self, key: &str) -> Result<bool, SessionError> {
        let deleted = self.root.remove_everywhere(key).await?;
        if !deleted {
            self.found_gone.note(hash(key.as_bytes()));
        }
        Ok(deleted)
    }

    /// The frameworks change a session's id by deleting the session and creating another one with the data that the request
    /// has. Where the session was gone before, that would bring it back under another id: then only what the request has
    /// changed goes into the new one. Returns `false` if so.
    pub(crate) fn take_over(&self, data: &mut Data, base: Option<&Base>) -> bool {
        // Looked for only when an id is changed, and mostly not long.
        let Some(base) = base.filter(|base| self.found_gone.keys().contains(&base.key)) else { return true };
        data.retain(|name, value| !base.has(name, value));
        false
    }

    /// Removes the sessions that have expired, and returns how many. Looks at every session of the root.
    pub(crate) async fn delete_expired(&self, now: Moment) -> Result<u64, SessionError> {
        let (mut keys, mut deleted) = (self.root.keys(), 0);
        loop {
            let page = keys.next_page(0).await?;
            if page.is_empty() {
                return Ok(deleted);
            }
            for key in page {
                deleted += u64::from(self.delete_if_expired(&key, now).await?);
            }
        }
    }

    async fn delete_if_expired(&self, key: &str, now: Moment) -> Result<bool, SessionError> {
        let Some(shared) = self.root.get(key).await? else { return Ok(false) };
        if shared.get(|session| session.expires()) > now {
            return Ok(false);
        }
        // A request may extend it just now: whoever has the lock first decides.
        let condemned = async {
            let mut guard = shared.write().await?;
            let is_expired = Moment { secs: *guard.expires_secs, nanos: *guard.expires_nanos } <= now;
            if is_expired {
                *guard.expires_secs = CONDEMNED;
                guard.commit_with(Level::Applied).await?;
            }
            Ok(is_expired)
        };
        match condemned.await {
            Ok(true) => Ok(self.root.remove(key).await?),
            Ok(false) | Err(SessionError::Destroyed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn change(&self, key: &str, change: impl FnOnce(&mut StoredSessionMut<'_>)) -> Result<Saved, SessionError> {
        let shared = match self.root.get(key).await.map_err(SessionError::from) {
            Ok(Some(shared)) => shared,
            Ok(None) | Err(SessionError::Destroyed) => return Ok(Saved::Gone),
            Err(error) => return Err(error),
        };
        match self.change_shared(&shared, change).await {
            Err(SessionError::Destroyed) => Ok(Saved::Gone),
            changed => changed,
        }
    }

    async fn change_shared(
        &self,
        shared: &Shared<StoredSession>,
        change: impl FnOnce(&mut StoredSessionMut<'_>),
    ) -> Result<Saved, SessionError> {
        let mut guard = shared.write().await?;
        if *guard.expires_secs == CONDEMNED {
            return Ok(Saved::Gone);
        }
        change(&mut guard);
        guard.commit_with(self.level).await?;
        Ok(Saved::Done)
    }
}

impl StoredSessionView<'_> {
    fn content(&self) -> Data {
        self.data().iter().map(|(key, value)| (key, value.to_vec())).collect()
    }

    fn expires(&self) -> Moment {
        Moment { secs: self.expires_secs(), nanos: self.expires_nanos() }
    }
}

impl StoredSessionMut<'_> {
    fn merge(&mut self, data: &Data, merge: Merge<'_>) {
        let base = match merge {
            Merge::Since(base) => Some(base),
            Merge::Replace => {
                self.data.clear();
                None
            }
        };
        for (name, value) in data {
            if !base.is_some_and(|base| base.has(name, value)) {
                self.data.insert(name.clone(), value.clone());
            }
        }
        for name in base.iter().flat_map(|base| base.values.keys()).filter(|name| !data.contains_key(*name)) {
            self.data.remove(name);
        }
    }

    fn expire_at(&mut self, expires: Moment) {
        *self.expires_secs = expires.secs;
        *self.expires_nanos = expires.nanos;
    }
}
