//! A small site with tower-sessions: once with the framework's own store, once with Kiln's. The difference is one line.
//!
//! Requests come in pairs that overlap, as those of one page do, and each of a pair writes a key of its own.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::Request;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::routing::get;
use kiln::Runtime;
use kiln_sessions::TowerSessionsStore;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;
use tower_service::Service as _;
use tower_sessions_015::session::Error as SessionError;
use tower_sessions_015::{MemoryStore, Session, SessionManagerLayer, SessionStore};

type Failed = Box<dyn Error + Send + Sync>;

const PAIRS: usize = 200;

/// The site. It knows nothing of Kiln.
fn site(store: impl SessionStore + Clone, pair: Arc<Barrier>) -> Router {
    let sessions = SessionManagerLayer::new(store);
    Router::new().route("/count", get(count)).route("/write/{key}", get(write)).layer(sessions).with_state(pair)
}

/// Answers with the number of keys that were written; the first visit makes the session.
async fn count(session: Session) -> String {
    let begun = session.insert("begun", true).await;
    let mut there = 0;
    for pair in 0..PAIRS {
        for key in [format!("left-{pair}"), format!("right-{pair}")] {
            there += usize::from(matches!(session.get::<bool>(&key).await, Ok(Some(true))));
        }
    }
    begun.map_or_else(|error| error.to_string(), |()| there.to_string())
}

/// Reads the session, waits until the other request of the pair has done so, and writes.
async fn write(session: Session, Path(key): Path<String>, State(pair): State<Arc<Barrier>>) -> Result<(), String> {
    let written = async {
        session.get::<bool>(&key).await?;
        pair.wait().await;
        session.insert(&key, true).await
    };
    written.await.map_err(|error: SessionError| error.to_string())
}

/// One request; returns what it was answered, and the cookie.
async fn ask(site: &Router, path: &str, cookie: &str) -> Result<(String, Option<String>), Failed> {
    let request = Request::get(path).header(COOKIE, cookie).body(Body::empty())?;
    let answer = site.clone().call(request).await?;
    let cookie = answer.headers().get(SET_COOKIE).and_then(|header| header.to_str().ok());
    let cookie = cookie.and_then(|header| header.split(';').next()).map(str::to_owned);
    let text = to_bytes(answer.into_body(), 1000).await?;
    Ok((String::from_utf8_lossy(&text).into_owned(), cookie))
}

/// Drives two nodes, and returns how many of the writes are gone.
async fn lost(nodes: [Router; 2]) -> Result<usize, Failed> {
    let (_, cookie) = ask(&nodes[0], "/count", "").await?;
    let cookie = cookie.ok_or("the first visit makes a session")?;
    for pair in 0..PAIRS {
        let paths = [format!("/write/left-{pair}"), format!("/write/right-{pair}")];
        let (left, right) = tokio::join!(ask(&nodes[0], &paths[0], &cookie), ask(&nodes[1], &paths[1], &cookie));
        left.and(right)?;
    }
    let there: usize = ask(&nodes[0], "/count", &cookie).await?.0.parse()?;
    Ok(2 * PAIRS - there)
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    // Two nodes in one process, so that the framework's own store can be one for both.
    let one = Runtime::embedded().await?;
    let other = Runtime::attach(one.profile_path().ok_or("the embedded coordinator has a profile")?).await?;
    let pair = Arc::new(Barrier::new(2));

    let own = MemoryStore::default();
    let nodes = [site(own.clone(), Arc::clone(&pair)), site(own, Arc::clone(&pair))];
    println!("MemoryStore: {} of {} writes were lost", lost(nodes).await?, 2 * PAIRS);

    // The one line: where a store is made.
    let (left, right) = (TowerSessionsStore::open(&one).await?, TowerSessionsStore::open(&other).await?);
    let nodes = [site(left, Arc::clone(&pair)), site(right, pair)];
    println!("Kiln: {} of {} writes were lost", lost(nodes).await?, 2 * PAIRS);

    other.detach(Duration::from_secs(5)).await?;
    one.detach(Duration::from_secs(5)).await?;
    Ok(())
}
