//! Who waits for whom among owners (transactions), and cycles of them. No messages, no locks of its own.
//!
//! A node reports a wait when it begins, with all that its owner holds then; neither changes before it says that the wait
//! is over. So an owner that waits is in the graph and no other, and a cycle that is there closes with the last report of
//! its waits. Reports are old when they arrive: a cycle in here may be one of waits that were never there together.
//! Therefore every node of a cycle is asked first. A wait that was there before the cycle was found, and is there after
//! it, was there when it was found; when all answer so, the cycle was real, and the youngest of its owners loses: so the
//! oldest of all goes on, and however often the others come back, somebody is done in the end.

use super::nodes::NodeSlot;
use kiln_protocol::limits::{CYCLE_WAITS_MAX, OWNER_WAITS_MAX};
use kiln_protocol::message::{Mode, OwnerLock, OwnerWait, Place};
use kiln_protocol::{CheckId, GroupId, ObjectId, OwnerId, RequestId, Token};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Owners that one search looks at.
const SEARCH_STEPS_MAX: usize = 1 << 11;
/// The same for all searches after one event; what is left over is searched after the next one.
const EVENT_STEPS_MAX: usize = 1 << 13;
/// Locks held by all owners of one node that wait.
const HOLDS_OF_NODE_MAX: usize = 1 << 16;
/// Cycles of one node's owners that are being asked about.
const CHECKS_OF_NODE_MAX: usize = 256;

pub(super) type LockKey = (ObjectId, GroupId);

/// A transaction in the cluster. A node speaks for its own only.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Owner {
    pub(super) node: NodeSlot,
    pub(super) id: OwnerId,
}

/// What is known of locks, beside the reports.
pub(super) trait LockTable {
    /// Whether a node has a grant of at least this mode.
    fn has_grant(&self, lock: LockKey, node: NodeSlot, mode: Mode) -> bool;

    /// What a node has asked for, and waits for.
    fn asked(&self, lock: LockKey, node: NodeSlot) -> Option<Mode>;

    /// Whether a node's write grant goes back when all have left it, readers too.
    fn is_draining(&self, lock: LockKey, node: NodeSlot) -> bool;

    /// Whether a reader of one node is served only after a writer of another node.
    fn is_behind(&self, lock: LockKey, reader: (NodeSlot, Place), writer: (NodeSlot, Place)) -> bool;
}

/// What is to be told to whom.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Told {
    /// Ask whether a wait goes on.
    Check { node: NodeSlot, lock: LockKey, wait: RequestId, check: CheckId },
    /// The first wait of the cycle is to end.
    Deadlock { node: NodeSlot, lock: LockKey, wait: RequestId, cycle: Vec<(Owner, LockKey, Mode)> },
}

#[derive(Debug)]
struct Wait {
    request: RequestId,
    begun: Token,
    lock: LockKey,
    mode: Mode,
    place: Place,
    holds: Vec<OwnerLock>,
    /// The cycle that its report closed.
    check: Option<CheckId>,
}

/// A cycle that is being asked about, from the owner whose report closed it on; and whose waits were confirmed.
#[derive(Debug)]
struct Check {
    cycle: Vec<(Owner, bool)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    waits: usize,
    holds: usize,
    checks: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct WaitGraph {
    waits: BTreeMap<Owner, Wait>,
    waiters: BTreeSet<(LockKey, Owner)>,
    holders: BTreeMap<(LockKey, Owner), Mode>,
    loads: BTreeMap<NodeSlot, Load>,
    checks: BTreeMap<CheckId, Check>,
    members: BTreeSet<(Owner, CheckId)>,
    last_check: CheckId,
    /// Owners from which cycles are still to be sought.
    unsought: BTreeSet<Owner>,
    /// The same, of nodes with as many checks as are allowed: each check that ends lets one be sought.
    postponed: BTreeSet<Owner>,
}

const fn lock_of(lock: &OwnerLock) -> LockKey {
    (lock.object, lock.group)
}

fn conflict(one: Mode, other: Mode) -> bool {
    one == Mode::Write || other == Mode::Write
}

/// What sorts before every owner that has to do with a lock.
const fn start_of(lock: LockKey) -> (LockKey, Owner) {
    (lock, Owner { node: NodeSlot::FIRST, id: OwnerId::from_bits(0) })
}

impl WaitGraph {
    /// An owner began to wait, or confirms that it does.
    pub(super) fn waits(&mut self, owner: Owner, wait: OwnerWait, locks: &impl LockTable, out: &mut Vec<Told>) {
        if wait.check == CheckId::default() {
            self.drop_wait(owner);
            if !self.add(owner, wait) {
                return;
            }
            self.unsought.insert(owner);
        } else {
            self.confirm(owner, &wait, locks, out);
        }
        self.seek(locks, out);
    }

