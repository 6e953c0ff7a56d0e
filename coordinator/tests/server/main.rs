//! A real coordinator on a loopback socket, and peers that behave or do not.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that is surprised fails")]

mod client;

use bytes::Bytes;
use client::{Client, PATIENCE, RESET};
use kiln_coordinator::server::{Options, Server, Tuning};
use kiln_protocol::limits::FRAME_BYTES_MAX;
use kiln_protocol::message::{Commit, Part, RootOptions};
use kiln_protocol::schema::{FieldDescription, FieldKind, TypeDescription};
use kiln_protocol::{
    CloseCode, CommitSeq, Failure, FieldId, GroupId, PROTOCOL_VERSION, Profile, RequestId, ToCoordinator, ToNode,
    Token, Version, Write,
};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);

struct Running {
    server: Server,
    _directory: TempDir,
}

impl Running {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::new(directory.path().join("kiln"));
        options.listen.set_port(0);
        // These peers send no heartbeats.
        options.tuning.lease = PATIENCE * 3;
        change(&mut options);
        let server = Server::start(options).await.unwrap();
        Self { server, _directory: directory }
    }

    fn profile(&self) -> &Profile {
        self.server.profile()
    }
}

fn status(request: u64) -> ToCoordinator {
    let request = RequestId::from_bits(request);
    ToCoordinator::Status { request }
}

/// Names of those attached, seen by somebody new.
async fn attached(profile: &Profile) -> Vec<String> {
    let mut client = Client::attach(profile, "looks").await;
    client.say(&status(1)).await;
    let answer = client.next().await;
    let ToNode::Status { status, .. } = answer else { panic!("no status but {answer:?}") };
    client.say(&ToCoordinator::Bye).await;
    assert_eq!(client.next().await, ToNode::Goodbye);
    let connected = status.nodes.into_iter().filter(|node| node.away_ms.is_none());
    connected.map(|node| node.name).filter(|name| name != "looks").collect()
}

