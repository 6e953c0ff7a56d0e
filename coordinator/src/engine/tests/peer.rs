//! A node as the scenarios see it: it keeps copies and grants as a runtime would, and checks what it is told.

use super::super::SessionId;
use super::cluster::EPOCH;
use super::copy::Copy;
use kiln_protocol::message::{Commit, Mode, Past, Role};
use kiln_protocol::{CommitSeq, Failure, GroupId, Incarnation, ObjectId, RequestId, ToNode, Token, Version};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A node, as the tests see it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) session: SessionId,
    pub(super) role: Role,
    pub(super) incarnation: Incarnation,
    pub(super) inbox: VecDeque<ToNode>,
    pub(super) closed: Option<Option<Failure>>,
    pub(super) copies: BTreeMap<ObjectId, Copy>,
    /// Grants that it got and did not give back.
    pub(super) grants: BTreeMap<(ObjectId, GroupId), (Mode, Token)>,
    pub(super) destroyed: BTreeSet<ObjectId>,
    pub(super) commits: VecDeque<(CommitSeq, Commit)>,
    pub(super) sent: CommitSeq,
    pub(super) acked: CommitSeq,
    pub(super) top_token: Token,
    /// The versions of the last record of each object: one that waited for the log has what came before it.
    pub(super) recorded: BTreeMap<(ObjectId, GroupId), Version>,
    /// What it forgot, and its last request before that: answers to older ones come without interest.
    pub(super) forgot: BTreeMap<ObjectId, RequestId>,
    /// Tokens of grants that it gave back.
    pub(super) released: BTreeSet<Token>,
}

impl Peer {
    pub(super) fn new(session: SessionId, role: Role) -> Self {
        Self {
            session,
            role,
            incarnation: Incarnation::default(),
            inbox: VecDeque::new(),
            closed: None,
            copies: BTreeMap::new(),
            grants: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            commits: VecDeque::new(),
            sent: CommitSeq::default(),
            acked: CommitSeq::default(),
            top_token: Token::default(),
            recorded: BTreeMap::new(),
            forgot: BTreeMap::new(),
            released: BTreeSet::new(),
        }
    }

    /// Keeps copies and grants as a runtime would, and checks that nothing out of order arrives.
    pub(super) fn hear(&mut self, message: &ToNode) {
        match message {
            ToNode::Welcome { incarnation, past, .. } => {
                self.incarnation = *incarnation;
                // What an earlier life of the coordinator answered, this one answers again.
                if let Past::Resumed { applied } = past {
                    self.acked = self.acked.min(*applied);
                }
            }
            ToNode::Fetched { request, record, .. } if self.has_forgotten(record.object, *request) => {}
            ToNode::Fetched { record, grants, .. } => {
                self.adopt(record);
                for (group, token) in grants {
                    self.granted(record.object, *group, Mode::Write, *token);
                }
            }
            ToNode::Grant { request, object, group, mode, token, record, .. } => {
                if let Some(record) = record.as_ref().filter(|_| !self.has_forgotten(*object, *request)) {
                    self.adopt(record);
                }
                self.granted(*object, *group, *mode, *token);
            }
            ToNode::Delta(delta) => {
                assert_ne!(delta.writer, self.incarnation, "a delta came back to its writer");
                for part in &delta.parts {
                    assert!(!self.destroyed.contains(&part.object), "a delta of a destroyed object");
                    let recorded = self.recorded.get(&(part.object, part.group)).copied().unwrap_or_default();
                    if let Some(copy) = self.copies.get_mut(&part.object).filter(|_| part.version > recorded) {
                        copy.apply(part);
                    }
                }
            }
            ToNode::CommitRefused { seq, .. } => {
                assert!(*seq > self.acked, "refused after it was acknowledged");
                self.commits.retain(|(commit, _)| commit != seq);
            }
            ToNode::GrantLost { object, group, .. } => {
                self.grants.remove(&(*object, *group));
            }
            ToNode::Ack { applied } => {
                assert!(*applied > self.acked && *applied <= self.sent, "an acknowledgement of nothing");
                self.acknowledged(*applied);
            }
            ToNode::Destroyed { object } => {
                self.destroyed.insert(*object);
                self.copies.remove(object);
                self.grants.retain(|(of, _), _| of != object);
            }
            _ => {}
        }
    }

    fn has_forgotten(&self, object: ObjectId, asked: RequestId) -> bool {
        self.forgot.get(&object).is_some_and(|last| asked <= *last)
    }

    fn adopt(&mut self, record: &kiln_protocol::message::Record) {
        assert!(!self.destroyed.contains(&record.object), "a destroyed object is back");
        assert_eq!(record.applied, self.acked, "a record names commits that were not acknowledged before it");
        if self.role == Role::Observer {
            return;
        }
        self.copies.insert(record.object, Copy::of(record));
        self.recorded.retain(|(object, _), _| *object != record.object);
        self.recorded.extend(record.versions.iter().map(|(group, version)| ((record.object, *group), *version)));
    }

    fn granted(&mut self, object: ObjectId, group: GroupId, mode: Mode, token: Token) {
        // S22: it may have waited for the log, and crossed with the release.
        if self.released.contains(&token) && token <= self.top_token {
            return;
        }
        let again = self.grants.get(&(object, group)) == Some(&(mode, token));
        assert!(again || token > self.top_token, "a token that did not grow");
        self.top_token = self.top_token.max(token);
        self.grants.insert((object, group), (mode, token));
    }

    fn acknowledged(&mut self, applied: CommitSeq) {
        self.acked = applied;
        while let Some((_, commit)) = self.commits.pop_front_if(|(seq, _)| *seq <= applied) {
            for part in commit.parts {
                let Some(copy) = self.copies.get_mut(&part.object) else { continue };
                let version = if part.group == GroupId::COMMUTATIVE {
                    copy.version(part.group).next_in(EPOCH)
                } else {
                    part.version
                };
                copy.own(part.group, version, &part.writes);
            }
        }
    }
}
