//! A store for actix-session.

use crate::stored::{Base, Data, Merge, Moment, ROOT, Saved, Store};
use crate::{SessionError, key_of};
use actix_session::storage::{LoadError, SaveError, SessionKey, SessionStore, UpdateError, generate_session_key};
use actix_web::cookie::time::{Duration, OffsetDateTime};
use kiln::{Level, RootSettings, Runtime};
use std::fmt::Write as _;

/// The entry of a loaded state that says what the rest was loaded as.
const BASE: &str = "kiln.base";
/// How many keys are tried for a new session.
const KEYS_TRIED: usize = 3;

/// A store for actix-session 0.11: put it where the other store was.
///
/// ```no_run
/// # async fn swap(kiln: &kiln::Runtime) -> Result<(), kiln_sessions::SessionError> {
/// let store = kiln_sessions::ActixStore::open(kiln).await?; // was: CookieSessionStore::default()
/// # drop(store);
/// # Ok(())
/// # }
/// ```
///
/// What it promises beside the trait:
///
/// - **Two requests that change different keys both survive**, on whatever nodes. An update writes, under the session's
///   lock in the cluster, the keys that differ from what the state was loaded with, and removes those that were removed
///   since. Of two requests that change the same key, the later one wins. Values are never merged into each other; the
///   typed layer's sessions have counters and locks for that.
/// - **A deleted session is not resurrected** by a request that updates it late: that update saves nothing, and reports no
///   error, unless [`fail_when_deleted`](Self::fail_when_deleted) is set.
/// - A new session never takes the key of another one.
/// - When an update or a deletion returns, every node shows it.
/// - The cluster knows session keys by their hashes alone ([`key_of`]).
///
/// Where the trait does not allow more:
///
/// - It hands a store no more than the state, so the state itself carries what it was loaded with, as hashes in an
///   entry `kiln.base`. `Session::entries` shows it. `Session::clear` takes it away with all others: what is saved then
///   replaces the session, also what other requests have added meanwhile. Do not write an entry of this name.
/// - `Session::renew` deletes the session and saves another one: what another request updates in the old one meanwhile is
///   lost, and a logout in between ends nothing. When the session was gone before, because somebody has logged out after this
///   request had loaded it, or because another request has renewed it, the new one gets only what this request has changed.
/// - `Session::update`, and `update_or` of a key that is there, are no changes in actix-session 0.11: alone they do not save
///   anything, with any store.
/// - There is no way to ask for the removal of expired sessions: call [`delete_expired`](Self::delete_expired) from time to
///   time. They are not loaded before that. Expiry is by the clock of the node that looks.
/// - While the cluster is away, with [`Away::LocalReadWrite`](kiln::Away::LocalReadWrite) as the runtime's choice
///   ([`Builder::away`](kiln::Builder::away)), sessions that this node holds are loaded and updated here, and new ones are made
///   here. A deletion, also that of `renew`, holds here at once, and is an error all the same: other nodes may show the session
///   until the cluster is back.
#[derive(Clone, Debug)]
pub struct ActixStore {
    store: Store,
    fails_when_deleted: bool,
}

impl ActixStore {
    /// Opens the root `sessions` for them.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn open(kiln: &Runtime) -> Result<Self, SessionError> {
        Self::open_root(kiln, ROOT).await
    }

    /// Opens another root for them.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn open_root(kiln: &Runtime, root: &str) -> Result<Self, SessionError> {
        Self::open_with(kiln, root, &RootSettings::new()).await
    }

    /// Opens another root for them, whose sessions end by the coordinator's time as well. The framework's own expiry stays:
    /// an expired session is not loaded, whatever the coordinator says. With an idle timeout of the framework's longest expiry
    /// or more, the coordinator removes what nobody loads or saves any more, and no task has to look for it. All nodes say
    /// the same.
    ///
    /// # Errors
    /// [`SessionError`]; when the nodes do not agree, it names both values.
    pub async fn open_with(kiln: &Runtime, root: &str, settings: &RootSettings) -> Result<Self, SessionError> {
        Ok(Self { store: Store::open(kiln, root, settings).await?, fails_when_deleted: false })
    }

    /// How safe an update is when it returns. Default: [`Level::Everywhere`].
    #[must_use]
    pub const fn level(mut self, level: Level) -> Self {
        self.store.level = level;
        self
    }

    /// Lets updates of a deleted session fail, instead of saving nothing. The answer is a 500 then.
    #[must_use]
    pub const fn fail_when_deleted(mut self) -> Self {
        self.fails_when_deleted = true;
        self
    }

    /// Removes the sessions that have expired, and returns how many. Looks at every session of the root.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn delete_expired(&self) -> Result<u64, SessionError> {
        self.store.delete_expired(now()).await
    }

    fn saved(&self, saved: Saved) -> anyhow::Result<()> {
        match saved {
            Saved::Done => {}
            Saved::Gone if self.fails_when_deleted => {
                anyhow::bail!("the session was deleted meanwhile: nothing was saved")
            }
            Saved::Gone => tracing::debug!("a session was deleted before a request saved it: nothing was saved"),
        }
        Ok(())
    }
}

