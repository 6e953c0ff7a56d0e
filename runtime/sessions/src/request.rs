//! The session of one request, as the layer, the lock and the handler share it.

use crate::settings::Settings;
use crate::{SessionError, SessionId};
use http::HeaderValue;
use kiln::{AccessError, Away, Clustered, Failure, Lock, LockError, OnReturn, Root, Shared, State};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many ids of a request are looked at. It has one, unless somebody has set other cookies of the same name.
const IDS_PRESENTED: usize = 4;
/// How many new ids are tried. With 160 random bits the first one is new.
const IDS_TRIED: usize = 3;

/// What a request has locked to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Locking {
    /// Every group.
    Whole,
    /// One group.
    Group(Cow<'static, str>),
}

impl Locking {
    /// Whether the fields of a group can be changed under it.
    pub(crate) fn covers(&self, group: &str) -> bool {
        let named = |name: &str| if name.is_empty() { "default".to_owned() } else { name.to_owned() };
        match self {
            Self::Whole => true,
            Self::Group(locked) => named(locked) == named(group),
        }
    }
}

/// What is to become of the visitor's cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum CookieChange {
    Keep,
    Set,
    Clear,
}

/// The session of one request.
pub(crate) struct RequestState<T: Clustered> {
    pub(crate) settings: Arc<Settings<T>>,
    current: Mutex<Current<T>>,
    /// One at a time looks the session up, or makes it.
    turn: tokio::sync::Mutex<()>,
}

struct Current<T> {
    /// What the request has brought, whatever it is good for, or got.
    id: Option<SessionId>,
    /// The key of the session that was found, made or given a new id here.
    key: Option<Arc<str>>,
    /// And what else it has brought.
    others: Vec<SessionId>,
    is_looked_up: bool,
    /// It brought an id, and there is no session with it.
    is_lost: bool,
    shared: Option<Shared<T>>,
    /// What was asked for; while there is no session there is nothing to lock.
    locking: Option<Locking>,
    lock: Option<Arc<Lock<T>>>,
    cookie: CookieChange,
    /// The new id of a rotation that was given up, or whose answer was lost: whether the session has it may be known later.
    candidate: Option<SessionId>,
}

impl<T: Clustered + Default> RequestState<T> {
    pub(crate) fn new(settings: Arc<Settings<T>>, mut ids: impl Iterator<Item = SessionId>) -> Self {
        let id = ids.next();
        let others = ids.filter(|other| id.as_ref() != Some(other)).take(IDS_PRESENTED - 1).collect();
        let current = Current {
            id,
            key: None,
            others,
            is_looked_up: false,
            is_lost: false,
            shared: None,
            locking: None,
            lock: None,
            cookie: CookieChange::Keep,
            candidate: None,
        };
        Self { settings, current: Mutex::new(current), turn: tokio::sync::Mutex::default() }
    }

    fn current(&self) -> MutexGuard<'_, Current<T>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, if there is one; looked up once for each request.
    pub(crate) async fn look_up(&self) -> Result<Option<Shared<T>>, SessionError> {
        match self.look_up_here() {
            Some(found) => Ok(found),
            // In a box: it is large, and most requests find their session here.
            None => Box::pin(self.look_up_in_turn()).await,
        }
    }

    async fn look_up_in_turn(&self) -> Result<Option<Shared<T>>, SessionError> {
        let _turn = self.turn.lock().await;
        if let Some(found) = self.look_up_here() {
            return Ok(found);
        }
        let mut ids: Vec<SessionId> = {
            let current = self.current();
            current.id.iter().chain(&current.others).cloned().collect()
        };
        let root = self.settings.root().await?;
        for at in 0..ids.len() {
            let key: Arc<str> = ids[at].key().into();
            // Where that cannot be said of one, a later one is not taken: it may be another visitor's.
            let Some(found) = root.get(&*key).await? else { continue };
            self.settings.keys.keep(&ids[at], &key);
            let mut current = self.current();
            current.is_looked_up = true;
            current.id = Some(ids.remove(at));
            current.others = ids;
            current.key = Some(key);
            current.shared = Some(found.clone());
            return Ok(Some(found));
        }
        self.there_is_none();
        Ok(None)
    }

    /// The same without waiting; `None` when the coordinator has to be asked.
    fn look_up_here(&self) -> Option<Option<Shared<T>>> {
        let mut current = self.current();
        if current.is_looked_up {
            return Some(current.shared.clone());
        }
        let Some(id) = &current.id else {
            current.is_looked_up = true;
            return Some(None);
        };
        // An id that nobody has presented yet is hashed when the coordinator is asked.
        let key = self.settings.keys.get(id)?;
        let found = self.settings.opened()?.peek(&*key)?;
        current.is_looked_up = true;
        current.key = Some(key);
        current.shared = Some(found.clone());
        Some(Some(found))
    }

