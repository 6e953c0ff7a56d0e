#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test that is surprised fails")]

use super::{ConflictCause, OnReturn, Replayed, Step};
use crate::alone::AloneError;
use crate::apply::Changed;
use crate::entry::{Entry, State};
use crate::journal::{LocalDeed, LocalValue, Returned};
use crate::lock::{Admission, LockFailure};
use crate::node::{Ended, Node, Settings};
use crate::outbox::{CommitFailure, Outcome, Waiter};
use crate::ticket::Ticket;
use bytes::Bytes;
use kiln_heap::{ArchivedBuf, Heap, Options};
use kiln_object::{Change, Clustered, Map};
use kiln_protocol::codec::decode_to_coordinator;
use kiln_protocol::message::{Delta, DeltaPart, Failure, Fate, Mode, Part, Record, RootOptions};
use kiln_protocol::schema::TypeBinding;
use kiln_protocol::{
    CommitSeq, Epoch, FieldId, FrameDecoder, GroupId, Incarnation, ObjectId, RequestId, RootId, Secret, ToCoordinator,
    ToNode, Token, TypeId, Version, Write,
};
use smallvec::smallvec;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[derive(Clustered)]
struct Page {
    title: u64,
    #[clustered(counter)]
    hits: i64,
    #[clustered(lock = "notes")]
    notes: Map<String, String>,
}

const TITLE: FieldId = FieldId::from_bits(0);
const HITS: FieldId = FieldId::from_bits(1);
const NOTES: FieldId = FieldId::from_bits(2);
const EPOCH: Epoch = Epoch::from_bits(3);
const ROOT: RootId = RootId::from_bits(1);
const NOTES_GROUP: GroupId = GroupId::from_bits(1);

/// A node, what it says, and the cluster as far as it matters to it.
struct Alone {
    node: Node,
    said: Vec<ToCoordinator>,
    incarnation: u64,
    tokens: u64,
    /// What the program has handles of.
    handles: Vec<Arc<Entry>>,
}

impl Alone {
    /// A node that holds the pages 1 and 2: title 1, 10 hits, at version 1.
    fn attached() -> Self {
        Self::attached_with(&RootOptions::default())
    }

    fn attached_with(options: &RootOptions) -> Self {
        let settings = Settings { epoch: EPOCH, outbox_bytes_max: 1 << 16, durable: false };
        let node = Node::new(settings, Heap::new(Options { bytes_max: 1 << 20 }).unwrap());
        let binding = TypeBinding {
            id: TypeId::from_bits(1),
            fields: vec![TITLE, HITS, NOTES],
            groups: vec![GroupId::DEFAULT, GroupId::COMMUTATIVE, NOTES_GROUP],
        };
        node.add_root::<Page>("pages", ROOT, &binding, options).unwrap();
        node.link.welcomed(Incarnation::from_bits(1), Secret::from_bytes([0; 16]), 0, 100);
        let mut alone = Self { node, said: Vec::new(), incarnation: 1, tokens: 0, handles: Vec::new() };
        for page in [1, 2] {
            drop(alone.node.fetch(ROOT, key(page), None));
            alone.answer_fetch(page, 1, [1, 10], false);
            alone.handles.push(alone.page(page));
        }
        alone
    }

    /// As one whose lease has lapsed.
    fn away() -> Self {
        let alone = Self::attached();
        alone.node.disconnected();
        let _lapse = alone.node.lapse();
        alone
    }

    fn page(&self, page: u64) -> Arc<Entry> {
        self.node.cache.root(ROOT).unwrap().get(&key(page)).unwrap()
    }

    fn try_commit(&self, on_return: OnReturn, page: u64, change: Change) -> Result<(), AloneError> {
        let entry = self.page(page);
        let life = Some(self.node.link.life());
        self.node.commit_alone(life, on_return, &[Changed::new(&entry, &[change])])
    }

    fn commit(&self, page: u64, change: Change) {
        self.try_commit(OnReturn::Replay, page, change).unwrap();
    }

    /// The title and the hits that are shown.
    fn shown(&self, page: u64) -> (u64, u64) {
        let entry = self.page(page);
        let pinned = entry.object.pin();
        (pinned.scalar(0), pinned.scalar(1))
    }

    /// Another incarnation, in step with the coordinator.
    fn come_back(&mut self) {
        self.incarnation += 1;
        let incarnation = Incarnation::from_bits(self.incarnation);
        self.node.rejoined(EPOCH, incarnation, Secret::from_bytes([0; 16]), 1000, 100);
        self.node.handle(ToNode::Resynced).unwrap();
        self.hear();
    }

