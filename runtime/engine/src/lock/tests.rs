use super::*;
use kiln_protocol::codec::decode_to_coordinator;
use kiln_protocol::ids::Partition;
use kiln_protocol::message::{OwnerLock, OwnerWait};
use kiln_protocol::{CheckId, Epoch, FrameDecoder, OwnerId};

mod owners;

const EPOCH: Epoch = Epoch::from_bits(1);

#[test]
fn table() {
    let mut out = format!("{:>17} |", "");
    for event in LockEvent::ALL {
        out += &format!(" {:>17}", format!("{event:?}"));
    }
    for state in LockState::ALL {
        out += &format!("\n{:>17} |", format!("{state:?}"));
        for event in LockEvent::ALL {
            out += &format!(" {:>17}", state.next(*event).map_or_else(|| "-".into(), |next| format!("{next:?}")));
        }
    }
    expect_test::expect![[r#"
                          |              Need       GrantedRead      GrantedWrite   RecalledForRead  RecalledForWrite           Drained         Withdrawn              Lost
                     Free |         Requested              Read             Write                 -                 -                 -                 -              Free
                Requested |                 -         Upgrading             Write                 -                 -                 -              Free              Free
                     Read |         Upgrading                 -             Write                 -      ReadRecalled                 -                 -              Free
                Upgrading |                 -                 -             Write                 - UpgradingRecalled                 -              Read              Free
                    Write |                 -                 -                 -         WriteLent     WriteRecalled                 -                 -              Free
             ReadRecalled |                 -              Read             Write                 -                 -              Free                 -              Free
        UpgradingRecalled |                 -         Upgrading             Write                 -                 -         Requested      ReadRecalled              Free
                WriteLent |                 -                 -                 -                 -     WriteRecalled              Read                 -              Free
            WriteRecalled |                 -                 -                 -                 -                 -              Free                 -              Free"#]].assert_eq(&out);
}

struct Lock {
    lock: GroupLock,
    outbox: Outbox,
    requests: RequestIds,
}

impl Lock {
    fn new() -> Self {
        Self { lock: GroupLock::default(), outbox: Outbox::new(EPOCH, 1 << 20, false), requests: RequestIds::default() }
    }

    fn context(&self) -> LockContext<'_> {
        let object = ObjectId::new(1, Partition::of("r", b"k"));
        LockContext { object, group: GroupId::DEFAULT, outbox: &self.outbox, requests: &self.requests }
    }

    fn enter(&self, mode: Mode) -> Option<Arc<Ticket<Admission>>> {
        self.lock.enter(self.context(), mode, false)
    }

    /// On behalf of a transaction that holds one other lock.
    fn enter_for(&self, owner: u64, mode: Mode) -> Option<Arc<Ticket<Admission>>> {
        let held = OwnerLock { object: ObjectId::from_bits(9), group: GroupId::DEFAULT, mode: Mode::Write };
        let (owner, begun) = (OwnerId::from_bits(owner), self.requests.newest_grant());
        self.lock.enter_for(self.context(), mode, false, || Some(Claim { owner, begun, holds: vec![held] }))
    }

    fn check(&self, wait: u64, check: u64) -> Vec<String> {
        self.lock.check_wait(self.context(), RequestId::from_bits(wait), CheckId::from_bits(check));
        self.sent()
    }

    fn leave(&self, mode: Mode) {
        self.lock.leave(self.context(), mode);
    }

    fn grant(&self, request: u64, mode: Mode, number: u64) -> bool {
        self.lock.granted(self.context(), RequestId::from_bits(request), mode, token(number), true)
    }

    fn recall(&self, number: u64, wanted: Mode) {
        self.lock.recalled(self.context(), token(number), wanted);
    }

    /// What was sent since the last call, in short.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is shown as it is")]
    fn sent(&self) -> Vec<String> {
        let mut bytes = Vec::new();
        self.outbox.take_output(&mut bytes);
        let mut decoder = FrameDecoder::default();
        decoder.push(&bytes);
        let mut sent = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            sent.push(match decode_to_coordinator(EPOCH, &frame).unwrap() {
                ToCoordinator::Acquire { request, mode, .. } => format!("acquire {request} {mode}"),
                ToCoordinator::Withdraw { request, .. } => format!("withdraw {request}"),
                ToCoordinator::Release { token, keep_read: false, .. } => format!("release {}", token.number()),
                ToCoordinator::Release { token, keep_read: true, .. } => format!("downgrade {}", token.number()),
                ToCoordinator::OwnerWaits(wait) => say_wait(&wait),
                ToCoordinator::OwnerGoesOn { owner, wait } => format!("owner {owner} goes on {wait}"),
                other => format!("{other:?}"),
            });
        }
        sent
    }
}

