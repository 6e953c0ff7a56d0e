//! Cycles of transactions that wait for each other, as nodes report them: found when they are there, and never when they
//! are not.

use super::cluster::{Cluster, MAIN};
use kiln_protocol::limits::OWNER_LOCKS_MAX;
use kiln_protocol::message::{Mode, OwnerLock, OwnerWait, Place, Turn};
use kiln_protocol::{CheckId, ObjectId, OwnerId, RequestId, ToCoordinator, ToNode, Token};

const NONE: Place = Place { grant: Token::from_bits(0), turn: Turn::Over, soon: true };

fn lock(object: ObjectId, mode: Mode) -> OwnerLock {
    OwnerLock { object, group: MAIN, mode }
}

/// The report of a node's only transaction: the wait has the number of its owner.
fn wait(number: u64, object: ObjectId, mode: Mode, holds: &[(ObjectId, Mode)]) -> OwnerWait {
    OwnerWait {
        owner: OwnerId::from_bits(number),
        begun: Token::from_bits(number),
        wait: RequestId::from_bits(number),
        wanted: lock(object, mode),
        place: NONE,
        holds: holds.iter().map(|(object, mode)| lock(*object, *mode)).collect(),
        check: CheckId::default(),
    }
}

impl Cluster {
    fn waits(&mut self, name: &str, wait: OwnerWait) {
        self.send(name, ToCoordinator::OwnerWaits(wait));
    }

    fn goes_on(&mut self, name: &str, number: u64) {
        let (owner, wait) = (OwnerId::from_bits(number), RequestId::from_bits(number));
        self.send(name, ToCoordinator::OwnerGoesOn { owner, wait });
    }

    /// What the node is asked, if that is whether a wait goes on.
    fn asked(&mut self, name: &str) -> Option<CheckId> {
        let asked = |message: &ToNode| match message {
            ToNode::CheckWait { check, .. } => Some(*check),
            _ => None,
        };
        self.heard(name).iter().find_map(asked)
    }

    fn confirms(&mut self, name: &str, check: Option<CheckId>, wait: &OwnerWait) {
        self.waits(name, OwnerWait { check: check.unwrap(), ..wait.clone() });
    }

    fn deadlock(&mut self, name: &str) -> Option<String> {
        self.sent_to(name).into_iter().find(|said| said.starts_with("deadlock"))
    }

    /// Two objects: `ann` holds the first, `bob` the second, each for writing.
    fn held_crosswise() -> (Self, ObjectId, ObjectId) {
        let mut cluster = Self::of(&["ann", "bob"]);
        let (x, y) = (cluster.get_or_create("ann", "x"), cluster.get_or_create("bob", "y"));
        (cluster, x, y)
    }
}

#[test]
fn a_cycle_over_two_nodes_is_asked_about_and_then_one_is_told() {
    let (mut cluster, x, y) = Cluster::held_crosswise();
    let (of_ann, of_bob) = (wait(1, y, Mode::Write, &[(x, Mode::Write)]), wait(2, x, Mode::Write, &[(y, Mode::Write)]));
    cluster.write_lock("ann", y);
    cluster.waits("ann", of_ann.clone());
    cluster.write_lock("bob", x);
    assert_eq!(cluster.asked("bob"), None);
    cluster.waits("bob", of_bob.clone());
    let (ann, bob) = (cluster.asked("ann"), cluster.asked("bob"));
    cluster.confirms("ann", ann, &of_ann);
    assert_eq!(cluster.deadlock("bob"), None);
    cluster.confirms("bob", bob, &of_bob);
    assert_eq!(cluster.deadlock("bob").unwrap(), "deadlock 2 for x/0: bob write x, ann write y");
    assert_eq!(cluster.deadlock("ann"), None);
    // It was told, and what it says of the wait from now on is about nothing.
    cluster.goes_on("bob", 2);
    cluster.confirms("ann", ann, &of_ann);
    assert!(cluster.sent_to("ann").is_empty() && cluster.sent_to("bob").is_empty());
}