    /// What the node has said since the last call.
    fn hear(&mut self) -> Vec<ToCoordinator> {
        let mut bytes = Vec::new();
        self.node.outbox.take_output(&mut bytes);
        let mut decoder = FrameDecoder::default();
        decoder.push(&bytes);
        let mut said = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            said.push(decode_to_coordinator(EPOCH, &frame).unwrap());
        }
        self.said.extend(said.iter().cloned());
        said
    }

    /// The last request of a kind.
    fn asked(&mut self, which: impl Fn(&ToCoordinator) -> Option<RequestId>) -> RequestId {
        self.hear();
        self.said.iter().rev().find_map(which).unwrap()
    }

    fn answer_fetch(&mut self, page: u64, version: u64, [title, hits]: [u64; 2], created: bool) {
        let request = self.asked(|said| match said {
            ToCoordinator::Fetch { request, .. } => Some(*request),
            _ => None,
        });
        let record = self.record(page, version, [title, hits]);
        self.node.handle(ToNode::Fetched { request, record, created, grants: vec![] }).unwrap();
    }

    fn record(&self, page: u64, number: u64, [title, hits]: [u64; 2]) -> Record {
        let mut writes = Vec::new();
        Write::Scalar { field: TITLE, bits: title }.encode(&mut writes);
        Write::Scalar { field: HITS, bits: hits }.encode(&mut writes);
        let versions = vec![(GroupId::DEFAULT, version(number)), (GroupId::COMMUTATIVE, version(number))];
        let applied = self.node.outbox.acked_seq();
        Record { object: object(page), type_id: TypeId::from_bits(1), versions, writes: writes.into(), applied }
    }

    /// Takes the write lock of a page.
    fn lock(&mut self, page: u64) -> Token {
        let entry = self.page(page);
        let context = entry.lock_context(0, &self.node.outbox, &self.node.requests);
        let ticket = entry.locks()[0].enter(context, Mode::Write, false).unwrap();
        let request = self.asked(|said| match said {
            ToCoordinator::Acquire { request, .. } => Some(*request),
            _ => None,
        });
        self.tokens += 1;
        let token = Token::new(EPOCH, self.tokens).unwrap();
        let (group, mode) = (GroupId::DEFAULT, Mode::Write);
        let grant = ToNode::Grant { request, object: entry.id(), group, mode, token, cached: true, record: None };
        self.node.handle(grant).unwrap();
        assert_eq!(taken(&ticket), Some(Ok(())));
        token
    }

    /// Fetches the record of a page, to be put under what was changed here.
    fn look(&mut self, page: u64, version: u64, content: [u64; 2]) {
        let looked = self.node.look(&self.page(page));
        let request = self.asked(|said| match said {
            ToCoordinator::Refetch { request, .. } => Some(*request),
            _ => None,
        });
        let record = self.record(page, version, content);
        self.node.handle(ToNode::Fetched { request, record, created: false, grants: vec![] }).unwrap();
        assert_eq!(taken(&looked), Some(Ok(())));
    }

    fn next(&self, pages: &[u64]) -> Step {
        let entries: Vec<_> = pages.iter().map(|page| self.page(*page)).collect();
        self.node.replay_next(self.node.link.life(), &entries)
    }

    fn send(&self, pages: &[u64]) -> Replayed {
        match self.next(pages) {
            Step::Sent(replayed) => replayed,
            other => panic!("{other:?}"),
        }
    }

    /// The parts of the commits that the node has sent since the last call.
    fn committed(&mut self) -> Vec<Vec<Part>> {
        let said = self.hear().into_iter();
        said.filter_map(|said| match said {
            ToCoordinator::Commit(commit) => Some(commit.parts.into_vec()),
            _ => None,
        })
        .collect()
    }

    fn causes(&self) -> Vec<ConflictCause> {
        self.node.take_conflicts().into_iter().map(|conflict| conflict.cause).collect()
    }
}

fn taken<T>(ticket: &Ticket<T>) -> Option<T> {
    match ticket.poll_take(&Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn key(page: u64) -> Bytes {
    Bytes::from(format!("page {page}"))
}

fn object(page: u64) -> ObjectId {
    ObjectId::from_bits(page << 12)
}

fn version(number: u64) -> Version {
    Version::new(EPOCH, number).unwrap()
}

const fn title(bits: u64) -> Change {
    Change::Scalar { slot: 0, bits }
}

const fn hit(amount: i64) -> Change {
    Change::Add { slot: 1, amount }
}

fn note(key: &str, text: &str) -> Change {
    Change::MapPut { slot: 2, key: key.into(), value: ArchivedBuf::text(text) }
}

mod alone;
mod replay;
mod uses;
