//! A coordinator that is started again with what its log has, and the nodes that come back to it.

use super::super::{LogSeq, Settings};
use super::cluster::{
    CART_GROUP, Cluster, EPOCH, MAIN, NAMED_LOCKS, Peer, SECRET, SESSIONS, clicks, put, theme, visits,
};
use super::kept::{next_settings, replayed};
use bytes::Bytes;
use kiln_protocol::connection::{LEASE, RECONNECT_WINDOW};
use kiln_protocol::message::{Commit, Mode, Part, Role};
use kiln_protocol::{CommitSeq, Failure, GroupId, ObjectId, Secret, ToCoordinator, Token, Version};
use std::collections::BTreeMap;
use std::time::Duration;

const NOTHING: [&str; 0] = [];
const TICK: Duration = Duration::from_millis(1);

/// The nodes of a coordinator that has died.
type Lost = BTreeMap<String, Peer>;

fn settings() -> Settings {
    Settings { durable: true, ..next_settings() }
}

/// The coordinator dies, and is started again with the log up to an entry.
fn crash_at(cluster: Cluster, last: LogSeq) -> (Cluster, Lost) {
    let mut again = Cluster::restored(replayed(&cluster.log, last), settings());
    again.last_session = cluster.last_session;
    again.names = cluster.names;
    (again, cluster.peers)
}

fn crash(cluster: Cluster) -> (Cluster, Lost) {
    let last = cluster.last_entry();
    crash_at(cluster, last)
}

fn back(cluster: &mut Cluster, lost: &mut Lost, name: &str) {
    cluster.come_back(name, lost.remove(name).unwrap(), SECRET);
    cluster.sync();
}

fn resynced(cluster: &mut Cluster, name: &str) {
    cluster.send(name, ToCoordinator::Resynced);
    cluster.sync();
}

fn write_grant(lost: &Lost, name: &str, object: ObjectId) -> (Mode, Token) {
    lost[name].grants[&(object, MAIN)]
}

fn resend(cluster: &mut Cluster, name: &str, part: &Part) {
    cluster
        .send(name, ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: [part.clone()].into() }));
    cluster.sync();
}

fn revalidate(cluster: &mut Cluster, name: &str, object: ObjectId, key: &'static str, version: Version) {
    let (key, versions) = (Bytes::from_static(key.as_bytes()), vec![(MAIN, version)]);
    cluster.send(name, ToCoordinator::Revalidate { object, key, versions });
}

#[test]
fn a_node_goes_on_as_what_it_was_and_keeps_its_locks() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.commit("ann", s, MAIN, visits(1));
    cluster.sync();
    let (mut cluster, mut lost) = crash(cluster);
    let grant = write_grant(&lost, "ann", s);
    back(&mut cluster, &mut lost, "bob");
    assert_eq!(cluster.sent_to("bob"), ["welcome 2"]);
    cluster.write_lock("bob", s);
    resynced(&mut cluster, "bob");
    assert_eq!(cluster.sent_to("bob"), ["resynced"], "somebody may have it");
    back(&mut cluster, &mut lost, "ann");
    assert_eq!(cluster.sent_to("ann"), ["welcome 1", "durable 1"]);
    cluster.reassert("ann", s, grant);
    let part = Part { version: Version::new(EPOCH, 2).unwrap(), ..cluster.part("ann", s, MAIN, visits(2)) };
    resynced(&mut cluster, "ann");
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for write", "resynced"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    // Under the grant of the last epoch.
    resend(&mut cluster, "ann", &part);
    assert_eq!(cluster.sent_to("ann"), ["ack 2", "durable 2"]);
    cluster.release("ann", s, MAIN, false);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#1"]);
    let (_, token) = cluster.peer("bob").grants[&(s, MAIN)];
    assert!(token > grant.1, "S1: {token} after {}", grant.1);
}

#[test]
fn the_window_ends_with_the_last_node_that_can_have_something() {
    let mut cluster = Cluster::logged(&["ann", "bob", "cy"]);
    let s = cluster.get_or_create("ann", "s");
    let (mut cluster, mut lost) = crash(cluster);
    back(&mut cluster, &mut lost, "bob");
    resynced(&mut cluster, "bob");
    cluster.write_lock("bob", s);
    cluster.sent_to("bob");
    cluster.pass(LEASE, &["bob"]);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.pass(TICK, &["bob"]);
    // Dead, and logged as such, before the lock goes to another.
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#1"]);
    let grant = write_grant(&lost, "ann", s);
    back(&mut cluster, &mut lost, "ann");
    assert_eq!(cluster.sent_to("ann"), ["welcome 4"], "too late, it is somebody else");
    cluster.reassert("ann", s, grant);
    assert_eq!(cluster.sent_to("ann"), ["lost s/0#1"]);
}

