//! Messages to bytes and back.
//!
//! A frame is `varint length | kind byte | body`; the length counts kind and body. Commits, deltas and acknowledgements
//! have encodings of their own, because every byte of them counts; their epochs are left out while they are the
//! connection's. Everything else is `postcard`. Decoding allocates at most what the frame holds.

use crate::ids::{CommitSeq, Epoch, GroupId, Incarnation, ObjectId, Token, Version};
use crate::limits::{FRAME_BYTES_MAX, PARTS_MAX};
use crate::message::{Commit, Delta, DeltaPart, Part, ToCoordinator, ToNode};
use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

const KIND_POSTCARD: u8 = 0;
const KIND_ACK: u8 = 1;
const KIND_DURABLE: u8 = 2;
/// Commits and deltas: this bit, and flags in the others.
const KIND_SLOTS: u8 = 0x80;
const FLAG_EVERYWHERE: u8 = 1;
const FLAG_MANY: u8 = 1 << 1;
const FLAG_GROUP: u8 = 1 << 2;
const FLAG_EPOCHS: u8 = 1 << 3;
const FLAG_DURABLE: u8 = 1 << 4;
const FLAGS: u8 = FLAG_EVERYWHERE | FLAG_MANY | FLAG_GROUP | FLAG_EPOCHS | FLAG_DURABLE;
const VARINT_BYTES_MAX: usize = 10;

/// Bytes that are not a message. Ends the connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A frame is longer than allowed.
    #[error("a frame of {bytes} bytes is longer than the limit of {FRAME_BYTES_MAX}")]
    FrameTooLong {
        /// Its length.
        bytes: u64,
    },
    /// A frame ends too early, or a number does not fit.
    #[error("a frame is cut off or malformed at byte {at}")]
    Malformed {
        /// Where in the frame.
        at: usize,
    },
    /// A kind of frame that does not exist.
    #[error("a frame has unknown kind {kind}")]
    Kind {
        /// The kind byte.
        kind: u8,
    },
    /// A message body that its encoding does not allow.
    #[error("a message is malformed: {0}")]
    Body(#[from] postcard::Error),
    /// A frame goes on behind its message.
    #[error("a frame has {bytes} bytes behind its message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Where encoded bytes go: the one encoding serves buffers on the heap and on the stack.
pub trait Sink {
    /// Appends a byte.
    fn put(&mut self, byte: u8);
    /// Appends bytes.
    fn put_slice(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<const N: usize> Sink for SmallVec<[u8; N]> {
    #[inline]
    fn put(&mut self, byte: u8) {
        self.push(byte);
    }

    #[inline]
    fn put_slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Appends a varint: seven bits a byte, low ones first.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
#[inline]
pub fn put_varint(out: &mut impl Sink, mut value: u64) {
    while value >= 0x80 {
        out.put((value as u8) | 0x80);
        value >>= 7;
    }
    out.put(value as u8);
}

/// Reads from a slice; every length is checked against what is left.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been read.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Whether all have been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Whether all have been read, as an error.
    fn finish(&self) -> Result<(), DecodeError> {
        let bytes = self.bytes.len() - self.at;
        if bytes == 0 { Ok(()) } else { Err(DecodeError::Trailing { bytes }) }
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Malformed { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let end = self.at + size_of::<u64>();
        let bytes = self.bytes.get(self.at..end).ok_or(DecodeError::Malformed { at: self.at })?;
        self.at = end;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    /// A varint.
    ///
    /// # Errors
    /// When it is cut off or does not fit 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        let mut value = 0_u64;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if index == VARINT_BYTES_MAX - 1 && bits > 1 {
                break;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed { at: start })
    }

    /// A varint length and that many bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let start = self.at;
        let length = self.varint()?;
        let left = self.bytes.len() - self.at;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= left)
            .ok_or(DecodeError::Malformed { at: start })?;
        let bytes = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(bytes)
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// Appends what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame: kind and body.
    ///
    /// # Errors
    /// When the next frame is too long or its length malformed; the stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let mut reader = Reader::new(&self.buffer);
        let length = match reader.varint() {
            Ok(length) => length,
            // Too few bytes for a whole varint: wait for more.
            Err(_) if self.buffer.len() < VARINT_BYTES_MAX => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = reader.position();
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX) else {
            return Err(DecodeError::FrameTooLong { bytes: length });
        };
        if self.buffer.len() < header + length {
            return Ok(None);
        }
        self.buffer.advance(header);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Bytes that wait for the rest of their frame.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }
}

/// Appends a frame: what `fill` appends, with its length in front.
pub fn frame(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    // One byte for the length fits all small messages; longer ones are shifted once.
    let start = out.len();
    out.push(0);
    fill(out);
    let length = out.len() - start - 1;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out[start] = short;
    } else {
        let mut prefix = Vec::with_capacity(VARINT_BYTES_MAX);
        put_varint(&mut prefix, length as u64);
        out.splice(start..=start, prefix);
    }
}

