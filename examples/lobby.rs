//! Who comes and who goes: one node watches a root while another one changes its objects.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use kiln::{Clustered, EventKind, Root, Runtime};
use std::error::Error;
use std::time::Duration;

#[derive(Clustered, Default)]
struct Player {
    ready: bool,
    level: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let host = Runtime::builder().node_name("host").embedded().await?;
    let profile = host.profile_path().ok_or("the embedded coordinator has a profile")?;
    let guest = Runtime::builder().node_name("guest").profile(profile).attach().await?;

    let lobby: Root<String, Player> = host.root("lobby").await?;
    let mut watch = lobby.watch().await?;

    let players: Root<String, Player> = guest.root("lobby").await?;
    let ada = players.insert("ada".to_owned(), Player::default()).await?;
    players.insert("grace".to_owned(), Player { level: 3, ..Player::default() }).await?;
    ada.update(|player| {
        *player.ready = true;
        *player.level += 1;
    })
    .await?;
    players.rename("grace", "admiral".to_owned()).await?;
    players.remove("ada").await?;

    // Every change is told once, in order.
    let mut told = 0;
    while told < 5 {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await?.ok_or("the watch has ended")?;
        let writer = event.writer.map_or_else(|| "the coordinator".to_owned(), |(_, name)| name);
        let key = event.key.unwrap_or_default();
        match event.kind {
            EventKind::Created => println!("{key} came in through {writer}"),
            EventKind::Updated { fields, .. } => println!("{key} changed {} through {writer}", fields.join(", ")),
            EventKind::Renamed { to } => println!("{key} is called {to} now"),
            EventKind::Removed => println!("{key} left"),
            EventKind::Expired => println!("{key} was away for too long"),
            EventKind::Gap => println!("some news were missed"),
        }
        told += 1;
    }
    drop(watch);
    guest.detach(Duration::from_secs(5)).await?;
    host.detach(Duration::from_secs(5)).await?;
    Ok(())
}