#[test]
fn a_node_that_does_not_say_what_it_holds_is_not_heard_for_ever() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    let (mut cluster, mut lost) = crash(cluster);
    back(&mut cluster, &mut lost, "ann");
    back(&mut cluster, &mut lost, "bob");
    resynced(&mut cluster, "bob");
    cluster.write_lock("bob", s);
    for _ in 0..2 {
        cluster.pass(RECONNECT_WINDOW / 2, &["ann", "bob"]);
    }
    cluster.sent_to("bob");
    cluster.now += TICK;
    for _ in 0..2 {
        cluster.send("ann", ToCoordinator::Heartbeat { number: 9 });
        assert!(!cluster.sent_to("ann").contains(&"heartbeat 9".to_owned()), "its lease is not renewed");
        cluster.pass(LEASE / 2 + TICK, &["bob"]);
    }
    cluster.sync();
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#1"]);
}

#[test]
fn what_the_crash_took_is_sent_again_in_the_order_it_was_made() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.sync();
    let kept = cluster.last_entry();
    let anns = cluster.part("ann", s, MAIN, visits(1));
    cluster.commit("ann", s, MAIN, visits(1));
    cluster.release("ann", s, MAIN, false);
    cluster.write_lock("bob", s);
    let bobs = cluster.part("bob", s, MAIN, visits(2));
    cluster.commit("bob", s, MAIN, visits(2));
    assert_eq!((cluster.acked("ann"), cluster.acked("bob")), (CommitSeq::from_bits(1), CommitSeq::from_bits(1)));
    let (mut cluster, mut lost) = crash_at(cluster, kept);
    let grant = write_grant(&lost, "bob", s);
    // Bob's comes first, and stalls what he says behind it.
    back(&mut cluster, &mut lost, "bob");
    assert_eq!(cluster.sent_to("bob"), ["welcome 2"]);
    resend(&mut cluster, "bob", &bobs);
    cluster.send("bob", ToCoordinator::Reassert { object: s, group: MAIN, token: grant.1, mode: grant.0 });
    resynced(&mut cluster, "bob");
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    back(&mut cluster, &mut lost, "ann");
    resend(&mut cluster, "ann", &anns);
    assert_eq!(cluster.sent_to("ann"), ["welcome 1", "ack 1", "durable 1"]);
    assert_eq!(cluster.sent_to("bob"), ["ack 1", "resynced", "durable 1"], "nothing acknowledged is lost");
    assert_eq!(cluster.slots(s), Some(super::copy::Slots::of(&visits(2))));
}

#[test]
fn what_nobody_has_any_more_is_not_waited_for_for_ever() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.sync();
    let kept = cluster.last_entry();
    cluster.commit("ann", s, MAIN, visits(1));
    cluster.release("ann", s, MAIN, false);
    cluster.write_lock("bob", s);
    cluster.fetch("bob", SESSIONS, "s", None);
    let bobs = cluster.part("bob", s, MAIN, visits(2));
    let (mut cluster, mut lost) = crash_at(cluster, kept);
    back(&mut cluster, &mut lost, "bob");
    cluster.sent_to("bob");
    resend(&mut cluster, "bob", &bobs);
    for _ in 0..3 {
        cluster.pass(LEASE / 2, &["bob"]);
    }
    cluster.sync();
    assert!(cluster.sent_to("bob")[0].starts_with("refused 1: group 0 of object"), "ann died with her commit");
}

#[test]
fn a_token_below_one_that_has_written_is_worth_nothing() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    let grant = cluster.peers["ann"].grants[&(s, MAIN)];
    let stale = cluster.part("ann", s, MAIN, theme("stale"));
    cluster.release("ann", s, MAIN, false);
    cluster.write_lock("bob", s);
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.commit("bob", s, MAIN, visits(1));
    cluster.sync();
    let (mut cluster, mut lost) = crash(cluster);
    back(&mut cluster, &mut lost, "ann");
    cluster.sent_to("ann");
    // As no node does that keeps to the protocol.
    let stale = Part { version: Version::new(EPOCH, 2).unwrap(), ..stale };
    resend(&mut cluster, "ann", &stale);
    assert!(cluster.sent_to("ann")[0].contains("is not the current one"), "S2");
    cluster.reassert("ann", s, grant);
    assert_eq!(cluster.sent_to("ann"), ["lost s/0#1"]);
}

