use super::*;

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
    let late = alone.node.commit_alone(life, OnReturn::Replay, &[Changed::new(&entry, &changes)]);
    assert_eq!(late, Err(AloneError::NotAway));
    assert_eq!((alone.shown(1), entry.state()), ((2, 10), State::Local));
    // Nor when the cluster is away once more: others may have had the lock between the two.
    alone.node.disconnected();
    let _lapse = alone.node.lapse();
    let late = alone.node.commit_alone(life, OnReturn::Replay, &[Changed::new(&entry, &changes)]);
    assert_eq!(late, Err(AloneError::NotAway));
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
fn removals_of_what_is_not_here_fill_a_part_of_the_journal() {
    let mut alone = Alone::away();
    alone.node.limit_journal(4000);
    assert!(!alone.node.remove_alone(ROOT, &key(5), OnReturn::Replay).unwrap());
    let taken = alone.node.journalled();
    assert!(!alone.node.remove_alone(ROOT, &key(5), OnReturn::Replay).unwrap());
    assert_eq!(alone.node.journalled(), taken, "the same once more");
    let full = (6..).find_map(|number| alone.node.remove_alone(ROOT, &key(number), OnReturn::Replay).err()).unwrap();
    assert!(matches!(full, AloneError::JournalFull { needed_bytes, limit: 1000 } if needed_bytes > 1000), "{full:?}");
    // Who changes and removes what is here goes on.
    alone.commit(2, title(2));
    alone.node.create_alone(ROOT, &key(3), &Bytes::new(), OnReturn::Replay).unwrap();
    for here in [1, 3] {
        assert!(alone.node.remove_alone(ROOT, &key(here), OnReturn::Replay).unwrap());
    }
    alone.come_back();
    for removal in alone.node.comeback().removals {
        alone.node.removed(removal.id, Ok(()));
    }
    alone.node.disconnected();
    let _lapse = alone.node.lapse();
    assert!(!alone.node.remove_alone(ROOT, &key(5), OnReturn::Replay).unwrap(), "there is room again");
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
        LocalDeed::Commit(writes) => writes[0].base.clone().unwrap(),
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
