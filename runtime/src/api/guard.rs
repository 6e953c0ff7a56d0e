//! Guards: locks that are held, and the changes made under them.

use super::builder::Away;
use super::commit::{Commit, Level, Terms, queue};
use super::error::{CommitError, LockError};
use super::local_copy::{LocalCopy, refuse_to_keep, shown, unarchived_slots};
use super::runtime::Attached;
use super::shared::Shared;
use crate::clock::boot_nanos;
use kiln_engine::{Admission, Changed, Claim, Entry, Seen, State, Ticket};
use kiln_object::{Change, Changes, Clustered, ValueError};
use kiln_protocol::Incarnation;
use kiln_protocol::message::{Mode, OwnerLock};
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut, Range};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Lock groups of an object that are held here; dropping it leaves them.
#[derive(Debug)]
pub(super) struct Held<'a> {
    runtime: &'a Arc<Attached>,
    entry: &'a Arc<Entry>,
    groups: Range<usize>,
    mode: Mode,
    /// The node's, from before the locks were taken.
    life: u64,
    incarnation: Incarnation,
    /// The cluster is away: they hold among the tasks of this node only.
    pub(super) is_alone: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.runtime.node.leave_groups(self.entry, self.groups.clone(), self.mode);
    }
}

impl<'a> Held<'a> {
    /// Takes the groups if nothing has to be waited for, and the copy is current.
    pub(super) fn try_enter<T: Clustered>(shared: &'a Shared<T>, groups: Range<usize>, mode: Mode) -> Option<Self> {
        let held = Self::try_groups(shared, groups.clone(), mode);
        let held = held.filter(|held| {
            held.entry.state() == State::Current
                && !held.is_fenced()
                && LocalCopy::refresh_all(&shared.runtime, held.entry).is_ok()
        });
        held.or_else(|| Self::try_alone(shared, groups, mode))
    }

    fn try_groups<T: Clustered>(shared: &'a Shared<T>, groups: Range<usize>, mode: Mode) -> Option<Self> {
        let (runtime, entry) = (&shared.runtime, &shared.entry);
        let mut held = Self::nothing(runtime, entry, groups.start, mode);
        for index in groups {
            if !entry.locks()[index].try_enter(mode) {
                return None;
            }
            held.groups.end = index + 1;
        }
        Some(held)
    }

    /// While the cluster is away, where the handle says that tasks go on alone.
    fn try_alone<T: Clustered>(shared: &'a Shared<T>, groups: Range<usize>, mode: Mode) -> Option<Self> {
        let is_away = shared.away.on_return().is_some() && shared.runtime.node.link.has_lapsed();
        if !is_away || !shared.runtime.node.share_alone(&shared.entry, groups.clone()) {
            return None;
        }
        let mut held = Self::try_groups(shared, groups, mode)?;
        held.is_alone = true;
        held.is_good_alone().then_some(held)
    }

    /// As [`enter`](Self::enter), while the cluster is away.
    pub(super) async fn enter_alone<T: Clustered>(
        shared: &'a Shared<T>,
        groups: Range<usize>,
        mode: Mode,
    ) -> Result<Self, LockError> {
        if !shared.runtime.node.share_alone(&shared.entry, groups.clone()) {
            return Err(LockError::Fenced);
        }
        let mut held = Self::enter(shared, groups, mode, None).await?;
        held.is_alone = true;
        if held.entry.state() == State::Destroyed {
            return Err(LockError::Destroyed);
        }
        if held.is_good_alone() { Ok(held) } else { Err(LockError::Fenced) }
    }

    /// Whether the cluster has been away since the locks were taken.
    fn is_good_alone(&self) -> bool {
        let node = &self.runtime.node;
        node.is_away() && node.link.life() == self.life && self.entry.state() != State::Destroyed
    }

    fn nothing(runtime: &'a Arc<Attached>, entry: &'a Arc<Entry>, start: usize, mode: Mode) -> Self {
        let link = &runtime.node.link;
        let (life, incarnation) = (link.life(), link.incarnation());
        Self { runtime, entry, groups: start..start, mode, life, incarnation, is_alone: false }
    }

