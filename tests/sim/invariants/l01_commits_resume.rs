//! L1: once faults stop, commits resume: one task of every process makes one, with the acknowledgement of its level.

use crate::process::Process;
use crate::world::{NODES, World};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Machines whose processes have committed since faults stopped.
#[derive(Debug, Default)]
pub(crate) struct Resumed(RefCell<BTreeSet<usize>>);

impl Resumed {
    pub(crate) fn note(&self, process: &Process) {
        self.0.borrow_mut().insert(process.place);
    }

    pub(crate) fn check(&self, world: &World) {
        let count = self.0.borrow().len();
        assert_eq!(count, NODES, "L1: processes that committed after {:.3} s", world.now() as f64 / 1e9);
    }
}
