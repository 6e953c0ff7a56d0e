//! Deadlocks (section 5 of the design): no false cycle, ever. All waits of a cycle that is broken were there together at some
//! moment. That every cycle is broken is in `l01_commits_resume.rs`: nobody waits for ever.

use kiln_protocol::message::WaitEdge;
use kiln_protocol::{Incarnation, OwnerId};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A transaction's wait for a lock: by its root and its key.
#[derive(Debug)]
struct Wait {
    of: Incarnation,
    owner: OwnerId,
    lock: (&'static str, &'static str),
    from: u64,
    /// When it was over.
    to: Option<u64>,
}

/// The number of a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitNumber(usize);

/// All waits of transactions.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    waits: RefCell<BTreeMap<usize, Wait>>,
    last: std::cell::Cell<usize>,
}

impl Owners {
    pub(crate) fn waits(
        &self,
        now: u64,
        (of, owner): (Incarnation, OwnerId),
        lock: (&'static str, &'static str),
    ) -> WaitNumber {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.waits.borrow_mut().insert(number, Wait { of, owner, lock, from: now, to: None });
        WaitNumber(number)
    }

    pub(crate) fn goes_on(&self, now: u64, wait: WaitNumber) {
        if let Some(wait) = self.waits.borrow_mut().get_mut(&wait.0) {
            wait.to.get_or_insert(now);
        }
    }

    pub(crate) fn forget_all(&self) {
        self.waits.borrow_mut().clear();
    }

    pub(crate) fn check(&self, now: u64, cycle: &[WaitEdge]) {
        let waits = self.waits.borrow();
        let find = |edge: &WaitEdge| {
            let is_it = |wait: &&Wait| {
                (wait.of, wait.owner) == (edge.incarnation, edge.owner)
                    && (wait.lock.0, wait.lock.1) == (&*edge.root, &*edge.key)
            };
            waits.values().rev().find(is_it).unwrap_or_else(|| unreachable!("a wait that never was: {edge:?}"))
        };
        let waits: Vec<_> = cycle.iter().map(find).collect();
        let from = waits.iter().map(|wait| wait.from).max().expect("a cycle has waits");
        let to = waits.iter().map(|wait| wait.to.unwrap_or(now)).min().expect("a cycle has waits");
        assert!(from <= to, "a false cycle: {cycle:?}, whose waits were never there together: {waits:?}");
    }
}
