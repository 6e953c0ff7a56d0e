//! Snapshots: the whole replicated state as it was after one entry, read in small steps beside the running engine.
//!
//! A consistent cut. The walk goes through the slab of objects chunk by chunk. What is about to change and was not read
//! yet is copied out first, as it still is, and not read again: so the pieces together are the state at the cut, in
//! whatever order they come, and a replay of the entries behind the cut needs no care. The walk costs one bit an object
//! while it lasts, and copies of what changes in the meantime, which the next step hands out. Types, fields and roots are
//! only ever added to: the walk notes how many there were. Incarnations are noted when it begins, those that ended by
//! reference.

use super::entry::{BadEntry, LogSeq, LogTime, SecretHash};
use super::object::Object;
use super::objects::Objects;
use super::queues::{Queue, QueueId, QueuedEvent};
use super::state::{Life, State};
use super::{Engine, keys::KeyIndex, roots::Root};
use bytes::Bytes;
use kiln_protocol::message::{Role, RootOptions};
use kiln_protocol::schema::RegisteredField;
use kiln_protocol::{CommitSeq, Epoch, EventId, GroupId, Incarnation, ObjectId, RootId, TypeId, Version};
use std::sync::Arc;

/// Slots that one step looks at, in use or not.
const SLOTS_MAX: u32 = 1 << 14;
/// Types, roots and incarnations of one step.
const HEAD_MAX: usize = 256;

/// A piece of a snapshot. The first one is [`Piece::Start`], and objects come last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Piece {
    /// Where the snapshot was taken.
    Start(Cut),
    /// A type and its fields.
    Type {
        /// Its number.
        id: TypeId,
        /// Its name.
        name: String,
        /// Its fields, in the order of their numbers.
        fields: Vec<RegisteredField>,
    },
    /// A root.
    Root {
        /// Its number.
        root: RootId,
        /// Its name.
        name: String,
        /// The canonical text of the structure of its keys.
        key: String,
        /// The type of its objects.
        type_id: TypeId,
        /// How it treats its objects.
        options: RootOptions,
    },
    /// An incarnation.
    Life {
        /// Its number.
        incarnation: Incarnation,
        /// Its name.
        name: String,
        /// What it is, or was.
        role: Role,
        /// What shows that somebody is it.
        secret: SecretHash,
        /// It may commit: it has not ended.
        living: bool,
        /// Its last commit that was decided.
        applied: CommitSeq,
        /// Those that were refused, ascending, after `forgotten`.
        refused: Vec<CommitSeq>,
        /// What became of commits up to this one is not known any more.
        forgotten: CommitSeq,
    },
    /// A listener group.
    Queue {
        /// The number of its queue.
        queue: QueueId,
        /// The root.
        root: RootId,
        /// Its name.
        name: String,
        /// The last event that was given an id.
        last: EventId,
    },
    /// An event in a queue, behind those before it.
    Event {
        /// The queue.
        queue: QueueId,
        /// The event.
        event: Arc<QueuedEvent>,
    },
    /// An object.
    Object {
        /// Its id.
        object: ObjectId,
        /// Its root.
        root: RootId,
        /// Its key.
        key: Bytes,
        /// The version of each group that was ever committed to.
        versions: Vec<(GroupId, Version)>,
        /// Of a root with timeouts: when it was made, and when it was last used, as far as that was logged.
        times: Option<(LogTime, LogTime)>,
        /// Its slots, as writes.
        writes: Bytes,
    },
}

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cut {
    /// The last entry that is part of it.
    pub seq: LogSeq,
    /// When that was made.
    pub time: LogTime,
    /// The epoch that was begun last.
    pub epoch: Epoch,
    /// The first epoch whose nodes may go on.
    pub history: Epoch,
    /// The last incarnation that was given.
    pub last_incarnation: Incarnation,
    /// The place of the last object in the order of creation.
    pub last_object: u64,
}

