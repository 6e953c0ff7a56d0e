//! Locks without an object.

use super::error::{LockError, RootError};
use super::guard::{ReadGuard, WriteGuard};
use super::runtime::Runtime;
use super::shared::Shared;
use kiln_heap::Object;
use kiln_object::private::Held;
use kiln_object::{Changes, Clustered, FieldInfo, ValueError};

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

    fn view_at(_pinned: Held<'_>, _base: u16) -> Self::View<'_> {}
}

/// A lock of the cluster, known by its name.
#[derive(Clone, Debug)]
pub struct NamedLock {
    pub(super) object: Shared<LockOnly>,
}

/// A named lock that is held, until it is dropped. `Send`; may be kept across `.await`.
#[derive(Debug)]
pub struct NamedGuard<'a> {
    _held: Either<'a>,
}

#[derive(Debug)]
enum Either<'a> {
    Read { _guard: ReadGuard<'a, LockOnly> },
    Write { _guard: WriteGuard<'a, LockOnly> },
}

impl Runtime {
    /// The lock with this name.
    ///
    /// # Errors
    /// [`RootError`] when the coordinator cannot be asked.
    pub async fn lock(&self, name: &str) -> Result<NamedLock, RootError> {
        let root = self.open_root::<String, LockOnly>(ROOT, true).await?;
        let object = root.get_or_create(name, || LockOnly).await?;
        Ok(NamedLock { object })
    }
}

impl NamedLock {
    /// Takes the lock alone.
    ///
    /// # Errors
    /// [`LockError`]. May be dropped at any time.
    pub async fn write(&self) -> Result<NamedGuard<'_>, LockError> {
        Ok(NamedGuard { _held: Either::Write { _guard: self.object.write().await? } })
    }

    /// Takes the lock together with other readers.
    ///
    /// # Errors
    /// [`LockError`]. May be dropped at any time.
    pub async fn read(&self) -> Result<NamedGuard<'_>, LockError> {
        Ok(NamedGuard { _held: Either::Read { _guard: self.object.read().await? } })
    }

    /// Takes the lock alone if this node has its grant and nobody here holds it. Never waits.
    #[must_use]
    pub fn try_write(&self) -> Option<NamedGuard<'_>> {
        Some(NamedGuard { _held: Either::Write { _guard: self.object.try_write()? } })
    }

    /// The same lock with another deadline.
    #[must_use]
    pub fn with_timeout(&self, timeout: std::time::Duration) -> Self {
        Self { object: self.object.with_timeout(timeout) }
    }
}
