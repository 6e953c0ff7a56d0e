//! S22: a grant that is delivered again after its release does not re-acquire.
//!
//! No network here delivers twice, so it is done on purpose: a grant that the node gave back is handed to it once more.

use super::s13_after_release::Released;
use crate::process::Process;
use crate::world::World;
use kiln_engine::Entry;
use kiln_protocol::message::Mode;
use kiln_protocol::{Incarnation, ToNode};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

const KEPT: usize = 32;

/// A grant that arrived.
#[derive(Debug)]
struct Arrived {
    to: Incarnation,
    /// The object as it was resident then: fetched anew it has no past, and words from before that cannot reach it in order.
    entry: Weak<Entry>,
    message: ToNode,
}

/// Grants that arrived lately.
#[derive(Debug, Default)]
pub(crate) struct Given(VecDeque<Arrived>);

impl Given {
    pub(crate) fn note(&mut self, process: &Process, message: &ToNode) {
        let ToNode::Grant { object, record: None, .. } = message else { return };
        let Some(entry) = process.node().cache.get(*object) else { return };
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        let (to, entry) = (process.incarnation(), Arc::downgrade(&entry));
        self.0.push_back(Arrived { to, entry, message: message.clone() });
    }

    pub(crate) fn deliver_again(&self, world: &World, process: &Process, released: &Released) -> bool {
        let node = process.node();
        for Arrived { entry, message, .. } in self.0.iter().filter(|arrived| arrived.to == process.incarnation()) {
            let ToNode::Grant { object, group, token, .. } = message else { continue };
            let Some(entry) = entry.upgrade().filter(|_| released.contains(*token)) else { continue };
            let index = entry.binding.groups().iter().position(|known| known == group);
            let resident = node.cache.get(*object).is_some_and(|resident| Arc::ptr_eq(&resident, &entry));
            let Some(index) = index.filter(|_| resident) else { continue };
            let lock = &entry.locks()[index];
            let before = [Mode::Read, Mode::Write].map(|mode| lock.is_granted(mode));
            world.trace(|| format!("{} is told again: {message:?}", world.name(process)));
            node.handle(message.clone()).expect("a good message");
            let after = [Mode::Read, Mode::Write].map(|mode| lock.is_granted(mode));
            assert_eq!(before, after, "S22: a grant that was given back is there again");
            return true;
        }
        false
    }
}
