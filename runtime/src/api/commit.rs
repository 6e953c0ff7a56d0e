//! How safe a commit is when it returns.

use super::builder::Away;
use super::error::CommitError;
use super::local_copy::Leaving;
use super::room::Room;
use super::runtime::{Attached, LAPSE_NOTICED};
use crate::clock::boot_nanos;
use kiln_engine::{
    AloneError, Changed, CommitError as EngineError, CommitFailure, OnReturn, Outcome, Ticket, Wait, Waiter,
};
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
    /// Its place among that incarnation's commits; `None` when nothing had changed, and for one that stays here.
    pub seq: Option<CommitSeq>,
    /// It was made on this node alone, because the cluster is away ([`Away::LocalReadWrite`]), or was on its way when the
    /// lease lapsed: whatever its level, other nodes may not know of it. What becomes of it turns out on the return. Or it stays
    /// in this process because a field cannot be archived: see [`Shared::distribution`](crate::Shared::distribution).
    pub is_local: bool,
}

impl Commit {
    pub(super) const fn nothing(incarnation: Incarnation) -> Self {
        Self { incarnation, seq: None, is_local: false }
    }
}

/// What a commit is to be, beside what it changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Who makes it.
    pub(super) incarnation: Incarnation,
    /// The node's life from before the locks were taken.
    pub(super) life: u64,
    pub(super) level: Level,
    /// What becomes of it if it is made alone; `None`: it may not be.
    pub(super) on_return: Option<OnReturn>,
    pub(super) timeout: Duration,
}

/// A commit that is queued, or made alone, and who waits for it.
#[derive(Debug)]
pub(super) struct Queued {
    commit: Commit,
    ticket: Option<Arc<Ticket<Outcome>>>,
    timeout: Duration,
}

impl Queued {
    /// Waits until the commit is as safe as its level asks.
    pub(super) async fn settle(self) -> Result<Commit, CommitError> {
        let Self { commit, ticket, timeout } = self;
        let Some(ticket) = ticket else { return Ok(commit) };
        match tokio::time::timeout(timeout, Wait::new(ticket)).await {
            Ok(Ok(())) => Ok(commit),
            Ok(Err(CommitFailure::Kept)) => Ok(Commit { is_local: true, ..commit }),
            Ok(Err(failure)) => Err(CommitError::from_failure(failure, commit)),
            Err(_elapsed) => Err(CommitError::Timeout { waited: timeout, commit }),
        }
    }
}