/// Waits until exactly these are attached.
async fn until_attached(profile: &Profile, names: &[&str]) {
    let wait = async {
        while attached(profile).await != names {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("others stay attached, or never do");
}

#[tokio::test]
async fn a_peer_is_welcomed_and_says_goodbye() {
    let running = Running::start().await;
    let mut client = Client::connect(running.profile()).await.unwrap();
    client.hello("a", PROTOCOL_VERSION).await;
    let welcome = client.next().await;
    let ToNode::Welcome { protocol, epoch, .. } = welcome else { panic!("not welcomed but {welcome:?}") };
    assert_eq!((protocol, epoch), (PROTOCOL_VERSION, running.server.epoch()));
    client.say(&ToCoordinator::Bye).await;
    assert_eq!(client.next().await, ToNode::Goodbye);
    assert_eq!(client.closed().await.0, CloseCode::Goodbye.to_bits());
}

#[tokio::test]
async fn another_protocol_version_is_refused() {
    let running = Running::start().await;
    let mut client = Client::connect(running.profile()).await.unwrap();
    client.hello("a", PROTOCOL_VERSION + 1).await;
    let refused = client.next().await;
    assert!(matches!(&refused, ToNode::Refused { failure: Failure::Protocol { .. } }), "{refused:?}");
    let (code, reason) = client.closed().await;
    assert_eq!(code, CloseCode::Refused.to_bits());
    assert!(reason.contains("protocol"), "{reason}");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let running = Running::start().await;
    let other = Running::start().await;
    let mut profile = running.profile().clone();
    profile.certificate.clone_from(&other.profile().certificate);
    profile.key.clone_from(&other.profile().key);
    // TLS 1.3 lets the client think it is connected until the coordinator has seen its certificate.
    if let Ok(mut client) = Client::connect(&profile).await {
        client.hello("a", PROTOCOL_VERSION).await;
        assert_eq!(client.try_next().await, None);
    }
    until_attached(running.profile(), &[]).await;
}

#[tokio::test]
async fn a_client_does_not_talk_to_another_coordinator() {
    let running = Running::start().await;
    let other = Running::start().await;
    let mut profile = other.profile().clone();
    profile.address.clone_from(&running.profile().address);
    let error = Client::connect(&profile).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn garbage_ends_that_connection_and_nothing_else() {
    let running = Running::start().await;
    let good = Client::attach(running.profile(), "good").await;
    let mut bad = Client::attach(running.profile(), "bad").await;
    bad.raw(&[3, 0x7f, 0xff, 0xff]).await;
    let (code, reason) = bad.closed().await;
    assert_eq!(code, CloseCode::Violation.to_bits());
    assert!(reason.contains("unknown kind 127"), "{reason}");
    until_attached(running.profile(), &["good"]).await;
    drop(good);
}

#[tokio::test]
async fn what_came_before_the_garbage_is_answered_in_the_same_batch() {
    let running = Running::start().await;
    let mut bad = Client::attach(running.profile(), "bad").await;
    let mut bytes = Vec::new();
    kiln_protocol::encode_to_coordinator(&mut bytes, bad.epoch, &ToCoordinator::Bye);
    bytes.extend_from_slice(&[3, 0x7f, 0xff, 0xff]);
    bad.raw(&bytes).await;
    // Nothing behind a Bye is read.
    assert_eq!(bad.next().await, ToNode::Goodbye);
    assert_eq!(bad.closed().await.0, CloseCode::Goodbye.to_bits());
}

#[tokio::test]
async fn an_oversized_frame_is_refused_by_its_length() {
    let running = Running::start().await;
    let mut bad = Client::attach(running.profile(), "bad").await;
    let mut bytes = Vec::new();
    kiln_protocol::codec::put_varint(&mut bytes, FRAME_BYTES_MAX as u64 + 1);
    bad.raw(&bytes).await;
    let (code, reason) = bad.closed().await;
    assert_eq!(code, CloseCode::Violation.to_bits());
    assert!(reason.contains("longer than the limit"), "{reason}");
}

#[tokio::test]
async fn half_a_frame_and_then_nothing_detaches() {
    let running = Running::start().await;
    let mut half = Client::attach(running.profile(), "half").await;
    half.raw(&[100, 0, 1, 2]).await;
    until_attached(running.profile(), &["half"]).await;
    half.vanish().await;
    until_attached(running.profile(), &[]).await;
}

#[tokio::test]
async fn the_first_message_must_be_a_hello() {
    let running = Running::start().await;
    let mut rude = Client::connect(running.profile()).await.unwrap();
    rude.say(&status(1)).await;
    let (code, reason) = rude.closed().await;
    assert_eq!(code, CloseCode::Violation.to_bits());
    assert!(reason.contains("not a Hello"), "{reason}");

    let mut long = Client::connect(running.profile()).await.unwrap();
    long.raw(&[0xff, 0xff, 0x3f]).await;
    // The coordinator may close before all of it is out.
    drop(long.send.write_all(&[0; 4096]).await);
    let (code, reason) = long.closed().await;
    assert_eq!(code, CloseCode::Violation.to_bits());
    assert!(reason.contains("longer than any Hello"), "{reason}");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_let_go() {
    let running = Running::with(|options| options.tuning.hello_timeout = Duration::from_millis(100)).await;
    let silent = Client::connect(running.profile()).await.unwrap();
    assert_eq!(silent.closed().await.0, CloseCode::Late.to_bits());
}

#[tokio::test]
async fn peers_that_are_not_attached_are_limited() {
    let running = Running::with(|options| options.tuning.handshakes_max = 2).await;
    let first = Client::connect(running.profile()).await.unwrap();
    let second = Client::connect(running.profile()).await.unwrap();
    let third = Client::connect(running.profile()).await;
    assert!(third.is_err(), "a third one got in");
    first.vanish().await;
    let mut wait = timeout(PATIENCE, async {
        loop {
            if let Ok(client) = Client::connect(running.profile()).await {
                return client;
            }
        }
    })
    .await
    .expect("the place of the first never becomes free");
    wait.hello("a", PROTOCOL_VERSION).await;
    assert!(matches!(wait.next().await, ToNode::Welcome { .. }));
    drop(second);
}

#[tokio::test]
async fn a_second_stream_is_not_given() {
    let running = Running::start().await;
    let client = Client::attach(running.profile(), "a").await;
    let second = client.connection.open_bi();
    assert!(timeout(Duration::from_millis(200), second).await.is_err());
}

#[tokio::test]
async fn many_peers_come_and_go() {
    const PEERS: usize = 100;
    let running = Running::start().await;
    let mut peers = Vec::new();
    for peer in 0..PEERS {
        peers.push(Client::attach(running.profile(), &format!("{peer:03}")).await);
    }
    let mut names = attached(running.profile()).await;
    names.sort();
    assert_eq!(names.len(), PEERS);
    assert_eq!(names.last().map(String::as_str), Some("099"));
    for mut peer in peers.drain(..PEERS / 2) {
        peer.say(&ToCoordinator::Bye).await;
        assert_eq!(peer.next().await, ToNode::Goodbye);
    }
    for peer in peers {
        peer.vanish().await;
    }
    until_attached(running.profile(), &[]).await;
}

#[tokio::test]
async fn a_slow_reader_is_not_read_from_and_then_cut_off() {
    let tuning = Tuning {
        pending_bytes_max: 10_000,
        stall_timeout: Duration::from_millis(300),
        lease: PATIENCE * 3,
        ..Tuning::default()
    };
    let running = Running::with(|options| options.tuning = tuning).await;
    let mut slow = Client::connect_with_window(running.profile(), 1000).await.unwrap();
    slow.hello("slow", PROTOCOL_VERSION).await;
    assert!(matches!(slow.next().await, ToNode::Welcome { .. }));
    let mut bytes = Vec::new();
    for request in 0..100_000 {
        kiln_protocol::encode_to_coordinator(&mut bytes, slow.epoch, &status(request));
    }
    let other = Client::attach(running.profile(), "other").await;
    // Writing ends when the coordinator has had enough, or when all is on its way.
    drop(slow.send.write_all(&bytes).await);
    let (code, reason) = slow.closed().await;
    assert_eq!(code, CloseCode::Slow.to_bits(), "{reason}");
    until_attached(running.profile(), &["other"]).await;
    drop(other);
}

#[tokio::test]
async fn peers_that_stop_reading_are_cut_off_though_nothing_else_happens() {
    let tuning = Tuning { stall_timeout: Duration::from_millis(100), lease: PATIENCE * 3, ..Tuning::default() };
    let running = Running::with(|options| options.tuning = tuning).await;
    // Several, since reader and writer of a peer are looked at in any order.
    let mut peers = Vec::new();
    for _ in 0..8 {
        let mut slow = Client::connect_with_window(running.profile(), 1000).await.unwrap();
        slow.hello("slow", PROTOCOL_VERSION).await;
        assert!(matches!(slow.next().await, ToNode::Welcome { .. }));
        let mut bytes = Vec::new();
        for request in 0..100 {
            kiln_protocol::encode_to_coordinator(&mut bytes, slow.epoch, &status(request));
        }
        slow.raw(&bytes).await;
        peers.push(slow);
    }
    for slow in peers {
        let (code, reason) = slow.closed().await;
        assert!(code == CloseCode::Slow.to_bits() || code == RESET, "{code}: {reason}");
    }
}

/// A peer that lags behind is told which objects changed once it reads on, and is neither cut off nor sent every change.
#[tokio::test]
async fn a_reader_that_lags_is_told_what_changed_and_not_how() {
    const COMMITS: u64 = 5_000;
    let tuning = Tuning { behind_bytes: 1_000, lease: PATIENCE * 3, ..Tuning::default() };
    let running = Running::with(|options| options.tuning = tuning).await;
    let mut slow = Client::connect_with_window(running.profile(), 2_000).await.unwrap();
    slow.hello("slow", PROTOCOL_VERSION).await;
    assert!(matches!(slow.next().await, ToNode::Welcome { .. }));
    let mut writer = Client::attach(running.profile(), "writer").await;
    let mut object = None;
    for client in [&mut writer, &mut slow] {
        client.say(&open_counters()).await;
        let opened = client.next().await;
        let ToNode::RootOpened { root, .. } = opened else { panic!("{opened:?}") };
        let (request, key, create) = (RequestId::from_bits(2), Bytes::from_static(b"k"), Some(Bytes::new()));
        client.say(&ToCoordinator::Fetch { request, root, key, create }).await;
        let fetched = client.next().await;
        let ToNode::Fetched { record, .. } = fetched else { panic!("{fetched:?}") };
        object = Some(record.object);
    }
    let object = object.unwrap();
    let mut writes = Vec::new();
    Write::Add { field: FieldId::from_bits(0), amount: 1 }.encode(&mut writes);
    let part = Part {
        object,
        group: GroupId::COMMUTATIVE,
        token: Token::default(),
        version: Version::default(),
        writes: writes.into(),
    };
    for _ in 0..COMMITS {
        writer
            .say(&ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: [part.clone()].into() }))
            .await;
    }
    while writer.next().await != (ToNode::Ack { applied: CommitSeq::from_bits(COMMITS) }) {}
    let mut deltas = 0;
    loop {
        match slow.next().await {
            ToNode::Delta(_) => deltas += 1,
            ToNode::Outdated { object: of } => break assert_eq!(of, object),
            other => panic!("{other:?}"),
        }
    }
    assert!((1..COMMITS).contains(&deltas), "{deltas} deltas");
    // From here on it is kept up to date again.
    writer.say(&ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: [part].into() })).await;
    assert!(matches!(slow.next().await, ToNode::Delta(_)));
}

