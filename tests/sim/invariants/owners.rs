//! Deadlocks (section 5 of the design): no false cycle, ever. Every transaction of a cycle that is broken waits, unless one of
//! them has given up meanwhile, which no coordinator can know.

use kiln_protocol::message::WaitEdge;
use kiln_protocol::{Incarnation, OwnerId};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Transactions that have not ended, and whether they wait.
#[derive(Debug, Default)]
pub(crate) struct Owners(RefCell<BTreeMap<(Incarnation, OwnerId), bool>>);

impl Owners {
    pub(crate) fn waits(&self, of: Incarnation, owner: OwnerId) {
        self.0.borrow_mut().insert((of, owner), true);
    }

    pub(crate) fn goes_on(&self, of: Incarnation, owner: OwnerId) {
        self.0.borrow_mut().insert((of, owner), false);
    }

    pub(crate) fn ended(&self, of: Incarnation, owner: OwnerId) {
        self.0.borrow_mut().remove(&(of, owner));
    }

    pub(crate) fn gone(&self, incarnation: Incarnation) {
        self.0.borrow_mut().retain(|(of, _), _| *of != incarnation);
    }

    pub(crate) fn forget_all(&self) {
        self.0.borrow_mut().clear();
    }

    pub(crate) fn check(&self, cycle: &[WaitEdge]) {
        let owners = self.0.borrow();
        let waits: Vec<_> = cycle.iter().map(|edge| owners.get(&(edge.incarnation, edge.owner))).collect();
        let false_cycle = waits.iter().all(Option::is_some) && waits.contains(&Some(&false));
        assert!(!false_cycle, "a false cycle: {cycle:?}, of which {waits:?} wait");
    }
}
