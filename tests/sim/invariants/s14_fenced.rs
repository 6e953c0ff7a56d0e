//! S14: a fenced node neither commits nor serves coherent reads.
//!
//! Nothing of a dead incarnation is applied. That a task of a lapsed node takes no lock is in `held.rs`, which looks as the
//! program's guards do, and S3 catches one that should not have it.

use crate::ledger::Ledger;
use kiln_protocol::Incarnation;

pub(crate) fn check(ledger: &Ledger, writer: Incarnation) {
    let lives = ledger.lives.get(&writer).is_some_and(|life| !life.gone);
    assert!(lives, "S14: {writer} has ended, and commits");
}
