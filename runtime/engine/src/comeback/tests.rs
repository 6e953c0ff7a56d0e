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
use kiln_protocol::message::{Delta, DeltaPart, Failure, Fate, Mode, Part, Record};
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
        let settings = Settings { epoch: EPOCH, outbox_bytes_max: 1 << 16, durable: false };
        let node = Node::new(settings, Heap::new(Options { bytes_max: 1 << 20 }).unwrap());
        let binding = TypeBinding {
            id: TypeId::from_bits(1),
            fields: vec![TITLE, HITS, NOTES],
            groups: vec![GroupId::DEFAULT, GroupId::COMMUTATIVE, NOTES_GROUP],
        };
        node.add_root::<Page>("pages", ROOT, &binding).unwrap();
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
        self.node.commit_alone(life, on_return, &[Changed { entry: &entry, changes: &[change] }])
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

#[test]
fn nothing_is_done_alone_while_the_lease_lasts_or_for_an_earlier_life() {
    let mut alone = Alone::attached();
    assert_eq!(alone.try_commit(OnReturn::Replay, 1, title(2)), Err(AloneError::NotAway));
    alone.node.disconnected();
    assert_eq!(alone.try_commit(OnReturn::Replay, 1, title(2)), Err(AloneError::NotAway));
    assert!(!alone.node.share_alone(&alone.page(1), 0..2));
    let _lapse = alone.node.lapse();
    alone.commit(1, title(2));
    assert!(alone.node.share_alone(&alone.page(1), 0..2));
    let life = Some(alone.node.link.life());
    alone.come_back();
    let (entry, changes) = (alone.page(1), [title(3)]);
    let late = alone.node.commit_alone(life, OnReturn::Replay, &[Changed { entry: &entry, changes: &changes }]);
    assert_eq!(late, Err(AloneError::NotAway));
    assert_eq!((alone.shown(1), entry.state()), ((2, 10), State::Local));
}

#[test]
fn locks_among_tasks_end_with_the_return() {
    let mut alone = Alone::away();
    let entry = alone.page(1);
    let lock = &entry.locks()[0];
    assert!(!lock.try_enter(Mode::Write));
    assert!(alone.node.share_alone(&entry, 0..1));
    assert!(lock.try_enter(Mode::Write));
    let context = entry.lock_context(0, &alone.node.outbox, &alone.node.requests);
    let waits: Arc<Ticket<Admission>> = lock.enter(context, Mode::Read, false).unwrap();
    assert_eq!(taken(&waits), None);
    alone.come_back();
    assert_eq!(taken(&waits), Some(Err(LockFailure::Fenced)));
    alone.node.leave_groups(&entry, 0..1, Mode::Write);
    assert!(!lock.is_granted(Mode::Read) && !lock.try_enter(Mode::Read));
    // Nothing was ever said of it.
    assert!(
        !alone.said.iter().any(|said| matches!(said, ToCoordinator::Reassert { .. } | ToCoordinator::Release { .. }))
    );
}

#[test]
fn a_commit_is_made_again_under_the_grant_of_its_new_life() {
    let mut alone = Alone::away();
    alone.commit(1, title(2));
    alone.commit(1, hit(5));
    alone.commit(1, title(3));
    assert_eq!((alone.shown(1), alone.node.journalled().0), ((3, 15), 3));
    alone.come_back();
    assert_eq!(alone.shown(1), (3, 15));
    let comeback = alone.node.comeback();
    assert_eq!((comeback.objects.len(), comeback.unsure.len(), comeback.removals.len()), (1, 0, 0));
    assert_eq!(alone.node.groups_to_replay(&alone.page(1)), [0]);
    let token = alone.lock(1);
    assert!(matches!(alone.next(&[1]), Step::LookAgain));
    // Somebody else has added meanwhile.
    alone.look(1, 1, [1, 20]);
    assert_eq!((alone.shown(1), alone.page(1).state()), ((3, 25), State::Local));
    let sent = [alone.send(&[1]), alone.send(&[1]), alone.send(&[1])];
    assert!(matches!(alone.next(&[1]), Step::Done));
    assert_eq!(alone.shown(1), (3, 25));
    let committed = alone.committed();
    let parts: Vec<_> = committed.iter().map(|parts| (parts[0].group, parts[0].token, parts[0].version)).collect();
    let adds = (GroupId::COMMUTATIVE, Token::default(), Version::default());
    assert_eq!(parts, [(GroupId::DEFAULT, token, version(2)), adds, (GroupId::DEFAULT, token, version(3))]);
    assert!(alone.node.settle(&[alone.page(1)]));
    assert_eq!((alone.shown(1), alone.page(1).state()), ((3, 25), State::Current));
    assert_eq!((alone.node.journalled().0, alone.node.take_returned()), (3, None));
    alone.node.handle(ToNode::Ack { applied: CommitSeq::from_bits(3) }).unwrap();
    for Replayed { id, outcome } in sent {
        alone.node.replayed(id, taken(&outcome).unwrap());
    }
    assert_eq!(alone.node.journalled(), (0, 0));
    assert_eq!(alone.node.take_returned(), Some(Returned { replayed: 3, ..Returned::default() }));
}

