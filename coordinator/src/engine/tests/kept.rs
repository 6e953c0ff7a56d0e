//! What is kept and read back: the log, and snapshots taken beside the running engine.

use super::super::{BadEntry, Cut, Engine, Entry, LogSeq, LogTime, Piece, Restore, Settings};
use super::cluster::{CART_GROUP, Cluster, EPOCH, MAIN, NAMED_LOCKS, SESSIONS, clicks, put, theme, visits};
use bytes::Bytes;
use kiln_protocol::message::Role;
use kiln_protocol::{CommitSeq, Epoch, GroupId, Incarnation, ObjectId, RootId};

/// The next life of the coordinator.
pub(super) fn next_settings() -> Settings {
    Settings::new(EPOCH.next(), "memory", "test")
}

/// All that is replicated, in an order of its own.
pub(super) fn everything(engine: &mut Engine) -> Vec<Piece> {
    let mut pieces = Vec::new();
    engine.begin_snapshot();
    while engine.snapshot(usize::MAX, &mut pieces) {}
    sort(&mut pieces);
    pieces
}

fn sort(pieces: &mut [Piece]) {
    pieces.sort_by_key(|piece| match piece {
        Piece::Start(_) => (0, 0),
        Piece::Type { id, .. } => (1, id.to_bits().into()),
        Piece::Root { root, .. } => (2, root.to_bits().into()),
        Piece::Life { incarnation, .. } => (3, incarnation.to_bits()),
        Piece::Queue { queue, .. } => (4, queue.to_bits().into()),
        Piece::Event { event, .. } => (5, event.id.to_bits()),
        Piece::Object { object, .. } => (6, object.to_bits()),
    });
}

fn cut(pieces: &[Piece]) -> Cut {
    match &pieces[0] {
        Piece::Start(cut) => *cut,
        other => panic!("{other:?}"),
    }
}

/// The state of the log up to an entry.
pub(super) fn replayed(log: &[(LogTime, Entry)], last: LogSeq) -> Restore {
    behind(Restore::new(), log, last)
}

/// Replays what is behind the state, up to an entry.
fn behind(mut state: Restore, log: &[(LogTime, Entry)], last: LogSeq) -> Restore {
    for (at, (time, entry)) in (1..).map(LogSeq::from_bits).zip(log) {
        if at > state.last() && at <= last {
            state.replay(at, *time, entry).unwrap();
        }
    }
    state
}

fn taken(pieces: &[Piece]) -> Restore {
    let mut state = Restore::new();
    for piece in pieces {
        state.take(piece.clone()).unwrap();
    }
    state
}

fn last(cluster: &Cluster) -> LogSeq {
    LogSeq::from_bits(cluster.log.len() as u64)
}

/// A snapshot that is taken while a cluster goes on.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    pieces: Vec<Piece>,
    under_way: bool,
    whole: Vec<Vec<Piece>>,
}

impl Snapshots {
    pub(super) fn begin(&mut self, engine: &mut Engine) {
        self.pieces.clear();
        engine.begin_snapshot();
        self.under_way = true;
    }

    /// One step, as small as there is.
    pub(super) fn step(&mut self, engine: &mut Engine) {
        if self.under_way && !engine.snapshot(1, &mut self.pieces) {
            self.under_way = false;
            self.whole.push(std::mem::take(&mut self.pieces));
        }
    }
}

/// The log alone, and each snapshot with the log behind it, give what the engine has; each snapshot is what the log up to
/// it gives.
pub(super) fn check(cluster: &mut Cluster, snapshots: &Snapshots) {
    let ours = everything(&mut cluster.engine);
    let (log, last) = (&cluster.log, last(cluster));
    let mut again = replayed(log, last).engine(next_settings()).unwrap();
    assert_eq!(everything(&mut again), ours, "a replay");
    for pieces in &snapshots.whole {
        let mut then = replayed(log, cut(pieces).seq).engine(next_settings()).unwrap();
        let mut sorted = pieces.clone();
        sort(&mut sorted);
        assert_eq!(sorted, everything(&mut then), "a snapshot is what was there at its cut");
        let mut restored = behind(taken(pieces), log, last).engine(next_settings()).unwrap();
        assert_eq!(everything(&mut restored), ours, "a snapshot and the log behind it");
    }
}

