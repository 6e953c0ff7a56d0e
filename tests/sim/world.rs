//! The coordinator, the nodes, what is on its way between them, and chance.

use crate::model::{Field, Model};
use crate::node::{Queue, SimNode, Task};
use crate::tasks;
use bytes::Bytes;
use kiln_coordinator::engine::{Effect, Engine, Event, SessionId, Settings};
use kiln_engine::{Ended, Entry, Node, State};
use kiln_protocol::codec::{decode_to_coordinator, decode_to_node};
use kiln_protocol::message::{Hello, LockParty, Mode, Role};
use kiln_protocol::schema::TypeBinding;
use kiln_protocol::{
    Epoch, Failure, Incarnation, RequestId, RootId, Secret, ToCoordinator, ToNode, Write, Writes, encode_to_node,
};
use kiln_tests::Random;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

pub(crate) const EPOCH: Epoch = Epoch::from_bits(3);
const NODES: usize = 2;
const TASKS: usize = 4;
/// As small as can be, so that it is full now and then.
const HEAP_BYTES: usize = 64 << 10;
const OUTBOX_BYTES: usize = 1 << 16;
/// Turns in which everything that was begun must come to its end.
const SETTLE_TURNS: usize = 20_000;
const OBSERVER: SessionId = SessionId::from_bits(1);

pub(crate) struct World {
    pub(crate) random: Random,
    model: RefCell<Model>,
    pub(crate) coordinator: RefCell<Coordinator>,
    nodes: RefCell<Vec<Rc<SimNode>>>,
    pub(crate) stopping: Cell<bool>,
    pub(crate) root: Cell<RootId>,
    pub(crate) binding: RefCell<Option<TypeBinding>>,
    this: RefCell<std::rc::Weak<Self>>,
    tracing: bool,
}

pub(crate) struct Coordinator {
    engine: Engine,
    pub(crate) now: Duration,
    pub(crate) sessions: SessionId,
    /// What the observer was told.
    pub(crate) told: Vec<ToNode>,
    passed: DefaultHasher,
}

impl World {
    pub(crate) fn new(seed: u64) -> Rc<Self> {
        let coordinator = Coordinator {
            engine: Engine::new(Settings::new(EPOCH, "memory", "simulated")),
            now: Duration::ZERO,
            sessions: OBSERVER,
            told: Vec::new(),
            passed: DefaultHasher::new(),
        };
        let world = Rc::new(Self {
            random: Random::new(seed),
            model: RefCell::default(),
            coordinator: RefCell::new(coordinator),
            nodes: RefCell::default(),
            stopping: Cell::new(false),
            root: Cell::default(),
            binding: RefCell::default(),
            this: RefCell::default(),
            tracing: std::env::var_os("KILN_SIM_TRACE").is_some(),
        });
        *world.this.borrow_mut() = Rc::downgrade(&world);
        world.event(Event::Attached { session: OBSERVER, hello: hello(Role::Observer), secret: secret() });
        for _ in 0..NODES {
            world.attach();
        }
        world
    }

