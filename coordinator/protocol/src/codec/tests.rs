use super::*;
use crate::delta::Write;
use crate::ids::{FieldId, Partition, RequestId};
use crate::message::{Hello, Role};
use smallvec::smallvec;

const EPOCH: Epoch = Epoch::from_bits(3);

fn part(group: GroupId, epoch: u32) -> Part {
    let mut writes = Vec::new();
    Write::Scalar { field: FieldId::from_bits(2), bits: 99 }.encode(&mut writes);
    let epoch = Epoch::from_bits(epoch);
    let (token, version) = if group == GroupId::COMMUTATIVE {
        (Token::default(), Version::default())
    } else {
        (Token::new(epoch, 70_000).unwrap(), Version::new(epoch, 9_000).unwrap())
    };
    Part { object: ObjectId::new(1_000, Partition::of("r", b"k")), group, token, version, writes: writes.into() }
}

fn commits() -> Vec<Commit> {
    let groups = [GroupId::DEFAULT, GroupId::from_bits(4), GroupId::COMMUTATIVE];
    let mut all: Vec<_> = groups
        .into_iter()
        .map(|group| Commit { everywhere: true, durable: false, parts: smallvec![part(group, 3)] })
        .collect();
    all.push(Commit { everywhere: false, durable: true, parts: smallvec![part(GroupId::DEFAULT, 2)] });
    all.push(Commit {
        everywhere: false,
        durable: false,
        parts: groups.into_iter().map(|group| part(group, 3)).collect(),
    });
    all.push(Commit { everywhere: false, durable: false, parts: smallvec![] });
    all
}

fn frames(bytes: &[u8]) -> Vec<Bytes> {
    let mut decoder = FrameDecoder::default();
    let mut frames = Vec::new();
    // Byte by byte, so that every cut is met.
    for byte in bytes {
        decoder.push(&[*byte]);
        while let Some(frame) = decoder.next_frame().unwrap() {
            frames.push(frame);
        }
    }
    assert_eq!(decoder.pending_bytes(), 0);
    frames
}

#[test]
fn commits_and_deltas_survive_the_wire() {
    for commit in commits() {
        let message = ToCoordinator::Commit(commit.clone());
        let mut bytes = Vec::new();
        encode_to_coordinator(&mut bytes, EPOCH, &message);
        assert_eq!(decode_to_coordinator(EPOCH, &frames(&bytes)[0]).unwrap(), message);

        let parts = commit.parts.into_iter().map(|part| DeltaPart {
            object: part.object,
            group: part.group,
            version: part.version,
            writes: part.writes,
        });
        let message = ToNode::Delta(Delta { writer: Incarnation::from_bits(7), parts: parts.collect() });
        let mut bytes = Vec::new();
        encode_to_node(&mut bytes, EPOCH, &message);
        assert_eq!(decode_to_node(EPOCH, &frames(&bytes)[0]).unwrap(), message);
    }
}

#[test]
fn other_messages_survive_the_wire() {
    let hello = ToCoordinator::Hello(Hello { protocol: 2, name: "n".repeat(200), role: Role::Node, resume: None });
    let mut bytes = Vec::new();
    encode_to_coordinator(&mut bytes, EPOCH, &hello);
    encode_to_coordinator(&mut bytes, EPOCH, &ToCoordinator::Bye);
    let frames_read = frames(&bytes);
    assert_eq!(decode_to_coordinator(EPOCH, &frames_read[0]).unwrap(), hello);
    assert_eq!(decode_to_coordinator(EPOCH, &frames_read[1]).unwrap(), ToCoordinator::Bye);

    let mut bytes = Vec::new();
    let ack = ToNode::Ack { applied: CommitSeq::from_bits(300) };
    let absent = ToNode::Absent { request: RequestId::from_bits(1) };
    encode_to_node(&mut bytes, EPOCH, &ack);
    encode_to_node(&mut bytes, EPOCH, &absent);
    let frames_read = frames(&bytes);
    assert_eq!(decode_to_node(EPOCH, &frames_read[0]).unwrap(), ack);
    assert_eq!(decode_to_node(EPOCH, &frames_read[1]).unwrap(), absent);
}

/// The budget of DESIGN section 11: 24 bytes for a one-field delta, all bytes above QUIC.
#[test]
fn a_one_field_commit_takes_at_most_24_bytes() {
    // 70,000 grants and 9,000 versions into an epoch, 1,000 objects into the cluster.
    let mut part = part(GroupId::DEFAULT, 3);
    part.object = ObjectId::new(1_000, Partition::of("r", b"k"));
    let mut bytes = Vec::new();
    encode_to_coordinator(
        &mut bytes,
        EPOCH,
        &ToCoordinator::Commit(Commit { everywhere: false, durable: false, parts: smallvec![part] }),
    );
    assert!(bytes.len() <= 24, "{} bytes", bytes.len());
}

#[test]
fn garbage_is_an_error() {
    let mut decoder = FrameDecoder::default();
    decoder.push(&[0xff; 10]);
    assert!(matches!(decoder.next_frame(), Err(DecodeError::Malformed { at: 0 })));
    let mut decoder = FrameDecoder::default();
    let mut long = Vec::new();
    put_varint(&mut long, FRAME_BYTES_MAX as u64 + 1);
    decoder.push(&long);
    assert!(matches!(decoder.next_frame(), Err(DecodeError::FrameTooLong { .. })));
    for body in [&[][..], &[2], &[0x7f], &[0xf0], &[KIND_SLOTS], &[KIND_ACK, 0x80], &[KIND_POSTCARD, 200]] {
        let frame = Bytes::copy_from_slice(body);
        assert!(decode_to_coordinator(EPOCH, &frame).is_err(), "{body:?}");
        assert!(decode_to_node(EPOCH, &frame).is_err(), "{body:?}");
    }
    // A count of parts that the frame cannot hold.
    let mut body = vec![KIND_SLOTS | FLAG_MANY];
    put_varint(&mut body, u64::MAX);
    assert!(decode_to_coordinator(EPOCH, &body.into()).is_err());
}