    /// The request has brought an id, and there is no session, or none that is its.
    fn there_is_none(&self) {
        let mut current = self.current();
        current.is_looked_up = true;
        current.is_lost = true;
        (current.key, current.shared, current.lock) = (None, None, None);
    }

    /// Whether the session has the id still that this request has brought, or gave it. Not when another request has given it a
    /// new one: who made that one, with the old id, may be somebody who planted or saw it.
    pub(crate) fn is_ours(&self, shared: &Shared<T>) -> bool {
        let current = self.current();
        let has_key = |key: &str| shared.has_key(key);
        current.key.as_deref().is_some_and(has_key) || current.candidate.as_ref().is_some_and(|id| has_key(&id.key()))
    }

    /// # Errors
    /// It ended, or has another id.
    pub(crate) fn check(&self, shared: &Shared<T>) -> Result<(), SessionError> {
        match shared.state() {
            State::Destroyed => Err(SessionError::Destroyed),
            _ if self.is_ours(shared) => Ok(()),
            State::Current | State::Stale | State::Local => Err(SessionError::Rotated),
        }
    }

    /// Whether the request brought an id of no session.
    pub(crate) fn is_lost(&self) -> bool {
        self.current().is_lost
    }

    /// The session; made, with a new id, when there is none.
    pub(crate) async fn open(&self) -> Result<Shared<T>, SessionError> {
        self.open_with(SessionId::random).await
    }

    async fn open_with(&self, mut ids: impl FnMut() -> Option<SessionId> + Send) -> Result<Shared<T>, SessionError> {
        if let Some(shared) = self.look_up().await? {
            return self.check(&shared).map(|()| shared);
        }
        let _turn = self.turn.lock().await;
        let made = self.current().shared.clone();
        if let Some(shared) = made {
            return Ok(shared);
        }
        let root = self.settings.root().await?;
        for _ in 0..IDS_TRIED {
            let id = ids().ok_or(SessionError::NoRandomness)?;
            let key = id.key();
            let Some(shared) = insert_new(root, &key, T::default).await? else { continue };
            let locking = self.current().locking.clone();
            // Nobody else knows the id.
            let lock = match locking {
                Some(locking) => Some(Arc::new(lock(&shared, &locking).await?)),
                None => None,
            };
            let mut current = self.current();
            current.id = Some(id);
            current.key = Some(key.into());
            current.shared = Some(shared.clone());
            current.lock = lock;
            current.cookie = CookieChange::Set;
            return Ok(shared);
        }
        Err(SessionError::IdsInUse)
    }

    /// Asks for a lock to the end of the request; `false` when it was asked for before.
    pub(crate) async fn ask_for_lock(&self, locking: &Locking) -> Result<bool, SessionError> {
        if !self.settings.lock_mode.allows(locking) {
            return Err(SessionError::OtherLockMode { mode: self.settings.lock_mode.word() });
        }
        match &self.current().locking {
            Some(Locking::Whole) => return Ok(false),
            Some(asked) if asked == locking => return Ok(false),
            Some(_) => return Err(SessionError::OtherLock),
            None => {}
        }
        if let Some(shared) = self.look_up().await? {
            match lock(&shared, locking).await {
                Ok(lock) => self.current().lock = Some(Arc::new(lock)),
                // There is no session any more, and so nothing to lock.
                Err(SessionError::Destroyed) => self.there_is_none(),
                Err(error) => return Err(error),
            }
        }
        self.current().locking = Some(locking.clone());
        Ok(true)
    }

    /// What is locked, and the lock unless there is no session yet.
    pub(crate) fn lock(&self) -> Option<(Locking, Arc<Lock<T>>)> {
        let current = self.current();
        current.locking.clone().zip(current.lock.clone())
    }

    /// The end of the request, as far as its lock is concerned.
    pub(crate) fn unlock(&self) {
        let mut current = self.current();
        current.lock = None;
        current.locking = None;
    }