/// A cluster with a bit of everything.
fn busy() -> Cluster {
    let mut cluster = Cluster::of(&["ann", "bob"]);
    cluster.attach("eve", Role::Observer);
    for key in ["a", "b", "c", "d"] {
        let object = cluster.get_or_create("ann", key);
        cluster.commit("ann", object, MAIN, theme(key));
        cluster.commit("ann", object, CART_GROUP, put("k", key));
        cluster.commit("ann", object, GroupId::COMMUTATIVE, clicks(3));
    }
    cluster.get_or_create_in("bob", NAMED_LOCKS, "leader");
    cluster.commit_parts("ann", false, vec![]);
    cluster.detach("bob");
    cluster
}

#[test]
fn an_engine_that_is_read_back_has_what_the_other_had() {
    let mut cluster = busy();
    check(&mut cluster, &Snapshots::default());
}

#[test]
fn what_changes_before_it_is_read_is_read_as_it_was() {
    let mut cluster = busy();
    let (before, mut snapshots) = (everything(&mut cluster.engine), Snapshots::default());
    snapshots.begin(&mut cluster.engine);
    // The head, and the first object.
    snapshots.step(&mut cluster.engine);
    snapshots.step(&mut cluster.engine);
    cluster.remove("ann", "c", false);
    for object in cluster.peers["ann"].grants.keys().copied().collect::<Vec<_>>() {
        cluster.release("ann", object.0, object.1, false);
    }
    let created = cluster.get_or_create("ann", "e");
    cluster.commit("ann", created, MAIN, visits(9));
    cluster.rename("ann", "b", "c");
    let object = cluster.get_or_create("ann", "d");
    cluster.write_lock("ann", object);
    cluster.commit("ann", object, MAIN, theme("later"));
    cluster.commit("ann", object, MAIN, theme("later still"));
    cluster.attach("cy", Role::Node);
    assert!(cluster.engine.snapshot_saved_bytes() > 0);
    while snapshots.under_way {
        snapshots.step(&mut cluster.engine);
    }
    assert_eq!(cluster.engine.snapshot_saved_bytes(), 0);
    let mut pieces = snapshots.whole[0].clone();
    sort(&mut pieces);
    assert_eq!(pieces, before);
    check(&mut cluster, &snapshots);
}

#[test]
fn numbers_go_on_where_they_were() {
    let mut cluster = busy();
    let last = last(&cluster);
    let settings = Settings { skipped: 100, started: LogTime::from_bits(77), ..next_settings() };
    let state = replayed(&cluster.log, last);
    let next = cut(&everything(&mut cluster.engine));
    let mut again = Cluster::restored(state, settings);
    again.attach("ann", Role::Node);
    again.open_roots("ann");
    again.sent_to("ann");
    let started = Entry::Started { epoch: EPOCH.next(), history: EPOCH, skipped: 100 };
    assert_eq!(again.log[0], (LogTime::from_bits(77), started));
    assert_eq!(again.first_entry, last.next());
    assert_eq!(again.peer("ann").incarnation.to_bits(), next.last_incarnation.to_bits() + 101);
    let object = again.get_or_create("ann", "new");
    assert_eq!(object.sequence(), next.last_object + 101);
}

