//! Sessions over real HTTP, on two nodes of one cluster.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod actix;
mod archives;
mod away;
mod barriers;
mod cookies;
mod http;
mod locks;
mod login;
mod planted;
mod timeouts;
mod told;
mod tower;
mod typed;
