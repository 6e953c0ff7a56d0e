//! Commutative counters: nothing is lost and nothing counts twice.

use crate::{held_by, session};
use kiln::Level;
use kiln_tests::{Coordinator, SessionCounters as _, soon, until};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adds_of_two_nodes_sum_up_exactly() {
    const TASKS: i64 = 4;
    const ADDS: i64 = 400;
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let expected = 2 * TASKS * ADDS + 2 * TASKS * (ADDS / 10) * 3;
    let mut tasks = JoinSet::new();
    for on in [&on_a, &on_b] {
        for _ in 0..TASKS {
            let on = on.clone();
            tasks.spawn(async move {
                let mut last = 0;
                for turn in 0..ADDS {
                    on.clicks().add(1).unwrap();
                    if turn % 10 == 0 {
                        let mut lost = on.write().await.unwrap();
                        lost.clicks.add(1_000_000);
                        drop(lost);
                        let mut kept = on.write().await.unwrap();
                        kept.clicks.add(3);
                        *kept.visits += 1;
                        kept.commit().await.unwrap();
                    }
                    let now = on.clicks().get();
                    assert!((last..=expected).contains(&now), "{now} after {last}");
                    last = now;
                    if turn % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            });
        }
    }
    while let Some(done) = soon("the adds", tasks.join_next()).await {
        done.unwrap();
    }
    until("both show the sum", async || (on_a.clicks().get(), on_b.view().clicks()) == (expected, expected)).await;
    let c = coordinator.node("c").await;
    assert_eq!(session(&c, "s").await.clicks().get(), expected);
    // Nothing more is on its way.
    on_a.update_with(Level::Everywhere, |session| *session.visits += 1).await.unwrap();
    on_b.update_with(Level::Everywhere, |session| *session.visits += 1).await.unwrap();
    assert_eq!((on_a.view().clicks(), on_b.view().clicks()), (expected, expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_own_adds_show_at_once_and_survive_its_leaving() {
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let on_a = session(&a, "s").await;
    for turn in 1..=50 {
        on_a.clicks().add(-2).unwrap();
        assert_eq!(on_a.view().clicks(), -2 * turn);
    }
    drop(on_a);
    a.detach(std::time::Duration::from_secs(5)).await.unwrap();
    assert_eq!(session(&b, "s").await.view().clicks(), -100);
}