    /// An owner waits no more.
    pub(super) fn goes_on(&mut self, owner: Owner, request: RequestId, locks: &impl LockTable, out: &mut Vec<Told>) {
        if self.waits.get(&owner).is_some_and(|wait| wait.request == request) {
            self.drop_wait(owner);
            self.seek(locks, out);
        }
    }

    /// A node asked for a lock: its owners that wait for it have a place in the queue now.
    pub(super) fn requested(&mut self, node: NodeSlot, lock: LockKey, locks: &impl LockTable, out: &mut Vec<Told>) {
        let waiting: Vec<_> = self.waiters_of(lock).collect();
        // Only readers wait behind others in the queue.
        if waiting.iter().any(|owner| self.waits.get(owner).is_some_and(|wait| wait.mode == Mode::Read)) {
            self.unsought.extend(waiting.iter().filter(|owner| owner.node == node));
            self.seek(locks, out);
        }
    }

    /// A grant is wanted back for a writer: readers of other nodes wait for its readers now.
    pub(super) fn recalled(&mut self, lock: LockKey, locks: &impl LockTable, out: &mut Vec<Told>) {
        let is_reader = |owner: &Owner| self.waits.get(owner).is_some_and(|wait| wait.mode == Mode::Read);
        let readers: Vec<_> = self.waiters_of(lock).filter(is_reader).collect();
        if !readers.is_empty() {
            self.unsought.extend(readers);
            self.seek(locks, out);
        }
    }

    /// A node is gone, and with it its owners.
    pub(super) fn leave(&mut self, node: NodeSlot, locks: &impl LockTable, out: &mut Vec<Told>) {
        let first = Owner { node, id: OwnerId::default() };
        let owners: Vec<_> =
            self.waits.range(first..).take_while(|(owner, _)| owner.node == node).map(|(owner, _)| *owner).collect();
        for owner in owners {
            self.drop_wait(owner);
        }
        self.loads.remove(&node);
        self.seek(locks, out);
    }

    /// An object is gone: nobody waits for its locks.
    pub(super) fn forget(&mut self, object: ObjectId, locks: &impl LockTable, out: &mut Vec<Told>) {
        let waiters = self.waiters.range(start_of((object, GroupId::DEFAULT))..);
        let owners: Vec<_> = waiters.take_while(|((of, _), _)| *of == object).map(|(_, owner)| *owner).collect();
        for owner in owners {
            self.drop_wait(owner);
        }
        self.seek(locks, out);
    }

    fn waiters_of(&self, lock: LockKey) -> impl Iterator<Item = Owner> {
        self.waiters.range(start_of(lock)..).take_while(move |(of, _)| *of == lock).map(|(_, owner)| *owner)
    }

    fn holders_of(&self, lock: LockKey) -> impl Iterator<Item = Owner> {
        self.holders.range(start_of(lock)..).take_while(move |((of, _), _)| *of == lock).map(|((_, owner), _)| *owner)
    }

    fn add(&mut self, owner: Owner, wait: OwnerWait) -> bool {
        let load = self.loads.entry(owner.node).or_default();
        if load.waits >= OWNER_WAITS_MAX || load.holds + wait.holds.len() > HOLDS_OF_NODE_MAX {
            return false;
        }
        load.waits += 1;
        load.holds += wait.holds.len();
        let lock = lock_of(&wait.wanted);
        self.waiters.insert((lock, owner));
        for held in &wait.holds {
            let mode = self.holders.entry((lock_of(held), owner)).or_insert(held.mode);
            *mode = held.mode.max(*mode);
        }
        let wait = Wait {
            request: wait.wait,
            begun: wait.begun,
            lock,
            mode: wait.wanted.mode,
            place: wait.place,
            holds: wait.holds,
            check: None,
        };
        self.waits.insert(owner, wait);
        true
    }

