//! What a process's driver does with connections, one after the other. The decisions are the engine's own (`pace.rs` and
//! `link.rs` there); here is only what happens on sockets.

use crate::clock::{MILLI, nanos};
use crate::invariants::cut_off;
use crate::network::End;
use crate::process::{Process, Stage};
use crate::sometimes::Sometimes;
use crate::tasks;
use crate::world::{Happening, TASKS, World};
use bytes::Bytes;
use kiln_engine::{Adoption, Ended, LeaseKeeper, Node, Retry, Settings, Welcome, trusted};
use kiln_protocol::codec::decode_to_node;
use kiln_protocol::message::{Hello, Past, Role};
use kiln_protocol::{Epoch, Failure, ToCoordinator, ToNode, encode_to_coordinator};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MEASURE_PERIOD: Duration = Duration::from_secs(1);
pub(crate) const OUTBOX_BYTES: usize = 1 << 11;

impl World {
    /// An attempt to connect begins.
    pub(crate) fn connect(&self, process: &Process) {
        if process.stage.get() != Stage::Apart {
            return;
        }
        let link = self.new_link(process);
        process.stage.set(Stage::Connecting(link));
        process.figures.attempts.set(process.figures.attempts.get() + 1);
        let handshake = self.delay(process.place) + self.delay(process.place);
        self.schedule(handshake, Happening::Greet { link });
        let most = if process.has_attached() { Retry::attempt_max(process.node()) } else { None };
        let most = process.clock.really(most.unwrap_or(CONNECT_TIMEOUT));
        self.schedule(most, Happening::Patience { link });
    }

    /// The handshake is done, if both ways were open: the process says hello.
    pub(crate) fn greet(&self, process: &Process, link: usize) {
        let reach = self.reach.borrow()[process.place];
        let is_under_way = process.stage.get() == Stage::Connecting(link);
        if !is_under_way || reach.cut_up || reach.cut_down || !self.coordinator.is_up() {
            return;
        }
        self.open_link(link);
        process.asked.set(process.clock.show(self.now()));
        let resume = if process.has_attached() { process.node().resume() } else { None };
        let hello =
            Hello { protocol: process.protocol, resume, ..Hello::new(format!("n{}", process.place), Role::Node) };
        let mut bytes = Vec::new();
        encode_to_coordinator(&mut bytes, Epoch::default(), &ToCoordinator::Hello(hello));
        self.send(link, End::Coordinator, &bytes);
    }

    /// An attempt has taken too long.
    pub(crate) fn patience(&self, process: &Process, link: usize) {
        if process.stage.get() != Stage::Connecting(link) {
            return;
        }
        let in_haste = process.has_attached() && Retry::attempt_max(process.node()).is_some();
        self.hang_up(process, link);
        let pause = if in_haste { Duration::ZERO } else { process.retry.borrow_mut().pause() };
        self.schedule(process.clock.really(pause), Happening::Connect { process: process.id });
    }

    /// The process ends its end of a connection.
    pub(crate) fn hang_up(&self, process: &Process, link: usize) {
        if self.is_open(link, End::Coordinator) {
            self.say_closed(link, End::Node, false);
        }
        process.stage.set(Stage::Apart);
        self.close_end(link, End::Node);
    }

    /// The process has lost its connection.
    pub(crate) fn lost(&self, process: &Process, link: usize, why: &str) {
        if process.link() != Some(link) {
            return;
        }
        self.trace(|| format!("{} loses connection {link}: {why}", self.name(process)));
        let was_served = process.stage.get() == Stage::Served(link);
        process.stage.set(Stage::Apart);
        if process.leaving.get() {
            return self.replace(process, 0);
        }
        let pause = if was_served {
            process.figures.cuts.set(process.figures.cuts.get() + 1);
            cut_off(process);
            *process.retry.borrow_mut() = Retry::default();
            Duration::ZERO
        } else {
            process.retry.borrow_mut().pause()
        };
        self.close_end(link, End::Node);
        self.schedule(process.clock.really(pause), Happening::Connect { process: process.id });
    }

