//! Deadlocks (section 5 of the design): no false cycle, ever: all waits of a cycle that is broken were there together at some
//! moment. And every cycle is broken: at once, where each holds what the next wants; where one waits behind another, it is
//! a wait in vain for `l01_commits_resume.rs`.

use crate::clock::SECOND;
use kiln_protocol::message::{Mode, WaitEdge};
use kiln_protocol::{Incarnation, OwnerId};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A lock, by its root and its key; held or wanted in a mode.
pub(crate) type Hold = ((&'static str, &'static str), Mode);

/// A cycle is broken within this time, while nothing is wrong.
const BROKEN: u64 = 2 * SECOND;

/// A transaction's wait for a lock.
#[derive(Debug)]
struct Wait {
    of: Incarnation,
    owner: OwnerId,
    wanted: Hold,
    /// What the transaction holds.
    holds: Vec<Hold>,
    from: u64,
    /// When it was over.
    to: Option<u64>,
}

impl Wait {
    /// Whether it holds what the other wants.
    fn blocks(&self, other: &Self) -> bool {
        let (lock, mode) = other.wanted;
        let conflicts = |held: Mode| held == Mode::Write || mode == Mode::Write;
        self.holds.iter().any(|(held, how)| *held == lock && conflicts(*how))
    }
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
        wanted: Hold,
        holds: Vec<Hold>,
    ) -> WaitNumber {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.waits.borrow_mut().insert(number, Wait { of, owner, wanted, holds, from: now, to: None });
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

    /// No transactions have waited for each other for long.
    pub(crate) fn check_broken(&self, now: u64) {
        let all = self.waits.borrow();
        let mut waits: Vec<&Wait> = all.values().filter(|wait| wait.to.is_none() && wait.from + BROKEN < now).collect();
        // Whoever waits for nobody of these may go on: what is left in the end is cycles, and who waits for them.
        loop {
            let blocks = |wait: &&&Wait| waits.iter().any(|other| other.blocks(wait));
            let blocked: Vec<_> = waits.iter().filter(blocks).copied().collect();
            if blocked.len() == waits.len() {
                break;
            }
            waits = blocked;
        }
        assert!(waits.is_empty(), "a deadlock that nobody sees: {waits:?}");
    }

    pub(crate) fn check(&self, now: u64, cycle: &[WaitEdge]) {
        let waits = self.waits.borrow();
        let find = |edge: &WaitEdge| {
            let is_it = |wait: &&Wait| {
                (wait.of, wait.owner) == (edge.incarnation, edge.owner)
                    && (wait.wanted.0.0, wait.wanted.0.1) == (&*edge.root, &*edge.key)
            };
            waits.values().rev().find(is_it).unwrap_or_else(|| unreachable!("a wait that never was: {edge:?}"))
        };
        let waits: Vec<_> = cycle.iter().map(find).collect();
        let from = waits.iter().map(|wait| wait.from).max().expect("a cycle has waits");
        let to = waits.iter().map(|wait| wait.to.unwrap_or(now)).min().expect("a cycle has waits");
        assert!(from <= to, "a false cycle: {cycle:?}, whose waits were never there together: {waits:?}");
    }
}
