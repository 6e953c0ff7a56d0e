//! The session, as a handler has it.

use crate::SessionError;
use crate::request::{Locking, RequestState};
use http::Extensions;
use kiln::{AccessError, Clustered, Commit, Level, Lock, LockedGuard, ReadGuard, Shared, WriteGuard};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

/// The session of a request: one object that all nodes share, not a copy of it.
///
/// A visitor without a session has none until something is written: then it is made, with a new id, and the answer sets
/// the cookie. An id that the request brings and the cluster does not know is not used.
///
/// When the session is destroyed meanwhile, on whatever node, it shows nothing any more and takes no change
/// ([`SessionError::Destroyed`]). The same when another request gives it a new id ([`SessionError::Rotated`]).
pub struct Session<T: Clustered> {
    state: Arc<RequestState<T>>,
    found: Option<Shared<T>>,
    /// When none was found.
    made: OnceLock<Shared<T>>,
    lock: OnceLock<(Locking, Arc<Lock<T>>)>,
}

impl<T: Clustered> fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("object", &self.shared()).finish_non_exhaustive()
    }
}

impl<T: Clustered> Session<T> {
    fn shared(&self) -> Option<&Shared<T>> {
        self.found.as_ref().or_else(|| self.made.get())
    }
}

impl<T: Clustered + Default> Session<T> {
    /// The session of the request with these extensions, for services that are not axum's.
    ///
    /// # Errors
    /// [`SessionError`]: there is no [`SessionLayer`](crate::SessionLayer), or the cluster cannot be asked.
    pub async fn of(extensions: &Extensions) -> Result<Self, SessionError> {
        let state = extensions.get::<Arc<RequestState<T>>>().ok_or(SessionError::NoLayer)?;
        Self::open_state(Arc::clone(state)).await
    }

    async fn open_state(state: Arc<RequestState<T>>) -> Result<Self, SessionError> {
        let found = state.look_up().await?;
        Ok(Self { state, found, made: OnceLock::new(), lock: OnceLock::new() })
    }

    /// The session's object, if there is a session: with all that [`Shared`] offers.
    #[must_use]
    pub fn handle(&self) -> Option<&Shared<T>> {
        self.shared().filter(|shared| self.state.check(shared).is_ok())
    }

