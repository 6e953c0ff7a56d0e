//! How the slots of a local struct meet the numbers of the cluster's schema registry.
//!
//! Slots are in the order of the local struct; one hidden map slot behind them, the tail, keeps the slots that only
//! other versions of the program know.

use crate::journal::LocalWrite;
use kiln_heap::{BlockKind, Shape, SlotKind, SlotWrite};
use kiln_object::{Change, Changes, Clustered, ValueError};
use kiln_protocol::schema::{DEFAULT_GROUP, FieldDescription, TypeBinding, TypeDescription};
use kiln_protocol::{BadDelta, FieldId, GroupId, TypeId, Write, Writes};
use smallvec::SmallVec;
use std::sync::Arc;

/// A local group's place in the table's versions; the commutative one comes last.
pub type GroupIndex = u8;

/// Encoded slot writes.
pub(crate) type Encoded = SmallVec<[u8; 64]>;

/// Why a type cannot be bound.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BindError {
    /// The coordinator's answer does not match the question.
    #[error("the coordinator numbered {answered} of {asked} fields: it runs an incompatible version")]
    Mismatch {
        /// Fields of the type.
        asked: usize,
        /// Fields in the answer.
        answered: usize,
    },
    /// The type has too many fields or groups.
    #[error("the type has too many fields or lock groups: {0}")]
    TooLarge(String),
}

/// See the module.
#[derive(Debug)]
pub struct Binding {
    /// The type's number.
    pub type_id: TypeId,
    /// The layout of tables.
    pub shape: Arc<Shape>,
    field_names: Box<[&'static str]>,
    field_ids: Box<[FieldId]>,
    slot_groups: Box<[GroupIndex]>,
    groups: Box<[GroupId]>,
    group_names: Box<[&'static str]>,
    by_field: Box<[(FieldId, u16)]>,
    tail: u16,
    default_slot: fn(u16, &mut Changes) -> Result<(), ValueError>,
}

/// What a type says of itself to the registry.
#[must_use]
pub fn describe<T: Clustered>() -> TypeDescription {
    let fields = T::FIELDS.iter().map(|field| FieldDescription {
        name: field.name.to_owned(),
        kind: field.kind,
        structure: field.structure.to_string(),
        group: field.group.to_owned(),
    });
    TypeDescription { name: T::NAME.to_owned(), fields: fields.collect() }
}

impl Binding {
    /// The slot of a field.
    pub fn slot_named(&self, name: &str) -> Option<u16> {
        self.field_names.iter().position(|known| *known == name).and_then(|slot| u16::try_from(slot).ok())
    }

    /// Binds a type to the registry's answer.
    ///
    /// # Errors
    /// When the answer does not fit the type.
    pub fn new<T: Clustered>(answer: &TypeBinding) -> Result<Self, BindError> {
        let asked = T::FIELDS.len();
        if answer.fields.len() != asked || answer.groups.len() != asked {
            return Err(BindError::Mismatch { asked, answered: answer.fields.len().min(answer.groups.len()) });
        }
        let mut groups = vec![GroupId::DEFAULT];
        let mut group_names = vec![DEFAULT_GROUP];
        for (field, group) in T::FIELDS.iter().zip(&answer.groups) {
            if *group != GroupId::COMMUTATIVE && !groups.contains(group) {
                groups.push(*group);
                group_names.push(field.group);
            }
        }
        let index = |group: &GroupId| groups.iter().position(|known| known == group).unwrap_or(groups.len());
        let too_large = |what: &dyn std::fmt::Display| BindError::TooLarge(what.to_string());
        let slot_groups: Result<_, _> = answer.groups.iter().map(|group| GroupIndex::try_from(index(group))).collect();
        let mut by_field = Vec::with_capacity(asked);
        for (slot, field) in answer.fields.iter().enumerate() {
            by_field.push((*field, u16::try_from(slot).map_err(|error| too_large(&error))?));
        }
        by_field.sort_unstable();
        let kinds = T::FIELDS.iter().map(|field| (field.slot_kind)()).chain([SlotKind::Map(BlockKind::Bytes)]);
        Ok(Self {
            type_id: answer.id,
            shape: Shape::new(kinds, groups.len() + 1).map_err(|error| too_large(&error))?,
            field_names: T::FIELDS.iter().map(|field| field.name).collect(),
            field_ids: answer.fields.clone().into(),
            slot_groups: slot_groups.map_err(|error| too_large(&error))?,
            tail: u16::try_from(asked).map_err(|error| too_large(&error))?,
            groups: groups.into(),
            group_names: group_names.into(),
            by_field: by_field.into(),
            default_slot: T::default_slot,
        })
    }

    /// The lock groups this version of the program knows, the default one first.
    #[must_use]
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }

    /// The index of the commutative group's version.
    #[must_use]
    pub fn commutative(&self) -> GroupIndex {
        GroupIndex::try_from(self.groups.len()).expect("checked when bound")
    }

    /// The local index of a group; `None` when this version of the program has no field in it.
    #[must_use]
    pub fn group_index(&self, group: GroupId) -> Option<GroupIndex> {
        if group == GroupId::COMMUTATIVE {
            return Some(self.commutative());
        }
        self.groups.iter().position(|known| *known == group).and_then(|index| GroupIndex::try_from(index).ok())
    }

    /// The local index of a group by its name; the empty name is the default group's as well.
    #[must_use]
    pub fn group_named(&self, name: &str) -> Option<GroupIndex> {
        let name = if name.is_empty() { DEFAULT_GROUP } else { name };
        self.group_names.iter().position(|known| *known == name).and_then(|index| GroupIndex::try_from(index).ok())
    }

    /// The name of a group; `default` for that of the fields that name none.
    #[must_use]
    pub fn group_name(&self, index: GroupIndex) -> &'static str {
        self.group_names.get(usize::from(index)).copied().unwrap_or_default()
    }