fn say_wait(wait: &OwnerWait) -> String {
    let OwnerWait { owner, wait, wanted, place, holds, check, .. } = wait;
    let check = if *check == CheckId::default() { String::new() } else { format!(" checked {check}") };
    let soon = if place.soon { "" } else { " later" };
    let (grant, turn, holds) = (place.grant.number(), place.turn, holds.len());
    format!("owner {owner} waits {wait} {} #{grant} {turn:?}{soon} with {holds}{check}", wanted.mode)
}

fn token(number: u64) -> Token {
    Token::new(EPOCH, number).unwrap()
}

fn admitted(ticket: &Ticket<Admission>) -> bool {
    match ticket.close() {
        Some(admission) => {
            admission.unwrap();
            true
        }
        None => false,
    }
}

#[test]
fn a_cached_grant_is_taken_again_without_a_message() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    assert_eq!(lock.sent(), ["acquire 1 write"]);
    assert!(lock.grant(1, Mode::Write, 5));
    assert!(admitted(&ticket));
    lock.leave(Mode::Write);
    for _ in 0..3 {
        assert!(lock.lock.try_enter(Mode::Write));
        lock.leave(Mode::Write);
    }
    assert_eq!(lock.lock.token(), token(5));
    assert!(lock.sent().is_empty());
}

#[test]
fn a_recall_waits_for_the_holder_and_lets_nobody_in() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&ticket));
    lock.recall(5, Mode::Write);
    assert_eq!(lock.sent(), ["acquire 1 write"]);
    assert!(!lock.lock.try_enter(Mode::Read));
    lock.leave(Mode::Write);
    assert_eq!(lock.sent(), ["release 5"]);
    assert!(!lock.lock.try_enter(Mode::Read));
}

#[test]
fn tasks_that_waited_before_a_recall_are_served_and_later_ones_ask_again() {
    let lock = Lock::new();
    let first = lock.enter(Mode::Write).unwrap();
    let second = lock.enter(Mode::Write).unwrap();
    let third = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&first));
    lock.recall(5, Mode::Write);
    let late = lock.enter(Mode::Write).unwrap();
    lock.lock.give_up(lock.context(), Mode::Write, &third);
    lock.leave(Mode::Write);
    assert!(admitted(&second));
    assert_eq!(lock.sent(), ["acquire 1 write"]);
    lock.leave(Mode::Write);
    assert_eq!(lock.sent(), ["release 5", "acquire 2 write"]);
    assert!(!late.is_closed());
    lock.grant(2, Mode::Write, 7);
    assert!(admitted(&late));
}

#[test]
fn a_write_grant_recalled_for_a_reader_becomes_a_read_grant() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&ticket));
    lock.recall(5, Mode::Read);
    lock.leave(Mode::Write);
    assert_eq!(lock.sent(), ["acquire 1 write", "downgrade 5"]);
    assert!(lock.lock.try_enter(Mode::Read));
    lock.leave(Mode::Read);
    assert!(!lock.lock.try_enter(Mode::Write));
    lock.recall(5, Mode::Write);
    assert_eq!(lock.sent(), ["release 5"]);
}

#[test]
fn a_reader_that_came_after_the_recall_is_let_in_by_the_downgrade() {
    let lock = Lock::new();
    let writer = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&writer));
    lock.recall(5, Mode::Read);
    let reader = lock.enter(Mode::Read).unwrap();
    lock.leave(Mode::Write);
    assert_eq!(lock.sent(), ["acquire 1 write", "downgrade 5"]);
    assert!(admitted(&reader));
}

#[test]
fn local_readers_do_not_delay_a_downgrade() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&ticket));
    lock.leave(Mode::Write);
    assert!(lock.lock.try_enter(Mode::Read));
    lock.recall(5, Mode::Read);
    assert_eq!(lock.sent(), ["acquire 1 write", "downgrade 5"]);
}

