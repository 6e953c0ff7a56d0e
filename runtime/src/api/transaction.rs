//! Transactions: several locks, one commit, and no deadlock that lasts.

use super::builder::Away;
use super::commit::{Commit, Level, Terms, queue};
use super::error::{CommitError, LockError, TransactionError};
use super::guard::{Held, Kept, ReadGuard, check_locked, collect};
use super::local_copy::{refuse_to_keep, shown};
use super::runtime::Runtime;
use super::shared::Shared;
use kiln_engine::{Changed, Claim, Entry, Seen};
use kiln_object::{Change, Changes, Clustered};
use kiln_protocol::limits::OWNER_LOCKS_MAX;
use kiln_protocol::message::{Mode, WaitEdge};
use kiln_protocol::{Failure, OwnerId, Token};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks that are taken one after the other, in any order, and the changes made under them: one commit, all or nothing.
/// Every lock is held to the end. Dropped before [`commit`](Self::commit), the transaction rolls back.
///
/// When transactions of the cluster wait for each other in a cycle, the youngest gets [`LockError::Deadlock`] as soon as
/// the cycle closes; the others go on once it has rolled back. Guards outside of transactions have only their deadlines, and so has a cycle
/// that goes through one.
#[derive(Debug)]
pub struct Transaction {
    runtime: Runtime,
    owner: OwnerId,
    begun: Token,
    /// One lock is taken after the other: what a transaction holds does not change while it waits.
    turn: tokio::sync::Mutex<()>,
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    changed: Vec<(Arc<Entry>, Changes, Seen)>,
    /// Why the changes of a guard cannot be committed.
    failed: Option<CommitError>,
    held: Vec<Kept>,
    /// The shortest deadline of the handles that were used.
    timeout: Duration,
    /// What the handles that were used do while the cluster is away.
    aways: Vec<Away>,
}

impl Runtime {
    /// Begins a transaction; see [`transaction`](Self::transaction) for the usual way.
    #[must_use]
    pub fn begin_transaction(&self) -> Transaction {
        let node = &self.attached.node;
        let timeout = self.attached.options.timeout;
        Transaction {
            runtime: self.clone(),
            owner: OwnerId::from_bits(node.requests.take().to_bits()),
            begun: node.requests.newest_grant(),
            turn: tokio::sync::Mutex::default(),
            work: Mutex::new(Work { changed: Vec::new(), failed: None, held: Vec::new(), timeout, aways: Vec::new() }),
        }
    }

    /// Runs a transaction: takes locks through it, and commits with the runtime's default level what was changed under
    /// them once the closure returns `Ok`. An `Err`, a panic, or the dropped future rolls everything back.
    ///
    /// # Errors
    /// [`TransactionError`]. A closure that got [`LockError::Deadlock`] is to return it; then run the transaction again.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kiln::{Clustered, LockError, Root, Runtime};
    /// # #[derive(Clustered, Default)]
    /// # struct Account { cents: i64 }
    /// # async fn pay(kiln: &Runtime, accounts: &Root<String, Account>) -> Result<(), Box<dyn std::error::Error>> {
    /// let ada = accounts.get_or_create("ada", Account::default).await?;
    /// let grace = accounts.get_or_create("grace", Account::default).await?;
    /// kiln.transaction(async |tx| {
    ///     let mut from = tx.write(&ada).await?;
    ///     let mut to = tx.write(&grace).await?;
    ///     *from.cents -= 1;
    ///     *to.cents += 1;
    ///     Ok::<_, LockError>(())
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transaction<R, E>(
        &self,
        work: impl AsyncFnOnce(&Transaction) -> Result<R, E>,
    ) -> Result<R, TransactionError<E>> {
        self.transaction_with(self.attached.options.level, work).await
    }

    /// As [`transaction`](Self::transaction), with this level.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub async fn transaction_with<R, E>(
        &self,
        level: Level,
        work: impl AsyncFnOnce(&Transaction) -> Result<R, E>,
    ) -> Result<R, TransactionError<E>> {
        let transaction = self.begin_transaction();
        let result = work(&transaction).await.map_err(TransactionError::RolledBack)?;
        transaction.commit_with(level).await?;
        Ok(result)
    }
}

impl Transaction {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the read lock of every group of an object.
    ///
    /// # Errors
    /// [`LockError`]; the transaction holds what it held before. May be dropped at any time.
    ///
    /// # Panics
    /// When the object belongs to another runtime.
    pub async fn read<'t, T: Clustered>(&'t self, shared: &'t Shared<T>) -> Result<ReadGuard<'t, T>, LockError> {
        let is_alone = self.take(shared, shared.all_groups(), Mode::Read).await?;
        Ok(ReadGuard::of_transaction(shared, is_alone))
    }

