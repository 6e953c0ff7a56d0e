//! The coordinator's process: the real engine, and what its driver does with events and effects.

use crate::clock::{Clock, MICRO, MILLI, nanos};
use crate::network::End;
use crate::sometimes::Sometimes;
use crate::thief::is_thief;
use crate::world::{Happening, World};
use bytes::Bytes;
use kiln_coordinator::engine::{Effect, Engine, Entry, Event, LogSeq, LogTime, Restore, SessionId, Settings};
use kiln_protocol::codec::decode_to_coordinator;
use kiln_protocol::connection::LEASE;
use kiln_protocol::message::{Hello, Role};
use kiln_protocol::{Epoch, Failure, RequestId, Secret, ToCoordinator, ToNode, encode_to_node};
use std::cell::{Cell, RefCell};
use std::time::Duration;

const TICKS_PER_LEASE: u32 = 10;
/// Those that run, and those that died lately.
const NODES_MAX: usize = 16;
/// Looks on without being a process of its own.
pub(crate) const OBSERVER: SessionId = SessionId::from_bits(1);

/// See the module.
pub(crate) struct Coordinator {
    inner: RefCell<Inner>,
    pub(crate) clock: Clock,
    durable: bool,
    up: Cell<bool>,
    epoch: Cell<Epoch>,
}

struct Inner {
    engine: Engine,
    /// When it started, on its own clock.
    started: u64,
    effects: Vec<Effect>,
    /// Its log, and what of it is safe.
    log: Vec<Kept>,
    safe: LogSeq,
    /// What came of the events that somebody wants to know of.
    told: Option<Vec<Effect>>,
}

/// What a coordinator starts with: nothing, or what its log has kept.
fn recover(epoch: Epoch, log: Option<&[Kept]>) -> Engine {
    let settings = Settings { nodes_max: NODES_MAX, ..Settings::new(epoch, "simulated", "simulated") };
    let Some(log) = log else { return Engine::new(settings) };
    let mut restore = Restore::new();
    for (seq, time, entry) in log {
        restore.replay(*seq, *time, entry).expect("it was carried out before");
    }
    let settings = Settings { durable: true, started: restore.time(), ..settings };
    restore.engine(settings).expect("a later epoch")
}

/// An entry of the log.
pub(crate) type Kept = (LogSeq, LogTime, Entry);

impl Coordinator {
    /// One that keeps its state on disk, or in memory.
    pub(crate) fn new(clock: Clock, epoch: Epoch, durable: bool) -> Self {
        let inner = Inner {
            engine: recover(epoch, durable.then_some(&[])),
            started: clock.show(0),
            effects: Vec::new(),
            log: Vec::new(),
            safe: LogSeq::default(),
            told: None,
        };
        Self { inner: RefCell::new(inner), clock, durable, up: Cell::new(true), epoch: Cell::new(epoch) }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.get()
    }

    /// The epoch of the one that runs.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch.get()
    }
}

impl World {
    /// The observer is there from the first moment of each coordinator.
    pub(crate) fn observe(&self) {
        let hello = Hello::new("observer", Role::Observer);
        self.batch([Event::Attached { session: OBSERVER, hello, secret: Secret::from_bytes([9; 16]) }]);
        self.schedule(self.tick_period(), Happening::Tick { epoch: self.coordinator.epoch() });
    }

    fn tick_period(&self) -> u64 {
        self.coordinator.clock.really(LEASE / TICKS_PER_LEASE)
    }

    pub(crate) fn tick(&self, epoch: Epoch) {
        if self.coordinator.is_up() && self.coordinator.epoch() == epoch {
            self.batch([Event::Tick]);
            self.schedule(self.tick_period(), Happening::Tick { epoch });
        }
    }

    /// It crashes, with everything that it had in memory.
    pub(crate) fn crash_coordinator(&self) {
        self.coordinator.up.set(false);
        let links = self.links.borrow().len();
        for link in 0..links {
            self.close_end(link, End::Coordinator);
        }
    }