#[test]
fn waiters_are_served_in_order() {
    let lock = Lock::new();
    let writer = lock.enter(Mode::Write).unwrap();
    let reader = lock.enter(Mode::Read).unwrap();
    let other_reader = lock.enter(Mode::Read).unwrap();
    let last = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&writer));
    lock.leave(Mode::Write);
    assert!(admitted(&reader) && admitted(&other_reader));
    lock.leave(Mode::Read);
    assert!(last.close().is_none(), "a writer does not overtake a reader");
}

#[test]
fn a_task_that_gives_up_before_the_grant_takes_the_request_back() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    lock.lock.give_up(lock.context(), Mode::Write, &ticket);
    assert_eq!(lock.sent(), ["acquire 1 write", "withdraw 1"]);
    // The grant was on its way: it is kept, and recalled like any other.
    assert!(lock.grant(1, Mode::Write, 5));
    assert!(lock.lock.try_enter(Mode::Write));
    lock.leave(Mode::Write);
    lock.recall(5, Mode::Write);
    assert_eq!(lock.sent(), ["release 5"]);
}

#[test]
fn a_later_read_grant_takes_the_place_of_one_that_is_recalled() {
    let lock = Lock::new();
    let given_up = lock.enter(Mode::Read).unwrap();
    lock.lock.give_up(lock.context(), Mode::Read, &given_up);
    let reader = lock.enter(Mode::Read).unwrap();
    assert_eq!(lock.sent(), ["acquire 1 read", "withdraw 1", "acquire 2 read"]);
    assert!(lock.grant(1, Mode::Read, 5));
    assert!(admitted(&reader));
    lock.recall(5, Mode::Write);
    // Delivered again, it is recalled still.
    assert!(!lock.grant(1, Mode::Read, 5));
    assert!(lock.grant(2, Mode::Read, 6));
    lock.leave(Mode::Read);
    assert_eq!(lock.sent(), ["withdraw 2"]);
    lock.recall(6, Mode::Write);
    assert_eq!(lock.sent(), ["release 6"]);
}

#[test]
fn readers_behind_a_writer_that_gives_up_ask_to_read() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    let reader = lock.enter(Mode::Read).unwrap();
    lock.lock.give_up(lock.context(), Mode::Write, &ticket);
    assert_eq!(lock.sent(), ["acquire 1 write", "withdraw 1", "acquire 2 read"]);
    // The grant was on its way: it serves the reader, too.
    assert!(lock.grant(1, Mode::Write, 5));
    assert!(admitted(&reader));
    assert!(!lock.grant(2, Mode::Read, 4));
}

#[test]
fn a_task_that_gives_up_after_the_grant_leaves_the_lock() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    lock.lock.give_up(lock.context(), Mode::Write, &ticket);
    assert!(lock.lock.try_enter(Mode::Write));
}

/// S22.
#[test]
fn a_grant_delivered_again_after_its_release_is_ignored() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&ticket));
    lock.leave(Mode::Write);
    lock.recall(5, Mode::Write);
    assert!(!lock.grant(1, Mode::Write, 5));
    assert!(!lock.lock.try_enter(Mode::Read));
    // Also when a new request is out: it is asked again rather than lost.
    let waiting = lock.enter(Mode::Write).unwrap();
    lock.sent();
    assert!(!lock.grant(2, Mode::Write, 5));
    assert_eq!(lock.sent(), ["acquire 3 write"]);
    assert!(lock.grant(3, Mode::Write, 6));
    assert!(admitted(&waiting));
}

#[test]
fn an_uncached_grant_goes_back_after_those_who_wait() {
    let lock = Lock::new();
    let first = lock.enter(Mode::Write).unwrap();
    let second = lock.enter(Mode::Write).unwrap();
    lock.lock.granted(lock.context(), RequestId::from_bits(1), Mode::Write, token(5), false);
    assert!(admitted(&first));
    lock.leave(Mode::Write);
    assert!(admitted(&second));
    lock.sent();
    lock.leave(Mode::Write);
    assert_eq!(lock.sent(), ["release 5"]);
}

#[test]
fn an_upgrade_gives_the_read_grant_back_when_another_writer_is_ahead() {
    let lock = Lock::new();
    let reader = lock.enter(Mode::Read).unwrap();
    lock.grant(1, Mode::Read, 5);
    assert!(admitted(&reader));
    let writer = lock.enter(Mode::Write).unwrap();
    lock.recall(5, Mode::Write);
    assert_eq!(lock.sent(), ["acquire 1 read", "acquire 2 write"]);
    lock.leave(Mode::Read);
    assert_eq!(lock.sent(), ["release 5"]);
    lock.grant(2, Mode::Write, 9);
    assert!(admitted(&writer));
}