    /// Whether the lease under which the locks were taken is over.
    pub(super) fn is_fenced(&self) -> bool {
        is_over(self.runtime, self.life)
    }

    /// Takes the groups one after the other, in the order that everybody takes them in.
    pub(super) async fn enter<T: Clustered>(
        shared: &'a Shared<T>,
        groups: Range<usize>,
        mode: Mode,
        claim: Option<&Claim>,
    ) -> Result<Self, LockError> {
        let (runtime, entry) = (&shared.runtime, &shared.entry);
        let mut held = Self::nothing(runtime, entry, groups.start, mode);
        for index in groups {
            let context = entry.lock_context(index, &runtime.node.outbox, &runtime.node.requests);
            let stale = runtime.node.wants_record(entry);
            let claim = || claim.map(|claim| held.add_to(claim.clone()));
            if let Some(ticket) = entry.locks()[index].enter_for(context, mode, stale, claim) {
                Admitting { runtime, entry, index, mode, ticket: Some(ticket) }.await?;
            }
            held.groups.end = index + 1;
        }
        Ok(held)
    }
}

impl Held<'_> {
    fn add_to(&self, mut claim: Claim) -> Claim {
        claim.holds.extend(self.locks());
        claim
    }

    fn locks(&self) -> impl Iterator<Item = OwnerLock> {
        locks_of(self.entry, self.groups.clone(), self.mode)
    }

    /// Gives the groups to a transaction, which leaves them at its end.
    pub(super) fn keep(mut self) -> Kept {
        let groups = std::mem::replace(&mut self.groups, 0..0);
        Kept {
            runtime: Arc::clone(self.runtime),
            entry: Arc::clone(self.entry),
            groups,
            mode: self.mode,
            life: self.life,
            is_alone: self.is_alone,
        }
    }
}

/// Whether a life of the node is over.
fn is_over(runtime: &Attached, life: u64) -> bool {
    let link = &runtime.node.link;
    link.life() != life || !link.is_leased(boot_nanos())
}

fn locks_of(entry: &Entry, groups: Range<usize>, mode: Mode) -> impl Iterator<Item = OwnerLock> {
    let groups = entry.binding.groups()[groups].iter();
    groups.map(move |group| OwnerLock { object: entry.id(), group: *group, mode })
}

/// Lock groups of an object that a transaction, or a lock of its own, holds; dropping it leaves them.
#[derive(Debug)]
pub(super) struct Kept {
    runtime: Arc<Attached>,
    pub(super) entry: Arc<Entry>,
    pub(super) groups: Range<usize>,
    mode: Mode,
    /// As of [`Held`].
    pub(super) life: u64,
    pub(super) is_alone: bool,
}

impl Kept {
    /// As of [`Held`].
    pub(super) fn is_fenced(&self) -> bool {
        is_over(&self.runtime, self.life)
    }

    pub(super) fn locks(&self) -> impl Iterator<Item = OwnerLock> {
        locks_of(&self.entry, self.groups.clone(), self.mode)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.runtime.node.leave_groups(&self.entry, self.groups.clone(), self.mode);
    }
}

/// Waits to be admitted to one lock; dropped before that, it gives its place up.
struct Admitting<'a> {
    runtime: &'a Attached,
    entry: &'a Entry,
    index: usize,
    mode: Mode,
    ticket: Option<Arc<Ticket<Admission>>>,
}

impl Future for Admitting<'_> {
    type Output = Result<(), LockError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = &self.ticket else {
            return Poll::Ready(Ok(()));
        };
        let admission = std::task::ready!(ticket.poll_take(context));
        self.ticket = None;
        Poll::Ready(admission.map_err(LockError::from))
    }
}

impl Drop for Admitting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            let node = &self.runtime.node;
            let context = self.entry.lock_context(self.index, &node.outbox, &node.requests);
            self.entry.locks()[self.index].give_up(context, self.mode, ticket);
        }
    }
}

/// A read lock that is held, unless it [is stale](Self::is_stale). `Send`; may be kept across `.await`.
pub struct ReadGuard<'a, T: Clustered> {
    shared: &'a Shared<T>,
    /// `None`: a transaction holds it, or nobody.
    _held: Option<Held<'a>>,
    is_stale: bool,
}