#[test]
fn what_arrives_while_local_changes_are_over_a_record_is_kept() {
    let mut alone = Alone::away();
    alone.commit(1, title(2));
    alone.come_back();
    alone.lock(1);
    let add = |alone: &Alone, number| {
        let mut writes = Vec::new();
        Write::Add { field: HITS, amount: 7 }.encode(&mut writes);
        let (group, version) = (GroupId::COMMUTATIVE, version(number));
        let part = DeltaPart { object: object(1), group, version, writes: writes.into() };
        let delta = Delta { writer: Incarnation::from_bits(9), parts: smallvec![part] };
        alone.node.handle(ToNode::Delta(delta)).unwrap();
    };
    // Before the record: it is in the record.
    add(&alone, 2);
    assert_eq!(alone.shown(1), (2, 10));
    alone.look(1, 2, [1, 17]);
    add(&alone, 3);
    assert_eq!(alone.shown(1), (2, 24));
    // An add of this node's own, not answered yet when the record is made once more.
    let entry = alone.page(1);
    alone.node.commit(None, &[Changed { entry: &entry, changes: &[hit(100)] }], Waiter::None).unwrap();
    alone.node.handle(ToNode::Outdated { object: object(1) }).unwrap();
    assert!(matches!(alone.next(&[1]), Step::LookAgain));
    alone.look(1, 3, [1, 24]);
    assert_eq!(alone.shown(1), (2, 124));
    let _sent = alone.send(&[1]);
    assert!(alone.node.settle(&[entry]));
    assert_eq!((alone.shown(1), alone.page(1).state()), ((2, 124), State::Current));
}

