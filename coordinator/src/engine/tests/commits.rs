//! Commits, deltas and acknowledgements.

use super::super::Settings;
use super::super::grants::Locks;
use super::cluster::{
    CART, CART_GROUP, CLICKS, Cluster, EPOCH, MAIN, SESSIONS, THEME, VISITS, clicks, put, theme, version, visits,
    writes,
};
use super::copy::Slots;
use bytes::Bytes;
use kiln_protocol::message::{Commit, Mode, Role};
use kiln_protocol::{GroupId, ObjectId, ToCoordinator, Token, Write};
use std::time::Duration;

#[test]
fn a_commit_reaches_who_holds_the_object_and_is_acknowledged() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    assert_eq!(cluster.sent_to("bob"), ["fetched s [visits=0]"]);
    cluster.commit("ann", object, MAIN, visits(1));
    assert_eq!(cluster.sent_to("ann"), ["ack 1"]);
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits"]);
    assert_eq!(cluster.sent_to("cy"), Vec::<String>::new());
    cluster.fetch("cy", SESSIONS, "s", None);
    assert_eq!(cluster.sent_to("cy"), ["fetched s 0v1 [visits=1]"]);
}

#[test]
fn a_hundred_commits_of_a_batch_have_one_acknowledgement() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    let commits = (1..=100).map(|number| {
        let mut part = cluster.part("ann", object, MAIN, visits(number));
        part.version = version(number);
        ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: vec![part].into() })
    });
    let commits = commits.collect();
    cluster.batch("ann", commits);
    assert_eq!(cluster.sent_to("ann"), ["ack 100"]);
}

#[test]
fn an_acknowledgement_is_never_overtaken_by_a_record() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    let commit = Commit {
        everywhere: false,
        durable: false,
        parts: vec![cluster.part("ann", object, GroupId::COMMUTATIVE, clicks(5))].into(),
    };
    let request = cluster.request();
    cluster.batch("ann", vec![ToCoordinator::Commit(commit), ToCoordinator::Refetch { request, object }]);
    assert_eq!(cluster.sent_to("ann"), ["ack 1", "fetched s 255v1 [visits=0 clicks=5]"]);
}

#[test]
fn a_refusal_comes_between_the_acknowledgements_around_it() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    let part = cluster.part("ann", object, MAIN, visits(1));
    let mut late = part.clone();
    late.version = version(3);
    let mut next = part.clone();
    next.version = version(2);
    let commits = [part, late, next]
        .map(|part| ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: vec![part].into() }));
    cluster.batch("ann", commits.into());
    let refused = "refused 2: group 0 of object 1.1650 is at version 7:1; the commit makes 7:3";
    assert_eq!(cluster.sent_to("ann"), ["ack 1", refused, "ack 3"]);
}

#[test]
fn a_commit_needs_the_current_write_grant() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let stale = cluster.part("ann", object, MAIN, visits(1));
    cluster.release("ann", object, MAIN, false);
    cluster.commit_parts("ann", false, vec![stale.clone()]);
    // Nor does another node's, nor that of another group.
    cluster.write_lock("bob", object);
    let mut theirs = stale;
    theirs.token = cluster.peer("bob").grants[&(object, MAIN)].1;
    cluster.commit_parts("ann", false, vec![theirs]);
    let mut cart = cluster.part("ann", object, CART_GROUP, visits(1));
    cart.group = MAIN;
    cluster.commit_parts("ann", false, vec![cart]);
    let heard = cluster.sent_to("ann");
    assert_eq!(heard.iter().filter(|heard| heard.contains("is not the current one")).count(), 3, "{heard:?}");
    assert_eq!(cluster.slots(object), Some(Slots::of(&visits(0))));
}

#[test]
fn a_token_that_was_given_back_commits_no_more() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let stale = cluster.part("ann", object, MAIN, visits(1));
    cluster.release("ann", object, CART_GROUP, false);
    cluster.release("ann", object, MAIN, false);
    cluster.now += Duration::from_secs(1);
    cluster.write_lock("ann", object);
    assert!(matches!(cluster.engine.state.objects.get(object).unwrap().locks, Locks::Sole(_)));
    cluster.commit_parts("ann", false, vec![stale.clone()]);
    // Nor when somebody waits.
    cluster.write_lock("bob", object);
    cluster.commit_parts("ann", false, vec![stale]);
    cluster.commit("ann", object, MAIN, visits(2));
    let refused = "group 0 of object 1.1650: the commit's grant 7:1 is not the current one: it was lost, or given back";
    assert_eq!(
        cluster.sent_to("ann"),
        [
            "grant s/0 write#3",
            &format!("refused 1: {refused}"),
            "ack 1",
            "recall s/0#3 for write",
            &format!("refused 2: {refused}"),
            "ack 2",
            "ack 3"
        ]
    );
}

