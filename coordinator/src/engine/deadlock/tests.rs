use super::*;
use kiln_protocol::Token;
use kiln_protocol::message::Turn;

const READ: Mode = Mode::Read;
const WRITE: Mode = Mode::Write;
const PLACE: Place = Place { grant: Token::from_bits(0), turn: Turn::Over, soon: true };

/// Every grant that is claimed is there, but for those `gone`; who is behind whom in a queue is a table.
#[derive(Default)]
struct Locks {
    gone: BTreeSet<(LockKey, u16)>,
    behind: BTreeSet<(LockKey, u16, u16)>,
    draining: BTreeSet<(LockKey, u16)>,
    asked_to_write: BTreeSet<(LockKey, u16)>,
}

impl LockTable for Locks {
    fn has_grant(&self, lock: LockKey, node: NodeSlot, _mode: Mode) -> bool {
        !self.gone.iter().any(|(of, gone)| *of == lock && NodeSlot::from_bits(*gone) == node)
    }

    fn asked(&self, lock: LockKey, node: NodeSlot) -> Option<Mode> {
        let is = |(of, asked): &(LockKey, u16)| *of == lock && NodeSlot::from_bits(*asked) == node;
        self.asked_to_write.iter().any(is).then_some(WRITE)
    }

    fn is_draining(&self, lock: LockKey, node: NodeSlot) -> bool {
        self.draining.iter().any(|(of, draining)| *of == lock && NodeSlot::from_bits(*draining) == node)
    }

    fn is_behind(&self, lock: LockKey, (behind, _): (NodeSlot, Place), (ahead, _): (NodeSlot, Place)) -> bool {
        let is = |(of, one, other): &(LockKey, u16, u16)| {
            *of == lock && (NodeSlot::from_bits(*one), NodeSlot::from_bits(*other)) == (behind, ahead)
        };
        self.behind.iter().any(is)
    }
}

fn lock(number: u64) -> LockKey {
    (ObjectId::from_bits(number), GroupId::DEFAULT)
}

fn owner((node, id): (u16, u64)) -> Owner {
    Owner { node: NodeSlot::from_bits(node), id: OwnerId::from_bits(id) }
}

type Name = (u16, u64);
type Want = (u64, Mode);

/// A graph, and the nodes that answer its questions.
#[derive(Default)]
struct Graph {
    graph: WaitGraph,
    locks: Locks,
    last: u64,
    reports: BTreeMap<Owner, OwnerWait>,
    told: Vec<Told>,
}

impl Graph {
    /// Whoever waits last is the youngest.
    fn wait(&mut self, name: Name, wants: Want, holds: &[Want]) {
        self.wait_as_old_as(self.last + 1, name, wants, holds);
    }

    fn wait_as_old_as(&mut self, begun: u64, name: Name, wants: Want, holds: &[Want]) {
        self.report(begun, PLACE, name, wants, holds);
    }

    fn wait_at(&mut self, place: Place, name: Name, wants: Want, holds: &[Want]) {
        self.report(self.last + 1, place, name, wants, holds);
    }

    fn report(&mut self, begun: u64, place: Place, name: Name, wants: Want, holds: &[Want]) {
        let as_lock = |(number, mode): Want| {
            let (object, group) = lock(number);
            OwnerLock { object, group, mode }
        };
        self.last += 1;
        let report = OwnerWait {
            owner: OwnerId::from_bits(name.1),
            begun: Token::from_bits(begun),
            wait: RequestId::from_bits(self.last),
            wanted: as_lock(wants),
            place,
            holds: holds.iter().map(|held| as_lock(*held)).collect(),
            check: CheckId::default(),
        };
        self.reports.insert(owner(name), report.clone());
        self.graph.waits(owner(name), report, &self.locks, &mut self.told);
    }

    fn goes_on(&mut self, name: Name) {
        if let Some(report) = self.reports.remove(&owner(name)) {
            self.graph.goes_on(owner(name), report.wait, &self.locks, &mut self.told);
        }
    }

    /// Answers one question of those that were told, as the node would.
    fn answer(&mut self, told: &Told) {
        let Told::Check { node, wait, check, .. } = told else { return };
        let waits = self.reports.iter().find(|(owner, report)| owner.node == *node && report.wait == *wait);
        if let Some((owner, report)) = waits.map(|(owner, report)| (*owner, report.clone())) {
            self.graph.waits(owner, OwnerWait { check: *check, ..report }, &self.locks, &mut self.told);
        }
    }

    fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Answers every question; the owners of each cycle that came out, from the loser on.
    fn settle(&mut self) -> Vec<Vec<Owner>> {
        let mut cycles = Vec::new();
        loop {
            let told = self.take_told();
            if told.is_empty() {
                return cycles;
            }
            for told in &told {
                self.answer(told);
                if let Told::Deadlock { cycle, .. } = told {
                    let owners: Vec<_> = cycle.iter().map(|(owner, ..)| *owner).collect();
                    self.reports.remove(&owners[0]);
                    cycles.push(owners);
                }
            }
        }
    }
}

fn cycle(names: &[Name]) -> Vec<Vec<Owner>> {
    vec![names.iter().map(|name| owner(*name)).collect()]
}

#[test]
fn the_youngest_of_a_cycle_loses() {
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, WRITE)]);
    assert!(graph.take_told().is_empty());
    graph.wait((2, 1), (1, WRITE), &[(2, WRITE)]);
    assert_eq!(graph.settle(), cycle(&[(2, 1), (1, 1)]));
    // Told once.
    graph.goes_on((2, 1));
    assert!(graph.settle().is_empty());
    // Also when another one closes it.
    graph.goes_on((1, 1));
    graph.wait_as_old_as(9, (1, 1), (2, WRITE), &[(1, WRITE)]);
    graph.wait_as_old_as(8, (2, 1), (1, WRITE), &[(2, WRITE)]);
    assert_eq!(graph.settle(), cycle(&[(1, 1), (2, 1)]));
}

#[test]
fn waits_that_make_no_cycle_are_left_alone() {
    let mut graph = Graph::default();
    // Readers of one lock do not block each other.
    graph.wait((1, 1), (2, READ), &[(1, READ)]);
    graph.wait((2, 1), (1, READ), &[(2, READ)]);
    // A chain has no cycle.
    graph.wait((3, 1), (3, WRITE), &[(4, WRITE)]);
    graph.wait((3, 2), (4, WRITE), &[(5, WRITE)]);
    graph.wait((3, 3), (5, WRITE), &[]);
    assert!(graph.take_told().is_empty());
}

#[test]
fn a_grant_that_is_gone_blocks_nobody() {
    let mut graph = Graph::default();
    graph.locks.gone.insert((lock(1), 1));
    graph.wait((1, 1), (2, WRITE), &[(1, WRITE)]);
    graph.wait((2, 1), (1, WRITE), &[(2, WRITE)]);
    assert!(graph.take_told().is_empty());
}

#[test]
fn a_wait_that_is_over_before_it_is_confirmed_closes_nothing() {
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, WRITE)]);
    graph.wait((2, 1), (1, WRITE), &[(2, WRITE)]);
    let asked = graph.take_told();
    assert_eq!(asked.len(), 2);
    graph.goes_on((1, 1));
    asked.iter().for_each(|asked| graph.answer(asked));
    assert!(graph.settle().is_empty());
    // The same owner waits again, for something else: the old answers are not about this wait.
    graph.wait((1, 1), (9, WRITE), &[(1, WRITE)]);
    asked.iter().for_each(|asked| graph.answer(asked));
    assert!(graph.settle().is_empty());
}

#[test]
fn an_answer_to_an_earlier_question_confirms_nothing() {
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, WRITE)]);
    graph.wait((2, 1), (1, WRITE), &[(2, WRITE)]);
    let first = graph.take_told();
    graph.goes_on((2, 1));
    graph.wait((2, 1), (1, WRITE), &[(2, WRITE)]);
    let second = graph.take_told();
    first.iter().for_each(|asked| graph.answer(asked));
    graph.answer(&second[0]);
    assert!(graph.take_told().is_empty());
    graph.answer(&second[1]);
    assert_eq!(graph.settle().len(), 1);
}

#[test]
fn an_owner_in_two_cycles_loses_once_and_another_cycle_is_found_after_it() {
    let mut graph = Graph::default();
    graph.wait((1, 1), (3, WRITE), &[(1, READ)]);
    graph.wait((2, 1), (3, WRITE), &[(1, READ)]);
    graph.wait((3, 1), (1, WRITE), &[(3, WRITE)]);
    assert_eq!(graph.settle(), cycle(&[(3, 1), (1, 1)]));

    let mut graph = Graph::default();
    graph.wait((1, 1), (3, WRITE), &[(1, READ)]);
    graph.wait((2, 1), (3, WRITE), &[(1, READ)]);
    graph.wait((3, 1), (1, WRITE), &[(3, WRITE)]);
    // The first cycle breaks by itself; the second stays.
    graph.goes_on((1, 1));
    assert_eq!(graph.settle(), cycle(&[(3, 1), (2, 1)]));
}

