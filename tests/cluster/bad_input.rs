//! Bad input, one kind after the other: each is refused with an error that names the reason, logged once, and disturbs
//! nobody.

use crate::hostile::{Good, commit, insider, noise, refusal, scalar};
use crate::session;
use bytes::Bytes;
use kiln::{AttachError, Clustered, Root, Runtime, State};
use kiln_protocol::message::{Hello, Mode, Resume, Role};
use kiln_protocol::{
    CommitSeq, Failure, GroupId, ObjectId, PROTOCOL_VERSION, Secret, ToCoordinator, ToNode, Token, Version, Write,
};
use kiln_tests::{Coordinator, Peer, log, soon, until};

/// A type of another root than the sessions'.
#[derive(Clustered, Default)]
struct Order {
    cents: u64,
}

/// Takes the write lock of an object's default group.
async fn lock(peer: &mut Peer, object: ObjectId) -> Token {
    let (request, group, mode) = (peer.request(), GroupId::DEFAULT, Mode::Write);
    peer.say(&ToCoordinator::Acquire { request, object, group, mode, want_record: false }).await;
    peer.hear_of("the grant", |message| match message {
        ToNode::Grant { token, .. } => Some(*token),
        _ => None,
    })
    .await
}

/// Says that it is refused, and why.
async fn turned_down(mut peer: Peer, hello: Hello) -> Failure {
    let address = peer.address();
    peer.say(&ToCoordinator::Hello(hello)).await;
    let refused = peer.hear().await;
    let Some(ToNode::Refused { failure }) = refused else { panic!("{refused:?}") };
    let why = peer.closed().await;
    assert!(why == failure.to_string() || why == kiln_tests::peer::RESET, "{why}");
    let line = log::one_line_about(address).await;
    assert!(line.contains(&failure.to_string()), "{line}");
    failure
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_version_is_refused_with_both_numbers() {
    log::listen();
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let peer = Peer::connect(coordinator.profile()).await.unwrap();
    let failure = turned_down(peer, Hello { protocol: 4711, ..Hello::new("newer", Role::Node) }).await;
    assert_eq!(failure, Failure::Protocol { ours: PROTOCOL_VERSION, theirs: 4711 });
    let message = failure.to_string();
    assert!(message.contains("4711") && message.contains(&PROTOCOL_VERSION.to_string()), "{message}");
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_cluster_is_refused() {
    log::listen();
    let (coordinator, other) = (Coordinator::start().await, Coordinator::start().await);
    let good = Good::at_work(&coordinator).await;
    let mut profile = coordinator.profile().clone();
    profile.certificate.clone_from(&other.profile().certificate);
    profile.key.clone_from(&other.profile().key);
    let (from, why) = Peer::turned_away(&profile).await;
    assert!(why.contains("certificate") || why.contains("UnknownCA"), "{why}");
    let line = log::one_line_about(from).await;
    assert!(line.contains("certificate") || line.contains("UnknownIssuer"), "{line}");
    let refused = soon("a refusal", Runtime::builder().with_profile(profile).attach()).await;
    assert!(matches!(refused, Err(AttachError::Connect { .. })), "{refused:?}");
    // And a node does not talk to a coordinator that it has no reason to trust.
    let mut profile = coordinator.profile().clone();
    profile.ca.clone_from(&other.profile().ca);
    let refused = soon("a refusal", Runtime::builder().with_profile(profile).attach()).await;
    assert!(matches!(refused, Err(AttachError::Connect { .. })), "{refused:?}");
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_another_root_is_out_of_reach() {
    log::listen();
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let victim = good.session.id();
    // It has a lock, and an object: in another root.
    let orders: Root<String, Order> = coordinator.node("shop").await.root("orders").await.unwrap();
    let order = orders.get_or_create("o", Order::default).await.unwrap();
    let mut peer = Peer::attach(coordinator.profile(), "stranger").await;
    let root = peer.open_root("orders", "string", kiln_engine::describe::<Order>()).await;
    let (request, key) = (peer.request(), Bytes::from_static(b"o"));
    peer.say(&ToCoordinator::Fetch { request, root, key, create: None }).await;
    peer.hear_of("the record", |message| matches!(message, ToNode::Fetched { .. }).then_some(())).await;
    let token = lock(&mut peer, order.id()).await;
    let version = Version::new(peer.epoch(), 1).unwrap();
    for _ in 0..3 {
        peer.say(&commit(victim, GroupId::DEFAULT, token, version, scalar(2, 666))).await;
        let failure = refusal(&mut peer).await;
        assert_eq!(failure, Failure::Fenced { object: victim, group: GroupId::DEFAULT, token });
    }
    let line = log::one_line_about(peer.address()).await;
    assert!(line.contains(&victim.to_string()) && line.contains("is not the current one"), "{line}");
    // Its own root is no way to it either, whatever key it names.
    let (request, key) = (peer.request(), Bytes::from_static(b"good"));
    peer.say(&ToCoordinator::Remove { request, root, key, everywhere: false }).await;
    let removed = peer.hear_of("the answer", |message| match message {
        ToNode::Done { yes, .. } => Some(*yes),
        _ => None,
    });
    assert!(!removed.await);
    // What is its own it may change.
    peer.say(&commit(order.id(), GroupId::DEFAULT, token, version, scalar(0, 5))).await;
    until("its own commit arrives", async || order.get(|view| view.cents()) == 5).await;
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_a_field_that_does_not_exist_is_refused_whole() {
    log::listen();
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let a = coordinator.node("a").await;
    let on_a = session(&a, "mine").await;
    let (mut peer, root, _) = insider(&coordinator).await;
    let (request, key) = (peer.request(), Bytes::from_static(b"mine"));
    peer.say(&ToCoordinator::Fetch { request, root, key, create: None }).await;
    let object = on_a.id();
    peer.hear_of("the record", |message| matches!(message, ToNode::Fetched { .. }).then_some(())).await;
    let token = lock(&mut peer, object).await;
    let version = Version::new(peer.epoch(), 1).unwrap();
    for _ in 0..3 {
        let mut writes = Vec::new();
        scalar(2, 7).encode(&mut writes);
        scalar(999, 7).encode(&mut writes);
        let mut message = commit(object, GroupId::DEFAULT, token, version, scalar(2, 7));
        let ToCoordinator::Commit(bad) = &mut message else { panic!("{message:?}") };
        bad.parts[0].writes = writes.into();
        peer.say(&message).await;
        let failure = refusal(&mut peer).await;
        assert!(
            matches!(&failure, Failure::BadWrite { object: of, field, .. } if *of == object && field.to_bits() == 999),
            "{failure:?}"
        );
        assert!(failure.to_string().contains("field 999"), "{failure}");
    }
    let line = log::one_line_about(peer.address()).await;
    assert!(line.contains("field 999"), "{line}");
    // Nothing of it was applied: the version is still to be had.
    assert_eq!(on_a.view().visits(), 0);
    peer.say(&commit(object, GroupId::DEFAULT, token, version, scalar(2, 8))).await;
    until("a good commit arrives", async || on_a.get(|view| view.visits()) == 8).await;
    assert_eq!(on_a.state(), State::Current);
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_over_an_incarnation_without_its_secret() {
    log::listen();
    let coordinator = Coordinator::start().await;
    let good = Good::at_work(&coordinator).await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = (session(&a, "held").await, session(&b, "held").await);
    let guard = on_a.write().await.unwrap();
    let victim = a.node().incarnation;
    let epoch = Peer::attach(coordinator.profile(), "a look at the epoch").await.epoch();
    for (byte, lapsed) in [(0, false), (0xff, true)] {
        let (secret, acked) = (Secret::from_bytes([byte; 16]), CommitSeq::default());
        let resume = Some(Resume { epoch, incarnation: victim, secret, acked, lapsed, attempt: 1 });
        let peer = Peer::connect(coordinator.profile()).await.unwrap();
        let failure = turned_down(peer, Hello { resume, ..Hello::new("a", Role::Node) }).await;
        assert_eq!(failure, Failure::BadSecret { incarnation: victim });
        assert!(failure.to_string().contains(&victim.to_string()), "{failure}");
    }
    // And a grant that one merely claims to have is not one's own.
    let mut peer = Peer::attach(coordinator.profile(), "claims").await;
    let (object, group) = (on_a.id(), GroupId::DEFAULT);
    for number in 0..50 {
        let (token, mode) = (Token::new(epoch, number).unwrap(), Mode::Write);
        peer.say(&ToCoordinator::Reassert { object, group, token, mode }).await;
        let lost = peer.hear_of("an answer", |message| match message {
            ToNode::GrantLost { token, .. } => Some(*token),
            _ => None,
        });
        assert_eq!(lost.await, token);
    }
    assert!(on_b.try_write().is_none());
    drop(guard);
    on_b.update(|session| *session.visits += 1).await.unwrap();
    on_a.update(|session| *session.visits += 1).await.unwrap();
    assert_eq!((on_a.view().visits(), a.node().incarnation), (2, victim));
    good.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_archive_is_never_shown_and_a_later_write_heals_it() {
    let coordinator = Coordinator::start().await;
    let a = coordinator.node("a").await;
    let before = a.node().incarnation;
    let on_a = session(&a, "good").await;
    on_a.update(|session| session.user.set(Some("ada".into()))).await.unwrap();
    let (mut peer, _, object) = insider(&coordinator).await;
    let (request, group, mode) = (peer.request(), GroupId::DEFAULT, Mode::Write);
    peer.say(&ToCoordinator::Acquire { request, object, group, mode, want_record: false }).await;
    let token = peer.hear_of("the grant", |message| match message {
        ToNode::Grant { token, .. } => Some(*token),
        _ => None,
    });
    let token = token.await;
    let version = Version::new(peer.epoch(), 2).unwrap();
    let bytes: Vec<u8> = noise(3).take(64).collect();
    let garbage = Write::Block { field: kiln_protocol::FieldId::from_bits(0), bytes: &bytes };
    peer.say(&commit(object, group, token, version, garbage)).await;
    peer.hear_of("it is ordered", |message| matches!(message, ToNode::Ack { .. }).then_some(())).await;
    until("the bad field is noticed", async || !on_a.corrupt_fields().is_empty()).await;
    let corrupt = on_a.corrupt_fields();
    assert_eq!((corrupt.len(), corrupt[0].field, corrupt[0].writer), (1, "user", Some(peer.incarnation())));
    assert_eq!(on_a.view().user().as_ref().map(|user| user.as_str()), Some("ada"));
    // Its stream goes on, and so does the object.
    let version = Version::new(peer.epoch(), 3).unwrap();
    peer.say(&commit(object, group, token, version, scalar(2, 7))).await;
    until("a good write arrives", async || on_a.get(|view| view.visits()) == 7).await;
    assert_eq!((on_a.state(), on_a.corrupt_fields().len(), a.node().incarnation), (State::Current, 1, before));
    // One that faults it in has no version before it, and shows the default.
    let b = coordinator.node("b").await;
    let on_b = session(&b, "good").await;
    assert_eq!(on_b.corrupt_fields().len(), 1);
    assert!(on_b.view().user().is_none());
    // Everybody who holds the object would be waited for, and this one never answers.
    peer.vanish().await;
    on_a.update_with(kiln::Level::Everywhere, |session| session.user.set(Some("eve".into()))).await.unwrap();
    for handle in [&on_a, &on_b] {
        assert!(handle.corrupt_fields().is_empty());
        assert_eq!(handle.view().user().as_ref().map(|user| user.as_str()), Some("eve"));
    }
}