fn put_postcard(out: &mut Vec<u8>, message: &impl Serialize) {
    frame(out, |out| {
        out.push(KIND_POSTCARD);
        let buffer = std::mem::take(out);
        *out = postcard::to_extend(message, buffer).expect("messages have no unserialisable parts");
    });
}

fn get_postcard<M: DeserializeOwned>(body: &[u8]) -> Result<M, DecodeError> {
    let (message, rest) = postcard::take_from_bytes(body)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing { bytes: rest.len() });
    }
    Ok(message)
}

/// What commits and deltas share: an (object, group), its stamps and its writes.
struct Slots<'a> {
    object: ObjectId,
    group: GroupId,
    /// Token (commits only) and version, when the group has them.
    stamps: [Option<u64>; 2],
    writes: &'a [u8],
}

const EPOCH_SHIFT: u32 = 44;

fn stamp_in(epoch: Epoch, bits: u64) -> bool {
    bits >> EPOCH_SHIFT == u64::from(epoch.to_bits())
}

fn put_slots(out: &mut Vec<u8>, flags: u8, slots: &Slots<'_>, many: bool) {
    put_varint(out, slots.object.to_bits());
    if many || flags & FLAG_GROUP != 0 {
        out.push(slots.group.to_bits());
    }
    for bits in slots.stamps.into_iter().flatten() {
        if flags & FLAG_EPOCHS != 0 {
            out.extend_from_slice(&bits.to_le_bytes());
        } else {
            put_varint(out, bits & ((1 << EPOCH_SHIFT) - 1));
        }
    }
    if many {
        put_varint(out, slots.writes.len() as u64);
    }
    out.extend_from_slice(slots.writes);
}

fn put_slot_frame<'a>(
    out: &mut Vec<u8>,
    epoch: Epoch,
    base_flags: u8,
    writer: Option<Incarnation>,
    parts: impl ExactSizeIterator<Item = Slots<'a>> + Clone,
) {
    let many = parts.len() != 1;
    let mut flags = base_flags;
    if many {
        flags |= FLAG_MANY;
    } else if parts.clone().any(|slots| slots.group != GroupId::DEFAULT) {
        flags |= FLAG_GROUP;
    }
    if parts.clone().any(|slots| slots.stamps.into_iter().flatten().any(|bits| !stamp_in(epoch, bits))) {
        flags |= FLAG_EPOCHS;
    }
    frame(out, |out| {
        out.push(KIND_SLOTS | flags);
        if let Some(writer) = writer {
            put_varint(out, writer.to_bits());
        }
        if many {
            put_varint(out, parts.len() as u64);
        }
        for slots in parts {
            put_slots(out, flags, &slots, many);
        }
    });
}

struct SlotReader<'a> {
    reader: Reader<'a>,
    frame: &'a Bytes,
    flags: u8,
    epoch: Epoch,
}

impl SlotReader<'_> {
    fn stamp(&mut self) -> Result<u64, DecodeError> {
        if self.flags & FLAG_EPOCHS != 0 {
            return self.reader.u64();
        }
        let at = self.reader.position();
        let number = self.reader.varint()?;
        Version::new(self.epoch, number).map(Version::to_bits).ok_or(DecodeError::Malformed { at })
    }

    fn count(&mut self) -> Result<usize, DecodeError> {
        if self.flags & FLAG_MANY == 0 {
            return Ok(1);
        }
        let at = self.reader.position();
        let count = self.reader.varint()?;
        usize::try_from(count).ok().filter(|count| *count <= PARTS_MAX).ok_or(DecodeError::Malformed { at })
    }

    fn object_and_group(&mut self) -> Result<(ObjectId, GroupId), DecodeError> {
        let object = ObjectId::from_bits(self.reader.varint()?);
        let group = if self.flags & (FLAG_MANY | FLAG_GROUP) != 0 {
            GroupId::from_bits(self.reader.u8()?)
        } else {
            GroupId::DEFAULT
        };
        Ok((object, group))
    }

    fn writes(&mut self) -> Result<Bytes, DecodeError> {
        if self.flags & FLAG_MANY != 0 {
            return Ok(self.frame.slice_ref(self.reader.bytes()?));
        }
        let rest = self.frame.slice(self.reader.position()..);
        self.reader = Reader::new(&[]);
        Ok(rest)
    }

    fn finish(self) -> Result<(), DecodeError> {
        self.reader.finish()
    }
}