    /// Gives the session a new id. `false`: another request has done so, and this one has no session.
    pub(crate) async fn rotate(&self) -> Result<bool, SessionError> {
        let Some(shared) = self.look_up().await? else { return Ok(true) };
        let _turn = self.turn.lock().await;
        let Some(old) = self.current().id.as_ref().map(SessionId::key) else { return Ok(true) };
        // Its name is changed under all of its locks.
        let lock = self.current().lock.clone();
        if let Some(lock) = &lock {
            lock.release().await?;
        }
        let rotated = self.rename(&old, &shared, SessionId::random).await;
        if let Some(lock) = lock.filter(|_| !matches!(rotated, Ok(false))) {
            lock.take_again().await?;
        }
        let rotated = rotated?;
        // Nobody has the old id now; this returns when every node has heard so.
        self.settings.root().await?.remove_everywhere(&old).await?;
        if !rotated {
            self.there_is_none();
            self.current().id = None;
        }
        Ok(rotated)
    }

    async fn rename(
        &self,
        old: &str,
        shared: &Shared<T>,
        mut ids: impl FnMut() -> Option<SessionId> + Send,
    ) -> Result<bool, SessionError> {
        let root = self.settings.root().await?;
        for _ in 0..IDS_TRIED {
            // One that was given up, or whose answer was lost, may have been done: the same again.
            let candidate = self.current().candidate.clone();
            let id = candidate.or_else(&mut ids).ok_or(SessionError::NoRandomness)?;
            self.current().candidate = Some(id.clone());
            match root.rename(old, id.key()).await {
                Ok(false) if shared.state() == State::Destroyed => return Err(SessionError::Destroyed),
                // By another request. By this one, before, when it has the id.
                Ok(false) if !shared.has_key(&*id.key()) => return Ok(false),
                Ok(true | false) => {
                    let mut current = self.current();
                    current.key = Some(id.key().into());
                    current.id = Some(id);
                    current.candidate = None;
                    current.cookie = CookieChange::Set;
                    return Ok(true);
                }
                Err(AccessError::Refused(Failure::KeyTaken)) => self.current().candidate = None,
                Err(error) => return Err(error.into()),
            }
        }
        Err(SessionError::IdsInUse)
    }

    /// Ends the session on every node. `false` when there was none: another request may be ending it just now, and this
    /// one returns when that holds as well.
    pub(crate) async fn destroy(&self) -> Result<bool, SessionError> {
        // By the object and not by the id alone: another request may be giving it a new one.
        let shared = self.look_up().await.ok().flatten();
        let _turn = self.turn.lock().await;
        let (id, others, lock) = {
            let current = self.current();
            (current.id.clone(), current.others.clone(), current.lock.clone())
        };
        if id.is_none() && others.is_empty() {
            return Ok(false);
        }
        if let Some(lock) = &lock {
            lock.release().await?;
        }
        let root = for_good(self.settings.root().await?);
        let mut removed = match id {
            Some(id) => remove(&root, id.key(), shared.as_ref()).await,
            None => Ok(false),
        };
        let is_over = matches!(removed, Ok(_) | Err(AccessError::RemovedHere));
        if is_over {
            let mut current = self.current();
            (current.id, current.key, current.shared, current.lock) = (None, None, None, None);
            current.is_looked_up = true;
            current.cookie = CookieChange::Clear;
        }
        // Each of them may be the visitor's; somebody may keep the lock of one that is not.
        for other in others {
            let other = remove(&root, other.key(), None).await;
            removed = match (removed, other) {
                (Ok(removed), Ok(other)) => Ok(removed || other),
                (Err(AccessError::RemovedHere) | Ok(_), Err(error)) | (Err(error), _) => Err(error),
            };
        }
        if let Some(lock) = lock.filter(|_| !is_over) {
            lock.take_again().await?;
        }
        Ok(removed?)
    }

    /// What the answer is to say about the visitor's cookie.
    pub(crate) fn cookie(&self) -> Option<HeaderValue> {
        let current = self.current();
        match current.cookie {
            CookieChange::Keep => {
                let (candidate, shared) = (current.candidate.as_ref()?, current.shared.as_ref()?);
                shared.has_key(&*candidate.key()).then(|| self.settings.cookie.set(candidate))?
            }
            CookieChange::Set => self.settings.cookie.set(current.id.as_ref()?),
            CookieChange::Clear => self.settings.cookie.clear(),
        }
    }
}

/// The root for a removal: whatever becomes of changes that were made alone, a logout is not taken back.
pub(crate) fn for_good<T: Clustered>(root: &Root<String, T>) -> Root<String, T> {
    match root.away() {
        Away::LocalReadWrite { .. } => root.with_away(Away::LocalReadWrite { on_return: OnReturn::Replay }),
        Away::Block(_) | Away::Fail | Away::LocalReads => root.clone(),
    }
}

