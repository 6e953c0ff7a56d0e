//! A small site with actix-session: once with the framework's own store, once with Kiln's. The difference is one line.
//!
//! Requests come in pairs that overlap, as those of one page do, and each of a pair writes a key of its own.
#![expect(clippy::print_stdout, reason = "a program for people to look at")]

use actix_session::storage::CookieSessionStore;
use actix_session::{Session, SessionInsertError, SessionMiddleware};
use actix_web::App;
use actix_web::body::MessageBody;
use actix_web::cookie::{Cookie, Key};
use actix_web::dev::{Service, ServiceResponse};
use actix_web::test::{self, TestRequest};
use actix_web::web::{Data, Path, get};
use kiln::Runtime;
use kiln_sessions::ActixStore;
use std::error::Error;
use std::time::Duration;
use tokio::sync::Barrier;

const PAIRS: usize = 200;

/// The site, which knows nothing of Kiln. A macro, because the type of an `App` cannot be written.
macro_rules! site {
    ($store:expr, $key:expr, $pair:expr) => {
        App::new()
            .app_data($pair.clone())
            .wrap(SessionMiddleware::new($store, $key.clone()))
            .route("/count", get().to(count))
            .route("/write/{key}", get().to(write))
    };
}

/// Answers with the number of keys that were written; the first visit makes the session.
async fn count(session: Session) -> Result<String, SessionInsertError> {
    session.insert("begun", 1)?;
    let keys = (0..PAIRS).flat_map(|pair| [format!("l{pair}"), format!("r{pair}")]);
    Ok(keys.filter(|key| session.contains_key(key)).count().to_string())
}

/// Has the session, waits until the other request of the pair has it as well, and writes.
async fn write(session: Session, key: Path<String>, pair: Data<Barrier>) -> Result<String, SessionInsertError> {
    pair.wait().await;
    session.insert(key.into_inner(), 1)?;
    Ok(String::new())
}

/// Drives two nodes, and returns how many of the writes are gone.
async fn lost<R, B: MessageBody>(
    nodes: [&impl Service<R, Response = ServiceResponse<B>, Error = actix_web::Error>; 2],
    made: impl Fn(TestRequest) -> R,
) -> Result<usize, Box<dyn Error>> {
    let request = |path: &str, cookie: Option<&Cookie<'static>>| {
        made(cookie.cloned().into_iter().fold(TestRequest::get().uri(path), TestRequest::cookie))
    };
    let mut cookie = None;
    keep(&mut cookie, &test::call_service(nodes[0], request("/count", None)).await);
    for pair in 0..PAIRS {
        let paths = [format!("/write/l{pair}"), format!("/write/r{pair}")];
        let (left, right) = (request(&paths[0], cookie.as_ref()), request(&paths[1], cookie.as_ref()));
        let (left, right) = tokio::join!(test::call_service(nodes[0], left), test::call_service(nodes[1], right));
        keep(&mut cookie, &left);
        keep(&mut cookie, &right);
    }
    let there = test::call_service(nodes[0], request("/count", cookie.as_ref())).await;
    let there = test::read_body(there).await;
    Ok(2 * PAIRS - String::from_utf8(there.to_vec())?.parse::<usize>()?)
}

/// As a browser does it.
fn keep<B>(cookie: &mut Option<Cookie<'static>>, answer: &ServiceResponse<B>) {
    if let Some(new) = answer.response().cookies().next() {
        *cookie = Some(new.into_owned());
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Two nodes in one process; they share nothing but the coordinator, as two machines would.
    let one = Runtime::embedded().await?;
    let other = Runtime::attach(one.profile_path().ok_or("the embedded coordinator has a profile")?).await?;
    let (key, pair) = (Key::generate(), Data::new(Barrier::new(2)));

    let left = test::init_service(site!(CookieSessionStore::default(), key, pair)).await;
    let right = test::init_service(site!(CookieSessionStore::default(), key, pair)).await;
    println!(
        "CookieSessionStore: {} of {} writes were lost",
        lost([&left, &right], TestRequest::to_request).await?,
        2 * PAIRS
    );

    // The one line: where a store is made.
    let left = test::init_service(site!(ActixStore::open(&one).await?, key, pair)).await;
    let right = test::init_service(site!(ActixStore::open(&other).await?, key, pair)).await;
    println!("Kiln: {} of {} writes were lost", lost([&left, &right], TestRequest::to_request).await?, 2 * PAIRS);

    other.detach(Duration::from_secs(5)).await?;
    one.detach(Duration::from_secs(5)).await?;
    Ok(())
}