#[test]
fn a_report_that_is_out_of_date_closes_no_cycle() {
    let (mut cluster, x, y) = Cluster::held_crosswise();
    let (of_ann, of_bob) = (wait(1, y, Mode::Write, &[(x, Mode::Write)]), wait(2, x, Mode::Write, &[(y, Mode::Write)]));
    cluster.waits("ann", of_ann);
    cluster.waits("bob", of_bob.clone());
    // Ann had given up before bob began to wait; the news were on their way.
    let bob = cluster.asked("bob");
    cluster.goes_on("ann", 1);
    cluster.confirms("bob", bob, &of_bob);
    assert_eq!((cluster.deadlock("ann"), cluster.deadlock("bob")), (None, None));
}

#[test]
fn whoever_gave_its_grant_back_blocks_nobody() {
    let (mut cluster, x, y) = Cluster::held_crosswise();
    let (of_ann, of_bob) = (wait(1, y, Mode::Write, &[(x, Mode::Write)]), wait(2, x, Mode::Write, &[(y, Mode::Write)]));
    cluster.waits("ann", of_ann.clone());
    cluster.waits("bob", of_bob.clone());
    let (ann, bob) = (cluster.asked("ann"), cluster.asked("bob"));
    // A node that says that it holds what it does not have.
    cluster.release("ann", x, MAIN, false);
    cluster.confirms("ann", ann, &of_ann);
    cluster.confirms("bob", bob, &of_bob);
    assert_eq!((cluster.deadlock("ann"), cluster.deadlock("bob")), (None, None));
    // Nor does one that never had it.
    let z = cluster.get_or_create("ann", "z");
    cluster.waits("bob", wait(3, y, Mode::Write, &[(z, Mode::Write)]));
    cluster.waits("ann", wait(4, z, Mode::Write, &[(y, Mode::Write)]));
    assert_eq!((cluster.asked("ann"), cluster.asked("bob")), (None, None));
}

#[test]
fn a_node_speaks_for_its_own_owners_only() {
    let (mut cluster, x, y) = Cluster::held_crosswise();
    cluster.attach("eve", kiln_protocol::message::Role::Node);
    let of_ann = wait(1, y, Mode::Write, &[(x, Mode::Write)]);
    cluster.waits("ann", of_ann.clone());
    // As if it were bob's transaction, or ann's.
    cluster.waits("eve", wait(2, x, Mode::Write, &[(y, Mode::Write)]));
    cluster.goes_on("eve", 1);
    assert_eq!((cluster.asked("ann"), cluster.asked("eve")), (None, None));
    let of_bob = wait(2, x, Mode::Write, &[(y, Mode::Write)]);
    cluster.waits("bob", of_bob.clone());
    let (ann, bob) = (cluster.asked("ann"), cluster.asked("bob"));
    // Ann does not answer, eve does.
    cluster.confirms("bob", bob, &of_bob);
    cluster.confirms("eve", ann, &of_ann);
    assert_eq!((cluster.deadlock("ann"), cluster.deadlock("bob")), (None, None));
    cluster.confirms("ann", ann, &of_ann);
    assert!(cluster.deadlock("bob").is_some());
}

/// `ann` reads x and waits for y; `bob` waits to write x; `cy` has y and waits to read x.
fn reader_behind_a_writer(place_of_writer: Place, place_of_reader: Place) -> Vec<String> {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    let (x, y) = (cluster.lone("ann", "x"), cluster.get_or_create("cy", "y"));
    cluster.read_lock("ann", x);
    cluster.write_lock("bob", x);
    cluster.read_lock("cy", x);
    let reports = [
        ("bob", OwnerWait { place: place_of_writer, ..wait(2, x, Mode::Write, &[]) }),
        ("ann", wait(1, y, Mode::Write, &[(x, Mode::Read)])),
        ("cy", OwnerWait { place: place_of_reader, ..wait(3, x, Mode::Read, &[(y, Mode::Write)]) }),
    ];
    for (name, report) in &reports {
        cluster.waits(name, report.clone());
    }
    for (name, report) in &reports {
        if let Some(check) = cluster.asked(name) {
            cluster.confirms(name, Some(check), report);
        }
    }
    ["ann", "bob", "cy"].into_iter().filter_map(|name| cluster.deadlock(name)).collect()
}