/// Publishes and queues changes; waits for room in the outbox up to the deadline, and for what is coming free in the
/// heap. Dropped before it returns, nothing happened; afterwards the commit stays queued.
pub(super) async fn queue(runtime: &Attached, terms: Terms, changed: &[Changed<'_>]) -> Result<Queued, CommitError> {
    let Terms { incarnation, level, on_return, timeout, .. } = terms;
    let (waiter, ticket) = waiter(level);
    let queued = if runtime.node.link.is_leased(boot_nanos()) {
        queue_together(runtime, terms, changed, &waiter, None).await
    } else if runtime.node.ended().is_some() {
        Err(CommitError::Disconnected)
    } else {
        Err(CommitError::Fenced)
    };
    match (queued, on_return) {
        (Ok(seq), _) => Ok(Queued { commit: Commit { incarnation, seq: Some(seq), is_local: false }, ticket, timeout }),
        // The lease has lapsed, just now or before: the locks hold among the tasks of this node.
        (Err(CommitError::Fenced), Some(on_return)) => {
            // Boxed, as all that is rare: it would make the future of every commit larger.
            let alone = Box::pin(tokio::time::timeout(timeout, commit_alone(runtime, terms, on_return, changed))).await;
            let (seq, is_local, ticket) = match alone.unwrap_or(Err(CommitError::Fenced))? {
                Alone::Yes => (None, true, None),
                Alone::No => {
                    (Some(Box::pin(queue_together(runtime, terms, changed, &waiter, None)).await?), false, ticket)
                }
            };
            Ok(Queued { commit: Commit { incarnation, seq, is_local }, ticket, timeout })
        }
        (Err(error), _) => Err(error),
    }
}

/// As [`queue`], for changes that were kept in this process until now. It is never made alone, and has an answer to wait for.
pub(super) async fn queue_leaving(
    runtime: &Attached,
    terms: Terms,
    changed: &[Changed<'_>],
    leaving: &Leaving<'_>,
) -> Result<Queued, CommitError> {
    let level = if terms.level == Level::Queued { Level::Applied } else { terms.level };
    let (waiter, ticket) = waiter(level);
    let terms = Terms { level, on_return: None, ..terms };
    let seq = queue_together(runtime, terms, changed, &waiter, Some(leaving)).await?;
    let commit = Commit { incarnation: terms.incarnation, seq: Some(seq), is_local: false };
    Ok(Queued { commit, ticket, timeout: terms.timeout })
}

/// Whether a commit was made among the tasks of this node.
enum Alone {
    Yes,
    No,
}

async fn commit_alone(
    runtime: &Attached,
    Terms { life, level, .. }: Terms,
    on_return: OnReturn,
    changed: &[Changed<'_>],
) -> Result<Alone, CommitError> {
    if matches!(level, Level::Durable | Level::Everywhere) {
        return Err(CommitError::Away);
    }
    let link = &runtime.node.link;
    loop {
        let noticed = Wait::new(link.wait_synced());
        if link.is_leased(boot_nanos()) && link.life() == life {
            // Renewed at the last moment: the locks are the cluster's still.
            return Ok(Alone::No);
        }
        if runtime.node.is_away() || link.life() != life || runtime.node.ended().is_some() {
            let done = runtime.node.commit_alone(Some(life), on_return, changed);
            return done.map(|()| Alone::Yes).map_err(|error| alone_error(runtime, error));
        }
        // The lease is over, and nobody has said so yet.
        let _renewed = tokio::time::timeout(LAPSE_NOTICED, noticed).await;
    }
}

pub(super) fn alone_error(runtime: &Attached, error: AloneError) -> CommitError {
    match error {
        AloneError::NotAway | AloneError::Object(_) => CommitError::Fenced,
        AloneError::JournalFull { needed_bytes, limit } => CommitError::JournalFull { needed_bytes, limit },
        AloneError::Commit(error) => commit_error(runtime, error, Duration::ZERO),
    }
}

/// As [`queue`], under locks that hold in the cluster.
#[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is for want of room")]
async fn queue_together(
    runtime: &Attached,
    Terms { life, on_return, timeout, level, .. }: Terms,
    changed: &[Changed<'_>],
    waiter: &Waiter,
    leaving: Option<&Leaving<'_>>,
) -> Result<CommitSeq, CommitError> {
    if matches!(waiter, Waiter::Durable(_)) && !runtime.node.settings.durable {
        return Err(CommitError::NotDurable);
    }
    let waits = on_return.is_some() || matches!(runtime.options.away, Away::Block(_));
    if !waits && !runtime.node.link.is_synced() {
        return Err(CommitError::Disconnected);
    }
    let life = Some(life);
    // What promises more cannot be kept: whoever waits for it is told that nobody knows.
    let keep = on_return.filter(|_| matches!(level, Level::Queued | Level::Applied));
    let commit = || {
        let commit = || runtime.node.commit_to_keep(life, keep, changed, waiter.clone());
        leaving.map_or_else(commit, |leaving| leaving.attempt(commit))
    };
    let mut error = match commit() {
        Err(error @ (EngineError::OutboxFull | EngineError::ArenaFull { .. })) => error,
        done => return done.map_err(|error| commit_error(runtime, error, timeout)),
    };
    let wait = async {
        let mut room = Room::new(runtime);
        loop {
            let space = Wait::new(runtime.node.outbox.wait_for_space());
            let done = commit();
            let Err(failed) = done else { return done };
            error = failed;
            match &error {
                EngineError::OutboxFull => space.await,
                EngineError::ArenaFull { .. } if room.wait().await => {}
                _ => return Err(error.clone()),
            }
        }
    };
    let done = Box::pin(tokio::time::timeout(timeout, wait)).await;
    done.unwrap_or(Err(error)).map_err(|error| commit_error(runtime, error, timeout))
}

/// What to wait for after a commit of this level.
fn waiter(level: Level) -> (Waiter, Option<Arc<Ticket<Outcome>>>) {
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

pub(super) fn commit_error(runtime: &Attached, error: EngineError, waited: Duration) -> CommitError {
    match error {
        EngineError::OutboxFull => CommitError::OutboxFull { waited },
        EngineError::Disconnected => CommitError::Disconnected,
        EngineError::Fenced => CommitError::Fenced,
        EngineError::Destroyed { .. } => CommitError::Destroyed,
        EngineError::Undone { .. } => CommitError::Undone,
        EngineError::ArenaFull { needed_bytes } => {
            CommitError::ArenaFull { needed_bytes, oldest_pin_ms: runtime.oldest_pin_ms() }
        }
        EngineError::TooLarge { bytes, limit } => CommitError::TooLarge { bytes, limit },
        EngineError::BadWrite { field, cause, .. } => CommitError::BadWrite { field, cause },
    }
}