    /// Forgets a wait, and every cycle that it was part of: there may be others through those who are left.
    fn drop_wait(&mut self, owner: Owner) {
        let Some(wait) = self.waits.remove(&owner) else { return };
        self.waiters.remove(&(wait.lock, owner));
        for held in &wait.holds {
            self.holders.remove(&(lock_of(held), owner));
        }
        if let Some(load) = self.loads.get_mut(&owner.node) {
            load.waits -= 1;
            load.holds -= wait.holds.len();
        }
        let checks = self.members.range((owner, CheckId::default())..).take_while(|(of, _)| *of == owner);
        for check in checks.map(|(_, check)| *check).collect::<Vec<_>>() {
            self.drop_check(check);
        }
        self.unsought.remove(&owner);
        self.postponed.remove(&owner);
    }

    fn drop_check(&mut self, id: CheckId) {
        let Some(check) = self.checks.remove(&id) else { return };
        for (owner, _) in &check.cycle {
            self.members.remove(&(*owner, id));
        }
        let Some((closing, _)) = check.cycle.first() else { return };
        if let Some(load) = self.loads.get_mut(&closing.node) {
            load.checks -= 1;
        }
        let postponed = self.postponed.range(Owner { node: closing.node, id: OwnerId::default() }..).next().copied();
        if let Some(owner) = postponed.filter(|owner| owner.node == closing.node) {
            self.postponed.remove(&owner);
            self.unsought.insert(owner);
        }
        if let Some(wait) = self.waits.get_mut(closing) {
            wait.check = None;
            self.unsought.insert(*closing);
        }
    }

    fn confirm(&mut self, owner: Owner, said: &OwnerWait, locks: &impl LockTable, out: &mut Vec<Told>) {
        let Some(wait) = self.waits.get_mut(&owner).filter(|wait| wait.request == said.wait) else {
            return;
        };
        if wait.place != said.place {
            wait.place = said.place;
            self.unsought.insert(owner);
        }
        let Some(check) = self.checks.get_mut(&said.check) else { return };
        for (member, confirmed) in &mut check.cycle {
            *confirmed |= *member == owner;
        }
        if check.cycle.iter().all(|(_, confirmed)| *confirmed) {
            self.conclude(said.check, locks, out);
        }
    }

    /// All waits of the cycle were confirmed: if they still make one, the youngest is to end.
    fn conclude(&mut self, id: CheckId, locks: &impl LockTable, out: &mut Vec<Told>) {
        let Some(check) = self.checks.get(&id) else { return };
        let mut owners: Vec<_> = check.cycle.iter().map(|(owner, _)| *owner).collect();
        let next = owners.iter().cycle().skip(1);
        let real = owners.iter().zip(next).all(|(one, other)| self.is_edge(*one, *other, locks));
        self.drop_check(id);
        let age = |at: &usize| (self.waits.get(&owners[*at]).map(|wait| wait.begun), owners[*at]);
        let Some(youngest) = (0..owners.len()).filter(|_| real).max_by_key(age) else { return };
        owners.rotate_left(youngest);
        let cycle: Vec<_> = owners
            .iter()
            .filter_map(|owner| self.waits.get(owner).map(|wait| (*owner, wait.lock, wait.mode)))
            .collect();
        if let Some(wait) = self.waits.get(&owners[0]) {
            out.push(Told::Deadlock { node: owners[0].node, lock: wait.lock, wait: wait.request, cycle });
        }
        // It blocks nobody any more, as far as cycles go: each has one loser.
        self.drop_wait(owners[0]);
    }

    /// Whether `one` cannot go on before `other` does.
    fn is_edge(&self, one: Owner, other: Owner, locks: &impl LockTable) -> bool {
        let (Some(waiting), Some(blocking)) = (self.waits.get(&one), self.waits.get(&other)) else {
            return false;
        };
        let lock = waiting.lock;
        let held = self.holders.get(&(lock, other));
        // A grant that was recalled for a writer goes back when all have left it, whatever they do with it.
        let drains =
            if one.node == other.node { waiting.place.must_drain() } else { locks.is_draining(lock, other.node) };
        let mode = Self::mode_of(one, waiting, locks);
        held.is_some_and(|held| (drains || conflict(*held, mode)) && locks.has_grant(lock, other.node, *held))
            || Self::is_in_front(one, waiting, other, blocking, locks)
    }

    /// In which mode an owner waits: its node may have asked to write for one that was in front, and has given up since.
    fn mode_of(owner: Owner, wait: &Wait, locks: &impl LockTable) -> Mode {
        locks.asked(wait.lock, owner.node).map_or(wait.mode, |asked| asked.max(wait.mode))
    }

