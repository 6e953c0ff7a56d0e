//! Roots: what is put under a key, found, moved and removed.

use crate::{held_by, session, sessions};
use kiln::{AccessError, CommitError, Failure, LockError, Map, Root, State, UpdateError};
use kiln_tests::{Coordinator, Dropped, Line, Session, SessionCounters as _, drop_after, soon, until};
use tokio::task::JoinSet;

fn full() -> Session {
    let line = Line { title: "Tea".into(), count: 3 };
    Session {
        user: Some("ada".into()),
        theme: "dark".into(),
        visits: 7,
        clicks: -2,
        cart: Map::from_iter([("sku-1".to_owned(), line)]),
        balance: -9,
        currency: "EUR".into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_inserts_the_other_gets() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (a, b) = (sessions(&a).await, sessions(&b).await);
    let inserted = a.insert("s".into(), full()).await.unwrap();
    let got = b.get("s").await.unwrap().unwrap();
    assert_eq!(inserted.id(), got.id());
    let view = got.view();
    assert_eq!(view.user().as_ref().map(|user| user.as_str()), Some("ada"));
    assert_eq!((view.theme(), view.visits(), view.clicks()), ("dark", 7, -2));
    assert_eq!((view.balance(), view.currency()), (-9, "EUR"));
    let line = view.cart().get("sku-1").unwrap();
    assert_eq!((line.title.as_str(), line.count.to_native()), ("Tea", 3));
    assert_eq!(view.cart().len(), 1);
    drop(view);
    assert!(b.contains("s").await.unwrap());
    assert!(!b.contains("t").await.unwrap());
    assert!(b.get("t").await.unwrap().is_none());
    assert!(b.peek("s").is_some() && b.peek("t").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_replaced_is_destroyed() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let old = session(&a, "s").await;
    let sessions_of_b = sessions(&b).await;
    let new = sessions_of_b.insert("s".into(), full()).await.unwrap();
    assert_ne!(old.id(), new.id());
    until("the handle is told", async || old.state() == State::Destroyed).await;
    assert!(matches!(old.write().await, Err(LockError::Destroyed)));
    // What it had is still shown.
    assert_eq!(old.view().visits(), 0);
    assert_eq!(session(&a, "s").await.id(), new.id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_resurrects_a_removed_object() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let on_b = on_b.clone();
        writers.spawn(async move {
            loop {
                if let Err(error) = on_b.update(|session| *session.visits += 1).await {
                    return error;
                }
            }
        });
    }
    until("the writers run", async || on_a.view().visits() > 20).await;
    let root = sessions(&a).await;
    assert!(root.remove_everywhere("s").await.unwrap());
    // At once, on every node.
    assert_eq!((on_a.state(), on_b.state()), (State::Destroyed, State::Destroyed));
    assert!(sessions(&b).await.peek("s").is_none());
    while let Some(error) = soon("a writer ends", writers.join_next()).await {
        let error = error.unwrap();
        let destroyed =
            matches!(error, UpdateError::Lock(LockError::Destroyed) | UpdateError::Commit(CommitError::Destroyed));
        assert!(destroyed, "{error:?}");
    }
    for handle in [&on_a, &on_b] {
        assert!(matches!(handle.read().await, Err(LockError::Destroyed)));
        assert!(handle.try_write().is_none());
        assert!(matches!(handle.clicks().add(1), Err(CommitError::Destroyed)));
    }
    assert!(!root.contains("s").await.unwrap());
    assert!(sessions(&b).await.get("s").await.unwrap().is_none());
    assert!(!root.remove("s").await.unwrap());
    let reborn = session(&b, "s").await;
    assert_ne!(reborn.id(), on_b.id());
    assert_eq!(reborn.view().visits(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_is_held_keeps_an_object_from_being_removed() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_a = session(&a, "s").await;
    let mut guard = on_a.write().await.unwrap();
    *guard.visits = 1;
    let root = sessions(&b).await;
    let mut removal = JoinSet::new();
    removal.spawn(async move { root.remove("s").await });
    let watched = sessions(&b).await;
    for _ in 0..20 {
        assert!(watched.contains("s").await.unwrap());
    }
    guard.commit().await.unwrap();
    assert!(soon("the removal", removal.join_next()).await.unwrap().unwrap().unwrap());
    assert!(!watched.contains("s").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_object_is_the_same_object() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    on_a.update(|session| *session.visits = 5).await.unwrap();
    let (root_a, root_b) = (sessions(&a).await, sessions(&b).await);
    assert!(root_a.rename("s", "t".into()).await.unwrap());
    assert!(!root_a.rename("s", "u".into()).await.unwrap());
    assert!(root_b.get("s").await.unwrap().is_none());
    let moved = root_b.get("t").await.unwrap().unwrap();
    assert_eq!((moved.id(), on_b.state()), (on_b.id(), State::Current));
    on_b.update(|session| *session.visits += 1).await.unwrap();
    assert_eq!(root_a.get("t").await.unwrap().unwrap().read().await.unwrap().view().visits(), 6);
    root_a.insert("taken".into(), Session::default()).await.unwrap();
    let refused = root_b.rename("t", "taken".into()).await;
    assert!(matches!(refused, Err(AccessError::Refused(Failure::KeyTaken))), "{refused:?}");
    assert!(root_b.contains("t").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_in_pages_in_ascending_order() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let numbers: Root<i64, Session> = a.root("numbers").await.unwrap();
    for key in (-12..13).rev() {
        numbers.insert(key, Session::default()).await.unwrap();
    }
    let numbers: Root<i64, Session> = b.root("numbers").await.unwrap();
    assert!(numbers.remove(&0).await.unwrap());
    let (mut keys, mut pages) = (numbers.keys(), Vec::new());
    loop {
        let page = keys.next_page(10).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.push(page);
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 4]);
    assert_eq!(pages.concat(), (-12..0).chain(1..13).collect::<Vec<_>>());
    assert_eq!(numbers.keys().next_page(0).await.unwrap().len(), 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_was_given_up_is_not_done_later() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_a = session(&a, "s").await;
    let guard = on_a.write().await.unwrap();
    let on_b = sessions(&b).await;
    for _ in 0..3 {
        assert!(matches!(drop_after(1, Box::pin(on_b.remove("s"))).await, Dropped::Pending));
        assert!(matches!(drop_after(1, Box::pin(on_b.insert("s".into(), Session::default()))).await, Dropped::Pending));
    }
    drop(guard);
    // Behind whatever would have been done.
    on_a.update(|session| *session.visits += 1).await.unwrap();
    let object = soon("it is there", on_b.get("s")).await.unwrap().unwrap();
    object.update(|session| *session.visits += 1).await.unwrap();
    assert_eq!((object.id(), object.view().visits()), (on_a.id(), 2));
}
