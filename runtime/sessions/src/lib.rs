//! Web sessions that several nodes share.
//!
//! A session in Kiln is one live object and not a blob that two requests load, change and save over each other. So no
//! update is lost, a logout holds on every node when it returns and no slow request undoes it, and a request that reads a
//! session which its node holds asks nobody. Three ways to have it:
//!
//! | you have | you take | feature |
//! |---|---|---|
//! | axum, or another tower service, and a type for your sessions | [`SessionLayer`] and [`Session`] | `axum` for the extractor |
//! | tower-sessions 0.14 or 0.15, or axum-login 0.18 | `TowerSessionsStore`: one line | `tower-sessions` |
//! | actix-session 0.11 | `ActixStore`: one line | `actix` |
//!
//! The typed layer can do most: fields with locks of their own, counters without a lock, locks that last for a request
//! ([`SessionLock`]), a new id without a moment at which a change is lost unsaid ([`Session::rotate`]). The stores are as
//! good as the traits of their frameworks let them be; their docs say where that ends.
//!
//! ```
//! # #[cfg(feature = "axum")] {
//! use axum::{Router, routing::get};
//! use kiln::{Clustered, Runtime};
//! use kiln_sessions::{LockMode, Session, SessionError, SessionLayer, SessionLock};
//! use std::time::Duration;
//!
//! #[derive(Clustered, Default)]
//! struct Shop {
//!     user: Option<String>,
//!     visits: u64,
//!     #[clustered(counter)]
//!     clicks: i64,
//!     #[clustered(lock = "cart")]
//!     cart: kiln::Map<String, u32>,
//! }
//!
//! /// Reading makes no session, takes no lock and asks nobody.
//! async fn front(session: Session<Shop>) -> String {
//!     let user = session.get(|shop| shop.user().as_ref().map(|user| user.to_string()));
//!     format!("Hello, {}!", user.flatten().unwrap_or_else(|| "stranger".to_owned()))
//! }
//!
//! /// Counts under the session's lock in the cluster.
//! async fn visit(session: Session<Shop>) -> Result<String, SessionError> {
//!     session.update(|shop| *shop.visits += 1).await?;
//!     session.open().await?.clicks().add(1)?; // a counter needs no lock
//!     Ok(format!("visit {}", session.get(|shop| shop.visits()).unwrap_or(0)))
//! }
//!
//! /// A new id at the login; the same session. The old id is dead on every node when `rotate` returns.
//! async fn login(mut session: Session<Shop>) -> Result<(), SessionError> {
//!     session.rotate().await?;
//!     session.update(|shop| *shop.user = Some("ada".to_owned())).await
//! }
//!
//! /// No node shows the session any more when `destroy` returns.
//! async fn logout(mut session: Session<Shop>) -> Result<(), SessionError> {
//!     session.destroy().await.map(drop)
//! }
//!
//! /// The route below keeps the cart locked from the first line to the last.
//! async fn checkout(session: Session<Shop>) -> Result<String, SessionError> {
//!     let mut shop = session.write_group("cart").await?;
//!     let pieces: u32 = shop.cart.iter().map(|(_, quantity)| quantity).sum();
//!     // Here a card is charged.
//!     shop.cart.clear();
//!     shop.commit().await?;
//!     Ok(format!("{pieces} pieces are on their way"))
//! }
//!
//! fn site(kiln: &Runtime) -> Router {
//!     // Without a timeout, sessions stay until they are destroyed.
//!     let sessions = SessionLayer::<Shop>::new(kiln).idle_timeout(Duration::from_secs(1800)).lock_mode(LockMode::Groups);
//!     Router::new()
//!         .route("/", get(front))
//!         .route("/visit", get(visit))
//!         .route("/login", get(login))
//!         .route("/logout", get(logout))
//!         .route("/checkout", get(checkout).layer(SessionLock::<Shop>::group("cart")))
//!         .layer(sessions)
//! }
//!
//! # use tower_service::Service as _;
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In production: `Runtime::attach("kiln.toml")`, on as many nodes as you like.
//! let kiln = Runtime::embedded().await?;
//! let mut site = site(&kiln);
//! # let request = http::Request::get("/visit").body(axum::body::Body::empty())?;
//! # let answer = site.call(request).await?;
//! # assert_eq!(answer.status(), 200);
//! # let cookie = answer.headers()["set-cookie"].to_str()?.split(';').next().unwrap_or_default().to_owned();
//! # for (path, text) in [("/", "Hello, stranger!"), ("/checkout", "0 pieces are on their way"), ("/visit", "visit 2")] {
//! #     let request = http::Request::get(path).header("cookie", &cookie).body(axum::body::Body::empty())?;
//! #     let answer = site.call(request).await?;
//! #     assert_eq!(axum::body::to_bytes(answer.into_body(), 99).await?, text);
//! # }
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! The cluster knows a session by a hash of its id: [`key_of`] the id in the cookie is the key for programs without a web
//! server, like `examples/session_reader.rs`. `kiln get sessions ID` hashes the id itself, because the root says that its keys
//! are hashes ([`kiln::RootSettings::hashed_keys`]). Programs that open the root say what the layer says of timeouts and of the
//! lock mode ([`Runtime::root_with`](kiln::Runtime::root_with)).
//!
//! A lost connection to the coordinator is made again. A runtime that is no longer attached
//! ([`Runtime::closed`](kiln::Runtime::closed)) does not come back, and whoever looks a session up is told: attach another and make the layer
//! or the store anew, or end the program for whatever runs it to start it again.
//!
//! A change that cannot be archived (over a limit, or its serialiser fails) fails the commit, unless the field or the type
//! has another `#[clustered(on_archive_failure = "..")]` ([`kiln::Clustered`]): `"leave_out"` goes on without the field,
//! `"keep_local"` keeps the session's changes on this node until it can be archived again, `"stop"` keeps them here for good.
//! With the last two, requests must come back to this node to see them (sticky routing); a logout and a timeout hold
//! everywhere as ever. [`Shared::left_out`](kiln::Shared::left_out) and [`Shared::distribution`](kiln::Shared::distribution) of
//! [`Session::handle`] say what happened. The stores have no fields of their own: there such a change fails.

#[cfg(feature = "actix")]
mod actix;
#[cfg(feature = "tower-sessions")]
mod bases;
mod cookie;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod id;
mod keys;
mod layer;
mod lock;
mod request;
mod session;
mod settings;
#[cfg(any(feature = "actix", feature = "tower-sessions"))]
mod stored;
#[cfg(feature = "tower-sessions")]
mod tower_sessions;

#[cfg(feature = "actix")]
pub use actix::ActixStore;
pub use cookie::{Cookie, SameSite};
pub use error::SessionError;
pub use id::{SessionId, key_of};
pub use layer::{SessionFuture, SessionLayer, SessionService};
pub use lock::{Busy, LockMode, LockedService, SessionLock};
pub use session::{Session, SessionGuard};
#[cfg(feature = "tower-sessions")]
pub use tower_sessions::TowerSessionsStore;