#[test]
fn a_reader_waits_for_the_writer_that_was_queued_before_it() {
    assert_eq!(reader_behind_a_writer(NONE, NONE), ["deadlock 3 for x/0: cy read x, bob write x, ann write y"]);
    // A writer far back in its node's queue may come after the reader.
    assert!(reader_behind_a_writer(Place { soon: false, ..NONE }, NONE).is_empty());
}

#[test]
fn a_reader_whose_grant_serves_it_does_not_wait_behind_other_nodes() {
    for (turn, found) in [(Turn::Over, true), (Turn::Present, false), (Turn::Open, false)] {
        let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
        let (x, y) = (cluster.lone("ann", "x"), cluster.lone("ann", "y"));
        // Cy has read grants of both; of y, too, its second transaction waits for.
        cluster.read_lock("cy", x);
        cluster.write_lock("cy", y);
        let (_, token) = cluster.peer("cy").grants[&(x, MAIN)];
        cluster.write_lock("bob", x);
        let place = Place { grant: token, turn, soon: true };
        cluster.waits("bob", wait(1, x, Mode::Write, &[]));
        let first = wait(2, y, Mode::Write, &[(x, Mode::Read)]);
        let second = OwnerWait { place, ..wait(3, x, Mode::Read, &[(y, Mode::Write)]) };
        cluster.waits("cy", first);
        cluster.waits("cy", second);
        assert_eq!(cluster.asked("cy").is_some(), found, "{turn:?}");
        // With a grant on its way to it that it does not know of, the reader is served.
        cluster.heard("bob");
        let unaware = Place { grant: Token::default(), turn: Turn::Over, soon: true };
        cluster.waits("cy", OwnerWait { place: unaware, ..wait(3, x, Mode::Read, &[(y, Mode::Write)]) });
        assert_eq!(cluster.asked("cy"), None, "{turn:?}");
    }
}

#[test]
fn a_writer_that_is_served_before_its_node_gives_back_is_waited_for() {
    for (turn, found) in [(Turn::Present, true), (Turn::Open, false)] {
        let mut cluster = Cluster::of(&["ann", "bob"]);
        let (x, y) = (cluster.get_or_create("ann", "x"), cluster.get_or_create("bob", "y"));
        let (_, token) = cluster.peer("ann").grants[&(x, MAIN)];
        // Under ann's write grant one transaction reads, and another waits to write.
        cluster.waits("ann", wait(1, y, Mode::Write, &[(x, Mode::Read)]));
        let place = Place { grant: token, turn, soon: true };
        cluster.waits("ann", OwnerWait { place, ..wait(2, x, Mode::Write, &[]) });
        cluster.read_lock("bob", x);
        cluster.waits("bob", wait(3, x, Mode::Read, &[(y, Mode::Write)]));
        assert_eq!(cluster.asked("bob").is_some(), found, "{turn:?}");
    }
}

#[test]
fn a_transaction_of_too_many_locks_ends_its_connection() {
    let (mut cluster, x, y) = Cluster::held_crosswise();
    let holds = vec![(x, Mode::Write); OWNER_LOCKS_MAX + 1];
    cluster.waits("ann", wait(1, y, Mode::Write, &holds));
    assert!(cluster.peer("ann").closed.is_some());
    assert!(cluster.peer("bob").closed.is_none());
}

#[test]
fn who_leaves_waits_for_nobody() {
    let (mut cluster, x, y) = Cluster::held_crosswise();
    cluster.waits("ann", wait(1, y, Mode::Write, &[(x, Mode::Write)]));
    cluster.detach("ann");
    cluster.waits("bob", wait(2, x, Mode::Write, &[(y, Mode::Write)]));
    assert_eq!(cluster.asked("bob"), None);
    // Who waits for the lock of an object that is removed is told so otherwise.
    cluster.remove("bob", "x", false);
    assert_eq!(cluster.asked("bob"), None);
}