#[test]
fn what_does_not_fit_is_refused() {
    let cluster = busy();
    let mut state = replayed(&cluster.log, last(&cluster));
    let object = ObjectId::from_bits(9);
    let entry = Entry::Removed { by: None, object };
    let time = LogTime::default();
    let gap = state.replay(last(&cluster).next().next(), time, &entry).unwrap_err();
    assert!(matches!(gap, BadEntry::OutOfOrder { what: "entry", .. }), "{gap}");
    let missing = state.replay(last(&cluster).next(), time, &entry).unwrap_err();
    assert_eq!(missing.to_string(), "object 9 does not exist");
    let stale = Settings { epoch: EPOCH, ..next_settings() };
    let stale = replayed(&cluster.log, last(&cluster)).engine(stale).unwrap_err();
    assert_eq!(stale.to_string(), "epoch 7 does not follow 7");
    let (root, key, writes) = (SESSIONS, Bytes::from_static(b"a"), Bytes::new());
    let object = |sequence: u64| ObjectId::from_bits(sequence << 12);
    let create = |object| Entry::Created { by: None, object, root, key: key.clone(), writes: writes.clone() };
    for (entry, why) in [
        (create(object(1)), "object 1 does not follow 5"),
        (create(object(6)), "object 6.0 would take the key of another object"),
        (
            Entry::Gone { incarnation: Incarnation::from_bits(2), applied: CommitSeq::from_bits(0) },
            "living incarnation 2 does not exist",
        ),
        (
            Entry::Gone { incarnation: Incarnation::from_bits(1), applied: CommitSeq::from_bits(1) },
            "last commit 1 does not follow 13",
        ),
        (Entry::Started { epoch: EPOCH, history: EPOCH, skipped: 0 }, "epoch 7 does not follow 7"),
        (Entry::Started { epoch: EPOCH.next(), history: Epoch::from_bits(3), skipped: 0 }, "epoch 8 does not follow 7"),
    ] {
        let mut state = replayed(&cluster.log, last(&cluster));
        let refused = state.replay(last(&cluster).next(), time, &entry).unwrap_err();
        assert_eq!(refused.to_string(), why);
    }
}

#[test]
fn a_piece_that_does_not_fit_is_refused() {
    let pieces = everything(&mut busy().engine);
    let refused = |pieces: &[Piece]| {
        let mut state = Restore::new();
        pieces.iter().find_map(|piece| state.take(piece.clone()).err()).map(|bad| bad.to_string())
    };
    assert_eq!(refused(&pieces), None);
    assert_eq!(refused(&pieces[1..]).as_deref(), Some("a piece of a snapshot is out of place"));
    let twice = [pieces.clone(), pieces.clone()].concat();
    assert_eq!(refused(&twice).as_deref(), Some("the start of a snapshot is out of place"));
    for at in 1..pieces.len() {
        let mut twice = pieces.clone();
        twice.insert(at, pieces[at].clone());
        // Of an object this is seen when all are there.
        let is_refused = refused(&twice).is_some() || taken(&twice).engine(next_settings()).is_err();
        assert!(is_refused, "twice: {:?}", pieces[at]);
    }
    let mut same_key = pieces.clone();
    let first = same_key.iter().position(|piece| matches!(piece, Piece::Object { .. })).unwrap();
    if let [Piece::Object { root, key, .. }, Piece::Object { root: other_root, key: other, .. }] =
        &mut same_key[first..first + 2]
    {
        (*other_root, *other) = (*root, key.clone());
    }
    let twice = taken(&same_key).engine(next_settings()).unwrap_err();
    assert!(matches!(twice, BadEntry::KeyTaken { .. }), "{twice}");
    let without_types: Vec<_> = pieces.iter().filter(|piece| !matches!(piece, Piece::Type { .. })).cloned().collect();
    assert_eq!(refused(&without_types).as_deref(), Some("type 0 does not exist"));
    let mut elsewhere = pieces;
    if let Some(Piece::Object { root, .. }) = elsewhere.last_mut() {
        *root = RootId::from_bits(9);
    }
    assert_eq!(refused(&elsewhere).as_deref(), Some("root 9 does not exist"));
}

#[test]
fn a_state_that_is_older_than_what_nodes_have_seen_begins_anew() {
    let cluster = busy();
    let state = replayed(&cluster.log, last(&cluster));
    let mut again = Cluster::restored(state, Settings { history: Some(EPOCH.next()), ..next_settings() });
    again.attach("cy", Role::Node);
    let pieces = everything(&mut again.engine);
    let living = pieces.iter().filter(|piece| matches!(piece, Piece::Life { living: true, .. })).count();
    assert_eq!((living, cut(&pieces).history), (1, EPOCH.next()));
}
