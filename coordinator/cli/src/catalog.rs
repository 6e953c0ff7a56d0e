//! What the cluster's registry says about a root and its type, and slots decoded with it.

use crate::client::{Client, ClientError, unexpected};
use crate::output::shown;
use kiln_protocol::message::RootInfo;
use kiln_protocol::schema::{DEFAULT_GROUP, FieldKind, RegisteredField};
use kiln_protocol::structure::{OwnedStructure, Rendered};
use kiln_protocol::{FieldId, GroupId, ToCoordinator, ToNode, Write, Writes};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A root that is not there.
#[derive(Debug, thiserror::Error)]
#[error("root `{name}` does not exist; {roots}")]
pub(crate) struct NoRoot {
    name: String,
    roots: String,
}

/// All roots of the cluster.
pub(crate) async fn roots(client: &mut Client) -> Result<Vec<RootInfo>, ClientError> {
    let answer = client.ask(|request| ToCoordinator::Roots { request }).await?;
    let ToNode::Roots { roots, .. } = answer else {
        return Err(unexpected(&answer));
    };
    Ok(roots)
}

/// The root with this name, or shown like it.
pub(crate) fn find(roots: &[RootInfo], name: &str) -> Result<RootInfo, NoRoot> {
    const LISTED_MAX: usize = 10;
    if let Some(root) = roots.iter().find(|root| shown(&root.name) == name || root.name == name) {
        return Ok(root.clone());
    }
    let mut near: Vec<&str> = roots.iter().map(|root| root.name.as_str()).collect();
    near.sort_by_key(|other| distance(name, other));
    let listed: Vec<_> = near.iter().take(LISTED_MAX).map(|name| format!("`{}`", shown(name))).collect();
    let roots = match (near.len(), near.len() > LISTED_MAX) {
        (0, _) => "the cluster has no roots yet: a program makes one when it opens it".to_owned(),
        (_, false) => format!("there are {}", listed.join(", ")),
        (all, true) => format!("nearest of {all}: {}", listed.join(", ")),
    };
    Err(NoRoot { name: shown(name), roots })
}

/// How many letters to change from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

struct Field {
    name: Arc<str>,
    kind: FieldKind,
    structure: Option<OwnedStructure>,
    /// Of a map: the structure of its keys.
    entry_key: Option<OwnedStructure>,
}

/// The structure of a map's keys: the part of its text up to the first comma where it is one.
fn entry_key(map: &str) -> Option<OwnedStructure> {
    let inner = map.strip_prefix("map<")?;
    inner.match_indices(", ").find_map(|(comma, _)| inner[..comma].parse().ok())
}

/// The fields and groups of a root's type.
pub(crate) struct Catalog {
    fields: BTreeMap<FieldId, Field>,
    groups: BTreeMap<GroupId, String>,
}

/// One decoded slot write.
#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Slot {
    /// The field has this value.
    Value { field: String, value: Rendered },
    /// The field is back at its default.
    Default { field: String, default: bool },
    /// Something was added to the counter.
    Added { field: String, add: i64 },
    /// The entry has this value.
    Entry { field: String, key: Rendered, value: Rendered },
    /// The entry is gone.
    Removed { field: String, key: Rendered, removed: bool },
    /// All entries are gone.
    Cleared { field: String, cleared: bool },
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value { field, value } => write!(f, "{}={value}", shown(field)),
            Self::Default { field, .. } => write!(f, "{}=default", shown(field)),
            Self::Added { field, add } => write!(f, "{}{add:+}", shown(field)),
            Self::Entry { field, key, value } => write!(f, "{}[{key}]={value}", shown(field)),
            Self::Removed { field, key, .. } => write!(f, "{}[{key}] removed", shown(field)),
            Self::Cleared { field, .. } => write!(f, "{} cleared", shown(field)),
        }
    }
}

impl Catalog {
    pub(crate) fn new(root: &RootInfo) -> Self {
        let mut groups = BTreeMap::from([
            (GroupId::DEFAULT, DEFAULT_GROUP.to_owned()),
            (GroupId::COMMUTATIVE, "counters".to_owned()),
        ]);
        let mut fields = BTreeMap::new();
        for RegisteredField { id, group, description } in &root.type_info.fields {
            groups.entry(*group).or_insert_with(|| description.group.clone());
            fields.insert(
                *id,
                Field {
                    name: description.name.as_str().into(),
                    kind: description.kind,
                    structure: description.structure.parse().ok(),
                    entry_key: entry_key(&description.structure),
                },
            );
        }
        Self { fields, groups }
    }

    /// Whether the registry had this field when it was asked.
    pub(crate) fn knows(&self, field: FieldId) -> bool {
        self.fields.contains_key(&field)
    }

    pub(crate) fn group(&self, group: GroupId) -> String {
        let name = self.groups.get(&group);
        name.map_or_else(|| format!("group {group}"), |name| shown(name))
    }

