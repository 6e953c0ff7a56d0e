//! Replicated state: what the log's entries add up to.
//!
//! Deciding what may happen is the business of the other modules; [`State::apply`] carries out what was decided, and is
//! what a replay of the log calls. It draws on nothing but the state and the entry.

use super::entry::{BadEntry, Entry, LogTime, SecretHash};
use super::expiry::Expiry;
use super::keys::KeyIndex;
use super::object::Object;
use super::objects::Objects;
use super::queues::{Queue, Queues};
use super::roots::{Root, Roots};
use super::schema::{Schema, Type};
use super::walk::{Piece, Walk};
use bytes::Bytes;
use kiln_protocol::message::{Change, ChangedSlot, Part, Role};
use kiln_protocol::{CommitSeq, Epoch, EventId, FieldId, Incarnation, ObjectId, Partition, RootId, Writes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Ended incarnations whose last commit is remembered, for nodes that come back and ask.
const ENDED_KEPT_MAX: usize = 1 << 16;
/// Refused commits of one incarnation that are remembered.
const REFUSED_KEPT_MAX: usize = 256;

/// One incarnation: who it is, and how far its commits were decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Life {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) secret: SecretHash,
    /// Its last commit that was decided.
    pub(super) applied: CommitSeq,
    /// Those that were refused, ascending; of many only the last ones.
    pub(super) refused: VecDeque<CommitSeq>,
    /// What became of commits up to this one is forgotten.
    pub(super) forgotten: CommitSeq,
}

