//! S1: there is one write grant for a lock, or any number of read grants; tokens only grow.
//!
//! Looked at whenever the coordinator gives a grant, against what it gave before and was given back.

use crate::grants::{Grants, Lock};
use kiln_protocol::message::Mode;
use kiln_protocol::{Incarnation, Token};
use std::collections::BTreeMap;

/// The highest tokens of each lock so far: of any grant, and of a write grant. Grants to readers may be told in another
/// order than they were given in, because the streams of nodes wait for the log, each for itself.
#[derive(Debug, Default)]
pub(crate) struct Tokens(BTreeMap<Lock, (Token, Token)>);

impl Tokens {
    pub(crate) fn check(&mut self, grants: &Grants, lock: Lock, to: Incarnation, (token, mode): (Token, Mode)) {
        // Whoever asks for what it has is told so once more.
        let again = grants.own(lock, to).is_some_and(|grant| grant.token == token);
        let (any, write) = self.0.entry(lock).or_default();
        let before = if mode == Mode::Write { *any } else { *write };
        assert!(again || token > before, "S1: token {token} of {lock:?} was given for {mode} after {before}");
        *any = token.max(*any);
        if mode == Mode::Write {
            *write = token.max(*write);
        }
    }
}

pub(crate) fn check(grants: &Grants, lock: Lock) {
    let held = grants.of(lock);
    let writers = held.iter().filter(|grant| grant.mode == Mode::Write).count();
    assert!(writers == 0 || held.len() == 1, "S1: {lock:?} is granted to {held:?}");
}
