//! Peers with valid credentials and bad intentions, or none at all: each loses its own connection at most, while a good
//! node goes on.

use crate::{session, sessions, visits};
use bytes::Bytes;
use kiln::{LockError, Runtime, Shared};
use kiln_coordinator::server::Tuning;
use kiln_protocol::limits::FRAME_BYTES_MAX;
use kiln_protocol::message::{Commit, Mode, Part};
use kiln_protocol::{
    Failure, GroupId, ObjectId, PROTOCOL_VERSION, RequestId, RootId, ToCoordinator, ToNode, Token, Version, Write,
};
use kiln_tests::peer::RESET;
use kiln_tests::{Coordinator, Peer, Session, SessionCounters as _, soon};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const SHORT: Duration = Duration::from_millis(300);

/// A node that works all the while; in the end nothing it did may be missing.
pub(crate) struct Good {
    kiln: Runtime,
    pub(crate) session: Shared<Session>,
    stop: Arc<AtomicBool>,
    task: JoinSet<u64>,
}

impl Good {
    pub(crate) async fn at_work(coordinator: &Coordinator) -> Self {
        let kiln = coordinator.node("good").await;
        let session = session(&kiln, "good").await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut task = JoinSet::new();
        let (handle, stopped) = (session.clone(), Arc::clone(&stop));
        task.spawn(async move {
            let mut done = 0;
            while !stopped.load(Ordering::SeqCst) || done < 20 {
                soon("the good node's update", handle.update(|session| *session.visits += 1)).await.unwrap();
                handle.clicks().add(1).unwrap();
                done += 1;
            }
            done
        });
        Self { kiln, session, stop, task }
    }

    /// Stops, and checks that it was not disturbed.
    pub(crate) async fn check(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let done = soon("the good node", self.task.join_next()).await.unwrap().unwrap();
        assert_eq!(visits(&self.session).await, done);
        assert_eq!(self.session.view().clicks(), i64::try_from(done).unwrap());
        assert_eq!(self.kiln.stats().commits_refused, 0);
    }
}

/// Numbers that look random and are the same each time.
pub(crate) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[6]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_its_own_connection_with_a_reason() {
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    for seed in 0..40 {
        // Attached or not: half of them never say hello.
        let mut peer = if seed % 2 == 0 {
            Peer::attach(coordinator.profile(), "garbage").await
        } else {
            Peer::connect(coordinator.profile()).await.unwrap()
        };
        // A short whole frame first, so that each one has something to be refused for.
        let mut bytes = vec![9, 0x7e];
        bytes.extend(noise(seed).take(8 + usize::try_from(seed).unwrap() * 7));
        peer.say_bytes(&bytes).await;
        let why = peer.closed().await;
        assert!(!why.is_empty(), "closed without a reason");
    }
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_too_long_are_not_read() {
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let mut length = Vec::new();
    kiln_protocol::codec::put_varint(&mut length, FRAME_BYTES_MAX as u64 + 1);
    for head in [&length[..], &[0xff; 10], &[0x80; 10]] {
        let mut peer = Peer::attach(coordinator.profile(), "long").await;
        peer.say_bytes(head).await;
        let why = peer.closed().await;
        assert!(why.contains("frame") || why == RESET, "{why}");
    }
    let mut peer = Peer::connect(coordinator.profile()).await.unwrap();
    // A Hello is short.
    peer.hello(&"x".repeat(100_000), PROTOCOL_VERSION).await;
    assert!(!peer.closed().await.is_empty());
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_frame_is_waited_for_without_harm() {
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let mut silent = Peer::attach(coordinator.profile(), "silent").await;
    let mut vanishing = Peer::attach(coordinator.profile(), "vanishing").await;
    let mut whole = Vec::new();
    let status = ToCoordinator::Status { request: RequestId::from_bits(7) };
    kiln_protocol::encode_to_coordinator(&mut whole, silent.epoch(), &status);
    vanishing.say_bytes(&whole[..2]).await;
    vanishing.vanish().await;
    // The other half may come late, byte by byte.
    for byte in &whole {
        silent.say_bytes(&[*byte]).await;
    }
    silent.hear_of("the status", |message| matches!(message, ToNode::Status { .. }).then_some(())).await;
    silent.say_bytes(&whole[..1]).await;
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_out_of_turn_end_the_connection() {
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let mut early = Peer::connect(coordinator.profile()).await.unwrap();
    early.say(&ToCoordinator::Status { request: RequestId::from_bits(1) }).await;
    let why = early.closed().await;
    assert!(why.contains("Hello") || why == RESET, "{why}");
    let mut twice = Peer::attach(coordinator.profile(), "twice").await;
    twice.hello("twice", PROTOCOL_VERSION).await;
    let why = twice.closed().await;
    assert!(why.contains("Hello") || why == RESET, "{why}");
    good.check().await;
}

/// A hostile node that has opened the root of the sessions and knows the object of the good one.
pub(crate) async fn insider(coordinator: &Coordinator) -> (Peer, RootId, ObjectId) {
    let mut peer = Peer::attach(coordinator.profile(), "insider").await;
    let root = peer.open_root(kiln_tests::SESSIONS, "string", kiln_engine::describe::<Session>()).await;
    let (request, key) = (peer.request(), Bytes::from_static(b"good"));
    peer.say(&ToCoordinator::Fetch { request, root, key, create: None }).await;
    let object = peer.hear_of("the record", |message| match message {
        ToNode::Fetched { record, .. } => Some(record.object),
        _ => None,
    });
    let object = object.await;
    (peer, root, object)
}

pub(crate) fn commit(
    object: ObjectId,
    group: GroupId,
    token: Token,
    version: Version,
    write: Write<'_>,
) -> ToCoordinator {
    let mut writes = Vec::new();
    write.encode(&mut writes);
    let part = Part { object, group, token, version, writes: writes.into() };
    ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: [part].into_iter().collect() })
}

pub(crate) fn scalar(field: u16, bits: u64) -> Write<'static> {
    Write::Scalar { field: kiln_protocol::FieldId::from_bits(field), bits }
}