impl Life {
    fn refuse(&mut self, first: CommitSeq, last: CommitSeq) {
        let kept = last.to_bits().saturating_sub(REFUSED_KEPT_MAX as u64) + 1;
        if kept > first.to_bits() {
            self.forgotten = CommitSeq::from_bits(kept - 1);
            self.refused.clear();
        }
        for seq in first.to_bits().max(kept)..=last.to_bits() {
            if self.refused.len() == REFUSED_KEPT_MAX {
                self.forgotten = self.refused.pop_front().unwrap_or_default();
            }
            self.refused.push_back(CommitSeq::from_bits(seq));
        }
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
    pub(super) living: BTreeMap<Incarnation, Life>,
    /// Incarnations that ended. They do not change any more: a walk shares them.
    pub(super) ended: BTreeMap<Incarnation, Arc<Life>>,
    pub(super) last_incarnation: Incarnation,
    pub(super) last_object: u64,
    /// The one that was begun last.
    pub(super) epoch: Epoch,
    /// The first one whose nodes may go on.
    pub(super) history: Epoch,
    /// Objects of a snapshot whose keys are in no index yet.
    pub(super) unindexed: Vec<(RootId, u64, u32)>,
    /// Objects of roots with timeouts.
    pub(super) expiry: Expiry,
    /// Of listener groups.
    pub(super) queues: Queues,
    /// A snapshot under way: what it has not seen yet is shown to it before it changes.
    pub(super) walk: Option<Walk>,
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
            epoch: Epoch::default(),
            history: Epoch::default(),
            unindexed: Vec::new(),
            expiry: Expiry::default(),
            queues: Queues::default(),
            walk: None,
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
        let living = self.living.get(&incarnation);
        let life = living.or_else(|| self.ended.get(&incarnation).map(|ended| &**ended));
        life.map(|life| life.applied).unwrap_or_default()
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
    pub(super) fn apply(&mut self, time: LogTime, entry: &Entry) -> Result<(), BadEntry> {
        match entry {
            Entry::Started { epoch, history, skipped } => self.start(*epoch, *history, *skipped),
            Entry::Attached { incarnation, name, role, secret } => {
                self.attach(*incarnation, name.clone(), *role, *secret)
            }
            Entry::Gone { incarnation, applied } => self.end(*incarnation, *applied),
            Entry::TypeAdded { id, name, .. } => self.schema.add_type(*id, name),
            Entry::FieldsAdded { id, fields, .. } => self.schema.add_fields(*id, fields),
            Entry::RootAdded { root, name, key, type_id, options, .. } => self.roots.add(Root {
                id: *root,
                name: name.clone(),
                key: key.clone(),
                type_id: *type_id,
                options: options.clone(),
                keys: KeyIndex::new(),
            }),
            Entry::Created { by, object, root, key, writes } => {
                self.create(time, *object, *root, key, writes)?;
                self.queue(*by, *object, &Change::Created);
                Ok(())
            }
            Entry::Committed { writer, seq, parts } => {
                self.count(*writer, *seq)?;
                for part in parts {
                    if self.is_heard(part.object) {
                        let changed = self.objects.get(part.object).map(|object| object.changed_by(&part.writes));
                        self.queue(Some(*writer), part.object, &updated(part, changed.unwrap_or_default()));
                    }
                    self.commit(time, part)?;
                }
                Ok(())
            }
            Entry::Refused { writer, first, last } => {
                self.count(*writer, *first)?;
                if last < first {
                    let (number, last) = (last.to_bits(), first.to_bits());
                    return Err(BadEntry::OutOfOrder { what: "the last of refused commits", number, last });
                }
                if let Some(life) = self.living.get_mut(writer) {
                    life.applied = *last;
                    life.refuse(*first, *last);
                }
                Ok(())
            }
            Entry::Removed { by, object } => {
                self.queue(*by, *object, &Change::Removed);
                self.remove(*object)
            }
            Entry::Expired { object } => {
                self.queue(None, *object, &Change::Expired);
                self.remove(*object)
            }
            Entry::QueueAdded { queue, root, name, .. } => {
                let missing = || BadEntry::Missing { what: "root", number: root.to_bits().into() };
                self.roots.get(*root).ok_or_else(missing)?;
                self.queues.add(*queue, Queue::new(*root, name.clone(), EventId::default()))
            }
            Entry::QueueRemoved { queue, .. } => self.queues.remove(*queue),
            Entry::Heard { queue, events } => self.queues.heard(*queue, events),
            Entry::Used { objects } => objects.iter().try_for_each(|object| self.note_used(time, *object)),
            Entry::Renamed { by, object, key } => {
                self.queue(*by, *object, &Change::Renamed { to: key.clone() });
                self.rename(*object, key)
            }
        }
    }

    /// Whether a listener group is to hear what happens to an object.
    fn is_heard(&self, object: ObjectId) -> bool {
        self.queues.len() > 0 && self.objects.get(object).is_some_and(|object| self.queues.has(object.root))
    }

    /// Puts what happens to an object into the queues of those who are to hear it.
    fn queue(&mut self, by: Option<Incarnation>, id: ObjectId, change: &Change) {
        if !self.is_heard(id) {
            return;
        }
        let Some(object) = self.objects.get(id) else { return };
        let key = Bytes::copy_from_slice(object.key());
        let named = |by: Incarnation| {
            let living = self.living.get(&by).or_else(|| self.ended.get(&by).map(|ended| &**ended));
            (by, living.map_or_else(String::new, |life| life.name.clone()))
        };
        self.queues.push(object.root, id, &key, by.map(named).as_ref(), change);
    }

    fn start(&mut self, epoch: Epoch, history: Epoch, skipped: u64) -> Result<(), BadEntry> {
        let is_first = self.epoch == Epoch::default();
        if epoch <= self.epoch || (history != epoch && (is_first || history != self.history)) {
            let (number, last) = (epoch.to_bits().into(), self.epoch.to_bits().into());
            return Err(BadEntry::OutOfOrder { what: "epoch", number, last });
        }
        if history == epoch {
            for (incarnation, life) in std::mem::take(&mut self.living) {
                self.bury(incarnation, life);
            }
        }
        (self.epoch, self.history) = (epoch, history);
        self.last_incarnation = Incarnation::from_bits(self.last_incarnation.to_bits().saturating_add(skipped));
        self.last_object = self.last_object.saturating_add(skipped);
        Ok(())
    }

    fn attach(
        &mut self,
        incarnation: Incarnation,
        name: String,
        role: Role,
        secret: SecretHash,
    ) -> Result<(), BadEntry> {
        if incarnation <= self.last_incarnation {
            return Err(BadEntry::OutOfOrder {
                what: "incarnation",
                number: incarnation.to_bits(),
                last: self.last_incarnation.to_bits(),
            });
        }
        self.last_incarnation = incarnation;
        let (applied, refused, forgotten) = Default::default();
        self.living.insert(incarnation, Life { name, role, secret, applied, refused, forgotten });
        Ok(())
    }

    fn end(&mut self, incarnation: Incarnation, applied: CommitSeq) -> Result<(), BadEntry> {
        let life = self.living.remove(&incarnation).ok_or_else(|| gone(incarnation))?;
        if life.applied != applied {
            let (number, last) = (applied.to_bits(), life.applied.to_bits());
            return Err(BadEntry::OutOfOrder { what: "last commit", number, last });
        }
        self.bury(incarnation, life);
        Ok(())
    }

    fn bury(&mut self, incarnation: Incarnation, life: Life) {
        self.ended.insert(incarnation, Arc::new(life));
        if self.ended.len() > ENDED_KEPT_MAX {
            self.ended.pop_first();
        }
    }

    fn count(&mut self, writer: Incarnation, seq: CommitSeq) -> Result<(), BadEntry> {
        let life = self.living.get_mut(&writer).ok_or_else(|| gone(writer))?;
        let applied = &mut life.applied;
        if seq != applied.next() {
            return Err(BadEntry::OutOfOrder { what: "commit", number: seq.to_bits(), last: applied.to_bits() });
        }
        *applied = seq;
        Ok(())
    }

    fn create(
        &mut self,
        time: LogTime,
        id: ObjectId,
        root: RootId,
        key: &Bytes,
        writes: &Bytes,
    ) -> Result<(), BadEntry> {
        if id.sequence() <= self.last_object {
            return Err(BadEntry::OutOfOrder { what: "object", number: id.sequence(), last: self.last_object });
        }
        let object = Object::new(id, root, key, writes).map_err(|bad| BadEntry::Writes { object: id, bad })?;
        let slot = self.place(object)?;
        if let Some(walk) = &mut self.walk {
            walk.leave_out(slot);
        }
        self.last_object = id.sequence();
        self.begin_times(root, id, time, time);
        Ok(())
    }

    /// Gives an object its slot and its key.
    fn place(&mut self, object: Object) -> Result<u32, BadEntry> {
        let (id, root) = (object.id, object.root);
        let missing = || BadEntry::Missing { what: "root", number: root.to_bits().into() };
        self.roots.get(root).ok_or_else(missing)?;
        let slot = self.store(object, Objects::insert)?;
        let home = self.roots.get_mut(root).ok_or_else(missing)?;
        let key = self.objects.at(slot).key();
        if !home.keys.insert(key, slot, |slot| self.objects.at(slot).key()) {
            let object = self.objects.remove(slot);
            self.object_bytes -= object.map_or(0, |object| object.bytes() as u64);
            return Err(BadEntry::KeyTaken { object: id });
        }
        Ok(slot)
    }

    /// Gives an object its slot.
    pub(super) fn store(
        &mut self,
        object: Object,
        put: impl FnOnce(&mut Objects, Object) -> Option<u32>,
    ) -> Result<u32, BadEntry> {
        let bytes = object.bytes() as u64;
        let slot = put(&mut self.objects, object).ok_or_else(|| BadEntry::OutOfOrder {
            what: "object slot",
            number: u32::MAX.into(),
            last: u32::MAX.into(),
        })?;
        self.object_bytes += bytes;
        Ok(slot)
    }

    /// The object in this slot is about to change: a snapshot that has not seen it sees it now.
    fn show(&mut self, slot: u32) {
        if let Some(walk) = &mut self.walk
            && walk.leave_out(slot)
        {
            let object = self.objects.at(slot);
            walk.save(Piece::of(object, self.expiry.kept(object.id)));
        }
    }

    fn commit(&mut self, time: LogTime, part: &Part) -> Result<(), BadEntry> {
        let slot = self.objects.find(part.object).ok_or_else(|| missing(part.object))?;
        self.show(slot);
        let object = self.objects.at_mut(slot);
        let before = object.bytes();
        object.set_version(part.group, part.version);
        object.apply(&part.writes).map_err(|bad| BadEntry::Writes { object: part.object, bad })?;
        self.object_bytes = self.object_bytes - before as u64 + object.bytes() as u64;
        self.expiry.record(part.object, time);
        Ok(())
    }

    /// An object was used.
    fn note_used(&mut self, time: LogTime, id: ObjectId) -> Result<(), BadEntry> {
        let slot = self.objects.find(id).ok_or_else(|| missing(id))?;
        self.show(slot);
        self.expiry.record(id, time);
        Ok(())
    }

    /// An object's time begins, if its root has timeouts.
    pub(super) fn begin_times(&mut self, root: RootId, id: ObjectId, created: LogTime, used: LogTime) {
        if let Some(root) = self.roots.get(root)
            && root.options.has_timeouts()
        {
            self.expiry.begin(id, &root.options, created, used);
        }
    }

    fn remove(&mut self, id: ObjectId) -> Result<(), BadEntry> {
        let slot = self.objects.find(id).ok_or_else(|| missing(id))?;
        self.show(slot);
        let object = self.objects.at(slot);
        self.object_bytes -= object.bytes() as u64;
        if let Some(root) = self.roots.get_mut(object.root) {
            root.keys.remove(object.key(), |slot| self.objects.at(slot).key());
        }
        self.expiry.end(id);
        self.objects.remove(slot);
        Ok(())
    }

    fn rename(&mut self, id: ObjectId, key: &Bytes) -> Result<(), BadEntry> {
        let slot = self.objects.find(id).ok_or_else(|| missing(id))?;
        self.show(slot);
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

/// What a part of a commit did.
fn updated(part: &Part, slots: Vec<ChangedSlot>) -> Change {
    let fields: BTreeSet<FieldId> = Writes::new(&part.writes).flatten().map(|write| write.field()).collect();
    let (group, version) = (part.group, part.version);
    Change::Updated { group, version, fields: fields.into_iter().collect(), slots, writes: None }
}

const fn gone(incarnation: Incarnation) -> BadEntry {
    BadEntry::Missing { what: "living incarnation", number: incarnation.to_bits() }
}

const fn missing(object: ObjectId) -> BadEntry {
    BadEntry::Missing { what: "object", number: object.to_bits() }
}
