//! Locks, as nodes see them.

use super::cluster::{CART_GROUP, Cluster, MAIN, visits};
use kiln_protocol::message::Mode;

#[test]
fn a_maker_holds_every_lock_of_its_object() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.fetch("ann", super::cluster::SESSIONS, "s", Some(visits(1)));
    assert_eq!(cluster.sent_to("ann"), ["created object 1.1650 [visits=1] 0#1 1#2"]);
}

#[test]
fn a_hand_off_is_a_recall_a_release_and_a_grant() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("bob", object);
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for write"]);
    assert_eq!(cluster.sent_to("bob"), Vec::<String>::new());
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
    assert_eq!(cluster.sent_to("ann"), Vec::<String>::new());
}

#[test]
fn readers_share_and_a_writer_recalls_them_all() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    let object = cluster.lone("ann", "s");
    cluster.read_lock("ann", object);
    cluster.read_lock("bob", object);
    assert_eq!(cluster.sent_to("ann"), ["grant s/0 read#3"]);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 read#4"]);
    cluster.write_lock("cy", object);
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#3 for write"]);
    assert_eq!(cluster.sent_to("bob"), ["recall s/0#4 for write"]);
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("cy"), Vec::<String>::new());
    cluster.release("bob", object, MAIN, false);
    assert_eq!(cluster.sent_to("cy"), ["grant s/0 write#5"]);
}

#[test]
fn a_reader_behind_a_waiting_writer_waits() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    let object = cluster.lone("ann", "s");
    cluster.read_lock("ann", object);
    cluster.write_lock("bob", object);
    cluster.read_lock("cy", object);
    assert_eq!(cluster.sent_to("cy"), Vec::<String>::new());
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#4", "recall s/0#4 for read"]);
    cluster.release("bob", object, MAIN, true);
    assert_eq!(cluster.sent_to("cy"), ["grant s/0 read#5"]);
}

#[test]
fn a_write_grant_recalled_for_a_reader_becomes_a_read_grant() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.read_lock("bob", object);
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for read"]);
    cluster.release("ann", object, MAIN, true);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 read#3"]);
    // Its token is that of a read grant now.
    cluster.commit("ann", object, MAIN, visits(1));
    let refused = "refused 1: group 0 of object 1.1650: the commit's grant 7:1 is not the current one: it was lost, or \
                   given back";
    assert_eq!(cluster.sent_to("ann"), [refused, "ack 1"]);
}

#[test]
fn a_recall_is_sent_once_and_again_when_it_asks_for_more() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy", "dee"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.read_lock("bob", object);
    cluster.read_lock("cy", object);
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for read"]);
    cluster.write_lock("dee", object);
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for write"]);
}

#[test]
fn a_node_does_not_stand_in_its_own_way() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("ann", "s");
    cluster.read_lock("ann", object);
    cluster.write_lock("ann", object);
    assert_eq!(cluster.sent_to("ann"), ["grant s/0 read#3", "grant s/0 write#4"]);
    // The read grant is no more: one release frees the lock.
    cluster.release("ann", object, MAIN, false);
    cluster.write_lock("bob", object);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#5"]);
}

#[test]
fn two_readers_that_both_want_to_write_take_turns() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("ann", "s");
    cluster.read_lock("ann", object);
    cluster.read_lock("bob", object);
    cluster.write_lock("ann", object);
    cluster.write_lock("bob", object);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 read#4", "recall s/0#4 for write"]);
    assert_eq!(cluster.sent_to("ann"), ["grant s/0 read#3"]);
    cluster.release("bob", object, MAIN, false);
    assert_eq!(cluster.sent_to("ann"), ["grant s/0 write#5", "recall s/0#5 for write"]);
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#6"]);
}

#[test]
fn asking_again_gives_the_same_grant() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("ann", object);
    cluster.read_lock("ann", object);
    assert_eq!(cluster.sent_to("ann"), ["grant s/0 write#1", "grant s/0 write#1"]);
}

#[test]
fn asking_again_for_what_is_recalled_waits_for_the_release() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let wanted = cluster.write_lock("bob", object);
    cluster.write_lock("ann", object);
    cluster.withdraw("bob", wanted, object);
    // Commits under the old token may be on their way.
    assert_eq!(cluster.sent_to("ann"), ["recall s/0#1 for write"]);
    cluster.commit("ann", object, MAIN, visits(1));
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("ann"), ["ack 1", "grant s/0 write#3"]);
}

#[test]
fn a_withdrawn_request_makes_room() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    let object = cluster.lone("ann", "s");
    cluster.read_lock("ann", object);
    let wanted = cluster.write_lock("bob", object);
    cluster.read_lock("cy", object);
    cluster.withdraw("bob", wanted, object);
    assert_eq!(cluster.sent_to("cy"), ["grant s/0 read#4"]);
    // Withdrawing what was granted is nothing.
    cluster.withdraw("bob", wanted, object);
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("bob"), Vec::<String>::new());
}