    /// Whether there is a session.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.handle().is_some()
    }

    /// Whether the request brought the id of a session that is no more, or never was.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state.is_lost() || self.shared().is_some_and(|shared| self.state.check(shared).is_err())
    }

    /// The last version held by this node: plain memory, no lock, no network. `None` when there is no session. Not
    /// `Send`: drop it before an `.await`, or use [`get`](Self::get).
    #[must_use]
    pub fn view(&self) -> Option<T::View<'_>> {
        let shared = self.shared()?;
        let view = shared.view();
        // In this order: what it shows is of before a rotation that is heard of afterwards.
        self.state.check(shared).ok().map(|()| view)
    }

    /// Looks at the last version held by this node; `None` when there is no session.
    pub fn get<R>(&self, look: impl FnOnce(&T::View<'_>) -> R) -> Option<R> {
        self.view().map(|view| look(&view))
    }

    /// Takes the read lock: until the guard is dropped, nobody in the cluster changes the session. For decisions about
    /// access and money. `None` when there is no session.
    ///
    /// # Errors
    /// [`SessionError`]; then nothing is held. A request that holds a lock of the session has no use for it, and would wait
    /// for itself ([`SessionError::OwnLock`]).
    pub async fn read(&self) -> Result<Option<ReadGuard<'_, T>>, SessionError> {
        let Some(shared) = self.handle() else { return Ok(None) };
        if self.lock().is_some() {
            return Err(SessionError::OwnLock);
        }
        match shared.read().await.map_err(SessionError::from) {
            Err(SessionError::Destroyed) => Ok(None),
            // Under the lock, the session has no other id than is known here.
            read => Ok(Some(read?).filter(|_| self.handle().is_some())),
        }
    }

    /// The session's object, made when there is none. Its counters are reached through it, without a lock:
    /// `session.open().await?.clicks().add(1)?`.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn open(&self) -> Result<&Shared<T>, SessionError> {
        if let Some(shared) = self.shared() {
            return self.state.check(shared).map(|()| shared);
        }
        let shared = self.state.open().await?;
        Ok(self.made.get_or_init(|| shared))
    }

    /// Locks, changes, commits. Makes the session when there is none. A panic in the closure rolls back.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn update<R>(&self, change: impl FnOnce(&mut T::Mut<'_>) -> R) -> Result<R, SessionError> {
        let mut guard = self.write().await?;
        let result = change(&mut guard);
        guard.commit().await?;
        Ok(result)
    }

    /// Takes the write lock. Makes the session when there is none. In a request that holds a lock of the session
    /// ([`SessionLock`](crate::SessionLock)) the guard is under that lock, and changes what it covers.
    ///
    /// # Errors
    /// [`SessionError`]; then nothing is held.
    pub async fn write(&self) -> Result<SessionGuard<'_, T>, SessionError> {
        let shared = self.open().await?;
        let held = match self.lock() {
            Some((_, lock)) => Held::Request(lock.write().await?),
            None => Held::Own(shared.write().await?),
        };
        self.guard(shared, held)
    }

    /// Takes the write lock of one group; only its fields can be changed. The group of the fields without `lock` is
    /// `default`. Makes the session when there is none.
    ///
    /// # Errors
    /// [`SessionError`]; then nothing is held.
    pub async fn write_group(&self, group: &str) -> Result<SessionGuard<'_, T>, SessionError> {
        let shared = self.open().await?;
        let held = match self.lock() {
            Some((locking, lock)) if locking.covers(group) => Held::Request(lock.write().await?),
            _ => Held::Own(shared.write_group(group).await?),
        };
        self.guard(shared, held)
    }

    /// Gives the session a new id, for a login: an id that somebody planted or saw before is of no use any more. It is the
    /// same object, with all it has. When it returns, the old id is no session's on any node. Without a session there is nothing
    /// to do.
    ///
    /// A lock that the request holds is left for that time, and taken again. Of several requests that do this at once, one
    /// gives the session its new id and keeps it. For the others it is as if they had come with the old id after that: they
    /// have no session ([`is_lost`](Self::is_lost)), for the new id may be that of somebody who knew the old one; what they write
    /// makes another session, and its answer may be the last to set the cookie.
    ///
    /// Requests that have found the session with the old id, and have it in hand still, show nothing of it any more and change
    /// nothing ([`SessionError::Rotated`]), whether they are the visitor's or of somebody who waited for the login; only
    /// [`destroy`](Self::destroy) ends it from there. What they have changed before that stays. A [`handle`](Self::handle) that
    /// was taken before goes on with the object.
    ///
    /// Only the answer has the new id: a visitor who goes away before it comes (the request is aborted, the node is killed) has no
    /// session any more, and has to log in again.
    ///
    /// # Errors
    /// [`SessionError`]; the visitor gets the new id if the session is known to have it when the answer is made.
    pub async fn rotate(&mut self) -> Result<(), SessionError> {
        if !self.state.rotate().await? {
            self.forget();
        }
        Ok(())
    }

    /// Ends the session, for a logout: when it returns, no node shows it, and whoever has it in hand still can neither
    /// change nor revive it. The answer takes the cookie away. What is written afterwards makes another session. `false`
    /// when there was none.
    ///
    /// # Errors
    /// [`SessionError`]. While the cluster is away, with [`Away::LocalReadWrite`](kiln::Away::LocalReadWrite), the session has
    /// ended on this node and the answer takes the cookie away, but it is an error
    /// ([`RemovedHere`](kiln::AccessError::RemovedHere)): other nodes may show it until the cluster is back, which then ends it
    /// everywhere.
    pub async fn destroy(&mut self) -> Result<bool, SessionError> {
        let destroyed = self.state.destroy().await;
        if matches!(destroyed, Ok(_) | Err(SessionError::Access(AccessError::RemovedHere))) {
            self.forget();
        }
        destroyed
    }

    fn forget(&mut self) {
        self.found = None;
        self.made = OnceLock::new();
        self.lock = OnceLock::new();
    }

    fn lock(&self) -> Option<&(Locking, Arc<Lock<T>>)> {
        if self.lock.get().is_none()
            && let Some(lock) = self.state.lock()
        {
            return Some(self.lock.get_or_init(|| lock));
        }
        self.lock.get()
    }

    /// Under the lock, the session has no other id than is known here.
    fn guard<'a>(&self, shared: &Shared<T>, held: Held<'a, T>) -> Result<SessionGuard<'a, T>, SessionError> {
        self.state.check(shared)?;
        Ok(SessionGuard { held, level: self.state.settings.level })
    }
}

/// Changes of a session under its write lock. Fields are reached through `Deref`; nobody sees a change before
/// [`commit`](Self::commit). Dropped without it, the guard rolls back. `Send`; may be kept across `.await`.
pub struct SessionGuard<'a, T: Clustered> {
    held: Held<'a, T>,
    level: Level,
}

/// Whose the lock is.
enum Held<'a, T: Clustered> {
    /// The guard's own.
    Own(WriteGuard<'a, T>),
    /// The request's.
    Request(LockedGuard<'a, T>),
}

impl<T: Clustered> fmt::Debug for SessionGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionGuard").finish_non_exhaustive()
    }
}

impl<'a, T: Clustered> Deref for SessionGuard<'a, T> {
    type Target = T::Mut<'a>;

    fn deref(&self) -> &Self::Target {
        match &self.held {
            Held::Own(guard) => guard,
            Held::Request(guard) => guard,
        }
    }
}

impl<T: Clustered> DerefMut for SessionGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match &mut self.held {
            Held::Own(guard) => guard,
            Held::Request(guard) => guard,
        }
    }
}

impl<T: Clustered> SessionGuard<'_, T> {
    /// Commits, with the layer's level; on this node alone while the cluster is away, where the layer says so
    /// ([`SessionLayer::away`](crate::SessionLayer::away)).
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn commit(self) -> Result<Commit, SessionError> {
        Ok(match self.held {
            // Nothing can be promised of other nodes.
            Held::Own(guard) if guard.is_alone() => guard.commit_with(Level::Applied).await?,
            Held::Own(guard) => guard.commit_with(self.level).await?,
            Held::Request(guard) => guard.commit_with(self.level).await?,
        })
    }

    /// Gives the changes up; the same as dropping the guard.
    pub fn rollback(self) {}
}
