//! Roots: named, keyed collections of objects.

use super::builder::Away;
use super::error::{AccessError, LockError, RootError};
use super::keys::Keys;
use super::listen::Listener;
use super::local_copy::Beside;
use super::runtime::{Attached, Runtime};
use super::settings::RootSettings;
use super::shared::Shared;
use super::watch::Watch;
use crate::clock::boot_nanos;
use bytes::Bytes;
use kiln_engine::{AloneError, Answer, Entry, Found, KeysPage, Node, OnReturn, RootCache, State, Ticket};
use kiln_object::{Changes, Clustered, Key, KeyBytes};
use kiln_protocol::limits::{KEY_BYTES_MAX, RECORD_BYTES_MAX};
use kiln_protocol::message::{Failure, Mode, RootOptions, WatchTarget};
use kiln_protocol::{RequestId, ToCoordinator};
use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A named collection of objects of one type, by key. Cheap to clone.
pub struct Root<K, T> {
    runtime: Arc<Attached>,
    cache: Arc<RootCache>,
    away: Away,
    _types: PhantomData<fn(K) -> T>,
}

impl<K, T> Clone for Root<K, T> {
    fn clone(&self) -> Self {
        Self {
            runtime: Arc::clone(&self.runtime),
            cache: Arc::clone(&self.cache),
            away: self.away,
            _types: PhantomData,
        }
    }
}

impl<K, T> fmt::Debug for Root<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("name", &self.cache.name).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Opens a root; the cluster's first program that does creates it.
    ///
    /// # Errors
    /// [`RootError`]: another type or key is registered for it, a field has another structure in the cluster, or the
    /// coordinator cannot be asked.
    pub async fn root<K: Key, T: Clustered>(&self, name: &str) -> Result<Root<K, T>, RootError> {
        self.root_with(name, &RootSettings::default()).await
    }

    pub(super) async fn open_root<K: Key, T: Clustered>(
        &self,
        name: &str,
        options: RootOptions,
    ) -> Result<Root<K, T>, RootError> {
        let runtime = &self.attached;
        let (id, binding) = runtime
            .wait(runtime.options.away, |node| node.open_root::<T>(name, K::STRUCTURE.to_string(), options.clone()))
            .await?;
        let cache = runtime.node.add_root::<T>(name, id, &binding, &options)?;
        runtime.claim_type::<T>(id, name)?;
        let away = runtime.options.away;
        Ok(Root { runtime: Arc::clone(runtime), cache, away, _types: PhantomData })
    }
}

impl<K: Key, T: Clustered> Root<K, T> {
    /// The same root, whose operations and objects do this while the connection is lost.
    #[must_use]
    pub fn with_away(&self, away: Away) -> Self {
        Self { away, ..self.clone() }
    }

    /// What operations and objects do while the connection is lost.
    #[must_use]
    pub const fn away(&self) -> Away {
        self.away
    }

    fn shared(&self, entry: Arc<Entry>) -> Shared<T> {
        Shared::new(Arc::clone(&self.runtime), entry, self.away)
    }

