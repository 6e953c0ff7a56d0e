//! Peers that mean harm: floods and nonsense. Nothing panics, and what one node can make the coordinator keep is bounded.

use super::super::lock::REQUESTS_OF_NODE_MAX;
use super::super::{Effect, Engine, Event, SessionId, Settings};
use super::cluster::{Cluster, EPOCH, MAIN, SESSIONS, clicks, put, theme, visits, writes};
use bytes::Bytes;
use kiln_protocol::codec::decode_to_coordinator;
use kiln_protocol::limits::WATCHES_MAX;
use kiln_protocol::message::{Hello, Mode, Role, WatchTarget};
use kiln_protocol::{GroupId, Secret, ToCoordinator, WatchId, Write, encode_to_coordinator};
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn a_flood_of_requests_for_one_lock_is_refused() {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    let object = cluster.get_or_create("ann", "s");
    for _ in 0..REQUESTS_OF_NODE_MAX {
        cluster.write_lock("bob", object);
    }
    assert_eq!(cluster.sent_to("bob"), Vec::<String>::new());
    cluster.write_lock("bob", object);
    let limit = "no lock s/0: the number of requests of one node that wait for one lock is 17, the limit is 16";
    assert_eq!(cluster.sent_to("bob"), [limit]);
    // Those that waited are all answered, with one grant.
    cluster.release("ann", object, MAIN, false);
    let heard = cluster.sent_to("bob");
    assert_eq!(heard.len(), REQUESTS_OF_NODE_MAX);
    assert!(heard.iter().all(|heard| heard == "grant s/0 write#3"), "{heard:?}");
}

#[test]
fn unanswered_requests_have_a_limit() {
    let mut settings = Settings::new(EPOCH, "memory", "test");
    settings.requests_max = 3;
    let mut cluster = Cluster::with(settings);
    for name in ["ann", "bob"] {
        cluster.attach(name, Role::Node);
        cluster.open_roots(name);
    }
    let objects = ["a", "b", "c", "d"].map(|key| cluster.get_or_create("ann", key));
    cluster.fetch("bob", SESSIONS, "a", None);
    cluster.sent_to("bob");
    cluster.write_lock("bob", objects[0]);
    cluster.remove("bob", "b", false);
    cluster.commit_everywhere("bob", objects[0], GroupId::COMMUTATIVE, clicks(1));
    cluster.sent_to("bob");
    cluster.write_lock("bob", objects[2]);
    cluster.remove("bob", "d", false);
    cluster.commit_everywhere("bob", objects[0], GroupId::COMMUTATIVE, clicks(1));
    let limit = "the number of requests without an answer is 4, the limit is 3";
    assert_eq!(
        cluster.sent_to("bob"),
        [
            format!("no lock c/0: {limit}"),
            format!("failed: {limit}"),
            format!("refused 2: {limit}"),
            "ack 2".to_owned()
        ]
    );
}

#[test]
fn watches_have_a_limit() {
    let mut cluster = Cluster::of(&["ann"]);
    let watches = (0..=u32::try_from(WATCHES_MAX).unwrap()).map(|watch| ToCoordinator::Watch {
        request: kiln_protocol::RequestId::from_bits(watch.into()),
        watch: WatchId::from_bits(watch),
        target: WatchTarget::Root(SESSIONS),
        with_writes: false,
    });
    cluster.batch("ann", watches.collect());
    let last = cluster.sent_to("ann").pop().unwrap();
    assert_eq!(last, "failed: the number of watches of a node is 4097, the limit is 4096");
}

#[test]
fn a_commit_of_many_writes_takes_no_longer_than_it_is_long() {
    let mut cluster = Cluster::of(&["ann"]);
    let object = cluster.get_or_create("ann", "s");
    cluster.commit("ann", object, MAIN, theme(&"x".repeat(14 << 20)));
    // Each write alone would move all of the object; together they move it once.
    let mut many = Vec::new();
    for number in 0..100_000 {
        let pair = [
            Write::Unset { field: super::cluster::VISITS },
            Write::Scalar { field: super::cluster::VISITS, bits: number },
        ];
        many.extend_from_slice(&writes(&pair));
    }
    cluster.commit("ann", object, MAIN, many.into());
    assert_eq!(cluster.sent_to("ann"), ["ack 1", "ack 2"]);
}

fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    let object = kiln_protocol::ObjectId::from_bits((1 << 12) | 1650);
    let real = vec![
        ToCoordinator::Bye,
        ToCoordinator::Forget { object },
        ToCoordinator::Acquire {
            request: kiln_protocol::RequestId::from_bits(u64::MAX),
            object,
            group: GroupId::from_bits(1),
            mode: Mode::Write,
            want_record: true,
        },
        ToCoordinator::Release { object, group: MAIN, token: kiln_protocol::Token::from_bits(3), keep_read: true },
        ToCoordinator::Insert {
            request: kiln_protocol::RequestId::from_bits(1),
            root: SESSIONS,
            key: Bytes::from_static(b"s"),
            writes: put("a", "b"),
        },
        ToCoordinator::Fetch {
            request: kiln_protocol::RequestId::from_bits(1),
            root: SESSIONS,
            key: Bytes::from_static(b"s"),
            create: Some(visits(1)),
        },
        ToCoordinator::Commit(kiln_protocol::message::Commit {
            durable: false,
            everywhere: true,
            parts: vec![kiln_protocol::message::Part {
                object,
                group: MAIN,
                token: kiln_protocol::Token::new(EPOCH, 1).unwrap(),
                version: super::cluster::version(1),
                writes: visits(1),
            }]
            .into(),
        }),
    ];
    let frames = real.into_iter().map(|message| {
        let mut frame = Vec::new();
        encode_to_coordinator(&mut frame, EPOCH, &message);
        frame.remove(0);
        frame
    });
    let real = prop::sample::select(frames.collect::<Vec<_>>());
    let bent = (real.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut frame, at, byte)| {
        let at = at.index(frame.len());
        frame[at] = byte;
        frame
    });
    prop_oneof![real, bent, prop::collection::vec(any::<u8>(), 1..40)]
}

proptest! {
    #[test]
    fn bytes_never_panic(frames in prop::collection::vec((nonsense(), 1_u64..4), 0..60)) {
        let mut engine = Engine::new(Settings::new(EPOCH, "memory", "test"));
        let mut effects: Vec<Effect> = Vec::new();
        for session in 1..3 {
            let hello = Hello::new(String::new(), Role::Node);
            let secret = Secret::from_bytes([0; 16]);
            let session = SessionId::from_bits(session);
            engine.handle(Duration::ZERO, Event::Attached { session, hello, secret }, &mut effects);
            let message = ToCoordinator::OpenRoot {
                request: kiln_protocol::RequestId::from_bits(0),
                name: "sessions".to_owned(),
                key: "string".to_owned(),
                type_description: super::cluster::session_type(),
                options: kiln_protocol::message::RootOptions::default(),
            };
            engine.handle(Duration::ZERO, Event::Message { session, message }, &mut effects);
        }
        for (frame, session) in frames {
            if let Ok(message) = decode_to_coordinator(EPOCH, &Bytes::from(frame)) {
                let session = SessionId::from_bits(session);
                engine.handle(Duration::ZERO, Event::Message { session, message }, &mut effects);
                engine.flush(&mut effects);
            }
        }
    }
}
