//! Nodes that go silent, and nodes that come back.

use super::super::{Event, Settings};
use super::cluster::{Cluster, EPOCH, MAIN, Peer, SECRET, SESSIONS, clicks, visits};
use bytes::Bytes;
use kiln_protocol::connection::LEASE;
use kiln_protocol::message::{Commit, Hello, Mode, Past, Resume, Role};
use kiln_protocol::{
    BarrierId, CommitSeq, Epoch, Failure, GroupId, Incarnation, ObjectId, Secret, ToCoordinator, ToNode, Token, Version,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

impl Cluster {
    /// The connection of a node is lost, not the node.
    pub(super) fn lose(&mut self, name: &str) -> Peer {
        let peer = self.peers.remove(name).unwrap();
        self.event(Event::Detached { session: peer.session });
        peer
    }

    /// The node is back, as what it was if the coordinator agrees.
    pub(super) fn come_back(&mut self, name: &str, peer: Peer, secret: Secret) {
        self.last_session = self.last_session.next();
        let session = self.last_session;
        let (incarnation, acked, attempt) = (peer.incarnation, peer.acked, session.to_bits());
        let resume = Resume { epoch: EPOCH, incarnation, secret, acked, lapsed: false, attempt };
        let (inbox, copies, grants) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        self.peers.insert(name.to_owned(), Peer { session, inbox, copies, grants, closed: None, ..peer });
        let hello = Hello { resume: Some(resume), ..Hello::new(name, Role::Node) };
        self.event(Event::Attached { session, hello, secret: Secret::from_bytes([2; 16]) });
    }

    /// A node that is back names a grant.
    pub(super) fn reassert(&mut self, name: &str, object: ObjectId, grant: (Mode, Token)) {
        let (mode, token) = grant;
        self.send(name, ToCoordinator::Reassert { object, group: MAIN, token, mode });
        if !matches!(self.peer(name).inbox.back(), Some(ToNode::GrantLost { .. })) {
            self.peer(name).grants.insert((object, MAIN), grant);
        }
    }

    /// Time passes, and these nodes send heartbeats.
    pub(super) fn pass(&mut self, time: Duration, alive: &[&str]) {
        self.now += time;
        for name in alive {
            self.send(name, ToCoordinator::Heartbeat { number: 1 });
            let heard = self.peer(name).inbox.pop_back();
            assert_eq!(heard, Some(ToNode::Heartbeat { number: 1 }));
        }
        self.event(Event::Tick);
    }
}

const NOTHING: [&str; 0] = [];

fn grant_of(cluster: &mut Cluster, name: &str, object: ObjectId) -> (Mode, Token) {
    cluster.peer(name).grants[&(object, MAIN)]
}

fn ask_fate(cluster: &mut Cluster, incarnation: Incarnation, seq: u64) -> String {
    let request = cluster.request();
    let seq = CommitSeq::from_bits(seq);
    cluster.send("bob", ToCoordinator::Fate { request, incarnation, seq });
    cluster.sent_to("bob").concat()
}

#[test]
fn a_lost_connection_does_not_end_a_lease() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let grant = grant_of(&mut cluster, "ann", object);
    let ann = cluster.lose("ann");
    cluster.write_lock("bob", object);
    cluster.pass(LEASE / 2, &["bob"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.come_back("ann", ann, SECRET);
    assert_eq!(cluster.sent_to("ann"), ["welcome 1"]);
    cluster.reassert("ann", object, grant);
    // What it was told before was lost with the connection.
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for write"]);
    cluster.send("ann", ToCoordinator::Resynced);
    assert_eq!(cluster.sent_to("ann"), ["resynced"]);
    cluster.commit_parts("ann", false, vec![]);
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
    assert!(cluster.members.iter().all(|(_, joined)| *joined), "nobody left");
}

#[test]
fn a_grant_that_is_not_named_was_given_back() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let ann = cluster.lose("ann");
    cluster.write_lock("bob", object);
    cluster.come_back("ann", ann, SECRET);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.send("ann", ToCoordinator::Resynced);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
}

#[test]
fn a_grant_may_be_given_back_before_it_is_named() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let (_, token) = grant_of(&mut cluster, "ann", object);
    let ann = cluster.lose("ann");
    cluster.write_lock("bob", object);
    cluster.come_back("ann", ann, SECRET);
    cluster.release_token("ann", object, MAIN, token, false);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
    cluster.reassert("ann", object, (Mode::Write, token));
    assert_eq!(cluster.sent_to("ann"), ["welcome 1", "lost s/0#1"]);
}

