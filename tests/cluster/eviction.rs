//! A heap that is smaller than what is used.

use crate::sessions;
use kiln::{AccessError, CommitError, Level, LockError, Runtime, Shared, State, UpdateError};
use kiln_tests::{Coordinator, Session, until};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

const HEAP_BYTES: usize = 1 << 20;
const THEME_BYTES: usize = 2000;

fn theme(key: usize, version: usize) -> String {
    format!("{key}:{version}:").repeat(THEME_BYTES / format!("{key}:{version}:").len())
}

fn made(key: usize) -> Session {
    Session { visits: key as u64, theme: theme(key, 0), ..Session::default() }
}

async fn small(coordinator: &Coordinator) -> Runtime {
    coordinator.builder("small").heap_bytes(HEAP_BYTES).attach().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evicted_objects_come_back_right() {
    const OBJECTS: usize = 1000;
    let coordinator = Coordinator::start().await;
    let (small, large) = (small(&coordinator).await, coordinator.node("large").await);
    let (on_small, on_large) = (sessions(&small).await, sessions(&large).await);
    for key in 0..OBJECTS {
        on_small.insert(key.to_string(), made(key)).await.unwrap();
    }
    let stats = small.stats();
    assert!(stats.evictions > 300, "{stats:?}");
    assert!(stats.resident_bytes <= HEAP_BYTES && stats.resident_objects < 600, "{stats:?}");
    // Changed behind its back, while most of them are not resident.
    for key in (0..OBJECTS).step_by(3) {
        let object = on_large.get(&key.to_string()).await.unwrap().unwrap();
        object.update(|session| session.theme.set(theme(key, 1))).await.unwrap();
    }
    for key in 0..OBJECTS {
        let object = on_small.get(&key.to_string()).await.unwrap().unwrap();
        let guard = object.read().await.unwrap();
        let view = guard.view();
        assert_eq!(view.visits(), key as u64);
        assert_eq!(view.theme(), theme(key, usize::from(key % 3 == 0)), "object {key}");
    }
    assert!(on_small.peek("0").is_none(), "the whole root was resident");
    // And what it changes itself is not lost with the eviction that follows.
    for key in (0..OBJECTS).step_by(5) {
        let object = on_small.get(&key.to_string()).await.unwrap().unwrap();
        object.update(|session| session.theme.set(theme(key, 2))).await.unwrap();
    }
    for key in (0..OBJECTS).step_by(5) {
        let object = on_large.get(&key.to_string()).await.unwrap().unwrap();
        assert_eq!(object.read().await.unwrap().view().theme(), theme(key, 2));
    }
}

/// What a commit replaces comes free only when whoever was pinned has moved on. That passes, so it is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "a reader that blocks, on a thread of its own")]
async fn a_heap_that_waits_for_a_reader_is_not_full() {
    let coordinator = Coordinator::start().await;
    let small = small(&coordinator).await;
    let object = sessions(&small).await.insert("key".into(), made(0)).await.unwrap();
    object.update(|_| ()).await.unwrap();
    let (pinned, is_pinned) = mpsc::channel();
    let (unpin, until_unpin) = mpsc::channel::<()>();
    let reader = std::thread::spawn({
        let object = object.clone();
        move || {
            let view = object.view();
            pinned.send(()).unwrap();
            until_unpin.recv().unwrap();
            view.theme().to_owned()
        }
    });
    is_pinned.recv().unwrap();
    for version in 1.. {
        assert!(version < HEAP_BYTES / THEME_BYTES, "the reader keeps nothing");
        let update = object.update_with(Level::Queued, |session| session.theme.set(theme(0, version)));
        let mut update = std::pin::pin!(update);
        // With the grant here nothing but the heap can make it wait.
        match update.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => done.unwrap(),
            Poll::Pending => {
                unpin.send(()).unwrap();
                update.await.unwrap();
                assert_eq!(object.view().theme(), theme(0, version));
                break;
            }
        }
    }
    assert_eq!(reader.join().unwrap(), theme(0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_with_a_live_handle_stays() {
    let coordinator = Coordinator::start().await;
    let small = small(&coordinator).await;
    let root = sessions(&small).await;
    let mut kept = Vec::new();
    for key in 0..50 {
        kept.push(root.insert(key.to_string(), made(key)).await.unwrap());
    }
    for key in 50..1500 {
        root.insert(key.to_string(), made(key)).await.unwrap();
    }
    assert!(small.stats().evictions > 500);
    for (key, handle) in kept.iter().enumerate() {
        assert_eq!(handle.state(), State::Current);
        assert_eq!(handle.view().theme(), theme(key, 0));
        assert_eq!(root.peek(&key.to_string()).unwrap().id(), handle.id());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heap_full_of_live_objects_says_so_and_recovers() {
    let coordinator = Coordinator::start().await;
    let small = small(&coordinator).await;
    let root = sessions(&small).await;
    let (mut kept, mut full) = (Vec::new(), None);
    for key in 0..2000 {
        match root.insert(key.to_string(), made(key)).await {
            Ok(handle) => kept.push(handle),
            Err(error) => {
                full = Some(error);
                break;
            }
        }
    }
    assert!(matches!(full, Some(AccessError::ArenaFull { .. })), "{full:?}");
    assert!(kept.len() > 100, "only {} objects fit", kept.len());
    // A commit that needs room fails as a whole and says why.
    let long = "long".repeat(50_000);
    let refused = kept[0].update(|session| session.theme.set(long.clone())).await;
    assert!(matches!(refused, Err(UpdateError::Commit(CommitError::ArenaFull { .. }))), "{refused:?}");
    assert_eq!(kept[0].view().theme(), theme(0, 0));
    kept.truncate(1);
    kept[0].update(|session| session.theme.set(long.clone())).await.unwrap();
    root.insert("one more".into(), made(1)).await.unwrap();
    assert_eq!(kept[0].read().await.unwrap().view().theme(), long);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_without_room_makes_the_object_stale_until_there_is_some() {
    let coordinator = Coordinator::start().await;
    let (small, large) = (small(&coordinator).await, coordinator.node("large").await);
    let (on_small, on_large) = (sessions(&small).await, sessions(&large).await);
    let mut kept: Vec<Shared<Session>> = Vec::new();
    for key in 0..2000 {
        match on_small.insert(key.to_string(), made(key)).await {
            Ok(handle) => kept.push(handle),
            Err(_full) => break,
        }
    }
    let other = on_large.get("0").await.unwrap().unwrap();
    let long = "long".repeat(50_000);
    other.update(|session| session.theme.set(long.clone())).await.unwrap();
    other.update(|session| *session.visits = 77).await.unwrap();
    until("the delta finds no room", async || kept[0].state() == State::Stale).await;
    assert!(small.stats().stale > 0);
    // The last version held is shown; a coherent read says what is missing rather than show it.
    assert_eq!((kept[0].view().theme(), kept[0].view().visits()), (&theme(0, 0)[..], 0));
    let refused = kept[0].read().await;
    assert!(matches!(refused, Err(LockError::Fetch(AccessError::ArenaFull { .. }))), "{refused:?}");
    drop(refused);
    kept.truncate(1);
    let guard = kept[0].read().await.unwrap();
    assert_eq!((guard.view().theme(), guard.view().visits()), (&long[..], 77));
    assert_eq!(kept[0].state(), State::Current);
}
