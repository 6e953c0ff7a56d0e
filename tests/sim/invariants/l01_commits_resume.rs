//! L1: once faults stop, commits resume: one task of every process makes one, with the acknowledgement of its level. And
//! nobody waits for ever: while nothing is wrong anywhere, whatever a task does is done in time. What is never answered, a
//! lock that nobody gives back, a deadlock that nobody sees: all that ends in a wait for nothing.

use crate::clock::{SECOND, nanos};
use crate::process::Process;
use crate::run::describe;
use crate::world::{NODES, World};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

/// What a task does takes no longer than this when nothing is wrong. What was wrong before is over by then: a dead node's
/// lease has lapsed.
const CALM: u64 = 8 * SECOND;

/// What a task does that waits for nothing, and takes its time.
pub(crate) const LOOKING: &str = "looks at a watch";

pub(crate) fn check_wait(world: &World, process: &Process, index: usize, most: Duration) {
    let is_calm = world.calm_since().is_some_and(|since| since + CALM < world.now());
    let what = process.doing.borrow()[index];
    if is_calm && nanos(most) >= CALM && what != LOOKING {
        unreachable!("L1: {} waits in vain, busy with {what}: {}", world.name(process), describe(world));
    }
}

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