#[test]
fn an_upgrade_that_did_not_arrive_was_never_given() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("bob", "s");
    cluster.read_lock("ann", object);
    let grant = grant_of(&mut cluster, "ann", object);
    cluster.write_lock("ann", object);
    let ann = cluster.lose("ann");
    cluster.write_lock("bob", object);
    cluster.come_back("ann", ann, SECRET);
    cluster.sent_to("ann");
    cluster.reassert("ann", object, grant);
    cluster.send("ann", ToCoordinator::Resynced);
    // Its read grant stands until it gives it back.
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#3 for write", "resynced"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#5"]);
}

#[test]
fn a_silent_node_is_dead_when_its_lease_has_lapsed() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let part = cluster.part("ann", object, MAIN, visits(9));
    cluster.write_lock("bob", object);
    cluster.pass(LEASE, &["bob"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.pass(Duration::from_millis(1), &["bob"]);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
    let incarnation = cluster.peer("ann").incarnation;
    assert_eq!(cluster.peer("ann").closed, Some(Some(Failure::Lapsed { incarnation })));
    assert_eq!(cluster.members.last(), Some(&("ann".to_owned(), false)));
    // Back too late, it is somebody else, whose old grant is worth nothing.
    let ann = cluster.peers.remove("ann").unwrap();
    cluster.come_back("ann", ann, SECRET);
    assert_eq!(cluster.sent_to("ann"), ["welcome 3"]);
    cluster.peer("ann").sent = CommitSeq::default();
    cluster.commit_parts("ann", false, vec![part]);
    assert!(cluster.sent_to("ann")[0].starts_with("refused 1: group 0 of object"), "S2");
    cluster.reassert("ann", object, (Mode::Write, Token::new(EPOCH, 1).unwrap()));
    assert_eq!(cluster.sent_to("ann"), ["lost s/0#1"]);
}

#[test]
fn a_heartbeat_renews_a_lease() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("bob", object);
    for _ in 0..5 {
        cluster.pass(LEASE, &["ann", "bob"]);
    }
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    assert!(cluster.peer("ann").closed.is_none());
}

#[test]
fn only_who_knows_its_secret_is_an_incarnation() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let ann = cluster.lose("ann");
    let incarnation = ann.incarnation;
    cluster.come_back("ann", ann, Secret::from_bytes([9; 16]));
    assert_eq!(cluster.peer("ann").closed, Some(Some(Failure::BadSecret { incarnation })));
    // And what it wanted to take is still the other's.
    cluster.write_lock("bob", object);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    // Also while the true one is attached.
    let bob = cluster.peer("bob").incarnation;
    let resume = Resume {
        epoch: EPOCH,
        incarnation: bob,
        secret: Secret::from_bytes([9; 16]),
        acked: CommitSeq::default(),
        lapsed: false,
        attempt: 1,
    };
    cluster.hello("eve", Hello { resume: Some(resume), ..Hello::new("eve", Role::Node) });
    assert_eq!(cluster.peer("eve").closed, Some(Some(Failure::BadSecret { incarnation: bob })));
    assert!(cluster.peer("bob").closed.is_none());
}

