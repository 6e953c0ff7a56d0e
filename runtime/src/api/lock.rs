//! Locks of an object that are held over several commits.

use super::commit::{Commit, Level};
use super::error::{CommitError, LockError};
use super::guard::{Kept, Pending, collect};
use super::local_copy::shown;
use super::shared::Shared;
use kiln_engine::Seen;
use kiln_object::Clustered;
use kiln_protocol::message::Mode;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Write locks of an object that are held over several commits, until the value is dropped: for as long as a request
/// takes, for example. It owns its handle. `Send` and `Sync`; may be kept across `.await`.
pub struct Lock<T> {
    shared: Shared<T>,
    groups: Range<usize>,
    /// `None` between [`release`](Self::release) and [`take_again`](Self::take_again).
    kept: Mutex<Option<Kept>>,
    /// One guard at a time.
    turn: tokio::sync::Mutex<()>,
}

impl<T: Clustered> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("object", &self.shared).finish_non_exhaustive()
    }
}

impl<T: Clustered> Shared<T> {
    /// Takes the write lock of every group, for several commits.
    ///
    /// # Errors
    /// [`LockError`]; then nothing is held. May be dropped at any time.
    pub async fn lock(&self) -> Result<Lock<T>, LockError> {
        Lock::take(self, self.all_groups()).await
    }

    /// Takes the write lock of one group, for several commits. The group of the fields without `lock` is `default`.
    ///
    /// # Errors
    /// [`LockError`]; then nothing is held. May be dropped at any time.
    pub async fn lock_group(&self, group: &str) -> Result<Lock<T>, LockError> {
        Lock::take(self, self.group(group)?).await
    }
}

impl<T: Clustered> Lock<T> {
    async fn take(shared: &Shared<T>, groups: Range<usize>) -> Result<Self, LockError> {
        let kept = shared.enter(groups.clone(), Mode::Write).await?.keep();
        Ok(Self { shared: shared.clone(), groups, kept: Mutex::new(Some(kept)), turn: tokio::sync::Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the node that the locks were taken in.
    fn life(&self) -> Result<u64, LockError> {
        let kept = self.kept();
        let held = kept.as_ref().filter(|kept| !kept.is_fenced());
        held.map(|kept| kept.life).ok_or(LockError::Fenced)
    }

    /// The object.
    #[must_use]
    pub const fn shared(&self) -> &Shared<T> {
        &self.shared
    }

    /// Whether the locks are held: not after [`release`](Self::release), nor when the node's lease has lapsed since they
    /// were taken.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.life().is_ok()
    }

    /// Whether the locks hold among the tasks of this node only, because the cluster is away
    /// ([`Away::LocalReadWrite`](crate::Away::LocalReadWrite)).
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.kept().as_ref().is_some_and(|kept| kept.is_alone)
    }

    /// Begins a change; the locks stay when it is committed or rolled back. Waits for the guard before it.
    ///
    /// # Errors
    /// [`LockError::Fenced`] when the locks are not held any more, or why a copy that is stale cannot be fetched anew.
    pub async fn write(&self) -> Result<LockedGuard<'_, T>, LockError> {
        let waited = self.shared.timeout;
        let ready = async {
            let turn = self.turn.lock().await;
            // A copy is stale when the locks are lost: to fetch it anew would be to wait for the cluster.
            self.life()?;
            self.shared.refresh().await?;
            Ok((turn, self.life()?))
        };
        let ready = tokio::time::timeout(waited, ready).await;
        let (turn, life) = ready.unwrap_or(Err(LockError::Timeout { waited }))?;
        let entry = &self.shared.entry;
        Ok(LockedGuard {
            lock: self,
            seen: entry.seen(self.groups.clone()),
            fields: T::guard(shown(&self.shared.runtime, entry)),
            life,
            turn,
        })
    }

    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, LockError> {
        let waited = self.shared.timeout;
        tokio::time::timeout(waited, self.turn.lock()).await.map_err(|_elapsed| LockError::Timeout { waited })
    }

    /// Leaves the locks, once no guard is in use: others may have them from now on.
    ///
    /// # Errors
    /// [`LockError::Timeout`] when a guard was in use for too long; then the locks are still held.
    pub async fn release(&self) -> Result<(), LockError> {
        let _turn = self.turn().await?;
        self.kept().take();
        Ok(())
    }

    /// Takes the same locks again after [`release`](Self::release), or after they were lost with the lease.
    ///
    /// # Errors
    /// [`LockError`]; then nothing is held.
    pub async fn take_again(&self) -> Result<(), LockError> {
        let _turn = self.turn().await?;
        self.kept().take();
        let kept = self.shared.enter(self.groups.clone(), Mode::Write).await?.keep();
        *self.kept() = Some(kept);
        Ok(())
    }
}

/// Changes made under a [`Lock`]. Fields are reached through `Deref`; nobody sees a change before
/// [`commit`](Self::commit). Dropped without it, the guard rolls back. The locks stay either way.
pub struct LockedGuard<'a, T: Clustered> {
    lock: &'a Lock<T>,
    /// From before any field was read.
    seen: Seen,
    fields: T::Mut<'a>,
    life: u64,
    turn: tokio::sync::MutexGuard<'a, ()>,
}

impl<T: Clustered> fmt::Debug for LockedGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedGuard").field("object", &self.lock.shared).finish_non_exhaustive()
    }
}

impl<'a, T: Clustered> Deref for LockedGuard<'a, T> {
    type Target = T::Mut<'a>;

    fn deref(&self) -> &Self::Target {
        &self.fields
    }
}

impl<T: Clustered> DerefMut for LockedGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.fields
    }
}

impl<T: Clustered> LockedGuard<'_, T> {
    /// Commits with the runtime's default level.
    ///
    /// # Errors
    /// [`CommitError`]. Dropped while it waits for its level, the commit stays made.
    pub async fn commit(self) -> Result<Commit, CommitError> {
        let level = self.lock.shared.runtime.options.level;
        self.commit_with(level).await
    }

    /// Commits.
    ///
    /// # Errors
    /// [`CommitError`]. Dropped while it waits for its level, the commit stays made.
    pub async fn commit_with(mut self, level: Level) -> Result<Commit, CommitError> {
        let shared = &self.lock.shared;
        let changes = collect(shared, &mut self.fields)?;
        let incarnation = shared.runtime.node.link.incarnation();
        let pending =
            Pending { shared, groups: &self.lock.groups, life: self.life, incarnation, changes, seen: &self.seen };
        let turn = self.turn;
        pending.commit(level, || drop(turn)).await
    }

    /// Gives the changes up; the same as dropping the guard.
    pub fn rollback(self) {}
}