pub(crate) async fn refusal(peer: &mut Peer) -> Failure {
    peer.hear_of("a refusal", |message| match message {
        ToNode::CommitRefused { failure, .. } | ToNode::LockFailed { failure, .. } | ToNode::Failed { failure, .. } => {
            Some(failure.clone())
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_commits_without_the_current_grant() {
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let (mut peer, _, object) = insider(&coordinator).await;
    let epoch = peer.epoch();
    let version = Version::new(epoch, 1).unwrap();
    // Without a token, and with every one that may have been given out.
    for number in 0..200 {
        let token = Token::new(epoch, number).unwrap();
        peer.say(&commit(object, GroupId::DEFAULT, token, version, scalar(2, 666))).await;
        let failure = refusal(&mut peer).await;
        assert!(matches!(failure, Failure::Fenced { .. }), "{failure:?}");
    }
    // Adds need no grant, but take no other write with them.
    let (token, version) = (Token::default(), Version::default());
    for (group, field) in [(GroupId::COMMUTATIVE, 2), (GroupId::from_bits(77), 2), (GroupId::COMMUTATIVE, 999)] {
        peer.say(&commit(object, group, token, version, scalar(field, 666))).await;
        let failure = refusal(&mut peer).await;
        assert!(!failure.to_string().is_empty());
    }
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_of_others_and_of_nobody_are_of_no_use() {
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let (mut peer, root, object) = insider(&coordinator).await;
    let nowhere = RootId::from_bits(99);
    let key = Bytes::from_static(b"good");
    let request = RequestId::from_bits(500);
    for number in [0, 1, 4095, 1 << 20, u64::MAX, object.to_bits() ^ 1] {
        let unknown = ObjectId::from_bits(number);
        let (group, mode) = (GroupId::DEFAULT, Mode::Write);
        peer.say(&ToCoordinator::Acquire { request, object: unknown, group, mode, want_record: true }).await;
        assert!(matches!(refusal(&mut peer).await, Failure::Destroyed { .. }));
        peer.say(&ToCoordinator::Refetch { request, object: unknown }).await;
        assert!(matches!(refusal(&mut peer).await, Failure::Destroyed { .. }));
        peer.say(&commit(unknown, group, Token::default(), Version::default(), scalar(2, 1))).await;
        assert!(matches!(refusal(&mut peer).await, Failure::Destroyed { .. }));
        // Without an answer.
        peer.say(&ToCoordinator::Forget { object: unknown }).await;
        peer.say(&ToCoordinator::Release { object: unknown, group, token: Token::default(), keep_read: true }).await;
        peer.say(&ToCoordinator::Withdraw { request, object: unknown, group }).await;
    }
    for group in [GroupId::COMMUTATIVE, GroupId::from_bits(50)] {
        let mode = Mode::Read;
        peer.say(&ToCoordinator::Acquire { request, object, group, mode, want_record: false }).await;
        assert!(!refusal(&mut peer).await.to_string().is_empty());
    }
    for message in [
        ToCoordinator::Fetch { request, root: nowhere, key: key.clone(), create: None },
        ToCoordinator::Insert { request, root: nowhere, key: key.clone(), writes: Bytes::new() },
        ToCoordinator::Remove { request, root: nowhere, key: key.clone(), everywhere: true },
        ToCoordinator::Keys { request, root: nowhere, after: None, limit: u32::MAX },
    ] {
        peer.say(&message).await;
        assert!(matches!(refusal(&mut peer).await, Failure::UnknownRoot { .. }));
    }
    // Records that are none, keys that are too long.
    let long = Bytes::from(vec![0; 2000]);
    for message in [
        ToCoordinator::Insert { request, root, key: Bytes::from_static(b"bad"), writes: Bytes::from_static(&[7]) },
        ToCoordinator::Fetch { request, root, key: long.clone(), create: Some(Bytes::new()) },
        ToCoordinator::Rename { request, root, from: key.clone(), to: long },
    ] {
        peer.say(&message).await;
        assert!(!refusal(&mut peer).await.to_string().is_empty());
    }
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_releases_and_withdrawals_free_nobodys_lock() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = (session(&a, "good").await, session(&b, "good").await);
    let guard = on_a.write().await.unwrap();
    let mut waiting = JoinSet::new();
    let handle = on_b.clone();
    waiting.spawn(async move { handle.update(|session| *session.visits += 1).await });
    let (mut peer, _, object) = insider(&coordinator).await;
    let (epoch, group) = (peer.epoch(), GroupId::DEFAULT);
    for number in 0..300 {
        let token = Token::new(epoch, number).unwrap();
        peer.say(&ToCoordinator::Release { object, group, token, keep_read: number % 2 == 0 }).await;
        peer.say(&ToCoordinator::Withdraw { request: RequestId::from_bits(number), object, group }).await;
    }
    peer.say(&ToCoordinator::Forget { object }).await;
    let request = peer.request();
    peer.say(&ToCoordinator::Status { request }).await;
    peer.hear_of("all of it is done", |message| matches!(message, ToNode::Status { .. }).then_some(())).await;
    let c = coordinator.node("c").await;
    let late = session(&c, "good").await.with_timeout(SHORT).write().await.map(drop);
    assert!(matches!(late, Err(LockError::Timeout { .. })), "{late:?}");
    assert!(waiting.try_join_next().is_none());
    drop(guard);
    soon("the one that waited", waiting.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(visits(&on_a).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_requests_disturb_nobody() {
    const FLOOD: u64 = 20_000;
    let tune = |tuning: &mut Tuning| {
        tuning.pending_bytes_max = 64 << 10;
        tuning.stall_timeout = Duration::from_secs(2);
    };
    let coordinator = Coordinator::with(|options| tune(&mut options.tuning)).await;
    let good = Good::at_work(&coordinator).await;
    // One that asks for locks that it cannot have, again and again.
    let (mut asking, root, object) = insider(&coordinator).await;
    for number in 1000..1000 + FLOOD {
        let (request, group, mode) = (RequestId::from_bits(number), GroupId::DEFAULT, Mode::Write);
        asking.say(&ToCoordinator::Acquire { request, object, group, mode, want_record: true }).await;
        asking.say(&ToCoordinator::Withdraw { request, object, group }).await;
    }
    asking.vanish().await;
    // One that asks and never listens: it is no longer read once enough answers wait for it, and then cut off.
    let mut deaf = Peer::attach(coordinator.profile(), "deaf").await;
    let mut questions = Vec::new();
    for number in 0..FLOOD {
        let request = RequestId::from_bits(number);
        kiln_protocol::encode_to_coordinator(&mut questions, deaf.epoch(), &ToCoordinator::Status { request });
    }
    let cut_off = soon("it is cut off", deaf.say_until_closed(&questions)).await;
    assert!(cut_off.contains("read") || cut_off == RESET, "{cut_off}");
    let there = sessions(&good.kiln).await.contains("good").await.unwrap();
    assert!(there && root.to_bits() > 0);
    good.check().await;
}
