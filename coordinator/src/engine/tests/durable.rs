//! What waits for the log, and what does not.

use super::cluster::{CART_GROUP, Cluster, MAIN, SESSIONS, put, theme, visits};
use kiln_protocol::connection::LEASE;
use kiln_protocol::message::{Mode, Role};
use kiln_protocol::{BarrierId, CommitSeq, Failure, ToCoordinator};
use std::time::Duration;

const NOTHING: [&str; 0] = [];

/// Ann made `s` and `t`, and bob holds both.
fn shared() -> (Cluster, kiln_protocol::ObjectId, kiln_protocol::ObjectId) {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let (s, t) = (cluster.get_or_create("ann", "s"), cluster.get_or_create("ann", "t"));
    for key in ["s", "t"] {
        cluster.fetch("bob", SESSIONS, key, None);
    }
    cluster.sent_to("ann");
    cluster.sent_to("bob");
    (cluster, s, t)
}

#[test]
fn a_durable_commit_is_shown_once_it_is_safe() {
    let (mut cluster, s, _) = shared();
    cluster.commit_durable("ann", &[s], MAIN, &visits(1));
    assert_eq!(cluster.sent_to("ann"), ["ack 1"], "it is ordered");
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.sync();
    assert_eq!(cluster.sent_to("ann"), ["durable 1"]);
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits"]);
}

#[test]
fn what_comes_after_it_in_its_group_waits_behind_it_and_nothing_else() {
    let (mut cluster, s, t) = shared();
    cluster.commit_durable("ann", &[s], MAIN, &visits(1));
    cluster.commit("ann", s, MAIN, visits(2));
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.commit("ann", s, CART_GROUP, put("k", "v"));
    cluster.commit("ann", t, MAIN, visits(3));
    assert_eq!(cluster.sent_to("bob"), ["delta s/1v1 cart", "delta t/0v1 visits"]);
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits", "delta s/0v2 visits"]);
    cluster.commit("ann", s, MAIN, visits(4));
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v3 visits"]);
    cluster.sync();
    assert_eq!(cluster.sent_to("ann").last().unwrap(), "durable 5");
}

#[test]
fn a_commit_over_several_groups_waits_for_each_and_takes_them_along() {
    let (mut cluster, s, t) = shared();
    cluster.commit_durable("ann", &[s], MAIN, &visits(1));
    let first = cluster.last_entry();
    let parts = [s, t].map(|object| cluster.part("ann", object, MAIN, theme("x")));
    cluster.commit_parts("ann", false, parts.into());
    cluster.commit("ann", t, MAIN, visits(2));
    assert_eq!(cluster.sent_to("bob"), NOTHING, "S11, S5");
    cluster.event(super::super::Event::Logged { seq: first });
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits", "delta s/0v2 theme, t/0v1 theme", "delta t/0v2 visits"]);
}

#[test]
fn a_lock_changes_hands_once_what_was_done_under_it_is_safe() {
    let (mut cluster, s, t) = shared();
    cluster.commit_durable("ann", &[s], MAIN, &visits(1));
    cluster.write_lock("bob", s);
    assert!(cluster.sent_to("ann").contains(&"recall s/0#1 for write".to_owned()), "asked for meanwhile");
    cluster.release("ann", s, MAIN, false);
    cluster.release("ann", t, MAIN, false);
    cluster.write_lock("bob", t);
    assert_eq!(cluster.sent_to("bob"), ["grant t/0 write#5"], "other objects do not wait");
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits", "grant s/0 write#6"]);
}

#[test]
fn an_operation_waits_like_a_node() {
    let (mut cluster, s, _) = shared();
    cluster.commit_durable("ann", &[s], MAIN, &visits(1));
    cluster.remove("bob", "s", false);
    for group in [MAIN, CART_GROUP] {
        cluster.release("ann", s, group, false);
    }
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits"]);
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["destroyed s", "yes"]);
}