    /// Frames have arrived at a process.
    pub(crate) fn received(&self, process: &Rc<Process>, link: usize, frames: Vec<Bytes>) {
        for frame in frames {
            match process.stage.get() {
                Stage::Connecting(under_way) if under_way == link => self.welcomed(process, link, &frame),
                Stage::Served(served) if served == link => {
                    let message = decode_to_node(process.node().link.epoch(), &frame).expect("a message");
                    self.trace(|| format!("{} <- {message:?}", self.name(process)));
                    self.invariants.heard(self, process, &message);
                    let is_back = matches!(message, ToNode::Resynced);
                    process.node().handle(message).expect("a good message");
                    if is_back {
                        self.invariants.is_back(process, self.links.borrow()[link].session);
                    }
                    if let Some(ended) = process.node().ended() {
                        return self.ended(process, &ended);
                    }
                }
                Stage::Apart | Stage::Connecting(_) | Stage::Served(_) => {}
            }
        }
    }

    #[expect(clippy::panic, reason = "a first message is one of two")]
    fn welcomed(&self, process: &Rc<Process>, link: usize, frame: &Bytes) {
        let message = decode_to_node(Epoch::default(), frame).expect("a message");
        self.trace(|| format!("{} <- {message:?}", self.name(process)));
        match message {
            ToNode::Welcome { epoch, incarnation, secret, lease_ms, durable, past, .. } => {
                let trusted = trusted(Duration::from_millis(lease_ms.into()));
                let sent_nanos = process.asked.get();
                let welcome = Welcome { epoch, incarnation, secret, past, sent_nanos, trusted };
                if process.has_attached() {
                    self.adopt(process, link, &welcome);
                } else {
                    self.attach(process, link, &welcome, durable);
                }
            }
            ToNode::Refused { failure } => {
                self.hang_up(process, link);
                if matches!(failure, Failure::Protocol { .. }) {
                    self.reached(Sometimes::SkewRefused);
                    self.invariants.refused_for_protocol(process, &failure);
                    // Whoever runs it sees what is wrong, and starts the right version.
                    return self.replace(process, 300 * MILLI);
                }
                panic!("{} was refused: {failure}", self.name(process));
            }
            other => panic!("the first word to {} is {other:?}", self.name(process)),
        }
    }

    /// The first connection of a process: its program begins.
    fn attach(&self, process: &Rc<Process>, link: usize, welcome: &Welcome, durable: bool) {
        let settings = Settings { epoch: welcome.epoch, durable, outbox_bytes_max: OUTBOX_BYTES };
        let heap = kiln_heap::Heap::new(kiln_heap::Options { bytes_max: self.plan.heap_bytes }).expect("an arena");
        let node = Node::new(settings, heap);
        node.link.welcomed(welcome.incarnation, welcome.secret, welcome.sent_nanos, nanos(welcome.trusted));
        process.attached(node);
        self.serve(process, link);
        *process.lease.borrow_mut() = Some(LeaseKeeper::new(welcome.trusted, process.clock.show(self.now())));
        self.schedule(0, Happening::Lease { process: process.id });
        self.schedule(process.clock.really(MEASURE_PERIOD), Happening::Measure { process: process.id });
        *process.doing.borrow_mut() = vec!["begins"; TASKS];
        for index in 0..TASKS {
            let task = tasks::start(self.this(), Rc::clone(process), index);
            process.tasks.borrow_mut().push(Some(task));
            process.ready.wake(index);
        }
        self.first_flush(process);
    }

    fn serve(&self, process: &Process, link: usize) {
        process.stage.set(Stage::Served(link));
        process.served_since.set(self.now());
    }

    fn adopt(&self, process: &Rc<Process>, link: usize, welcome: &Welcome) {
        let node = process.node();
        let (acked, last, epoch) = (node.outbox.acked_seq(), node.outbox.last(), node.link.epoch());
        match node.go_on(welcome) {
            Adoption::Resumed => {
                if epoch != welcome.epoch {
                    self.reached(Sometimes::WentOn);
                }
                if let Past::Resumed { applied } = welcome.past {
                    let recognised = if applied > acked { Some(Sometimes::ResendRecognised) } else { None };
                    let sent = if last > applied { Some(Sometimes::ResendSent) } else { None };
                    recognised.into_iter().chain(sent).for_each(|reached| self.reached(reached));
                }
                self.serve(process, link);
            }
            Adoption::Rejoined { .. } => {
                self.invariants.told_unknown(process, acked);
                process.forget_commits();
                process.figures.lapses.set(process.figures.lapses.get() + 1);
                self.reached(Sometimes::Rejoined);
                self.serve(process, link);
            }
            Adoption::Useless => {
                self.reached(Sometimes::LapsedWhileConnecting);
                self.hang_up(process, link);
                self.schedule(0, Happening::Connect { process: process.id });
            }
            Adoption::Ended(ended) => {
                if ended == Ended::Reset {
                    self.reached(Sometimes::Reset);
                }
                process.node().end(ended.clone());
                self.hang_up(process, link);
                self.ended(process, &ended);
            }
        }
        self.first_flush(process);
    }

