//! S13: after a release no commit is applied with the token that was given back.

use kiln_protocol::message::Part;
use kiln_protocol::{GroupId, Token};
use std::collections::BTreeSet;

/// The tokens that were given back, as far as the coordinator has heard.
#[derive(Debug, Default)]
pub(crate) struct Released(BTreeSet<Token>);

impl Released {
    pub(crate) fn note(&mut self, token: Token) {
        self.0.insert(token);
    }

    pub(crate) fn contains(&self, token: Token) -> bool {
        self.0.contains(&token)
    }

    pub(crate) fn check(&self, part: &Part) {
        let stale = part.group != GroupId::COMMUTATIVE && self.contains(part.token);
        assert!(!stale, "S13: a commit to {} with token {}, which was given back", part.object, part.token);
    }
}
