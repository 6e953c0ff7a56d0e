//! A peer that claims what is another's: the grants of a living node, its incarnation without the secret, an object's commit.
//! It is a node of its own for a moment, beside the network. Everything that it tries is refused, and nobody is disturbed.

use crate::world::World;
use bytes::Bytes;
use kiln_coordinator::engine::{Effect, Event, SessionId};
use kiln_protocol::message::{Commit, Hello, Mode, Part, Resume, Role};
use kiln_protocol::{CommitSeq, Failure, GroupId, RequestId, Secret, ToCoordinator, ToNode};

/// Its sessions are above those of all connections.
const SESSIONS: u64 = 1 << 40;

pub(crate) const fn is_thief(session: SessionId) -> bool {
    session.to_bits() >= SESSIONS
}

impl World {
    /// A peer of bad manners has a lock, gives it back, has it again, and commits with the token that it gave back.
    fn commit_too_late(&self, session: SessionId) {
        let say = |message| Event::Message { session, message };
        let request = RequestId::from_bits;
        let Some(root) = self.invariants.some_root() else { return };
        let key = Bytes::from_static(b"thief");
        let create = Some(Bytes::new());
        let told = self.tell([say(ToCoordinator::Fetch { request: request(1), root, key, create })]);
        let of = |effect: &Effect| match effect {
            Effect::Send { session: to, message: ToNode::Fetched { record, .. } } if *to == session => {
                Some((record.object, record.versions.clone()))
            }
            _ => None,
        };
        let Some((object, versions)) = told.iter().find_map(of) else { return };
        let group = GroupId::DEFAULT;
        let acquire = |number| {
            let (request, mode) = (request(number), Mode::Write);
            say(ToCoordinator::Acquire { request, object, group, mode, want_record: false })
        };
        let token = |told: &[Effect]| {
            let grant = |effect: &Effect| match effect {
                Effect::Send { session: to, message: ToNode::Grant { token, .. } } if *to == session => Some(*token),
                _ => None,
            };
            told.iter().rev().find_map(grant).expect("nobody else wants it")
        };
        let token_before = token(&self.tell([acquire(2)]));
        let release = ToCoordinator::Release { object, group, token: token_before, keep_read: false };
        let _token_now = token(&self.tell([say(release), acquire(3)]));
        let held = versions.iter().find(|(of, _)| *of == group).map(|(_, version)| *version);
        let version = held.unwrap_or_default().next_in(self.coordinator.epoch());
        let (_, writes) = self.invariants.next_commit((object, group), self.coordinator.epoch());
        let part = Part { object, group, token: token_before, version, writes };
        let commit = Commit { everywhere: false, durable: false, parts: [part].into() };
        let told = self.tell([say(ToCoordinator::Commit(commit))]);
        let is_refused = |effect: &Effect| {
            let message = ToNode::CommitRefused {
                seq: CommitSeq::default().next(),
                failure: Failure::Fenced { object, group, token: token_before },
            };
            matches!(effect, Effect::Send { session: to, message: said } if *to == session && *said == message)
        };
        assert!(told.iter().any(is_refused), "S13: a commit with a token that was given back leads to {told:?}");
    }

    /// Takes a write grant of somebody and tries to use it. Returns whether there was any.
    pub(crate) fn steal(&self) -> bool {
        if !self.coordinator.is_up() {
            return false;
        }
        let Some((lock, grant)) = self.invariants.some_write_grant(&self.random) else { return false };
        let (version, writes) = self.invariants.next_commit(lock, self.coordinator.epoch());
        let session = SessionId::from_bits(SESSIONS + 2 * self.now());
        let hello = |resume| Event::Attached {
            session,
            hello: Hello { resume, ..Hello::new("thief", Role::Node) },
            secret: Secret::from_bytes([5; 16]),
        };
        let stolen = Resume {
            epoch: self.coordinator.epoch(),
            incarnation: grant.holder,
            secret: Secret::from_bytes([6; 16]),
            acked: CommitSeq::default(),
            lapsed: false,
            attempt: u64::MAX,
        };
        let mut refused = self.tell([hello(Some(stolen))]);
        refused.retain(|effect| match effect {
            Effect::Send { session: to, .. } | Effect::Close { session: to, .. } => *to == session,
            Effect::Append { .. } => true,
        });
        let is_refused = matches!(
            &refused[..],
            [
                Effect::Send { message: ToNode::Refused { failure: Failure::BadSecret { .. } }, .. },
                Effect::Close { .. }
            ]
        );
        assert!(is_refused, "S14: a stolen incarnation leads to {refused:?}");
        let _welcome = self.tell([hello(None)]);
        self.commit_too_late(session);
        let (object, group) = lock;
        let token = grant.token;
        let part = Part { object, group, token, version, writes };
        let say = |message| Event::Message { session, message };
        let told = self.tell([
            say(ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: [part].into() })),
            say(ToCoordinator::Reassert { object, group, token, mode: Mode::Write }),
            say(ToCoordinator::Release { object, group, token, keep_read: false }),
        ]);
        let _goodbye = self.tell([say(ToCoordinator::Bye)]);
        let to_it = told.iter().filter_map(|effect| match effect {
            Effect::Send { session: to, message } if *to == session => Some(message),
            _ => None,
        });
        let to_it: Vec<_> = to_it.collect();
        let refused = |message: &&ToNode| {
            matches!(
                message,
                ToNode::CommitRefused { failure: Failure::Fenced { .. } | Failure::VersionGap { .. }, .. }
            )
        };
        assert!(to_it.iter().any(refused), "S2: a commit with a stolen token leads to {to_it:?}");
        let lost = to_it.iter().any(|message| matches!(message, ToNode::GrantLost { .. }));
        assert!(lost, "S14: a stolen grant that is re-asserted leads to {to_it:?}");
        assert!(self.invariants.has_grant(lock, &grant), "S13: a stolen grant was given back");
        true
    }
}