    /// The name of the field with this number; `None` when this version of the program lacks it.
    #[must_use]
    pub fn field_name(&self, field: FieldId) -> Option<&'static str> {
        self.slot_of(field).map(|slot| self.field_names[usize::from(slot)])
    }

    /// The name of the field in this slot.
    #[must_use]
    pub fn slot_name(&self, slot: u16) -> &'static str {
        self.field_names.get(usize::from(slot)).copied().unwrap_or("(unknown)")
    }

    /// The group of a slot.
    #[must_use]
    pub fn slot_group(&self, slot: u16) -> GroupIndex {
        self.slot_groups[usize::from(slot)]
    }

    /// The slots of the counters.
    pub fn counters(&self) -> impl Iterator<Item = u16> {
        let is_counter = |group: &GroupIndex| *group == self.commutative();
        (0..).zip(&self.slot_groups).filter(move |(_, group)| is_counter(group)).map(|(slot, _)| slot)
    }

    fn slot_of(&self, field: FieldId) -> Option<u16> {
        let found = self.by_field.binary_search_by_key(&field, |(field, _)| *field).ok()?;
        Some(self.by_field[found].1)
    }

    /// The encoded form of changes, by group. Adds go to the commutative group.
    #[must_use]
    pub(crate) fn encode(&self, changes: &[Change]) -> SmallVec<[(GroupIndex, Encoded); 2]> {
        self.encode_by_group(changes.iter().map(|change| (change.slot(), self.write_of(change))))
    }

    /// As `encode`, of writes in the journal.
    #[must_use]
    pub(crate) fn encode_local(&self, writes: &[LocalWrite]) -> SmallVec<[(GroupIndex, Encoded); 2]> {
        let field = |write: &LocalWrite| self.field_ids[usize::from(write.slot())];
        self.encode_by_group(writes.iter().map(|write| (write.slot(), write.as_write(field(write)))))
    }

    fn encode_by_group<'w>(
        &self,
        writes: impl Iterator<Item = (u16, Write<'w>)>,
    ) -> SmallVec<[(GroupIndex, Encoded); 2]> {
        let mut by_group: SmallVec<[(GroupIndex, Encoded); 2]> = SmallVec::new();
        for (slot, write) in writes {
            let group = self.slot_group(slot);
            if let Some((_, writes)) = by_group.iter_mut().find(|(known, _)| *known == group) {
                write.encode(writes);
            } else {
                let mut writes = Encoded::new();
                write.encode(&mut writes);
                by_group.push((group, writes));
            }
        }
        by_group
    }

    /// The encoded form of a whole new object.
    #[must_use]
    pub fn encode_record(&self, changes: &[Change]) -> Vec<u8> {
        let mut out = Vec::new();
        for change in changes {
            self.write_of(change).encode(&mut out);
        }
        out
    }

    fn write_of<'c>(&self, change: &'c Change) -> Write<'c> {
        let field = self.field_ids[usize::from(change.slot())];
        match change {
            Change::Scalar { bits, .. } => Write::Scalar { field, bits: *bits },
            Change::Block { value, .. } => Write::Block { field, bytes: value.bytes() },
            Change::MapPut { key, value, .. } => Write::MapPut { field, key, value: value.bytes() },
            Change::MapRemove { key, .. } => Write::MapRemove { field, key },
            Change::MapClear { .. } => Write::MapClear { field },
            Change::Add { amount, .. } => Write::Add { field, amount: *amount },
        }
    }

    /// Encoded writes as slot writes of the local table. Those of unknown fields go to the tail.
    ///
    /// # Errors
    /// When the bytes are not well-formed.
    pub(crate) fn decode<'w>(&self, writes: &'w [u8], tail: &'w mut Tail) -> Result<Decoded<'w>, BadDelta> {
        let mut decoded = SmallVec::new();
        let mut unset = SmallVec::new();
        let mut reader = Writes::new(writes);
        loop {
            let start = reader.position();
            let Some(write) = reader.next().transpose()? else { break };
            let Some(slot) = self.slot_of(write.field()) else {
                tail.note(&write, &writes[start..reader.position()]);
                continue;
            };
            match write {
                Write::Scalar { bits, .. } => decoded.push(SlotWrite::Scalar { slot, bits }),
                Write::Block { bytes, .. } => decoded.push(SlotWrite::Block { slot, bytes }),
                Write::Add { amount, .. } => decoded.push(SlotWrite::Add { slot, amount }),
                Write::MapPut { key, value, .. } => decoded.push(SlotWrite::MapPut { slot, key, value }),
                Write::MapRemove { key, .. } => decoded.push(SlotWrite::MapRemove { slot, key }),
                Write::MapClear { .. } => decoded.push(SlotWrite::MapClear { slot }),
                // Back to the default: which one, this version of the program says.
                Write::Unset { .. } => unset.push(slot),
            }
        }
        let slot = self.tail;
        decoded.extend(tail.kept.iter().map(|(key, value)| SlotWrite::MapPut { slot, key, value }));
        Ok(Decoded { writes: decoded, unset })
    }

    /// The defaults of the slots that are not among the written ones.
    ///
    /// # Errors
    /// When a default cannot be archived.
    pub(crate) fn defaults_for(&self, written_slots: impl Iterator<Item = u16>) -> Result<Changes, ValueError> {
        let mut written = vec![false; self.field_ids.len()];
        for slot in written_slots {
            if let Some(mark) = written.get_mut(usize::from(slot)) {
                *mark = true;
            }
        }
        let mut defaults = Changes::default();
        for (slot, _) in (0..self.tail).zip(written).filter(|(_, written)| !written) {
            (self.default_slot)(slot, &mut defaults)?;
        }
        Ok(defaults)
    }

    /// The default of one slot.
    ///
    /// # Errors
    /// When it cannot be archived.
    pub(crate) fn default_of(&self, slot: u16) -> Result<Changes, ValueError> {
        let mut defaults = Changes::default();
        (self.default_slot)(slot, &mut defaults)?;
        Ok(defaults)
    }
}

/// Changes as slot writes of the local table.
pub(crate) fn slot_writes(changes: &[Change]) -> SmallVec<[SlotWrite<'_>; 4]> {
    changes.iter().map(Change::as_write).collect()
}

/// Encoded writes, as the local table takes them.
#[derive(Debug)]
pub(crate) struct Decoded<'w> {
    /// What is written.
    pub(crate) writes: SmallVec<[SlotWrite<'w>; 4]>,
    /// Slots that go back to their default.
    pub(crate) unset: SmallVec<[u16; 2]>,
}

/// Keeps writes that the local struct has no slot for while they are applied.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    kept: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Tail {
    /// Keeps a write under a key of its slot: the field, and for a map's entry its key.
    fn note(&mut self, write: &Write<'_>, encoded: &[u8]) {
        let mut key = vec![(write.field().to_bits() >> 8) as u8, (write.field().to_bits() & 0xff) as u8];
        if let Write::MapPut { key: entry, .. } | Write::MapRemove { key: entry, .. } = write {
            key.push(1);
            key.extend_from_slice(entry);
        }
        self.kept.push((key, encoded.to_vec()));
    }
}
