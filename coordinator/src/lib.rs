//! Kiln's coordinator: arbitrates locks, keeps objects, broadcasts changes.

pub mod directory;
pub mod engine;
pub mod server;
pub mod store;
mod tls;
