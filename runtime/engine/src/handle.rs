//! What a node does with each message of the coordinator.

use crate::binding::Tail;
use crate::entry::{Entry, State};
use crate::listen::Handed;
use crate::lock::{GroupLock, LockContext, LockFailure};
use crate::node::{Counters, Ended, Node};
use crate::request::{Found, KeysPage, Pending, RequestError};
use crate::watch::WatchEvent;
use kiln_protocol::message::{Delta, Failure, Record};
use kiln_protocol::{GroupId, ObjectId, RequestId, ToCoordinator, ToNode, Token};
use std::sync::PoisonError;

/// A message that the coordinator may not send. Ends the connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the coordinator broke the protocol: {0}")]
pub struct Violation(pub String);

impl Node {
    /// Takes a message of the coordinator in.
    ///
    /// # Errors
    /// When the coordinator breaks the protocol; end the connection.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are answers, or refused there")]
    pub fn handle(&self, message: ToNode) -> Result<(), Violation> {
        match message {
            ToNode::Delta(delta) => self.delta(&delta)?,
            ToNode::Ack { applied } => self.outbox.acked(applied),
            ToNode::Durable { seq } => self.outbox.durable(seq),
            ToNode::EverywhereReached { seq } => self.outbox.everywhere_reached(seq),
            ToNode::CommitRefused { seq, failure } => {
                let (commit, told) = self.outbox.refused(seq, &failure);
                self.undo(commit, told, failure);
            }
            ToNode::Grant { request, object, group, mode, token, cached, record } => {
                if let (Some(entry), Some(record)) = (self.cache.get(object), record) {
                    self.install(&entry, &record);
                }
                self.with_lock(object, group, |lock, context| {
                    lock.granted(context, request, mode, token, cached);
                });
            }
            ToNode::LockFailed { request, object, group, failure } => {
                self.with_lock(object, group, |lock, context| lock.refused(context, request, &failure));
            }
            ToNode::CheckWait { object, group, wait, check } => {
                self.with_lock(object, group, |lock, context| lock.check_wait(context, wait, check));
            }
            ToNode::Deadlock { object, group, wait, cycle } => {
                self.with_lock(object, group, |lock, context| lock.deadlocked(context, wait, cycle));
            }
            ToNode::Recall { object, group, token, wanted } => {
                Counters::count(&self.counters.recalls);
                if !self.with_lock(object, group, |lock, context| lock.recalled(context, token, wanted)) {
                    let (outbox, requests) = (&self.outbox, &self.requests);
                    LockContext { object, group, outbox, requests }.does_not_have(token);
                }
            }
            ToNode::Barrier { barrier } => self.outbox.send(&ToCoordinator::Barrier { barrier }),
            ToNode::Destroyed { object } => self.destroyed(object),
            ToNode::Renamed { object, key } => self.cache.rename(object, &key),
            ToNode::Event { watch, object, key, writer, change } => {
                if let Some(queue) = self.watch_queue(watch) {
                    queue.push(WatchEvent { object, key, writer, change });
                }
            }
            ToNode::Notice { listener, event: id, redelivered, object, key, writer, change } => {
                let event = WatchEvent { object, key, writer, change };
                self.handed(listener, Handed { id, redelivered, event });
            }
            ToNode::ListenerEnded { listener } => self.listener_ended(listener),
            ToNode::Heartbeat { number } => {
                self.link.renewed(number);
                self.uses.answered(number);
            }
            ToNode::GrantLost { object, group, token } => {
                self.with_lock(object, group, |lock, context| lock.grant_lost(context, token));
            }
            ToNode::Outdated { object } => {
                if let Some(entry) = self.cache.get(object) {
                    entry.set_state(State::Stale);
                }
            }
            ToNode::Resynced => self.resynced(),
            ToNode::Member { incarnation, name, joined } => self.link.note_member(incarnation, name, joined),
            ToNode::Stopping => self.end(Ended::CoordinatorStopped),
            ToNode::Goodbye => self.end(Ended::Detached),
            answer => self.answer(answer)?,
        }
        Ok(())
    }

