//! Futures dropped at every point where they wait: the lock is free afterwards, nothing is left behind, and what was
//! being committed has happened as a whole or not at all.

use crate::{held_by, session, sessions, visits};
use kiln::{Runtime, Shared};
use kiln_protocol::{ToCoordinator, ToNode};
use kiln_tests::{Coordinator, Dropped, Peer, Session, drop_after, soon, until};
use std::time::Duration;
use tokio::task::JoinSet;

/// How often every point is tried: what is under way elsewhere is another thing each time.
const ROUNDS: usize = 8;
const POLLS_MAX: usize = 64;

/// Drops what `start` makes after 0, 1, 2 and so on polls until it is done, and runs `check` after each.
async fn at_every_point<R>(mut start: impl AsyncFnMut(usize) -> R, mut check: impl AsyncFnMut(bool)) {
    for _ in 0..ROUNDS {
        let mut polls = 0;
        loop {
            let dropped = soon("it goes on", drop_after(polls, Box::pin(start(polls)))).await;
            let done = matches!(dropped, Dropped::Done(_));
            drop(dropped);
            soon("it was dropped cleanly", Box::pin(check(done))).await;
            if done {
                break;
            }
            polls += 1;
            assert!(polls < POLLS_MAX, "it waits for ever");
        }
    }
}

