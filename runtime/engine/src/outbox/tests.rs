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