impl Piece {
    /// An object as it is.
    pub(super) fn of(object: &Object, times: Option<(LogTime, LogTime)>) -> Self {
        Self::Object {
            object: object.id,
            root: object.root,
            key: Bytes::copy_from_slice(object.key()),
            versions: object.versions(),
            times,
            writes: object.writes(),
        }
    }

    fn life(incarnation: Incarnation, life: &Life, living: bool) -> Self {
        Self::Life {
            incarnation,
            name: life.name.clone(),
            role: life.role,
            secret: life.secret,
            living,
            applied: life.applied,
            refused: life.refused.iter().copied().collect(),
            forgotten: life.forgotten,
        }
    }

    /// About how many bytes it takes to keep.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const EACH: usize = 32;
        EACH + match self {
            Self::Start(_) => 0,
            Self::Type { name, fields, .. } => {
                name.len() + fields.iter().map(|field| super::schema::field_bytes(&field.description)).sum::<usize>()
            }
            Self::Root { name, key, .. } => name.len() + key.len(),
            Self::Life { name, refused, .. } => name.len() + refused.len() * size_of::<CommitSeq>(),
            Self::Queue { name, .. } => name.len(),
            Self::Event { event, .. } => event.bytes(),
            Self::Object { key, writes, .. } => key.len() + writes.len(),
        }
    }
}

/// A snapshot under way.
#[derive(Debug)]
pub(super) struct Walk {
    /// Where it is taken; `None` once that was handed out.
    start: Option<Cut>,
    /// How many fields each type had.
    fields: std::vec::IntoIter<usize>,
    next_type: TypeId,
    roots: usize,
    next_root: usize,
    living: std::vec::IntoIter<(Incarnation, Life)>,
    ended: std::vec::IntoIter<(Incarnation, Arc<Life>)>,
    queues: std::vec::IntoIter<Piece>,
    /// Slots below `next` were seen, and those with a bit here; slots from `end` on were free at the cut.
    seen: Box<[u64]>,
    next: u32,
    end: u32,
    /// Objects that changed before they were read.
    saved: Vec<Piece>,
}

const fn bit(slot: u32) -> (usize, u64) {
    ((slot / u64::BITS) as usize, 1 << (slot % u64::BITS))
}

impl Walk {
    fn of(state: &State, cut: Cut) -> Self {
        let end = state.objects.slots();
        let living: Vec<_> = state.living.iter().map(|(incarnation, life)| (*incarnation, life.clone())).collect();
        let ended: Vec<_> = state.ended.iter().map(|(incarnation, life)| (*incarnation, Arc::clone(life))).collect();
        let fields: Vec<_> = state.schema.iter().map(|of| of.info().fields.len()).collect();
        Self {
            start: Some(cut),
            fields: fields.into_iter(),
            next_type: TypeId::default(),
            roots: state.roots.len(),
            next_root: 0,
            living: living.into_iter(),
            ended: ended.into_iter(),
            queues: state.queues.pieces().into_iter(),
            seen: vec![0; end.div_ceil(u64::BITS) as usize].into_boxed_slice(),
            next: 0,
            end,
            saved: Vec::new(),
        }
    }

    /// What is in this slot from now on is not read. Returns whether it was still to be read.
    pub(super) fn leave_out(&mut self, slot: u32) -> bool {
        if !(self.next..self.end).contains(&slot) {
            return false;
        }
        let (word, bit) = bit(slot);
        let before = self.seen[word];
        self.seen[word] |= bit;
        before & bit == 0
    }

    /// Keeps an object that is about to change.
    pub(super) fn save(&mut self, piece: Piece) {
        self.saved.push(piece);
    }

