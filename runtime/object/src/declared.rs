//! What the derive knows about a struct's fields, joined into one constant table with those of nested structs.
//!
//! All of it runs in constants, so a struct that breaks a limit does not compile.

use crate::field_type::FieldType;
use crate::form::{ForeignForm, Form};
use kiln_heap::SlotKind;
use kiln_protocol::limits::{FIELDS_MAX, GROUPS_MAX, NAME_BYTES_MAX};
use kiln_protocol::schema::FieldKind;
use kiln_protocol::structure::Structure;
use std::collections::BTreeSet;

/// One shared field of a clustered struct.
#[derive(Clone, Copy, Debug)]
pub struct FieldInfo {
    /// The field's name, with the names of nested structs before it: `address.city`.
    pub name: &'static str,
    /// How the protocol sees the field.
    pub kind: FieldKind,
    /// What the field is made of.
    pub structure: Structure<'static>,
    /// The lock group's name; empty for the default group and for counters.
    pub group: &'static str,
    /// How the heap keeps the field.
    pub slot_kind: fn() -> SlotKind,
}

impl FieldInfo {
    const NONE: Self = Self::unnamed(FieldKind::Scalar, Structure::Unit, || SlotKind::Scalar);

    pub(crate) const fn unnamed(kind: FieldKind, structure: Structure<'static>, slot_kind: fn() -> SlotKind) -> Self {
        Self { name: "", kind, structure, group: "", slot_kind }
    }

    /// A field of a foreign type whose layout is known by its tag.
    #[doc(hidden)]
    #[must_use]
    pub const fn opaque<T>(tag: &'static str) -> Self
    where
        ForeignForm: Form<T>,
    {
        Self::unnamed(FieldKind::Block, Structure::Opaque(tag), <ForeignForm as Form<T>>::slot_kind)
    }
}

/// The lock groups of these fields by name: the default group, "", first, then in the order of appearance.
#[must_use]
pub fn groups(fields: &[FieldInfo]) -> Vec<&'static str> {
    let mut seen = BTreeSet::from([""]);
    let mut groups = vec![""];
    groups.extend(fields.iter().map(|field| field.group).filter(|group| seen.insert(*group)));
    groups
}

/// One shared field as the struct declares it.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    name: &'static str,
    group: &'static str,
    fields: &'static [FieldInfo],
}

impl Declared {
    /// A field whose type says what it is made of.
    #[must_use]
    pub const fn of<T: FieldType>(name: &'static str, group: &'static str) -> Self {
        Self::with(name, group, T::FIELDS)
    }

    /// A field that is made of these.
    #[must_use]
    pub const fn with(name: &'static str, group: &'static str, fields: &'static [FieldInfo]) -> Self {
        Self { name, group, fields }
    }

    const fn name_bytes(&self, field: &FieldInfo) -> usize {
        let bytes = match field.name.len() {
            0 => self.name.len(),
            inner => self.name.len() + 1 + inner,
        };
        assert!(
            bytes <= NAME_BYTES_MAX,
            "a field's name, with those of the nested structs around it, is longer than 255 bytes: shorten it with \
             #[clustered(rename = \"..\")]"
        );
        bytes
    }
}

/// The bytes of all names together.
#[must_use]
pub const fn names_bytes(declared: &[Declared]) -> usize {
    let mut bytes = 0;
    let mut outer = 0;
    while outer < declared.len() {
        let mut inner = 0;
        while inner < declared[outer].fields.len() {
            bytes += declared[outer].name_bytes(&declared[outer].fields[inner]);
            inner += 1;
        }
        outer += 1;
    }
    bytes
}

/// All names, one after another.
#[must_use]
pub const fn names<const BYTES: usize>(declared: &[Declared]) -> [u8; BYTES] {
    let mut names = [0; BYTES];
    let mut at = 0;
    let mut outer = 0;
    while outer < declared.len() {
        let mut inner = 0;
        while inner < declared[outer].fields.len() {
            at = put(&mut names, at, declared[outer].name);
            let name = declared[outer].fields[inner].name;
            if !name.is_empty() {
                at = put(&mut names, at, ".");
                at = put(&mut names, at, name);
            }
            inner += 1;
        }
        outer += 1;
    }
    names
}

const fn put(bytes: &mut [u8], at: usize, text: &str) -> usize {
    let (_, rest) = bytes.split_at_mut(at);
    let (place, _) = rest.split_at_mut(text.len());
    place.copy_from_slice(text.as_bytes());
    at + text.len()
}

/// How many slots they take.
#[must_use]
pub const fn slots(declared: &[Declared]) -> usize {
    first_slot_or_len(declared, declared.len())
}

/// The first slot of the declared field with this index.
#[must_use]
pub const fn first_slot(declared: &[Declared], index: usize) -> u16 {
    let slot = first_slot_or_len(declared, index);
    assert!(
        slot <= FIELDS_MAX,
        "the struct has more than 1,024 shared fields, those of nested structs included: put some into a `kiln::Map` \
         or a struct that derives `kiln::Value`"
    );
    #[expect(clippy::cast_possible_truncation, reason = "FIELDS_MAX fits")]
    let slot = slot as u16;
    slot
}

const fn first_slot_or_len(declared: &[Declared], index: usize) -> usize {
    let mut slots = 0;
    let mut at = 0;
    while at < index {
        slots += declared[at].fields.len();
        at += 1;
    }
    slots
}

/// For the derive: nobody asks for the default of a slot that the type does not have.
///
/// # Panics
/// Always.
pub fn no_such_slot(name: &str, slot: u16) -> ! {
    panic!("{name} has no slot {slot}")
}

/// The table of the struct's fields: [`crate::Clustered::FIELDS`].
#[must_use]
pub const fn fields<const SLOTS: usize>(declared: &[Declared], mut names: &'static [u8]) -> [FieldInfo; SLOTS] {
    let mut fields = [FieldInfo::NONE; SLOTS];
    let mut slot = 0;
    let mut outer = 0;
    while outer < declared.len() {
        let mut inner = 0;
        while inner < declared[outer].fields.len() {
            let mut field = declared[outer].fields[inner];
            let (name, rest) = names.split_at(declared[outer].name_bytes(&field));
            names = rest;
            field.name = match std::str::from_utf8(name) {
                Ok(name) => name,
                Err(_) => panic!("names are joined from whole strings"),
            };
            if field.group.is_empty() && !matches!(field.kind, FieldKind::Counter) {
                field.group = declared[outer].group;
            }
            fields[slot] = field;
            slot += 1;
            inner += 1;
        }
        outer += 1;
    }
    assert!(SLOTS <= FIELDS_MAX, "the struct has more than 1,024 shared fields");
    assert!(
        groups_len(&fields) <= GROUPS_MAX,
        "the struct has more than 64 lock groups, the default one included: let some fields share a group"
    );
    fields
}

const fn groups_len(fields: &[FieldInfo]) -> usize {
    let mut groups = 1;
    let mut at = 0;
    while at < fields.len() {
        let mut earlier = 0;
        while earlier < at && !equal(fields[earlier].group, fields[at].group) {
            earlier += 1;
        }
        if earlier == at && !fields[at].group.is_empty() {
            groups += 1;
        }
        at += 1;
    }
    groups
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}