#[test]
fn a_reader_waits_behind_a_writer() {
    // On one node, whoever came first.
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, READ)]);
    graph.wait((2, 1), (1, WRITE), &[]);
    graph.wait((2, 2), (1, READ), &[(2, WRITE)]);
    assert_eq!(graph.settle(), cycle(&[(2, 2), (2, 1), (1, 1)]));
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, READ)]);
    graph.wait((2, 2), (1, READ), &[(2, WRITE)]);
    graph.wait((2, 1), (1, WRITE), &[]);
    assert!(graph.settle().is_empty());
    // On two, as their requests are queued: also when the request comes last.
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, READ)]);
    graph.wait((2, 1), (1, WRITE), &[]);
    graph.wait((3, 1), (1, READ), &[(2, WRITE)]);
    assert!(graph.settle().is_empty());
    graph.locks.behind.insert((lock(1), 3, 2));
    graph.graph.requested(NodeSlot::from_bits(3), lock(1), &graph.locks, &mut graph.told);
    assert_eq!(graph.settle(), cycle(&[(3, 1), (2, 1), (1, 1)]));
}

#[test]
fn a_reader_waits_for_readers_of_its_node_to_leave_a_recalled_grant() {
    let recalled = Place { grant: Token::from_bits(7), turn: Turn::Over, soon: true };
    for (node, place, is_cycle) in [(1, recalled, true), (2, recalled, false), (1, PLACE, false)] {
        let mut graph = Graph::default();
        graph.wait((1, 1), (2, WRITE), &[(1, READ)]);
        graph.wait_at(place, (node, 2), (1, READ), &[(2, WRITE)]);
        let expected = if is_cycle { cycle(&[(1, 2), (1, 1)]) } else { Vec::new() };
        assert_eq!(graph.settle(), expected, "{place:?} on node {node}");
    }
}

#[test]
fn a_reader_waits_for_readers_of_another_node_whose_write_grant_is_recalled_for_a_writer() {
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, READ)]);
    graph.wait((2, 1), (1, READ), &[(2, WRITE)]);
    assert!(graph.settle().is_empty());
    graph.locks.draining.insert((lock(1), 1));
    graph.graph.recalled(lock(1), &graph.locks, &mut graph.told);
    assert_eq!(graph.settle(), cycle(&[(2, 1), (1, 1)]));
}

#[test]
fn a_reader_whose_node_has_asked_to_write_waits_for_readers() {
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, READ)]);
    graph.locks.asked_to_write.insert((lock(1), 2));
    graph.wait((2, 1), (1, READ), &[(2, WRITE)]);
    assert_eq!(graph.settle(), cycle(&[(2, 1), (1, 1)]));
}

#[test]
fn a_node_that_leaves_takes_its_owners_along() {
    let mut graph = Graph::default();
    graph.wait((1, 1), (2, WRITE), &[(1, WRITE)]);
    graph.graph.leave(NodeSlot::from_bits(1), &graph.locks, &mut graph.told);
    graph.wait((2, 1), (1, WRITE), &[(2, WRITE)]);
    assert!(graph.settle().is_empty());
    graph.graph.forget(lock(1).0, &graph.locks, &mut graph.told);
    graph.wait((1, 2), (2, WRITE), &[(1, WRITE)]);
    assert!(graph.settle().is_empty());
}

#[test]
fn a_node_that_says_too_much_is_not_kept_and_keeps_nobody_from_being_heard() {
    let mut graph = Graph::default();
    for id in 0..OWNER_WAITS_MAX as u64 + 10 {
        graph.wait((1, id), (1, WRITE), &[(1, READ), (2, READ)]);
    }
    assert!(graph.graph.waits.len() <= OWNER_WAITS_MAX);
    graph.take_told();
    // Two others wait for what it holds, and for each other.
    graph.wait((2, 1), (3, WRITE), &[(4, WRITE)]);
    graph.wait((3, 1), (4, WRITE), &[(3, WRITE)]);
    let asked = graph.take_told();
    asked.iter().for_each(|asked| graph.answer(asked));
    let told = graph.take_told();
    assert!(told.iter().any(|told| matches!(told, Told::Deadlock { node, .. } if *node == NodeSlot::from_bits(3))));
    // It never answers, and its cycles are bounded.
    assert!(graph.graph.checks.len() <= CHECKS_OF_NODE_MAX);
}

