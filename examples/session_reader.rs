//! A session of the shop as a program without a web server sees it: the same object, read in place under its lock.
//!
//! `session_reader PROFILE ID`: the coordinator's profile, which the shop prints, and the session's id, which is the value
//! of the cookie `kiln-shop`. The cluster does not know the id, only its hash.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use kiln::{Clustered, Map, Root, Runtime, Value, rkyv};
use kiln_sessions::SessionId;
use std::error::Error;
use std::time::Duration;

/// The shop's sessions, as far as this program wants to know them: fields go by their names, and what is not named here
/// stays as it is.
#[derive(Clustered, Default)]
struct Session {
    user: Option<String>,
    visits: u64,
    #[clustered(counter)]
    clicks: i64,
    #[clustered(lock = "cart")]
    cart: Map<String, CartLine>,
}

#[derive(Clone, Value, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = kiln::rkyv)]
struct CartLine {
    quantity: u32,
    cents: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(profile), Some(id)) = (arguments.next(), arguments.next()) else {
        return Err("usage: session_reader PROFILE ID".into());
    };
    let id = SessionId::parse(&id).ok_or("that is no session's id: it has 40 digits, as the cookie's value")?;
    let kiln = Runtime::attach(profile).await?;
    let sessions: Root<String, Session> = kiln.root("sessions").await?;
    match sessions.get(&id.key()).await? {
        None => println!("there is no such session: its visitor has logged out, or never was here"),
        Some(session) => print(&session.read().await?.view()),
    }
    kiln.detach(Duration::from_secs(5)).await?;
    Ok(())
}

fn print(session: &SessionView<'_>) {
    println!("user    {}", session.user().as_ref().map_or("nobody yet", |user| user.as_str()));
    println!("visits  {}", session.visits());
    println!("clicks  {}", session.clicks());
    for (sku, line) in session.cart().iter() {
        println!("cart    {} x {sku}, {} cents each", line.quantity, line.cents);
    }
}