#[test]
fn a_commit_over_several_objects_is_made_whole_or_not_at_all() {
    let mut alone = Alone::away();
    let pages = [alone.page(1), alone.page(2)];
    let changes = [[title(11)], [title(12)]];
    let changed =
        [Changed { entry: &pages[0], changes: &changes[0] }, Changed { entry: &pages[1], changes: &changes[1] }];
    alone.node.commit_alone(Some(0), OnReturn::Replay, &changed).unwrap();
    alone.commit(1, note("k", "v"));
    alone.come_back();
    assert_eq!(alone.node.comeback().objects.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    assert_eq!(alone.node.groups_to_replay(&pages[0]), [0, 1]);
    alone.lock(1);
    alone.lock(2);
    alone.look(1, 1, [1, 10]);
    assert!(matches!(alone.next(&[1, 2]), Step::LookAgain), "half of it was looked at");
    alone.look(2, 2, [99, 10]);
    assert!(matches!(alone.next(&[1, 2]), Step::Reported));
    let conflicts = alone.node.take_conflicts();
    let LocalDeed::Commit(writes) = &conflicts[0].deed else { panic!("{conflicts:?}") };
    let values: Vec<_> = writes.iter().map(|write| (&write.base, &write.ours, write.theirs.as_ref())).collect();
    let [one, eleven, twelve, theirs] = [1, 11, 12, 99].map(LocalValue::Scalar);
    assert_eq!(values, [(&one, &eleven, Some(&one)), (&one, &twelve, Some(&theirs))]);
    // The rest goes on.
    let _sent = alone.send(&[1, 2]);
    assert!(alone.node.settle(&pages));
    assert_eq!((pages[0].state(), pages[1].state()), (State::Stale, State::Stale));
    let committed = alone.committed();
    assert_eq!((committed.len(), committed[0][0].group, committed[0][0].version), (1, NOTES_GROUP, version(1)));
}

/// A commit that was sent, and no answer: the lease lapses once more.
fn sent_and_not_answered() -> (Alone, crate::journal::LocalId) {
    let mut alone = Alone::away();
    alone.commit(1, title(2));
    alone.commit(1, hit(5));
    alone.come_back();
    alone.lock(1);
    alone.look(1, 1, [1, 10]);
    let sent = alone.send(&[1]);
    alone.node.disconnected();
    let _lapse = alone.node.lapse();
    let outcome: Outcome = taken(&sent.outcome).unwrap();
    assert_eq!(outcome, Err(CommitFailure::Unknown));
    alone.node.replayed(sent.id, outcome);
    alone.node.leave_groups(&alone.page(1), 0..1, Mode::Write);
    assert!(!alone.node.settle(&[alone.page(1)]));
    assert_eq!((alone.shown(1), alone.page(1).state()), ((2, 15), State::Local));
    assert!(alone.node.comeback().unsure.is_empty(), "nobody can be asked");
    alone.come_back();
    let unsure = alone.node.comeback().unsure;
    assert_eq!(unsure, [(sent.id, Incarnation::from_bits(2), CommitSeq::from_bits(1))]);
    (alone, sent.id)
}

#[test]
fn what_was_sent_before_another_lapse_is_made_once_if_it_was_applied() {
    let (mut alone, id) = sent_and_not_answered();
    alone.node.decided(id, Fate::Applied);
    alone.lock(1);
    alone.look(1, 2, [2, 10]);
    let _add = alone.send(&[1]);
    assert!(matches!(alone.next(&[1]), Step::Done));
    assert_eq!((alone.shown(1), alone.committed().len()), ((2, 15), 1));
}

#[test]
fn what_was_sent_before_another_lapse_is_made_again_if_it_was_not_applied() {
    let (mut alone, id) = sent_and_not_answered();
    alone.node.decided(id, Fate::NotApplied);
    alone.lock(1);
    alone.look(1, 1, [1, 10]);
    let _sent = [alone.send(&[1]), alone.send(&[1])];
    assert!(matches!(alone.next(&[1]), Step::Done));
    assert_eq!((alone.shown(1), alone.committed().len()), ((2, 15), 2));
}

#[test]
fn what_was_sent_before_another_lapse_is_reported_if_nobody_knows() {
    let (alone, id) = sent_and_not_answered();
    alone.node.decided(id, Fate::Unknown);
    assert_eq!((alone.causes(), alone.node.journalled().0), (vec![ConflictCause::Unknown], 1));
}

#[test]
fn a_refusal_is_reported() {
    let mut alone = Alone::away();
    alone.commit(1, title(2));
    alone.come_back();
    alone.lock(1);
    alone.look(1, 1, [1, 10]);
    let sent = alone.send(&[1]);
    assert!(alone.node.settle(&[alone.page(1)]));
    let refused = ToNode::CommitRefused { seq: CommitSeq::from_bits(1), failure: Failure::Stopping };
    alone.node.handle(refused).unwrap();
    alone.node.replayed(sent.id, taken(&sent.outcome).unwrap());
    assert_eq!(alone.causes(), [ConflictCause::Refused(Failure::Stopping)]);
    assert_eq!((alone.page(1).state(), alone.node.journalled()), (State::Stale, (0, 0)));
}

#[test]
fn what_is_made_here_becomes_what_the_cluster_has() {
    let mut alone = Alone::away();
    let mut writes = Vec::new();
    Write::Scalar { field: TITLE, bits: 5 }.encode(&mut writes);
    let writes = Bytes::from(writes);
    let (made, created) = alone.node.create_alone(ROOT, &key(3), &writes, OnReturn::Replay).unwrap();
    assert!(created && made.is_provisional() && made.state() == State::Local);
    assert!(!alone.node.create_alone(ROOT, &key(3), &writes, OnReturn::Replay).unwrap().1);
    alone.commit(3, title(6));
    alone.come_back();
    // The cluster is never told of an object that it does not know.
    let unknown =
        |said: &ToCoordinator| matches!(said, ToCoordinator::Revalidate { object, .. } if *object == made.id());
    assert!(!alone.said.iter().any(unknown));
    // An add after the return and before the cluster knows it.
    let add = [Changed { entry: &made, changes: &[hit(4)] }];
    assert!(alone.node.commit(None, &add, Waiter::None).is_err());
    alone.node.commit_alone(None, OnReturn::Replay, &add).unwrap();
    assert_eq!(alone.shown(3), (6, 4));
    drop(alone.node.make_again(&made).unwrap());
    alone.answer_fetch(3, 0, [5, 0], true);
    assert_eq!((made.id(), alone.node.cache.get(object(3)).is_some()), (object(3), true));
    assert_eq!((alone.shown(3), made.state()), ((6, 4), State::Local));
    alone.lock(3);
    alone.look(3, 0, [5, 0]);
    let _sent = [alone.send(&[3]), alone.send(&[3])];
    assert!(alone.node.settle(&[Arc::clone(&made)]));
    assert_eq!((alone.shown(3), made.state()), ((6, 4), State::Current));
    assert!(alone.committed().iter().flatten().all(|part| part.object == object(3)));
}

#[test]
fn a_removal_stands_before_everything_else() {
    let mut alone = Alone::away();
    alone.commit(1, title(2));
    alone.commit(2, title(2));
    let old = alone.page(1);
    assert!(alone.node.remove_alone(ROOT, &key(1), OnReturn::Replay).unwrap());
    assert!(!alone.node.remove_alone(ROOT, &key(7), OnReturn::Replay).unwrap());
    assert_eq!((old.state(), alone.node.journalled().0), (State::Destroyed, 3));
    // Whoever asked before is not shown what was removed.
    let asked = alone.node.fetch(ROOT, key(1), None);
    alone.come_back();
    alone.answer_fetch(1, 1, [1, 10], false);
    assert!(matches!(taken(&asked), Some(Ok(None))));
    let comeback = alone.node.comeback();
    let removals: Vec<_> = comeback.removals.iter().map(|removal| (removal.key.clone(), removal.object)).collect();
    assert_eq!(removals, [(key(1), Some(object(1))), (key(7), None)]);
    assert!(alone.node.is_removal_pending(ROOT, &key(1)));
    alone.node.removed(comeback.removals[0].id, Ok(()));
    alone.node.removed(comeback.removals[1].id, Err(Failure::Stopping));
    assert!(!alone.node.is_removal_pending(ROOT, &key(1)));
    let conflicts = alone.node.take_conflicts();
    assert_eq!(conflicts[0].deed, LocalDeed::Removal(ROOT, key(7)));
}

#[test]
fn what_is_to_be_discarded_is_gone_with_the_return() {
    let mut alone = Alone::away();
    alone.try_commit(OnReturn::Discard, 1, title(2)).unwrap();
    alone.commit(2, title(2));
    let (made, _) = alone.node.create_alone(ROOT, &key(3), &Bytes::new(), OnReturn::Discard).unwrap();
    assert!(alone.node.remove_alone(ROOT, &key(9), OnReturn::Discard).is_ok());
    alone.come_back();
    assert_eq!(alone.causes(), vec![ConflictCause::Discarded; 3]);
    assert_eq!((alone.page(1).state(), alone.page(2).state()), (State::Stale, State::Local));
    assert_eq!((made.state(), alone.node.journalled().0), (State::Destroyed, 1));
}

#[test]
fn a_full_journal_takes_nothing_until_conflicts_are_taken() {
    let mut alone = Alone::away();
    alone.node.limit_journal(1000);
    let full = (2..).find_map(|number| alone.try_commit(OnReturn::Discard, 1, title(number)).err()).unwrap();
    assert!(matches!(full, AloneError::JournalFull { needed_bytes, limit: 1000 } if needed_bytes > 1000), "{full:?}");
    let shown = alone.shown(1);
    assert!(alone.try_commit(OnReturn::Replay, 1, note("k", "v")).is_err());
    assert_eq!(alone.shown(1), shown);
    alone.come_back();
    alone.node.disconnected();
    let _lapse = alone.node.lapse();
    assert!(alone.try_commit(OnReturn::Discard, 1, note("k", "value")).is_err(), "nobody has taken the conflicts");
    assert!(!alone.causes().is_empty());
    alone.commit(1, note("k", "value"));
}

#[test]
fn a_map_is_based_on_its_entries() {
    let mut alone = Alone::away();
    alone.commit(1, note("a", "ours"));
    alone.commit(1, Change::MapClear { slot: 2 });
    alone.commit(1, note("b", "ours"));
    alone.node.end(Ended::Detached);
    let conflicts = alone.node.take_conflicts();
    let bases = conflicts.iter().map(|conflict| match &conflict.deed {
        LocalDeed::Commit(writes) => writes[0].base.clone(),
        other => panic!("{other:?}"),
    });
    let entries = LocalValue::Entries(vec![(Bytes::from_static(b"a"), Bytes::from_static(b"ours"))]);
    assert_eq!(bases.collect::<Vec<_>>(), [LocalValue::Absent, entries, LocalValue::Absent]);
    assert_eq!(conflicts[0].cause, ConflictCause::Ended);
    assert_eq!(alone.hear(), []);
}

#[test]
fn stale_copies_are_not_asked_for_while_nobody_answers() {
    let mut alone = Alone::away();
    for _ in 0..100 {
        alone.node.refetch_stale();
    }
    alone.come_back();
    let asked = alone.said.iter().filter(|said| matches!(said, ToCoordinator::Refetch { .. })).count();
    assert_eq!(asked, 0);
}
