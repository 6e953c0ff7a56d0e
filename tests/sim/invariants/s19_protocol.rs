//! S19: an unknown protocol version is refused, with an error that names both, and nobody else is disturbed.

use crate::process::Process;
use kiln_coordinator::engine::{Effect, Event, SessionId};
use kiln_protocol::{Failure, PROTOCOL_VERSION};
use std::cell::Cell;

/// The peer of another version that says hello just now.
#[derive(Debug, Default)]
pub(crate) struct Skew(Cell<Option<SessionId>>);

impl Skew {
    pub(crate) fn begin(&self, event: &Event) {
        self.0.set(match event {
            Event::Attached { session, hello, .. } if hello.protocol != PROTOCOL_VERSION => Some(*session),
            _ => None,
        });
    }

    pub(crate) fn check(&self, effect: &Effect) {
        let Some(peer) = self.0.get() else { return };
        let disturbs = match effect {
            Effect::Send { session, .. } | Effect::Close { session, .. } => *session != peer,
            Effect::Append { .. } => true,
        };
        assert!(!disturbs, "S19: a peer of another version leads to {effect:?}");
    }
}

pub(crate) fn check_refusal(process: &Process, failure: &Failure) {
    let expected = Failure::Protocol { ours: PROTOCOL_VERSION, theirs: process.protocol };
    assert_eq!(*failure, expected, "S19: how another version is refused");
}