    /// Takes the write lock of every group of an object.
    ///
    /// # Errors
    /// [`LockError`]; the transaction holds what it held before. May be dropped at any time.
    ///
    /// # Panics
    /// When the object belongs to another runtime.
    pub async fn write<'t, T: Clustered>(
        &'t self,
        shared: &'t Shared<T>,
    ) -> Result<TransactionGuard<'t, T>, LockError> {
        self.write_groups(shared, shared.all_groups()).await
    }

    /// Takes the write lock of one group of an object; only its fields can be changed. The default group's name is empty.
    ///
    /// # Errors
    /// [`LockError`]; the transaction holds what it held before. May be dropped at any time.
    ///
    /// # Panics
    /// When the object belongs to another runtime.
    pub async fn write_group<'t, T: Clustered>(
        &'t self,
        shared: &'t Shared<T>,
        group: &str,
    ) -> Result<TransactionGuard<'t, T>, LockError> {
        self.write_groups(shared, shared.group(group)?).await
    }

    /// Takes a named lock alone, to the end of the transaction.
    ///
    /// # Errors
    /// [`LockError`]; the transaction holds what it held before. May be dropped at any time.
    pub async fn lock(&self, name: &str) -> Result<(), LockError> {
        self.take_named(name, Mode::Write).await
    }

    /// Takes a named lock together with other readers, to the end of the transaction.
    ///
    /// # Errors
    /// [`LockError`]; the transaction holds what it held before. May be dropped at any time.
    pub async fn lock_shared(&self, name: &str) -> Result<(), LockError> {
        self.take_named(name, Mode::Read).await
    }

    /// Commits all changes as one, with the runtime's default level.
    ///
    /// # Errors
    /// [`CommitError`]. Dropped while it waits for its level, the commit stays made.
    pub async fn commit(self) -> Result<Commit, CommitError> {
        let level = self.runtime.attached.options.level;
        self.commit_with(level).await
    }

    /// Commits all changes as one. The locks are left as soon as they are queued, before the answer.
    ///
    /// # Errors
    /// [`CommitError`]. Dropped while it waits for its level, the commit stays made.
    pub async fn commit_with(self, level: Level) -> Result<Commit, CommitError> {
        let runtime = &self.runtime.attached;
        let Work { changed, failed, held, timeout, aways } =
            self.work.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(failed) = failed {
            return Err(failed);
        }
        let link = &runtime.node.link;
        let (incarnation, now) = (link.incarnation(), link.life());
        // The oldest: if any lock is from before a lapse, none of it is committed.
        let life = held.iter().map(|held| held.life).min().unwrap_or(now);
        if changed.is_empty() {
            return Ok(Commit::nothing(incarnation));
        }
        let on_return = Away::together(aways.into_iter());
        let parts: Vec<_> = changed
            .iter()
            .map(|(entry, changes, seen)| Changed { entry, changes: changes.as_slice(), seen: Some(seen) })
            .collect();
        let queued = queue(runtime, Terms { incarnation, life, level, on_return, timeout }, &parts).await?;
        drop(held);
        queued.settle().await
    }

    /// Gives the changes up and leaves the locks; the same as dropping the transaction.
    pub fn rollback(self) {}

    async fn write_groups<'t, T: Clustered>(
        &'t self,
        shared: &'t Shared<T>,
        groups: Range<usize>,
    ) -> Result<TransactionGuard<'t, T>, LockError> {
        self.take(shared, groups.clone(), Mode::Write).await?;
        let (seen, fields) = (shared.entry.seen(groups.clone()), Some(T::guard(shown(&shared.runtime, &shared.entry))));
        Ok(TransactionGuard { transaction: self, shared, groups, seen, fields })
    }

    async fn take_named(&self, name: &str, mode: Mode) -> Result<(), LockError> {
        let lock = self.runtime.lock(name).await;
        let lock = lock.map_err(|error| LockError::Name { name: name.to_owned(), error: Box::new(error) })?;
        let object = lock.object();
        self.take(&object, object.all_groups(), mode).await.map(drop)
    }

    /// Returns whether the locks hold on this node only.
    async fn take<T: Clustered>(
        &self,
        shared: &Shared<T>,
        groups: Range<usize>,
        mode: Mode,
    ) -> Result<bool, LockError> {
        let of_this = Arc::ptr_eq(&self.runtime.attached, &shared.runtime);
        assert!(of_this, "an object of another runtime cannot be locked in this transaction");
        let turn = tokio::time::timeout(shared.timeout, self.turn.lock()).await;
        let _turn = turn.map_err(|_elapsed| LockError::Timeout { waited: shared.timeout })?;
        self.check_may_take(shared, &groups, mode)?;
        let life = self.runtime.attached.node.link.life();
        if self.work().held.iter().any(|held| held.life != life) {
            // It holds nothing any more, for others; but here, until it ends, whoever it waits for may wait for it.
            return Err(LockError::Fenced);
        }
        let held = match Held::try_enter(shared, groups.clone(), mode) {
            Some(held) => held,
            None => {
                let holds = self.work().held.iter().flat_map(Kept::locks).collect();
                let claim = Claim { owner: self.owner, begun: self.begun, holds };
                shared.wait_to_enter(groups, mode, Some(&claim)).await?
            }
        };
        let mut work = self.work();
        work.timeout = work.timeout.min(shared.timeout);
        if !work.aways.contains(&shared.away) {
            work.aways.push(shared.away);
        }
        let is_alone = held.is_alone;
        work.held.push(held.keep());
        Ok(is_alone)
    }

    /// A transaction takes a lock once.
    fn check_may_take<T: Clustered>(
        &self,
        shared: &Shared<T>,
        groups: &Range<usize>,
        mode: Mode,
    ) -> Result<(), LockError> {
        let work = self.work();
        let entry = &shared.entry;
        let same = work.held.iter().filter(|held| held.entry.id() == entry.id());
        if let Some(group) = same.flat_map(|held| held.groups.clone()).find(|group| groups.contains(group)) {
            return Err(LockError::Deadlock { cycle: vec![self.own_wait(entry, group, mode)] });
        }
        let locks = work.held.iter().map(|held| held.groups.len()).sum::<usize>() + groups.len();
        if locks > OWNER_LOCKS_MAX {
            let what = "the number of locks of one transaction".to_owned();
            let (actual, limit) = (locks as u64, OWNER_LOCKS_MAX as u64);
            return Err(LockError::Refused(Failure::Limit { what, actual, limit }));
        }
        Ok(())
    }

    fn own_wait(&self, entry: &Entry, group: usize, mode: Mode) -> WaitEdge {
        let node = self.runtime.node();
        let root = self.runtime.attached.node.cache.root(entry.root);
        let group = u8::try_from(group).map_or("", |group| entry.binding.group_name(group));
        WaitEdge {
            node: node.name,
            incarnation: node.incarnation,
            owner: self.owner,
            root: root.map_or_else(String::new, |root| root.name.clone()),
            key: String::from_utf8(entry.key().to_vec()).unwrap_or_else(|_| format!("object {}", entry.id())),
            group: group.to_owned(),
            mode,
        }
    }

    fn stage<T: Clustered>(&self, shared: &Shared<T>, groups: &Range<usize>, seen: &Seen, fields: &mut T::Mut<'_>) {
        let collected = collect(shared, fields).map_err(CommitError::from).and_then(|mut changes| {
            refuse_to_keep(&shared.entry, &mut changes)?;
            Ok(changes)
        });
        let checked = collected.and_then(|changes| {
            check_locked(&shared.entry, groups, changes.iter().map(Change::slot)).map(|()| changes)
        });
        let mut work = self.work();
        match checked {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => work.changed.push((Arc::clone(&shared.entry), changes, seen.clone())),
            Err(error) => work.failed = Some(error),
        }
    }
}

