//! Faulting objects in, and what can be asked about keys.

use super::cluster::{CART_GROUP, Cluster, MAIN, NAMED_LOCKS, SESSIONS, theme, visits};
use bytes::Bytes;
use kiln_protocol::message::{Mode, Role};
use kiln_protocol::{RootId, ToCoordinator, ToNode};

#[test]
fn a_fetch_finds_or_makes_or_says_so() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    cluster.fetch("ann", SESSIONS, "s", None);
    assert_eq!(cluster.sent_to("ann"), ["absent"]);
    cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", Some(visits(9)));
    assert_eq!(cluster.sent_to("bob"), ["fetched s [visits=0]"]);
}

#[test]
fn ids_are_never_given_again() {
    let mut cluster = Cluster::of(&["ann"]);
    let first = cluster.lone("ann", "s");
    cluster.remove("ann", "s", false);
    let second = cluster.lone("ann", "s");
    assert_eq!((first.sequence(), second.sequence()), (1, 2));
    assert_eq!(first.partition(), second.partition());
}

#[test]
fn a_new_object_is_checked_like_any() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.fetch("ann", SESSIONS, "s", Some(super::cluster::clicks(1)));
    cluster.fetch("ann", SESSIONS, "s", Some(Bytes::from_static(&[7])));
    cluster.fetch("ann", RootId::from_bits(99), "s", Some(visits(1)));
    cluster.fetch("ann", SESSIONS, &"k".repeat(2000), None);
    assert_eq!(
        cluster.sent_to("ann"),
        [
            "failed: object 1.1650, field 3: the field is a counter, which does not take this write",
            "failed: protocol violation: a new object of root sessions: a slot write has unknown kind 7",
            "failed: root 99 does not exist",
            "failed: the length of a key in bytes is 2000, the limit is 1024",
        ]
    );
    assert_eq!(cluster.engine.totals().objects, 0);
}

#[test]
fn a_record_holds_each_slot_once_and_in_order() {
    let mut cluster = Cluster::of(&["ann"]);
    let create = [theme("a"), visits(1), theme("b"), super::cluster::put("k", "v")].concat();
    cluster.fetch("ann", SESSIONS, "s", Some(create.into()));
    let Some(ToNode::Fetched { record, .. }) = cluster.heard("ann").pop() else {
        panic!("not made");
    };
    assert_eq!(record.writes, [visits(1), theme("b"), super::cluster::put("k", "v")].concat());
}

#[test]
fn a_stale_copy_is_made_good() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.commit("ann", object, MAIN, visits(2));
    let request = cluster.request();
    cluster.send("bob", ToCoordinator::Refetch { request, object });
    cluster.forget("ann", object);
    cluster.remove("ann", "s", false);
    cluster.send("bob", ToCoordinator::Refetch { request, object });
    assert_eq!(
        cluster.sent_to("bob"),
        ["fetched s 0v1 [visits=2]", "destroyed s", "failed: object 1.1650 does not exist (it may have been removed)"]
    );
}

#[test]
fn a_look_leaves_no_interest() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.attach("tool", Role::Observer);
    let object = cluster.get_or_create("ann", "s");
    for key in ["s", "t"] {
        let request = cluster.request();
        let key = Bytes::from_static(key.as_bytes());
        cluster.send("tool", ToCoordinator::Peek { request, root: SESSIONS, key });
    }
    cluster.commit("ann", object, MAIN, visits(2));
    assert_eq!(cluster.sent_to("tool"), ["welcome 2", "fetched s [visits=0]", "absent"]);
}

#[test]
fn keys_come_in_order_and_in_pages() {
    let mut cluster = Cluster::of(&["ann"]);
    for number in [5, 3, 9, 1, 7] {
        cluster.lone("ann", &format!("k{number}"));
    }
    let mut page = |after: Option<&str>, limit| {
        let request = cluster.request();
        let after = after.map(|after| Bytes::copy_from_slice(after.as_bytes()));
        let message = ToCoordinator::Keys { request, root: SESSIONS, after, limit };
        cluster.sent_to("ann");
        cluster.send("ann", message);
        cluster.sent_to("ann").pop().unwrap()
    };
    assert_eq!(page(None, 2), "keys k1 k3 ..");
    assert_eq!(page(Some("k3"), 2), "keys k5 k7 ..");
    assert_eq!(page(Some("k8"), 2), "keys k9");
    assert_eq!(page(Some("k9"), 2), "keys ");
    assert_eq!(page(None, 0), "keys k1 ..");
    assert_eq!(page(None, u32::MAX), "keys k1 k3 k5 k7 k9");
}

#[test]
fn contains_tells() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.lone("ann", "s");
    for key in ["s", "t"] {
        let request = cluster.request();
        let key = Bytes::from_static(key.as_bytes());
        let message = ToCoordinator::Contains { request, root: SESSIONS, key };
        cluster.send("ann", message);
    }
    assert_eq!(cluster.sent_to("ann"), ["yes", "no"]);
}

#[test]
fn what_was_forgotten_is_heard_of_no_more() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.write_lock("bob", object);
    cluster.sent_to("bob");
    // Its grants go with it.
    cluster.forget("ann", object);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
    cluster.sent_to("ann");
    cluster.commit("bob", object, MAIN, visits(1));
    assert_eq!(cluster.sent_to("ann"), Vec::<String>::new());
}

#[test]
fn an_ephemeral_object_goes_with_the_last_who_cares() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create_in("ann", NAMED_LOCKS, "lock");
    cluster.acquire("bob", object, MAIN, Mode::Write);
    cluster.forget("ann", object);
    assert_eq!(cluster.sent_to("bob"), ["grant lock/0 write#3"]);
    assert_eq!(cluster.engine.totals().objects, 1);
    cluster.release("bob", object, MAIN, false);
    assert_eq!(cluster.engine.totals().objects, 0);
    assert!(cluster.engine.ephemeral.is_empty());
}

#[test]
fn an_ephemeral_object_goes_with_a_node_that_leaves() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create_in("ann", NAMED_LOCKS, "lock");
    cluster.acquire("bob", object, CART_GROUP, Mode::Write);
    cluster.detach("ann");
    assert_eq!(cluster.sent_to("bob"), ["grant lock/1 write#3"]);
    cluster.detach("bob");
    assert_eq!(cluster.engine.totals().objects, 0);
}
