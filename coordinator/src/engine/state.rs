//! Replicated state: what the log's entries add up to.
//!
//! Deciding what may happen is the business of the other modules; [`State::apply`] carries out what was decided, and is
//! what a replay of the log calls. It draws on nothing but the state and the entry.

use super::entry::{BadEntry, Entry};
use super::keys::KeyIndex;
use super::object::Object;
use super::objects::Objects;
use super::roots::{Root, Roots};
use super::schema::{Schema, Type};
use bytes::Bytes;
use kiln_protocol::message::Part;
use kiln_protocol::{CommitSeq, Incarnation, ObjectId, Partition, RootId};
use std::collections::{BTreeMap, VecDeque};

/// Ended incarnations whose last commit is remembered, for nodes that come back and ask.
const ENDED_KEPT_MAX: usize = 1 << 16;
/// Refused commits of one incarnation that are remembered.
const REFUSED_KEPT_MAX: usize = 256;

/// How far an incarnation's commits were decided.
#[derive(Debug, Default)]
struct Progress {
    /// The last one.
    applied: CommitSeq,
    /// Those that were refused; of many only the last ones.
    refused: VecDeque<CommitSeq>,
    /// What became of commits up to this one is forgotten.
    forgotten: CommitSeq,
}

impl Progress {
    fn refuse(&mut self, seq: CommitSeq) {
        if self.refused.len() == REFUSED_KEPT_MAX {
            self.forgotten = self.refused.pop_front().unwrap_or_default();
        }
        self.refused.push_back(seq);
    }

    /// Whether a commit was applied; `None` when that is not known, or not decided.
    fn fate(&self, seq: CommitSeq) -> Option<bool> {
        (seq > self.forgotten && seq <= self.applied).then(|| self.refused.binary_search(&seq).is_err())
    }
}