fn open_counters() -> ToCoordinator {
    let clicks = FieldDescription {
        name: "clicks".into(),
        kind: FieldKind::Counter,
        structure: "counter".into(),
        group: String::new(),
    };
    ToCoordinator::OpenRoot {
        request: RequestId::from_bits(1),
        name: "counters".into(),
        key: "string".into(),
        type_description: TypeDescription { name: "Counted".into(), fields: vec![clicks] },
        options: RootOptions::default(),
    }
}

/// Only a goodbye is one: a node may drop a connection that came too late for it, and hold all that it held.
#[tokio::test]
async fn a_connection_that_is_dropped_is_lost_and_its_node_is_not() {
    let running = Running::start().await;
    let mut looks = Client::attach(running.profile(), "looks").await;
    drop(Client::attach(running.profile(), "a").await);
    let mut left = Client::attach(running.profile(), "left").await;
    left.say(&ToCoordinator::Bye).await;
    assert_eq!(left.next().await, ToNode::Goodbye);
    let wait = async {
        loop {
            looks.say(&status(1)).await;
            let ToNode::Status { status, .. } = looks.next().await else { panic!("no status") };
            let a = status.nodes.iter().find(|node| node.name == "a").expect("it has not left");
            if a.away_ms.is_some() {
                return status.nodes.len();
            }
        }
    };
    assert_eq!(timeout(PATIENCE, wait).await.expect("the loss is noticed"), 2);
}

