//! The engine among its sessions and its log: events in, effects carried out. Everything happens in the turn of the
//! task that brought the event; there is no queue and no wake-up in between.

use super::close::Close;
use super::counters::Counters;
use super::session::Session;
use super::{clock, counters};
use crate::engine::{Effect, Engine, Event, LogSeq, LogTime, Piece, SessionId};
use crate::store::{Log, LogError};
use kiln_protocol::message::Hello;
use kiln_protocol::{Epoch, Failure, Secret, ToCoordinator, ToNode};
use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// See the module.
pub(super) struct Core {
    engine: Engine,
    log: Box<dyn Log>,
    /// The task that waits for the log.
    log_task: Waker,
    log_error: Option<LogError>,
    /// What the engine was told.
    log_has_room: bool,
    sessions: BTreeMap<SessionId, Session>,
    last_session: u64,
    /// Sessions with output of this batch.
    touched: Vec<SessionId>,
    effects: Vec<Effect>,
    counters: Counters,
    /// Of this batch.
    output_bytes: u64,
    epoch: Epoch,
    started: Instant,
    /// The batch's time.
    now: Instant,
}

impl Core {
    pub(super) fn new(engine: Engine, epoch: Epoch, log: Box<dyn Log>) -> Self {
        let now = clock::now();
        Self {
            engine,
            log,
            log_task: Waker::noop().clone(),
            log_error: None,
            log_has_room: true,
            sessions: BTreeMap::new(),
            last_session: 0,
            touched: Vec::new(),
            effects: Vec::new(),
            counters: Counters::new(),
            output_bytes: 0,
            epoch,
            started: now,
            now,
        }
    }

    pub(super) fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// A new peer: the engine welcomes or refuses it.
    pub(super) fn attach(&mut self, session: Session, hello: Hello, secret: Secret) -> SessionId {
        self.last_session += 1;
        let id = SessionId::from_bits(self.last_session);
        self.sessions.insert(id, session);
        self.begin();
        let session = id;
        self.event(Event::Attached { session, hello, secret });
        self.finish();
        id
    }

    /// The peer's connection is gone.
    pub(super) fn detach(&mut self, id: SessionId) {
        if self.sessions.remove(&id).is_some() {
            self.begin();
            self.event(Event::Detached { session: id });
            self.finish();
        }
    }

    /// The peer has closed the connection because it is done.
    pub(super) fn leave(&mut self, id: SessionId) {
        self.begin();
        self.message(id, ToCoordinator::Bye);
        self.finish();
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        self.begin();
        self.event(Event::Tick);
        self.finish();
    }

    /// The last entry so far.
    pub(super) const fn appended(&self) -> LogSeq {
        self.engine.appended()
    }

    /// As [`poll_log`](Self::poll_log), and ready as well when this entry is safe and the nodes have been told so.
    pub(super) fn poll_safe(&mut self, context: &Context<'_>, seq: LogSeq) -> Poll<()> {
        let failed = self.poll_log(context).is_ready();
        if failed || self.engine.is_safe(seq) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Tells every peer that this is the end. What they are told before that still goes out.
    pub(super) fn stop(&mut self) {
        self.begin();
        self.event(Event::Stop);
        self.finish();
        for session in self.sessions.values_mut() {
            session.end(Close::Stopping);
        }
    }

    /// How much the log got since the start, and how much the state is, in bytes.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.log.submitted_bytes(), self.engine.totals().object_bytes)
    }

    /// How many objects there are.
    pub(super) fn objects(&self) -> u64 {
        self.engine.totals().objects
    }

    /// Begins a snapshot of what is there now: its last entry, and when that was made.
    pub(super) fn begin_snapshot(&mut self) -> (LogSeq, LogTime) {
        (self.engine.begin_snapshot(), self.engine.time())
    }

    /// The next pieces of the snapshot. Returns whether there are more, and how much waits to become pieces.
    pub(super) fn snapshot(&mut self, bytes_min: usize, pieces: &mut Vec<Piece>) -> (bool, usize) {
        let more = self.engine.snapshot(bytes_min, pieces);
        (more, self.engine.snapshot_saved_bytes())
    }

    /// Gives the snapshot up that is under way.
    pub(super) fn give_up_snapshot(&mut self) {
        self.engine.give_up_snapshot();
    }

    /// Begins a batch.
    pub(super) fn begin(&mut self) {
        self.now = clock::now();
    }

    /// A message of this batch, from a session that is not ending.
    pub(super) fn message(&mut self, session: SessionId, message: ToCoordinator) {
        self.event(Event::Message { session, message });
    }

    /// Says something that the engine has no part in.
    pub(super) fn say(&mut self, session: SessionId, message: &ToNode) {
        self.send(session, message);
    }

    /// Ends a batch: acknowledgements are made, the log gets its entries, output goes to QUIC.
    pub(super) fn finish(&mut self) {
        self.settle();
        self.logged();
        self.write();
        self.counters.publish(self.engine.totals(), std::mem::take(&mut self.output_bytes));
    }

