//! S11: a commit over several objects is all or nothing: where it is applied, and on every node that shows them.

use crate::ledger::{Made, Step};
use crate::process::Process;
use crate::program::Field;
use crate::tasks::PAIR;
use kiln_engine::State;

pub(crate) fn check_commit(made: &Made, steps: &[Step]) {
    for (object, field, amount) in &made.added {
        let done = steps.iter().any(|step| (step.object, step.field) == (*object, *field));
        assert!(done, "S11: {amount} was to be added to {field:?} of {object}, and was left out of {steps:?}");
    }
}

/// Of the two objects that are only changed together, a node shows both or neither of a commit.
pub(crate) fn check_pair(process: &Process) {
    let roots = process.roots.borrow();
    let [Some(one), Some(two)] = &*roots else { return };
    let (Some(x), Some(y)) = (one.get(PAIR[0].1.as_bytes()), two.get(PAIR[1].1.as_bytes())) else { return };
    if x.state() == State::Current && y.state() == State::Current {
        let sum = Field::Balance.of(&x) + Field::Balance.of(&y);
        assert_eq!(sum, 0, "S11: node {} shows half a transfer", process.place);
    }
}
