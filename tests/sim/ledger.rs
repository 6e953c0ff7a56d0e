//! What the coordinator has decided in its present epoch, as its log says: the truth that all copies are held against.

use crate::process::Added;
use crate::program::Field;
use bytes::Bytes;
use kiln::Clustered as _;
use kiln_coordinator::engine::{Entry, SessionId};
use kiln_protocol::message::Part;
use kiln_protocol::{CommitSeq, FieldId, GroupId, Incarnation, ObjectId, RootId, TypeId, Version, Write, Writes};
use kiln_tests::Session;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// A commit as its maker tells it: what it added to which field.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) added: Vec<Added>,
}

/// An object that was created.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) root: RootId,
    pub(crate) key: Vec<u8>,
    /// Those that it had before.
    pub(crate) old_keys: Vec<Vec<u8>>,
    /// When it was removed.
    pub(crate) removed: Option<u64>,
}

/// An incarnation, and its commits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) decided: CommitSeq,
    pub(crate) refused: BTreeSet<CommitSeq>,
    pub(crate) gone: bool,
}

/// What a version of an (object, group) is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// Of the writes that made it.
    pub(crate) writes: u64,
    pub(crate) values: Vec<(Field, i64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) sessions: BTreeMap<SessionId, Incarnation>,
    pub(crate) lives: BTreeMap<Incarnation, Life>,
    pub(crate) objects: BTreeMap<ObjectId, Known>,
    pub(crate) made: BTreeMap<(Incarnation, CommitSeq), Made>,
    pub(crate) versions: BTreeMap<(ObjectId, GroupId), Version>,
    /// When each got its present version.
    pub(crate) changed: BTreeMap<(ObjectId, GroupId), u64>,
    pub(crate) contents: BTreeMap<(ObjectId, GroupId, u64), Content>,
    pub(crate) commits: u64,
    values: BTreeMap<(ObjectId, Field), i64>,
    session_type: Option<TypeId>,
    fields: BTreeMap<FieldId, (Field, GroupId)>,
    /// Roots whose objects are sessions.
    session_roots: BTreeSet<RootId>,
}