#[test]
fn groups_are_locked_apart() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("ann", "s");
    cluster.acquire("ann", object, MAIN, Mode::Write);
    cluster.acquire("bob", object, CART_GROUP, Mode::Write);
    assert_eq!(cluster.sent_to("ann"), ["grant s/0 write#3"]);
    assert_eq!(cluster.sent_to("bob"), ["grant s/1 write#4"]);
}

#[test]
fn a_grant_carries_the_record_that_was_asked_for() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let request = cluster.request();
    let message =
        kiln_protocol::ToCoordinator::Acquire { request, object, group: MAIN, mode: Mode::Write, want_record: true };
    cluster.send("bob", message);
    cluster.commit("ann", object, MAIN, visits(5));
    cluster.release("ann", object, MAIN, false);
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3 with s 0v1 [visits=5]"]);
    // And with the record comes interest.
    cluster.forget("ann", object);
    cluster.fetch("ann", super::cluster::SESSIONS, "s", None);
    cluster.commit("bob", object, MAIN, visits(6));
    assert_eq!(cluster.sent_to("ann").last().unwrap(), "delta s/0v2 visits");
}

#[test]
fn a_lock_that_goes_to_and_fro_is_not_kept_until_it_calms_down() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("ann", "s");
    let mut kept = Vec::new();
    for turn in 0..20 {
        let name = ["ann", "bob"][turn % 2];
        cluster.now += std::time::Duration::from_millis(1);
        cluster.write_lock(name, object);
        kept.push(!cluster.sent_to(name)[0].ends_with("once"));
        cluster.release(name, object, MAIN, false);
    }
    assert_eq!(kept.iter().filter(|kept| **kept).count(), 8, "{kept:?}");
    assert!(kept[..8].iter().all(|kept| *kept));
    cluster.now += std::time::Duration::from_millis(200);
    cluster.write_lock("ann", object);
    assert!(!cluster.sent_to("ann")[0].ends_with("once"));
}

#[test]
fn a_lock_that_one_node_keeps_asking_for_calms_down() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("ann", "s");
    for turn in 0..20 {
        let name = ["ann", "bob"][turn % 2];
        cluster.write_lock(name, object);
        cluster.release(name, object, MAIN, false);
    }
    cluster.sent_to("bob");
    for _ in 0..10 {
        cluster.write_lock("bob", object);
        cluster.release("bob", object, MAIN, false);
    }
    let grants = cluster.sent_to("bob");
    assert!(grants[0].ends_with("once") && !grants[9].ends_with("once"), "{grants:?}");
}

#[test]
fn a_lock_that_cooled_off_takes_no_room() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.lone("ann", "s");
    for name in ["ann", "bob", "ann"] {
        cluster.write_lock(name, object);
        cluster.release(name, object, MAIN, false);
    }
    let free = |cluster: &Cluster| {
        matches!(cluster.engine.state.objects.get(object).unwrap().locks, super::super::grants::Locks::Free)
    };
    assert!(!free(&cluster));
    cluster.now += std::time::Duration::from_millis(200);
    cluster.event(super::super::Event::Logged { seq: super::super::LogSeq::default() });
    assert!(free(&cluster));
}

#[test]
fn the_locks_of_a_node_that_left_are_free() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("bob", object);
    cluster.write_lock("cy", object);
    cluster.detach("ann");
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3", "recall s/0#3 for write"]);
    cluster.detach("bob");
    assert_eq!(cluster.sent_to("cy"), ["grant s/0 write#4"]);
    // And one that nobody waited for is free to who asks.
    cluster.detach("cy");
    cluster.attach("dee", kiln_protocol::message::Role::Node);
    cluster.sent_to("dee");
    cluster.write_lock("dee", object);
    assert_eq!(cluster.sent_to("dee"), ["grant s/0 write#5"]);
}

#[test]
fn a_release_that_crossed_with_another_grant_is_ignored() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    let old = cluster.peer("ann").grants[&(object, MAIN)].1;
    cluster.release("ann", object, MAIN, false);
    cluster.write_lock("ann", object);
    cluster.release_token("ann", object, MAIN, old, false);
    cluster.write_lock("bob", object);
    assert_eq!(cluster.sent_to("bob"), Vec::<String>::new());
}

#[test]
fn what_has_no_lock_cannot_be_locked() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.acquire("ann", object, kiln_protocol::GroupId::COMMUTATIVE, Mode::Write);
    cluster.acquire("ann", object, kiln_protocol::GroupId::from_bits(9), Mode::Write);
    cluster.write_lock("ann", kiln_protocol::ObjectId::from_bits(77));
    assert_eq!(
        cluster.sent_to("ann"),
        [
            "no lock s/255: protocol violation: type Session has no lock group 255",
            "no lock s/9: protocol violation: type Session has no lock group 9",
            "no lock object 0.77/0: object 0.77 does not exist (it may have been removed)",
        ]
    );
}
