//! Operations of the coordinator, watches, and questions about commits.

use super::{Actor, Address, Done, PASSING};
use crate::clock::MILLI;
use crate::invariants::LOOKING;
use crate::program::Program;
use crate::sometimes::Sometimes;
use crate::watching::Watching;
use bytes::Bytes;
use kiln_engine::{Answer, RequestError, Ticket, Wait};
use kiln_protocol::message::{Failure, Fate};
use kiln_protocol::{RequestId, ToCoordinator};
use std::sync::Arc;

/// Nobody waits any more for an operation once this is dropped.
struct Operation<'a, P: Program, T> {
    actor: &'a Actor<P>,
    request: RequestId,
    ticket: Option<Arc<Ticket<Answer<T>>>>,
}

impl<P: Program, T> Operation<'_, P, T> {
    async fn answered(&mut self) -> Answer<T> {
        let answer = Wait::new(Arc::clone(self.ticket.as_ref().expect("it is waited for once"))).await;
        self.ticket = None;
        answer
    }
}

impl<P: Program, T> Drop for Operation<'_, P, T> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.actor.process.node().give_up(self.request);
        }
    }
}

impl<P: Program> Actor<P> {
    fn passing(&self) -> (Bytes, Bytes) {
        let [one, two] = PASSING.map(|key| Bytes::from_static(key.as_bytes()));
        if self.world.random.below(2) == 0 { (one, two) } else { (two, one) }
    }

    pub(super) async fn remove(&self) -> Done {
        let ((key, _), root) = (self.passing(), self.roots[0].id);
        let everywhere = self.world.random.below(2) == 0;
        self.ask(|request| ToCoordinator::Remove { request, root, key, everywhere }).await
    }

    /// Removes an object, without waiting for it.
    pub(super) fn removal(&self, (root, key): Address) -> impl Drop + use<'_, P> {
        let (root, key) = (self.roots[root].id, Bytes::from_static(key.as_bytes()));
        let remove = |request| ToCoordinator::Remove { request, root, key, everywhere: false };
        let (request, ticket) = self.process.node().ask_yes_no(remove);
        Operation { actor: self, request, ticket: Some(ticket) }
    }

    pub(super) async fn rename(&self) -> Done {
        let ((from, to), root) = (self.passing(), self.roots[0].id);
        self.ask(|request| ToCoordinator::Rename { request, root, from, to }).await
    }

    async fn ask(&self, question: impl FnOnce(RequestId) -> ToCoordinator) -> Done {
        self.doing("remove or rename");
        let (request, ticket) = self.process.node().ask_yes_no(question);
        let mut operation = Operation { actor: self, request, ticket: Some(ticket) };
        match operation.answered().await {
            Err(RequestError::Refused(Failure::KeyTaken)) => {
                self.world.reached(Sometimes::KeyTaken);
                Ok(())
            }
            answer => self.gone(answer).map(drop),
        }
    }

    pub(super) async fn insert(&self) -> Done {
        let (key, _) = self.passing();
        self.doing("insert");
        let (request, ticket) = self.process.node().insert(self.roots[0].id, key, self.writes());
        let mut operation = Operation { actor: self, request, ticket: Some(ticket) };
        self.gone(operation.answered().await).map(drop)
    }

    pub(super) async fn watch(&self) -> Done {
        let root = self.world.random.one_of(&[0, 1]);
        let (mut watching, ticket) = Watching::start(&self.process, self.roots[root].id);
        self.doing("watch");
        self.gone(Wait::new(ticket).await)?;
        watching.begins(&self.world);
        self.doing(LOOKING);
        for _ in 0..25 {
            if watching.look(&self.world) {
                self.world.reached(Sometimes::WatchGap);
            }
            self.world.pause(&self.process, 300 * MILLI).await;
        }
        Ok(())
    }

    /// Asks what became of a commit of which somebody heard nothing.
    pub(super) async fn ask_fate(&self) -> Done {
        let Some((incarnation, seq)) = self.world.invariants.some_unknown(&self.world.random) else { return Ok(()) };
        self.doing("fate");
        let epoch = self.process.node().settings.epoch;
        let fate = self.gone(Wait::new(self.process.node().fate(incarnation, seq)).await)?;
        match fate {
            Fate::Applied => self.world.reached(Sometimes::UnknownApplied),
            Fate::NotApplied => self.world.reached(Sometimes::UnknownNotApplied),
            Fate::Unknown => {}
        }
        self.world.invariants.fate_told(epoch, (incarnation, seq), fate);
        Ok(())
    }
}