impl<T: Clustered> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadGuard").field("object", self.shared).finish_non_exhaustive()
    }
}

impl<'a, T: Clustered> ReadGuard<'a, T> {
    pub(super) fn new(shared: &'a Shared<T>, held: Held<'a>) -> Self {
        let is_stale = held.is_alone;
        Self { shared, _held: Some(held), is_stale }
    }

    /// Of a lock that a transaction holds.
    pub(super) const fn of_transaction(shared: &'a Shared<T>, is_alone: bool) -> Self {
        Self { shared, _held: None, is_stale: is_alone }
    }

    /// What is here, without a lock.
    pub(super) const fn stale(shared: &'a Shared<T>) -> Self {
        Self { shared, _held: None, is_stale: true }
    }

    /// Whether no lock could be had that holds in the cluster, and this is the last version held here: only with
    /// [`Away::LocalReads`] and [`Away::LocalReadWrite`]. With the latter no task of this node changes it meanwhile.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// The object, which nobody changes while the guard lives. Counters move without a lock.
    #[must_use]
    pub fn view(&self) -> T::View<'_> {
        self.shared.view()
    }

    /// Looks at the object.
    pub fn get<R>(&self, look: impl FnOnce(&T::View<'_>) -> R) -> R {
        self.shared.get(look)
    }
}

/// Write locks that are held, and the changes made under them. Fields are reached through `Deref`; nobody sees a change
/// before [`commit`](Self::commit). Dropped without it, the guard rolls back. `Send`; may be kept across `.await`.
pub struct WriteGuard<'a, T: Clustered> {
    shared: &'a Shared<T>,
    /// From before any field was read.
    seen: Seen,
    fields: T::Mut<'a>,
    held: Held<'a>,
}

impl<T: Clustered> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteGuard").field("object", self.shared).finish_non_exhaustive()
    }
}

impl<'a, T: Clustered> Deref for WriteGuard<'a, T> {
    type Target = T::Mut<'a>;

    fn deref(&self) -> &Self::Target {
        &self.fields
    }
}

impl<T: Clustered> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.fields
    }
}

impl<'a, T: Clustered> WriteGuard<'a, T> {
    /// Whether the locks hold among the tasks of this node only, because the cluster is away
    /// ([`Away::LocalReadWrite`]).
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.held.is_alone
    }

    pub(super) fn new(shared: &'a Shared<T>, held: Held<'a>) -> Self {
        Self {
            shared,
            seen: shared.entry.seen(held.groups.clone()),
            fields: T::guard(shown(&shared.runtime, &shared.entry)),
            held,
        }
    }

    /// Commits with the runtime's default level.
    ///
    /// # Errors
    /// [`CommitError`]. Dropped while it waits for its level, the commit stays made.
    pub async fn commit(self) -> Result<Commit, CommitError> {
        let level = self.shared.runtime.options.level;
        self.commit_with(level).await
    }

    /// Commits. The locks are left as soon as the changes are queued, before the answer.
    ///
    /// # Errors
    /// [`CommitError`]. Dropped while it waits for its level, the commit stays made.
    pub async fn commit_with(mut self, level: Level) -> Result<Commit, CommitError> {
        let (shared, changes) = (self.shared, collect(self.shared, &mut self.fields)?);
        let held = self.held;
        let (groups, life, incarnation) = (held.groups.clone(), held.life, held.incarnation);
        let pending = Pending { shared, groups: &groups, life, incarnation, changes, seen: &self.seen };
        pending.commit(level, || drop(held)).await
    }

    /// Gives the changes up; the same as dropping the guard.
    pub fn rollback(self) {}

    pub(super) fn into_parts(mut self) -> Result<Uncommitted<'a>, CommitError> {
        let mut changes = collect(self.shared, &mut self.fields)?;
        refuse_to_keep(&self.shared.entry, &mut changes)?;
        self.held.check(changes.as_slice())?;
        Ok(Uncommitted {
            held: self.held,
            changes,
            seen: self.seen,
            timeout: self.shared.timeout,
            away: self.shared.away,
        })
    }
}