#[tokio::test]
async fn output_is_bounded() {
    let tuning = Tuning { output_bytes_max: 20_000, lease: PATIENCE * 3, ..Tuning::default() };
    let running = Running::with(|options| options.tuning = tuning).await;
    let mut slow = Client::connect_with_window(running.profile(), 1000).await.unwrap();
    slow.hello("slow", PROTOCOL_VERSION).await;
    assert!(matches!(slow.next().await, ToNode::Welcome { .. }));
    let mut bytes = Vec::new();
    for request in 0..10_000 {
        kiln_protocol::encode_to_coordinator(&mut bytes, slow.epoch, &status(request));
    }
    drop(slow.send.write_all(&bytes).await);
    let (code, reason) = slow.closed().await;
    assert_eq!(code, CloseCode::Slow.to_bits());
    assert!(reason.contains("the limit is 20000"), "{reason}");
}

#[tokio::test]
async fn answers_arrive_in_order_however_slowly_they_are_read() {
    const REQUESTS: u64 = 5_000;
    let tuning =
        Tuning { pending_bytes_max: 10_000, output_bytes_max: 20_000, lease: PATIENCE * 3, ..Tuning::default() };
    let running = Running::with(|options| options.tuning = tuning).await;
    let mut client = Client::connect_with_window(running.profile(), 5_000).await.unwrap();
    client.hello("a", PROTOCOL_VERSION).await;
    assert!(matches!(client.next().await, ToNode::Welcome { .. }));
    let mut bytes = Vec::new();
    for request in 0..REQUESTS {
        kiln_protocol::encode_to_coordinator(&mut bytes, client.epoch, &status(request));
    }
    client.raw(&bytes).await;
    for expected in 0..REQUESTS {
        let answer = client.next().await;
        let ToNode::Status { request, .. } = answer else { panic!("no status but {answer:?}") };
        assert_eq!(request, RequestId::from_bits(expected));
    }
}

