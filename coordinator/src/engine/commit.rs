//! Commits: all or nothing, in the order of each node's stream.
//!
//! A commit is checked whole, then carried out whole (S11). Refused or not, it counts for its node's sequence.

use super::barrier::Awaited;
use super::nodes::NodeSlot;
use super::object::Object;
use super::schema::at_most;
use super::{Engine, Entry};
use kiln_protocol::limits::{PARTS_MAX, RECORD_BYTES_MAX};
use kiln_protocol::message::{ChangedSlot, Commit, Delta, DeltaPart, Part};
use kiln_protocol::{CommitSeq, Failure, GroupId, Incarnation, ToNode, Token, Writes};
use smallvec::SmallVec;

/// A write that makes a slot may be this much shorter than the slot: the add of a small number.
const GROWTH_MAX: usize = 6;

type Slots = SmallVec<[u32; 1]>;
/// What each part of a commit did to slots; nothing where nobody watched.
pub(super) type Changed = Vec<Vec<ChangedSlot>>;
type Concerned = SmallVec<[(NodeSlot, u16); 8]>;

impl Engine {
    /// A node's next commit.
    pub(super) fn commit(&mut self, node: NodeSlot, mut commit: Commit, observer: bool) {
        let Some(writer) = self.nodes.get(node).map(|node| node.incarnation) else {
            return;
        };
        if self.is_early(node, &commit) {
            return;
        }
        let seq = self.decided(writer).next();
        let decided = if observer { Err(Failure::NotANode) } else { self.decide(node, &mut commit) };
        let slots = match decided {
            Ok(slots) => slots,
            Err(failure) => {
                // Those before it are acknowledged before it is refused, and it is refused before it is acknowledged.
                self.acknowledge(node);
                self.totals.commits_refused += 1;
                self.refuse(writer, seq);
                self.keep_refusal(node, seq, &failure);
                self.send(node, ToNode::CommitRefused { seq, failure });
                return self.ack_due(node);
            }
        };
        self.totals.commits += 1;
        self.note_applied(&commit.parts);
        let Commit { everywhere, durable, parts } = commit;
        let (concerned, watched) = self.concerned(Some(node), &slots);
        let waits = self.settings.durable && (everywhere || durable || self.unsynced.holds_any());
        let changed = if watched { self.changed_by(&slots, &parts) } else { Changed::new() };
        if concerned.is_empty() && !watched && !waits {
            self.append(Entry::Committed { writer, seq, parts });
        } else {
            let deltas: SmallVec<[DeltaPart; 1]> = parts.iter().map(delta_part).collect();
            self.append(Entry::Committed { writer, seq, parts });
            if waits && let Some(after) = self.must_wait(everywhere || durable, &deltas) {
                self.show_later(after, writer, (deltas, changed), everywhere.then_some(seq));
                return self.ack_due(node);
            }
            self.spread(Some(node), writer, &slots, &deltas, &concerned, watched.then_some(&changed));
        }
        self.ack_due(node);
        if everywhere {
            self.wait_for_concerned(node, &concerned, seq);
        }
    }

    /// Shows a commit that has waited until it was safe.
    pub(super) fn show(
        &mut self,
        writer: Incarnation,
        (parts, changed): &(SmallVec<[DeltaPart; 1]>, Changed),
        everywhere: Option<CommitSeq>,
    ) {
        let by = self.nodes.find(writer);
        let is_there = |object| self.state.objects.find(object).is_some();
        let changed: Changed =
            parts.iter().zip(changed).filter(|(part, _)| is_there(part.object)).map(|(_, of)| of.clone()).collect();
        let there = parts.iter().filter_map(|part| Some((self.state.objects.find(part.object)?, part.clone())));
        let (slots, parts): (Slots, SmallVec<[DeltaPart; 1]>) = there.unzip();
        let (concerned, watched) = self.concerned(by, &slots);
        self.spread(by, writer, &slots, &parts, &concerned, watched.then_some(&changed));
        if let (Some(seq), Some(by)) = (everywhere, by) {
            self.wait_for_concerned(by, &concerned, seq);
        }
    }

    /// The other nodes that hold an object of a commit, with the place of the object in it; and whether it is watched.
    fn concerned(&self, by: Option<NodeSlot>, slots: &[u32]) -> (Concerned, bool) {
        let mut concerned = Concerned::new();
        let mut watched = self.watches.any_root();
        for (at, slot) in (0..).zip(slots) {
            let object = self.state.objects.at(*slot);
            watched |= object.watched;
            let others = object.interest.as_slice().iter().filter(|other| Some(**other) != by);
            concerned.extend(others.map(|other| (*other, at)));
        }
        if slots.len() > 1 {
            concerned.sort_unstable();
        }
        (concerned, watched)
    }

    /// Tells nodes and watchers.
    fn spread(
        &mut self,
        by: Option<NodeSlot>,
        writer: Incarnation,
        slots: &[u32],
        parts: &[DeltaPart],
        concerned: &Concerned,
        watched: Option<&Changed>,
    ) {
        for of_node in concerned.chunk_by(|one, other| one.0 == other.0) {
            let to = of_node[0].0;
            let parts: SmallVec<[DeltaPart; 1]> =
                of_node.iter().map(|(_, at)| parts[usize::from(*at)].clone()).collect();
            let later = parts.iter().filter(|part| self.is_told_later(to, part.object)).count();
            if later == 0 {
                self.send(to, ToNode::Delta(Delta { writer, parts }));
            }
        }
        if let Some(changed) = watched {
            self.watch_commit(by, slots, parts, changed);
        }
    }