#[test]
fn a_node_that_comes_back_again_and_again_is_somebody_else_in_the_end() {
    let mut cluster = Cluster::of(&["bob", "ann"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("bob", object);
    for times in 0..=8 {
        let ann = cluster.lose("ann");
        cluster.come_back("ann", ann, SECRET);
        let incarnation = if times < 8 { 2 } else { 3 };
        assert_eq!(cluster.sent_to("ann"), [format!("welcome {incarnation}")], "time {times}");
    }
    // Until it hears that, it trusts its grant.
    cluster.pass(LEASE, &["ann", "bob"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.pass(Duration::from_millis(1), &["ann", "bob"]);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
    // Not one that says what it holds.
    for _ in 0..50 {
        let ann = cluster.lose("ann");
        // The secret of the third incarnation.
        cluster.come_back("ann", ann, Secret::from_bytes([2; 16]));
        cluster.send("ann", ToCoordinator::Resynced);
        assert_eq!(cluster.sent_to("ann"), ["welcome 3", "resynced"]);
    }
}

#[test]
fn of_several_grants_of_a_node_the_one_that_it_names_is_kept() {
    let mut cluster = Cluster::of(&["bob", "ann"]);
    let object = cluster.get_or_create("bob", "s");
    cluster.release("bob", object, MAIN, false);
    for _ in 0..2 {
        // The first one does not reach it.
        cluster.read_lock("ann", object);
        let grant = grant_of(&mut cluster, "ann", object);
        let ann = cluster.lose("ann");
        cluster.come_back("ann", ann, SECRET);
        cluster.peer("ann").grants.insert((object, MAIN), grant);
    }
    let grant = grant_of(&mut cluster, "ann", object);
    cluster.sent_to("ann");
    cluster.reassert("ann", object, grant);
    cluster.send("ann", ToCoordinator::Resynced);
    assert_eq!(cluster.sent_to("ann"), ["resynced"]);
    cluster.write_lock("bob", object);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#4 for write"]);
}

#[test]
fn an_attempt_to_come_back_that_was_given_up_changes_nothing() {
    let mut cluster = Cluster::of(&["bob", "ann"]);
    let object = cluster.get_or_create("bob", "s");
    cluster.fetch("ann", SESSIONS, "s", None);
    let ann = cluster.lose("ann");
    let (incarnation, acked, session) = (ann.incarnation, ann.acked, ann.session);
    cluster.come_back("ann", ann, SECRET);
    cluster.send(
        "ann",
        ToCoordinator::Revalidate { object, key: Bytes::from_static(b"s"), versions: vec![(MAIN, Version::default())] },
    );
    cluster.send("ann", ToCoordinator::Resynced);
    // Before the coordinator, or the node, knows that this connection is lost.
    let attempt = session.to_bits();
    let resume = Resume { epoch: EPOCH, incarnation, secret: SECRET, acked, lapsed: false, attempt };
    cluster.hello("late", Hello { resume: Some(resume), ..Hello::new("ann", Role::Node) });
    assert_eq!(cluster.peer("late").closed, Some(Some(Failure::Superseded { incarnation })));
    cluster.sent_to("ann");
    cluster.commit_everywhere("bob", object, MAIN, visits(1));
    assert_eq!(cluster.sent_to("ann"), ["delta s/0v1 visits", "barrier 1"], "it has its copy still");
}

#[test]
fn a_copy_has_no_more_versions_than_groups() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    let versions = vec![(MAIN, Version::default()); 66];
    cluster.send("ann", ToCoordinator::Revalidate { object, key: Bytes::from("s"), versions });
    assert!(matches!(cluster.peer("ann").closed, Some(Some(Failure::Violation { .. }))));
}

#[test]
fn a_node_may_be_back_before_it_was_missed() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let grant = grant_of(&mut cluster, "ann", object);
    let before = cluster.peer("ann").session;
    let ann = cluster.peers.remove("ann").unwrap();
    cluster.come_back("ann", ann, SECRET);
    cluster.reassert("ann", object, grant);
    // The end of the old connection says nothing about the new one.
    cluster.event(Event::Detached { session: before });
    cluster.send("ann", ToCoordinator::Resynced);
    cluster.commit("ann", object, MAIN, visits(1));
    assert_eq!(cluster.sent_to("ann"), ["welcome 1", "resynced", "ack 1"]);
}

#[test]
fn a_resent_commit_is_applied_once() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let commit = |cluster: &Cluster, amount| {
        let parts = vec![cluster.part("ann", object, GroupId::COMMUTATIVE, clicks(amount))].into();
        ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts })
    };
    let before = cluster.peer("ann").acked;
    let first = commit(&cluster, 1);
    cluster.send("ann", first);
    let mut ann = cluster.lose("ann");
    // The answer did not arrive.
    ann.acked = before;
    cluster.come_back("ann", ann, SECRET);
    assert_eq!(cluster.sent_to("ann"), ["welcome 1", "ack 1"]);
    let second = commit(&cluster, 10);
    cluster.send("ann", second);
    cluster.fetch("bob", SESSIONS, "s", None);
    assert!(cluster.sent_to("bob")[0].contains("clicks=11"), "S8");
}

#[test]
fn a_refusal_is_told_again() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("bob", "s");
    let before = cluster.peer("ann").acked;
    cluster.commit("ann", object, MAIN, visits(1));
    let refusal = cluster.sent_to("ann")[0].clone();
    assert!(refusal.starts_with("refused 1"));
    let mut ann = cluster.lose("ann");
    ann.acked = before;
    cluster.come_back("ann", ann, SECRET);
    assert_eq!(cluster.sent_to("ann"), ["welcome 1".to_owned(), refusal, "ack 1".to_owned()]);
}