    pub(crate) fn model(&self) -> RefMut<'_, Model> {
        self.model.borrow_mut()
    }

    /// Different for runs that went different ways.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.coordinator.borrow().passed.finish()
    }

    pub(crate) fn nodes(&self) -> Vec<Rc<SimNode>> {
        self.nodes.borrow().clone()
    }

    /// Something happens to the coordinator, and the effects are carried out.
    pub(crate) fn event(&self, event: Event) {
        self.batch([event]);
    }

    /// What arrived at once is one batch, as in the driver: acknowledgements wait for its end.
    fn batch(&self, events: impl IntoIterator<Item = Event>) {
        let (mut effects, mut coordinator) = (Vec::new(), self.coordinator.borrow_mut());
        let mut barriers = Vec::new();
        let Coordinator { engine, now, .. } = &mut *coordinator;
        for event in events {
            self.trace(|| format!("coordinator <- {event:?}"));
            engine.handle(*now, event, &mut effects);
        }
        engine.flush(&mut effects);
        for effect in effects {
            self.trace(|| format!("coordinator -> {effect:?}"));
            match effect {
                Effect::Send { session: OBSERVER, message: ToNode::Barrier { barrier } } => barriers.push(barrier),
                Effect::Send { session: OBSERVER, message } => coordinator.told.push(message),
                Effect::Send { session, message } => self.send(&mut coordinator, session, &message),
                Effect::Append { .. } => {}
                Effect::Close { session, failure } => {
                    // A connection that is lost may end in any way.
                    let is_lost = self.nodes.borrow().iter().all(|node| node.session.get() != Some(session));
                    assert!(is_lost, "a well-behaved node was cut off: {failure:?}");
                }
            }
        }
        drop(coordinator);
        for barrier in barriers {
            self.event(Event::Message { session: OBSERVER, message: ToCoordinator::Barrier { barrier } });
        }
    }

    /// With `KILN_SIM_TRACE` set, tells what passes.
    pub(crate) fn trace(&self, what: impl FnOnce() -> String) {
        if self.tracing {
            // Nobody to tell when the standard error is closed.
            drop(writeln!(std::io::stderr(), "{}", what()));
        }
    }

    fn send(&self, coordinator: &mut Coordinator, session: SessionId, message: &ToNode) {
        if let ToNode::Destroyed { object } = message {
            self.model().destroyed.insert(*object);
        }
        let mut bytes = Vec::new();
        encode_to_node(&mut bytes, EPOCH, message);
        bytes.hash(&mut coordinator.passed);
        match self.nodes.borrow().iter().find(|node| node.session.get() == Some(session)) {
            Some(node) => node.down.push(&bytes),
            // Its welcome, which makes the node; or words to a connection that is lost.
            None => coordinator.told.push(message.clone()),
        }
    }

    fn attach(&self) {
        let session = self.next_session();
        self.event(Event::Attached { session, hello: hello(Role::Node), secret: secret() });
        let told = std::mem::take(&mut self.coordinator.borrow_mut().told);
        let mut told = told.into_iter();
        let Some(ToNode::Welcome { incarnation, .. }) = told.next() else { panic!("a node was not welcomed") };
        let settings = kiln_engine::Settings { epoch: EPOCH, durable: false, outbox_bytes_max: OUTBOX_BYTES };
        let heap = kiln_heap::Heap::new(kiln_heap::Options { bytes_max: HEAP_BYTES }).unwrap();
        let node = Rc::new(SimNode {
            node: Node::new(settings, heap),
            session: Cell::new(Some(session)),
            incarnation: Cell::new(incarnation),
            unnoticed: Cell::default(),
            behind: Cell::default(),
            was_behind: Cell::default(),
            cuts: Cell::default(),
            lapses: Cell::default(),
            held: RefCell::default(),
            alive: Cell::new(true),
            made: RefCell::default(),
            told: Cell::default(),
            up: Queue::default(),
            down: Queue::default(),
            tasks: RefCell::default(),
            doing: RefCell::new(vec!["begins"; TASKS]),
        });
        node.node.link.welcomed(incarnation, secret(), 0, u64::MAX);
        self.nodes.borrow_mut().push(Rc::clone(&node));
        for index in 0..TASKS {
            node.tasks.borrow_mut().push(Some(self.task(&node, index)));
        }
    }

    fn task(&self, node: &Rc<SimNode>, index: usize) -> Task {
        let world = self.this.borrow().upgrade().unwrap();
        Box::pin(tasks::run(world, Rc::clone(node), index))
    }

    /// Something happens.
    pub(crate) fn step(&self) {
        let nodes = self.nodes();
        let node = &nodes[self.random.below(nodes.len())];
        match self.random.below(1000) {
            0..500 => self.poll(node, self.random.below(TASKS)),
            500..720 if node.session.get().is_none() => self.mend(node),
            500..720 => self.up(node),
            720..940 => self.down(node),
            940..960 => {
                // Whoever waited goes away, and somebody else comes.
                let index = self.random.below(TASKS);
                let gone = node.tasks.borrow_mut()[index].take();
                drop(gone);
                node.tasks.borrow_mut()[index] = Some(self.task(node, index));
            }
            960..970 => node.node.refetch_stale(),
            970..990 | 996..998 => {
                self.coordinator.borrow_mut().now += Duration::from_millis(self.random.below(50) as u64);
            }
            990..994 => self.cut(node),
            994..996 => self.fall_behind(node),
            _ => self.crash(node),
        }
        // Every few steps: it looks at every lock of every node.
        if self.random.below(4) == 0 {
            self.check();
        }
    }

    fn poll(&self, node: &SimNode, index: usize) {
        let Some(mut task) = node.tasks.borrow_mut()[index].take() else { return };
        if task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            node.tasks.borrow_mut()[index] = Some(task);
        }
    }

    fn up(&self, node: &SimNode) {
        let mut bytes = Vec::new();
        node.node.outbox.take_output(&mut bytes);
        node.up.push(&bytes);
        if node.up.len() == 0 {
            return;
        }
        let Some(session) = node.session.get() else { return };
        node.up.arrive(1 + self.random.below(node.up.len()));
        let mut batch = Vec::new();
        while let Some(frame) = self.next_frame(&node.up) {
            let message = decode_to_coordinator(EPOCH, &frame).unwrap();
            batch.push(Event::Message { session, message });
        }
        self.batch(batch);
    }

    fn down(&self, node: &SimNode) {
        if node.down.len() == 0 {
            return self.catch_up(node);
        }
        node.down.arrive(1 + self.random.below(node.down.len()));
        while let Some(frame) = self.next_frame(&node.down) {
            let message = decode_to_node(EPOCH, &frame).unwrap();
            self.trace(|| format!("node {} <- {message:?}", node.incarnation.get()));
            node.node.handle(message).unwrap();
            self.check_pair(node);
        }
    }

    pub(crate) fn next_frame(&self, queue: &Queue) -> Option<Bytes> {
        let frame = queue.decoder.borrow_mut().next_frame().unwrap()?;
        frame.hash(&mut self.coordinator.borrow_mut().passed);
        Some(frame)
    }

    /// A node dies. What the coordinator has not applied of it has never been.
    fn crash(&self, node: &Rc<SimNode>) {
        node.alive.set(false);
        let tasks = std::mem::take(&mut *node.tasks.borrow_mut());
        drop(tasks);
        if !node.node.link.has_lapsed() {
            self.undo_unknown(node);
        }
        self.check_refusals(node);
        node.node.end(Ended::Lost("it crashed".to_owned()));
        self.nodes.borrow_mut().retain(|other| !Rc::ptr_eq(other, node));
        self.notice(node);
        self.expire();
        self.attach();
    }

    pub(crate) fn applied(&self, incarnation: Incarnation) -> kiln_protocol::CommitSeq {
        let ToNode::Status { status, .. } = self.ask(|request| ToCoordinator::Status { request }) else {
            panic!("no status")
        };
        status.nodes.iter().find(|node| node.incarnation == incarnation).unwrap().applied
    }

    fn ask(&self, question: impl FnOnce(RequestId) -> ToCoordinator) -> ToNode {
        self.coordinator.borrow_mut().told.clear();
        let message = question(RequestId::from_bits(1));
        self.event(Event::Message { session: OBSERVER, message });
        self.coordinator.borrow_mut().told.pop().unwrap()
    }

    /// No more faults and nothing new: what was begun comes to its end (L1, L3).
    pub(crate) fn settle(&self) {
        self.stopping.set(true);
        for node in self.nodes() {
            if node.session.get().is_none() {
                self.come_back(&node);
            }
        }
        for _ in 0..SETTLE_TURNS {
            let nodes = self.nodes();
            for node in &nodes {
                for index in 0..TASKS {
                    self.poll(node, index);
                }
                self.up(node);
                self.down(node);
            }
            self.check();
            if !nodes.iter().any(|node| node.is_busy()) {
                return;
            }
        }
        panic!("what was begun does not come to its end: {}", self.describe());
    }

    /// Who holds and wants what, for people.
    fn describe(&self) -> String {
        let ToNode::Locks { locks, .. } = self.ask(|request| ToCoordinator::Locks { request }) else {
            panic!("no locks")
        };
        let mut text = String::new();
        for lock in &locks {
            let parties = |parties: &[LockParty]| {
                let parties = parties.iter().map(|party| {
                    let node = party.node.as_ref().map_or_else(|| "itself".to_owned(), |(node, _)| node.to_string());
                    format!("{node} ({})", party.mode)
                });
                parties.collect::<Vec<_>>().join(", ")
            };
            let (holders, waiters) = (parties(&lock.holders), parties(&lock.waiters));
            text += &format!("\n{} {:?}: held by [{holders}], wanted by [{waiters}]", lock.object, lock.group);
        }
        for node in self.nodes() {
            let busy: Vec<_> = (node.tasks.borrow().iter().zip(&*node.doing.borrow()))
                .filter_map(|(task, doing)| task.as_ref().map(|_| *doing))
                .collect();
            let (unacknowledged, _) = node.node.outbox.unacknowledged();
            text += &format!("\nnode {}: busy with {busy:?}, {unacknowledged} unacknowledged", node.incarnation.get());
            for entry in node.node.cache.all() {
                text += &format!("\n  {} {:?} {:?}", entry.id(), entry.state(), entry.locks());
            }
        }
        text
    }

    fn check(&self) {
        let nodes = self.nodes();
        let mut granted: BTreeMap<_, (usize, usize)> = BTreeMap::new();
        for node in &nodes {
            self.check_pair(node);
            for entry in node.node.cache.all() {
                for (index, lock) in entry.locks().iter().enumerate() {
                    let (readers, writers) = granted.entry((entry.id(), index)).or_default();
                    *writers += usize::from(lock.is_granted(Mode::Write));
                    *readers += usize::from(lock.is_granted(Mode::Read));
                }
            }
        }
        for ((object, group), (any, writers)) in granted {
            // S1. A write grant counts as a read grant, too.
            assert!(
                writers == 0 || (writers, any) == (1, 1),
                "group {group} of {object}: {writers} of {any} may write"
            );
        }
    }

    /// S11: of the two objects that are only changed together, a node shows both or neither of a commit.
    fn check_pair(&self, node: &SimNode) {
        if !node.node.link.is_synced() {
            return;
        }
        let Some(root) = node.node.cache.root(self.root.get()) else { return };
        let (Some(x), Some(y)) = (root.get(b"x"), root.get(b"y")) else { return };
        if x.state() == State::Current && y.state() == State::Current {
            let sum = value(&x, Field::Balance) + value(&y, Field::Balance);
            assert_eq!(sum, 0, "half a transfer is shown");
        }
    }

    /// S4: what a lock holder has is what was committed last.
    pub(crate) fn check_values(&self, node: &SimNode, entry: &Entry, groups: &Range<usize>) {
        if !node.alive.get() {
            return;
        }
        for field in Field::ALL {
            if field.group().is_some_and(|group| groups.contains(&group)) {
                let expected = self.model().value(entry.id(), field);
                assert_eq!(value(entry, field), expected, "{field:?} of {} under its lock", entry.id());
            }
        }
    }

    fn check_refusals(&self, node: &SimNode) {
        for (objects, failure) in node.node.take_refusals() {
            assert!(matches!(failure, Failure::Destroyed { .. }), "a commit to {objects:?} was refused: {failure}");
        }
    }

    /// L4: the coordinator and every node have what was committed, and nothing else.
    pub(crate) fn check_converged(&self) {
        assert!(self.model().commits > 20, "nothing happened");
        let fields = self.binding.borrow().as_ref().unwrap().fields.clone();
        let (root, nodes) = (self.root.get(), self.nodes());
        for key in tasks::KEYS {
            let key = Bytes::from_static(key.as_bytes());
            let answer = self.ask(|request| ToCoordinator::Peek { request, root, key: key.clone() });
            let ToNode::Fetched { record, .. } = answer else { continue };
            for field in Field::ALL {
                let number = fields[usize::from(field.slot())];
                let stored = Writes::new(&record.writes).map(Result::unwrap).find_map(|write| match write {
                    Write::Scalar { field, bits } if field == number => Some(bits.cast_signed()),
                    _ => None,
                });
                let stored = stored.unwrap_or_default();
                assert_eq!(stored, self.model().value(record.object, field), "{field:?} of {key:?}");
                for node in &nodes {
                    let resident = node.node.cache.get(record.object);
                    if let Some(entry) = resident.filter(|entry| entry.state() == State::Current) {
                        assert_eq!(value(&entry, field), stored, "{field:?} of {key:?} on a node");
                    }
                }
            }
        }
        for node in &nodes {
            self.check_refusals(node);
            for entry in node.node.cache.all() {
                assert!(!self.model().destroyed.contains(&entry.id()), "{} is back", entry.id());
            }
        }
    }
}

pub(crate) fn value(entry: &Entry, field: Field) -> i64 {
    entry.object.scalar(field.slot()).cast_signed()
}

pub(crate) fn hello(role: Role) -> Hello {
    Hello::new("simulated", role)
}

pub(crate) const fn secret() -> Secret {
    Secret::from_bytes([7; 16])
}
