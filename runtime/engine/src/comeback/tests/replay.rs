use super::*;

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
    alone.node.commit(None, &[Changed::new(&entry, &[hit(100)])], Waiter::None).unwrap();
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
    let changed = [Changed::new(&pages[0], &changes[0]), Changed::new(&pages[1], &changes[1])];
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
    let values: Vec<_> = writes.iter().map(|write| (write.base.as_ref(), &write.ours, write.theirs.as_ref())).collect();
    let [one, eleven, twelve, theirs] = [1, 11, 12, 99].map(LocalValue::Scalar);
    assert_eq!(values, [(Some(&one), &eleven, Some(&one)), (Some(&one), &twelve, Some(&theirs))]);
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
    let hits = [hit(4)];
    let add = [Changed::new(&made, &hits)];
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

/// A title and a hit that are on their way when the lease lapses, and a title on top.
fn on_the_way(keep: Option<OnReturn>) -> (Alone, Outcome) {
    let mut alone = Alone::attached();
    alone.lock(1);
    let (entry, life, waiter) = (alone.page(1), Some(alone.node.link.life()), Ticket::new());
    let commit = |changes: &[Change], waiter| {
        alone.node.commit_to_keep(life, keep, &[Changed::new(&entry, changes)], waiter).unwrap();
    };
    commit(&[title(2)], Waiter::Applied(Arc::clone(&waiter)));
    commit(&[hit(5)], Waiter::None);
    alone.node.leave_groups(&entry, 0..1, Mode::Write);
    alone.node.disconnected();
    let _lapse = alone.node.lapse();
    alone.commit(1, title(3));
    alone.come_back();
    (alone, taken(&waiter).unwrap())
}

#[test]
fn what_was_on_its_way_is_made_again_if_it_was_not_applied() {
    let (mut alone, outcome) = on_the_way(Some(OnReturn::Replay));
    assert_eq!((outcome, alone.node.link.take_unknown().len()), (Err(CommitFailure::Kept), 0));
    let unsure = alone.node.comeback().unsure;
    assert_eq!(unsure.iter().map(|(_, who, seq)| (who.to_bits(), seq.to_bits())).collect::<Vec<_>>(), [(1, 1), (1, 2)]);
    for (id, ..) in unsure {
        alone.node.decided(id, Fate::NotApplied);
    }
    alone.lock(1);
    alone.look(1, 1, [1, 10]);
    let _sent = [alone.send(&[1]), alone.send(&[1]), alone.send(&[1])];
    assert!(matches!(alone.next(&[1]), Step::Done));
    assert!(alone.node.settle(&[alone.page(1)]));
    assert_eq!((alone.shown(1), alone.page(1).state(), alone.causes()), ((3, 15), State::Current, vec![]));
    let versions: Vec<_> = alone.committed().iter().map(|parts| parts[0].version).collect();
    assert_eq!(versions, [version(2), Version::default(), version(3)]);
}

#[test]
fn what_was_on_its_way_is_not_made_again_if_it_was_applied() {
    let (mut alone, _) = on_the_way(Some(OnReturn::Replay));
    for (id, ..) in alone.node.comeback().unsure {
        alone.node.decided(id, Fate::Applied);
    }
    alone.lock(1);
    alone.look(1, 2, [2, 15]);
    let _sent = alone.send(&[1]);
    assert!(matches!(alone.next(&[1]), Step::Done));
    assert_eq!((alone.shown(1), alone.causes()), ((3, 15), vec![]));
}

#[test]
fn what_was_on_its_way_is_a_conflict_if_somebody_was_faster() {
    let (mut alone, _) = on_the_way(Some(OnReturn::Replay));
    for (id, ..) in alone.node.comeback().unsure {
        alone.node.decided(id, Fate::NotApplied);
    }
    alone.lock(1);
    // Another field of the group, for all that is known: the title is what it was.
    alone.look(1, 2, [1, 10]);
    assert!(matches!(alone.next(&[1]), Step::Reported));
    let conflicts = alone.node.take_conflicts();
    let LocalDeed::Commit(writes) = &conflicts[0].deed else { panic!("{conflicts:?}") };
    assert_eq!((&writes[0].base, &writes[0].ours), (&None, &LocalValue::Scalar(2)));
    let _add = alone.send(&[1]);
    assert!(matches!(alone.next(&[1]), Step::Reported), "it was made from the title that is not there");
    assert!(matches!(alone.next(&[1]), Step::Done));
}

#[test]
fn what_was_on_its_way_to_be_discarded_is_if_it_was_not_applied() {
    let (alone, _) = on_the_way(Some(OnReturn::Discard));
    let unsure = alone.node.comeback().unsure;
    alone.node.decided(unsure[0].0, Fate::Applied);
    alone.node.decided(unsure[1].0, Fate::NotApplied);
    assert_eq!((alone.causes(), alone.node.journalled().0), (vec![ConflictCause::Discarded], 1));
}

#[test]
fn what_was_on_its_way_and_is_not_to_be_kept_is_unknown() {
    let (alone, outcome) = on_the_way(None);
    assert_eq!((outcome, alone.node.link.take_unknown().len()), (Err(CommitFailure::Unknown), 1));
    assert_eq!(alone.node.comeback().unsure, []);
}

#[test]
fn what_was_removed_meanwhile_is_a_conflict_and_nothing_is_fetched_for_it() {
    let mut alone = Alone::away();
    alone.commit(1, title(2));
    alone.commit(1, hit(1));
    alone.come_back();
    let entry = alone.page(1);
    alone.node.handle(ToNode::Destroyed { object: object(1) }).unwrap();
    let next = || alone.node.replay_next(alone.node.link.life(), &[Arc::clone(&entry)]);
    assert!(matches!((next(), next(), next()), (Step::Reported, Step::Reported, Step::Done)));
    assert!(alone.node.settle(&[Arc::clone(&entry)]));
    assert_eq!((alone.causes(), entry.state()), (vec![ConflictCause::Destroyed; 2], State::Destroyed));
    assert_eq!(alone.node.journalled(), (0, 0));
}

#[test]
fn what_was_sent_stays_local_while_the_cluster_is_away_again() {
    let mut alone = Alone::away();
    alone.commit(1, title(2));
    alone.come_back();
    alone.lock(1);
    alone.look(1, 1, [1, 10]);
    let _sent = alone.send(&[1]);
    alone.node.disconnected();
    let _lapse = alone.node.lapse();
    assert!(!alone.node.settle(&[alone.page(1)]));
    assert_eq!((alone.shown(1), alone.page(1).state()), ((2, 10), State::Local));
}
