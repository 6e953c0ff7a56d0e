//! A log that is full, and one that has room again.

use super::super::{Event, Settings};
use super::cluster::{CART_GROUP, Cluster, EPOCH, MAIN, SESSIONS, put, visits};
use super::kept::{self, Snapshots};
use kiln_protocol::connection::LEASE;
use kiln_protocol::message::Role;
use kiln_protocol::{CommitSeq, Failure};
use std::time::Duration;

#[test]
fn nothing_is_changed_while_the_log_is_full_and_the_rest_goes_on() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.commit("ann", s, MAIN, visits(1));
    cluster.sync();
    cluster.sent_to("ann");
    let before = cluster.log.len();
    cluster.event(Event::LogFull);
    cluster.commit("ann", s, MAIN, visits(2));
    cluster.commit("ann", s, CART_GROUP, put("k", "v"));
    let full = Failure::LogFull;
    let refused = |seq| format!("refused {seq}: {full}");
    assert_eq!(cluster.sent_to("ann"), [refused(2), "ack 2".to_owned(), refused(3), "ack 3".to_owned()]);
    cluster.insert("bob", "t", visits(1));
    cluster.fetch("bob", SESSIONS, "t", Some(visits(1)));
    cluster.rename("bob", "s", "t");
    cluster.write_lock("bob", s);
    cluster.fetch("bob", SESSIONS, "s", None);
    for group in [MAIN, CART_GROUP] {
        cluster.release("ann", s, group, false);
    }
    let failed = format!("failed: {full}");
    let heard = cluster.sent_to("bob");
    assert_eq!(heard.iter().filter(|said| **said == failed).count(), 3, "{heard:?}");
    assert!(heard.contains(&"fetched s 0v1 [visits=1]".to_owned()), "reads go on: {heard:?}");
    assert!(heard.iter().any(|said| said.starts_with("grant s/0 write")), "locks go on: {heard:?}");
    cluster.attach("cy", Role::Node);
    assert_eq!(cluster.sent_to("cy"), [format!("refused: {full}")]);
    assert_eq!(cluster.log.len(), before, "nothing is appended");
    cluster.event(Event::LogHasRoom);
    assert_eq!(cluster.log.len(), before + 1, "what was refused is one entry");
    cluster.commit("bob", s, MAIN, visits(3));
    cluster.sync();
    assert_eq!(cluster.acked("bob"), CommitSeq::from_bits(1));
    assert_eq!(cluster.sent_to("ann").last().unwrap(), "durable 3");
    kept::check(&mut cluster, &Snapshots::default());
}

#[test]
fn a_node_may_end_while_the_log_is_full() {
    let mut cluster = Cluster::logged(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.event(Event::LogFull);
    cluster.commit("ann", s, MAIN, visits(1));
    cluster.write_lock("bob", s);
    cluster.pass(LEASE + Duration::from_millis(1), &["bob"]);
    cluster.sync();
    assert!(cluster.sent_to("bob").iter().any(|said| said.starts_with("grant s/0 write")));
    kept::check(&mut cluster, &Snapshots::default());
}

#[test]
fn whoever_looks_may_attach_while_the_log_is_full_but_not_for_ever() {
    let mut cluster = Cluster::logged(&["ann"]);
    for _ in 0..2 {
        cluster.event(Event::LogFull);
        let before = cluster.log.len();
        let mut let_in = 0;
        loop {
            cluster.attach("eve", Role::Observer);
            cluster.sync();
            if cluster.sent_to("eve") == [format!("refused: {}", Failure::LogFull)] {
                break;
            }
            cluster.detach("eve");
            let_in += 1;
        }
        assert_eq!((let_in, cluster.log.len()), (128, before + 2 * 128));
        cluster.event(Event::LogHasRoom);
    }
    kept::check(&mut cluster, &Snapshots::default());
}

#[test]
fn what_waits_for_a_log_that_stalls_is_bounded_for_each_node() {
    const MOST: usize = 20_000;
    let settings = Settings { durable: true, held_bytes_max: MOST, ..Settings::new(EPOCH, "log", "test") };
    let mut cluster = Cluster::with(settings);
    cluster.join(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.sync();
    cluster.fetch("bob", SESSIONS, "s", None);
    // Numbers that a crash would take back: bob hears nothing before the log is safe.
    cluster.fetch("bob", SESSIONS, "t", Some(visits(1)));
    let bob = |cluster: &Cluster| {
        let bob = cluster.engine.nodes.iter().find(|(_, node)| node.name == "bob").unwrap().1;
        (bob.session().is_some(), bob.held_bytes)
    };
    let mut commits = 0;
    while bob(&cluster).0 {
        let before = bob(&cluster).1;
        commits += 1;
        cluster.commit("ann", s, MAIN, visits(commits));
        let after = bob(&cluster).1;
        assert!(after > before && after <= MOST || !bob(&cluster).0, "{before} to {after}");
    }
    assert!((20..MOST as u64 / 16).contains(&commits), "{commits}");
    assert_eq!(bob(&cluster).1, 0, "nothing waits for it any more");
    assert_eq!(cluster.acked("ann"), CommitSeq::from_bits(commits), "nobody else notices");
    cluster.sync();
    kept::check(&mut cluster, &Snapshots::default());
}

#[test]
fn a_named_lock_that_nobody_has_goes_once_there_is_room() {
    let mut cluster = Cluster::logged(&["ann"]);
    let lock = cluster.get_or_create_in("ann", super::cluster::NAMED_LOCKS, "l");
    cluster.event(Event::LogFull);
    cluster.forget("ann", lock);
    assert!(cluster.slots(lock).is_some());
    cluster.event(Event::LogHasRoom);
    assert!(cluster.slots(lock).is_none());
}
