//! S2: an applied commit carried the token of the write grant that its node had, and was of a living incarnation. For adds it
//! is the incarnation alone (S14 looks at that).

use crate::grants::Grants;
use kiln_protocol::message::{Mode, Part};
use kiln_protocol::{GroupId, Incarnation};

pub(crate) fn check(grants: &Grants, writer: Incarnation, part: &Part) {
    if part.group == GroupId::COMMUTATIVE {
        return;
    }
    let own = grants.own((part.object, part.group), writer);
    let good = own.is_some_and(|grant| grant.token == part.token && grant.mode == Mode::Write);
    assert!(
        good,
        "S2: {writer} committed to {:?} with token {}, it has {own:?}",
        (part.object, part.group),
        part.token
    );
}