/// Everything that a replay of the log restores.
#[derive(Debug)]
pub(super) struct State {
    pub(super) schema: Schema,
    pub(super) roots: Roots,
    pub(super) objects: Objects,
    /// The length of all keys and slots.
    pub(super) object_bytes: u64,
    /// Incarnations that may commit.
    living: BTreeMap<Incarnation, Progress>,
    /// Incarnations that ended.
    ended: BTreeMap<Incarnation, Progress>,
    last_incarnation: Incarnation,
    last_object: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            schema: Schema::default(),
            roots: Roots::default(),
            objects: Objects::new(),
            object_bytes: 0,
            living: BTreeMap::new(),
            ended: BTreeMap::new(),
            last_incarnation: Incarnation::default(),
            last_object: 0,
        }
    }

    /// The incarnation that the next node gets.
    pub(super) const fn next_incarnation(&self) -> Incarnation {
        self.last_incarnation.next()
    }

    /// The id that the next object gets; `None` when they are used up.
    pub(super) fn next_object(&self, root: RootId, key: &[u8]) -> Option<ObjectId> {
        let root = self.roots.get(root)?;
        let sequence = self.last_object + 1;
        let last = ObjectId::from_bits(u64::MAX).sequence();
        (sequence <= last).then(|| ObjectId::new(sequence, Partition::of(&root.name, key)))
    }

    /// An incarnation's last commit that was decided.
    pub(super) fn applied(&self, incarnation: Incarnation) -> CommitSeq {
        let progress = self.living.get(&incarnation).or_else(|| self.ended.get(&incarnation));
        progress.map(|progress| progress.applied).unwrap_or_default()
    }

    /// Whether a commit was applied; `None` when that is not known, or may still change.
    pub(super) fn fate(&self, incarnation: Incarnation, seq: CommitSeq) -> Option<bool> {
        if let Some(living) = self.living.get(&incarnation) {
            return living.fate(seq);
        }
        let ended = self.ended.get(&incarnation)?;
        if seq > ended.applied { Some(false) } else { ended.fate(seq) }
    }

    /// The slot of the object under a key.
    pub(super) fn find(&self, root: &Root, key: &[u8]) -> Option<u32> {
        root.keys.find(key, |slot| self.objects.at(slot).key())
    }

    /// The type of an object.
    pub(super) fn type_of(&self, object: &Object) -> &Type {
        let root = self.roots.get(object.root).expect("an object's root is there");
        self.schema.get(root.type_id).expect("a root's type is there")
    }

    /// Carries out an entry.
    ///
    /// # Errors
    /// When the entry does not fit this state, which then must not be used any more: the log is damaged, or of another
    /// history.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), BadEntry> {
        match entry {
            Entry::Attached { incarnation, .. } => self.attach(*incarnation),
            Entry::Gone { incarnation, applied } => {
                self.end(*incarnation, *applied);
                Ok(())
            }
            Entry::TypeAdded { id, name } => self.schema.add_type(*id, name),
            Entry::FieldsAdded { id, fields } => self.schema.add_fields(*id, fields),
            Entry::RootAdded { root, name, key, type_id, options } => self.roots.add(Root {
                id: *root,
                name: name.clone(),
                key: key.clone(),
                type_id: *type_id,
                options: *options,
                keys: KeyIndex::new(),
            }),
            Entry::Created { object, root, key, writes } => self.create(*object, *root, key, writes),
            Entry::Committed { writer, seq, parts } => {
                self.count(*writer, *seq)?;
                parts.iter().try_for_each(|part| self.commit(part))
            }
            Entry::Refused { writer, seq } => {
                self.count(*writer, *seq)?;
                if let Some(progress) = self.living.get_mut(writer) {
                    progress.refuse(*seq);
                }
                Ok(())
            }
            Entry::Removed { object } => self.remove(*object),
            Entry::Renamed { object, key } => self.rename(*object, key),
        }
    }

    fn attach(&mut self, incarnation: Incarnation) -> Result<(), BadEntry> {
        if incarnation <= self.last_incarnation {
            return Err(BadEntry::OutOfOrder {
                what: "incarnation",
                number: incarnation.to_bits(),
                last: self.last_incarnation.to_bits(),
            });
        }
        self.last_incarnation = incarnation;
        self.living.insert(incarnation, Progress::default());
        Ok(())
    }

    fn end(&mut self, incarnation: Incarnation, applied: CommitSeq) {
        let progress = self.living.remove(&incarnation).unwrap_or_default();
        self.ended.insert(incarnation, Progress { applied, ..progress });
        if self.ended.len() > ENDED_KEPT_MAX {
            self.ended.pop_first();
        }
    }

    fn count(&mut self, writer: Incarnation, seq: CommitSeq) -> Result<(), BadEntry> {
        let progress = self
            .living
            .get_mut(&writer)
            .ok_or_else(|| BadEntry::Missing { what: "incarnation", number: writer.to_bits() })?;
        let applied = &mut progress.applied;
        if seq != applied.next() {
            return Err(BadEntry::OutOfOrder { what: "commit", number: seq.to_bits(), last: applied.to_bits() });
        }
        *applied = seq;
        Ok(())
    }

    fn create(&mut self, id: ObjectId, root: RootId, key: &Bytes, writes: &Bytes) -> Result<(), BadEntry> {
        if id.sequence() <= self.last_object {
            return Err(BadEntry::OutOfOrder { what: "object", number: id.sequence(), last: self.last_object });
        }
        let home = self
            .roots
            .get_mut(root)
            .ok_or_else(|| BadEntry::Missing { what: "root", number: root.to_bits().into() })?;
        let object = Object::new(id, root, key, writes).map_err(|bad| BadEntry::Writes { object: id, bad })?;
        let bytes = object.bytes();
        let slot = self.objects.insert(object).ok_or_else(|| BadEntry::OutOfOrder {
            what: "object slot",
            number: u32::MAX.into(),
            last: u32::MAX.into(),
        })?;
        if !home.keys.insert(key, slot, |slot| self.objects.at(slot).key()) {
            self.objects.remove(slot);
            return Err(BadEntry::KeyTaken { object: id });
        }
        self.object_bytes += bytes as u64;
        self.last_object = id.sequence();
        Ok(())
    }

    fn commit(&mut self, part: &Part) -> Result<(), BadEntry> {
        let object = self.objects.get_mut(part.object).ok_or_else(|| missing(part.object))?;
        let before = object.bytes();
        object.set_version(part.group, part.version);
        object.apply(&part.writes).map_err(|bad| BadEntry::Writes { object: part.object, bad })?;
        self.object_bytes = self.object_bytes - before as u64 + object.bytes() as u64;
        Ok(())
    }

    fn remove(&mut self, id: ObjectId) -> Result<(), BadEntry> {
        let slot = self.objects.find(id).ok_or_else(|| missing(id))?;
        let object = self.objects.at(slot);
        self.object_bytes -= object.bytes() as u64;
        if let Some(root) = self.roots.get_mut(object.root) {
            root.keys.remove(object.key(), |slot| self.objects.at(slot).key());
        }
        self.objects.remove(slot);
        Ok(())
    }

    fn rename(&mut self, id: ObjectId, key: &Bytes) -> Result<(), BadEntry> {
        let slot = self.objects.find(id).ok_or_else(|| missing(id))?;
        let object = self.objects.at(slot);
        let root = self.roots.get_mut(object.root).ok_or_else(|| missing(id))?;
        if root.keys.find(key, |slot| self.objects.at(slot).key()).is_some() {
            return Err(BadEntry::KeyTaken { object: id });
        }
        root.keys.remove(object.key(), |slot| self.objects.at(slot).key());
        let before = object.bytes();
        let object = self.objects.at_mut(slot);
        object.set_key(key).map_err(|bad| BadEntry::Writes { object: id, bad })?;
        self.object_bytes = self.object_bytes - before as u64 + object.bytes() as u64;
        root.keys.insert(key, slot, |slot| self.objects.at(slot).key());
        Ok(())
    }
}

const fn missing(object: ObjectId) -> BadEntry {
    BadEntry::Missing { what: "object", number: object.to_bits() }
}
