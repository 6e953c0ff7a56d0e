//! Transactions that wait, and what the coordinator hears of them.

use super::*;

#[test]
fn a_transaction_is_spoken_of_while_it_waits() {
    let lock = Lock::new();
    let first = lock.enter_for(1, Mode::Write).unwrap();
    // Behind the request: the coordinator knows the place of both.
    assert_eq!(lock.sent(), ["acquire 1 write", "owner 1 waits 2 write #0 Over with 1"]);
    let second = lock.enter_for(2, Mode::Write).unwrap();
    assert_eq!(lock.sent(), ["owner 2 waits 3 write #0 Over with 1"]);
    lock.grant(1, Mode::Write, 5);
    assert_eq!(lock.sent(), ["owner 1 goes on 2"]);
    assert!(admitted(&first));
    assert_eq!(lock.check(3, 7), ["owner 2 waits 3 write #5 Present with 1 checked 7"]);
    // Given up, also from the middle of the queue.
    let third = lock.enter_for(3, Mode::Read).unwrap();
    lock.sent();
    assert_eq!(third.close(), None);
    assert_eq!(lock.check(4, 8), Vec::<String>::new());
    lock.lock.give_up(lock.context(), Mode::Read, &third);
    assert_eq!(lock.sent(), ["owner 3 goes on 4"]);
    lock.leave(Mode::Write);
    assert_eq!(lock.sent(), ["owner 2 goes on 3"]);
    assert!(admitted(&second));
    lock.leave(Mode::Write);
    // Whoever gets the lock at once is not spoken of.
    assert!(lock.enter_for(4, Mode::Write).is_none());
    assert_eq!(lock.sent(), Vec::<String>::new());
    assert_eq!(lock.requests.newest_grant(), token(5));
}

#[test]
fn a_wait_says_whether_the_present_grant_serves_it() {
    let lock = Lock::new();
    assert!(lock.grant(1, Mode::Read, 5));
    assert!(lock.lock.try_enter(Mode::Read));
    lock.recall(5, Mode::Write);
    // Behind the recall nobody is served under it.
    let reader = lock.enter_for(1, Mode::Read).unwrap();
    assert_eq!(lock.sent(), ["owner 1 waits 1 read #5 Over with 1"]);
    lock.leave(Mode::Read);
    assert_eq!(lock.sent(), ["release 5", "acquire 2 read"]);
    lock.grant(2, Mode::Write, 6);
    assert!(admitted(&reader));
    lock.sent();
    // Those who came before a recall are served before the grant goes back, and no others.
    let writer = lock.enter_for(2, Mode::Write).unwrap();
    lock.recall(6, Mode::Write);
    let late = lock.enter_for(3, Mode::Read).unwrap();
    let waits =
        ["owner 2 waits 3 write #6 Present with 1".to_owned(), "owner 3 waits 4 read #6 Open with 1".to_owned()];
    assert_eq!(lock.sent(), waits);
    lock.leave(Mode::Read);
    assert!(admitted(&writer));
    // And who is not is told of again: all who hold the lock here must leave first.
    assert_eq!(lock.sent(), ["owner 2 goes on 3", "owner 3 waits 4 read #6 Over with 1"]);
    assert_eq!(lock.check(4, 9), ["owner 3 waits 4 read #6 Over with 1 checked 9"]);
    assert!(!admitted(&late));
}

#[test]
fn a_read_grant_serves_nobody_behind_a_writer_for_sure() {
    let lock = Lock::new();
    assert!(lock.grant(1, Mode::Read, 5));
    let _writer = lock.enter(Mode::Write).unwrap();
    let _reader = lock.enter_for(1, Mode::Read).unwrap();
    assert_eq!(lock.sent(), ["acquire 1 write", "owner 1 waits 2 read #5 Open with 1"]);
    // A lent write grant becomes a read grant, which serves readers, and no writer.
    let lock = Lock::new();
    assert!(lock.grant(1, Mode::Write, 6));
    assert!(lock.lock.try_enter(Mode::Write));
    lock.recall(6, Mode::Read);
    let _reader = lock.enter_for(1, Mode::Read).unwrap();
    let _writer = lock.enter_for(2, Mode::Write).unwrap();
    let waits = ["owner 1 waits 1 read #6 Open with 1".to_owned(), "owner 2 waits 2 write #6 Over with 1".to_owned()];
    assert_eq!(lock.sent(), waits);
}

#[test]
fn the_one_of_a_cycle_is_told_and_the_others_are_served() {
    let lock = Lock::new();
    let first = lock.enter_for(1, Mode::Write).unwrap();
    let second = lock.enter(Mode::Write).unwrap();
    lock.sent();
    lock.lock.deadlocked(lock.context(), RequestId::from_bits(2), Vec::new());
    assert_eq!(first.close(), Some(Err(LockFailure::Deadlock(Vec::new()))));
    assert_eq!(lock.sent(), ["owner 1 goes on 2"]);
    // Once; and not one that has gone on.
    lock.lock.deadlocked(lock.context(), RequestId::from_bits(2), Vec::new());
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&second));
    lock.leave(Mode::Write);
    let last = lock.enter_for(3, Mode::Write);
    assert!(last.is_none());
    lock.lock.deadlocked(lock.context(), RequestId::from_bits(3), Vec::new());
    assert_eq!(lock.sent(), Vec::<String>::new());
    // The last one takes the request along.
    let lock = Lock::new();
    let only = lock.enter_for(1, Mode::Write).unwrap();
    lock.sent();
    lock.lock.deadlocked(lock.context(), RequestId::from_bits(2), Vec::new());
    assert_eq!(lock.sent(), ["owner 1 goes on 2", "withdraw 1"]);
    assert!(matches!(only.close(), Some(Err(LockFailure::Deadlock(_)))));
}

#[test]
fn a_transaction_whose_request_is_refused_is_not_spoken_of_any_more() {
    let lock = Lock::new();
    let waits = lock.enter_for(1, Mode::Write).unwrap();
    lock.sent();
    lock.lock.refused(lock.context(), RequestId::from_bits(1), &Failure::Stopping);
    assert_eq!(lock.sent(), ["owner 1 goes on 2"]);
    assert!(matches!(waits.close(), Some(Err(LockFailure::Refused(Failure::Stopping)))));
}
