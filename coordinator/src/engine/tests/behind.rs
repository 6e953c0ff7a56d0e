//! Nodes that do not read what they are sent.

use super::super::Event;
use super::cluster::{Cluster, MAIN, SESSIONS, visits};
use kiln_protocol::message::WatchTarget;
use kiln_protocol::{BarrierId, ToCoordinator, WatchId};

const NOTHING: [&str; 0] = [];

/// Bob holds what ann changes, and is behind.
fn behind(keys: &[&str]) -> (Cluster, Vec<kiln_protocol::ObjectId>) {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let objects = keys.iter().map(|key| cluster.get_or_create("ann", key)).collect();
    for key in keys {
        cluster.fetch("bob", SESSIONS, key, None);
    }
    cluster.sent_to("bob");
    let session = cluster.peer("bob").session;
    cluster.event(Event::Behind { session });
    // What it has from here on is not what the coordinator has.
    cluster.peer("bob").copies.clear();
    (cluster, objects)
}

fn catches_up(cluster: &mut Cluster) {
    let session = cluster.peer("bob").session;
    cluster.event(Event::CaughtUp { session });
}

#[test]
fn a_node_that_is_behind_hears_once_which_objects_changed() {
    let (mut cluster, objects) = behind(&["s", "t", "u"]);
    for number in 1..=100 {
        cluster.commit("ann", objects[0], MAIN, visits(number));
    }
    cluster.commit("ann", objects[1], MAIN, visits(1));
    assert_eq!(cluster.sent_to("bob"), NOTHING);
    catches_up(&mut cluster);
    assert_eq!(cluster.sent_to("bob"), ["outdated s", "outdated t"]);
    cluster.commit("ann", objects[0], MAIN, visits(0));
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v101 visits"]);
}

#[test]
fn a_grant_comes_after_word_of_what_it_lacks() {
    let (mut cluster, objects) = behind(&["s"]);
    cluster.commit("ann", objects[0], MAIN, visits(1));
    cluster.write_lock("bob", objects[0]);
    cluster.release("ann", objects[0], MAIN, false);
    assert_eq!(cluster.sent_to("bob"), ["outdated s", "grant s/0 write#3"]);
    catches_up(&mut cluster);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
}

#[test]
fn a_barrier_comes_after_word_of_what_is_gone() {
    let (mut cluster, objects) = behind(&["s", "t"]);
    cluster.commit("ann", objects[1], MAIN, visits(1));
    cluster.commit_everywhere("ann", objects[0], MAIN, visits(1));
    assert_eq!(cluster.sent_to("bob"), ["outdated s", "outdated t", "barrier 1"]);
    cluster.send("bob", ToCoordinator::Barrier { barrier: BarrierId::from_bits(1) });
    assert_eq!(cluster.sent_to("ann").last().unwrap(), "everywhere 2");
}

#[test]
fn a_record_that_is_fetched_is_no_longer_outdated() {
    let (mut cluster, objects) = behind(&["s"]);
    cluster.commit("ann", objects[0], MAIN, visits(1));
    cluster.fetch("bob", SESSIONS, "s", None);
    assert_eq!(cluster.sent_to("bob"), ["outdated s", "fetched s 0v1 [visits=1]"]);
    catches_up(&mut cluster);
    assert_eq!(cluster.sent_to("bob"), NOTHING);
}

#[test]
fn a_watcher_that_is_behind_sees_a_gap() {
    let (mut cluster, objects) = behind(&["s"]);
    let (request, watch) = (cluster.request(), WatchId::from_bits(1));
    let target = WatchTarget::Root(SESSIONS);
    cluster.send("bob", ToCoordinator::Watch { request, watch, target, with_writes: false });
    cluster.sent_to("bob");
    for number in 1..=3 {
        cluster.commit("ann", objects[0], MAIN, visits(number));
    }
    catches_up(&mut cluster);
    assert_eq!(cluster.sent_to("bob"), ["outdated s", "event 1:  gap by the coordinator"]);
}
