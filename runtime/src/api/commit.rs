//! How safe a commit is when it returns.

use super::builder::Away;
use super::error::CommitError;
use super::room::Room;
use super::runtime::Attached;
use crate::clock::boot_nanos;
use kiln_engine::{Changed, CommitError as EngineError, Outcome, Ticket, Wait, Waiter};
use kiln_protocol::{CommitSeq, Incarnation};
use std::sync::Arc;
use std::time::Duration;

/// When a commit returns, and so what it survives from then on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Level {
    /// Once it is in the outbox. Lost if this process dies before it is sent.
    Queued,
    /// Once the coordinator has ordered it. Of a coordinator that keeps a log, lost only if its machine and this process die
    /// together: when it alone dies, this node sends the commit again. Of one in memory, lost if it dies.
    #[default]
    Applied,
    /// Once the coordinator's log has it on its medium. Nobody else sees it before that. Needs a coordinator that keeps a
    /// log: with one in memory the commit fails with [`CommitError::NotDurable`], and nothing is changed.
    Durable,
    /// Once no node shows the old version any more: every node that holds the object has applied it. Where the coordinator
    /// keeps a log, the commit is durable as well.
    Everywhere,
}

/// A commit that was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Commit {
    /// The incarnation of the node that made it.
    pub incarnation: Incarnation,
    /// Its place among that incarnation's commits; `None` when nothing had changed.
    pub seq: Option<CommitSeq>,
}

/// Publishes and queues changes; waits for room in the outbox up to the deadline, and for what is coming free in the
/// heap. Dropped before it returns, nothing happened; afterwards the commit stays queued.
#[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is for want of room")]
pub(super) async fn queue(
    runtime: &Attached,
    life: u64,
    changed: &[Changed<'_>],
    waiter: &Waiter,
    timeout: Duration,
) -> Result<CommitSeq, CommitError> {
    if matches!(waiter, Waiter::Durable(_)) && !runtime.node.settings.durable {
        return Err(CommitError::NotDurable);
    }
    if !runtime.node.link.is_leased(boot_nanos()) {
        return Err(if runtime.node.ended().is_some() { CommitError::Disconnected } else { CommitError::Fenced });
    }
    if !matches!(runtime.options.away, Away::Block(_)) && !runtime.node.link.is_synced() {
        return Err(CommitError::Disconnected);
    }
    let life = Some(life);
    let mut error = match runtime.node.commit(life, changed, waiter.clone()) {
        Err(error @ (EngineError::OutboxFull | EngineError::ArenaFull { .. })) => error,
        done => return done.map_err(|error| commit_error(runtime, error, timeout)),
    };
    let wait = async {
        let mut room = Room::new(runtime);
        loop {
            let space = Wait::new(runtime.node.outbox.wait_for_space());
            let done = runtime.node.commit(life, changed, waiter.clone());
            let Err(failed) = done else { return done };
            error = failed;
            match &error {
                EngineError::OutboxFull => space.await,
                EngineError::ArenaFull { .. } if room.wait().await => {}
                _ => return Err(error.clone()),
            }
        }
    };
    let done = tokio::time::timeout(timeout, wait).await;
    done.unwrap_or(Err(error)).map_err(|error| commit_error(runtime, error, timeout))
}

/// What to wait for after a commit of this level.
pub(super) fn waiter(level: Level) -> (Waiter, Option<Arc<Ticket<Outcome>>>) {
    match level {
        Level::Queued => (Waiter::None, None),
        Level::Applied => {
            let ticket = Ticket::new();
            (Waiter::Applied(Arc::clone(&ticket)), Some(ticket))
        }
        Level::Durable => {
            let ticket = Ticket::new();
            (Waiter::Durable(Arc::clone(&ticket)), Some(ticket))
        }
        Level::Everywhere => {
            let ticket = Ticket::new();
            (Waiter::Everywhere(Arc::clone(&ticket)), Some(ticket))
        }
    }
}

/// Waits until the commit is as safe as its level asks.
pub(super) async fn settle(
    ticket: Option<Arc<Ticket<Outcome>>>,
    commit: Commit,
    timeout: Duration,
) -> Result<Commit, CommitError> {
    let Some(ticket) = ticket else { return Ok(commit) };
    match tokio::time::timeout(timeout, Wait::new(ticket)).await {
        Ok(Ok(())) => Ok(commit),
        Ok(Err(failure)) => Err(CommitError::from_failure(failure, commit)),
        Err(_elapsed) => Err(CommitError::Timeout { waited: timeout, commit }),
    }
}

pub(super) fn commit_error(runtime: &Attached, error: EngineError, waited: Duration) -> CommitError {
    match error {
        EngineError::OutboxFull => CommitError::OutboxFull { waited },
        EngineError::Disconnected => CommitError::Disconnected,
        EngineError::Fenced => CommitError::Fenced,
        EngineError::Destroyed { .. } => CommitError::Destroyed,
        EngineError::ArenaFull { needed_bytes } => {
            CommitError::ArenaFull { needed_bytes, oldest_pin_ms: runtime.oldest_pin_ms() }
        }
        EngineError::TooLarge { bytes, limit } => CommitError::TooLarge { bytes, limit },
        EngineError::BadWrite { field, cause, .. } => CommitError::BadWrite { field, cause },
    }
}
