//! Attaching, leaving, stopping, and what tools ask for.

use super::super::{Event, Settings};
use super::cluster::{Cluster, EPOCH, MAIN, SESSIONS, clicks, session_type, visits};
use kiln_protocol::message::{Hello, Mode, Role};
use kiln_protocol::{Failure, GroupId, PROTOCOL_VERSION, ToCoordinator, ToNode};
use std::time::Duration;

#[test]
fn each_attach_is_a_new_incarnation() {
    let mut cluster = Cluster::new();
    cluster.attach("ann", Role::Node);
    assert_eq!(cluster.sent_to("ann"), ["welcome 1"]);
    cluster.detach("ann");
    cluster.attach("ann", Role::Node);
    assert_eq!(cluster.sent_to("ann"), ["welcome 2"]);
}

#[test]
fn another_protocol_is_refused() {
    let mut cluster = Cluster::new();
    let hello = Hello { protocol: PROTOCOL_VERSION + 1, name: "ann".to_owned(), role: Role::Node, resume: None };
    cluster.hello("ann", hello);
    let refused = "refused: this coordinator speaks protocol 2, the peer speaks 3: run the same major version of Kiln \
                   on both";
    assert_eq!(cluster.sent_to("ann"), [refused]);
    assert!(matches!(cluster.peer("ann").closed, Some(Some(Failure::Protocol { .. }))));
}

#[test]
fn names_and_numbers_have_limits() {
    let mut settings = Settings::new(EPOCH, "memory", "test");
    settings.nodes_max = 1;
    let mut cluster = Cluster::with(settings);
    let hello = Hello::new("n".repeat(256), Role::Node);
    cluster.hello("long", hello);
    assert_eq!(cluster.sent_to("long"), ["refused: the length of a node's name in bytes is 256, the limit is 255"]);
    cluster.attach("ann", Role::Node);
    cluster.attach("bob", Role::Node);
    assert_eq!(cluster.sent_to("bob"), ["refused: the number of attached nodes is 2, the limit is 1"]);
    cluster.detach("ann");
    cluster.attach("cy", Role::Node);
    assert_eq!(cluster.sent_to("cy"), ["welcome 2"]);
}

#[test]
fn a_second_hello_ends_the_connection_and_nothing_else() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("bob", object);
    let hello = Hello::new("ann".to_owned(), Role::Node);
    cluster.send("ann", ToCoordinator::Hello(hello));
    assert!(matches!(cluster.peer("ann").closed, Some(Some(Failure::Violation { .. }))));
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
    // What it still sends is not heard.
    cluster.write_lock("ann", object);
    assert_eq!(cluster.sent_to("bob"), Vec::<String>::new());
}

#[test]
fn a_goodbye_releases_all_and_ends_the_connection() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("bob", object);
    cluster.sent_to("ann");
    let commit = kiln_protocol::message::Commit {
        durable: false,
        everywhere: false,
        parts: vec![cluster.part("ann", object, MAIN, visits(1))].into(),
    };
    cluster.batch("ann", vec![ToCoordinator::Commit(commit), ToCoordinator::Bye]);
    assert_eq!(cluster.sent_to("ann"), ["ack 1", "goodbye"]);
    assert_eq!(cluster.peer("ann").closed, Some(None));
    assert_eq!(cluster.sent_to("bob"), ["grant s/0 write#3"]);
}

#[test]
fn stopping_is_told_and_nothing_new_begins() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.fetch("bob", SESSIONS, "s", None);
    cluster.sent_to("bob");
    cluster.event(Event::Stop);
    cluster.event(Event::Stop);
    cluster.commit("ann", object, MAIN, visits(1));
    cluster.write_lock("bob", object);
    cluster.remove("bob", "s", false);
    cluster.fetch("bob", SESSIONS, "t", Some(visits(1)));
    cluster.open("bob", "u", session_type(), false);
    cluster.attach("cy", Role::Node);
    let stopping = "the coordinator is stopping";
    assert_eq!(cluster.sent_to("ann"), ["stopping", &format!("refused 1: {stopping}"), "ack 1"]);
    assert_eq!(
        cluster.sent_to("bob"),
        [
            "stopping".to_owned(),
            format!("no lock s/0: {stopping}"),
            format!("failed: {stopping}"),
            format!("failed: {stopping}"),
            format!("failed: {stopping}")
        ]
    );
    assert_eq!(cluster.sent_to("cy"), [format!("refused: {stopping}")]);
}

