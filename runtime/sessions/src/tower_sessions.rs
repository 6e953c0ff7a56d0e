//! A store for tower-sessions.

use crate::bases::{BASES_MAX, Bases, Known, RecordMark};
use crate::stored::{Base, Data, Merge, Moment, ROOT, Saved, Store};
use crate::{SessionError, key_of};
use async_trait::async_trait;
use kiln::{Level, RootSettings, Runtime};
use std::sync::Arc;
use time::OffsetDateTime;

/// How many ids are tried for a new session.
const IDS_TRIED: usize = 3;

/// A store for tower-sessions 0.14 (which axum-login 0.18 uses) and 0.15: put it where the other store was.
///
/// ```no_run
/// # async fn swap(kiln: &kiln::Runtime) -> Result<(), kiln_sessions::SessionError> {
/// let store = kiln_sessions::TowerSessionsStore::open(kiln).await?; // was: MemoryStore::default()
/// # drop(store);
/// # Ok(())
/// # }
/// ```
///
/// What it promises beside the trait:
///
/// - **Two requests that change different keys both survive**, on whatever nodes. A save writes, under the session's lock
///   in the cluster, the keys that differ from what the record was loaded with, and removes those that were removed since.
///   Keys are the top-level ones (those of `Session::insert`). Of two requests that change the same key, the later one
///   wins: two increments of one number can still be one. Values are never merged into each other; the typed
///   [`Session`](crate::Session) has counters and locks for that.
/// - **A deleted session is not resurrected** by a request that saves it late: that save saves nothing, and reports no
///   error, unless [`fail_when_deleted`](Self::fail_when_deleted) is set.
/// - `create` never takes the id of another session: it tries another one.
/// - When `save` or `delete` returns, every node shows it.
/// - The cluster knows ids by their hashes alone ([`key_of`]).
///
/// What a record was loaded with, two hashes for each key, is kept here for the last 262,144 records that were loaded or created
/// ([`bases_max`](Self::bases_max)), or fewer where they have more than 16 keys on average. A record of which nothing is known is
/// one that was never loaded, as `Session::clear` makes it when nothing was read before: it replaces the session. But once
/// bases have been dropped it might as well be one that was loaded long ago, and replacing would undo what others did since:
/// then saving it fails, and nothing is saved, unless it is empty.
///
/// `Session::cycle_id` deletes the session and creates another one when the request ends, that is how tower-sessions does it:
/// what another request saves to the old one meanwhile is lost, and a logout in between, with the old id, ends nothing. When the
/// session was gone before, because somebody has logged out after this request had loaded it, or because another request has
/// changed its id, the new one gets only what this request has changed (as long as it is known what it was loaded with). The
/// typed session's [`rotate`](crate::Session::rotate) loses nothing.
///
/// Do not put a `CachingSessionStore` before it. It caches on each node for itself, and a resident session is read from
/// this node's memory as it is.
///
/// Expired sessions are not loaded; they are removed by `ExpiredDeletion::delete_expired`, which looks at every session of
/// the root; one that cannot be removed just now is logged, and left for the next time. Expiry is by the clock of the node that
/// looks.
///
/// While the cluster is away, with [`Away::LocalReadWrite`](kiln::Away::LocalReadWrite) as the runtime's choice
/// ([`Builder::away`](kiln::Builder::away)), sessions that this node holds are loaded and saved here, and new ones are made here.
/// A deletion, also that of `cycle_id`, holds here at once, and is an error all the same: other nodes may show the session until
/// the cluster is back.
#[derive(Clone, Debug)]
pub struct TowerSessionsStore {
    store: Store,
    bases: Arc<Bases>,
    fails_when_deleted: bool,
}

/// Why something was not stored, before it is the error of one of the two crates.
enum StoreError {
    Encode(String),
    Decode(String),
    Backend(String),
}

impl StoreError {
    fn deleted() -> Self {
        Self::Backend("the session was deleted meanwhile: nothing was saved".to_owned())
    }
}

impl From<SessionError> for StoreError {
    fn from(error: SessionError) -> Self {
        Self::Backend(error.to_string())
    }
}

impl TowerSessionsStore {
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
    /// or more, the coordinator removes what nobody loads or saves any more, and no task has to look for it
    /// (`delete_expired` would: its look at a session is a use). All nodes say the same.
    ///
    /// # Errors
    /// [`SessionError`]; when the nodes do not agree, it names both values.
    pub async fn open_with(kiln: &Runtime, root: &str, settings: &RootSettings) -> Result<Self, SessionError> {
        let store = Store::open(kiln, root, settings).await?;
        Ok(Self { store, bases: Arc::new(Bases::new(BASES_MAX)), fails_when_deleted: false })
    }

    /// How safe a save is when it returns. Default: [`Level::Everywhere`].
    #[must_use]
    pub const fn level(mut self, level: Level) -> Self {
        self.store.level = level;
        self
    }

    /// Of how many loaded records it is known what they were loaded with. Default: 262,144; each takes some 150 bytes, and
    /// 16 for each key, of which there are 16 for each record on average.
    #[must_use]
    pub fn bases_max(mut self, records: usize) -> Self {
        self.bases = Arc::new(Bases::new(records));
        self
    }

    /// Lets saves of a deleted session fail, instead of saving nothing. With tower-sessions the answer is a 500 then.
    #[must_use]
    pub const fn fail_when_deleted(mut self) -> Self {
        self.fails_when_deleted = true;
        self
    }

    /// What a new session gets of a record. A record that was loaded has been given another id.
    fn taken_over(&self, mut data: Data, mark: RecordMark) -> Result<Data, StoreError> {
        if !self.store.take_over(&mut data, self.bases.of(mark).as_deref()) && self.fails_when_deleted {
            return Err(StoreError::deleted());
        }
        Ok(data)
    }

