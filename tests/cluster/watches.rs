//! Watches: each version once, in order, on every node, the writer's included.

use crate::{held_by, session, sessions};
use kiln::{EventKind, Key, Watch};
use kiln_tests::{Coordinator, SessionCounters as _, soon};
use std::fmt::Debug;
use tokio::task::JoinSet;

async fn told<K: Key + Debug>(watch: &mut Watch<K>, events: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..events {
        let event = soon("an event", watch.next()).await.unwrap();
        let who = event.writer.map_or_else(|| "-".to_owned(), |(_, name)| name);
        let what = match event.kind {
            EventKind::Created => "created".to_owned(),
            EventKind::Updated { fields, group, version, .. } => {
                format!("{} in {group:?} to {}", fields.join("+"), version.number())
            }
            EventKind::Removed => "removed".to_owned(),
            EventKind::Expired => "expired".to_owned(),
            EventKind::Renamed { to } => format!("renamed {to:?}"),
            EventKind::Gap => "gap".to_owned(),
        };
        let key = event.key.map_or_else(|| "-".to_owned(), |key| format!("{key:?}"));
        told.push(format!("{who} {key} {what}"));
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_tells_the_same_story_on_both_nodes() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (root_a, root_b) = (sessions(&a).await, sessions(&b).await);
    let (mut on_a, mut on_b) = (root_a.watch().await.unwrap(), root_b.watch().await.unwrap());
    let handle = session(&a, "s").await;
    handle
        .update(|session| {
            *session.visits = 1;
            session.theme.set("dark".into());
        })
        .await
        .unwrap();
    session(&b, "s").await.update(|session| *session.balance = 1).await.unwrap();
    handle.update(|session| *session.visits = 2).await.unwrap();
    handle.clicks().add(1).unwrap();
    handle.update(|session| *session.visits = 3).await.unwrap();
    // Rolled back, and nothing changed: no event.
    drop(handle.write().await.unwrap());
    handle.update(|_| ()).await.unwrap();
    assert!(root_b.rename("s", "t".into()).await.unwrap());
    assert!(root_a.remove("t").await.unwrap());
    let story = [
        "a \"s\" created",
        "a \"s\" theme+visits in Some(\"default\") to 1",
        "b \"s\" balance in Some(\"money\") to 1",
        "a \"s\" visits in Some(\"default\") to 2",
        "a \"s\" clicks in None to 1",
        "a \"s\" visits in Some(\"default\") to 3",
        "b \"s\" renamed \"t\"",
        "a \"t\" removed",
    ];
    let (on_a, on_b) = (told(&mut on_a, story.len()).await, told(&mut on_b, story.len()).await);
    assert_eq!(on_a, on_b);
    for (told, expected) in on_a.iter().zip(story) {
        // Which fields, not in which order.
        assert_eq!(told.replace("visits+theme", "theme+visits"), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_is_told_once_in_order() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let mut watches = [on_a.watch::<String>().await.unwrap(), on_b.watch().await.unwrap()];
    let mut writers = JoinSet::new();
    for on in [&on_a, &on_b, &on_a, &on_b] {
        let on = on.clone();
        writers.spawn(async move {
            for _ in 0..100 {
                on.update(|session| *session.visits += 1).await.unwrap();
            }
        });
    }
    for watch in &mut watches {
        for expected in 1..=400 {
            let event = soon("an event", watch.next()).await.unwrap();
            let EventKind::Updated { version, .. } = event.kind else { panic!("{event:?}") };
            assert_eq!(version.number(), expected);
        }
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_objects_watch_ends_with_the_object() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let mut watch = on_b.watch::<String>().await.unwrap();
    let dropped = on_b.watch::<String>().await.unwrap();
    on_a.update(|session| *session.visits = 1).await.unwrap();
    drop(dropped);
    assert!(sessions(&a).await.remove("s").await.unwrap());
    let kinds = told(&mut watch, 2).await;
    assert_eq!(kinds, ["a \"s\" visits in Some(\"default\") to 1", "a \"s\" removed"]);
    assert!(soon("the end of the watch", watch.next()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_with_the_node() {
    let coordinator = Coordinator::start().await;
    let a = coordinator.node("a").await;
    let mut watch = sessions(&a).await.watch().await.unwrap();
    coordinator.stop().await;
    assert!(soon("the end of the watch", watch.next()).await.is_none());
}
