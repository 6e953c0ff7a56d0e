//! Commutative fields: they only add, so concurrent adds never lose one.

use crate::change::{Change, Changes};
use crate::clustered::Clustered;
use kiln_heap::Object;
use std::fmt;
use std::marker::PhantomData;

/// A counter inside a write guard. Adds are part of the guard's commit, and are rolled back with it.
pub struct CounterMut<'a> {
    object: &'a Object,
    slot: u16,
    added: i64,
}

impl<'a> CounterMut<'a> {
    pub(crate) const fn new(object: &'a Object, slot: u16) -> Self {
        Self { object, slot, added: 0 }
    }

    /// Adds `amount`, which may be negative; wraps.
    pub const fn add(&mut self, amount: i64) {
        self.added = self.added.wrapping_add(amount);
    }

    /// The sum this node knows, with the adds of this guard. Other nodes may be adding.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.object.scalar(self.slot).cast_signed().wrapping_add(self.added)
    }

    pub(crate) fn collect(&mut self, out: &mut Changes) {
        if self.added != 0 {
            out.push(Change::Add { slot: self.slot, amount: std::mem::take(&mut self.added) });
        }
    }
}

impl fmt::Debug for CounterMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CounterMut").field(&self.get()).finish()
    }
}

/// Something whose counters can be reached without a lock: a shared object of type `T`.
///
/// The derive writes an extension trait on top of it with one method for each counter: `session.clicks().add(1)?`.
pub trait CounterSource<T> {
    /// A counter outside a guard.
    type Counter<'a>
    where
        Self: 'a;

    /// The counter in this slot.
    fn counter(&self, slot: u16) -> Self::Counter<'_>;
}

/// The counters of a nested struct: `session.traffic().hits().add(1)?`.
pub struct NestedCounters<'s, S, P, T> {
    source: &'s S,
    base: u16,
    types: PhantomData<fn() -> (P, T)>,
}

impl<'s, S, P, T: Clustered> NestedCounters<'s, S, P, T> {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(source: &'s S, base: u16) -> Self {
        Self { source, base, types: PhantomData }
    }
}

impl<'s, S: CounterSource<P>, P, T: Clustered> CounterSource<T> for NestedCounters<'s, S, P, T> {
    type Counter<'a>
        = S::Counter<'s>
    where
        Self: 'a;

    fn counter(&self, slot: u16) -> S::Counter<'s> {
        self.source.counter(self.base + slot)
    }
}

impl<S, P, T: Clustered> fmt::Debug for NestedCounters<'_, S, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NestedCounters").field("of", &T::NAME).field("base", &self.base).finish_non_exhaustive()
    }
}