#[test]
fn of_two_who_name_one_lock_the_later_has_it() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    let stale = cluster.peers["ann"].grants[&(s, MAIN)];
    cluster.release("ann", s, MAIN, false);
    cluster.write_lock("bob", s);
    let (mut cluster, mut lost) = crash(cluster);
    let grant = write_grant(&lost, "bob", s);
    for name in ["ann", "bob"] {
        back(&mut cluster, &mut lost, name);
        cluster.sent_to(name);
    }
    cluster.reassert("ann", s, stale);
    assert_eq!(cluster.sent_to("ann"), NOTHING);
    cluster.reassert("bob", s, grant);
    assert_eq!((cluster.sent_to("ann"), cluster.sent_to("bob")), (vec!["lost s/0#1".to_owned()], vec![]));
    // Nor a grant that no earlier life can have given.
    cluster.reassert("ann", s, (Mode::Write, Token::new(EPOCH.next(), 1).unwrap()));
    assert_eq!(cluster.sent_to("ann"), ["lost s/0#1"]);
}

#[test]
fn a_version_that_may_come_again_is_no_step_back() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let (s, t) = (cluster.get_or_create("ann", "s"), cluster.get_or_create("bob", "t"));
    let kept = cluster.last_entry();
    let part = cluster.part("ann", s, MAIN, visits(1));
    cluster.commit("ann", s, MAIN, visits(1));
    cluster.commit("ann", t, MAIN, visits(1));
    let (mut cluster, mut lost) = crash_at(cluster, kept);
    back(&mut cluster, &mut lost, "bob");
    cluster.sent_to("bob");
    let one = Version::new(EPOCH, 1).unwrap();
    revalidate(&mut cluster, "bob", s, "s", one);
    revalidate(&mut cluster, "bob", t, "t", one);
    resynced(&mut cluster, "bob");
    assert_eq!(cluster.sent_to("bob"), ["resynced"]);
    back(&mut cluster, &mut lost, "ann");
    resend(&mut cluster, "ann", &part);
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits"], "which it has");
    resynced(&mut cluster, "ann");
    // And nobody sent the other.
    assert_eq!(cluster.sent_to("bob"), ["outdated t"]);
    // What is behind is outdated at once.
    revalidate(&mut cluster, "bob", s, "s", Version::default());
    assert_eq!(cluster.sent_to("bob"), ["outdated s"]);
}

#[test]
fn who_has_half_of_a_lost_commit_does_not_see_the_other_half_without_it() {
    for comes_back in [true, false] {
        let mut cluster = Cluster::logged(&["ann", "bob"]);
        let (s, t) = (cluster.get_or_create("ann", "s"), cluster.get_or_create("ann", "t"));
        let kept = cluster.last_entry();
        let parts = [cluster.part("ann", s, MAIN, visits(1)), cluster.part("ann", t, MAIN, visits(1))];
        cluster.commit_parts("ann", false, parts.to_vec());
        let (mut cluster, mut lost) = crash_at(cluster, kept);
        back(&mut cluster, &mut lost, "bob");
        cluster.sent_to("bob");
        revalidate(&mut cluster, "bob", s, "s", Version::new(EPOCH, 1).unwrap());
        cluster.fetch("bob", SESSIONS, "t", None);
        resynced(&mut cluster, "bob");
        assert_eq!(cluster.sent_to("bob"), ["resynced"]);
        // What nobody had before it sees at once.
        cluster.fetch("bob", SESSIONS, "u", Some(Bytes::new()));
        cluster.sync();
        assert_eq!(cluster.sent_to("bob").len(), 1);
        if comes_back {
            back(&mut cluster, &mut lost, "ann");
            cluster.commit_parts("ann", false, parts.to_vec());
            cluster.sync();
            let told = cluster.sent_to("bob");
            assert_eq!(told.first().unwrap(), "delta s/0v1 visits", "{told:?}");
            assert!(told.len() == 2 && told[1].starts_with("fetched t"), "{told:?}");
        } else {
            cluster.pass(LEASE, &["bob"]);
            cluster.pass(TICK, &["bob"]);
            cluster.sync();
            let told = cluster.sent_to("bob");
            assert_eq!(told.first().unwrap(), "outdated s", "{told:?}");
            assert!(told.len() == 2 && told[1].starts_with("fetched t"), "{told:?}");
        }
    }
}

