//! What a stale copy shows until its record comes.

#![expect(clippy::unwrap_used, reason = "a test that is surprised fails")]

use super::{Changed, CommitError};
use crate::entry::{Entry, State};
use crate::node::{Node, Settings};
use crate::outbox::Waiter;
use bytes::Bytes;
use kiln_heap::{Heap, Options};
use kiln_object::{Change, Clustered};
use kiln_protocol::message::{Delta, DeltaPart, Failure, Record, RootOptions};
use kiln_protocol::schema::TypeBinding;
use kiln_protocol::{
    CommitSeq, Epoch, FieldId, GroupId, Incarnation, ObjectId, RequestId, RootId, ToNode, TypeId, Version, Write,
};
use smallvec::smallvec;
use std::sync::Arc;

#[derive(Clustered)]
struct Page {
    title: u64,
    body: u64,
    #[clustered(counter)]
    hits: i64,
}

const TITLE: FieldId = FieldId::from_bits(0);
const BODY: FieldId = FieldId::from_bits(1);
const HITS: FieldId = FieldId::from_bits(2);
const EPOCH: Epoch = Epoch::from_bits(3);
const PAGE: ObjectId = ObjectId::from_bits(1 << 12);
const FETCH: RequestId = RequestId::from_bits(1);
const REFETCH: RequestId = RequestId::from_bits(2);

/// A node and its copy of one object.
struct Copy {
    node: Node,
    entry: Arc<Entry>,
}

impl Copy {
    /// Title 1, body 1 at version 1; 10 hits after one add.
    fn fetched() -> Self {
        let settings = Settings { epoch: EPOCH, durable: false, outbox_bytes_max: 1 << 16 };
        let node = Node::new(settings, Heap::new(Options { bytes_max: 1 << 20 }).unwrap());
        let binding = TypeBinding {
            id: TypeId::from_bits(1),
            fields: vec![TITLE, BODY, HITS],
            groups: vec![GroupId::DEFAULT, GroupId::DEFAULT, GroupId::COMMUTATIVE],
        };
        let root = RootId::from_bits(1);
        node.add_root::<Page>("pages", root, &binding, &RootOptions::default()).unwrap();
        drop(node.fetch(root, Bytes::from_static(b"p"), None));
        answer(&node, FETCH, 1, [1, 1, 10]);
        let entry = node.cache.get(PAGE).unwrap();
        Self { node, entry }
    }

    /// As one whose commit of title 2, its first, was refused.
    fn refused() -> Self {
        let copy = Self::fetched();
        let changes = [Change::Scalar { slot: 0, bits: 2 }];
        copy.node.commit(None, &[Changed::new(&copy.entry, &changes)], Waiter::None).unwrap();
        copy.node.handle(ToNode::CommitRefused { seq: CommitSeq::from_bits(1), failure: Failure::Stopping }).unwrap();
        assert_eq!((copy.entry.state(), copy.shown()), (State::Stale, [2, 1, 10]));
        copy
    }

    fn delta(&self, group: GroupId, number: u64, write: &Write<'_>) {
        let mut writes = Vec::new();
        write.encode(&mut writes);
        let part = DeltaPart { object: PAGE, group, version: version(number), writes: writes.into() };
        let delta = Delta { writer: Incarnation::from_bits(2), parts: smallvec![part] };
        self.node.handle(ToNode::Delta(delta)).unwrap();
    }

    fn shown(&self) -> [u64; 3] {
        [0, 1, 2].map(|slot| self.entry.object.pin().scalar(slot))
    }
}

fn version(number: u64) -> Version {
    Version::new(EPOCH, number).unwrap()
}

fn answer(node: &Node, request: RequestId, number: u64, [title, body, hits]: [u64; 3]) {
    let mut writes = Vec::new();
    for (field, bits) in [(TITLE, title), (BODY, body), (HITS, hits)] {
        Write::Scalar { field, bits }.encode(&mut writes);
    }
    let record = Record {
        object: PAGE,
        type_id: TypeId::from_bits(1),
        versions: vec![(GroupId::DEFAULT, version(number)), (GroupId::COMMUTATIVE, version(number))],
        writes: writes.into(),
        // A refused commit is decided, too.
        applied: node.outbox.last(),
    };
    node.handle(ToNode::Fetched { request, record, created: false, grants: vec![] }).unwrap();
}

#[test]
fn a_refused_commit_is_not_built_upon() {
    let copy = Copy::refused();
    // The refused commit has taken the number of the one that won: the gap before the third is not to be seen.
    copy.delta(GroupId::DEFAULT, 2, &Write::Scalar { field: TITLE, bits: 20 });
    copy.delta(GroupId::DEFAULT, 3, &Write::Scalar { field: BODY, bits: 30 });
    copy.delta(GroupId::DEFAULT, 4, &Write::Unset { field: BODY });
    assert_eq!((copy.entry.state(), copy.shown()), (State::Stale, [2, 1, 10]));
    answer(&copy.node, REFETCH, 4, [20, 0, 10]);
    copy.delta(GroupId::DEFAULT, 5, &Write::Scalar { field: BODY, bits: 50 });
    copy.delta(GroupId::DEFAULT, 6, &Write::Unset { field: TITLE });
    assert_eq!((copy.entry.state(), copy.shown()), (State::Current, [0, 50, 10]));
}

#[test]
fn a_stale_copy_counts_no_further() {
    // It may have missed adds: their versions do not show which.
    let copy = Copy::refused();
    copy.delta(GroupId::COMMUTATIVE, 3, &Write::Add { field: HITS, amount: 5 });
    assert_eq!((copy.entry.state(), copy.shown()), (State::Stale, [2, 1, 10]));
    answer(&copy.node, REFETCH, 3, [1, 1, 17]);
    copy.delta(GroupId::COMMUTATIVE, 5, &Write::Add { field: HITS, amount: 1 });
    assert_eq!((copy.entry.state(), copy.shown()), (State::Current, [1, 1, 18]));
}

#[test]
fn what_is_made_from_a_commit_that_is_refused_meanwhile_does_not_take_its_place() {
    let copy = Copy::fetched();
    let title = |bits| [Change::Scalar { slot: 0, bits }];
    let commit = |changes: &[Change], seen| {
        let changed = Changed { entry: &copy.entry, changes, seen: Some(&seen) };
        copy.node.commit(None, &[changed], Waiter::None)
    };
    let first = commit(&title(2), copy.entry.seen(0..1)).unwrap();
    // Somebody goes on from there, under the same lock.
    let seen = copy.entry.seen(0..1);
    copy.node.handle(ToNode::CommitRefused { seq: first, failure: Failure::Stopping }).unwrap();
    answer(&copy.node, REFETCH, 1, [1, 1, 10]);
    assert_eq!((copy.entry.state(), copy.shown()), (State::Current, [1, 1, 10]));
    let undone = commit(&title(3), seen.clone()).unwrap_err();
    assert!(matches!(undone, CommitError::Undone { current, seen, .. } if (current, seen) == (version(1), version(2))));
    assert_eq!(copy.shown(), [1, 1, 10]);
    let add = [Change::Add { slot: 2, amount: 1 }];
    assert!(commit(&add, seen).is_err(), "whoever has seen it adds nothing either");
    // Adds that are made from nothing are good, and so is what is made from what is shown.
    copy.node.commit(None, &[Changed::new(&copy.entry, &add)], Waiter::None).unwrap();
    commit(&title(3), copy.entry.seen(0..1)).unwrap();
    assert_eq!(copy.shown(), [3, 1, 11]);
}
