//! After a commit of level `Everywhere`, no node shows the old version.

use crate::{held_by, session, sessions};
use kiln::Level;
use kiln_protocol::{ToCoordinator, ToNode};
use kiln_tests::{Coordinator, Peer, Session, soon};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_node_shows_the_old_version() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let c = coordinator.node("c").await;
    let nodes = [session(&a, "s").await, session(&b, "s").await, session(&c, "s").await];
    for round in 1..=150 {
        let writer = &nodes[round % 3];
        writer.update_with(Level::Everywhere, |session| *session.visits += 1).await.unwrap();
        for node in &nodes {
            assert_eq!(node.get(|view| view.visits()), round as u64);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_holds_everywhere_at_once() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (root_a, root_b) = (sessions(&a).await, sessions(&b).await);
    for round in 0..50 {
        let key = format!("s{round}");
        session(&a, &key).await;
        session(&b, &key).await;
        assert!(root_a.remove_everywhere(&key).await.unwrap());
        assert!(root_b.peek(&key).is_none());
        assert!(root_b.get(&key).await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_one_commit_reach_everybody_together() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (x, y) = (session(&a, "x").await, session(&a, "y").await);
    let (on_b, _) = (session(&b, "y").await, session(&b, "x").await);
    for round in 1..=50 {
        let (mut one, mut two) = (x.write().await.unwrap(), y.write().await.unwrap());
        *one.visits = round;
        *two.visits = round;
        a.commit_with((one, two), Level::Everywhere).await.unwrap();
        assert_eq!(on_b.view().visits(), round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_waited_for_until_it_is_gone() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, _on_b) = held_by(&a, &b).await;
    let mut peer = Peer::attach(coordinator.profile(), "mute").await;
    let root = peer.open_root(kiln_tests::SESSIONS, "string", kiln_engine::describe::<Session>()).await;
    let (request, key) = (peer.request(), bytes::Bytes::from_static(b"s"));
    peer.say(&ToCoordinator::Fetch { request, root, key, create: None }).await;
    peer.hear_of("the record", |message| matches!(message, ToNode::Fetched { .. }).then_some(())).await;
    let mut commits = JoinSet::new();
    let writer = on_a.clone();
    commits.spawn(async move { writer.update_with(Level::Everywhere, |session| *session.visits += 1).await });
    // It was sent the commit and the question whether it has applied it.
    peer.hear_of("the barrier", |message| matches!(message, ToNode::Barrier { .. }).then_some(())).await;
    assert!(commits.try_join_next().is_none(), "a node with an old version was not waited for");
    peer.vanish().await;
    soon("the commit", commits.join_next()).await.unwrap().unwrap().unwrap();
}
