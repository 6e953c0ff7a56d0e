//! Transactions: several locks, one commit, and of a cycle exactly one that has to give way.

use crate::{session, visits};
use kiln::{CommitError, LockError, Runtime, Shared, TransactionError, WaitEdge};
use kiln_protocol::{ToCoordinator, ToNode};
use kiln_tests::{Coordinator, Peer, Session, soon, until};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

type Outcome = Result<(), TransactionError<LockError>>;

/// Long enough that a cycle which is not found fails the test by its deadline.
const LONG: Duration = Duration::from_secs(60);

async fn account(kiln: &Runtime, key: &str) -> Shared<Session> {
    session(kiln, key).await.with_timeout(LONG)
}

/// Locks one object, waits until all have theirs, and locks another; counts a visit in both.
async fn lock_two(kiln: Runtime, first: &'static str, second: &'static str, all: Arc<Barrier>) -> Outcome {
    let (first, second) = (account(&kiln, first).await, account(&kiln, second).await);
    kiln.transaction(async |tx| {
        let mut one = tx.write(&first).await?;
        *one.visits += 1;
        all.wait().await;
        let mut other = tx.write(&second).await?;
        *other.visits += 1;
        Ok(())
    })
    .await
}

/// The cycle that the one loser was told, when all others did what they wanted.
async fn loser(outcomes: impl IntoIterator<Item = impl Future<Output = Outcome> + Send + 'static>) -> Vec<WaitEdge> {
    let mut tasks = JoinSet::new();
    for outcome in outcomes {
        tasks.spawn(outcome);
    }
    let mut cycles = Vec::new();
    while let Some(outcome) = soon("every transaction ends", tasks.join_next()).await {
        match outcome.unwrap() {
            Ok(()) => {}
            Err(TransactionError::RolledBack(LockError::Deadlock { cycle })) => cycles.push(cycle),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(cycles.len(), 1, "one of the cycle gives way: {cycles:?}");
    cycles.remove(0)
}

/// The keys of a cycle, in order, from the smallest on.
fn keys(cycle: &[WaitEdge]) -> Vec<&str> {
    let mut keys: Vec<_> = cycle.iter().map(|edge| edge.key.as_str()).collect();
    let first = (0..keys.len()).min_by_key(|at| keys[*at]).unwrap();
    keys.rotate_left(first);
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_lock_crosswise_lose_one_transaction() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    for round in 1..=20 {
        let all = Arc::new(Barrier::new(2));
        let cycle = loser([lock_two(a.clone(), "x", "y", Arc::clone(&all)), lock_two(b.clone(), "y", "x", all)]).await;
        assert_eq!(keys(&cycle), ["x", "y"]);
        let mut nodes: Vec<_> = cycle.iter().map(|edge| edge.node.as_str()).collect();
        nodes.sort_unstable();
        assert_eq!(nodes, ["a", "b"]);
        assert!(cycle.iter().all(|edge| edge.root == kiln_tests::SESSIONS && edge.group == "default"));
        // The winner's commit is whole, the loser's is not there.
        assert_eq!(visits(&session(&a, "x").await).await, round);
        assert_eq!(visits(&session(&b, "y").await).await, round);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_of_three_nodes_loses_one_transaction() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let c = coordinator.node("c").await;
    let all = Arc::new(Barrier::new(3));
    let cycle = loser([
        lock_two(a.clone(), "x", "y", Arc::clone(&all)),
        lock_two(b, "y", "z", Arc::clone(&all)),
        lock_two(c, "z", "x", all),
    ])
    .await;
    assert_eq!(keys(&cycle), ["x", "y", "z"]);
    let mut total = 0;
    for key in ["x", "y", "z"] {
        total += visits(&session(&a, key).await).await;
    }
    assert_eq!(total, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_inside_one_node_is_found() {
    let coordinator = Coordinator::start().await;
    let a = coordinator.node("a").await;
    for _ in 0..20 {
        let all = Arc::new(Barrier::new(2));
        let cycle = loser([lock_two(a.clone(), "x", "y", Arc::clone(&all)), lock_two(a.clone(), "y", "x", all)]).await;
        assert_eq!(keys(&cycle), ["x", "y"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_through_a_named_lock_is_found() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let all = Arc::new(Barrier::new(2));
    let named_first = |kiln: Runtime, all: Arc<Barrier>, named_first: bool| async move {
        let x = account(&kiln, "x").await;
        kiln.transaction(async |tx| {
            if named_first {
                tx.lock("leader").await?;
                all.wait().await;
                tx.write(&x).await?;
            } else {
                tx.write(&x).await?;
                all.wait().await;
                tx.lock("leader").await?;
            }
            Ok(())
        })
        .await
    };
    let cycle = loser([named_first(a, Arc::clone(&all), true), named_first(b, all, false)]).await;
    assert_eq!(keys(&cycle), ["leader", "x"]);
    assert!(cycle.iter().any(|edge| edge.root == "kiln.locks"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_through_the_groups_of_one_object_is_found() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let all = Arc::new(Barrier::new(2));
    let groups = |kiln: Runtime, all: Arc<Barrier>, first: &'static str, second: &'static str| async move {
        let x = account(&kiln, "x").await;
        kiln.transaction(async |tx| {
            tx.write_group(&x, first).await?;
            all.wait().await;
            tx.write_group(&x, second).await?;
            Ok(())
        })
        .await
    };
    let cycle = loser([groups(a, Arc::clone(&all), "", "money"), groups(b, all, "money", "")]).await;
    let mut of: Vec<_> = cycle.iter().map(|edge| edge.group.as_str()).collect();
    of.sort_unstable();
    assert_eq!(of, ["default", "money"]);
    let text = LockError::Deadlock { cycle }.to_string();
    assert!(text.contains("node `a`") && text.contains("`x` of root `test-sessions`, group `money`"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_want_to_write_what_the_other_reads_lose_one() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let all = Arc::new(Barrier::new(2));
    let upgrade = |kiln: Runtime, all: Arc<Barrier>, first: &'static str, second: &'static str| async move {
        let (first, second) = (account(&kiln, first).await, account(&kiln, second).await);
        kiln.transaction(async |tx| {
            let seen = tx.read(&first).await?.get(|session| session.visits());
            all.wait().await;
            *tx.write(&second).await?.visits = seen + 1;
            Ok(())
        })
        .await
    };
    let cycle = loser([upgrade(a, Arc::clone(&all), "x", "y"), upgrade(b, all, "y", "x")]).await;
    assert_eq!(keys(&cycle), ["x", "y"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_already_is_a_deadlock_at_once() {
    let coordinator = Coordinator::start().await;
    let a = coordinator.node("a").await;
    let x = account(&a, "x").await;
    let named = |error: LockError| match error {
        LockError::Deadlock { cycle } => (cycle.len(), cycle[0].key.clone(), cycle[0].group.clone()),
        other => panic!("{other}"),
    };
    let tx = a.begin_transaction();
    let read = tx.read(&x).await.unwrap();
    assert_eq!(named(tx.write(&x).await.unwrap_err()), (1, "x".to_owned(), "default".to_owned()));
    assert_eq!(named(tx.read(&x).await.unwrap_err()), (1, "x".to_owned(), "default".to_owned()));
    assert_eq!(named(tx.write_group(&x, "money").await.unwrap_err()).2, "money");
    drop(read);
    // Also when its guard is no more: locks are held to the end.
    named(tx.write(&x).await.unwrap_err());
    tx.lock("leader").await.unwrap();
    assert_eq!(named(tx.lock_shared("leader").await.unwrap_err()).1, "leader");
    tx.rollback();
    assert!(x.try_write().is_some());
}

/// How many requests wait for locks.
async fn waiting(peer: &mut Peer) -> usize {
    let request = peer.request();
    peer.say(&ToCoordinator::Locks { request }).await;
    peer.hear_of("the locks", |message| match message {
        ToNode::Locks { locks, .. } => Some(locks.iter().map(|lock| lock.waiters.len()).sum()),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_behind_a_writer_is_part_of_a_cycle() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let c = coordinator.node("c").await;
    let peer = tokio::sync::Mutex::new(Peer::attach(coordinator.profile(), "looks").await);
    let until_waiting = async |count| {
        until("they wait", async || waiting(&mut *peer.lock().await).await == count).await;
    };
    let (reads, read) = tokio::sync::oneshot::channel::<()>();
    let (goes_on, go_on) = tokio::sync::oneshot::channel::<()>();
    // Of the three waits, that of the third node for y, which the first one made, comes and goes: told apart by this.
    let (has_y, y_held) = tokio::sync::oneshot::channel::<()>();
    // Made by its writer, so that the first one to read has no more than a read grant.
    let x_of_b = account(&b, "x").await;
    let mut tasks = JoinSet::<Outcome>::new();
    tasks.spawn(async move {
        let (x, y) = (account(&a, "x").await, account(&a, "y").await);
        a.transaction(async |tx| {
            tx.read(&x).await?;
            reads.send(()).unwrap();
            go_on.await.unwrap();
            tx.write(&y).await.map(drop)
        })
        .await
    });
    soon("it reads", read).await.unwrap();
    tasks.spawn(async move { b.transaction(async |tx| tx.write(&x_of_b).await.map(drop)).await });
    until_waiting(1).await;
    tasks.spawn(async move {
        let (x, y) = (account(&c, "x").await, account(&c, "y").await);
        c.transaction(async |tx| {
            tx.write(&y).await?;
            has_y.send(()).unwrap();
            tx.read(&x).await.map(drop)
        })
        .await
    });
    soon("it holds y", y_held).await.unwrap();
    until_waiting(2).await;
    goes_on.send(()).unwrap();
    let mut lost = 0;
    while let Some(outcome) = soon("all end", tasks.join_next()).await {
        match outcome.unwrap() {
            Ok(()) => {}
            Err(TransactionError::RolledBack(LockError::Deadlock { cycle })) => {
                assert_eq!(cycle.len(), 3);
                lost += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(lost, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_all_or_nothing() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (x, y) = (account(&a, "x").await, account(&a, "y").await);
    let refused: Result<(), _> = a
        .transaction(async |tx| {
            *tx.write(&x).await.unwrap().visits = 1;
            tx.lock("leader").await.unwrap();
            Err("no")
        })
        .await;
    assert!(matches!(refused, Err(TransactionError::RolledBack("no"))));
    let outside: Result<(), TransactionError<LockError>> = a
        .transaction(async |tx| {
            *tx.write(&x).await?.visits = 1;
            *tx.write_group(&y, "money").await?.visits = 1;
            Ok(())
        })
        .await;
    assert!(matches!(outside, Err(TransactionError::Commit(CommitError::NotLocked { field: "visits", .. }))));
    let mut panicking = JoinSet::new();
    panicking.spawn({
        let (a, x) = (a.clone(), x.clone());
        async move {
            a.transaction(async |tx| {
                *tx.write(&x).await?.visits = 1;
                if *tx.write(&y).await?.visits == 0 {
                    panic!("in a transaction");
                }
                Ok::<_, LockError>(())
            })
            .await
        }
    });
    assert!(panicking.join_next().await.unwrap().unwrap_err().is_panic());
    // Dropped while it waits for a lock, and while it holds others.
    let on_b = account(&b, "y").await;
    let held = on_b.write().await.unwrap();
    let y = account(&a, "y").await;
    {
        let tx = a.begin_transaction();
        *tx.write(&x).await.unwrap().visits = 1;
        let waits = tx.write(&y);
        assert!(tokio::time::timeout(Duration::from_millis(50), waits).await.is_err());
        assert!(x.try_write().is_none());
    }
    drop(held);
    assert!(x.try_write().is_some());
    drop(soon("the named lock is free", b.lock("leader").await.unwrap().write()).await.unwrap());
    assert_eq!((visits(&x).await, visits(&on_b).await, a.stats().commits), (0, 0, 0));

    let tx = a.begin_transaction();
    *tx.write(&x).await.unwrap().visits = 1;
    let mut given_up = tx.write_group(&y, "money").await.unwrap();
    *given_up.balance = 5;
    given_up.rollback();
    *tx.write_group(&y, "").await.unwrap().visits = 2;
    tx.commit().await.unwrap();
    assert_eq!((visits(&x).await, visits(&on_b).await, a.stats().commits), (1, 2, 1));
    assert_eq!(on_b.read().await.unwrap().view().balance(), 0);
}

const ACCOUNTS: usize = 6;
const MOVES: usize = 40;

/// Moves money between accounts until it has done so often enough; tries again after a deadlock.
async fn move_money(kiln: Runtime, seed: u64, in_order: bool, deadlocks: Arc<AtomicU64>) {
    let mut accounts = Vec::new();
    for key in 0..ACCOUNTS {
        accounts.push(account(&kiln, &format!("account-{key}")).await);
    }
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 1_000_003).unwrap() % limit
    };
    for _ in 0..MOVES {
        let from = below(ACCOUNTS);
        let to = (from + 1 + below(ACCOUNTS - 1)) % ACCOUNTS;
        let looked_at = below(ACCOUNTS);
        loop {
            let mut order = vec![from, to, looked_at];
            if in_order {
                order.sort_unstable();
            }
            order.dedup();
            let moved = kiln
                .transaction(async |tx| {
                    let mut taken = Vec::new();
                    for at in order {
                        if taken.contains(&at) {
                            continue;
                        }
                        taken.push(at);
                        if at == from || at == to {
                            let mut account = tx.write_group(&accounts[at], "money").await?;
                            *account.balance += if at == from { -1 } else { 1 };
                            tokio::task::yield_now().await;
                        } else {
                            tx.read(&accounts[at]).await?;
                        }
                    }
                    Ok(())
                })
                .await;
            match moved {
                Ok(()) => break,
                Err(TransactionError::RolledBack(LockError::Deadlock { cycle })) => {
                    assert!(cycle.len() > 1, "{cycle:?}");
                    deadlocks.fetch_add(1, Ordering::Relaxed);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// How many deadlocks there were.
async fn moves_of_money(in_order: bool) -> u64 {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let deadlocks = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for (seed, kiln) in (1..).zip([&a, &b].into_iter().cycle().take(16)) {
        tasks.spawn(move_money(kiln.clone(), seed, in_order, Arc::clone(&deadlocks)));
    }
    while let Some(done) = soon("everybody finishes", tasks.join_next()).await {
        done.unwrap();
    }
    let mut total = 0;
    for key in 0..ACCOUNTS {
        total += account(&a, &format!("account-{key}")).await.read().await.unwrap().view().balance();
    }
    assert_eq!(total, 0);
    assert_eq!(a.stats().commits + b.stats().commits, 16 * MOVES as u64);
    deadlocks.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_lock_in_order_never_lose() {
    assert_eq!(moves_of_money(true).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_lock_in_any_order_lose_and_try_again() {
    assert!(moves_of_money(false).await > 0);
}