    /// An object that is no longer resident has no lock here: its grants went with its `Forget`.
    /// Returns whether the lock is here.
    fn with_lock(&self, object: ObjectId, group: GroupId, tell: impl FnOnce(&GroupLock, LockContext<'_>)) -> bool {
        let Some(entry) = self.cache.get(object) else { return false };
        let Some((index, lock)) = entry.lock_of(group) else { return false };
        tell(lock, entry.lock_context(index, &self.outbox, &self.requests));
        true
    }

    fn destroyed(&self, object: ObjectId) {
        if let Some(entry) = self.cache.remove(object) {
            entry.set_state(State::Destroyed);
            entry.lose_locks(&LockFailure::Refused(Failure::Destroyed { object }));
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a node asks for nothing else")]
    fn answer(&self, answer: ToNode) -> Result<(), Violation> {
        let take = |request| self.unanswered().take(request);
        match answer {
            ToNode::Fetched { request, record, created, grants } => self.fetched(request, &record, created, &grants),
            ToNode::Absent { request } => match take(request) {
                Some(Pending::Fetch { ticket, .. }) => drop(ticket.complete(Ok(None))),
                Some(Pending::Peek(ticket)) => drop(ticket.complete(Ok(None))),
                other => mismatch(other),
            },
            ToNode::RootOpened { request, root, binding } => match take(request) {
                Some(Pending::OpenRoot(ticket)) => drop(ticket.complete(Ok((root, binding)))),
                other => mismatch(other),
            },
            ToNode::Done { request, yes } => match take(request) {
                Some(Pending::Done(ticket)) => drop(ticket.complete(Ok(yes))),
                Some(Pending::WatchAgain(_)) => {}
                other => mismatch(other),
            },
            ToNode::Fate { request, fate } => match take(request) {
                Some(Pending::Fate(ticket)) => drop(ticket.complete(Ok(fate))),
                other => mismatch(other),
            },
            ToNode::Keys { request, keys, more } => match take(request) {
                Some(Pending::Keys(ticket)) => drop(ticket.complete(Ok(KeysPage { keys, more }))),
                other => mismatch(other),
            },
            ToNode::Failed { request, failure } => {
                if let Some(pending) = take(request) {
                    if let (Pending::Refetch { entry, .. }, Failure::Destroyed { object }) = (&pending, &failure)
                        && entry.id() == *object
                    {
                        self.destroyed(*object);
                    }
                    pending.fail(RequestError::Refused(failure));
                }
            }
            other => return Err(Violation(format!("an unexpected message: {other:?}"))),
        }
        Ok(())
    }

    fn fetched(&self, request: RequestId, record: &Record, created: bool, grants: &[(GroupId, Token)]) {
        let mut unanswered = self.unanswered();
        let crossed = unanswered.crossed(request, record.object);
        let Some(pending) = unanswered.take(request) else {
            return;
        };
        drop(unanswered);
        match pending {
            Pending::Fetch { root, key, question, ticket } if crossed => {
                self.ask(|request| {
                    let question = again(question, request);
                    (question.clone(), Pending::Fetch { root, key, question, ticket })
                });
            }
            Pending::Fetch { root, key, question, ticket } if self.is_removal_pending(root, &key) => {
                // Asked before it was removed here.
                self.forget(self.unanswered(), record.object);
                let is_look = matches!(question, ToCoordinator::Fetch { create: None, .. });
                drop(ticket.complete(if is_look { Ok(None) } else { Err(RequestError::Unknown) }));
            }
            Pending::Peek(ticket) => drop(ticket.complete(Ok(Some(record.object)))),
            Pending::Fetch { root, key, ticket, .. } => {
                let found = self.admit(root, &key, record).map(|entry| {
                    for (group, token) in grants {
                        self.granted_at_creation(&entry, *group, *token);
                    }
                    Some(Found { entry, created })
                });
                drop(ticket.complete(found));
            }
            Pending::Refetch { entry, ticket } => {
                self.install(&entry, record);
                if let Some(ticket) = ticket {
                    let current = entry.takes_deltas();
                    let needed_bytes = record.writes.len();
                    drop(ticket.complete(if current { Ok(()) } else { Err(RequestError::ArenaFull { needed_bytes }) }));
                }
            }
            other @ (Pending::OpenRoot(_)
            | Pending::Done(_)
            | Pending::WatchAgain(_)
            | Pending::Keys(_)
            | Pending::Fate(_)) => {
                mismatch(Some(other));
            }
        }
    }

    fn granted_at_creation(&self, entry: &Entry, group: GroupId, token: Token) {
        match entry.lock_of(group) {
            Some((index, lock)) => {
                lock.granted_at_creation(entry.lock_context(index, &self.outbox, &self.requests), token);
            }
            // A group that only other versions of the program know: nobody here would ever give it back.
            None => self.outbox.send(&ToCoordinator::Release { object: entry.id(), group, token, keep_read: false }),
        }
    }

    fn delta(&self, delta: &Delta) -> Result<(), Violation> {
        // Shown all at once: who wants to see both or neither of several objects waits at the gate.
        let _all = (delta.parts.len() > 1).then(|| self.gate.write().unwrap_or_else(PoisonError::into_inner));
        for part in &delta.parts {
            let Some(entry) = self.cache.get(part.object) else {
                continue;
            };
            let mut tail = Tail::default();
            let decoded = entry.binding.decode(&part.writes, &mut tail);
            let decoded = decoded.map_err(|bad| Violation(format!("a delta of object {}: {bad}", part.object)))?;
            self.apply_delta(&entry, part, delta.writer, &decoded);
        }
        Ok(())
    }
}

/// An answer to another question than was asked.
fn mismatch(pending: Option<Pending>) {
    if let Some(pending) = pending {
        pending.fail(RequestError::BadRecord("the coordinator answered another question".to_owned()));
    }
}

/// The same fetch under another id.
#[expect(clippy::wildcard_enum_match_arm, reason = "only fetches are kept to be asked again")]
fn again(question: ToCoordinator, id: RequestId) -> ToCoordinator {
    match question {
        ToCoordinator::Fetch { root, key, create, .. } => ToCoordinator::Fetch { request: id, root, key, create },
        other => other,
    }
}
