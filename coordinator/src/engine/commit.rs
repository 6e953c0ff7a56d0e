//! Commits: all or nothing, in the order of each node's stream.
//!
//! A commit is checked whole, then carried out whole (S11). Refused or not, it counts for its node's sequence.

use super::barrier::Awaited;
use super::nodes::NodeSlot;
use super::object::Object;
use super::schema::at_most;
use super::{Engine, Entry};
use kiln_protocol::limits::{PARTS_MAX, RECORD_BYTES_MAX};
use kiln_protocol::message::{Commit, Delta, DeltaPart, Part};
use kiln_protocol::{Failure, GroupId, ToNode, Token, Writes};
use smallvec::SmallVec;

/// A write that makes a slot may be this much shorter than the slot: the add of a small number.
const GROWTH_MAX: usize = 6;

type Slots = SmallVec<[u32; 1]>;

impl Engine {
    /// A node's next commit.
    pub(super) fn commit(&mut self, node: NodeSlot, mut commit: Commit, observer: bool) {
        let Some(writer) = self.nodes.get(node).map(|node| node.incarnation) else {
            return;
        };
        let seq = self.state.applied(writer).next();
        let decided = if observer { Err(Failure::NotANode) } else { self.decide(node, &mut commit) };
        let slots = match decided {
            Ok(slots) => slots,
            Err(failure) => {
                // Those before it are acknowledged before it is refused, and it is refused before it is acknowledged.
                self.acknowledge(node);
                self.totals.commits_refused += 1;
                self.append(Entry::Refused { writer, seq });
                self.keep_refusal(node, seq, &failure);
                self.send(node, ToNode::CommitRefused { seq, failure });
                return self.ack_due(node);
            }
        };
        self.totals.commits += 1;
        let mut concerned = SmallVec::<[(NodeSlot, u16); 8]>::new();
        let mut watched = self.watches.any_root();
        for (at, slot) in (0..).zip(&slots) {
            let object = self.state.objects.at(*slot);
            watched |= object.watched;
            let others = object.interest.as_slice().iter().filter(|other| **other != node);
            concerned.extend(others.map(|other| (*other, at)));
        }
        if concerned.is_empty() && !watched {
            self.append(Entry::Committed { writer, seq, parts: commit.parts });
        } else {
            let parts: SmallVec<[DeltaPart; 1]> = commit.parts.iter().map(delta_part).collect();
            self.append(Entry::Committed { writer, seq, parts: commit.parts });
            if parts.len() > 1 {
                concerned.sort_unstable();
            }
            for of_node in concerned.chunk_by(|one, other| one.0 == other.0) {
                let to = of_node[0].0;
                let parts: SmallVec<[DeltaPart; 1]> =
                    of_node.iter().map(|(_, at)| parts[usize::from(*at)].clone()).collect();
                let later = parts.iter().filter(|part| self.is_told_later(to, part.object)).count();
                if later == 0 {
                    self.send(to, ToNode::Delta(Delta { writer, parts }));
                }
            }
            if watched {
                self.watch_commit(node, &slots, &parts);
            }
        }
        self.ack_due(node);
        if commit.everywhere {
            let mut others: Vec<_> = concerned.into_iter().map(|(other, _)| other).collect();
            others.dedup();
            self.wait_for(node, &others, Awaited::Commit(seq));
        }
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
        if commit.parts.is_empty() {
            return Err(Failure::Violation { what: "a commit without parts".to_owned() });
        }
        if commit.everywhere {
            self.check_request(node)?;
        }
        at_most("the number of parts of a commit", commit.parts.len(), PARTS_MAX)?;
        let bytes: usize = commit.parts.iter().map(|part| part.writes.len()).sum();
        at_most("the length of a commit in bytes", bytes, RECORD_BYTES_MAX)?;
        self.check_room(bytes)?;
        let mut slots = Slots::new();
        for part in &mut commit.parts {
            let slot = self.state.objects.find(part.object).ok_or(Failure::Destroyed { object: part.object })?;
            self.check_part(node, self.state.objects.at(slot), part)?;
            slots.push(slot);
        }
        if let ([slot], [part]) = (&slots[..], &commit.parts[..]) {
            check_size(self.state.objects.at(*slot), &[part])?;
        } else {
            self.check_together(&commit.parts)?;
        }
        Ok(slots)
    }

    /// Whether this many more bytes may be kept.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), Failure> {
        let actual = self.state.object_bytes.saturating_add(bytes as u64);
        let limit = self.settings.object_bytes_max;
        if actual <= limit {
            return Ok(());
        }
        Err(Failure::Limit { what: "the length of all objects in bytes".to_owned(), actual, limit })
    }

    fn check_part(&self, node: NodeSlot, object: &Object, part: &mut Part) -> Result<(), Failure> {
        let current = object.version(part.group);
        let next = current.next_in(self.settings.epoch);
        if part.group == GroupId::COMMUTATIVE {
            part.token = Token::default();
            part.version = next;
        } else if !self.guards(object, part.group, node, part.token) {
            return Err(Failure::Fenced { object: part.object, group: part.group, token: part.token });
        } else if part.version != next {
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