#[test]
fn copies_are_compared_and_not_sent() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let objects = ["same", "changed", "gone", "moved"].map(|key| cluster.lone("bob", key));
    for key in ["same", "changed", "gone", "moved"] {
        cluster.fetch("ann", SESSIONS, key, None);
    }
    let ann = cluster.lose("ann");
    cluster.write_lock("bob", objects[1]);
    cluster.fetch("bob", SESSIONS, "changed", None);
    cluster.commit("bob", objects[1], MAIN, visits(1));
    cluster.remove("bob", "gone", false);
    cluster.rename("bob", "moved", "there");
    cluster.come_back("ann", ann, SECRET);
    cluster.sent_to("ann");
    for (object, key) in objects.into_iter().zip(["same", "changed", "gone", "moved"]) {
        let versions = vec![(MAIN, Version::default())];
        cluster.send("ann", ToCoordinator::Revalidate { object, key: Bytes::from(key), versions });
    }
    assert_eq!(cluster.sent_to("ann"), ["outdated changed", "destroyed gone", "renamed moved there"]);
    cluster.send("ann", ToCoordinator::Resynced);
    cluster.sent_to("ann");
    // Its interest is there again.
    cluster.commit("bob", objects[1], MAIN, visits(2));
    assert_eq!(cluster.sent_to("ann"), ["delta changed/0v2 visits"]);
}

#[test]
fn everywhere_waits_for_a_node_that_is_away() {
    for comes_back in [true, false] {
        let mut cluster = Cluster::of(&["ann", "bob"]);
        let object = cluster.get_or_create("ann", "s");
        cluster.fetch("bob", SESSIONS, "s", None);
        let bob = cluster.lose("bob");
        cluster.commit_everywhere("ann", object, MAIN, visits(1));
        assert_eq!(cluster.sent_to("ann"), ["ack 1"]);
        if comes_back {
            // It trusts no copy before it has compared it.
            cluster.come_back("bob", bob, SECRET);
        } else {
            cluster.pass(LEASE + Duration::from_millis(1), &["ann"]);
        }
        assert_eq!(cluster.sent_to("ann"), ["everywhere 1"]);
    }
}

#[test]
fn a_node_that_is_back_asks_again_whether_it_is_everywhere() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.commit_everywhere("ann", object, MAIN, visits(1));
    let ann = cluster.lose("ann");
    cluster.come_back("ann", ann, SECRET);
    cluster.send("ann", ToCoordinator::AwaitEverywhere { seq: CommitSeq::from_bits(1) });
    assert_eq!(cluster.sent_to("ann"), ["welcome 1"]);
    cluster.send("bob", ToCoordinator::Barrier { barrier: BarrierId::from_bits(2) });
    assert_eq!(cluster.sent_to("ann"), ["everywhere 1"]);
}

#[test]
fn fates_are_remembered() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let incarnation = cluster.peer("ann").incarnation;
    cluster.commit("ann", object, MAIN, visits(1));
    cluster.release("ann", object, MAIN, false);
    cluster.commit("ann", object, MAIN, visits(2));
    cluster.sent_to("bob");
    assert_eq!(ask_fate(&mut cluster, incarnation, 1), "fate Applied");
    assert_eq!(ask_fate(&mut cluster, incarnation, 2), "fate NotApplied");
    assert_eq!(ask_fate(&mut cluster, incarnation, 3), "fate Unknown");
    cluster.lose("ann");
    assert_eq!(ask_fate(&mut cluster, incarnation, 3), "fate Unknown");
    cluster.pass(LEASE + Duration::from_millis(1), &["bob"]);
    assert_eq!(ask_fate(&mut cluster, incarnation, 1), "fate Applied");
    assert_eq!(ask_fate(&mut cluster, incarnation, 2), "fate NotApplied");
    assert_eq!(ask_fate(&mut cluster, incarnation, 3), "fate NotApplied");
    assert_eq!(ask_fate(&mut cluster, Incarnation::from_bits(99), 1), "fate Unknown");
}

#[test]
fn a_node_of_another_history_begins_anew() {
    let mut cluster = Cluster::with(Settings::new(EPOCH, "memory", "test"));
    let resume = Resume {
        epoch: Epoch::from_bits(EPOCH.to_bits() - 1),
        incarnation: Incarnation::from_bits(1),
        secret: SECRET,
        acked: CommitSeq::default(),
        lapsed: false,
        attempt: 1,
    };
    cluster.hello("ann", Hello { resume: Some(resume), ..Hello::new("ann", Role::Node) });
    let past = cluster.heard("ann").pop();
    assert!(matches!(past, Some(ToNode::Welcome { past: Past::Reset, .. })), "{past:?}");
}

#[test]
fn a_named_lock_goes_when_its_holder_does_not_name_it() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create_in("ann", super::cluster::NAMED_LOCKS, "l");
    let ann = cluster.lose("ann");
    assert!(cluster.slots(object).is_some());
    cluster.come_back("ann", ann, SECRET);
    cluster.send("ann", ToCoordinator::Resynced);
    assert!(cluster.slots(object).is_none());
}
