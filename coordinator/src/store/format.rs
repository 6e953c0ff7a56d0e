//! The bytes of segments: their header, the headers of their records, and how to tell one from what is none.
//!
//! `docs/STORE.md` has the tables. No I/O.

use crate::engine::{LogSeq, LogTime};
use crc32fast::Hasher;

/// The version of segments and snapshots that this program writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// Records begin at multiples of this.
pub(super) const ALIGN: usize = 8;
/// A whole segment, its header included.
pub(super) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

const SEGMENT_MAGIC: [u8; 8] = *b"kiln-log";
const RECORD_MAGIC: u32 = 0xc3a5_1e7d;

/// What tells one log from all others, so that files of two of them are never mixed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogId([u8; 16]);

impl LogId {
    /// The id with these random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// Why bytes are not what should be there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// Neither a beginning nor nothing.
    #[error("no record begins here")]
    Magic,
    /// The header does not have its checksum.
    #[error("the checksum of the header is wrong")]
    Header,
    /// The contents do not have their checksum.
    #[error("the checksum of the contents is wrong")]
    Body,
    /// It would go on behind the end of the file.
    #[error("the file ends before the record does")]
    Length,
    /// Zeros, with a record behind them.
    #[error("a record is missing")]
    Missing,
    /// A header with its checksum, but of a file of another log.
    #[error("the file is of another log")]
    Foreign,
    /// Its entries do not follow those before it.
    #[error("entries are missing before it")]
    Gap,
}

/// Little-endian fields of a fixed header, one after the other.
pub(super) struct HeaderBytes<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> HeaderBytes<N> {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    pub(super) const fn read(bytes: [u8; N]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }

    pub(super) fn take<const M: usize>(&mut self) -> [u8; M] {
        let field = self.bytes[self.at..self.at + M].try_into().expect("the fields of a header add up to it");
        self.at += M;
        field
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(super) const fn finish(self) -> [u8; N] {
        self.bytes
    }
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SegmentHeader {
    pub(super) id: LogId,
    /// Its place among the segments, from 1.
    pub(super) ordinal: u64,
    /// The length of the file.
    pub(super) bytes: u64,
}

/// Why a file is not one that can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadHeader {
    /// Something else.
    #[error("it does not begin as one")]
    Magic,
    /// Another format.
    #[error("it has format version {0}, and this program reads version {FORMAT} only")]
    Version(u32),
    /// Damaged.
    #[error("the checksum of its header is wrong")]
    Checksum,
    /// Shorter or longer than it says, or than any may be.
    #[error("it is {actual} bytes long, and should be {wanted}")]
    Length {
        /// How long it is.
        actual: u64,
        /// How long it says it is.
        wanted: u64,
    },
    /// Not the one that its name says.
    #[error("it says that its number is {0}")]
    Name(u64),
}

impl SegmentHeader {
    pub(super) const BYTES: usize = 64;
    const CHECKED: usize = Self::BYTES - size_of::<u32>();

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut header = HeaderBytes::<{ Self::BYTES }>::new();
        header.put(&SEGMENT_MAGIC);
        header.put(&FORMAT.to_le_bytes());
        header.put(&[0; 4]);
        header.put(&self.id.0);
        header.put(&self.ordinal.to_le_bytes());
        header.put(&self.bytes.to_le_bytes());
        let mut bytes = header.finish();
        let checksum = crc32fast::hash(&bytes[..Self::CHECKED]);
        bytes[Self::CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, BadHeader> {
        let mut header = HeaderBytes::read(*bytes);
        if header.take() != SEGMENT_MAGIC {
            return Err(BadHeader::Magic);
        }
        let format = header.u32();
        let _reserved = header.u32();
        let (id, ordinal, length) = (LogId(header.take()), header.u64(), header.u64());
        if crc32fast::hash(&bytes[..Self::CHECKED]).to_le_bytes() != bytes[Self::CHECKED..] {
            return Err(BadHeader::Checksum);
        }
        if format != FORMAT {
            return Err(BadHeader::Version(format));
        }
        if !(Self::BYTES as u64..=SEGMENT_BYTES_MAX).contains(&length) {
            return Err(BadHeader::Length { actual: length, wanted: SEGMENT_BYTES_MAX });
        }
        Ok(Self { id, ordinal, bytes: length })
    }

    /// What the checksums of its records begin with: a record that is not at its place is none.
    fn seed(&self, at: usize) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&self.id.0);
        hasher.update(&self.ordinal.to_le_bytes());
        hasher.update(&(at as u64).to_le_bytes());
        hasher
    }
}

