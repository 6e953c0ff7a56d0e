//! Several objects at once: commits that are all or nothing, views that show both or neither.

use super::builder::Away;
use super::commit::{Commit, Level, Terms, queue};
use super::error::CommitError;
use super::guard::{Uncommitted, WriteGuard};
use super::runtime::Runtime;
use super::shared::Shared;
use kiln_object::Clustered;
use smallvec::SmallVec;

/// Guards that can be committed together: tuples of [`WriteGuard`]s, or a `Vec` of them.
pub trait CommitTogether<'a> {
    #[doc(hidden)]
    fn collect(self) -> Result<SmallVec<[Uncommitted<'a>; 4]>, CommitError>;
}

/// Handles that can be looked at together: tuples of `&Shared`.
pub trait ViewTogether {
    /// The views, in the same order.
    type Views;
    #[doc(hidden)]
    fn views(&self) -> Self::Views;
}

macro_rules! tuples { ($(($($name:ident $index:tt),+))+) => { $(
    impl<'a, $($name: Clustered),+> CommitTogether<'a> for ($(WriteGuard<'a, $name>,)+) {
        fn collect(self) -> Result<SmallVec<[Uncommitted<'a>; 4]>, CommitError> {
            Ok(SmallVec::from_iter([$(self.$index.into_parts()?),+]))
        }
    }

    impl<'a, $($name: Clustered),+> ViewTogether for ($(&'a Shared<$name>,)+) {
        type Views = ($($name::View<'a>,)+);

        fn views(&self) -> Self::Views {
            ($(self.$index.view(),)+)
        }
    }
)+ } }

tuples! { (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) (A 0, B 1, C 2, D 3, E 4) (A 0, B 1, C 2, D 3, E 4, F 5) }

impl<'a, T: Clustered> CommitTogether<'a> for Vec<WriteGuard<'a, T>> {
    fn collect(self) -> Result<SmallVec<[Uncommitted<'a>; 4]>, CommitError> {
        self.into_iter().map(WriteGuard::into_parts).collect()
    }
}

impl Runtime {
    /// Commits the changes of several guards with the default level: all or nothing, for everybody. Take the guards in
    /// the same order everywhere, or two tasks may wait for each other until their deadlines.
    ///
    /// # Errors
    /// [`CommitError`].
    ///
    /// # Panics
    /// When a guard belongs to another runtime.
    pub async fn commit<'a>(&self, guards: impl CommitTogether<'a>) -> Result<Commit, CommitError> {
        self.commit_with(guards, self.attached.options.level).await
    }

    /// As [`commit`](Self::commit), with this level.
    ///
    /// # Errors
    /// [`CommitError`].
    ///
    /// # Panics
    /// When a guard belongs to another runtime.
    pub async fn commit_with<'a>(&self, guards: impl CommitTogether<'a>, level: Level) -> Result<Commit, CommitError> {
        let runtime = &self.attached;
        let guards = guards.collect()?;
        assert!(guards.iter().all(|guard| guard.belongs_to(runtime)), "guards of another runtime cannot be committed");
        let changed: SmallVec<[_; 4]> = guards.iter().filter_map(Uncommitted::changed).collect();
        let link = &runtime.node.link;
        let (incarnation, now) = (link.incarnation(), link.life());
        // The oldest: if any lock is from before a lapse, none of it is committed.
        let life = guards.iter().map(Uncommitted::life).min().unwrap_or(now);
        let timeout = guards.iter().map(Uncommitted::timeout).min().unwrap_or(runtime.options.timeout);
        if changed.is_empty() {
            return Ok(Commit::nothing(incarnation));
        }
        let on_return = Away::together(guards.iter().map(Uncommitted::away));
        let queued = queue(runtime, Terms { incarnation, life, level, on_return, timeout }, &changed).await?;
        drop(changed);
        drop(guards);
        queued.settle().await
    }

    /// Looks at several objects at once: of each commit over several of them, the views show all or nothing. A copy that
    /// [is stale](Shared::state) shows what it last held; to be sure of all, take their read locks.
    pub fn view_all<V: ViewTogether, R>(&self, objects: V, look: impl FnOnce(V::Views) -> R) -> R {
        let together = self.attached.node.view_together();
        let views = objects.views();
        drop(together);
        look(views)
    }
}