    /// The next pieces that are no objects.
    fn head(&mut self, state: &State, out: &mut Vec<Piece>) {
        out.extend(self.start.take().map(Piece::Start));
        let fields = self.fields.by_ref().take(HEAD_MAX).filter_map(|count| {
            let info = state.schema.get(self.next_type)?.info();
            self.next_type = self.next_type.next();
            Some(Piece::Type { id: info.id, name: info.name.clone(), fields: info.fields[..count].to_vec() })
        });
        out.extend(fields);
        let roots = state.roots.iter().take(self.roots).skip(self.next_root).take(HEAD_MAX);
        out.extend(roots.inspect(|_| self.next_root += 1).map(|root| Piece::Root {
            root: root.id,
            name: root.name.clone(),
            key: root.key.clone(),
            type_id: root.type_id,
            options: root.options.clone(),
        }));
        let living = self.living.by_ref().take(HEAD_MAX);
        out.extend(living.map(|(incarnation, life)| Piece::life(incarnation, &life, true)));
        let ended = self.ended.by_ref().take(HEAD_MAX);
        out.extend(ended.map(|(incarnation, life)| Piece::life(incarnation, &life, false)));
        if self.next_root == self.roots {
            out.extend(self.queues.by_ref().take(HEAD_MAX));
        }
    }

    fn is_past_head(&self) -> bool {
        let lives = self.living.len() + self.ended.len() + self.queues.len();
        self.start.is_none() && self.fields.len() == 0 && self.next_root == self.roots && lives == 0
    }

    /// The next objects, of at least so many bytes while there are any.
    fn objects(&mut self, state: &State, bytes_min: usize, out: &mut Vec<Piece>) {
        let mut bytes: usize = self.saved.iter().map(Piece::bytes).sum();
        out.append(&mut self.saved);
        let end = self.end.min(self.next.saturating_add(SLOTS_MAX));
        while self.next < end && bytes < bytes_min {
            let (word, bit) = bit(self.next);
            if self.seen[word] & bit == 0
                && let Some(object) = state.objects.slot(self.next)
            {
                let piece = Piece::of(object, state.expiry.kept(object.id));
                bytes += piece.bytes();
                out.push(piece);
            }
            self.next += 1;
        }
    }

    const fn is_over(&self) -> bool {
        self.next == self.end && self.saved.is_empty()
    }
}

impl Engine {
    /// Begins a snapshot of what is there now; one that was under way is given up. Returns the last entry that is part
    /// of it.
    pub fn begin_snapshot(&mut self) -> LogSeq {
        let state = &mut self.state;
        let cut = Cut {
            seq: self.appended,
            time: self.time,
            epoch: state.epoch,
            history: state.history,
            last_incarnation: state.last_incarnation,
            last_object: state.last_object,
        };
        state.walk = Some(Walk::of(state, cut));
        self.appended
    }

    /// Appends the next pieces of the snapshot: about `bytes_min` bytes, and beyond that what has changed since the last
    /// step and one object at most. Returns whether there are more; with the last ones the snapshot is over.
    pub fn snapshot(&mut self, bytes_min: usize, pieces: &mut Vec<Piece>) -> bool {
        let Some(mut walk) = self.state.walk.take() else { return false };
        if walk.is_past_head() {
            walk.objects(&self.state, bytes_min, pieces);
        } else {
            walk.head(&self.state, pieces);
        }
        let more = !walk.is_past_head() || !walk.is_over();
        if more {
            self.state.walk = Some(walk);
        }
        more
    }

    /// Gives the snapshot up that is under way.
    pub fn give_up_snapshot(&mut self) {
        self.state.walk = None;
    }

    /// About how many bytes of changed objects wait for the next step of the snapshot. They are copies: a driver that
    /// cannot write fast enough gives the snapshot up.
    #[must_use]
    pub fn snapshot_saved_bytes(&self) -> usize {
        self.state.walk.as_ref().map_or(0, |walk| walk.saved.iter().map(Piece::bytes).sum())
    }
}

/// The first bytes of a key, as a number that orders as they do.
fn prefix(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(bytes.len());
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_le_bytes(bytes).swap_bytes()
}

