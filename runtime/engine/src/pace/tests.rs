//! A lease on a clock that is only told.

use super::*;
use crate::node::Settings;
use kiln_protocol::CommitSeq;
use kiln_protocol::codec::decode_to_coordinator;
use kiln_protocol::{FrameDecoder, ToCoordinator, ToNode};

const LEASE: Duration = Duration::from_secs(5);
const EPOCH: Epoch = Epoch::from_bits(2);
const SECOND: u64 = 1_000_000_000;

fn node() -> Node {
    let heap = kiln_heap::Heap::new(kiln_heap::Options { bytes_max: 64 << 10 }).unwrap();
    let node = Node::new(Settings { epoch: EPOCH, durable: false, outbox_bytes_max: 1 << 16 }, heap);
    node.link.welcomed(Incarnation::from_bits(1), Secret::from_bytes([1; 16]), 0, nanos(trusted(LEASE)));
    node
}

fn heartbeats(node: &Node) -> Vec<u64> {
    let mut bytes = Vec::new();
    node.outbox.take_output(&mut bytes);
    let mut decoder = FrameDecoder::default();
    decoder.push(&bytes);
    let frames = std::iter::from_fn(|| decoder.next_frame().unwrap());
    let mut numbers = Vec::new();
    for frame in frames {
        if let ToCoordinator::Heartbeat { number } = decode_to_coordinator(EPOCH, &frame).unwrap() {
            numbers.push(number);
        }
    }
    numbers
}

#[test]
fn a_lease_is_renewed_from_the_sending_of_what_was_answered() {
    let node = node();
    let mut keeper = LeaseKeeper::new(trusted(LEASE), 0);
    let turn = keeper.turn(&node, 0);
    assert_eq!(turn, LeaseTurn { lapsed: None, idle: Duration::from_millis(900) });
    assert_eq!(heartbeats(&node), [1]);
    // Too early for another one.
    assert_eq!(keeper.turn(&node, SECOND / 2).idle, Duration::from_millis(400));
    assert_eq!(heartbeats(&node), [0; 0]);
    // It was sent at 1 s; the answer comes at 3 s.
    let _sent = keeper.turn(&node, SECOND);
    assert_eq!(heartbeats(&node), [2]);
    node.handle(ToNode::Heartbeat { number: 2 }).unwrap();
    assert_eq!(node.link.leased_until(), SECOND + nanos(trusted(LEASE)));
    let turn = keeper.turn(&node, 5 * SECOND);
    assert_eq!(turn, LeaseTurn { lapsed: None, idle: Duration::from_millis(500) });
    assert_eq!(keeper.turn(&node, 5 * SECOND + SECOND / 2).lapsed, Some(0));
    assert!(node.link.has_lapsed());
    // Once.
    assert_eq!(keeper.turn(&node, 6 * SECOND).lapsed, None);
}

#[test]
fn a_machine_that_slept_finds_its_lease_lapsed_before_anything_else() {
    let node = node();
    let mut keeper = LeaseKeeper::new(trusted(LEASE), 0);
    let _first = keeper.turn(&node, 0);
    assert_eq!(heartbeats(&node), [1]);
    assert_eq!(keeper.turn(&node, 60 * SECOND).lapsed, Some(0));
    assert_eq!(heartbeats(&node), [0; 0], "a heartbeat of a lapsed incarnation");
}

#[test]
fn attempts_come_less_and_less_often() {
    let mut retry = Retry::default();
    let pauses: Vec<_> = (0..7).map(|_| retry.pause().as_millis()).collect();
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
    let node = node();
    assert_eq!(Retry::attempt_max(&node), Some(HASTE));
    assert!(matches!(node.lapse(), Lapse::Now { .. }));
    assert_eq!(Retry::attempt_max(&node), None);
}

#[test]
fn what_a_welcome_means() {
    let welcome = Welcome {
        epoch: EPOCH,
        incarnation: Incarnation::from_bits(2),
        secret: Secret::from_bytes([2; 16]),
        past: Past::Lapsed,
        sent_nanos: SECOND,
        trusted: trusted(LEASE),
    };
    let resumed = Welcome { past: Past::Resumed { applied: CommitSeq::default() }, ..welcome };
    let lost = || {
        let node = node();
        node.disconnected();
        node
    };
    assert_eq!(lost().go_on(&resumed), Adoption::Resumed);
    // The lease lapsed while the answer was under way.
    let late = lost();
    assert!(matches!(late.lapse(), Lapse::Now { .. }));
    assert_eq!(late.go_on(&resumed), Adoption::Useless);
    assert_eq!(late.go_on(&welcome), Adoption::Rejoined { unknown: 0 });
    assert!(!late.link.has_lapsed());
    assert_eq!(late.link.incarnation(), welcome.incarnation);
    // The coordinator says so before the node's own clock does.
    let node = lost();
    assert_eq!(node.go_on(&welcome), Adoption::Rejoined { unknown: 0 });
    assert_eq!(node.link.life(), 1);
    assert_eq!(lost().go_on(&Welcome { past: Past::Reset, ..welcome }), Adoption::Ended(Ended::Reset));
    // A coordinator that kept its state is in another epoch.
    let node = lost();
    assert_eq!(node.go_on(&Welcome { epoch: EPOCH.next(), ..resumed }), Adoption::Resumed);
    assert_eq!(node.link.epoch(), EPOCH.next());
    // More than was ever committed.
    let unheard = Welcome { past: Past::Resumed { applied: CommitSeq::from_bits(7) }, ..welcome };
    assert!(matches!(lost().go_on(&unheard), Adoption::Ended(Ended::Lost(_))));
}