#[test]
fn everywhere_is_durable_too() {
    let (mut cluster, s, _) = shared();
    cluster.commit_everywhere("ann", s, MAIN, visits(1));
    assert_eq!(cluster.sent_to("ann"), ["ack 1"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits", "barrier 1"]);
    cluster.send("bob", ToCoordinator::Barrier { barrier: BarrierId::from_bits(1) });
    assert_eq!(cluster.sent_to("ann"), ["durable 1", "everywhere 1"]);
}

#[test]
fn who_asks_again_for_everywhere_waits_for_the_log_as_well() {
    let (mut cluster, s, _) = shared();
    cluster.commit_everywhere("ann", s, MAIN, visits(1));
    let ann = cluster.lose("ann");
    cluster.come_back("ann", ann, super::cluster::SECRET);
    let seq = CommitSeq::from_bits(1);
    cluster.send("ann", ToCoordinator::AwaitEverywhere { seq });
    assert_eq!((cluster.sent_to("ann"), cluster.sent_to("bob")), (vec!["welcome 1".to_owned()], vec![]));
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits", "barrier 1"]);
    cluster.send("bob", ToCoordinator::Barrier { barrier: BarrierId::from_bits(1) });
    assert_eq!(cluster.sent_to("ann"), ["durable 1", "everywhere 1"]);
}

#[test]
fn in_memory_no_commit_is_durable() {
    let mut cluster = Cluster::of(&["ann"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.commit_durable("ann", &[s], MAIN, &visits(1));
    assert_eq!(cluster.sent_to("ann"), [format!("refused 1: {}", Failure::NotDurable), "ack 1".to_owned()]);
}

#[test]
fn nobody_hears_of_a_number_that_a_crash_could_take_back() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    cluster.attach("cy", Role::Node);
    assert_eq!(cluster.sent_to("cy"), NOTHING);
    cluster.sync();
    assert_eq!(cluster.sent_to("cy"), ["welcome 3"]);
    cluster.fetch("ann", SESSIONS, "new", Some(visits(0)));
    cluster.fetch("bob", SESSIONS, "new", None);
    cluster.fetch("cy", SESSIONS, "none", None);
    for name in ["ann", "bob", "cy"] {
        assert_eq!(cluster.sent_to(name), NOTHING);
    }
    cluster.sync();
    assert!(cluster.sent_to("ann")[0].starts_with("created"));
    assert!(cluster.sent_to("bob")[0].starts_with("fetched"));
    assert_eq!(cluster.sent_to("cy"), ["absent"]);
}

#[test]
fn nobody_gets_a_lock_of_a_node_whose_end_is_not_safe() {
    let (mut cluster, s, _) = shared();
    cluster.write_lock("bob", s);
    cluster.pass(LEASE + Duration::from_millis(1), &["bob"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    // A lock that nobody waited for as well.
    cluster.acquire("bob", s, CART_GROUP, Mode::Write);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#5", "grant s/1 write#6"]);
}

#[test]
fn a_node_that_is_back_hears_what_is_safe() {
    let (mut cluster, s, _) = shared();
    cluster.commit_durable("ann", &[s], MAIN, &visits(1));
    let ann = cluster.lose("ann");
    cluster.sync();
    cluster.come_back("ann", ann, super::cluster::SECRET);
    assert_eq!(cluster.sent_to("ann"), ["welcome 1", "durable 1"]);
    assert_eq!(cluster.acked("ann"), CommitSeq::from_bits(1));
}

#[test]
fn a_record_with_a_commit_that_is_not_shown_yet_outdates_what_else_that_changed() {
    let (mut cluster, s, t) = shared();
    cluster.forget("bob", s);
    cluster.commit_durable("ann", &[s, t], MAIN, &visits(1));
    cluster.fetch("bob", SESSIONS, "s", None);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.sync();
    let told = cluster.sent_to("bob");
    assert_eq!(told.first().unwrap(), "outdated t", "S11: {told:?}");
    assert!(told[1].starts_with("fetched s"), "{told:?}");
}
