//! S1: there is one write grant for a lock, or any number of read grants; tokens only grow.
//!
//! Looked at whenever the coordinator gives a grant, against what it gave before and was given back.

use crate::grants::{Grants, Lock};
use kiln_protocol::message::Mode;
use kiln_protocol::{Incarnation, Token};

/// The highest token so far.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Token);

impl Tokens {
    pub(crate) fn check(&mut self, grants: &Grants, lock: Lock, to: Incarnation, token: Token) {
        // Whoever asks for what it has is told so once more.
        let again = grants.own(lock, to).is_some_and(|grant| grant.token == token);
        assert!(again || token > self.0, "S1: token {token} of {lock:?} was given after {}", self.0);
        self.0 = self.0.max(token);
    }
}

pub(crate) fn check(grants: &Grants, lock: Lock) {
    let held = grants.of(lock);
    let writers = held.iter().filter(|grant| grant.mode == Mode::Write).count();
    assert!(writers == 0 || held.len() == 1, "S1: {lock:?} is granted to {held:?}");
}