    pub(crate) fn field(&self, field: FieldId) -> Arc<str> {
        let known = self.fields.get(&field);
        known.map_or_else(|| format!("field {field}").into(), |field| Arc::clone(&field.name))
    }

    /// All fields, in the order of their numbers: name, and value unless nobody ever wrote one. A map or a counter is
    /// empty or 0 then; what other fields read as is for each program to say.
    pub(crate) fn record(&self, writes: &[u8]) -> Vec<(Arc<str>, Option<Rendered>)> {
        let mut values: BTreeMap<FieldId, Rendered> = BTreeMap::new();
        for write in Writes::new(writes).filter_map(Result::ok) {
            let field = write.field();
            match self.slot(&write) {
                Slot::Value { value, .. } => drop(values.insert(field, value)),
                Slot::Entry { key, value, .. } => {
                    let map = values.entry(field).or_insert_with(|| Rendered::Map(Vec::new()));
                    if let Rendered::Map(entries) = map {
                        entries.push((key, value));
                    }
                }
                // A record has no other writes.
                Slot::Default { .. } | Slot::Added { .. } | Slot::Removed { .. } | Slot::Cleared { .. } => {}
            }
        }
        for (id, field) in &self.fields {
            match field.kind {
                FieldKind::Map => drop(values.entry(*id).or_insert_with(|| Rendered::Map(Vec::new()))),
                FieldKind::Counter => drop(values.entry(*id).or_insert(Rendered::Int(0))),
                FieldKind::Scalar | FieldKind::Block => {}
            }
        }
        let unknown: Vec<FieldId> = values.keys().copied().filter(|field| !self.knows(*field)).collect();
        self.fields.keys().copied().chain(unknown).map(|field| (self.field(field), values.remove(&field))).collect()
    }

    /// Decoded writes of a delta.
    pub(crate) fn delta(&self, writes: &[u8]) -> Vec<Slot> {
        Writes::new(writes).filter_map(Result::ok).map(|write| self.slot(&write)).collect()
    }

    fn slot(&self, write: &Write<'_>) -> Slot {
        let field = self.field(write.field()).to_string();
        match *write {
            Write::Scalar { field: id, bits } => Slot::Value { field, value: self.value(id, &bits.to_le_bytes()) },
            Write::Block { field: id, bytes } => Slot::Value { field, value: self.value(id, bytes) },
            Write::Unset { .. } => Slot::Default { field, default: true },
            Write::Add { amount, .. } => Slot::Added { field, add: amount },
            Write::MapPut { field: id, key, value } => {
                let (key, value) = self.entry(id, key, value);
                Slot::Entry { field, key, value }
            }
            Write::MapRemove { field: id, key } => Slot::Removed { field, key: self.entry_key(id, key), removed: true },
            Write::MapClear { .. } => Slot::Cleared { field, cleared: true },
        }
    }

    fn value(&self, field: FieldId, bytes: &[u8]) -> Rendered {
        let Some((structure, kind)) = self.structure(field) else {
            return raw(bytes, "of unknown structure");
        };
        structure.render(kind, bytes).unwrap_or_else(|error| raw(bytes, &error.to_string()))
    }

    fn entry(&self, field: FieldId, key: &[u8], value: &[u8]) -> (Rendered, Rendered) {
        let rendered = self.structure(field).map(|(structure, _)| structure.render_entry(key, value));
        match rendered {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => (self.entry_key(field, key), raw(value, &error.to_string())),
            None => (Rendered::Bytes(key.to_vec()), raw(value, "of unknown structure")),
        }
    }

    fn entry_key(&self, field: FieldId, key: &[u8]) -> Rendered {
        let structure = self.fields.get(&field).and_then(|field| field.entry_key.as_ref());
        let rendered = structure.and_then(|structure| structure.render_key(key).ok());
        rendered.unwrap_or_else(|| Rendered::Bytes(key.to_vec()))
    }

    fn structure(&self, field: FieldId) -> Option<(&OwnedStructure, FieldKind)> {
        let field = self.fields.get(&field)?;
        Some((field.structure.as_ref()?, field.kind))
    }
}

/// Stands for a value that does not decode.
fn raw(bytes: &[u8], why: &str) -> Rendered {
    Rendered::Opaque { tag: format!("unreadable: {why}").into(), bytes: bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_map_are_found_in_its_text() {
        for (map, key) in [("map<string, u32>", "string"), ("map<(u8, u16), vec<(u8, u8)>>", "(u8, u16)")] {
            assert_eq!(entry_key(map).unwrap().to_string(), key);
        }
        assert!(entry_key("vec<u8>").is_none());
    }

    #[test]
    fn names_are_compared_by_letters() {
        assert_eq!(distance("sesions", "sessions"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
