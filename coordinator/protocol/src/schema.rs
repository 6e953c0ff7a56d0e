//! What a program says about its types, and the numbers the cluster's registry answers with.
//!
//! Field identity is the field's name. The registry gives every name a small number, once and for all; records and
//! deltas use those numbers. So two versions of a program can run side by side.

use crate::ids::{FieldId, GroupId, TypeId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What people call the lock group of fields that name none. In a description its name is empty.
pub const DEFAULT_GROUP: &str = "default";

/// How a field is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// Eight bytes, in the slot itself.
    Scalar,
    /// A block of bytes: a string, a byte vector, or one archive.
    Block,
    /// A `kiln::Map`: one slot per entry.
    Map,
    /// A commutative `i64`.
    Counter,
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Block => "block",
            Self::Map => "map",
            Self::Counter => "counter",
        })
    }
}

/// One field of a type, as a program declares it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FieldDescription {
    /// The field's name, with the names of nested structs before it: `address.city`.
    pub name: String,
    /// How the field is kept.
    pub kind: FieldKind,
    /// The canonical text of the field's [`crate::structure::Structure`].
    pub structure: String,
    /// The lock group's name; empty for the default group and for counters.
    pub group: String,
}

/// One type, as a program declares it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TypeDescription {
    /// The type's name.
    pub name: String,
    /// The fields that are shared, in the order of the struct.
    pub fields: Vec<FieldDescription>,
}

/// The numbers of a type's fields and groups.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct TypeBinding {
    /// The type's number.
    pub id: TypeId,
    /// A number for each field of the description, in its order.
    pub fields: Vec<FieldId>,
    /// The group of each field of the description, in its order.
    pub groups: Vec<GroupId>,
}

/// A field as the registry knows it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RegisteredField {
    /// The field's number.
    pub id: FieldId,
    /// The field's group.
    pub group: GroupId,
    /// What was declared.
    pub description: FieldDescription,
}

/// A type as the registry knows it: the fields of every version of the program that was ever attached.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RegisteredType {
    /// The type's number.
    pub id: TypeId,
    /// The type's name.
    pub name: String,
    /// All fields, by number.
    pub fields: Vec<RegisteredField>,
}
