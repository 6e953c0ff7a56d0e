//! A second process attaches with the profile that the first one's coordinator wrote, and both hold one object.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use kiln::{Clustered, Root, Runtime};
use std::error::Error;
use std::time::Duration;
use tokio::process::Command;

#[derive(Clustered, Default)]
struct Board {
    text: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The first process starts itself again with the profile's path.
    match std::env::args_os().nth(1) {
        None => first().await,
        Some(profile) => second(Runtime::attach(profile).await?).await,
    }
}

async fn first() -> Result<(), Box<dyn Error>> {
    let kiln = Runtime::embedded().await?;
    let boards: Root<String, Board> = kiln.root("boards").await?;
    let board = boards.insert("hall".to_owned(), Board { text: "Is anybody here?".to_owned() }).await?;
    let profile = kiln.profile_path().ok_or("the embedded coordinator has a profile")?;
    let status = Command::new(std::env::current_exe()?).arg(profile).status().await?;
    if !status.success() {
        return Err(format!("the second process: {status}").into());
    }
    let text = board.read().await?.get(|board| board.text().to_owned());
    println!("process {} reads:  {text}", std::process::id());
    kiln.detach(Duration::from_secs(5)).await?;
    if text.starts_with("Process ") { Ok(()) } else { Err("the other process's text is missing".into()) }
}

async fn second(kiln: Runtime) -> Result<(), Box<dyn Error>> {
    let boards: Root<String, Board> = kiln.root("boards").await?;
    let board = boards.get("hall").await?.ok_or("the first process made it")?;
    println!("process {} reads:  {}", std::process::id(), board.view().text());
    board.update(|board| board.text.set(format!("Process {} is.", std::process::id()))).await?;
    kiln.detach(Duration::from_secs(5)).await?;
    Ok(())
}