/// What a commit did to one field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) object: ObjectId,
    pub(crate) field: Field,
    pub(crate) before: i64,
    pub(crate) after: i64,
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Ledger {
    pub(crate) fn value(&self, object: ObjectId, field: Field) -> i64 {
        self.values.get(&(object, field)).copied().unwrap_or_default()
    }

    pub(crate) fn number(&self, field: Field) -> Option<FieldId> {
        self.fields.iter().find(|(_, (known, _))| *known == field).map(|(number, _)| *number)
    }

    /// A write to some field of a group.
    pub(crate) fn some_write(&self, group: GroupId) -> Bytes {
        let field = self.fields.iter().find(|(_, (_, of))| *of == group).map(|(number, _)| *number);
        let mut writes = Vec::new();
        if let Some(field) = field {
            Write::Scalar { field, bits: 1 << 40 }.encode(&mut writes);
        }
        writes.into()
    }

    pub(crate) fn some_root(&self) -> Option<RootId> {
        self.session_roots.first().copied()
    }

    /// Whether the objects of a root have the fields that are looked at.
    pub(crate) fn has_sessions(&self, root: RootId) -> bool {
        self.session_roots.contains(&root)
    }

    pub(crate) fn is_removed(&self, object: ObjectId) -> bool {
        self.objects.get(&object).is_none_or(|known| known.removed.is_some())
    }

    /// What became of a commit; `None`: nothing yet.
    pub(crate) fn outcome(&self, incarnation: Incarnation, seq: CommitSeq) -> Option<bool> {
        let life = self.lives.get(&incarnation)?;
        if seq > life.decided { life.gone.then_some(false) } else { Some(!life.refused.contains(&seq)) }
    }

    /// The keys of sessions that there are, with their objects.
    pub(crate) fn sessions_there(&self) -> Vec<(RootId, Vec<u8>, ObjectId)> {
        let there = self
            .objects
            .iter()
            .filter(|(_, known)| known.removed.is_none() && self.session_roots.contains(&known.root));
        there.map(|(object, known)| (known.root, known.key.clone(), *object)).collect()
    }

    /// Takes an entry of the log in; for a commit, says what it did to the fields that are looked at.
    pub(crate) fn append(&mut self, now: u64, entry: &Entry) -> Vec<Step> {
        match entry {
            Entry::Started { .. }
            | Entry::Used { .. }
            | Entry::QueueAdded { .. }
            | Entry::QueueRemoved { .. }
            | Entry::Heard { .. } => {}
            Entry::Attached { incarnation, .. } => drop(self.lives.insert(*incarnation, Life::default())),
            Entry::Gone { incarnation, .. } => self.lives.entry(*incarnation).or_default().gone = true,
            Entry::TypeAdded { id, name, .. } if name == Session::NAME => self.session_type = Some(*id),
            Entry::TypeAdded { .. } => {}
            Entry::FieldsAdded { id, fields, .. } => {
                for field in fields.iter().filter(|_| self.session_type == Some(*id)) {
                    if let Some(known) = Field::named(&field.description.name) {
                        self.fields.insert(field.id, (known, field.group));
                    }
                }
            }
            Entry::RootAdded { root, type_id, .. } => {
                if self.session_type == Some(*type_id) {
                    self.session_roots.insert(*root);
                }
            }
            Entry::Created { object, root, key, writes, .. } => {
                let known = Known { root: *root, key: key.to_vec(), old_keys: Vec::new(), removed: None };
                self.objects.insert(*object, known);
                if self.session_roots.contains(root) {
                    let _steps = self.write(*object, writes);
                }
            }
            Entry::Committed { writer, seq, parts } => {
                self.commits += 1;
                self.lives.entry(*writer).or_default().decided = *seq;
                return parts.iter().flat_map(|part| self.part(now, part)).collect();
            }
            Entry::Refused { writer, first, last } => {
                let life = self.lives.entry(*writer).or_default();
                life.decided = *last;
                life.refused.extend((first.to_bits()..=last.to_bits()).map(CommitSeq::from_bits));
            }
            Entry::Removed { object, .. } | Entry::Expired { object } => {
                if let Some(known) = self.objects.get_mut(object) {
                    known.removed = Some(now);
                }
            }
            Entry::Renamed { object, key, .. } => {
                if let Some(known) = self.objects.get_mut(object) {
                    known.old_keys.push(std::mem::replace(&mut known.key, key.to_vec()));
                }
            }
        }
        Vec::new()
    }

    fn part(&mut self, now: u64, part: &Part) -> Vec<Step> {
        let steps = self.write(part.object, &part.writes);
        self.versions.insert((part.object, part.group), part.version);
        self.changed.insert((part.object, part.group), now);
        let of_group = self.fields.values().filter(|(_, group)| *group == part.group);
        let values = of_group.map(|(field, _)| (*field, self.value(part.object, *field))).collect();
        let content = Content { writes: hash(&part.writes), values };
        self.contents.insert((part.object, part.group, part.version.number()), content);
        steps
    }

    fn write(&mut self, object: ObjectId, writes: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        for write in Writes::new(writes) {
            let write = write.expect("checked by the coordinator");
            let Some((field, _)) = self.fields.get(&write.field()).copied() else { continue };
            let value = self.values.entry((object, field)).or_default();
            let before = *value;
            match write {
                Write::Scalar { bits, .. } => *value = bits.cast_signed(),
                Write::Add { amount, .. } => *value = value.wrapping_add(amount),
                Write::Unset { .. } => *value = 0,
                Write::Block { .. } | Write::MapPut { .. } | Write::MapRemove { .. } | Write::MapClear { .. } => {}
            }
            steps.push(Step { object, field, before, after: *value });
        }
        steps
    }
}