#[tokio::test]
async fn a_stop_tells_every_peer() {
    let running = Running::start().await;
    let mut a = Client::attach(running.profile(), "a").await;
    let mut b = Client::attach(running.profile(), "b").await;
    // Must not hold the stop up.
    let silent = Client::connect(running.profile()).await.unwrap();
    let mut stop = JoinSet::new();
    stop.spawn(running.server.stop(DEADLINE));
    for client in [&mut a, &mut b] {
        assert_eq!(client.next().await, ToNode::Stopping);
        assert_eq!(client.try_next().await, None);
        assert_eq!(client.closed().await.0, CloseCode::Stopping.to_bits());
    }
    // QUIC has no reasons while a handshake is under way, and its side of it may still be.
    timeout(PATIENCE, silent.connection.closed()).await.expect("it stays connected");
    let stopped = timeout(DEADLINE, stop.join_next()).await.expect("the stop hangs").unwrap().unwrap().unwrap();
    assert_eq!(stopped.cut, 0);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_those_that_do_not_read() {
    let running = Running::start().await;
    let mut slow = Client::connect_with_window(running.profile(), 100).await.unwrap();
    slow.hello("slow", PROTOCOL_VERSION).await;
    let mut bytes = Vec::new();
    for request in 0..100 {
        kiln_protocol::encode_to_coordinator(&mut bytes, slow.epoch, &status(request));
    }
    slow.raw(&bytes).await;
    until_attached(running.profile(), &["slow"]).await;
    let stop = running.server.stop(Duration::from_millis(200));
    let stopped = timeout(DEADLINE, stop).await.expect("the stop hangs").unwrap();
    assert_eq!(stopped.cut, 1);
}

#[tokio::test]
async fn a_dropped_server_stops() {
    let running = Running::start().await;
    let mut client = Client::attach(running.profile(), "a").await;
    drop(running);
    assert_eq!(client.next().await, ToNode::Stopping);
    assert_eq!(client.closed().await.0, CloseCode::Stopping.to_bits());
}

#[tokio::test]
async fn a_restart_takes_the_next_epoch_and_the_old_profile_still_works() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = Options::new(directory.path().join("kiln"));
    options.listen.set_port(0);
    let first = Server::start(options.clone()).await.unwrap();
    let (epoch, profile, address) = (first.epoch(), first.profile().clone(), first.address());
    first.stop(DEADLINE).await.unwrap();
    options.listen = address;
    let second = Server::start(options).await.unwrap();
    assert_eq!(second.epoch(), epoch.next());
    assert_eq!(second.profile(), &profile);
    drop(Client::attach(&profile, "a").await);
    second.stop(DEADLINE).await.unwrap();
}