#[test]
fn a_read_grant_does_not_commit() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.lone("ann", "s");
    cluster.read_lock("ann", object);
    let mut part = cluster.part("ann", object, MAIN, visits(1));
    part.version = version(1);
    cluster.commit_parts("ann", false, vec![part]);
    assert!(cluster.sent_to("ann")[1].starts_with("refused 1: group 0 of object"));
}

#[test]
fn a_commit_of_several_objects_is_one_delta_or_nothing() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let (one, two) = (cluster.get_or_create("ann", "one"), cluster.get_or_create("ann", "two"));
    cluster.fetch("bob", SESSIONS, "one", None);
    cluster.fetch("bob", SESSIONS, "two", None);
    cluster.sent_to("bob");
    let parts = vec![
        cluster.part("ann", one, MAIN, visits(1)),
        cluster.part("ann", two, CART_GROUP, put("sku", "2")),
        cluster.part("ann", one, CART_GROUP, put("sku", "1")),
    ];
    cluster.commit_parts("ann", false, parts.clone());
    assert_eq!(cluster.sent_to("bob"), ["delta one/0v1 visits, two/1v1 cart, one/1v1 cart"]);
    let mut parts = parts;
    for part in &mut parts {
        part.version = version(2);
    }
    parts[1].version = version(9);
    cluster.commit_parts("ann", false, parts);
    assert_eq!(cluster.sent_to("bob"), Vec::<String>::new());
    assert!(cluster.sent_to("ann")[1].starts_with("refused 2: group 1 of object"));
    cluster.fetch("ann", SESSIONS, "one", None);
    assert_eq!(cluster.sent_to("ann"), ["fetched one 0v1 1v1 [visits=1 cart.sku=1]"]);
}

#[test]
fn one_group_of_an_object_is_in_a_commit_once() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    let part = cluster.part("ann", object, MAIN, visits(1));
    cluster.commit_parts("ann", false, vec![part.clone(), part]);
    let refused = "refused 1: protocol violation: two parts of group 0 of object 1.1650";
    assert_eq!(cluster.sent_to("ann"), [refused, "ack 1"]);
}

#[test]
fn adds_need_no_lock_and_are_never_lost() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("ann", "s");
    cluster.fetch("ann", SESSIONS, "s", None);
    cluster.fetch("bob", SESSIONS, "s", None);
    for _ in 0..10 {
        cluster.commit("ann", object, GroupId::COMMUTATIVE, clicks(2));
        cluster.commit("bob", object, GroupId::COMMUTATIVE, clicks(-1));
    }
    cluster.sent_to("ann");
    cluster.fetch("ann", SESSIONS, "s", None);
    assert_eq!(cluster.sent_to("ann"), ["fetched s 255v20 [visits=0 clicks=10]"]);
}

#[test]
fn writes_must_suit_the_type() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    let field = |number| kiln_protocol::FieldId::from_bits(number);
    let bad: [(GroupId, Bytes, &str); 7] = [
        (MAIN, put("k", "v"), "field 2: the field is of group 1: write it in a part of that group"),
        (MAIN, clicks(1), "field 3: the field is of group 255: write it in a part of that group"),
        (CART_GROUP, visits(1), "field 0: the field is of group 0: write it in a part of that group"),
        (
            GroupId::COMMUTATIVE,
            writes(&[Write::Scalar { field: CLICKS, bits: 1 }]),
            "field 3: the field is a counter, which does not take this write",
        ),
        (
            MAIN,
            writes(&[Write::Scalar { field: THEME, bits: 1 }]),
            "field 1: the field is a block, which does not take this write",
        ),
        (
            MAIN,
            writes(&[Write::Scalar { field: field(9), bits: 1 }]),
            "field 9: the type has no such field: register the type before its first use",
        ),
        (MAIN, Bytes::from_static(&[0, 1]), "a slot write is cut off or malformed at byte 0"),
    ];
    for (group, writes, what) in bad {
        cluster.commit("ann", object, group, writes);
        let heard = cluster.sent_to("ann");
        assert!(heard[0].ends_with(what), "{heard:?}");
    }
    assert_eq!(cluster.slots(object), Some(Slots::of(&visits(0))));
}

