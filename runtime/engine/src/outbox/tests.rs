use super::*;
use kiln_protocol::ids::Partition;
use smallvec::smallvec;

fn outbox(bytes_max: usize) -> Outbox {
    Outbox::new(Epoch::from_bits(1), bytes_max, false)
}

fn part(sequence: u64) -> OutPart {
    let stamp = |number| (Epoch::from_bits(1), number);
    let (epoch, number) = stamp(5);
    OutPart {
        object: ObjectId::new(sequence, Partition::of("r", b"k")),
        group: GroupId::DEFAULT,
        token: Token::new(epoch, number).unwrap(),
        version: Version::new(epoch, number).unwrap(),
        writes: smallvec![2],
    }
}

fn publish() -> Result<(), ()> {
    Ok(())
}

fn outcome(ticket: &Ticket<Outcome>) -> Option<Outcome> {
    ticket.close()
}

#[test]
fn an_acknowledgement_covers_all_before_it() {
    let outbox = outbox(1000);
    let tickets: Vec<_> = (0..3).map(|_| Ticket::new()).collect();
    for ticket in &tickets {
        outbox.commit(None, &[part(1)], Waiter::Applied(Arc::clone(ticket)), publish).unwrap();
    }
    outbox.acked(CommitSeq::from_bits(2));
    assert_eq!(outbox.unacknowledged().0, 1);
    assert_eq!(outcome(&tickets[0]), Some(Ok(())));
    assert_eq!(outcome(&tickets[1]), Some(Ok(())));
    assert_eq!(outcome(&tickets[2]), None);
    // An acknowledgement of what was never sent changes nothing beyond what was.
    outbox.acked(CommitSeq::from_bits(99));
    assert_eq!(outbox.unacknowledged(), (0, 0));
    outbox.acked(CommitSeq::from_bits(1));
}

#[test]
fn a_commit_that_cannot_be_published_is_not_sent() {
    let outbox = outbox(1000);
    assert_eq!(outbox.commit(None, &[part(1)], Waiter::None, || Err("full")), Err(QueueError::Publish("full")));
    let mut bytes = Vec::new();
    outbox.take_output(&mut bytes);
    assert!(bytes.is_empty());
    assert_eq!(outbox.commit(None, &[part(1)], Waiter::None, publish).unwrap().to_bits(), 1);
}

#[test]
fn a_full_outbox_refuses_until_something_is_acknowledged() {
    let outbox = outbox(8);
    let first = outbox.commit(None, &[part(1)], Waiter::None, publish).unwrap();
    assert_eq!(outbox.commit(None, &[part(1)], Waiter::None, publish), Err(QueueError::Full));
    let space = outbox.wait_for_space();
    outbox.acked(first);
    assert_eq!(space.close(), Some(()));
    outbox.commit(None, &[part(1)], Waiter::None, publish).unwrap();
}

#[test]
fn a_refusal_names_the_commit_and_tells_its_waiter() {
    let outbox = outbox(1000);
    let ticket = Ticket::new();
    outbox.commit(None, &[part(1)], Waiter::None, publish).unwrap();
    let seq = outbox.commit(None, &[part(2)], Waiter::Applied(Arc::clone(&ticket)), publish).unwrap();
    let (commit, told) = outbox.refused(seq, &Failure::Stopping);
    assert_eq!(commit.unwrap().parts[0].object.sequence(), 2);
    assert!(told);
    assert_eq!(outcome(&ticket), Some(Err(CommitFailure::Refused(Failure::Stopping))));
    outbox.acked(seq);
}

#[test]
fn a_record_finds_the_commits_it_lacks() {
    let outbox = outbox(1000);
    for sequence in 1..=3 {
        outbox.commit(None, &[part(sequence)], Waiter::None, publish).unwrap();
    }
    let missing = outbox.with_unacknowledged(CommitSeq::from_bits(1), |missing| {
        missing.iter().map(|(seq, commit)| (seq.to_bits(), commit.parts[0].object.sequence())).collect::<Vec<_>>()
    });
    assert_eq!(missing, [(2, 2), (3, 3)]);
}

