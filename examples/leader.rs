//! One of three nodes leads: the one that holds a named lock. When it leaves, the next one takes over.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use kiln::Runtime;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

type Failure = Box<dyn Error + Send + Sync>;

/// Attaches, leads once, and leaves.
async fn candidate(name: String, profile: PathBuf, news: mpsc::Sender<(String, bool)>) -> Result<(), Failure> {
    let kiln = Runtime::builder().node_name(&name).profile(profile).attach().await?;
    let lock = kiln.lock("leader").await?;
    {
        // Held across awaits; nobody else in the cluster is here meanwhile.
        let _leading = lock.write().await?;
        news.send((name.clone(), true)).await?;
        tokio::task::yield_now().await;
        news.send((name, false)).await?;
    }
    kiln.detach(Duration::from_secs(5)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let kiln = Runtime::embedded().await?;
    let profile = kiln.profile_path().ok_or("the embedded coordinator has a profile")?;
    let (news, mut told) = mpsc::channel(16);
    let mut candidates = JoinSet::new();
    for name in ["ada", "grace", "katherine"] {
        candidates.spawn(candidate(name.to_owned(), profile.to_owned(), news.clone()));
    }
    drop(news);

    let (mut leader, mut terms) = (None, 0);
    while let Some((name, leads)) = told.recv().await {
        if leads {
            println!("{name} leads");
            terms += 1;
            if let Some(other) = leader.replace(name) {
                return Err(format!("{other} was leading").into());
            }
        } else {
            println!("{name} steps down");
            leader = None;
        }
    }
    while let Some(done) = candidates.join_next().await {
        done??;
    }
    println!("{terms} terms, never two leaders at once");
    kiln.detach(Duration::from_secs(5)).await?;
    Ok(())
}
