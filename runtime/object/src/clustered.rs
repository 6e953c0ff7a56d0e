//! Structs whose instances are shared.

use crate::change::Changes;
use crate::declared::FieldInfo;
use crate::held::Held;
use crate::value::ValueError;
use kiln_heap::{Object, Pinned};

/// A struct whose instances can be shared between the processes of a cluster. Derive it.
///
/// Beside this trait, `#[derive(Clustered)] struct Session` writes:
///
/// - `SessionMut<'a>`, a write guard's content: a field of the same name and visibility for each shared field. It is
///   `Send` and holds no pin.
/// - `SessionView<'a>`, the pinned content: a method of the same name and visibility for each shared field, which
///   returns the value in place. It is `!Send`.
/// - `SessionCounters`, when there are counters: an extension trait of `kiln::Shared<Session>` with a method for each
///   counter, to add without a lock.
///   A counter that is named like a method of `Shared` is reached as `SessionCounters::state(&session)`.
/// - `SessionLocal`, when there are `local` fields: those fields, as one process keeps them for one object.
///
/// The cluster knows a type by the struct's bare name, without its module or program: structs of one name are one type,
/// in every root and every program, and share the numbers of their fields. That is how two versions of a program run side
/// by side. Two types that only happen to have the same name would become one as well: give one of them another name with
/// `#[clustered(rename = "Name")]` on the struct. On a field:
///
/// | `#[clustered(..)]` | |
/// |---|---|
/// | `rename = "x"` | the cluster knows the field by this name |
/// | `lock = "cart"` | the field is in this lock group instead of `default`; on a nested struct, those of its fields without a group |
/// | `default = expr` | what a missing field reads as, instead of `Default::default()`: when an older version of the program created the object |
/// | `counter` | an `i64` that only adds: needs no lock, never loses an update |
/// | `nested` | the fields of another clustered struct become fields `a.b` of this one; its lock groups join the groups of the same name |
/// | `archive = "tag"` | a foreign type that has rkyv's traits; the tag stands for its layout and must change with it |
/// | `local` | stays in this process, see [`Clustered::Local`] |
/// | `on_archive_failure = ".."` | what becomes of a change that cannot be archived, because it is over a limit or its serialiser fails: see below |
///
/// `on_archive_failure` is one of these. On the struct it is for all its fields that do not say otherwise, except nested ones,
/// whose own struct says it. A map's changes share one fate.
///
/// - `"fail"`, the default: nothing is committed.
/// - `"leave_out"`: the field keeps its value and the rest is committed. A warning is logged, and `Shared::left_out` lists the
///   field.
/// - `"keep_local"`: all changes of the commit stay in this process, with a warning, and so do its later ones of this object
///   (`Shared::distribution` tells; the commits say `is_local`). What they change is seen here, on top of what other nodes
///   go on to change, but no other node sees it, watches are not told, and it ends with this process; until then the object
///   is not evicted. The field shows its new value if that is only too long for other nodes; otherwise the one from before.
///   The first commit after which this process has given each such field a value that can be archived, and that has the locks
///   of all that was changed meanwhile, takes all of it to the other nodes, unless that is too long for one commit: there
///   the last value of each of these fields and map entries is the one kept here, and adds to counters are added. If the
///   cluster refuses that commit, what was kept before it is kept on; if its fate is unknown, so is that of the rest. While
///   the cluster is away nothing is kept: such a commit fails.
/// - `"stop"`: as `"keep_local"`, but for good: no later change of this process to the object is distributed either. Its
///   removal and expiry still are everybody's.
///
/// It is about changes of single fields: an object that cannot be archived is not made, a commit whose fields are too large
/// only together fails, and so does one of several objects of which one would have to stay here.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a clustered struct",
    label = "does not derive `kiln::Clustered`",
    note = "add `#[derive(kiln::Clustered)]` to the struct; a type that is only ever the value of a field derives \
            `kiln::Value` instead and needs no `nested`"
)]
pub trait Clustered: Sized + Send + Sync + 'static {
    /// What a write guard derefs to.
    type Mut<'a>: Send + Sync;
    /// The content, pinned and in place.
    type View<'a>;
    /// The `local` fields. Each process has its own for each live object, starting from `Default`; they are never sent.
    type Local: Default + Send + Sync + 'static;

    /// The name by which the cluster knows this type.
    const NAME: &'static str;
    /// The shared fields in order, one for each slot, with the fields of nested structs in their place.
    const FIELDS: &'static [FieldInfo];

    /// Writes every slot of a new object.
    ///
    /// # Errors
    /// The first field whose value cannot be stored.
    fn store(&self, out: &mut Changes) -> Result<(), ValueError> {
        self.store_at(0, out)
    }

    /// Writes one slot with its default: for a field that an older or newer version of the program did not write.
    ///
    /// # Errors
    /// When the default cannot be stored.
    ///
    /// # Panics
    /// When there is no such slot.
    fn default_slot(slot: u16, out: &mut Changes) -> Result<(), ValueError> {
        Self::default_slot_at(slot, 0, out)
    }

    /// A guard's content, of which nothing is changed yet.
    #[must_use]
    fn guard(object: &Object) -> Self::Mut<'_> {
        Self::guard_at(object, 0)
    }

    /// Writes the changed slots, and takes them for unchanged from then on.
    ///
    /// # Errors
    /// The first field whose value cannot be stored and may not be left out; the fields before it count as unchanged.
    fn collect(guard: &mut Self::Mut<'_>, out: &mut Changes) -> Result<(), ValueError>;

    /// The pinned content.
    #[must_use]
    fn view(pinned: Pinned<'_>) -> Self::View<'_> {
        Self::view_at(Held::Own(pinned), 0)
    }

    /// A copy of the content; `local` fields are their `Default`.
    #[must_use]
    fn load(view: &Self::View<'_>) -> Self;

    /// Takes the `local` fields out of a value, for the process that makes it an object.
    #[must_use]
    fn into_local(self) -> Self::Local;

    #[doc(hidden)]
    fn store_at(&self, base: u16, out: &mut Changes) -> Result<(), ValueError>;
    #[doc(hidden)]
    fn default_slot_at(slot: u16, base: u16, out: &mut Changes) -> Result<(), ValueError>;
    #[doc(hidden)]
    #[must_use]
    fn guard_at(object: &Object, base: u16) -> Self::Mut<'_>;
    #[doc(hidden)]
    #[must_use]
    fn view_at(pinned: Held<'_>, base: u16) -> Self::View<'_>;
}
