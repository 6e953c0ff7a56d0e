//! A field inside a write guard.

use crate::change::Changes;
use crate::form::{Form, OwnForm};
use crate::value::{Slot, ValueError};
use kiln_heap::Object;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

/// A field inside a write guard: derefs to its value, which is read from the heap at the first use.
///
/// `*guard.visits += 1` marks the field as changed; reading it does not. Only changed fields are written at commit.
/// Holds no pin, so a guard may cross an `.await`.
///
/// ```
/// # extern crate kiln_object as kiln;
/// # #[derive(kiln::Clustered)]
/// # struct Session { theme: String, visits: u64 }
/// impl SessionMut<'_> {
///     fn visit(&mut self) {
///         *self.visits += 1;
///         if self.theme.is_empty() {
///             self.theme.set("dark".into());
///         }
///     }
/// }
/// # fn main() {}
/// ```
pub struct Field<'a, T, F = OwnForm> {
    object: &'a Object,
    /// The value once it was touched through `&mut`; what a commit stores.
    edited: Option<T>,
    /// The value once it was read through `&`, while there is no edited one.
    seen: OnceLock<T>,
    slot: u16,
    changed: bool,
    form: PhantomData<fn() -> F>,
}

impl<'a, T, F: Form<T>> Field<'a, T, F> {
    pub(crate) const fn new(object: &'a Object, slot: u16) -> Self {
        Self { object, edited: None, seen: OnceLock::new(), slot, changed: false, form: PhantomData }
    }

    /// Sets the value without reading the old one.
    pub fn set(&mut self, value: T) {
        self.edited = Some(value);
        self.changed = true;
    }

    pub(crate) fn collect(&mut self, out: &mut Changes) -> Result<(), ValueError> {
        if let Some(value) = self.edited.as_ref().filter(|_| self.changed) {
            out.push_stored(self.slot, F::store(value)?)?;
            self.changed = false;
        }
        Ok(())
    }

    fn load(object: &Object, slot: u16) -> T {
        F::load(Slot::new(&object.pin(), slot))
    }
}

impl<T, F: Form<T>> Deref for Field<'_, T, F> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.edited {
            Some(value) => value,
            None => self.seen.get_or_init(|| Self::load(self.object, self.slot)),
        }
    }
}

impl<T, F: Form<T>> DerefMut for Field<'_, T, F> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        let Self { object, edited, seen, slot, .. } = self;
        edited.get_or_insert_with(|| seen.take().unwrap_or_else(|| Self::load(object, *slot)))
    }
}

impl<T: fmt::Debug, F: Form<T>> fmt::Debug for Field<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
