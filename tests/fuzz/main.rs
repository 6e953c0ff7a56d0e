//! Whatever arrives is a message or an error: no panic, nothing allocated beyond what arrived, and what one side encodes
//! the other decodes, however the stream is cut.
//!
//! `PROPTEST_CASES=n` tries more.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod messages;

use bytes::Bytes;
use kiln_protocol::codec::{decode_to_coordinator, decode_to_node};
use kiln_protocol::limits::FRAME_BYTES_MAX;
use kiln_protocol::{
    DecodeError, Epoch, FrameDecoder, ToCoordinator, ToNode, Writes, encode_to_coordinator, encode_to_node,
};
use proptest::collection::vec;
use proptest::prelude::*;

const EPOCH: Epoch = Epoch::from_bits(9);

/// What comes out of the decoder when these bytes arrive in pieces of these lengths.
fn frames(bytes: &[u8], cuts: &[usize]) -> (Vec<Bytes>, Option<DecodeError>) {
    let (mut decoder, mut frames, mut rest) = (FrameDecoder::default(), Vec::new(), bytes);
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let length = cuts.next().map_or(rest.len(), |cut| 1 + cut % rest.len());
        let (piece, later) = rest.split_at(length);
        rest = later;
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(decoder.pending_bytes() <= bytes.len());
    }
    (frames, None)
}

proptest! {
    #[test]
    fn noise_is_a_message_or_an_error(bytes in vec(any::<u8>(), 0..400), cuts in vec(any::<usize>(), 0..8)) {
        let (frames, _error) = frames(&bytes, &cuts);
        for frame in frames {
            drop(decode_to_coordinator(EPOCH, &frame));
            drop(decode_to_node(EPOCH, &frame));
        }
        drop(decode_to_coordinator(EPOCH, &Bytes::from(bytes.clone())));
        drop(decode_to_node(EPOCH, &Bytes::from(bytes.clone())));
        let _good_or_not = Writes::check(&bytes);
    }

    #[test]
    fn noise_behind_each_kind_of_frame_is_a_message_or_an_error(
        kind in prop_oneof![Just(0_u8), Just(1), 0x80..=0x8f_u8],
        bytes in vec(any::<u8>(), 0..200),
    ) {
        let frame: Bytes = std::iter::once(kind).chain(bytes).collect::<Vec<_>>().into();
        if let Ok(message) = decode_to_coordinator(EPOCH, &frame) {
            let mut again = Vec::new();
            encode_to_coordinator(&mut again, EPOCH, &message);
            let (frames, error) = frames(&again, &[]);
            prop_assert_eq!(error, None);
            prop_assert_eq!(decode_to_coordinator(EPOCH, &frames[0]).unwrap(), message);
        }
        if let Ok(message) = decode_to_node(EPOCH, &frame) {
            let mut again = Vec::new();
            encode_to_node(&mut again, EPOCH, &message);
            let (frames, error) = frames(&again, &[]);
            prop_assert_eq!(error, None);
            prop_assert_eq!(decode_to_node(EPOCH, &frames[0]).unwrap(), message);
        }
    }

    #[test]
    fn a_stream_to_the_coordinator_survives_any_cut(
        sent in vec(messages::to_coordinator(), 1..12),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for message in &sent {
            encode_to_coordinator(&mut bytes, EPOCH, message);
        }
        let (frames, error) = frames(&bytes, &cuts);
        prop_assert_eq!(error, None);
        let received: Vec<ToCoordinator> =
            frames.iter().map(|frame| decode_to_coordinator(EPOCH, frame).unwrap()).collect();
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn a_stream_to_a_node_survives_any_cut(
        sent in vec(messages::to_node(), 1..12),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for message in &sent {
            encode_to_node(&mut bytes, EPOCH, message);
        }
        let (frames, error) = frames(&bytes, &cuts);
        prop_assert_eq!(error, None);
        let received: Vec<ToNode> = frames.iter().map(|frame| decode_to_node(EPOCH, frame).unwrap()).collect();
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn a_damaged_stream_is_messages_and_then_an_error_at_most(
        sent in vec(messages::to_coordinator(), 1..6),
        damage in vec((any::<usize>(), any::<u8>()), 1..6),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let mut bytes = Vec::new();
        for message in &sent {
            encode_to_coordinator(&mut bytes, EPOCH, message);
        }
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] ^= byte;
        }
        let (frames, _error) = frames(&bytes, &cuts);
        for frame in frames {
            drop(decode_to_coordinator(EPOCH, &frame));
        }
    }
}

#[test]
fn a_length_above_the_limit_is_an_error_before_anything_is_kept() {
    let mut bytes = Vec::new();
    kiln_protocol::codec::put_varint(&mut bytes, FRAME_BYTES_MAX as u64 + 1);
    let (frames, error) = frames(&bytes, &[0]);
    assert!(frames.is_empty());
    assert!(matches!(error, Some(DecodeError::FrameTooLong { .. })), "{error:?}");
}