/// What a guard has changed, without the fields that cannot be archived and need not be: these are noted.
pub(super) fn collect<T: Clustered>(shared: &Shared<T>, fields: &mut T::Mut<'_>) -> Result<Changes, ValueError> {
    let mut changes = Changes::default();
    T::collect(fields, &mut changes)?;
    let left_out = changes.take_left_out();
    if !left_out.is_empty() {
        for error in &left_out {
            tracing::warn!(%error, object = %shared.id(), "a field is left out of a commit");
        }
        shared.entry.leave_out(left_out);
    }
    Ok(changes)
}

/// The changes of a guard, to be committed.
pub(super) struct Pending<'a, T> {
    pub(super) shared: &'a Shared<T>,
    /// The locked ones.
    pub(super) groups: &'a Range<usize>,
    /// As of [`Held`].
    pub(super) life: u64,
    pub(super) incarnation: Incarnation,
    pub(super) changes: Changes,
    pub(super) seen: &'a Seen,
}

impl<T> Pending<'_, T> {
    /// Commits; `queued` is called as soon as the changes are queued, before the answer.
    pub(super) async fn commit(self, level: Level, queued: impl FnOnce()) -> Result<Commit, CommitError> {
        let Self { shared, groups, life, incarnation, mut changes, seen } = self;
        let why = changes.take_kept_local();
        if changes.is_empty() && why.is_none() {
            return Ok(Commit::nothing(incarnation));
        }
        let left_out = why.iter().flat_map(|why| unarchived_slots(&shared.entry, why));
        check_locked(&shared.entry, groups, changes.iter().map(Change::slot).chain(left_out))?;
        if why.is_some() || shared.entry.is_kept_local() {
            // Boxed, as all that is rare.
            return Box::pin(Self { shared, groups, life, incarnation, changes, seen }.place(why, level, queued)).await;
        }
        let changed = [Changed { entry: &shared.entry, changes: changes.as_slice(), seen: Some(seen) }];
        let (on_return, timeout) = (shared.away.on_return(), shared.timeout);
        let terms = Terms { incarnation, life, level, on_return, timeout };
        let made = queue(&shared.runtime, terms, &changed).await?;
        queued();
        made.settle().await
    }
}

/// A guard whose changes have been collected.
#[expect(unnameable_types, reason = "only the trait that is sealed by it names it")]
#[derive(Debug)]
pub struct Uncommitted<'a> {
    held: Held<'a>,
    changes: Changes,
    seen: Seen,
    timeout: Duration,
    away: Away,
}

impl Uncommitted<'_> {
    pub(super) fn changed(&self) -> Option<Changed<'_>> {
        let Self { held, changes, seen, .. } = self;
        (!changes.is_empty()).then_some(Changed { entry: held.entry, changes: changes.as_slice(), seen: Some(seen) })
    }

    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) const fn away(&self) -> Away {
        self.away
    }

    pub(super) const fn life(&self) -> u64 {
        self.held.life
    }

    pub(super) fn belongs_to(&self, runtime: &Arc<Attached>) -> bool {
        Arc::ptr_eq(self.held.runtime, runtime)
    }
}

impl Held<'_> {
    fn check(&self, changes: &[Change]) -> Result<(), CommitError> {
        check_locked(self.entry, &self.groups, changes.iter().map(Change::slot))
    }
}

/// Every changed field must be in a locked group, or be commutative.
pub(super) fn check_locked(
    entry: &Entry,
    groups: &Range<usize>,
    mut slots: impl Iterator<Item = u16>,
) -> Result<(), CommitError> {
    let binding = &entry.binding;
    match slots.find(|slot| !is_locked(entry, groups, *slot)) {
        Some(slot) => {
            let (field, group) = (binding.slot_name(slot), binding.group_name(binding.slot_group(slot)));
            Err(CommitError::NotLocked { field, group })
        }
        None => Ok(()),
    }
}

pub(super) fn is_locked(entry: &Entry, groups: &Range<usize>, slot: u16) -> bool {
    let group = entry.binding.slot_group(slot);
    group == entry.binding.commutative() || groups.contains(&usize::from(group))
}
