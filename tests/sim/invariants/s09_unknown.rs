//! S9: what is acknowledged was applied, what is said to be refused was not, and a time-out says neither: whoever asks
//! later is told the truth.

use crate::ledger::Ledger;
use crate::process::Process;
use crate::world::World;
use kiln_protocol::message::Fate;
use kiln_protocol::{CommitSeq, Incarnation, ToCoordinator, ToNode};
use kiln_tests::Random;
use std::cell::RefCell;

/// Commits that nobody was told of.
#[derive(Debug, Default)]
pub(crate) struct Unknown(Vec<(Incarnation, CommitSeq)>);

impl Unknown {
    pub(crate) fn note(&mut self, incarnation: Incarnation, seq: CommitSeq) {
        self.0.push((incarnation, seq));
    }

    pub(crate) fn some(&self, random: &Random) -> Option<(Incarnation, CommitSeq)> {
        let recent = self.0.len().saturating_sub(6);
        (!self.0.is_empty()).then(|| random.one_of(&self.0[recent..]))
    }

    pub(crate) fn all(&self) -> Vec<(Incarnation, CommitSeq)> {
        self.0.clone()
    }
}

/// Of the commits that nobody waits for, each without an answer is among those that the program is told of.
pub(crate) fn check_told(process: &Process, heard: CommitSeq) {
    let told: Vec<_> = process.node().link.take_unknown().into_iter().map(|unknown| unknown.seq).collect();
    for seq in std::mem::take(&mut *process.unwaited.borrow_mut()) {
        let is_told = seq <= heard || told.contains(&seq);
        assert!(is_told, "S9: nobody is told that the fate of commit {seq} is unknown, but of {told:?}");
    }
}

pub(crate) fn check(ledger: &Ledger, (incarnation, seq): (Incarnation, CommitSeq), fate: Fate) {
    let outcome = ledger.outcome(incarnation, seq);
    let true_to_it = match fate {
        Fate::Applied => outcome == Some(true),
        Fate::NotApplied => outcome == Some(false),
        // It was told when the commit might still have come.
        Fate::Unknown => true,
    };
    assert!(true_to_it, "S9: {fate:?} is said of commit {seq} of {incarnation}, the truth is {outcome:?}");
}

/// At the end, of all of them.
pub(crate) fn check_all(world: &World, ledger: &RefCell<Ledger>, unknown: &[(Incarnation, CommitSeq)]) {
    for (incarnation, seq) in unknown {
        let (incarnation, seq) = (*incarnation, *seq);
        let answer = world.ask(|request| ToCoordinator::Fate { request, incarnation, seq });
        let ToNode::Fate { fate, .. } = answer else { unreachable!("{answer:?} for a fate") };
        check(&ledger.borrow(), (incarnation, seq), fate);
        let outcome = ledger.borrow().outcome(incarnation, seq);
        assert!(fate != Fate::Unknown || outcome.is_none(), "S9: the fate of {seq} of {incarnation} is not remembered");
    }
}
