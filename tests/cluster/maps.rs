//! Map fields: entry by entry from two nodes, while others read.

use crate::{held_by, session};
use kiln::Level;
use kiln_tests::{Coordinator, Line, soon};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_two_nodes_are_all_kept_while_others_read() {
    const TASKS: u32 = 4;
    const ENTRIES: u32 = 100;
    let coordinator = Coordinator::start().await;
    let (a, b) = coordinator.two_nodes().await;
    let (on_a, on_b) = held_by(&a, &b).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for on in [on_a.clone(), on_b.clone(), on_a.clone(), on_b.clone()] {
        let done = Arc::clone(&done);
        readers.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                // One version: as many entries as it says, and each of them whole.
                on.get(|view| {
                    let cart = view.cart();
                    let lines = cart.iter().map(|(key, line)| assert_eq!(key, line.title.as_str()));
                    assert_eq!(lines.count(), cart.len());
                });
                tokio::task::yield_now().await;
            }
        });
    }
    let mut writers = JoinSet::new();
    for task in 0..TASKS * 2 {
        let on = if task % 2 == 0 { on_a.clone() } else { on_b.clone() };
        writers.spawn(async move {
            for count in 0..ENTRIES {
                let key = format!("{task}-{count}");
                let gone = format!("{task}-{}", count.wrapping_sub(3));
                on.update_with(Level::Queued, |session| {
                    session.cart.insert(key.clone(), Line { title: key.clone(), count });
                    if count % 2 == 0 {
                        session.cart.remove(&gone);
                    }
                })
                .await
                .unwrap();
            }
        });
    }
    while let Some(written) = soon("the writers", writers.join_next()).await {
        written.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    while let Some(read) = soon("the readers", readers.join_next()).await {
        read.unwrap();
    }
    let expected: Vec<String> = (0..TASKS * 2)
        .flat_map(|task| (0..ENTRIES).map(move |count| (task, count)))
        // Every odd one is removed three later, when there is a later one.
        .filter(|(_, count)| count % 2 == 0 || count + 3 >= ENTRIES)
        .map(|(task, count)| format!("{task}-{count}"))
        .collect();
    let c = coordinator.node("c").await;
    for handle in [&on_a, &on_b, &session(&c, "s").await] {
        let guard = handle.read().await.unwrap();
        let mut kept: Vec<String> = guard.view().cart().iter().map(|(key, _)| key).collect();
        let mut expected = expected.clone();
        kept.sort();
        expected.sort();
        assert_eq!(kept, expected);
    }
}