    /// What each part is about to do to the slots of its object.
    fn changed_by(&self, slots: &[u32], parts: &[Part]) -> Changed {
        slots.iter().zip(parts).map(|(slot, part)| self.state.objects.at(*slot).changed_by(&part.writes)).collect()
    }

    fn wait_for_concerned(&mut self, node: NodeSlot, concerned: &Concerned, seq: CommitSeq) {
        let mut others: Vec<_> = concerned.iter().map(|(other, _)| *other).collect();
        others.dedup();
        self.add_expected(node, &mut others);
        self.wait_for(node, &others, Awaited::Commit(seq));
    }

    fn ack_due(&mut self, slot: NodeSlot) {
        if let Some(node) = self.nodes.get_mut(slot)
            && !std::mem::replace(&mut node.ack_due, true)
        {
            self.acks_due.push(slot);
        }
    }

    /// Checks a commit, and gives its commutative parts their versions. Returns the slots of its objects.
    fn decide(&self, node: NodeSlot, commit: &mut Commit) -> Result<Slots, Failure> {
        if self.stopping {
            return Err(Failure::Stopping);
        }
        self.check_log()?;
        if commit.durable && !self.settings.durable {
            return Err(Failure::NotDurable);
        }
        if commit.parts.is_empty() {
            return Err(Failure::Violation { what: "a commit without parts".to_owned() });
        }
        if commit.everywhere {
            self.check_request(node)?;
        }
        at_most("the number of parts of a commit", commit.parts.len(), PARTS_MAX)?;
        let bytes: usize = commit.parts.iter().map(|part| part.writes.len()).sum();
        at_most("the length of a commit in bytes", bytes, RECORD_BYTES_MAX)?;
        self.check_room(bytes, 0)?;
        let mut slots = Slots::new();
        for part in &mut commit.parts {
            let slot = self.state.objects.find(part.object).ok_or(Failure::Destroyed { object: part.object })?;
            self.check_part(node, slot, part)?;
            slots.push(slot);
        }
        if let ([slot], [part]) = (&slots[..], &commit.parts[..]) {
            check_size(self.state.objects.at(*slot), &[part])?;
        } else {
            self.check_together(&commit.parts)?;
        }
        Ok(slots)
    }

    /// Whether this many more bytes may be kept, where so many go.
    pub(super) fn check_room(&self, bytes: usize, freed: u64) -> Result<(), Failure> {
        let actual = self.state.object_bytes.saturating_sub(freed).saturating_add(bytes as u64);
        let limit = self.settings.object_bytes_max;
        if actual <= limit {
            return Ok(());
        }
        Err(Failure::Limit { what: "the length of all objects in bytes".to_owned(), actual, limit })
    }

    fn check_part(&self, node: NodeSlot, slot: u32, part: &mut Part) -> Result<(), Failure> {
        let object = self.state.objects.at(slot);
        let current = object.version(part.group);
        let next = current.next_in(self.settings.epoch);
        if part.group == GroupId::COMMUTATIVE {
            part.token = Token::default();
            part.version = next;
        } else if !self.guards(object, part.group, node, part.token) && !self.may_resend(node, slot, part) {
            return Err(Failure::Fenced { object: part.object, group: part.group, token: part.token });
        } else if part.version.number() != next.number()
            // Made before the coordinator was started again, in an epoch of its own.
            || !(current.epoch()..=next.epoch()).contains(&part.version.epoch())
        {
            return Err(Failure::VersionGap {
                object: part.object,
                group: part.group,
                current,
                proposed: part.version,
            });
        }
        let of = self.state.type_of(object);
        for write in Writes::new(&part.writes) {
            let write = write.map_err(|bad| Failure::Violation { what: format!("object {}: {bad}", part.object) })?;
            of.check(&write, Some(part.group)).map_err(|error| Failure::BadWrite {
                object: part.object,
                field: write.field(),
                what: error.what(),
            })?;
        }
        Ok(())
    }

    /// Whether the node has this write grant, here or on a connection that it lost (S2).
    fn guards(&self, object: &Object, group: GroupId, node: NodeSlot, token: Token) -> bool {
        let guards = |slot| object.locks.guards(group, slot, token);
        guards(node) || self.nodes.get(node).is_some_and(|node| node.previous.iter().any(|slot| guards(*slot)))
    }

    /// What only several parts together can break.
    fn check_together(&self, parts: &[Part]) -> Result<(), Failure> {
        let mut sorted: Vec<&Part> = parts.iter().collect();
        sorted.sort_unstable_by_key(|part| (part.object, part.group));
        for pair in sorted.windows(2) {
            if (pair[0].object, pair[0].group) == (pair[1].object, pair[1].group) {
                return Err(Failure::Violation {
                    what: format!("two parts of group {} of object {}", pair[0].group, pair[0].object),
                });
            }
        }
        for of_object in sorted.chunk_by(|one, other| one.object == other.object) {
            if let Some(object) = self.state.objects.get(of_object[0].object) {
                check_size(object, of_object)?;
            }
        }
        Ok(())
    }
}

/// Whether an object stays within its limit; exactly, but only where a guess would not do.
fn check_size(object: &Object, parts: &[&Part]) -> Result<(), Failure> {
    let written: usize = parts.iter().map(|part| part.writes.len()).sum();
    if object.slot_bytes() + written * GROWTH_MAX <= RECORD_BYTES_MAX {
        return Ok(());
    }
    let bytes = object.slot_bytes_after(parts.iter().map(|part| &part.writes[..]));
    at_most("the length of an object in bytes", bytes, RECORD_BYTES_MAX)
}

fn delta_part(part: &Part) -> DeltaPart {
    DeltaPart { object: part.object, group: part.group, version: part.version, writes: part.writes.clone() }
}
