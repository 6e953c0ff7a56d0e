//! What the log keeps when the power goes at any of its steps, when writes are torn, and when bytes flip.
//!
//! S7: every entry that was reported safe is there after a restart, in order, and nothing that was not appended. S16:
//! damage is told, never read as something else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod damage;
mod full;
mod history;
mod long;
mod noise;
mod power;
mod threads;
