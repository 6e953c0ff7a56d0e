//! Who has which grant, as far as the words between coordinator and nodes say: kept beside the coordinator, from what it
//! was told and what it said.

use kiln_coordinator::engine::SessionId;
use kiln_protocol::message::Mode;
use kiln_protocol::{GroupId, Incarnation, ObjectId, RequestId, Token};
use std::collections::BTreeMap;

pub(crate) type Lock = (ObjectId, GroupId);

/// A grant that was given and not given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) holder: Incarnation,
    pub(crate) token: Token,
    pub(crate) mode: Mode,
    /// On which connection it was given, or named last.
    session: SessionId,
    /// The request that it answered.
    pub(crate) request: RequestId,
    /// When it was wanted back.
    pub(crate) recalled: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    held: BTreeMap<Lock, Vec<Grant>>,
}

impl Grants {
    pub(crate) fn of(&self, lock: Lock) -> &[Grant] {
        self.held.get(&lock).map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Lock, &Grant)> {
        self.held.iter().flat_map(|(lock, grants)| grants.iter().map(move |grant| (*lock, grant)))
    }

    pub(crate) fn own(&self, lock: Lock, holder: Incarnation) -> Option<&Grant> {
        self.of(lock).iter().find(|grant| grant.holder == holder)
    }

    /// A grant is given; it takes the place of one that the node has.
    pub(crate) fn give(
        &mut self,
        lock: Lock,
        holder: Incarnation,
        session: SessionId,
        (request, token, mode): (RequestId, Token, Mode),
    ) {
        let grants = self.held.entry(lock).or_default();
        grants.retain(|grant| grant.holder != holder);
        grants.push(Grant { holder, token, mode, session, request, recalled: None });
    }

    pub(crate) fn recall(&mut self, lock: Lock, holder: Incarnation, now: u64) {
        let grants = self.held.get_mut(&lock).into_iter().flatten();
        for grant in grants.filter(|grant| grant.holder == holder) {
            grant.recalled.get_or_insert(now);
        }
    }

    /// The node gives a grant back, or makes a read grant of it. Returns whether it had it.
    pub(crate) fn release(&mut self, lock: Lock, holder: Incarnation, token: Token, keep_read: bool) -> bool {
        let Some(grants) = self.held.get_mut(&lock) else { return false };
        let Some(at) = grants.iter().position(|grant| grant.holder == holder && grant.token == token) else {
            return false;
        };
        if keep_read {
            grants[at].mode = Mode::Read;
            grants[at].recalled = None;
        } else {
            grants.remove(at);
        }
        true
    }

    /// A node that is back says what it still has.
    pub(crate) fn reassert(
        &mut self,
        lock: Lock,
        holder: Incarnation,
        session: SessionId,
        (token, mode): (Token, Mode),
    ) -> bool {
        let mut grants = self.held.get_mut(&lock).into_iter().flatten();
        let Some(grant) = grants.find(|grant| grant.holder == holder && token <= grant.token && mode <= grant.mode)
        else {
            return false;
        };
        *grant = Grant { token, mode, session, recalled: None, ..*grant };
        true
    }

    /// A node that is back has named everything.
    pub(crate) fn resynced(&mut self, holder: Incarnation, session: SessionId) {
        self.retain(|_, grant| grant.holder != holder || grant.session == session);
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(Lock, &Grant) -> bool) {
        for (lock, grants) in &mut self.held {
            grants.retain(|grant| keep(*lock, grant));
        }
        self.held.retain(|_, grants| !grants.is_empty());
    }
}
