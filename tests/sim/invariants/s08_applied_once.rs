//! S8: each (incarnation, sequence) is decided at most once, in order, and what is applied was made.

use crate::ledger::Ledger;
use kiln_protocol::{CommitSeq, Incarnation};

pub(crate) fn check(ledger: &Ledger, writer: Incarnation, seq: CommitSeq) {
    let decided = ledger.lives.get(&writer).map(|life| life.decided).unwrap_or_default();
    assert_eq!(seq, decided.next(), "S8: commit {seq} of {writer} was decided after {decided}");
}
