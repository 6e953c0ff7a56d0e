//! Insert, remove and rename.

use super::super::Event;
use super::cluster::{CART_GROUP, Cluster, MAIN, SESSIONS, visits};
use kiln_protocol::message::Mode;
use kiln_protocol::{ToCoordinator, ToNode};

#[test]
fn an_insert_on_a_free_key_is_at_once() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.insert("ann", "s", visits(4));
    assert_eq!(cluster.sent_to("ann"), ["created object 1.1650 [visits=4] 0#1 1#2"]);
}

#[test]
fn an_insert_over_an_object_takes_its_locks_first() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let old = cluster.get_or_create("ann", "s");
    cluster.insert("bob", "s", visits(4));
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for write"]);
    // What was under way still counts.
    cluster.commit("ann", old, MAIN, visits(1));
    cluster.release("ann", old, MAIN, false);
    assert_eq!(cluster.sent_to("ann"), ["ack 1", "recall s/1#2 for write"]);
    assert_eq!(cluster.sent_to("bob"), Vec::<String>::new());
    cluster.release("ann", old, CART_GROUP, false);
    assert_eq!(cluster.sent_to("ann"), ["destroyed s"]);
    assert_eq!(cluster.sent_to("bob"), ["created object 2.1650 [visits=4] 0#5 1#6"]);
}

#[test]
fn what_is_given_up_is_not_done_later() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.remove("bob", "s", false);
    let remove = cluster.last_request();
    cluster.insert("bob", "s", visits(4));
    let insert = cluster.last_request();
    for request in [remove, insert, remove] {
        cluster.send("bob", ToCoordinator::GiveUp { request });
    }
    let given_up = "failed: it was given up before it was done";
    assert_eq!(cluster.sent_to("bob"), [given_up, given_up]);
    cluster.release("ann", object, MAIN, false);
    cluster.release("ann", object, CART_GROUP, false);
    assert!(cluster.slots(object).is_some());
    // Too late, it changes nothing.
    cluster.remove("bob", "s", false);
    let request = cluster.last_request();
    cluster.send("bob", ToCoordinator::GiveUp { request });
    assert_eq!(cluster.sent_to("bob"), ["yes"]);
}

#[test]
fn a_removal_fails_who_waits() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.remove("cy", "s", false);
    cluster.write_lock("bob", object);
    cluster.forget("ann", object);
    assert_eq!(
        cluster.sent_to("bob"),
        ["fetched s [visits=0]", "destroyed s", "no lock s/0: object 1.1650 does not exist (it may have been removed)"]
    );
    assert_eq!(cluster.sent_to("cy"), ["yes"]);
    cluster.remove("cy", "s", false);
    assert_eq!(cluster.sent_to("cy"), ["no"]);
}

#[test]
fn a_rename_moves_the_same_object() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("ann", "s");
    cluster.fetch("ann", SESSIONS, "s", None);
    cluster.sent_to("ann");
    cluster.rename("bob", "s", "t");
    assert_eq!(cluster.sent_to("bob"), ["yes"]);
    assert_eq!(cluster.sent_to("ann"), ["renamed s t"]);
    cluster.fetch("bob", SESSIONS, "s", None);
    assert_eq!(cluster.sent_to("bob"), ["absent"]);
    assert_eq!(cluster.get_or_create("bob", "t"), object);
    // It is usable as before.
    cluster.write_lock("bob", object);
    cluster.commit("bob", object, MAIN, visits(1));
    assert_eq!(cluster.sent_to("ann"), ["delta t/0v1 visits"]);
}

#[test]
fn a_rename_onto_a_taken_key_fails() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.lone("ann", "s");
    cluster.lone("ann", "t");
    cluster.rename("ann", "s", "t");
    cluster.rename("ann", "s", "s");
    cluster.rename("ann", "u", "v");
    assert_eq!(cluster.sent_to("ann"), ["failed: the new key already has an object", "yes", "no"]);
    // Its locks are free again.
    cluster.write_lock("ann", object);
    assert!(cluster.sent_to("ann")[0].starts_with("grant s/0 write"));
}

#[test]
fn a_key_that_is_taken_while_a_rename_waits_is_noticed() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.rename("bob", "s", "t");
    cluster.lone("ann", "t");
    cluster.release("ann", object, MAIN, false);
    cluster.release("ann", object, CART_GROUP, false);
    assert_eq!(cluster.sent_to("bob"), ["failed: the new key already has an object"]);
}

#[test]
fn operations_on_one_key_take_turns() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy", "dee"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.insert("bob", "s", visits(1));
    cluster.rename("cy", "s", "t");
    cluster.remove("dee", "s", false);
    cluster.forget("ann", object);
    // Ann's object gives way to Bob's; Cy's rename then has to ask Bob, who has its locks.
    let heard = cluster.heard("bob");
    let ToNode::Fetched { record, .. } = &heard[0] else { panic!("{heard:?}") };
    let second = record.object;
    assert!(matches!(heard[1], ToNode::Recall { .. }), "{heard:?}");
    cluster.call(second, "second");
    cluster.forget("bob", second);
    assert_eq!(cluster.sent_to("cy"), ["yes"]);
    // Dee's removal waited longest and finds nothing any more.
    assert_eq!(cluster.sent_to("dee"), ["no"]);
    assert_eq!(cluster.get_or_create("dee", "t"), second);
}

#[test]
fn an_operation_whose_node_leaves_lets_go() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    let object = cluster.lone("ann", "s");
    cluster.acquire("ann", object, CART_GROUP, Mode::Write);
    cluster.remove("bob", "s", false);
    cluster.write_lock("cy", object);
    assert_eq!(cluster.sent_to("cy"), Vec::<String>::new());
    cluster.detach("bob");
    assert_eq!(cluster.sent_to("cy"), ["grant s/0 write#5"]);
    cluster.release("ann", object, CART_GROUP, false);
    assert_eq!(cluster.engine.totals().objects, 1);
}

#[test]
fn a_node_that_leaves_makes_way_for_an_operation() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    cluster.get_or_create("ann", "s");
    cluster.remove("bob", "s", true);
    cluster.detach("ann");
    assert_eq!(cluster.sent_to("bob"), ["yes"]);
}

#[test]
fn an_insert_that_is_refused_in_the_end_has_removed_nothing() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let s = cluster.get_or_create("ann", "s");
    cluster.insert("bob", "s", visits(7));
    cluster.event(Event::Stop);
    cluster.sent_to("bob");
    cluster.detach("ann");
    assert!(cluster.sent_to("bob").iter().any(|said| said.starts_with("failed")), "it is told");
    assert!(cluster.slots(s).is_some());
}