    /// It starts again, in a later epoch.
    pub(crate) fn restart_coordinator(&self) {
        let epoch = self.coordinator.epoch().next();
        self.coordinator.epoch.set(epoch);
        let durable = self.coordinator.durable;
        let mut inner = self.coordinator.inner.borrow_mut();
        inner.started = self.coordinator.clock.show(self.now());
        if durable {
            // Of what was not said to be safe, the disk may have some.
            let safe = usize::try_from(inner.safe.to_bits()).expect("as many as there are");
            let lost = inner.log.len() - safe;
            let kept = safe + self.random.below(lost + 1);
            if kept < inner.log.len() {
                self.reached(Sometimes::EntriesLost);
            }
            inner.log.truncate(kept);
        } else {
            inner.log.clear();
        }
        inner.safe = inner.log.last().map(|(seq, ..)| *seq).unwrap_or_default();
        inner.engine = recover(epoch, durable.then_some(&inner.log));
        if durable {
            self.invariants.begin_again(self, &inner.log);
        } else {
            self.invariants.begin_epoch(epoch);
            for process in self.processes() {
                process.undecided.borrow_mut().clear();
            }
        }
        drop(inner);
        self.coordinator.up.set(true);
        let links = self.links.borrow().len();
        for link in 0..links {
            self.review(link);
        }
        self.observe();
    }

    /// The log is safe up to here.
    pub(crate) fn synced(&self, epoch: Epoch, seq: LogSeq) {
        if self.coordinator.is_up() && self.coordinator.epoch() == epoch {
            self.coordinator.inner.borrow_mut().safe = seq;
            self.batch([Event::Logged { seq }]);
        }
    }

    /// Frames have arrived from a process: one batch.
    pub(crate) fn take(&self, link: usize, frames: Vec<Bytes>) {
        let (session, epoch) = (self.links.borrow()[link].session, self.coordinator.epoch());
        let mut batch = Vec::new();
        for frame in frames {
            let is_first = !std::mem::replace(&mut self.links.borrow_mut()[link].attached, true);
            let message = decode_to_coordinator(epoch, &frame).expect("a message");
            batch.push(match message {
                ToCoordinator::Hello(hello) if is_first => {
                    let mut secret = [0; 16];
                    secret[..8].copy_from_slice(&self.random.next().to_le_bytes());
                    Event::Attached { session, hello, secret: Secret::from_bytes(secret) }
                }
                message => Event::Message { session, message },
            });
        }
        self.batch(batch);
    }

    /// The coordinator has lost a connection, or hears that it was closed.
    pub(crate) fn detach(&self, link: usize, goodbye: bool) {
        if !self.is_open(link, End::Coordinator) {
            return;
        }
        self.close_end(link, End::Coordinator);
        let session = self.links.borrow()[link].session;
        let mut batch = Vec::new();
        if goodbye {
            batch.push(Event::Message { session, message: ToCoordinator::Bye });
        }
        batch.push(Event::Detached { session });
        self.batch(batch);
    }

    /// A node reads too slowly, or has read everything.
    pub(crate) fn keeps_up(&self, link: usize, up: bool) {
        if self.is_open(link, End::Coordinator) {
            let session = self.links.borrow()[link].session;
            self.reached(if up { Sometimes::CaughtUp } else { Sometimes::FellBehind });
            let process = self.links.borrow()[link].process;
            self.process(process).figures.was_behind.set(true);
            self.batch([if up { Event::CaughtUp { session } } else { Event::Behind { session } }]);
        }
    }

    /// As a batch; also returns what came of it.
    pub(crate) fn tell(&self, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        self.coordinator.inner.borrow_mut().told = Some(Vec::new());
        self.batch(events);
        // A log that is quick.
        self.synced(self.coordinator.epoch(), self.last_entry());
        self.coordinator.inner.borrow_mut().told.take().unwrap_or_default()
    }