    fn event(&mut self, event: Event) {
        let now = self.uptime();
        self.engine.handle(now, event, &mut self.effects);
        self.carry_out();
    }

    fn uptime(&self) -> Duration {
        self.now.duration_since(self.started)
    }

    /// Tells the engine what the log has made safe by now.
    fn logged(&mut self) {
        let task = self.log_task.clone();
        let mut context = Context::from_waker(&task);
        while self.log_error.is_none() {
            match self.log.poll_safe(&mut context) {
                Poll::Pending if self.log.has_room() == self.log_has_room => return,
                Poll::Pending => {
                    self.log_has_room = !self.log_has_room;
                    self.event(if self.log_has_room { Event::LogHasRoom } else { Event::LogFull });
                    self.settle();
                }
                Poll::Ready(Ok(seq)) => {
                    self.event(Event::Logged { seq });
                    self.settle();
                }
                Poll::Ready(Err(error)) => {
                    self.log_error = Some(error);
                    self.log_task.wake_by_ref();
                }
            }
        }
    }

    /// Goes on with what becomes safe later. Ready when the log has failed.
    pub(super) fn poll_log(&mut self, context: &Context<'_>) -> Poll<LogError> {
        self.log_task.clone_from(context.waker());
        self.begin();
        self.logged();
        self.write();
        match self.log_error.take() {
            Some(error) => Poll::Ready(error),
            None => Poll::Pending,
        }
    }

    /// Ends a batch, but for what the log says to it.
    fn settle(&mut self) {
        self.engine.flush(&mut self.effects);
        self.carry_out();
        self.log.submit();
    }

    fn write(&mut self) {
        let mut behind = Vec::new();
        for id in self.touched.drain(..) {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.write(self.now);
                if session.falls_behind() {
                    behind.push(id);
                }
            }
        }
        for session in behind {
            self.event(Event::Behind { session });
        }
    }

    /// A peer that was behind has been sent everything.
    pub(super) fn catch_up(&mut self, id: SessionId) {
        if self.sessions.get_mut(&id).is_some_and(Session::catches_up) {
            self.begin();
            self.event(Event::CaughtUp { session: id });
            self.finish();
        }
    }

    fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { session, message } => self.send(session, &message),
                Effect::Append { seq, time, entry } => self.log.append(seq, time, entry),
                Effect::Close { session, failure } => self.close(session, failure),
            }
        }
        self.effects = effects;
    }

    fn send(&mut self, id: SessionId, message: &ToNode) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        trace(session, message);
        if !session.touched {
            session.touched = true;
            self.touched.push(id);
        }
        self.output_bytes += session.push(self.epoch, message) as u64;
    }

    fn close(&mut self, id: SessionId, failure: Option<Failure>) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let close = match failure {
            None => Close::Goodbye,
            Some(Failure::Stopping) => Close::Stopping,
            Some(failure @ Failure::Violation { .. }) => {
                tracing::warn!(node = ?session.node, peer = %session.peer, %failure, "peer cut off");
                counters::cut();
                Close::Violation(failure.to_string())
            }
            Some(failure) => {
                tracing::warn!(node = ?session.node, peer = %session.peer, %failure, "peer refused");
                counters::refused();
                Close::Refused(failure.to_string())
            }
        };
        session.end(close);
    }
}

/// The few messages worth following one by one.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others are not traced")]
fn trace(session: &mut Session, message: &ToNode) {
    match message {
        ToNode::Welcome { incarnation, .. } => {
            tracing::info!(node = ?session.node, %incarnation, peer = %session.peer, "attached");
        }
        ToNode::Grant { object, group, mode, token, .. } => {
            tracing::debug!(node = ?session.node, %object, lock = %group, %mode, %token, "grant");
        }
        ToNode::Recall { object, group, token, wanted } => {
            tracing::debug!(node = ?session.node, %object, lock = %group, %token, %wanted, "recall");
        }
        ToNode::CommitRefused { failure, .. } | ToNode::Failed { failure, .. } | ToNode::LockFailed { failure, .. } => {
            // Once for each connection: whoever sends one sends many.
            if is_no_good(failure) && !std::mem::replace(&mut session.complained, true) {
                tracing::warn!(node = ?session.node, peer = %session.peer, %failure, "the peer's request is refused");
            } else {
                tracing::debug!(node = ?session.node, peer = %session.peer, %failure, "refused");
            }
        }
        _ => {}
    }
}

/// Whether no peer in good order is told so: others are refused for what somebody else did meanwhile, or for want of room.
const fn is_no_good(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Violation { .. }
            | Failure::BadWrite { .. }
            | Failure::VersionGap { .. }
            | Failure::Fenced { .. }
            | Failure::UnknownRoot { .. }
            | Failure::NotANode
    )
}