/// Write locks that a transaction holds, and the changes made under them. Fields are reached through `Deref`. Dropping
/// the guard leaves its changes to the transaction's commit; the locks are held until then. `Send`; may be kept across
/// `.await`.
pub struct TransactionGuard<'t, T: Clustered> {
    transaction: &'t Transaction,
    shared: &'t Shared<T>,
    groups: Range<usize>,
    /// From before any field was read.
    seen: Seen,
    /// `None` at its end.
    fields: Option<T::Mut<'t>>,
}

impl<T: Clustered> fmt::Debug for TransactionGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionGuard").field("object", self.shared).finish_non_exhaustive()
    }
}

impl<'t, T: Clustered> Deref for TransactionGuard<'t, T> {
    type Target = T::Mut<'t>;

    fn deref(&self) -> &Self::Target {
        self.fields.as_ref().expect("there until it is dropped")
    }
}

impl<T: Clustered> DerefMut for TransactionGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.fields.as_mut().expect("there until it is dropped")
    }
}

impl<T: Clustered> TransactionGuard<'_, T> {
    /// Gives the changes of this guard up. Its locks are held to the end of the transaction nevertheless.
    pub fn rollback(mut self) {
        self.fields = None;
    }
}

impl<T: Clustered> Drop for TransactionGuard<'_, T> {
    fn drop(&mut self) {
        if let Some(mut fields) = self.fields.take() {
            self.transaction.stage(self.shared, &self.groups, &self.seen, &mut fields);
        }
    }
}
