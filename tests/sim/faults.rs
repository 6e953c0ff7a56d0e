//! Connections that are lost and found, leases that lapse.

use crate::node::SimNode;
use crate::world::{EPOCH, World, hello, secret};
use kiln_coordinator::engine::{Event, SessionId};
use kiln_engine::Lapse;
use kiln_protocol::codec::decode_to_node;
use kiln_protocol::connection::LEASE;
use kiln_protocol::message::{Hello, Mode, Past, Role};
use kiln_protocol::{CommitSeq, ObjectId, ToCoordinator, ToNode};
use std::rc::Rc;
use std::time::Duration;

impl World {
    pub(crate) fn next_session(&self) -> SessionId {
        let mut coordinator = self.coordinator.borrow_mut();
        coordinator.sessions = coordinator.sessions.next();
        coordinator.told.clear();
        coordinator.sessions
    }

    /// Counts a lock that a task holds; returns its name.
    pub(crate) fn count(&self, node: &SimNode, lock: (ObjectId, usize, Mode)) -> u64 {
        let mut held = node.held.borrow_mut();
        let id = held.last_key_value().map_or(0, |(id, _)| id + 1);
        held.insert(id, lock);
        id
    }

    /// A node that is cut off tries to come back; or it takes too long.
    pub(crate) fn mend(&self, node: &Rc<SimNode>) {
        match self.random.below(16) {
            0..3 => self.come_back(node),
            3 => self.lapse(node),
            _ => {}
        }
    }

    /// The connection is lost, with what was on its way; the coordinator may notice or not.
    pub(crate) fn cut(&self, node: &Rc<SimNode>) {
        let Some(session) = node.session.take() else { return };
        node.cuts.set(node.cuts.get() + 1);
        node.node.disconnected();
        node.behind.set(false);
        node.up.lose();
        node.down.lose();
        node.unnoticed.set(Some(session));
        if self.random.below(2) == 0 {
            self.notice(node);
        }
    }

    pub(crate) fn fall_behind(&self, node: &SimNode) {
        if let Some(session) = node.session.get() {
            node.behind.set(true);
            node.was_behind.set(true);
            self.event(Event::Behind { session });
        }
    }

    /// Everything that was sent has arrived.
    pub(crate) fn catch_up(&self, node: &SimNode) {
        if let (true, Some(session)) = (node.behind.take(), node.session.get()) {
            self.event(Event::CaughtUp { session });
        }
    }

    /// The coordinator notices that a connection is lost.
    pub(crate) fn notice(&self, node: &SimNode) {
        let session = node.unnoticed.take().or_else(|| node.session.take());
        if let Some(session) = session {
            self.event(Event::Detached { session });
        }
    }

    /// Time passes until the leases of nodes that are away have lapsed.
    pub(crate) fn expire(&self) {
        for node in self.nodes() {
            // A node's own clock says so first.
            if node.session.get().is_none() {
                self.give_up(&node);
            }
        }
        self.coordinator.borrow_mut().now += LEASE + Duration::from_millis(1);
        for session in self.nodes().iter().filter_map(|node| node.session.get()) {
            self.event(Event::Message { session, message: ToCoordinator::Heartbeat { number: 0 } });
        }
        self.event(Event::Tick);
    }

    /// What the coordinator has not applied of a node has never been.
    pub(crate) fn undo_unknown(&self, node: &SimNode) {
        let applied = self.applied(node.incarnation.get());
        assert!(applied >= node.told.get(), "commit {} was acknowledged, {applied} applied", node.told.get());
        for made in node.made.borrow().iter().rev().filter(|made| made.seq > applied) {
            self.model().undo(made);
        }
        node.made.borrow_mut().clear();
        node.told.set(CommitSeq::default());
    }

    /// A node that is cut off stops trusting its lease; the coordinator notices a little later, or hears of that.
    fn lapse(&self, node: &Rc<SimNode>) {
        self.give_up(node);
        if self.random.below(2) == 0 {
            self.expire();
        }
    }

    fn give_up(&self, node: &SimNode) {
        if node.node.link.has_lapsed() {
            return;
        }
        assert!(matches!(node.node.lapse(), Lapse::Now { .. }));
        node.lapses.set(node.lapses.get() + 1);
        self.undo_unknown(node);
        let held = std::mem::take(&mut *node.held.borrow_mut());
        for (object, index, mode) in held.into_values() {
            self.model().left(object, index, mode);
        }
    }

    pub(crate) fn come_back(&self, node: &Rc<SimNode>) {
        let resume = node.node.resume();
        let session = self.next_session();
        node.unnoticed.set(None);
        node.session.set(Some(session));
        let hello = Hello { resume, ..hello(Role::Node) };
        self.event(Event::Attached { session, hello, secret: secret() });
        node.down.arrive(node.down.len());
        let frame = self.next_frame(&node.down).expect("a welcome");
        let ToNode::Welcome { incarnation, past, .. } = decode_to_node(EPOCH, &frame).expect("a message") else {
            panic!("a node was not welcomed")
        };
        match past {
            Past::Resumed { applied } => {
                assert_eq!(incarnation, node.incarnation.get());
                assert!(node.node.resumed(EPOCH, applied, 0), "the coordinator forgot commits");
            }
            Past::Lapsed => {
                assert!(node.node.link.has_lapsed(), "a lease ended before its node knew");
                node.incarnation.set(incarnation);
                node.node.rejoined(EPOCH, incarnation, secret(), 0, u64::MAX);
            }
            Past::None | Past::Reset => panic!("{past:?}"),
        }
        // What followed the welcome has arrived with it.
        while let Some(frame) = self.next_frame(&node.down) {
            node.node.handle(decode_to_node(EPOCH, &frame).expect("a message")).expect("a good message");
        }
    }
}