    /// Heartbeats, and the end of a lease.
    pub(crate) fn renew(&self, process: &Rc<Process>) {
        if process.node().ended().is_some() {
            return;
        }
        let boot = process.clock.show(self.now());
        let heard = process.node().outbox.acked_seq();
        let turn = process.lease.borrow_mut().as_mut().map(|lease| lease.turn(process.node(), boot));
        let turn = turn.expect("there since it was attached");
        if let Some(unknown) = turn.lapsed {
            self.trace(|| format!("the lease of {} lapses, {unknown} commits are unknown", self.name(process)));
            self.reached(Sometimes::LapsedByItself);
            self.invariants.told_unknown(process, heard);
            if unknown > 0 {
                self.reached(Sometimes::LapsedWithUnknown);
            }
            process.figures.lapses.set(process.figures.lapses.get() + 1);
            process.forget_commits();
            if process.leaving.get() {
                return self.replace(process, 0);
            }
            if let Stage::Served(link) = process.stage.get() {
                // Another task reads: it may come to what has arrived before it hears of the lapse.
                if self.random.below(2) == 0 {
                    let late = self.arrive_now(link);
                    self.received(process, link, late);
                }
                cut_off(process);
                self.hang_up(process, link);
                *process.retry.borrow_mut() = Retry::default();
                self.schedule(0, Happening::Connect { process: process.id });
            }
        }
        self.schedule(process.clock.really(turn.idle), Happening::Lease { process: process.id });
    }

    /// What the driver does once a second.
    pub(crate) fn measure(&self, process: &Process) {
        if process.node().ended().is_none() {
            process.node().refetch_stale();
            self.schedule(process.clock.really(MEASURE_PERIOD), Happening::Measure { process: process.id });
        }
    }

    /// Goes after whatever a process did: tasks that were woken run soon, what it has to say goes out soon.
    pub(crate) fn after(&self, process: &Process) {
        if !process.ready_due.get() && !process.ready.is_empty() {
            process.ready_due.set(true);
            let soon = self.random.next() % (100 * crate::clock::MICRO);
            self.schedule(soon, Happening::Ready { process: process.id });
        }
        if !process.flush_due.get() && process.wrote.0.swap(false, Ordering::Relaxed) {
            process.flush_due.set(true);
            let soon = self.random.next() % (200 * crate::clock::MICRO);
            self.schedule(soon, Happening::Flush { process: process.id });
        }
    }

    fn first_flush(&self, process: &Process) {
        process.wrote.0.store(true, Ordering::Relaxed);
        self.after(process);
    }

    /// What the engine has to say is handed to the connection.
    pub(crate) fn flush(&self, process: &Process) {
        process.flush_due.set(false);
        if !process.has_attached() {
            return;
        }
        let waker = Waker::from(Arc::clone(&process.wrote));
        let mut bytes = Vec::new();
        while let Poll::Ready(output) = process.node().outbox.poll_output(&Context::from_waker(&waker), &mut bytes) {
            if output == kiln_engine::Output::Closed {
                break;
            }
            if let Stage::Served(link) = process.stage.get() {
                if self.invariants.is_gone(process) && process.node().outbox.unacknowledged().0 > 0 {
                    self.reached(Sometimes::LateCommit);
                }
                self.send(link, End::Coordinator, &bytes);
            }
            bytes.clear();
        }
    }

    /// The node has ended: the program does, too, once its tasks have heard of it.
    fn ended(&self, process: &Rc<Process>, ended: &Ended) {
        self.trace(|| format!("{} has ended: {ended}", self.name(process)));
        if let Some(link) = process.link() {
            self.hang_up(process, link);
        }
        self.replace(process, 10 * MILLI);
    }
}
