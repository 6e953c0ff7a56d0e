//! A node's copies, kept by an implementation of slot writes of their own.

use kiln_protocol::message::{DeltaPart, Record};
use kiln_protocol::{FieldId, GroupId, Version, Write, Writes};
use std::collections::BTreeMap;

/// The slots of one object: fields and map entries, and the bytes or bits of each.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Slots(BTreeMap<(FieldId, Option<Vec<u8>>), Vec<u8>>);

impl Slots {
    pub(super) fn of(writes: &[u8]) -> Self {
        let mut slots = Self::default();
        slots.apply(writes);
        slots
    }

    pub(super) fn apply(&mut self, writes: &[u8]) {
        for write in Writes::new(writes) {
            let write = write.unwrap();
            let field = write.field();
            match write {
                Write::Scalar { bits, .. } => drop(self.0.insert((field, None), bits.to_le_bytes().to_vec())),
                Write::Block { bytes, .. } => drop(self.0.insert((field, None), bytes.to_vec())),
                Write::Unset { .. } => drop(self.0.remove(&(field, None))),
                Write::Add { amount, .. } => {
                    let sum = self.0.entry((field, None)).or_insert_with(|| vec![0; 8]);
                    let old = i64::from_le_bytes(sum[..].try_into().unwrap());
                    *sum = old.wrapping_add(amount).to_le_bytes().to_vec();
                }
                Write::MapPut { key, value, .. } => drop(self.0.insert((field, Some(key.to_vec())), value.to_vec())),
                Write::MapRemove { key, .. } => drop(self.0.remove(&(field, Some(key.to_vec())))),
                Write::MapClear { .. } => self.0.retain(|(of, _), _| *of != field),
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&(FieldId, Option<Vec<u8>>), &Vec<u8>)> {
        self.0.iter()
    }
}

/// What a node knows of one object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Copy {
    pub(super) slots: Slots,
    pub(super) versions: BTreeMap<GroupId, Version>,
}

impl Copy {
    pub(super) fn of(record: &Record) -> Self {
        Self { slots: Slots::of(&record.writes), versions: record.versions.iter().copied().collect() }
    }

    pub(super) fn version(&self, group: GroupId) -> Version {
        self.versions.get(&group).copied().unwrap_or_default()
    }

    /// Applies what another node committed, which must follow what is there (S5).
    pub(super) fn apply(&mut self, part: &DeltaPart) {
        let before = self.version(part.group);
        if part.group == GroupId::COMMUTATIVE {
            // The node's own adds may have been answered before those that wait for the log.
            return self.own(part.group, before.next_in(part.version.epoch()), &part.writes);
        }
        assert_eq!(part.version.number(), before.number() + 1, "a gap in {} of {}", part.group, part.object);
        assert!(part.version > before);
        self.own(part.group, part.version, &part.writes);
    }

    /// Applies a commit of the node's own.
    pub(super) fn own(&mut self, group: GroupId, version: Version, writes: &[u8]) {
        self.versions.insert(group, version);
        self.slots.apply(writes);
    }
}
