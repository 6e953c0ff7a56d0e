//! Kiln's coordinator: arbitrates locks, keeps objects, broadcasts changes.

pub mod directory;
mod tls;