/// Removes the session with this key, or with the one that it has got meanwhile.
async fn remove<T: Clustered>(
    root: &Root<String, T>,
    mut key: String,
    shared: Option<&Shared<T>>,
) -> Result<bool, AccessError> {
    let present = || shared.filter(|shared| shared.state() != State::Destroyed)?.key::<String>();
    if let Some(now) = present() {
        key = now;
    }
    loop {
        if root.remove_everywhere(&key).await? {
            return Ok(true);
        }
        match present() {
            Some(now) if now != key => key = now,
            Some(_) | None => return Ok(false),
        }
    }
}

/// A new object, or `None` when the key is in use.
pub(crate) async fn insert_new<T: Clustered>(
    root: &Root<String, T>,
    key: &str,
    make: impl Fn() -> T,
) -> Result<Option<Shared<T>>, AccessError> {
    match root.insert_new(key.to_owned(), make()).await {
        // Alone nobody can say that the cluster has no such key; that it is random has to do.
        Err(AccessError::Disconnected) if matches!(root.away(), Away::LocalReadWrite { .. }) => {
            root.get_or_create(key, make).await.map(Some)
        }
        made => made,
    }
}

async fn lock<T: Clustered>(shared: &Shared<T>, locking: &Locking) -> Result<Lock<T>, SessionError> {
    let lock = match locking {
        Locking::Whole => shared.lock().await?,
        Locking::Group(group) => shared.lock_group(group).await?,
    };
    // Nobody has asked for a lock among the tasks of this node.
    if lock.is_alone() { Err(SessionError::Lock(LockError::Disconnected)) } else { Ok(lock) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln::Runtime;

    #[derive(Clustered, Default)]
    struct Basket {
        pieces: u64,
    }

    #[tokio::test]
    async fn an_id_in_use_is_not_given_to_another_visitor() {
        let kiln = Runtime::embedded().await.unwrap();
        let settings = Arc::new(Settings::<Basket>::new(&kiln));
        let [taken, free, third] = [(); 3].map(|()| SessionId::random().unwrap());
        let request = || RequestState::new(Arc::clone(&settings), std::iter::empty());
        // A system whose random numbers come in this order.
        let system = |ids: &[&SessionId]| {
            let mut ids: Vec<_> = ids.iter().rev().map(|id| (*id).clone()).collect();
            move || ids.pop()
        };
        let first = request().open_with(system(&[&taken])).await.unwrap();
        first.update(|basket| *basket.pieces = 7).await.unwrap();

        let second = request();
        let other = second.open_with(system(&[&taken, &free])).await.unwrap();
        assert_eq!((first.get(|basket| basket.pieces()), other.get(|basket| basket.pieces())), (7, 0));
        assert_eq!(second.current().id, Some(free.clone()));
        assert!(second.rename(&free.key(), &other, system(&[&taken, &third])).await.unwrap());
        assert_eq!(second.current().id, Some(third));
        assert_eq!(first.get(|basket| basket.pieces()), 7);

        // Random numbers that are not random are no reason to hand out what somebody has.
        let stuck = request().open_with(system(&[&taken; IDS_TRIED])).await;
        assert!(matches!(stuck, Err(SessionError::IdsInUse)), "{stuck:?}");
        let silent = request().open_with(|| None).await;
        assert!(matches!(silent, Err(SessionError::NoRandomness)), "{silent:?}");
    }

    #[tokio::test]
    async fn a_rotation_that_was_given_up_is_made_with_the_same_id() {
        let kiln = Runtime::embedded().await.unwrap();
        let settings = Arc::new(Settings::<Basket>::new(&kiln));
        let request = RequestState::new(Arc::clone(&settings), std::iter::empty());
        let shared = request.open().await.unwrap();
        let (given_up, again) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        for is_done in [false, true] {
            let old = request.current().id.clone().unwrap().key();
            let candidate = if is_done { &again } else { &given_up };
            request.current().candidate = Some(candidate.clone());
            if is_done {
                let root = settings.root().await.unwrap();
                assert!(root.rename(&old, candidate.key()).await.unwrap());
            }
            assert!(request.is_ours(&shared));
            assert!(request.rename(&old, &shared, || None).await.unwrap());
            assert_eq!(request.current().id.as_ref(), Some(candidate));
            assert!(shared.has_key(&*candidate.key()) && request.is_ours(&shared));
        }
        // Another one of the same request has another id.
        assert!(request.rotate().await.unwrap());
        assert!(!shared.has_key(&*again.key()) && request.is_ours(&shared));
    }
}