/// What a record says of itself, beside checksums.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct RecordHeader {
    /// Its first entry; for a mark: the next entry that there will be.
    pub(super) first: LogSeq,
    /// Everything of this segment before this place was synced when this record was written.
    pub(super) synced: u64,
    /// When its first entry was made.
    pub(super) time: LogTime,
    /// How many entries it has; a mark has none.
    pub(super) entries: u32,
}

impl RecordHeader {
    pub(super) const BYTES: usize = 48;
    const CHECKED: usize = 8;

    /// Fills in the header of a record that will be `at`; `record` is room for the header, then the body, padded.
    pub(super) fn seal(&self, segment: &SegmentHeader, at: usize, record: &mut [u8], body_bytes: usize) {
        debug_assert_eq!(record.len(), padded(body_bytes), "a record is padded");
        let body = crc32fast::hash(&record[Self::BYTES..]);
        let length = u32::try_from(body_bytes).expect("records are bounded");
        let mut header = HeaderBytes::<{ Self::BYTES }>::new();
        header.put(&RECORD_MAGIC.to_le_bytes());
        header.put(&[0; 4]);
        header.put(&length.to_le_bytes());
        header.put(&body.to_le_bytes());
        header.put(&self.first.to_bits().to_le_bytes());
        header.put(&self.synced.to_le_bytes());
        header.put(&self.time.to_bits().to_le_bytes());
        header.put(&self.entries.to_le_bytes());
        let mut bytes = header.finish();
        let mut hasher = segment.seed(at);
        hasher.update(&bytes[Self::CHECKED..]);
        bytes[4..Self::CHECKED].copy_from_slice(&hasher.finalize().to_le_bytes());
        record[..Self::BYTES].copy_from_slice(&bytes);
    }

    /// The header, the length of the body and its checksum.
    fn decode(segment: &SegmentHeader, at: usize, bytes: &[u8; Self::BYTES]) -> Result<(Self, usize, u32), Damage> {
        let mut fields = HeaderBytes::read(*bytes);
        if fields.u32() != RECORD_MAGIC {
            return Err(Damage::Magic);
        }
        let checksum = fields.u32();
        let mut hasher = segment.seed(at);
        hasher.update(&bytes[Self::CHECKED..]);
        if hasher.finalize() != checksum {
            return Err(Damage::Header);
        }
        let (length, body) = (fields.u32() as usize, fields.u32());
        let header = Self {
            first: LogSeq::from_bits(fields.u64()),
            synced: fields.u64(),
            time: LogTime::from_bits(fields.u64()),
            entries: fields.u32(),
        };
        Ok((header, length, body))
    }

    /// The header of a record whose body is not looked at.
    pub(super) fn peek(segment: &SegmentHeader, bytes: &[u8], at: usize) -> Option<Self> {
        let header = bytes.get(at..at + Self::BYTES)?.try_into().expect("as long as a header");
        Self::decode(segment, at, header).ok().map(|(header, _, _)| header)
    }
}

/// How long a record with such a body is.
pub(super) const fn padded(body_bytes: usize) -> usize {
    (RecordHeader::BYTES + body_bytes).next_multiple_of(ALIGN)
}

/// What is at one place of a segment.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A record that is whole.
    Record { header: RecordHeader, body: &'a [u8], end: usize },
    /// Nothing was written here, or the segment ends.
    Nothing,
    /// Something else.
    Bad(Damage),
}

/// Looks at one place of a segment, of which these are all bytes.
pub(super) fn find<'a>(segment: &SegmentHeader, bytes: &'a [u8], at: usize) -> Found<'a> {
    let Some(header) = bytes.get(at..at + RecordHeader::BYTES) else {
        let is_nothing = bytes.get(at..).is_none_or(|rest| rest.iter().all(|byte| *byte == 0));
        return if is_nothing { Found::Nothing } else { Found::Bad(Damage::Magic) };
    };
    let header: [u8; RecordHeader::BYTES] = header.try_into().expect("as long as a header");
    if header == [0; RecordHeader::BYTES] {
        return Found::Nothing;
    }
    let (header, length, checksum) = match RecordHeader::decode(segment, at, &header) {
        Ok(decoded) => decoded,
        Err(damage) => return Found::Bad(damage),
    };
    let end = at + padded(length);
    let Some(body) = bytes.get(at + RecordHeader::BYTES..end) else {
        return Found::Bad(Damage::Length);
    };
    if crc32fast::hash(body) != checksum {
        return Found::Bad(Damage::Body);
    }
    Found::Record { header, body: &body[..length], end }
}
