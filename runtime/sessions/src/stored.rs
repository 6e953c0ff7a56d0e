//! A session as the stores keep it: an entry of a map for each top-level key, so that what two requests change in two keys
//! is merged. What a value consists of is the framework's business: a value is never merged into another.

use crate::SessionError;
use crate::request::{for_good, insert_new};
use kiln::{AccessError, Clustered, CommitError, Level, LockError, Map, Root, RootSettings, Runtime, Shared};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::task;

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
    /// Of each entry the hash of its name and that of its value, in order.
    pub(crate) entries: Box<[(u64, u64)]>,
}

impl Base {
    pub(crate) fn of(key: &str, data: &Data) -> Self {
        let mut entries: Box<[_]> = data.iter().map(|(name, value)| (hash(name.as_bytes()), hash(value))).collect();
        entries.sort_unstable();
        Self { key: hash(key.as_bytes()), entries }
    }

    fn value(&self, name: u64) -> Option<u64> {
        let place = self.entries.binary_search_by_key(&name, |(name, _)| *name).ok()?;
        Some(self.entries[place].1)
    }

    /// Whether it has this value under this name.
    fn has(&self, name: &str, value: &[u8]) -> bool {
        self.value(hash(name.as_bytes())) == Some(hash(value))
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

/// Which tasks wanted to delete which session, by the hash of its key, and found it gone already: the latest of them. The
/// frameworks change an id within one task, the request's.
#[derive(Debug, Default)]
struct FoundGone(Mutex<VecDeque<(u64, Option<task::Id>)>>);

impl FoundGone {
    fn latest(&self) -> MutexGuard<'_, VecDeque<(u64, Option<task::Id>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: u64) {
        let mut latest = self.latest();
        if latest.len() == FOUND_GONE_MAX {
            latest.pop_front();
        }
        latest.push_back((key, task::try_id()));
    }

    /// Whether this task has found it.
    fn is_noted(&self, key: u64) -> bool {
        self.latest().contains(&(key, task::try_id()))
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
        let session = || StoredSession {
            data: data.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            expires_secs: secs,
            expires_nanos: nanos,
        };
        Ok(insert_new(&self.root, &key, session).await?.is_some())
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
    #[cfg(feature = "actix")]
    pub(crate) async fn extend(&self, key: &str, expires: Moment) -> Result<Saved, SessionError> {
        self.change(key, |session| session.expire_at(expires)).await
    }

    /// Ends a session: when it returns, no node has it. `false` when there was none.
    pub(crate) async fn delete(&self, key: &str) -> Result<bool, SessionError> {
        let deleted = for_good(&self.root).remove_everywhere(key).await?;
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
        let Some(base) = base.filter(|base| self.found_gone.is_noted(base.key)) else { return true };
        data.retain(|name, value| !base.has(name, value));
        false
    }

    /// Removes the sessions that have expired, and returns how many. Looks at every session of the root; one that cannot be
    /// removed now is left for the next time.
    pub(crate) async fn delete_expired(&self, now: Moment) -> Result<u64, SessionError> {
        let (mut keys, mut deleted) = (self.root.keys(), 0);
        loop {
            let page = keys.next_page(0).await?;
            if page.is_empty() {
                return Ok(deleted);
            }
            for key in page {
                match self.delete_if_expired(&key, now).await {
                    Ok(is_deleted) => deleted += u64::from(is_deleted),
                    Err(SessionError::Destroyed) => {}
                    Err(error) if is_for_want_of_connection(&error) => return Err(error),
                    Err(error) => tracing::warn!(%error, "a session cannot be looked at for its expiry"),
                }
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
            Ok(false) => Ok(false),
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
        // Nothing can be promised of other nodes.
        let level = if guard.is_alone() { Level::Applied } else { self.level };
        guard.commit_with(level).await?;
        Ok(Saved::Done)
    }
}

fn is_for_want_of_connection(error: &SessionError) -> bool {
    use SessionError::{Access, Commit, Lock};
    matches!(
        error,
        Access(AccessError::Disconnected | AccessError::Ended(_))
            | Lock(LockError::Disconnected)
            | Commit(CommitError::Disconnected)
    )
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
        let names: BTreeSet<u64> = data.keys().map(|name| hash(name.as_bytes())).collect();
        let Some(base) = base.filter(|base| base.entries.iter().any(|(name, _)| !names.contains(name))) else { return };
        let is_gone = |name: &String| {
            let name = hash(name.as_bytes());
            base.value(name).is_some() && !names.contains(&name)
        };
        let gone: Vec<String> = self.data.iter().map(|(name, _)| name).filter(is_gone).collect();
        for name in gone {
            self.data.remove(&name);
        }
    }

    fn expire_at(&mut self, expires: Moment) {
        *self.expires_secs = expires.secs;
        *self.expires_nanos = expires.nanos;
    }
}
