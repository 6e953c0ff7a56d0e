//! A handle to one object.

use super::builder::Away;
use super::commit::Level;
use super::counter::Counter;
use super::error::{AccessError, LockError, TryUpdateError, UpdateError};
use super::guard::{Held, ReadGuard, WriteGuard};
use super::local_copy::{Beside, Distribution, LocalCopy, shown};
use super::room::Room;
use super::runtime::{Attached, Whereabouts};
use super::watch::Watch;
use kiln_engine::{Claim, Entry, RequestError, State, Wait};
use kiln_heap::ApplyError;
use kiln_object::{Clustered, CounterSource, Key, KeyBytes, ValueError};
use kiln_protocol::message::{Mode, WatchTarget};
use kiln_protocol::{ObjectId, Version};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A live object of the cluster. Cheap to clone; the object stays resident while a handle lives.
///
/// - [`view`](Self::view) and [`get`](Self::get) read the last version held: no lock, no network, never half-applied.
/// - [`read`](Self::read) reads under a cluster-wide read lock: nobody changes the object meanwhile.
/// - [`update`](Self::update) and [`write`](Self::write) change it under the cluster-wide write lock.
pub struct Shared<T> {
    pub(super) runtime: Arc<Attached>,
    pub(super) entry: Arc<Entry>,
    pub(super) timeout: Duration,
    pub(super) away: Away,
    _type: PhantomData<fn() -> T>,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            runtime: Arc::clone(&self.runtime),
            entry: Arc::clone(&self.entry),
            timeout: self.timeout,
            away: self.away,
            _type: PhantomData,
        }
    }
}

impl<T: Clustered> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("type", &T::NAME).field("id", &self.id()).field("state", &self.state()).finish()
    }
}

impl<T: Clustered> Shared<T> {
    pub(super) fn new(runtime: Arc<Attached>, entry: Arc<Entry>, away: Away) -> Self {
        let timeout = runtime.options.timeout;
        Self { runtime, entry, timeout, away, _type: PhantomData }
    }

    /// The same object, with another deadline for what waits.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// The same object, with something else to do while the connection is lost.
    #[must_use]
    pub fn with_away(&self, away: Away) -> Self {
        Self { away, ..self.clone() }
    }

