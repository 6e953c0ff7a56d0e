//! The schema registry: a number for each type, and for each field and lock group of it, once and for all.
//!
//! Field identity is the field's name. A program that declares a field differently from the cluster is refused with both
//! declarations; one that declares more fields adds them.

use super::entry::{BadEntry, Entry};
use kiln_protocol::limits::{FIELDS_MAX, GROUPS_MAX, NAME_BYTES_MAX, STRUCTURE_BYTES_MAX, TYPES_MAX};
use kiln_protocol::schema::{
    FieldDescription, FieldKind, RegisteredField, RegisteredType, TypeBinding, TypeDescription,
};
use kiln_protocol::structure::OwnedStructure;
use kiln_protocol::{Failure, FieldId, GroupId, Incarnation, TypeId, Write};
use std::collections::{BTreeMap, BTreeSet};

/// All types of the cluster.
#[derive(Debug, Default)]
pub(super) struct Schema {
    types: Vec<Type>,
    by_name: BTreeMap<String, TypeId>,
    /// The length of all names and structures, which a peer must not grow without bound.
    bytes: usize,
}

/// One type.
///
/// 1. The field at place n has number n.
/// 2. The group at place n has number n; place 0 is the default group, with the empty name.
#[derive(Debug)]
pub(super) struct Type {
    info: RegisteredType,
    groups: Vec<String>,
    by_name: BTreeMap<String, FieldId>,
}

/// What a field refuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FieldError {
    Unknown,
    Kind(FieldKind),
    Group(GroupId),
}

impl FieldError {
    pub(super) fn what(self) -> String {
        match self {
            Self::Unknown => "the type has no such field: register the type before its first use".to_owned(),
            Self::Kind(kind) => format!("the field is a {kind}, which does not take this write"),
            Self::Group(group) => format!("the field is of group {group}: write it in a part of that group"),
        }
    }
}

impl Type {
    fn new(id: TypeId, name: String) -> Self {
        let info = RegisteredType { id, name, fields: Vec::new() };
        Self { info, groups: vec![String::new()], by_name: BTreeMap::new() }
    }

    pub(super) const fn info(&self) -> &RegisteredType {
        &self.info
    }

    /// The lock groups of the type, ascending.
    pub(super) fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        #[expect(clippy::cast_possible_truncation, reason = "there are at most GROUPS_MAX groups")]
        let count = self.groups.len() as u8;
        (0..count).map(GroupId::from_bits)
    }

    /// The name of a lock group of the type.
    pub(super) fn group_name(&self, group: GroupId) -> Option<&str> {
        self.groups.get(usize::from(group.to_bits())).map(String::as_str)
    }

    /// Whether a field takes this write: in a part of `group`, or in a record.
    pub(super) fn check(&self, write: &Write<'_>, group: Option<GroupId>) -> Result<(), FieldError> {
        let field = self.info.fields.get(usize::from(write.field().to_bits())).ok_or(FieldError::Unknown)?;
        if group.is_some_and(|group| group != field.group) {
            return Err(FieldError::Group(field.group));
        }
        if !write.fits(field.description.kind, group.is_none()) {
            return Err(FieldError::Kind(field.description.kind));
        }
        Ok(())
    }

    fn field(&self, name: &str) -> Option<&RegisteredField> {
        self.info.fields.get(usize::from(self.by_name.get(name)?.to_bits()))
    }

    fn binding(&self, description: &TypeDescription) -> TypeBinding {
        let fields = description.fields.iter().filter_map(|field| self.field(&field.name));
        TypeBinding {
            id: self.info.id,
            fields: fields.clone().map(|field| field.id).collect(),
            groups: fields.map(|field| field.group).collect(),
        }
    }
}

impl Schema {
    pub(super) fn get(&self, id: TypeId) -> Option<&Type> {
        self.types.get(usize::try_from(id.to_bits()).ok()?)
    }

    /// All types, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Type> {
        self.types.iter()
    }

    pub(super) fn find(&self, name: &str) -> Option<&Type> {
        self.get(*self.by_name.get(name)?)
    }

    /// The number that the next type gets.
    pub(super) fn next_type(&self) -> TypeId {
        TypeId::from_bits(u32::try_from(self.types.len()).unwrap_or(u32::MAX))
    }

    /// The numbers for a description whose every field is registered.
    pub(super) fn binding(&self, description: &TypeDescription) -> Option<TypeBinding> {
        self.find(&description.name).map(|of| of.binding(description))
    }

    /// What must be registered for this description: nothing, new fields, or a type and all its fields.
    pub(super) fn decide(
        &self,
        by: Option<Incarnation>,
        description: &TypeDescription,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, Failure> {
        check_shape(description)?;
        let known = self.find(&description.name);
        let mut entries = Vec::new();
        let fresh;
        let known = if let Some(known) = known {
            known
        } else {
            let id = self.next_type();
            at_most("the number of types", self.types.len() + 1, TYPES_MAX)?;
            let name = description.name.clone();
            entries.push(Entry::TypeAdded { by, id, name: name.clone() });
            fresh = Type::new(id, name);
            &fresh
        };
        let fields = new_fields(known, description)?;
        let text = description.name.len() + fields.iter().map(|field| field_bytes(&field.description)).sum::<usize>();
        if !fields.is_empty() || !entries.is_empty() {
            at_most("the text of all types, in bytes,", self.bytes + text, bytes_max)?;
        }
        if !fields.is_empty() {
            entries.push(Entry::FieldsAdded { by, id: known.info.id, fields });
        }
        Ok(entries)
    }

    pub(super) fn add_type(&mut self, id: TypeId, name: &str) -> Result<(), BadEntry> {
        let next = self.types.len() as u64;
        if u64::from(id.to_bits()) != next || self.by_name.contains_key(name) {
            return Err(BadEntry::OutOfOrder { what: "type", number: id.to_bits().into(), last: next });
        }
        self.bytes += name.len();
        self.by_name.insert(name.to_owned(), id);
        self.types.push(Type::new(id, name.to_owned()));
        Ok(())
    }

    pub(super) fn add_fields(&mut self, id: TypeId, fields: &[RegisteredField]) -> Result<(), BadEntry> {
        let at = usize::try_from(id.to_bits()).unwrap_or(usize::MAX);
        let of =
            self.types.get_mut(at).ok_or_else(|| BadEntry::Missing { what: "type", number: id.to_bits().into() })?;
        for field in fields {
            let next = of.info.fields.len() as u64;
            if u64::from(field.id.to_bits()) != next {
                return Err(BadEntry::OutOfOrder { what: "field", number: field.id.to_bits().into(), last: next });
            }
            if usize::from(field.group.to_bits()) == of.groups.len() {
                of.groups.push(field.description.group.clone());
            }
            self.bytes += field_bytes(&field.description);
            of.by_name.insert(field.description.name.clone(), field.id);
            of.info.fields.push(field.clone());
        }
        Ok(())
    }
}