#[test]
fn only_who_knows_its_secret_goes_on_as_an_incarnation() {
    let mut cluster = Cluster::logged(&["ann"]);
    cluster.get_or_create("ann", "s");
    let (mut cluster, mut lost) = crash(cluster);
    let ann = lost.remove("ann").unwrap();
    let incarnation = ann.incarnation;
    cluster.come_back("ann", ann, Secret::from_bytes([9; 16]));
    assert_eq!(cluster.peer("ann").closed, Some(Some(Failure::BadSecret { incarnation })));
}

#[test]
fn a_named_lock_is_kept_by_who_names_it_and_forgotten_otherwise() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let (a, b) = (cluster.get_or_create_in("ann", NAMED_LOCKS, "a"), cluster.get_or_create_in("bob", NAMED_LOCKS, "b"));
    let (mut cluster, mut lost) = crash(cluster);
    let grant = write_grant(&lost, "ann", a);
    back(&mut cluster, &mut lost, "bob");
    resynced(&mut cluster, "bob");
    assert!(cluster.slots(b).is_some(), "who may have it?");
    back(&mut cluster, &mut lost, "ann");
    cluster.reassert("ann", a, grant);
    resynced(&mut cluster, "ann");
    assert_eq!((cluster.slots(a).is_some(), cluster.slots(b).is_some()), (true, false));
}

#[test]
fn what_was_refused_before_is_told_without_the_reason() {
    let mut cluster = Cluster::logged(&["ann"]);
    let s = cluster.get_or_create("ann", "s");
    let ann = cluster.lose("ann");
    let session = ann.session;
    cluster.come_back("ann", ann, SECRET);
    cluster.commit_parts("ann", false, vec![]);
    cluster.commit("ann", s, GroupId::COMMUTATIVE, clicks(1));
    let (mut cluster, mut lost) = crash(cluster);
    assert_ne!(lost["ann"].session, session);
    lost.get_mut("ann").unwrap().acked = CommitSeq::default();
    back(&mut cluster, &mut lost, "ann");
    let refused = format!("refused 1: {}", Failure::Forgotten);
    assert_eq!(cluster.sent_to("ann"), ["welcome 1".to_owned(), refused, "ack 2".to_owned(), "durable 2".to_owned()]);
}

#[test]
fn a_node_that_is_not_back_may_still_show_what_was() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    let (mut cluster, mut lost) = crash(cluster);
    let grant = write_grant(&lost, "ann", s);
    back(&mut cluster, &mut lost, "ann");
    cluster.reassert("ann", s, grant);
    resynced(&mut cluster, "ann");
    cluster.sent_to("ann");
    let part = Part { version: Version::new(EPOCH, 1).unwrap(), ..cluster.part("ann", s, MAIN, visits(1)) };
    cluster.commit_parts("ann", true, vec![part]);
    cluster.sync();
    cluster.remove("ann", "s", true);
    cluster.release("ann", s, MAIN, false);
    cluster.sync();
    assert_eq!(cluster.sent_to("ann"), ["ack 1", "durable 1", "recall s/0#1 for write"]);
    back(&mut cluster, &mut lost, "bob");
    assert_eq!(cluster.sent_to("ann"), ["everywhere 1"], "it trusts nothing until it has compared");
    resynced(&mut cluster, "bob");
    assert_eq!(cluster.sent_to("ann").last().unwrap(), "yes");
}

#[test]
fn observers_do_not_come_back() {
    let mut cluster = Cluster::logged(&["ann"]);
    cluster.attach("eve", Role::Observer);
    cluster.get_or_create("ann", "s");
    let (mut cluster, mut lost) = crash(cluster);
    back(&mut cluster, &mut lost, "ann");
    assert_eq!(cluster.engine.totals().nodes, 1);
}

#[test]
fn locks_of_what_is_new_do_not_wait() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    let (mut cluster, mut lost) = crash(cluster);
    back(&mut cluster, &mut lost, "bob");
    resynced(&mut cluster, "bob");
    let new = cluster.get_or_create("bob", "new");
    cluster.commit("bob", new, CART_GROUP, put("k", "v"));
    cluster.attach("cy", Role::Node);
    cluster.sync();
    cluster.write_lock("cy", new);
    cluster.write_lock("cy", s);
    cluster.release("bob", new, MAIN, false);
    assert_eq!(cluster.sent_to("cy"), ["welcome 3", "grant new/0 write#3"]);
}
