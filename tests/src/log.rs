//! What this process logs, for tests of what is said and how often.

use crate::patience::until;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LISTENING: OnceLock<()> = OnceLock::new();

/// Keeps what is logged.
struct Keep;

impl io::Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // One event, one write.
        let line = String::from_utf8_lossy(bytes).into_owned();
        LINES.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on warnings and errors of this process are kept. To be called before what is to be heard.
///
/// # Panics
/// When somebody else listens already.
pub fn listen() {
    LISTENING.get_or_init(|| {
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Keep);
        log.with_max_level(tracing_subscriber::filter::LevelFilter::WARN).init();
    });
}

/// From now on all that Kiln itself logs in this process is kept. To be called before what is to be heard.
///
/// # Panics
/// When somebody else listens already.
pub fn listen_to_all() {
    LISTENING.get_or_init(|| {
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Keep);
        log.with_env_filter("off,kiln=trace,kiln_coordinator=trace,kiln_engine=trace,kiln_sessions=trace").init();
    });
}

/// All that was kept so far.
#[must_use]
pub fn lines() -> Vec<String> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What was logged of a peer so far.
#[must_use]
pub fn about(peer: SocketAddr) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    // With what follows an address: a port may be the beginning of another.
    let names = [format!("peer={peer} "), format!("peer={peer}\n")];
    lines.iter().filter(|line| names.iter().any(|name| line.contains(name))).cloned().collect()
}

/// Waits until something was logged of a peer, and returns it.
///
/// # Panics
/// When nothing is, or more than once.
pub async fn one_line_about(peer: SocketAddr) -> String {
    until("a line in the log", async || !about(peer).is_empty()).await;
    let mut lines = about(peer);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}