/// Nobody waits for a lock.
async fn nobody_waits(coordinator: &Coordinator) {
    let peer = tokio::sync::Mutex::new(Peer::observe(coordinator.profile()).await);
    until("nobody waits any more", async || peer.lock().await.locks().await.iter().all(|lock| lock.waiters.is_empty()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_request_that_is_dropped_holds_nothing() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let mut expected = 0;
    // B has the grant when each one starts, so that A has to ask for it.
    on_b.update(|session| *session.visits += 1).await.unwrap();
    expected += 1;
    at_every_point(
        async |_| drop(on_a.write().await.unwrap()),
        async |_| {
            on_b.update(|session| *session.visits += 1).await.unwrap();
            expected += 1;
        },
    )
    .await;
    at_every_point(
        async |_| drop(on_a.read().await.unwrap()),
        async |_| {
            on_b.update(|session| *session.visits += 1).await.unwrap();
            expected += 1;
        },
    )
    .await;
    at_every_point(
        async |_| drop(on_a.write_group("money").await.unwrap()),
        async |_| drop(on_b.write().await.unwrap()),
    )
    .await;
    nobody_waits(&coordinator).await;
    assert_eq!(visits(&on_a).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_in_the_queue_that_is_dropped_lets_the_next_one_in() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    for holder in [&on_a, &on_b] {
        let guard = holder.write().await.unwrap();
        let mut waiting = JoinSet::new();
        for on in [&on_a, &on_b] {
            for polls in 1..4 {
                let on = on.clone();
                waiting.spawn(async move { drop(drop_after(polls, on.write()).await) });
            }
            let on = on.clone();
            waiting.spawn(async move {
                on.update(|session| *session.visits += 1).await.unwrap();
            });
        }
        tokio::task::yield_now().await;
        drop(guard);
        while let Some(done) = soon("those who stayed get in", waiting.join_next()).await {
            done.unwrap();
        }
    }
    assert_eq!(visits(&on_a).await, 4);
    nobody_waits(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_dropped_happens_as_a_whole_or_not_at_all() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let mut last = 0;
    at_every_point(
        async |_| {
            on_a.update(|session| {
                *session.visits += 1;
                let now = session.visits.to_string();
                session.theme.set(now);
                *session.balance += 1;
            })
            .await
            .unwrap();
        },
        async |done| {
            let guard = on_b.write().await.unwrap();
            let now = *guard.visits;
            assert!(now == last + 1 || (!done && now == last), "{now} after {last}");
            last = now;
            assert_eq!(*guard.balance, i64::try_from(now).unwrap());
            assert_eq!(*guard.theme, if now == 0 { String::new() } else { now.to_string() });
        },
    )
    .await;
    nobody_waits(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_two_objects_that_is_dropped_is_all_or_nothing() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (x, y) = (session(&a, "x").await, session(&a, "y").await);
    let (far_x, far_y) = (session(&b, "x").await, session(&b, "y").await);
    at_every_point(
        async |_| move_one(&a, &x, &y).await,
        async |_| {
            let (one, two) = (far_x.write().await.unwrap(), far_y.write().await.unwrap());
            assert_eq!(*one.balance + *two.balance, 0);
        },
    )
    .await;
    assert!(far_y.read().await.unwrap().view().balance() >= i64::try_from(ROUNDS).unwrap());
    nobody_waits(&coordinator).await;
}

async fn move_one(kiln: &Runtime, x: &Shared<Session>, y: &Shared<Session>) {
    let (mut from, mut to) = (x.write().await.unwrap(), y.write().await.unwrap());
    *from.balance -= 1;
    *to.balance += 1;
    kiln.commit((from, to)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_is_dropped_can_be_repeated() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (root_a, root_b) = (sessions(&a).await, sessions(&b).await);
    let (mut made, mut keys) = (0, 0);
    let key = std::cell::RefCell::new(String::new());
    at_every_point(
        async |polls| {
            keys += 1;
            let fresh = format!("{keys}-{polls}");
            fresh.clone_into(&mut key.borrow_mut());
            root_a.get_or_create(&fresh, || Session { visits: 1, ..Session::default() }).await.unwrap();
        },
        async |done| {
            let key = key.borrow().clone();
            if key.is_empty() {
                return;
            }
            let there = root_b.get(&key).await.unwrap();
            assert!(there.is_some() || !done);
            let handle = root_b.get_or_create(&key, Session::default).await.unwrap();
            handle.update(|session| *session.visits += 1).await.unwrap();
            // The node that gave up sees it as well.
            let again = root_a.get(&key).await.unwrap().unwrap();
            assert_eq!(again.id(), handle.id());
            again.update(|session| *session.visits += 1).await.unwrap();
            made += 1;
        },
    )
    .await;
    assert!(made >= ROUNDS);
    at_every_point(
        async |_| drop(root_a.insert("i".into(), Session::default()).await.unwrap()),
        async |_| drop(session(&b, "i").await),
    )
    .await;
    at_every_point(
        async |_| root_a.remove_everywhere("i").await.unwrap(),
        async |done| {
            // Removed by now or a little later, and then for good.
            if done {
                assert!(root_b.peek("i").is_none());
            }
            let _new_or_old = session(&b, "i").await;
        },
    )
    .await;
    nobody_waits(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attaching_and_looking_can_be_dropped() {
    let coordinator = Coordinator::start().await;
    let a = coordinator.node("a").await;
    let root = sessions(&a).await;
    at_every_point(async |_| root.watch().await.unwrap(), async |_| ()).await;
    at_every_point(async |_| root.keys().next_page(10).await.unwrap(), async |_| ()).await;
    at_every_point(async |_| a.lock("l").await.unwrap(), async |_| ()).await;
    let mut polls = 0;
    loop {
        match drop_after(polls, coordinator.builder("b").attach()).await {
            Dropped::Pending => polls += 1,
            Dropped::Done(attached) => {
                attached.unwrap().detach(Duration::from_secs(5)).await.unwrap();
                break;
            }
        }
    }
    assert!(polls > 0);
    // The node works, and those that were dropped while they attached are gone.
    session(&a, "s").await.update(|session| *session.visits += 1).await.unwrap();
    let peer = tokio::sync::Mutex::new(Peer::attach(coordinator.profile(), "looks").await);
    until("only two are attached", async || {
        let mut peer = peer.lock().await;
        let request = peer.request();
        peer.say(&ToCoordinator::Status { request }).await;
        let nodes = peer.hear_of("the status", |message| match message {
            ToNode::Status { status, .. } => Some(status.nodes.len()),
            _ => None,
        });
        nodes.await == 2
    })
    .await;
}
