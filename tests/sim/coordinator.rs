//! The coordinator's process: the real engine, and what its driver does with events and effects.

use crate::clock::{Clock, MICRO, MILLI, nanos};
use crate::disk::{OnDisk, everything};
use crate::network::End;
use crate::sometimes::Sometimes;
use crate::thief::is_thief;
use crate::world::{Happening, World};
use bytes::Bytes;
use kiln_coordinator::engine::{Effect, Engine, Entry, Event, LogSeq, LogTime, Restore, SessionId, Settings};
use kiln_protocol::codec::decode_to_coordinator;
use kiln_protocol::connection::LEASE;
use kiln_protocol::message::{Hello, Role};
use kiln_protocol::{Epoch, Failure, ObjectId, RequestId, Secret, ToCoordinator, ToNode, encode_to_node};
use std::cell::{Cell, RefCell};
use std::time::Duration;

const TICKS_PER_LEASE: u32 = 10;
/// What a sync of the log takes at least, and at most.
const SYNC_MIN: u64 = 100 * MICRO;
const SYNC_MAX: u64 = 4 * MILLI;
/// Those that run, and those that died lately.
const NODES_MAX: usize = 16;
/// Looks on without being a process of its own.
pub(crate) const OBSERVER: SessionId = SessionId::from_bits(1);

/// See the module.
pub(crate) struct Coordinator {
    inner: RefCell<Inner>,
    pub(crate) clock: Clock,
    durable: bool,
    /// With the next entries, while they are being written.
    dies_in_write: Cell<bool>,
    /// What has waited for entries after this one is told now.
    tells_after: Cell<Option<LogSeq>>,
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
    disk: Option<OnDisk>,
    /// What came of the events that somebody wants to know of.
    told: Option<Vec<Effect>>,
}

/// What a coordinator starts with: nothing, or what its log has kept.
fn recover(epoch: Epoch, log: Option<&[Kept]>) -> Engine {
    let Some(log) = log else { return Engine::new(settings(epoch)) };
    let mut restore = Restore::new();
    for (seq, time, entry) in log {
        restore.replay(*seq, *time, entry).expect("it was carried out before");
    }
    go_on(epoch, restore)
}

fn settings(epoch: Epoch) -> Settings {
    Settings { nodes_max: NODES_MAX, ..Settings::new(epoch, "simulated", "simulated") }
}

fn go_on(epoch: Epoch, restore: Restore) -> Engine {
    let settings = Settings { durable: true, started: restore.time(), ..settings(epoch) };
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
            disk: durable.then(OnDisk::new),
            told: None,
        };
        let (dies_in_write, up, epoch) = (Cell::new(false), Cell::new(true), Cell::new(epoch));
        Self { inner: RefCell::new(inner), clock, durable, dies_in_write, tells_after: Cell::new(None), up, epoch }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.get()
    }

    /// Whether it has crashed, or is about to.
    pub(crate) fn is_ending(&self) -> bool {
        !self.up.get() || self.dies_in_write.get()
    }

    /// Whether an object was removed by an entry that was not safe when it was decided what is told now.
    pub(crate) fn told_late(&self, object: ObjectId) -> bool {
        let Some(after) = self.tells_after.get() else { return false };
        let inner = self.inner.borrow();
        let unsafe_then = inner.log.iter().rev().take_while(|(seq, ..)| *seq > after);
        let is_removal = |entry: &Entry| matches!(entry, Entry::Removed { object: of, .. } if *of == object);
        unsafe_then.clone().any(|(_, _, entry)| is_removal(entry))
    }

    /// How long what it says may wait for its log.
    pub(crate) const fn sync_max(&self) -> u64 {
        if self.durable { SYNC_MAX } else { 0 }
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

    /// It crashes now or, when it keeps its state on disk, perhaps with the next entries.
    pub(crate) fn end_coordinator(&self) {
        if self.coordinator.durable && self.random.below(2) == 0 {
            self.coordinator.dies_in_write.set(true);
        } else {
            self.crash_coordinator();
        }
    }

    /// It starts again, in a later epoch.
    pub(crate) fn restart_coordinator(&self) {
        if self.coordinator.is_up() {
            self.crash_coordinator();
        }
        self.coordinator.dies_in_write.set(false);
        let epoch = self.coordinator.epoch().next();
        self.coordinator.epoch.set(epoch);
        let durable = self.coordinator.durable;
        let mut inner = self.coordinator.inner.borrow_mut();
        inner.started = self.coordinator.clock.show(self.now());
        match inner.disk.take() {
            Some(disk) => self.come_back(&mut inner, disk, epoch),
            None => {
                inner.log.clear();
                inner.safe = LogSeq::default();
                inner.engine = recover(epoch, None);
            }
        }
        if durable {
            self.invariants.begin_again(self, &inner.log);
        } else {
            self.invariants.begin_epoch(epoch);
            for process in self.processes() {
                process.forget_commits();
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

    /// With what its disk has kept.
    fn come_back(&self, inner: &mut Inner, disk: OnDisk, epoch: Epoch) {
        let recovered = disk.crash(&inner.log, inner.safe, &self.random);
        let kept = usize::try_from(recovered.last.to_bits()).expect("as many as there are");
        if kept < inner.log.len() {
            self.reached(Sometimes::EntriesLost);
        }
        if recovered.had_snapshot {
            self.reached(Sometimes::SnapshotRead);
        }
        if recovered.was_torn {
            self.reached(Sometimes::TornTail);
        }
        inner.log.truncate(kept);
        inner.safe = recovered.last;
        inner.engine = go_on(epoch, recovered.restore);
        let replayed = everything(&mut recover(epoch, Some(&inner.log)));
        assert_eq!(everything(&mut inner.engine), replayed, "S7: what came back is not what the entries add up to");
        inner.disk = Some(recovered.kept);
    }

    /// The log is safe up to here.
    pub(crate) fn synced(&self, epoch: Epoch, seq: LogSeq) {
        if !self.coordinator.is_up() || self.coordinator.epoch() != epoch {
            return;
        }
        let mut inner = self.coordinator.inner.borrow_mut();
        let Inner { engine, safe, disk, .. } = &mut *inner;
        let before = *safe;
        if let Some(disk) = disk {
            *safe = disk.write(seq).max(*safe);
            disk.snapshot(engine, *safe, &self.random);
        }
        let seq = *safe;
        drop(inner);
        self.coordinator.tells_after.set(Some(before));
        self.batch([Event::Logged { seq }]);
        self.coordinator.tells_after.set(None);
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
        let dies_later = self.coordinator.dies_in_write.take();
        self.batch(events);
        // A log that is quick.
        self.synced(self.coordinator.epoch(), self.last_entry());
        self.coordinator.dies_in_write.set(dies_later);
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
            let sync = SYNC_MIN + self.random.next() % (SYNC_MAX - SYNC_MIN);
            self.schedule(sync, Happening::Synced { epoch: self.coordinator.epoch(), seq: last.to_bits() });
        }
        for link in closed {
            self.say_closed(link, End::Coordinator, false);
            self.close_end(link, End::Coordinator);
        }
        if last > first && self.coordinator.dies_in_write.take() {
            self.crash_coordinator();
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
                Effect::Append { seq, time, entry } => {
                    let mut inner = self.coordinator.inner.borrow_mut();
                    if let Some(disk) = &mut inner.disk {
                        disk.append((seq, time, entry.clone()));
                    }
                    inner.log.push((seq, time, entry));
                }
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