#[test]
fn long_cycles_are_found_up_to_the_limit() {
    for (length, found) in [(3, true), (CYCLE_WAITS_MAX as u64, true), (CYCLE_WAITS_MAX as u64 + 1, false)] {
        let mut graph = Graph::default();
        for at in 0..length {
            graph.wait((0, at), ((at + 1) % length, WRITE), &[(at, WRITE)]);
        }
        assert_eq!(graph.settle().len(), usize::from(found), "{length} owners");
    }
}

/// The definition, without an index: who waits for whom.
fn edges(graph: &Graph) -> BTreeSet<(Owner, Owner)> {
    let mut edges = BTreeSet::new();
    for (one, waiting) in &graph.reports {
        for (other, blocking) in &graph.reports {
            let wanted = waiting.wanted;
            let held = blocking.holds.iter().any(|held| {
                lock_of(held) == lock_of(&wanted)
                    && (conflict(held.mode, wanted.mode)
                        || graph.locks.asked(lock_of(held), one.node) == Some(WRITE)
                        || (one.node != other.node && graph.locks.is_draining(lock_of(held), other.node)))
                    && graph.locks.has_grant(lock_of(held), other.node, held.mode)
            });
            let same = lock_of(&blocking.wanted) == lock_of(&wanted);
            let in_front = if one.node == other.node {
                blocking.wait < waiting.wait
            } else {
                graph.locks.is_behind(lock_of(&wanted), (one.node, PLACE), (other.node, PLACE))
            };
            let queued = same && wanted.mode == READ && blocking.wanted.mode == WRITE && in_front;
            if one != other && (held || queued) {
                edges.insert((*one, *other));
            }
        }
    }
    edges
}

fn on_a_cycle(edges: &BTreeSet<(Owner, Owner)>, start: Owner) -> bool {
    let mut reached = BTreeSet::from([start]);
    loop {
        let next: BTreeSet<_> = edges.iter().filter(|(from, _)| reached.contains(from)).map(|(_, to)| *to).collect();
        if next.contains(&start) {
            return true;
        }
        let before = reached.len();
        reached.extend(next);
        if reached.len() == before {
            return false;
        }
    }
}

#[test]
fn what_is_found_is_what_a_search_of_all_edges_finds() {
    let (mut found, mut none) = (0, 0);
    for seed in 1..=400_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % limit
        };
        let mut graph = Graph::default();
        for _ in 0..4 {
            let (one, other) = (u16::try_from(below(3)).unwrap(), u16::try_from(below(3)).unwrap());
            graph.locks.behind.insert((lock(below(5)), one, other));
            graph.locks.gone.insert((lock(below(5)), one));
            graph.locks.draining.insert((lock(below(5)), other));
            graph.locks.asked_to_write.insert((lock(below(5)), one));
        }
        for _ in 0..40 {
            let name = (u16::try_from(below(3)).unwrap(), below(3));
            if below(4) == 0 {
                graph.goes_on(name);
                assert!(graph.settle().is_empty());
                continue;
            }
            if graph.reports.contains_key(&owner(name)) {
                continue;
            }
            let mut want = || (below(5), if below(2) == 0 { READ } else { WRITE });
            let (wanted, holds) = (want(), [want(), want()]);
            let holds: Vec<_> = holds.into_iter().filter(|held| held.0 != wanted.0).collect();
            graph.wait(name, wanted, &holds);
            let edges = edges(&graph);
            let expected = on_a_cycle(&edges, owner(name));
            let cycles = graph.settle();
            assert_eq!(cycles.len(), usize::from(expected), "seed {seed}: {edges:?}");
            for cycle in &cycles {
                let next = cycle.iter().cycle().skip(1);
                assert!(cycle.iter().zip(next).all(|(one, other)| edges.contains(&(*one, *other))), "seed {seed}");
                assert_eq!(cycle[0], owner(name), "seed {seed}");
            }
            found += usize::from(expected);
            none += usize::from(!expected);
        }
    }
    assert!(found > 500 && none > 500, "{found} cycles, {none} waits without one");
}