    async fn create(&self, id: &str, mark: RecordMark, data: &Data, expires: Moment) -> Result<bool, StoreError> {
        let key = key_of(id);
        let created = self.store.create(key.clone(), data.clone(), expires).await?;
        if created {
            self.bases.note(mark, Base::of(&key, data));
        }
        Ok(created)
    }

    async fn save(&self, id: &str, mark: RecordMark, data: &Data, expires: Moment) -> Result<(), StoreError> {
        let key = key_of(id);
        let known = self.bases.known(mark, &key);
        let merge = match &known {
            Known::Base(base) => Merge::Since(base),
            Known::Fresh => Merge::Replace,
            Known::PerhapsDropped if data.is_empty() => Merge::Replace,
            Known::PerhapsDropped => {
                let why = "it is not known any more what the session was loaded with: too many were loaded since; \
                           nothing was saved";
                return Err(StoreError::Backend(why.to_owned()));
            }
        };
        match self.store.save(&key, data, merge, expires).await? {
            Saved::Done => self.bases.note(mark, Base::of(&key, data)),
            Saved::Gone if self.fails_when_deleted => return Err(StoreError::deleted()),
            Saved::Gone => tracing::debug!("a session was deleted before a request saved it: nothing was saved"),
        }
        Ok(())
    }

    async fn load(&self, key: &str) -> Result<Option<(Data, Moment)>, StoreError> {
        Ok(self.store.load(key, moment(OffsetDateTime::now_utc())).await?)
    }

    async fn delete(&self, id: &str) -> Result<(), StoreError> {
        self.store.delete(&key_of(id)).await?;
        Ok(())
    }

    async fn delete_expired(&self) -> Result<(), StoreError> {
        let deleted = self.store.delete_expired(moment(OffsetDateTime::now_utc())).await?;
        tracing::debug!(deleted, "expired sessions were deleted");
        Ok(())
    }
}

fn moment(time: OffsetDateTime) -> Moment {
    Moment { secs: time.unix_timestamp(), nanos: time.nanosecond() }
}

fn time_of(moment: Moment) -> Result<OffsetDateTime, StoreError> {
    let bad = |error: time::error::ComponentRange| StoreError::Decode(error.to_string());
    let time = OffsetDateTime::from_unix_timestamp(moment.secs).map_err(bad)?;
    time.replace_nanosecond(moment.nanos).map_err(bad)
}

fn encoded<'a>(data: impl Iterator<Item = (&'a String, &'a serde_json::Value)>) -> Result<Data, StoreError> {
    let encode = |(key, value): (&String, &serde_json::Value)| {
        let value = serde_json::to_vec(value).map_err(|error| StoreError::Encode(error.to_string()))?;
        Ok((key.clone(), value))
    };
    data.map(encode).collect()
}

/// One trait in two crates, equal but for their names.
macro_rules! stores_for {
    ($core:ident) => {
        const _: () = {
            use $core::session::{Id, Record};
            use $core::session_store::{Error, ExpiredDeletion, Result, SessionStore};

            impl From<StoreError> for Error {
                fn from(error: StoreError) -> Self {
                    match error {
                        StoreError::Encode(what) => Self::Encode(what),
                        StoreError::Decode(what) => Self::Decode(what),
                        StoreError::Backend(what) => Self::Backend(what),
                    }
                }
            }

            #[async_trait]
            impl SessionStore for TowerSessionsStore {
                async fn create(&self, record: &mut Record) -> Result<()> {
                    let mark = RecordMark::of(record.data.hasher());
                    let data = self.taken_over(encoded(record.data.iter())?, mark)?;
                    record.data.retain(|name, _| data.contains_key(name));
                    // After `flush` it is the id of the session that has ended.
                    record.id = Id::default();
                    for _ in 0..IDS_TRIED {
                        if self.create(&record.id.to_string(), mark, &data, moment(record.expiry_date)).await? {
                            return Ok(());
                        }
                        record.id = Id::default();
                    }
                    Err(StoreError::from(SessionError::IdsInUse).into())
                }

                async fn save(&self, record: &Record) -> Result<()> {
                    let (data, mark) = (encoded(record.data.iter())?, RecordMark::of(record.data.hasher()));
                    self.save(&record.id.to_string(), mark, &data, moment(record.expiry_date)).await?;
                    Ok(())
                }

                async fn load(&self, id: &Id) -> Result<Option<Record>> {
                    let key = key_of(&id.to_string());
                    let Some((stored, expires)) = self.load(&key).await? else { return Ok(None) };
                    let base = Base::of(&key, &stored);
                    let decode = |(key, value): (String, Vec<u8>)| {
                        let value = serde_json::from_slice(&value).map_err(|error| Error::Decode(error.to_string()))?;
                        Ok((key, value))
                    };
                    let data = stored.into_iter().map(decode).collect::<Result<_>>()?;
                    let record = Record { id: *id, data, expiry_date: time_of(expires)? };
                    self.bases.note(RecordMark::of(record.data.hasher()), base);
                    Ok(Some(record))
                }

                async fn delete(&self, id: &Id) -> Result<()> {
                    self.delete(&id.to_string()).await?;
                    Ok(())
                }
            }

            #[async_trait]
            impl ExpiredDeletion for TowerSessionsStore {
                async fn delete_expired(&self) -> Result<()> {
                    self.delete_expired().await?;
                    Ok(())
                }
            }
        };
    };
}

stores_for!(tower_sessions_core_014);
stores_for!(tower_sessions_core_015);