    /// The root's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cache.name
    }

    /// The object under a key, if it is resident here and current: a node whose lease is over, as after a pause of its
    /// process, cannot know that. Never waits.
    #[must_use]
    pub fn peek<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Option<Shared<T>>
    where
        K: Borrow<Q>,
    {
        let entry = key.with_bytes(|key| self.cache.get(key))?;
        let link = &self.runtime.node.link;
        let is_current = entry.state() == State::Current && link.is_synced() && link.is_leased(boot_nanos());
        is_current.then(|| self.shared(entry))
    }

    /// The object under a key; fetched when it is not resident here.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn get<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Result<Option<Shared<T>>, AccessError>
    where
        K: Borrow<Q>,
    {
        if let Some(shared) = self.peek(key) {
            return Ok(Some(shared));
        }
        let key = key_bytes(key)?;
        if let Some(shared) = self.resident(&key).await? {
            return Ok(Some(shared));
        }
        if self.away.on_return().is_some() && self.is_removed_here(&key) {
            return Ok(None);
        }
        self.wait_for_return(&key).await?;
        let fetch = |node: &Node| node.fetch(self.cache.id, key.clone(), None);
        let found = self.runtime.unless_alone(self.away, self.runtime.wait_resident(self.away, fetch, fetch)).await?;
        Ok(found.map(|found| self.shared(found.entry)))
    }

    /// The object under a key if it is resident: made current, or, where reads may be local, as it is.
    async fn resident(&self, key: &Bytes) -> Result<Option<Shared<T>>, AccessError> {
        let Some(entry) = self.cache.get(key) else { return Ok(None) };
        let node = &self.runtime.node;
        let is_local = self.away.reads_locally() && !node.link.is_synced() && node.ended().is_none();
        let refreshed = if is_local { Ok(()) } else { self.refresh(&entry).await };
        match refreshed {
            // Somebody was faster.
            Err(AccessError::Refused(Failure::Destroyed { .. })) => return Ok(None),
            Err(error) if !(self.away.reads_locally() && error.is_for_want_of_connection()) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // It may have another key by now.
        let is_there = entry.state() != State::Destroyed && entry.has_key(key);
        Ok(is_there.then(|| self.shared(entry)))
    }

    /// Makes a resident object current, or finds that it was removed.
    async fn refresh(&self, entry: &Arc<Entry>) -> Result<(), AccessError> {
        let replayed = async {
            self.runtime.replayed(entry).await;
            Ok(())
        };
        self.runtime.within_deadline(self.away, replayed).await?;
        match entry.state() {
            State::Current | State::Destroyed => Ok(()),
            // The cluster is away again.
            State::Local => Err(AccessError::Disconnected),
            State::Stale => {
                let refetch = |node: &Node| node.refetch(entry);
                self.runtime.wait_resident(self.away, refetch, refetch).await
            }
        }
    }

    /// Whether the cluster is away, and the object under this key was removed here.
    fn is_removed_here(&self, key: &Bytes) -> bool {
        self.runtime.node.is_away() && self.runtime.node.is_removal_pending(self.cache.id, key)
    }

    /// What was made or removed here while the cluster was away is done so in the cluster first.
    async fn wait_for_return(&self, key: &Bytes) -> Result<(), AccessError> {
        let node = &self.runtime.node;
        let is_local = || self.cache.get(key).is_some_and(|entry| entry.state() == State::Local);
        let is_pending = || is_local() || node.is_removal_pending(self.cache.id, key);
        if !is_pending() {
            return Ok(());
        }
        let returned = async {
            self.runtime.while_connected(is_pending).await;
            Ok(())
        };
        self.runtime.within_deadline(self.away, returned).await
    }

    /// The object under a key; created from `make` when the cluster has none. Atomic: of all who try, one creates. While
    /// the cluster is away, with [`Away::LocalReadWrite`], an object that is not resident here is created here; on the
    /// return it is the cluster's, if that has one under the key by then.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn get_or_create<Q: KeyBytes + ?Sized>(
        &self,
        key: &Q,
        make: impl FnOnce() -> T,
    ) -> Result<Shared<T>, AccessError>
    where
        K: Borrow<Q>,
    {
        if let Some(shared) = self.peek(key) {
            return Ok(shared);
        }
        let bytes = key_bytes(key)?;
        if self.away.on_return().is_some()
            && let Some(shared) = self.resident(&bytes).await?
        {
            return Ok(shared);
        }
        let value = make();
        let writes = self.encode(&value)?;
        let mut value = Some(value);
        let fetch = |node: &Node| node.fetch(self.cache.id, bytes.clone(), Some(writes.clone()));
        loop {
            let created = async {
                self.wait_for_return(&bytes).await?;
                self.create(&mut value, fetch, fetch).await
            };
            let error = match self.runtime.unless_alone(self.away, created).await {
                Err(error) if error.is_for_want_of_connection() && self.runtime.node.is_away() => error,
                done => return done,
            };
            let Some(on_return) = self.away.on_return() else { return Err(error) };
            match self.runtime.node.create_alone(self.cache.id, &bytes, &writes, on_return) {
                Ok((entry, created)) => {
                    if let Some(value) = value.take_if(|_| created) {
                        Beside::of(&entry).fields.get_or_init(|| Box::new(value.into_local()));
                    }
                    return Ok(self.shared(entry));
                }
                // It is back.
                Err(AloneError::NotAway) => {}
                Err(error) => return Err(self.runtime.alone_error(error)),
            }
        }
    }

    /// Puts a new object under a key. One that was there is removed first; its handles see `Destroyed`. Waits for those
    /// who hold its locks; given up before that (the deadline, or a dropped future), it is not done.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn insert(&self, key: K, value: T) -> Result<Shared<T>, AccessError> {
        let (key, writes) = (key_bytes(&key)?, self.encode(&value)?);
        self.wait_for_return(&key).await?;
        let mut value = Some(value);
        let asked = Asked::new(&self.runtime);
        let insert = |node: &Node| asked.note(node.insert(self.cache.id, key.clone(), writes));
        // In the cluster it is made after the first attempt; what was missing is room for it here.
        self.create(&mut value, insert, |node| node.fetch(self.cache.id, key.clone(), None)).await
    }

    /// Puts a new object under a key that the cluster does not have; `None`, and nothing changed, when it has it. Atomic:
    /// of all who try, one creates. Where the connection was lost before the answer, an object that this call itself has
    /// made may be taken for another's: then there is one that nobody knows of.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn insert_new(&self, key: K, value: T) -> Result<Option<Shared<T>>, AccessError> {
        let (key, writes) = (key_bytes(&key)?, self.encode(&value)?);
        let fetch = |node: &Node| node.fetch(self.cache.id, key.clone(), Some(writes.clone()));
        let found = self.runtime.wait_resident(self.away, fetch, fetch).await?;
        let Some(Found { entry, created: true }) = found else { return Ok(None) };
        Beside::of(&entry).fields.get_or_init(|| Box::new(value.into_local()));
        Ok(Some(self.shared(entry)))
    }

    /// Removes the object under a key; `false` when there is none. Waits for those who hold its locks; given up before
    /// that (the deadline, or a dropped future), it is not done. While the cluster is away, with
    /// [`Away::LocalReadWrite`], it is removed here, and from the cluster first of all when that is back; `false`: it was
    /// not resident here.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn remove<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Result<bool, AccessError>
    where
        K: Borrow<Q>,
    {
        self.remove_as(&key_bytes(key)?, false).await
    }

    /// As [`remove`](Self::remove), and returns only when no node shows the object any more. For a logout.
    ///
    /// # Errors
    /// [`AccessError`]; `RemovedHere` when the cluster is away.
    pub async fn remove_everywhere<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Result<bool, AccessError>
    where
        K: Borrow<Q>,
    {
        self.remove_as(&key_bytes(key)?, true).await
    }

    async fn remove_as(&self, key: &Bytes, everywhere: bool) -> Result<bool, AccessError> {
        loop {
            let removed = async {
                self.wait_for_return(key).await?;
                self.ask(|request, root| ToCoordinator::Remove { request, root, key: key.clone(), everywhere }).await
            };
            let error = match self.runtime.unless_alone(self.away, removed).await {
                Err(error) if error.is_for_want_of_connection() && self.runtime.node.is_away() => error,
                done => return done,
            };
            let Some(on_return) = self.away.on_return() else { return Err(error) };
            match self.remove_alone(key, on_return).await? {
                Some(_) if everywhere => return Err(AccessError::RemovedHere),
                Some(was_here) => return Ok(was_here),
                // It is back.
                None => {}
            }
        }
    }

    /// Removes what is under a key here, under its locks. `None`: the cluster is not away.
    async fn remove_alone(&self, key: &Bytes, on_return: OnReturn) -> Result<Option<bool>, AccessError> {
        let shared = self.cache.get(key).map(|entry| self.shared(entry));
        let held = match &shared {
            None => None,
            Some(shared) => match shared.enter(shared.all_groups(), Mode::Write).await {
                Ok(held) => Some(held),
                Err(LockError::Destroyed) => None,
                Err(LockError::Timeout { waited }) => return Err(AccessError::Timeout { waited }),
                Err(_) => return Ok(None),
            },
        };
        let removed = self.runtime.node.remove_alone(self.cache.id, key, on_return);
        drop(held);
        match removed {
            Ok(was_here) => Ok(Some(was_here)),
            Err(AloneError::NotAway) => Ok(None),
            Err(error) => Err(self.runtime.alone_error(error)),
        }
    }

    /// Gives the object under `from` the key `to`: the same object, its handles stay good. `false` when there is none.
    ///
    /// # Errors
    /// [`AccessError`]; `Refused(KeyTaken)` when `to` has an object.
    pub async fn rename<Q: KeyBytes + ?Sized>(&self, from: &Q, to: K) -> Result<bool, AccessError>
    where
        K: Borrow<Q>,
    {
        let (from, to) = (key_bytes(from)?, key_bytes(&to)?);
        self.wait_for_return(&from).await?;
        self.ask(|request, root| ToCoordinator::Rename { request, root, from, to }).await
    }

    /// Whether the cluster has an object under a key. Does not fetch it.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn contains<Q: KeyBytes + ?Sized>(&self, key: &Q) -> Result<bool, AccessError>
    where
        K: Borrow<Q>,
    {
        let key = key_bytes(key)?;
        self.wait_for_return(&key).await?;
        self.ask(|request, root| ToCoordinator::Contains { request, root, key }).await
    }

    /// The cluster's keys, page by page, ascending.
    #[must_use]
    pub fn keys(&self) -> Keys<K, T> {
        Keys::of(self.clone())
    }

    pub(super) async fn keys_after(&self, after: Option<Bytes>, limit: u32) -> Result<KeysPage, AccessError> {
        self.runtime.wait(self.away, |node| node.keys(self.cache.id, after, limit)).await
    }

    /// Watches every object of the root, resident here or not.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn watch(&self) -> Result<Watch<K>, AccessError> {
        let target = WatchTarget::Root(self.cache.id);
        Watch::start(&self.runtime, target, Arc::clone(&self.cache.binding)).await
    }

    /// Listens in a group of this name, which is made when the root has none: it is told what happens in the root from then
    /// on. See [`Listener`].
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn listen(&self, group: &str) -> Result<Listener<K>, AccessError> {
        Listener::start(&self.runtime, self.cache.id, group, Arc::clone(&self.cache.binding)).await
    }

    /// Ends a listener group, with all it has not acknowledged; its listeners end. `false` when there is none. A group that
    /// nobody listens in any more is to be ended: its queue fills.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn end_listeners(&self, group: &str) -> Result<bool, AccessError> {
        self.ask(|request, root| ToCoordinator::EndListeners { request, root, group: group.to_owned() }).await
    }

    /// Asks for an object made of `value`, or that was there before.
    async fn create(
        &self,
        value: &mut Option<T>,
        start: impl FnOnce(&Node) -> Arc<Ticket<Answer<Option<Found>>>>,
        again: impl Fn(&Node) -> Arc<Ticket<Answer<Option<Found>>>>,
    ) -> Result<Shared<T>, AccessError> {
        let is_again = AtomicBool::new(false);
        let again = |node: &Node| {
            // Relaxed: one task only; an atomic because the future may move between threads.
            is_again.store(true, Ordering::Relaxed);
            again(node)
        };
        let found = self.runtime.wait_resident(self.away, start, again).await?;
        let Found { entry, created } = found.ok_or(AccessError::Removed)?;
        if (created || is_again.load(Ordering::Relaxed))
            && let Some(value) = value.take()
        {
            // Whoever found it first here keeps the local fields that it has made.
            Beside::of(&entry).fields.get_or_init(|| Box::new(value.into_local()));
        }
        Ok(self.shared(entry))
    }

    async fn ask(
        &self,
        make: impl FnOnce(RequestId, kiln_protocol::RootId) -> ToCoordinator,
    ) -> Result<bool, AccessError> {
        let root = self.cache.id;
        let asked = Asked::new(&self.runtime);
        self.runtime.wait(self.away, |node| asked.note(node.ask_yes_no(|request| make(request, root)))).await
    }

    fn encode(&self, value: &T) -> Result<Bytes, AccessError> {
        let mut changes = Changes::default();
        value.store(&mut changes)?;
        let writes = self.cache.binding.encode_record(changes.as_slice());
        if writes.len() > RECORD_BYTES_MAX {
            return Err(AccessError::TooLarge { bytes: writes.len(), limit: RECORD_BYTES_MAX });
        }
        Ok(writes.into())
    }
}

/// An operation that was asked for; dropping it before the answer gives it up.
struct Asked<'a> {
    runtime: &'a Attached,
    request: OnceLock<RequestId>,
}

impl<'a> Asked<'a> {
    const fn new(runtime: &'a Attached) -> Self {
        Self { runtime, request: OnceLock::new() }
    }

    fn note<T>(&self, (request, ticket): (RequestId, T)) -> T {
        self.request.get_or_init(|| request);
        ticket
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request.get() {
            self.runtime.node.give_up(*request);
        }
    }
}

fn key_bytes<Q: KeyBytes + ?Sized>(key: &Q) -> Result<Bytes, AccessError> {
    let bytes = key.with_bytes(Bytes::copy_from_slice);
    if bytes.len() > KEY_BYTES_MAX {
        return Err(AccessError::KeyTooLong { bytes: bytes.len(), limit: KEY_BYTES_MAX });
    }
    Ok(bytes)
}