impl SessionStore for ActixStore {
    async fn load(&self, key: &SessionKey) -> Result<Option<SessionState>, LoadError> {
        let key = key_of(key.as_ref());
        let loaded = self.store.load(&key, now()).await;
        let Some((data, _)) = loaded.map_err(|error| LoadError::Other(error.into()))? else { return Ok(None) };
        let base = write_base(&Base::of(&key, &data));
        let text = |(name, value)| Ok((name, String::from_utf8(value)?));
        let state: Result<SessionState, anyhow::Error> = data.into_iter().map(text).collect();
        let mut state = state.map_err(LoadError::Deserialization)?;
        state.insert(BASE.to_owned(), base);
        Ok(Some(state))
    }

    async fn save(&self, mut state: SessionState, ttl: &Duration) -> Result<SessionKey, SaveError> {
        // A state that was loaded gets another key.
        let renewed = state.remove(BASE).map(|text| read_base(&text).ok_or_else(own_entry)).transpose();
        let renewed = renewed.map_err(SaveError::Serialization)?;
        let mut data = data_of(state);
        if !self.store.take_over(&mut data, renewed.as_ref()) {
            self.saved(Saved::Gone).map_err(SaveError::Other)?;
        }
        for _ in 0..KEYS_TRIED {
            let key = generate_session_key();
            let created = self.store.create(key_of(key.as_ref()), data.clone(), now_and(ttl)).await;
            if created.map_err(|error| SaveError::Other(error.into()))? {
                return Ok(key);
            }
        }
        Err(SaveError::Other(SessionError::IdsInUse.into()))
    }

    async fn update(
        &self,
        key: SessionKey,
        mut state: SessionState,
        ttl: &Duration,
    ) -> Result<SessionKey, UpdateError> {
        let base = state.remove(BASE).map(|text| read_base(&text).ok_or_else(own_entry)).transpose();
        let base = base.map_err(UpdateError::Serialization)?;
        let merge = base.as_ref().map_or(Merge::Replace, Merge::Since);
        let saved = self.store.save(&key_of(key.as_ref()), &data_of(state), merge, now_and(ttl)).await;
        self.saved(saved.map_err(|error| UpdateError::Other(error.into()))?).map_err(UpdateError::Other)?;
        Ok(key)
    }

    async fn update_ttl(&self, key: &SessionKey, ttl: &Duration) -> Result<(), anyhow::Error> {
        self.saved(self.store.extend(&key_of(key.as_ref()), now_and(ttl)).await?)
    }

    async fn delete(&self, key: &SessionKey) -> Result<(), anyhow::Error> {
        self.store.delete(&key_of(key.as_ref())).await?;
        Ok(())
    }
}

#[expect(clippy::disallowed_types, reason = "the trait has it")]
type SessionState = std::collections::HashMap<String, String>;

fn data_of(state: SessionState) -> Data {
    state.into_iter().map(|(name, value)| (name, value.into_bytes())).collect()
}

fn own_entry() -> anyhow::Error {
    anyhow::anyhow!("the entry `{BASE}` is the store's own")
}

fn now() -> Moment {
    moment(OffsetDateTime::now_utc())
}

fn now_and(ttl: &Duration) -> Moment {
    moment(OffsetDateTime::now_utc().saturating_add(*ttl))
}

fn moment(time: OffsetDateTime) -> Moment {
    Moment { secs: time.unix_timestamp(), nanos: time.nanosecond() }
}

/// All hashes in 16 digits each: of the key; of each entry's name, and its value.
fn write_base(base: &Base) -> String {
    let mut text = format!("{:016x}", base.key);
    for (name, value) in &base.entries {
        write!(text, "{name:016x}{value:016x}").expect("a string takes what is written");
    }
    text
}

fn read_base(text: &str) -> Option<Base> {
    let (hashes, rest) = text.as_bytes().as_chunks::<16>();
    let hashes = hashes.iter().map(|digits| {
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        u64::from_str_radix(digits, 16).ok()
    });
    let hashes: Vec<u64> = hashes.collect::<Option<_>>()?;
    let (key, hashes) = hashes.split_first()?;
    let (entries, odd) = hashes.as_chunks::<2>();
    let is_whole = rest.is_empty() && odd.is_empty();
    is_whole.then(|| Base { key: *key, entries: entries.iter().map(|[name, value]| (*name, *value)).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_is_read_as_it_was_written() {
        for entries in [&[][..], &[(0, 1)], &[(7, u64::MAX), (u64::MAX, 0)]] {
            let base = Base { key: 9, entries: entries.into() };
            assert_eq!(read_base(&write_base(&base)), Some(base));
        }
        let hash = "0000000000000001";
        for bad in [String::new(), "x".to_owned(), hash.repeat(2), format!("{hash}1"), "+".repeat(16), "ü".repeat(8)] {
            assert_eq!(read_base(&bad), None, "{bad}");
        }
        assert_eq!(read_base(&format!("+{}", "0".repeat(15))), None);
    }
}