#[test]
fn closing_leaves_the_fate_unknown() {
    let outbox = outbox(1000);
    let ticket = Ticket::new();
    outbox.commit(None, &[part(1)], Waiter::Everywhere(Arc::clone(&ticket)), publish).unwrap();
    outbox.close();
    assert_eq!(outcome(&ticket), Some(Err(CommitFailure::Unknown)));
    assert_eq!(outbox.commit(None, &[part(1)], Waiter::None, publish), Err(QueueError::Closed));
}

fn sent(outbox: &Outbox, epoch: Epoch) -> Vec<Commit> {
    let mut bytes = Vec::new();
    outbox.take_output(&mut bytes);
    let mut decoder = FrameDecoder::default();
    decoder.push(&bytes);
    let mut commits = Vec::new();
    while let Some(frame) = next_own_frame(&mut decoder) {
        let ToCoordinator::Commit(commit) = decode_to_coordinator(epoch, &frame).unwrap() else {
            panic!("more than commits");
        };
        commits.push(commit);
    }
    commits
}

#[test]
fn of_a_coordinator_with_a_log_commits_are_kept_until_they_are_durable() {
    let (one, two) = (Epoch::from_bits(1), Epoch::from_bits(2));
    let outbox = Outbox::new(one, 1000, true);
    let (applied, durable) = (Ticket::new(), Ticket::new());
    outbox.commit(None, &[part(1)], Waiter::Applied(Arc::clone(&applied)), publish).unwrap();
    outbox.commit(None, &[part(2)], Waiter::Durable(Arc::clone(&durable)), publish).unwrap();
    outbox.commit(None, &[part(3)], Waiter::None, publish).unwrap();
    let first = sent(&outbox, one);
    assert_eq!(first.iter().map(|commit| commit.durable).collect::<Vec<_>>(), [false, true, false]);
    outbox.acked(CommitSeq::from_bits(3));
    assert_eq!((outcome(&applied), outcome(&durable)), (Some(Ok(())), None));
    assert_eq!(outbox.unacknowledged().0, 3, "none is safe");
    outbox.durable(CommitSeq::from_bits(1));
    assert_eq!(outbox.unacknowledged().0, 2);
    // It was started again, with what it had kept.
    outbox.down();
    assert_eq!(outbox.resume(two, CommitSeq::from_bits(1)), Some(vec![]));
    let again = sent(&outbox, two);
    assert_eq!(again, first[1..], "of their own epoch, on a connection of another");
    outbox.acked(CommitSeq::from_bits(2));
    outbox.durable(CommitSeq::from_bits(2));
    assert_eq!(outbox.unacknowledged().0, 1);
    // What was durable cannot be gone.
    outbox.down();
    assert_eq!(outbox.resume(two, CommitSeq::from_bits(1)), None);
}

#[test]
fn a_durable_commit_is_done_when_it_is_durable() {
    let outbox = Outbox::new(Epoch::from_bits(1), 1000, true);
    let ticket = Ticket::new();
    outbox.commit(None, &[part(1)], Waiter::Durable(Arc::clone(&ticket)), publish).unwrap();
    // Not before it was answered: it might be refused.
    outbox.durable(CommitSeq::from_bits(1));
    assert_eq!(outbox.unacknowledged().0, 1);
    outbox.acked(CommitSeq::from_bits(1));
    outbox.durable(CommitSeq::from_bits(1));
    assert_eq!(outcome(&ticket), Some(Ok(())));
}

#[test]
fn what_was_refused_is_sent_again_as_nothing() {
    let epoch = Epoch::from_bits(1);
    let outbox = Outbox::new(epoch, 1000, true);
    for sequence in 1..=2 {
        outbox.commit(None, &[part(sequence)], Waiter::None, publish).unwrap();
    }
    let first = sent(&outbox, epoch);
    let (refused, _) = outbox.refused(CommitSeq::from_bits(1), &Failure::LogFull);
    assert_eq!(refused.as_ref(), Some(&first[0]));
    outbox.acked(CommitSeq::from_bits(2));
    let missing = outbox.with_unacknowledged(CommitSeq::default(), <[_]>::len);
    assert_eq!(missing, 1, "no record lacks what was refused");
    outbox.down();
    assert_eq!(outbox.resume(epoch, CommitSeq::default()), Some(vec![]));
    let again = sent(&outbox, epoch);
    assert_eq!((again[0].parts.len(), &again[1]), (0, &first[1]));
    assert_eq!(outbox.refused(CommitSeq::from_bits(1), &Failure::LogFull), (None, true), "nobody hears of it twice");
}