#[test]
fn an_observer_only_looks() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.attach("tool", Role::Observer);
    cluster.sent_to("tool");
    cluster.fetch("tool", SESSIONS, "s", None);
    cluster.insert("tool", "t", visits(1));
    cluster.remove("tool", "s", false);
    cluster.rename("tool", "s", "t");
    cluster.open("tool", "sessions", session_type(), false);
    cluster.acquire("tool", object, MAIN, Mode::Read);
    cluster.commit("tool", object, GroupId::COMMUTATIVE, clicks(1));
    cluster.forget("tool", object);
    let heard = cluster.sent_to("tool");
    assert_eq!(heard.iter().filter(|heard| heard.contains("an observer may not do this")).count(), 7, "{heard:?}");
    assert_eq!(cluster.peer("tool").closed, None);
}

#[test]
fn status_adds_up() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("bob", object);
    cluster.commit("ann", object, MAIN, visits(1));
    cluster.commit("bob", object, MAIN, visits(1));
    cluster.now = Duration::from_millis(1500);
    let request = cluster.request();
    cluster.send("ann", ToCoordinator::Status { request });
    let Some(ToNode::Status { status, .. }) = cluster.heard("ann").pop() else {
        panic!("no status");
    };
    assert_eq!((status.uptime_ms, status.epoch, status.objects), (1500, EPOCH, 1));
    assert_eq!((status.commits, status.commits_refused, status.grants, status.recalls), (1, 1, 2, 1));
    assert_eq!(status.object_bytes, 10);
    let ann = &status.nodes[0];
    assert_eq!((&ann.name[..], ann.interest, ann.grants, ann.applied.to_bits()), ("ann", 1, 2, 1));
    assert_eq!(ann.attached_ms, 1500);
}

#[test]
fn locks_in_use_are_listed_busiest_first() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    for key in ["a", "b", "c"] {
        cluster.get_or_create("ann", key);
    }
    let object = cluster.get_or_create("ann", "s");
    cluster.write_lock("bob", object);
    cluster.remove("bob", "s", false);
    cluster.now = Duration::from_secs(2);
    let request = cluster.request();
    cluster.sent_to("ann");
    cluster.send("ann", ToCoordinator::Locks { request });
    let Some(ToNode::Locks { locks, left_out, .. }) = cluster.heard("ann").pop() else {
        panic!("no locks");
    };
    assert_eq!((locks.len(), left_out), (8, 0));
    let first = &locks[0];
    assert_eq!((&first.root[..], &first.key[..], &first.group[..]), ("sessions", &b"s"[..], ""));
    assert_eq!(first.holders[0].node.as_ref().unwrap().1, "ann");
    assert_eq!(first.holders[0].age_ms, 2000);
    let waiters: Vec<_> = first.waiters.iter().map(|waiter| waiter.node.as_ref().map(|(_, name)| &name[..])).collect();
    assert_eq!(waiters, [Some("bob"), Some("bob")]);
    let operations: Vec<_> = first.waiters.iter().map(|waiter| waiter.operation.as_deref()).collect();
    assert_eq!(operations, [None, Some("remove")]);
    assert_eq!(locks.iter().filter(|lock| lock.group == "cart").count(), 4);
}

#[test]
fn roots_are_listed_with_their_types() {
    let mut cluster = Cluster::of(&["ann"]);
    cluster.lone("ann", "s");
    let request = cluster.request();
    cluster.send("ann", ToCoordinator::Roots { request });
    let Some(ToNode::Roots { roots, .. }) = cluster.heard("ann").pop() else {
        panic!("no roots");
    };
    assert_eq!((&roots[0].name[..], roots[0].objects, &roots[0].key[..]), ("sessions", 1, "string"));
    assert_eq!(roots[0].type_info.fields.len(), 4);
    assert!(roots[1].options.ephemeral);
}

#[test]
fn what_a_node_left_behind_is_swept_up() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let fetches = (0..3000_u64).map(|number| ToCoordinator::Fetch {
        request: kiln_protocol::RequestId::from_bits(number),
        root: SESSIONS,
        key: number.to_le_bytes().to_vec().into(),
        create: Some(visits(number)),
    });
    cluster.batch("ann", fetches.collect());
    let made = cluster.heard("ann").into_iter().map(|message| match message {
        ToNode::Fetched { record, .. } => record.object,
        other => panic!("{other:?}"),
    });
    let objects: Vec<_> = made.collect();
    cluster.detach("ann");
    assert_eq!(cluster.engine.nodes.left.len(), 1);
    for _ in 0..10 {
        cluster.event(Event::Logged { seq: super::super::LogSeq::default() });
    }
    assert_eq!(cluster.engine.nodes.left.len(), 0);
    for object in objects {
        let object = cluster.engine.state.objects.get(object).unwrap();
        assert!(object.interest.as_slice().is_empty() && object.locks.is_free());
    }
}