    /// Whether a reader waits behind a writer. Of writers behind others only those in front matter that hold the lock:
    /// they block whoever is behind as well.
    fn is_in_front(one: Owner, waiting: &Wait, other: Owner, blocking: &Wait, locks: &impl LockTable) -> bool {
        if blocking.lock != waiting.lock || waiting.mode != Mode::Read || blocking.mode != Mode::Write {
            return false;
        }
        if one.node == other.node {
            return blocking.request < waiting.request;
        }
        locks.is_behind(waiting.lock, (one.node, waiting.place), (other.node, blocking.place))
    }

    /// Seeks cycles through every owner that has news.
    fn seek(&mut self, locks: &impl LockTable, out: &mut Vec<Told>) {
        let mut left = EVENT_STEPS_MAX;
        while left > 0
            && let Some(owner) = self.unsought.pop_first()
        {
            if self.waits.get(&owner).is_none_or(|wait| wait.check.is_some()) {
                continue;
            }
            if self.loads.get(&owner.node).is_some_and(|load| load.checks >= CHECKS_OF_NODE_MAX) {
                self.postponed.insert(owner);
            } else if let Some(cycle) = self.cycle_through(owner, locks, &mut left) {
                self.ask(&cycle, out);
            }
        }
    }

    fn ask(&mut self, cycle: &[Owner], out: &mut Vec<Told>) {
        let Some(closing) = cycle.first() else { return };
        let check = self.last_check.next();
        self.last_check = check;
        let mut asked = Vec::with_capacity(cycle.len());
        for owner in cycle {
            let Some(wait) = self.waits.get(owner) else { return };
            asked.push((*owner, false));
            out.push(Told::Check { node: owner.node, lock: wait.lock, wait: wait.request, check });
            self.members.insert((*owner, check));
        }
        self.checks.insert(check, Check { cycle: asked });
        self.loads.entry(closing.node).or_default().checks += 1;
        if let Some(wait) = self.waits.get_mut(closing) {
            wait.check = Some(check);
        }
    }

    /// The shortest cycle through an owner, from it on.
    fn cycle_through(&self, start: Owner, locks: &impl LockTable, left: &mut usize) -> Option<Vec<Owner>> {
        let mut reached = BTreeMap::from([(start, start)]);
        let mut asked = BTreeSet::new();
        let mut queue = VecDeque::from([start]);
        let mut steps = SEARCH_STEPS_MAX;
        let mut found = None;
        while let Some(owner) = queue.pop_front() {
            if owner != start && self.is_edge(owner, start, locks) {
                found = Some(owner);
                break;
            }
            for next in self.blockers(owner, locks, &mut asked, &mut steps) {
                if let Entry::Vacant(unseen) = reached.entry(next) {
                    unseen.insert(owner);
                    queue.push_back(next);
                }
            }
        }
        *left = left.saturating_sub(SEARCH_STEPS_MAX - steps + 1);
        let mut cycle = Vec::new();
        let mut owner = found?;
        while owner != start && cycle.len() < CYCLE_WAITS_MAX {
            cycle.push(owner);
            owner = *reached.get(&owner)?;
        }
        cycle.push(start);
        cycle.reverse();
        (cycle.len() <= CYCLE_WAITS_MAX).then_some(cycle)
    }

    /// Whom an owner waits for. A lock whose holders were found already for another waiter adds none again.
    fn blockers(
        &self,
        owner: Owner,
        locks: &impl LockTable,
        asked: &mut BTreeSet<(LockKey, Mode, Option<NodeSlot>)>,
        steps: &mut usize,
    ) -> Vec<Owner> {
        let Some(wait) = self.waits.get(&owner) else { return Vec::new() };
        let mut looked: Vec<_> = Vec::new();
        let is_special = wait.place.must_drain() || locks.is_draining(wait.lock, owner.node);
        if asked.insert((wait.lock, Self::mode_of(owner, wait, locks), is_special.then_some(owner.node))) {
            looked.extend(self.holders_of(wait.lock).take(*steps));
        }
        if wait.mode == Mode::Read {
            looked.extend(self.waiters_of(wait.lock).take(*steps - looked.len()));
        }
        *steps -= looked.len();
        looked.retain(|other| *other != owner && self.is_edge(owner, *other, locks));
        looked
    }
}

#[cfg(test)]
mod tests;