impl State {
    /// Makes the indexes of what was taken in. All at once: sorted by what of each key lies side by side in memory, a
    /// million scattered keys take a tenth of the time that it takes to look up the place of each.
    pub(super) fn index(&mut self) -> Result<(), BadEntry> {
        self.objects.index().map_err(|id| BadEntry::OutOfOrder {
            what: "object",
            number: id.sequence(),
            last: self.last_object,
        })?;
        let mut unindexed = std::mem::take(&mut self.unindexed);
        let key_of = |slot: u32| self.objects.at(slot).key();
        unindexed.sort_unstable_by(|one, other| {
            (one.0, one.1).cmp(&(other.0, other.1)).then_with(|| key_of(one.2).cmp(key_of(other.2)))
        });
        for of_root in unindexed.chunk_by(|one, other| one.0 == other.0) {
            let slots: Vec<_> = of_root.iter().map(|(_, _, slot)| *slot).collect();
            let Some(keys) = KeyIndex::of_sorted(&slots, key_of) else {
                let twice = slots.windows(2).find(|pair| key_of(pair[0]) == key_of(pair[1]));
                let object = twice.map_or(slots[0], |pair| pair[1]);
                return Err(BadEntry::KeyTaken { object: self.objects.at(object).id });
            };
            if let Some(root) = self.roots.get_mut(of_root[0].0) {
                root.keys = keys;
            }
        }
        Ok(())
    }

    /// Takes a piece of a snapshot in. [`State::index`] is to follow on the last one.
    pub(super) fn take(&mut self, piece: Piece) -> Result<(), BadEntry> {
        match piece {
            Piece::Start(cut) => {
                (self.epoch, self.history) = (cut.epoch, cut.history);
                (self.last_incarnation, self.last_object) = (cut.last_incarnation, cut.last_object);
                Ok(())
            }
            Piece::Type { id, name, fields } => {
                self.schema.add_type(id, &name)?;
                self.schema.add_fields(id, &fields)
            }
            Piece::Root { root: id, name, key, type_id, options } => {
                if self.schema.get(type_id).is_none() {
                    return Err(BadEntry::Missing { what: "type", number: type_id.to_bits().into() });
                }
                self.roots.add(Root { id, name, key, type_id, options, keys: KeyIndex::new() })
            }
            Piece::Life { incarnation, name, role, secret, living, applied, refused, forgotten } => {
                let known = self.living.contains_key(&incarnation) || self.ended.contains_key(&incarnation);
                if known || incarnation > self.last_incarnation {
                    let (number, last) = (incarnation.to_bits(), self.last_incarnation.to_bits());
                    return Err(BadEntry::OutOfOrder { what: "incarnation", number, last });
                }
                let life = Life { name, role, secret, applied, refused: refused.into(), forgotten };
                if living {
                    self.living.insert(incarnation, life);
                } else {
                    self.ended.insert(incarnation, Arc::new(life));
                }
                Ok(())
            }
            Piece::Queue { queue, root, name, last } => {
                if self.roots.get(root).is_none() {
                    return Err(BadEntry::Missing { what: "root", number: root.to_bits().into() });
                }
                self.queues.add(queue, Queue::new(root, name, last))
            }
            Piece::Event { queue, event } => self.queues.restore(queue, event),
            Piece::Object { object: id, root, key, versions, times, writes } => {
                if id.sequence() > self.last_object {
                    return Err(BadEntry::OutOfOrder { what: "object", number: id.sequence(), last: self.last_object });
                }
                if self.roots.get(root).is_none() {
                    return Err(BadEntry::Missing { what: "root", number: root.to_bits().into() });
                }
                let object = Object::restored(id, root, &key, &versions, &writes);
                let object = object.map_err(|bad| BadEntry::Writes { object: id, bad })?;
                let slot = self.store(object, Objects::append)?;
                if let Some((created, used)) = times {
                    self.begin_times(root, id, created, used);
                }
                self.unindexed.push((root, prefix(&key), slot));
                Ok(())
            }
        }
    }
}