#[test]
fn an_upgrade_may_be_granted_while_its_read_grant_is_recalled() {
    let lock = Lock::new();
    let reader = lock.enter(Mode::Read).unwrap();
    lock.grant(1, Mode::Read, 5);
    assert!(admitted(&reader));
    let writer = lock.enter(Mode::Write).unwrap();
    lock.recall(5, Mode::Write);
    // The other writer has gone away.
    assert!(lock.grant(2, Mode::Write, 6));
    assert_eq!(lock.sent(), ["acquire 1 read", "acquire 2 write"]);
    lock.leave(Mode::Read);
    assert!(admitted(&writer));
    assert_eq!(lock.lock.token(), token(6));
    lock.leave(Mode::Write);
    assert!(lock.sent().is_empty());
}

#[test]
fn a_grant_whose_request_was_taken_back_is_kept_and_can_be_recalled() {
    let lock = Lock::new();
    let gone = lock.enter(Mode::Read).unwrap();
    lock.lock.give_up(lock.context(), Mode::Read, &gone);
    let writer = lock.enter(Mode::Write).unwrap();
    assert_eq!(lock.sent(), ["acquire 1 read", "withdraw 1", "acquire 2 write"]);
    assert!(lock.grant(1, Mode::Read, 5));
    lock.recall(5, Mode::Write);
    assert_eq!(lock.sent(), ["release 5"]);
    assert!(lock.grant(2, Mode::Write, 7));
    assert!(admitted(&writer));
}

#[test]
fn a_lost_lock_fails_everybody_now_and_later() {
    let lock = Lock::new();
    let waiting = lock.enter(Mode::Write).unwrap();
    lock.lock.lost(&LockFailure::Disconnected);
    assert_eq!(waiting.close(), Some(Err(LockFailure::Disconnected)));
    assert_eq!(lock.enter(Mode::Read).unwrap().close(), Some(Err(LockFailure::Disconnected)));
}

#[test]
fn a_refusal_fails_those_who_wait() {
    let lock = Lock::new();
    let waiting = lock.enter(Mode::Write).unwrap();
    let failure = Failure::Stopping;
    lock.lock.refused(lock.context(), RequestId::from_bits(1), &failure);
    assert_eq!(waiting.close(), Some(Err(LockFailure::Refused(failure))));
    assert!(lock.enter(Mode::Write).is_some());
    assert_eq!(lock.sent(), ["acquire 1 write", "acquire 2 write"]);
}

#[test]
fn what_is_not_here_is_given_back_when_it_is_wanted() {
    let lock = Lock::new();
    lock.recall(5, Mode::Write);
    assert_eq!(lock.sent(), ["release 5"]);
    // A task waited for the object when only this node knew it; its request was never sent.
    let waiter = lock.enter(Mode::Write).unwrap();
    lock.sent();
    lock.lock.adopted(lock.context());
    assert_eq!(lock.sent(), ["acquire 2 write"]);
    lock.lock.granted_at_creation(lock.context(), token(7));
    assert!(admitted(&waiter));
    lock.leave(Mode::Write);
    lock.grant(2, Mode::Write, 7);
    lock.recall(7, Mode::Write);
    let _next = lock.enter(Mode::Write).unwrap();
    let sent = lock.sent();
    assert_eq!(sent.last().unwrap(), "acquire 3 write", "{sent:?}");
}

#[test]
fn a_node_that_is_back_knows_of_no_recall() {
    let lock = Lock::new();
    let ticket = lock.enter(Mode::Write).unwrap();
    lock.grant(1, Mode::Write, 5);
    assert!(admitted(&ticket));
    lock.recall(5, Mode::Write);
    lock.lock.resync(lock.context());
    let sent = lock.sent();
    assert!(sent.len() == 2 && sent[1].starts_with("Reassert"), "{sent:?}");
    // Wanted by a reader only, now.
    lock.recall(5, Mode::Read);
    lock.leave(Mode::Write);
    assert_eq!(lock.sent(), ["downgrade 5"]);
}