/// Appends the frame of a commit. `epoch` is the connection's; `everywhere` and `durable` are as in [`Commit`].
pub fn encode_commit<'a>(
    out: &mut Vec<u8>,
    epoch: Epoch,
    everywhere: bool,
    durable: bool,
    parts: impl ExactSizeIterator<Item = (ObjectId, GroupId, Token, Version, &'a [u8])> + Clone,
) {
    let flags = if everywhere { FLAG_EVERYWHERE } else { 0 } | if durable { FLAG_DURABLE } else { 0 };
    let parts = parts.map(|(object, group, token, version, writes)| {
        let stamps =
            if group == GroupId::COMMUTATIVE { [None; 2] } else { [Some(token.to_bits()), Some(version.to_bits())] };
        Slots { object, group, stamps, writes }
    });
    put_slot_frame(out, epoch, flags, None, parts);
}

/// Appends the frame of a message from a node. `epoch` is the connection's.
pub fn encode_to_coordinator(out: &mut Vec<u8>, epoch: Epoch, message: &ToCoordinator) {
    if let ToCoordinator::Commit(commit) = message {
        let parts =
            commit.parts.iter().map(|part| (part.object, part.group, part.token, part.version, &part.writes[..]));
        encode_commit(out, epoch, commit.everywhere, commit.durable, parts);
    } else {
        put_postcard(out, message);
    }
}

/// Appends the frame of a message to a node. `epoch` is the connection's.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are of one kind")]
pub fn encode_to_node(out: &mut Vec<u8>, epoch: Epoch, message: &ToNode) {
    match message {
        ToNode::Delta(delta) => {
            let parts = delta.parts.iter().map(|part| Slots {
                object: part.object,
                group: part.group,
                stamps: [None, Some(part.version.to_bits())],
                writes: &part.writes,
            });
            put_slot_frame(out, epoch, 0, Some(delta.writer), parts);
        }
        ToNode::Ack { applied: seq } | ToNode::Durable { seq } => frame(out, |out| {
            out.push(if matches!(message, ToNode::Ack { .. }) { KIND_ACK } else { KIND_DURABLE });
            put_varint(out, seq.to_bits());
        }),
        message => put_postcard(out, message),
    }
}

/// Reads the frame of a message from a node. `epoch` is the connection's.
///
/// # Errors
/// When the frame is not one.
pub fn decode_to_coordinator(epoch: Epoch, frame: &Bytes) -> Result<ToCoordinator, DecodeError> {
    let mut reader = Reader::new(frame);
    let kind = reader.u8()?;
    if kind == KIND_POSTCARD {
        return get_postcard(&frame[1..]);
    }
    if kind & KIND_SLOTS == 0 || kind & !KIND_SLOTS & !FLAGS != 0 {
        return Err(DecodeError::Kind { kind });
    }
    let mut slots = SlotReader { reader, frame, flags: kind & FLAGS, epoch };
    let count = slots.count()?;
    let mut parts = SmallVec::new();
    for _ in 0..count {
        let (object, group) = slots.object_and_group()?;
        let (token, version) = if group == GroupId::COMMUTATIVE { (0, 0) } else { (slots.stamp()?, slots.stamp()?) };
        parts.push(Part {
            object,
            group,
            token: Token::from_bits(token),
            version: Version::from_bits(version),
            writes: slots.writes()?,
        });
    }
    slots.finish()?;
    Ok(ToCoordinator::Commit(Commit {
        everywhere: kind & FLAG_EVERYWHERE != 0,
        durable: kind & FLAG_DURABLE != 0,
        parts,
    }))
}

/// Reads the frame of a message to a node. `epoch` is the connection's.
///
/// # Errors
/// When the frame is not one.
pub fn decode_to_node(epoch: Epoch, frame: &Bytes) -> Result<ToNode, DecodeError> {
    let mut reader = Reader::new(frame);
    let kind = reader.u8()?;
    match kind {
        KIND_POSTCARD => return get_postcard(&frame[1..]),
        KIND_ACK | KIND_DURABLE => {
            let seq = CommitSeq::from_bits(reader.varint()?);
            reader.finish()?;
            return Ok(if kind == KIND_ACK { ToNode::Ack { applied: seq } } else { ToNode::Durable { seq } });
        }
        _ if kind & KIND_SLOTS == 0 || kind & !KIND_SLOTS & !FLAGS != 0 => return Err(DecodeError::Kind { kind }),
        _ => {}
    }
    let writer = Incarnation::from_bits(reader.varint()?);
    let mut slots = SlotReader { reader, frame, flags: kind & FLAGS, epoch };
    let count = slots.count()?;
    let mut parts = SmallVec::new();
    for _ in 0..count {
        let (object, group) = slots.object_and_group()?;
        let version = Version::from_bits(slots.stamp()?);
        parts.push(DeltaPart { object, group, version, writes: slots.writes()? });
    }
    slots.finish()?;
    Ok(ToNode::Delta(Delta { writer, parts }))
}

#[cfg(test)]
mod tests;
