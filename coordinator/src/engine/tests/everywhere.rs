//! Commits and removals that wait until no node shows what was before.

use super::cluster::{Cluster, MAIN, SESSIONS, visits};
use kiln_protocol::message::Commit;
use kiln_protocol::{BarrierId, ToCoordinator};

fn passes(cluster: &mut Cluster, name: &str, barrier: u64) {
    let barrier = BarrierId::from_bits(barrier);
    cluster.send(name, ToCoordinator::Barrier { barrier });
}

#[test]
fn everywhere_is_when_every_holder_has_applied_it() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy", "dee"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.fetch("cy", SESSIONS, "s", None);
    cluster.sent_to("bob");
    cluster.commit_everywhere("ann", object, MAIN, visits(1));
    assert_eq!(cluster.sent_to("bob"), ["delta s/0v1 visits", "barrier 1"]);
    assert_eq!(cluster.sent_to("dee"), Vec::<String>::new());
    passes(&mut cluster, "bob", 1);
    assert_eq!(cluster.sent_to("ann"), ["ack 1"]);
    passes(&mut cluster, "cy", 2);
    assert_eq!(cluster.sent_to("ann"), ["everywhere 1"]);
}

#[test]
fn with_no_other_holder_it_is_at_once() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.commit_everywhere("ann", object, MAIN, visits(1));
    assert_eq!(cluster.sent_to("ann"), ["ack 1", "everywhere 1"]);
}

#[test]
fn the_commits_of_a_batch_share_a_barrier() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let (one, two) = (cluster.get_or_create("ann", "one"), cluster.get_or_create("ann", "two"));
    cluster.fetch("bob", SESSIONS, "one", None);
    cluster.fetch("bob", SESSIONS, "two", None);
    cluster.sent_to("bob");
    let commits = [one, two].map(|object| {
        let parts = vec![cluster.part("ann", object, MAIN, visits(1))].into();
        ToCoordinator::Commit(Commit { everywhere: true, durable: false, parts })
    });
    cluster.batch("ann", commits.into());
    assert_eq!(cluster.sent_to("bob"), ["delta one/0v1 visits", "delta two/0v1 visits", "barrier 1"]);
    passes(&mut cluster, "bob", 1);
    assert_eq!(cluster.sent_to("ann"), ["ack 2", "everywhere 1", "everywhere 2"]);
}

#[test]
fn a_barrier_ends_what_was_before_it_and_no_more() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    for number in 1..=3 {
        cluster.commit_everywhere("ann", object, MAIN, visits(number));
    }
    cluster.sent_to("ann");
    passes(&mut cluster, "bob", 1);
    assert_eq!(cluster.sent_to("ann"), ["everywhere 1"]);
    // A later answer stands for those before it.
    passes(&mut cluster, "bob", 3);
    assert_eq!(cluster.sent_to("ann"), ["everywhere 2", "everywhere 3"]);
}

#[test]
fn a_holder_that_leaves_is_waited_for_no_longer() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.commit_everywhere("ann", object, MAIN, visits(1));
    cluster.detach("bob");
    assert_eq!(cluster.sent_to("ann"), ["ack 1", "everywhere 1"]);
}

#[test]
fn a_writer_that_leaves_leaves_nothing_behind() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.commit_everywhere("ann", object, MAIN, visits(1));
    cluster.detach("ann");
    cluster.attach("cy", kiln_protocol::message::Role::Node);
    passes(&mut cluster, "bob", 1);
    assert_eq!(cluster.sent_to("cy"), ["welcome 3"]);
}

#[test]
fn a_barrier_that_was_not_sent_says_nothing() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    passes(&mut cluster, "bob", 1);
    cluster.commit_everywhere("ann", object, MAIN, visits(1));
    passes(&mut cluster, "bob", 0);
    assert_eq!(cluster.sent_to("ann"), ["ack 1"]);
    passes(&mut cluster, "bob", u64::MAX);
    assert_eq!(cluster.sent_to("ann"), ["everywhere 1"]);
    passes(&mut cluster, "bob", 1);
    assert_eq!(cluster.sent_to("ann"), Vec::<String>::new());
}

#[test]
fn a_removal_everywhere_waits_for_who_held_the_object() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    cluster.lone("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.sent_to("bob");
    cluster.remove("ann", "s", true);
    assert_eq!(cluster.sent_to("bob"), ["destroyed s", "barrier 1"]);
    assert_eq!(cluster.sent_to("ann"), Vec::<String>::new());
    passes(&mut cluster, "bob", 1);
    assert_eq!(cluster.sent_to("ann"), ["yes"]);
}

#[test]
fn a_removal_everywhere_of_what_another_just_removed_waits_as_well() {
    let mut cluster = Cluster::of(&["ann", "bob", "cy"]);
    cluster.lone("ann", "s");
    cluster.fetch("cy", SESSIONS, "s", None);
    cluster.remove("ann", "s", false);
    cluster.remove("bob", "s", true);
    assert_eq!(cluster.sent_to("bob"), Vec::<String>::new());
    cluster.sent_to("ann");
    passes(&mut cluster, "ann", 1);
    passes(&mut cluster, "cy", 2);
    assert_eq!(cluster.sent_to("bob"), ["no"]);
}

#[test]
fn a_removal_of_nothing_waits_for_no_observer() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.attach("tool", kiln_protocol::message::Role::Observer);
    cluster.remove("ann", "s", true);
    assert_eq!(cluster.sent_to("ann"), ["no"]);
}