    /// The object's id in the cluster.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.entry.id()
    }

    /// The key that the object has now, for all that this node has heard; `None` when it is no `K`.
    #[must_use]
    pub fn key<K: Key>(&self) -> Option<K> {
        K::decode(&self.entry.key())
    }

    /// Whether this is the key that the object has now, for all that this node has heard.
    #[must_use]
    pub fn has_key<Q: KeyBytes + ?Sized>(&self, key: &Q) -> bool {
        key.with_bytes(|key| self.entry.has_key(key))
    }

    /// How far the copy here can be trusted.
    #[must_use]
    pub fn state(&self) -> State {
        let state = self.entry.state();
        if state == State::Current && !self.runtime.node.link.is_synced() { State::Stale } else { state }
    }

    /// The version of the default lock group that is shown here.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::from_bits(self.entry.object.version(0))
    }

    /// Fields whose last write was not a valid archive of their type: the version before it is shown.
    #[must_use]
    pub fn corrupt_fields(&self) -> Vec<kiln_engine::Corrupt> {
        self.entry.corrupt()
    }

    /// Fields with an `on_archive_failure` other than `"fail"` whose last change by this process could not be archived, and
    /// that nobody has changed since: they show the value from before, and each error says why. What is only too long for
    /// other nodes is shown all the same where the changes stay in this process
    /// ([`distribution`](Self::distribution)).
    #[must_use]
    pub fn left_out(&self) -> Vec<Arc<ValueError>> {
        self.entry.left_out()
    }

    /// Whether what this process changes goes to the other nodes.
    #[must_use]
    pub fn distribution(&self) -> Distribution {
        Distribution::of(&self.entry)
    }

    /// The last version held: plain memory, never half-applied, possibly behind the cluster. Not `Send`: it pins the
    /// version it shows, so drop it before an `.await`, or use [`get`](Self::get).
    #[must_use]
    #[inline]
    pub fn view(&self) -> T::View<'_> {
        self.entry.note_use();
        T::view(shown(&self.runtime, &self.entry).pin())
    }

    /// Looks at the last version held.
    #[inline]
    pub fn get<R>(&self, look: impl FnOnce(&T::View<'_>) -> R) -> R {
        look(&self.view())
    }

    /// An owned copy of the last version held. Local fields have their default.
    #[must_use]
    pub fn load(&self) -> T {
        T::load(&self.view())
    }

    /// The `local` fields: this process's own, for as long as the object is resident here.
    #[must_use]
    pub fn local(&self) -> &T::Local {
        let local = Beside::of(&self.entry).fields.get_or_init(|| Box::<T::Local>::default());
        local.downcast_ref().expect("a root is opened with one type")
    }

    /// Takes the read lock of every group: until the guard is dropped, nobody in the cluster changes the object.
    ///
    /// # Errors
    /// [`LockError`]; then nothing is held. May be dropped at any time.
    pub async fn read(&self) -> Result<ReadGuard<'_, T>, LockError> {
        match self.enter(self.all_groups(), Mode::Read).await {
            Ok(held) => Ok(ReadGuard::new(self, held)),
            Err(error) if self.away.reads_locally() && error.is_for_want_of_connection() => Ok(ReadGuard::stale(self)),
            Err(error) => Err(error),
        }
    }

    /// Takes the write lock of every group.
    ///
    /// # Errors
    /// [`LockError`]; then nothing is held. May be dropped at any time.
    pub async fn write(&self) -> Result<WriteGuard<'_, T>, LockError> {
        Ok(WriteGuard::new(self, self.enter(self.all_groups(), Mode::Write).await?))
    }

    /// Takes the write lock of one group; only its fields can be changed. The group of the fields
    /// without `lock` is `default`.
    ///
    /// # Errors
    /// [`LockError`]; then nothing is held. May be dropped at any time.
    pub async fn write_group(&self, group: &str) -> Result<WriteGuard<'_, T>, LockError> {
        Ok(WriteGuard::new(self, self.enter(self.group(group)?, Mode::Write).await?))
    }

    /// Takes the write lock of every group if this node has its grants and nobody here holds them. Never waits.
    #[must_use]
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        self.entry.note_use();
        let held = Held::try_enter(self, self.all_groups(), Mode::Write)?;
        Some(WriteGuard::new(self, held))
    }

    /// Locks, changes, commits with the runtime's default level. A panic in the closure rolls back.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn update<R>(&self, change: impl FnOnce(&mut T::Mut<'_>) -> R) -> Result<R, UpdateError> {
        self.update_with(self.runtime.options.level, change).await
    }

    /// Locks, changes, commits with this level.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn update_with<R>(
        &self,
        level: Level,
        change: impl FnOnce(&mut T::Mut<'_>) -> R,
    ) -> Result<R, UpdateError> {
        let mut guard = self.write().await?;
        let result = change(&mut guard);
        guard.commit_with(level).await?;
        Ok(result)
    }

    /// As [`update`](Self::update); an `Err` of the closure rolls back.
    ///
    /// # Errors
    /// [`TryUpdateError`].
    pub async fn try_update<R, E>(
        &self,
        change: impl FnOnce(&mut T::Mut<'_>) -> Result<R, E>,
    ) -> Result<R, TryUpdateError<E>> {
        let mut guard = self.write().await?;
        let result = change(&mut guard).map_err(TryUpdateError::RolledBack)?;
        guard.commit().await?;
        Ok(result)
    }

    /// Watches the object. `K` is the key type of its root.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn watch<K: Key>(&self) -> Result<Watch<K>, AccessError> {
        Watch::start(&self.runtime, WatchTarget::Object(self.id()), Arc::clone(&self.entry.binding)).await
    }

    pub(super) fn all_groups(&self) -> Range<usize> {
        0..self.entry.locks().len()
    }

    pub(super) fn group(&self, name: &str) -> Result<Range<usize>, LockError> {
        let index = self.entry.binding.group_named(name).map(usize::from);
        index.map(|index| index..index + 1).ok_or_else(|| LockError::UnknownGroup {
            type_name: T::NAME,
            group: name.to_owned(),
            known: (0..self.entry.locks().len())
                .filter_map(|index| u8::try_from(index).ok())
                .map(|index| self.entry.binding.group_name(index))
                .collect(),
        })
    }

    pub(super) async fn enter(&self, groups: Range<usize>, mode: Mode) -> Result<Held<'_>, LockError> {
        self.entry.note_use();
        match Held::try_enter(self, groups.clone(), mode) {
            Some(held) => Ok(held),
            // Boxed: what waits is large, and what does not wait must not carry it.
            None => Box::pin(self.wait_to_enter(groups, mode, None)).await,
        }
    }

    pub(super) async fn wait_to_enter(
        &self,
        groups: Range<usize>,
        mode: Mode,
        claim: Option<&Claim>,
    ) -> Result<Held<'_>, LockError> {
        self.runtime.node.count_wait();
        // Who has nothing yet loses nothing with the lease, and waits on. Alone, what is held already still holds.
        let waits_on = match self.away {
            Away::LocalReadWrite { .. } => true,
            Away::Block(_) => claim.is_none_or(|claim| claim.holds.is_empty()),
            Away::Fail | Away::LocalReads => false,
        };
        let life = self.runtime.node.link.life();
        let holds = claim.is_some_and(|claim| !claim.holds.is_empty());
        // What a transaction held in an earlier life is lost.
        let is_void = || holds && self.runtime.node.link.life() != life;
        let wait = async {
            loop {
                let whereabouts = self.runtime.whereabouts(self.away, self.timeout).await;
                if is_void() {
                    return Err(LockError::Fenced);
                }
                let entered = match whereabouts {
                    Whereabouts::Together => self.enter_together(groups.clone(), mode, claim).await,
                    Whereabouts::Alone => Held::enter_alone(self, groups.clone(), mode).await,
                    Whereabouts::Nowhere => return Err(LockError::Disconnected),
                };
                if !waits_on || !matches!(entered, Err(LockError::Fenced)) {
                    return if is_void() { Err(LockError::Fenced) } else { entered };
                }
            }
        };
        match tokio::time::timeout(self.timeout, wait).await {
            Ok(held) => held,
            Err(_elapsed) => Err(LockError::Timeout { waited: self.timeout }),
        }
    }

    async fn enter_together(
        &self,
        groups: Range<usize>,
        mode: Mode,
        claim: Option<&Claim>,
    ) -> Result<Held<'_>, LockError> {
        // Not under the locks: what was done alone is done again under them.
        self.runtime.replayed(&self.entry).await;
        if self.entry.state() == State::Local {
            // The lease has lapsed again.
            return Err(LockError::Fenced);
        }
        let held = Held::enter(self, groups, mode, claim).await?;
        self.refresh().await?;
        if held.is_fenced() { Err(LockError::Fenced) } else { Ok(held) }
    }

    /// A stale copy is fetched anew before a coherent access.
    pub(super) async fn refresh(&self) -> Result<(), LockError> {
        match self.entry.state() {
            State::Current if self.entry.is_kept_local() => Box::pin(self.refresh_local()).await,
            State::Current => Ok(()),
            // The lease has lapsed again.
            State::Local => Err(LockError::Fenced),
            State::Destroyed => Err(LockError::Destroyed),
            State::Stale => {
                let mut room = Room::new(&self.runtime);
                loop {
                    match Wait::new(self.runtime.node.refetch(&self.entry)).await {
                        Ok(()) => return Ok(()),
                        Err(RequestError::Disconnected) => return Err(LockError::Disconnected),
                        Err(RequestError::ArenaFull { .. }) if room.wait().await => {}
                        Err(error) => return Err(LockError::Fetch(self.runtime.access_error(error))),
                    }
                }
            }
        }
    }

    /// What other nodes have changed is put beneath what is kept here, which takes room.
    async fn refresh_local(&self) -> Result<(), LockError> {
        let mut room = Room::new(&self.runtime);
        loop {
            let error = match LocalCopy::refresh_all(&self.runtime, &self.entry) {
                Ok(()) => return Ok(()),
                Err(ApplyError::Full { needed_bytes }) => RequestError::ArenaFull { needed_bytes },
                Err(error) => RequestError::BadRecord(error.to_string()),
            };
            if !matches!(error, RequestError::ArenaFull { .. }) || !room.wait().await {
                return Err(LockError::Fetch(self.runtime.access_error(error)));
            }
        }
    }
}

impl<T: Clustered> CounterSource<T> for Shared<T> {
    type Counter<'a> = Counter<'a>;

    fn counter(&self, slot: u16) -> Counter<'_> {
        Counter::new(&self.runtime, &self.entry, slot, self.away)
    }
}