#[test]
fn every_kind_of_slot_is_kept() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    let expect = |cluster: &mut Cluster, slots: &str| {
        cluster.sent_to("ann");
        cluster.fetch("ann", SESSIONS, "s", None);
        let heard = cluster.sent_to("ann").pop().unwrap();
        assert!(heard.ends_with(slots), "{heard} is not {slots}");
    };
    cluster.commit("ann", object, MAIN, theme("dark"));
    expect(&mut cluster, "[visits=0 theme=dark]");
    cluster.commit("ann", object, MAIN, theme("pink"));
    expect(&mut cluster, "[visits=0 theme=pink]");
    cluster.commit("ann", object, MAIN, [visits(3), theme("light brown")].concat().into());
    expect(&mut cluster, "[visits=3 theme=light brown]");
    cluster.commit("ann", object, MAIN, writes(&[Write::Unset { field: VISITS }, Write::Unset { field: THEME }]));
    expect(&mut cluster, "[]");
    cluster.commit("ann", object, MAIN, [theme("a"), visits(1), theme("bb")].concat().into());
    expect(&mut cluster, "[visits=1 theme=bb]");
    cluster.commit("ann", object, CART_GROUP, [put("b", "2"), put("a", "1"), put("b", "3")].concat().into());
    expect(&mut cluster, "[visits=1 theme=bb cart.a=1 cart.b=3]");
    let clear = [writes(&[Write::MapClear { field: CART }]), put("c", "4")].concat();
    cluster.commit("ann", object, CART_GROUP, clear.into());
    expect(&mut cluster, "[visits=1 theme=bb cart.c=4]");
    let remove = writes(&[Write::MapRemove { field: CART, key: b"c" }]);
    cluster.commit("ann", object, CART_GROUP, remove);
    expect(&mut cluster, "[visits=1 theme=bb]");
    cluster.commit("ann", object, GroupId::COMMUTATIVE, [clicks(i64::MAX), clicks(2)].concat().into());
    expect(&mut cluster, &format!("[visits=1 theme=bb clicks={}]", i64::MIN + 1));
}

#[test]
fn an_object_stays_within_its_limit_exactly() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    let big = "x".repeat(9 << 20);
    cluster.commit("ann", object, MAIN, theme(&big));
    // As long as what it replaces.
    cluster.commit("ann", object, MAIN, theme(&big));
    cluster.sent_to("ann");
    let cart = put("k", &"y".repeat(7 << 20));
    cluster.commit("ann", object, CART_GROUP, cart.clone());
    assert!(cluster.sent_to("ann")[0].starts_with("refused 3: the length of an object in bytes is 167"));
    // In one commit the one makes room for the other.
    let parts = vec![cluster.part("ann", object, MAIN, theme("small")), cluster.part("ann", object, CART_GROUP, cart)];
    cluster.commit_parts("ann", false, parts);
    assert_eq!(cluster.sent_to("ann"), ["ack 3", "ack 4"][1..]);
    // As it does when the map is cleared first.
    let clear = [writes(&[Write::MapClear { field: CART }]), put("j", &"z".repeat(14 << 20))].concat();
    cluster.commit("ann", object, CART_GROUP, clear.into());
    assert_eq!(cluster.sent_to("ann"), ["ack 5"]);
}

#[test]
fn the_memory_of_all_objects_has_a_limit() {
    let mut settings = Settings::new(EPOCH, "memory", "test");
    settings.object_bytes_max = 100;
    let mut cluster = Cluster::with(settings);
    cluster.attach("ann", Role::Node);
    cluster.open_roots("ann");
    cluster.sent_to("ann");
    let object = cluster.get_or_create("ann", "s");
    cluster.commit("ann", object, MAIN, theme(&"x".repeat(100)));
    let refused = "refused 1: the length of all objects in bytes is 112, the limit is 100";
    assert_eq!(cluster.sent_to("ann"), [refused, "ack 1"]);
    cluster.fetch("ann", SESSIONS, "t", Some(theme(&"x".repeat(100))));
    assert!(cluster.sent_to("ann")[0].starts_with("failed: the length of all objects"));
}

#[test]
fn no_commit_of_a_destroyed_object_is_taken() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let part = cluster.part("ann", object, GroupId::COMMUTATIVE, clicks(1));
    cluster.release("ann", object, MAIN, false);
    cluster.release("ann", object, CART_GROUP, false);
    cluster.remove("bob", "s", false);
    cluster.commit_parts("ann", false, vec![part]);
    let refused = "refused 1: object 1.1650 does not exist (it may have been removed)";
    assert_eq!(cluster.sent_to("ann"), ["destroyed s", refused, "ack 1"]);
}

#[test]
fn an_empty_commit_counts_and_is_refused() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.commit_parts("ann", true, Vec::new());
    assert_eq!(cluster.sent_to("ann"), ["refused 1: protocol violation: a commit without parts", "ack 1"]);
    assert_eq!(cluster.acked("ann").to_bits(), 1);
}

#[test]
fn an_id_out_of_the_blue_is_refused() {
    let mut cluster = Cluster::of(&["ann"]);
    let mut part = cluster.part("ann", ObjectId::from_bits(u64::MAX), MAIN, visits(1));
    part.token = Token::from_bits(u64::MAX);
    cluster.commit_parts("ann", false, vec![part]);
    assert!(cluster.sent_to("ann")[0].ends_with("does not exist (it may have been removed)"));
}

#[test]
fn a_writer_that_forgot_the_object_still_commits_under_its_grant() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.lone("ann", "s");
    cluster.acquire("ann", object, MAIN, Mode::Write);
    let mut part = cluster.part("ann", object, MAIN, visits(4));
    part.version = version(1);
    cluster.commit_parts("ann", false, vec![part]);
    assert_eq!(cluster.sent_to("ann").last().unwrap(), "ack 1");
}
