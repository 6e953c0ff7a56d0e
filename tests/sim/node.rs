//! One node: a real runtime engine, its tasks, and the bytes on their way from and to it.

use crate::model::Made;
use kiln_coordinator::engine::SessionId;
use kiln_engine::Node;
use kiln_protocol::message::Mode;
use kiln_protocol::{CommitSeq, FrameDecoder, Incarnation, ObjectId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;

pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

pub(crate) struct SimNode {
    pub(crate) node: Node,
    /// Its connection; `None` while that is lost.
    pub(crate) session: Cell<Option<SessionId>>,
    pub(crate) incarnation: Cell<Incarnation>,
    pub(crate) alive: Cell<bool>,
    /// The connection that it lost, if the coordinator has not noticed.
    pub(crate) unnoticed: Cell<Option<SessionId>>,
    /// It is told which objects changed, not how.
    pub(crate) behind: Cell<bool>,
    pub(crate) was_behind: Cell<bool>,
    /// How often it lost its connection, and its lease.
    pub(crate) cuts: Cell<u64>,
    pub(crate) lapses: Cell<u64>,
    /// What its tasks hold.
    pub(crate) held: RefCell<BTreeMap<u64, (ObjectId, usize, Mode)>>,
    /// What it committed and the coordinator may not have applied.
    pub(crate) made: RefCell<Vec<Made>>,
    /// The last commit that one of its tasks was told is applied.
    pub(crate) told: Cell<CommitSeq>,
    pub(crate) up: Queue,
    pub(crate) down: Queue,
    pub(crate) tasks: RefCell<Vec<Option<Task>>>,
    /// What each task waits for, to be told when one waits for ever.
    pub(crate) doing: RefCell<Vec<&'static str>>,
}

impl SimNode {
    /// Something was begun, or is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        // What the engine has to say goes into the queue first.
        let mut bytes = Vec::new();
        self.node.outbox.take_output(&mut bytes);
        self.up.push(&bytes);
        let on_its_way = self.up.len() + self.down.len() > 0 || self.node.outbox.unacknowledged().0 > 0;
        on_its_way || self.tasks.borrow().iter().any(Option::is_some)
    }
}

/// Bytes on their way in one direction, and the frames that have arrived so far.
#[derive(Default)]
pub(crate) struct Queue {
    bytes: RefCell<VecDeque<u8>>,
    pub(crate) decoder: RefCell<FrameDecoder>,
}

impl Queue {
    pub(crate) fn push(&self, bytes: &[u8]) {
        self.bytes.borrow_mut().extend(bytes);
    }

    /// The connection is lost, with all that was on its way.
    pub(crate) fn lose(&self) {
        self.bytes.borrow_mut().clear();
        *self.decoder.borrow_mut() = FrameDecoder::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.borrow().len()
    }

    /// The next bytes arrive, cut where chance cuts them.
    pub(crate) fn arrive(&self, count: usize) {
        let arrived: Vec<u8> = self.bytes.borrow_mut().drain(..count).collect();
        self.decoder.borrow_mut().push(&arrived);
    }
}
