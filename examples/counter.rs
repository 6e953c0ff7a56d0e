//! One plain number, incremented by 64 tasks on two nodes at once: none of the increments is lost.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use kiln::{Clustered, Root, Runtime};
use std::error::Error;
use std::time::Duration;
use tokio::task::JoinSet;

#[derive(Clustered, Default)]
struct Page {
    hits: u64,
}

const TASKS: u64 = 64;
const INCREMENTS: u64 = 200;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // Two nodes in one process; they share nothing but the coordinator, as two machines would.
    let one = Runtime::embedded().await?;
    let profile = one.profile_path().ok_or("the embedded coordinator has a profile")?;
    let other = Runtime::attach(profile).await?;

    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let node = if task % 2 == 0 { one.clone() } else { other.clone() };
        tasks.spawn(async move {
            let pages: Root<String, Page> = node.root("pages").await?;
            let page = pages.get_or_create("front", Page::default).await?;
            for _ in 0..INCREMENTS {
                page.update(|page| *page.hits += 1).await?;
            }
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }

    for (name, node) in [("one", &one), ("the other", &other)] {
        let pages: Root<String, Page> = node.root("pages").await?;
        let page = pages.get("front").await?.ok_or("nobody removed it")?;
        let hits = page.read().await?.get(|page| page.hits());
        println!("{name} reads {hits} hits after {TASKS} tasks x {INCREMENTS} increments");
        if hits != TASKS * INCREMENTS {
            return Err("increments were lost".into());
        }
    }
    other.detach(Duration::from_secs(5)).await?;
    one.detach(Duration::from_secs(5)).await?;
    Ok(())
}