/// The length of a field's texts.
pub(super) const fn field_bytes(field: &FieldDescription) -> usize {
    field.name.len() + field.structure.len() + field.group.len()
}

/// Refuses what is above a limit.
pub(super) fn at_most(what: &str, actual: usize, limit: usize) -> Result<(), Failure> {
    if actual <= limit {
        return Ok(());
    }
    Err(Failure::Limit { what: what.to_owned(), actual: actual as u64, limit: limit as u64 })
}

/// Checks a name from a peer.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Failure> {
    at_most(&format!("the length of {what} in bytes"), name.len(), NAME_BYTES_MAX)
}

/// Checks the text of a structure from a peer.
pub(super) fn check_structure(type_name: &str, of: &str, structure: &str) -> Result<(), Failure> {
    at_most("the length of a structure in bytes", structure.len(), STRUCTURE_BYTES_MAX)?;
    match structure.parse::<OwnedStructure>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Schema {
            type_name: type_name.to_owned(),
            what: format!("the structure of {of} is not one: {error}"),
        }),
    }
}

fn check_shape(description: &TypeDescription) -> Result<(), Failure> {
    check_name("a type's name", &description.name)?;
    at_most("the number of fields of a type", description.fields.len(), FIELDS_MAX)?;
    let bad = |what: String| Failure::Schema { type_name: description.name.clone(), what };
    if description.name.is_empty() {
        return Err(bad("a type needs a name".to_owned()));
    }
    let mut names = BTreeSet::new();
    for field in &description.fields {
        check_name("a field's name", &field.name)?;
        check_name("a lock group's name", &field.group)?;
        if field.name.is_empty() {
            return Err(bad("a field needs a name".to_owned()));
        }
        if !names.insert(&field.name) {
            return Err(bad(format!("field `{}` is there twice", field.name)));
        }
        if field.kind == FieldKind::Counter && !field.group.is_empty() {
            return Err(bad(format!("counter `{}` needs no lock group: remove `lock`", field.name)));
        }
        check_structure(&description.name, &format!("field `{}`", field.name), &field.structure)?;
    }
    Ok(())
}

/// The fields that the cluster does not know yet, with their numbers.
fn new_fields(known: &Type, description: &TypeDescription) -> Result<Vec<RegisteredField>, Failure> {
    let mut groups = known.groups.clone();
    let mut fields = Vec::new();
    for field in &description.fields {
        if let Some(registered) = known.field(&field.name) {
            same_field(&description.name, &registered.description, field)?;
            continue;
        }
        let number = known.info.fields.len() + fields.len();
        at_most("the number of fields of a type, over all its versions,", number + 1, FIELDS_MAX)?;
        if field.kind != FieldKind::Counter && !groups.contains(&field.group) {
            groups.push(field.group.clone());
            at_most("the number of lock groups of a type", groups.len(), GROUPS_MAX)?;
        }
        fields.push(RegisteredField {
            id: FieldId::from_bits(u16::try_from(number).unwrap_or(u16::MAX)),
            group: group_of(&groups, field),
            description: field.clone(),
        });
    }
    Ok(fields)
}

fn group_of(groups: &[String], field: &FieldDescription) -> GroupId {
    if field.kind == FieldKind::Counter {
        return GroupId::COMMUTATIVE;
    }
    let at = groups.iter().position(|group| *group == field.group);
    let at = at.and_then(|at| u8::try_from(at).ok());
    at.map_or(GroupId::DEFAULT, GroupId::from_bits)
}

fn same_field(type_name: &str, registered: &FieldDescription, wanted: &FieldDescription) -> Result<(), Failure> {
    if registered == wanted {
        return Ok(());
    }
    let show = |field: &FieldDescription| {
        let mut text = field.structure.clone();
        if registered.kind != wanted.kind {
            text = format!("{} {text}", field.kind);
        }
        if registered.group != wanted.group {
            text += &match &field.group[..] {
                "" => " in the default lock group".to_owned(),
                group => format!(" in lock group {group}"),
            };
        }
        text
    };
    Err(Failure::FieldChanged {
        type_name: type_name.to_owned(),
        field: wanted.name.clone(),
        registered: show(registered),
        wanted: show(wanted),
    })
}