    /// What arrived at once is one batch, as in the driver: acknowledgements wait for its end.
    fn batch(&self, events: impl IntoIterator<Item = Event>) {
        let mut closed = Vec::new();
        let first = self.last_entry();
        for event in events {
            self.trace(|| format!("coordinator <- {event:?}"));
            self.invariants.before(self, &event);
            let mut inner = self.coordinator.inner.borrow_mut();
            let Inner { engine, started, effects, .. } = &mut *inner;
            let uptime = Duration::from_nanos(self.coordinator.clock.show(self.now()) - *started);
            engine.handle(uptime, event, effects);
            drop(inner);
            self.carry_out(&mut closed);
        }
        self.end_batch(&mut closed);
        let last = self.last_entry();
        if self.coordinator.durable && last > first {
            let sync = 100 * MICRO + self.random.next() % (4 * MILLI);
            self.schedule(sync, Happening::Synced { epoch: self.coordinator.epoch(), seq: last.to_bits() });
        }
        for link in closed {
            self.say_closed(link, End::Coordinator, false);
            self.close_end(link, End::Coordinator);
        }
    }

    fn last_entry(&self) -> LogSeq {
        self.coordinator.inner.borrow().log.last().map(|(seq, ..)| *seq).unwrap_or_default()
    }

    fn end_batch(&self, closed: &mut Vec<usize>) {
        let mut inner = self.coordinator.inner.borrow_mut();
        let Inner { engine, effects, .. } = &mut *inner;
        engine.flush(effects);
        drop(inner);
        self.carry_out(closed);
    }

    fn carry_out(&self, closed: &mut Vec<usize>) {
        let effects = std::mem::take(&mut self.coordinator.inner.borrow_mut().effects);
        for effect in effects {
            self.trace(|| format!("coordinator -> {effect:?}"));
            self.invariants.after(self, &effect);
            if let Some(told) = &mut self.coordinator.inner.borrow_mut().told {
                told.push(effect.clone());
            }
            match effect {
                Effect::Send { session: OBSERVER, .. } => {}
                Effect::Send { session, .. } | Effect::Close { session, .. } if is_thief(session) => {}
                Effect::Send { session, message } => {
                    let link = self.link_of(session).expect("a session of a connection");
                    if self.is_open(link, End::Coordinator) {
                        let mut bytes = Vec::new();
                        encode_to_node(&mut bytes, self.coordinator.epoch(), &message);
                        self.send(link, End::Node, &bytes);
                    }
                }
                Effect::Append { seq, time, entry } => self.coordinator.inner.borrow_mut().log.push((seq, time, entry)),
                Effect::Close { session, failure } => {
                    assert!(!matches!(failure, Some(Failure::Violation { .. })), "cut off: {failure:?}");
                    let link = self.link_of(session).expect("a session of a connection");
                    if self.is_open(link, End::Coordinator) {
                        closed.push(link);
                    }
                }
            }
        }
    }

    /// Asks the coordinator, from beside the network.
    pub(crate) fn ask(&self, question: impl FnOnce(RequestId) -> ToCoordinator) -> ToNode {
        let mut inner = self.coordinator.inner.borrow_mut();
        let message = question(RequestId::from_bits(1));
        let Inner { engine, effects, .. } = &mut *inner;
        engine.handle(Duration::ZERO, Event::Message { session: OBSERVER, message }, effects);
        engine.flush(effects);
        let answer = std::mem::take(effects).into_iter().find_map(|effect| match effect {
            Effect::Send { session: OBSERVER, message } => Some(message),
            _ => None,
        });
        answer.expect("an answer")
    }
}

/// How long after its lease a dead node's locks are free at the latest, in true time.
pub(crate) fn free_after(clock: &Clock) -> u64 {
    clock.really(LEASE) + nanos(Duration::from_secs(1))
}
