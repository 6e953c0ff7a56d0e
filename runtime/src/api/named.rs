//! Locks without an object.

use super::builder::Away;
use super::error::{LockError, RootError};
use super::guard::{Held, Kept};
use super::root::Root;
use super::runtime::Runtime;
use super::shared::Shared;
use kiln_heap::Object;
use kiln_object::{Changes, Clustered, FieldInfo, ValueError, private};
use kiln_protocol::message::{Mode, RootOptions};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The root that keeps named locks. They vanish when no node holds or wants them.
const ROOT: &str = "kiln.locks";

/// What a named lock locks: nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct LockOnly;

// By hand: the derive wants a field.
impl Clustered for LockOnly {
    type Mut<'a> = ();
    type View<'a> = ();
    type Local = ();

    const NAME: &'static str = "kiln.Lock";
    const FIELDS: &'static [FieldInfo] = &[];

    fn collect((): &mut Self::Mut<'_>, _out: &mut Changes) -> Result<(), ValueError> {
        Ok(())
    }

    fn load((): &Self::View<'_>) -> Self {
        Self
    }

    fn into_local(self) -> Self::Local {}

    fn store_at(&self, _base: u16, _out: &mut Changes) -> Result<(), ValueError> {
        Ok(())
    }

    fn default_slot_at(_slot: u16, _base: u16, _out: &mut Changes) -> Result<(), ValueError> {
        Ok(())
    }

    fn guard_at(_object: &Object, _base: u16) -> Self::Mut<'_> {}

    fn view_at(_pinned: private::Held<'_>, _base: u16) -> Self::View<'_> {}
}

/// A lock of the cluster, known by its name.
#[derive(Clone, Debug)]
pub struct NamedLock {
    root: Root<String, LockOnly>,
    name: String,
    timeout: Duration,
    /// What stands for the lock now: it goes when no node has or wants it, and is made anew.
    object: Arc<Mutex<Shared<LockOnly>>>,
}

/// A named lock that is held, until it is dropped. `Send`; may be kept across `.await`.
#[derive(Debug)]
pub struct NamedGuard<'a> {
    _held: Kept,
    _lock: PhantomData<&'a NamedLock>,
}

impl Runtime {
    /// The lock with this name.
    ///
    /// # Errors
    /// [`RootError`] when the coordinator cannot be asked.
    pub async fn lock(&self, name: &str) -> Result<NamedLock, RootError> {
        let options = RootOptions { ephemeral: true, ..RootOptions::default() };
        let root = self.open_root::<String, LockOnly>(ROOT, options).await?;
        // A named lock is for the cluster: while that is away, nobody has it.
        let away = self.attached.options.away;
        let root = root.with_away(if away.on_return().is_some() { Away::Fail } else { away });
        let object = root.get_or_create(name, || LockOnly).await?;
        let timeout = object.timeout;
        Ok(NamedLock { root, name: name.to_owned(), timeout, object: Arc::new(Mutex::new(object)) })
    }
}

impl NamedLock {
    /// Takes the lock alone.
    ///
    /// # Errors
    /// [`LockError`]. May be dropped at any time.
    pub async fn write(&self) -> Result<NamedGuard<'_>, LockError> {
        self.enter(Mode::Write).await
    }

    /// Takes the lock together with other readers.
    ///
    /// # Errors
    /// [`LockError`]. May be dropped at any time.
    pub async fn read(&self) -> Result<NamedGuard<'_>, LockError> {
        self.enter(Mode::Read).await
    }

    /// Takes the lock alone if this node has its grant and nobody here holds it. Never waits.
    #[must_use]
    pub fn try_write(&self) -> Option<NamedGuard<'_>> {
        let object = self.object();
        let held = Held::try_enter(&object, object.all_groups(), Mode::Write)?;
        Some(NamedGuard::new(held))
    }

    /// The same lock with another deadline.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    pub(super) fn object(&self) -> Shared<LockOnly> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner).with_timeout(self.timeout)
    }

    async fn enter(&self, mode: Mode) -> Result<NamedGuard<'_>, LockError> {
        let entering = async {
            loop {
                let object = self.object();
                match object.enter(object.all_groups(), mode).await {
                    Ok(held) => return Ok(NamedGuard::new(held)),
                    Err(LockError::Destroyed) => self.renew().await?,
                    Err(error) => return Err(error),
                }
            }
        };
        let waited = self.timeout;
        tokio::time::timeout(waited, entering).await.unwrap_or(Err(LockError::Timeout { waited }))
    }

    async fn renew(&self) -> Result<(), LockError> {
        let object = self
            .root
            .get_or_create(&self.name, || LockOnly)
            .await
            .map_err(|error| LockError::Name { name: self.name.clone(), error: Box::new(error.into()) })?;
        *self.object.lock().unwrap_or_else(PoisonError::into_inner) = object;
        Ok(())
    }
}

impl NamedGuard<'_> {
    fn new(held: Held<'_>) -> Self {
        Self { _held: held.keep(), _lock: PhantomData }
    }
}
