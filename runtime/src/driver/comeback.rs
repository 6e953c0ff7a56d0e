//! Does again what was done alone, once the cluster is back. What is to be done is the engine's to say.

use crate::api::internals::ClusterEvent;
use kiln_engine::{Admission, Entry, LockFailure, Node, Removal, Replayed, RequestError, Step, Ticket, Wait};
use kiln_protocol::message::Mode;
use kiln_protocol::{Failure, ToCoordinator};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;

/// Objects whose changes are made again at once.
const AT_ONCE_MAX: usize = 64;
const RETRY: Duration = Duration::from_millis(100);

/// It was not done, and is to be tried once more.
struct Again;

pub(super) struct Comeback {
    pub(super) node: Arc<Node>,
    pub(super) events: broadcast::Sender<ClusterEvent>,
    /// The node is connected again.
    pub(super) connected: Arc<Notify>,
    /// How long one attempt may wait for locks.
    pub(super) timeout: Duration,
}

impl Comeback {
    /// Runs until the node ends.
    pub(super) async fn run(self) {
        while self.node.ended().is_none() {
            self.connected.notified().await;
            while self.node.link.is_synced() && self.node.journalled().0 > 0 {
                if self.round().await.is_err() {
                    tokio::time::sleep(RETRY).await;
                }
            }
            if let Some(returned) = self.node.take_returned() {
                tracing::info!(?returned, "what was done while the cluster was away");
                drop(self.events.send(ClusterEvent::Returned(returned)));
            }
        }
    }

    /// Does what can be done now.
    async fn round(&self) -> Result<(), Again> {
        let node = &self.node;
        for some in node.comeback().unsure.chunks(AT_ONCE_MAX) {
            let asked: Vec<_> = some.iter().map(|(id, who, seq)| (*id, Wait::new(node.fate(*who, *seq)))).collect();
            for (id, fate) in asked {
                node.decided(id, fate.await.map_err(|_lost| Again)?);
            }
        }
        let comeback = node.comeback();
        let mut result = Ok(());
        for removal in &comeback.removals {
            let removed = tokio::time::timeout(self.timeout, remove(node, removal)).await.unwrap_or(Err(Again));
            result = result.and(removed);
        }
        let mut running = JoinSet::new();
        for entries in comeback.objects {
            let is_removed =
                |entry: &Arc<Entry>| entry.is_provisional() && node.is_removal_pending(entry.root, &entry.key());
            if entries.iter().any(is_removed) {
                result = Err(Again);
                continue;
            }
            if running.len() == AT_ONCE_MAX {
                result = result.and(outcome(running.join_next().await));
            }
            running.spawn(replay(Arc::clone(node), entries, self.timeout));
        }
        while let Some(done) = running.join_next().await {
            result = result.and(outcome(Some(done)));
        }
        result
    }
}

fn outcome(done: Option<Result<Result<(), Again>, tokio::task::JoinError>>) -> Result<(), Again> {
    done.unwrap_or(Ok(Ok(()))).unwrap_or(Err(Again))
}

/// Removes what was removed here, unless it is not there any more.
async fn remove(node: &Node, removal: &Removal) -> Result<(), Again> {
    let found = Wait::new(node.peek(removal.root, removal.key.clone())).await.map_err(|_lost| Again)?;
    // Somebody may have removed it, and put another object there.
    if found.is_none_or(|found| removal.object.is_some_and(|object| found != object)) {
        node.removed(removal.id, Ok(()));
        return Ok(());
    }
    let (root, key) = (removal.root, removal.key.clone());
    let (request, answer) = node.ask_yes_no(|request| ToCoordinator::Remove { request, root, key, everywhere: false });
    let _given_up = GivenUp { node, request };
    match Wait::new(answer).await {
        Ok(_) => node.removed(removal.id, Ok(())),
        Err(RequestError::Refused(Failure::GivenUp)) => return Err(Again),
        Err(RequestError::Refused(failure)) => node.removed(removal.id, Err(failure)),
        Err(_) => return Err(Again),
    }
    Ok(())
}

/// Whoever does not wait any more says so.
struct GivenUp<'a> {
    node: &'a Node,
    request: kiln_protocol::RequestId,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.node.give_up(self.request);
    }
}

/// Makes the commits of these objects again.
async fn replay(node: Arc<Node>, mut entries: Vec<Arc<Entry>>, timeout: Duration) -> Result<(), Again> {
    let life = node.link.life();
    let mut sent = Vec::new();
    let made = tokio::time::timeout(timeout, replay_under_locks(&node, life, &mut entries, &mut sent)).await;
    let is_settled = node.settle(&entries);
    for Replayed { id, outcome } in sent {
        node.replayed(id, Wait::new(outcome).await);
    }
    if is_settled { Ok(()) } else { made.unwrap_or(Err(Again)).and(Err(Again)) }
}

async fn replay_under_locks(
    node: &Node,
    life: u64,
    entries: &mut [Arc<Entry>],
    sent: &mut Vec<Replayed>,
) -> Result<(), Again> {
    for entry in &*entries {
        if let Some(made) = node.make_again(entry) {
            match Wait::new(made).await {
                // No room for its record: it is adopted all the same.
                Ok(_) | Err(RequestError::ArenaFull { .. }) => {}
                Err(RequestError::Refused(failure)) => node.not_made(entry, failure),
                Err(_) => return Err(Again),
            }
        }
    }
    // As everybody who takes several locks for one commit outside of transactions should.
    entries.sort_by_key(|entry| entry.id());
    let mut locks = Vec::new();
    for entry in &*entries {
        for group in node.groups_to_replay(entry) {
            match Lock::enter(node, entry, group).await {
                Ok(lock) => locks.push(lock),
                // The engine sees that it is destroyed.
                Err(LockFailure::Refused(Failure::Destroyed { .. })) => break,
                Err(_) => return Err(Again),
            }
        }
    }
    for entry in &*entries {
        match Wait::new(node.look(entry)).await {
            Ok(()) | Err(RequestError::Refused(Failure::Destroyed { .. })) => {}
            Err(_) => return Err(Again),
        }
    }
    loop {
        let space = Wait::new(node.outbox.wait_for_space());
        match node.replay_next(life, entries) {
            Step::Sent(replayed) => {
                sent.push(replayed);
                // Others want to get on as well.
                if sent.len().is_multiple_of(AT_ONCE_MAX) {
                    tokio::task::yield_now().await;
                }
            }
            Step::Reported => {}
            Step::Done => return Ok(()),
            Step::Full => space.await,
            Step::LookAgain | Step::Lost => return Err(Again),
        }
    }
}

/// A write lock of one group of an object; dropped it is left, or given up.
struct Lock<'a> {
    node: &'a Node,
    entry: Arc<Entry>,
    group: usize,
    hold: Hold,
}

enum Hold {
    Nothing,
    Waiting(Arc<Ticket<Admission>>),
    Held,
}

impl<'a> Lock<'a> {
    async fn enter(node: &'a Node, entry: &Arc<Entry>, group: usize) -> Result<Self, LockFailure> {
        let context = entry.lock_context(group, &node.outbox, &node.requests);
        let ticket = entry.locks()[group].enter(context, Mode::Write, false);
        let mut lock = Self { node, entry: Arc::clone(entry), group, hold: Hold::Held };
        if let Some(ticket) = ticket {
            lock.hold = Hold::Waiting(Arc::clone(&ticket));
            let admission = std::future::poll_fn(|context| ticket.poll_take(context)).await;
            lock.hold = if admission.is_ok() { Hold::Held } else { Hold::Nothing };
            admission?;
        }
        Ok(lock)
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let context = self.entry.lock_context(self.group, &self.node.outbox, &self.node.requests);
        let lock = &self.entry.locks()[self.group];
        match &self.hold {
            Hold::Nothing => {}
            Hold::Waiting(ticket) => lock.give_up(context, Mode::Write, ticket),
            Hold::Held => lock.leave(context, Mode::Write),
        }
    }
}
