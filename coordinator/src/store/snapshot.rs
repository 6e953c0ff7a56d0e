//! Snapshots: the whole state after one entry, in one file.
//!
//! A snapshot is written under another name, synced, renamed, and the directory synced: so what has the name of one is
//! whole, and damage to it is damage. Its contents are chunks, which this module does not look into.

use super::error::OpenError;
use super::format::{BadHeader, Damage, FORMAT, HeaderBytes, LogId};
use super::medium::{Medium, MediumFile};
use super::segment::UNFINISHED;
use crate::engine::{LogSeq, LogTime};
use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;
use std::io;
use std::sync::Arc;

const SUFFIX: &str = ".snapshot";
const DIGITS: usize = 20;
const MAGIC: [u8; 8] = *b"kilnsnap";
const CHUNK_MAGIC: u32 = 0x5d0e_92b3;
/// One chunk: the largest object fits.
pub(super) const CHUNK_BYTES_MAX: usize = 64 << 20;
/// So much is written before it is synced: the log's syncs wait for what was written to other files, too.
const SYNC_BYTES: u64 = 8 << 20;

/// The name of a snapshot of the state after this entry.
pub(super) fn name(seq: LogSeq) -> String {
    format!("{:0DIGITS$}{SUFFIX}", seq.to_bits())
}

/// The snapshot that a file name is of.
pub(super) fn seq(name: &str) -> Option<LogSeq> {
    let digits = name.strip_suffix(SUFFIX)?;
    let is_ours = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| digits.parse().ok().map(LogSeq::from_bits))?
}

/// The first bytes of a snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SnapshotHeader {
    pub(super) id: LogId,
    /// The last entry that is part of the state.
    pub(super) seq: LogSeq,
    /// When that was made.
    pub(super) time: LogTime,
}

impl SnapshotHeader {
    pub(super) const BYTES: usize = 64;
    const CHECKED: usize = Self::BYTES - size_of::<u32>();

    fn encode(&self) -> [u8; Self::BYTES] {
        let mut header = HeaderBytes::<{ Self::BYTES }>::new();
        header.put(&MAGIC);
        header.put(&FORMAT.to_le_bytes());
        header.put(&[0; 4]);
        header.put(&self.id.to_bytes());
        header.put(&self.seq.to_bits().to_le_bytes());
        header.put(&self.time.to_bits().to_le_bytes());
        let mut bytes = header.finish();
        let checksum = crc32fast::hash(&bytes[..Self::CHECKED]);
        bytes[Self::CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, BadHeader> {
        let mut header = HeaderBytes::read(*bytes);
        if header.take() != MAGIC {
            return Err(BadHeader::Magic);
        }
        let format = header.u32();
        let _reserved = header.u32();
        let decoded = Self {
            id: LogId::from_bytes(header.take()),
            seq: LogSeq::from_bits(header.u64()),
            time: LogTime::from_bits(header.u64()),
        };
        if crc32fast::hash(&bytes[..Self::CHECKED]).to_le_bytes() != bytes[Self::CHECKED..] {
            return Err(BadHeader::Checksum);
        }
        if format != FORMAT {
            return Err(BadHeader::Version(format));
        }
        Ok(decoded)
    }

    fn seed(&self, at: u64) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&self.id.to_bytes());
        hasher.update(&self.seq.to_bits().to_le_bytes());
        hasher.update(&at.to_le_bytes());
        hasher
    }
}

/// In front of each chunk; the last one is empty.
struct ChunkHeader;

impl ChunkHeader {
    const BYTES: usize = 16;
    const CHECKED: usize = 8;

    fn encode(snapshot: &SnapshotHeader, at: u64, body: &[u8]) -> [u8; Self::BYTES] {
        let mut header = HeaderBytes::<{ Self::BYTES }>::new();
        header.put(&CHUNK_MAGIC.to_le_bytes());
        header.put(&[0; 4]);
        header.put(&u32::try_from(body.len()).expect("chunks are bounded").to_le_bytes());
        header.put(&crc32fast::hash(body).to_le_bytes());
        let mut bytes = header.finish();
        let mut hasher = snapshot.seed(at);
        hasher.update(&bytes[Self::CHECKED..]);
        bytes[4..Self::CHECKED].copy_from_slice(&hasher.finalize().to_le_bytes());
        bytes
    }

    /// The length of the chunk and its checksum.
    fn decode(snapshot: &SnapshotHeader, at: u64, bytes: &[u8; Self::BYTES]) -> Result<(usize, u32), Damage> {
        let mut fields = HeaderBytes::read(*bytes);
        if fields.u32() != CHUNK_MAGIC {
            return Err(Damage::Magic);
        }
        let checksum = fields.u32();
        let mut hasher = snapshot.seed(at);
        hasher.update(&bytes[Self::CHECKED..]);
        if hasher.finalize() != checksum {
            return Err(Damage::Header);
        }
        Ok((fields.u32() as usize, fields.u32()))
    }
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(super) struct SnapshotWriter {
    medium: Arc<dyn Medium>,
    file: Box<dyn MediumFile>,
    header: SnapshotHeader,
    at: u64,
    synced: u64,
}

impl SnapshotWriter {
    pub(super) fn create(medium: Arc<dyn Medium>, header: SnapshotHeader) -> io::Result<Self> {
        let file = medium.create(&unfinished(header.seq))?;
        file.write(0, &header.encode())?;
        Ok(Self { medium, file, header, at: SnapshotHeader::BYTES as u64, synced: 0 })
    }

    /// Appends a chunk, which is not empty and at most [`CHUNK_BYTES_MAX`] long.
    pub(super) fn push(&mut self, body: &[u8]) -> io::Result<()> {
        debug_assert!((1..=CHUNK_BYTES_MAX).contains(&body.len()), "a chunk is bounded, and an empty one is the last");
        self.append(body)?;
        if self.at - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.at;
        }
        Ok(())
    }

    fn append(&mut self, body: &[u8]) -> io::Result<()> {
        self.file.write(self.at, &ChunkHeader::encode(&self.header, self.at, body))?;
        self.at += ChunkHeader::BYTES as u64;
        self.file.write(self.at, body)?;
        self.at += body.len() as u64;
        Ok(())
    }

    /// How long it is so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.at
    }

    /// Puts it in place. Every entry that is part of it has been synced by now.
    pub(super) fn install(&mut self) -> io::Result<()> {
        self.append(&[])?;
        self.file.sync()?;
        self.medium.rename(&unfinished(self.header.seq), &name(self.header.seq))?;
        self.medium.sync()
    }

    /// Removes what there is of it.
    pub(super) fn abandon(&self) -> io::Result<()> {
        self.medium.remove(&unfinished(self.header.seq))
    }
}

fn unfinished(seq: LogSeq) -> String {
    format!("{}{UNFINISHED}", name(seq))
}

/// A snapshot that is being read.
#[derive(Debug)]
pub(super) struct SnapshotReader {
    pub(super) file: Box<dyn MediumFile>,
    pub(super) name: String,
    pub(super) header: SnapshotHeader,
    at: u64,
    bytes: u64,
    buffer: BytesMut,
}

impl SnapshotReader {
    pub(super) fn open(medium: &dyn Medium, seq: LogSeq) -> Result<Self, OpenError> {
        let name = name(seq);
        let file = medium.open(&name).map_err(OpenError::io("open", &name))?;
        let bytes = file.bytes().map_err(OpenError::io("look at", &name))?;
        let bad = |bad| OpenError::Header { file: name.clone(), bad };
        let mut header = [0; SnapshotHeader::BYTES];
        if bytes < header.len() as u64 {
            return Err(bad(BadHeader::Length { actual: bytes, wanted: header.len() as u64 }));
        }
        file.read(0, &mut header).map_err(OpenError::io("read", &name))?;
        let header = SnapshotHeader::decode(&header).map_err(bad)?;
        if header.seq != seq {
            return Err(bad(BadHeader::Name(header.seq.to_bits())));
        }
        Ok(Self { file, name, header, at: SnapshotHeader::BYTES as u64, bytes, buffer: BytesMut::new() })
    }

    /// How long the file is.
    pub(super) const fn length(&self) -> u64 {
        self.bytes
    }

    /// Where the next chunk is.
    pub(super) const fn position(&self) -> u64 {
        self.at
    }

    /// Goes on with the next place behind a damaged chunk that has the header of one; `None` when there is none.
    pub(super) fn skip_damage(&mut self) -> Result<Option<u64>, OpenError> {
        const WINDOW: usize = 1 << 20;
        let mut start = self.at + 1;
        while start + ChunkHeader::BYTES as u64 <= self.bytes {
            let length = usize::try_from(self.bytes - start).unwrap_or(usize::MAX).min(WINDOW);
            let mut bytes = vec![0; length];
            self.file.read(start, &mut bytes).map_err(OpenError::io("read", &self.name))?;
            for (at, header) in (start..).zip(bytes.windows(ChunkHeader::BYTES)) {
                let header = header.try_into().expect("as long as a header");
                if ChunkHeader::decode(&self.header, at, header).is_ok() {
                    self.at = at;
                    return Ok(Some(at));
                }
            }
            // The last few places of the window had no whole header.
            start += (length - ChunkHeader::BYTES + 1) as u64;
        }
        self.at = self.bytes;
        Ok(None)
    }

    /// The next chunk and where it is; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Bytes)>, OpenError> {
        let at = self.at;
        let damaged = |damage| OpenError::Damaged { file: self.name.clone(), at, damage };
        let mut header = [0; ChunkHeader::BYTES];
        let left = self.bytes.saturating_sub(at);
        if left < header.len() as u64 {
            return Err(damaged(Damage::Length));
        }
        self.file.read(at, &mut header).map_err(OpenError::io("read", &self.name))?;
        let (length, checksum) = ChunkHeader::decode(&self.header, at, &header).map_err(damaged)?;
        let start = at + header.len() as u64;
        if length as u64 > self.bytes - start || length > CHUNK_BYTES_MAX {
            return Err(damaged(Damage::Length));
        }
        // Takes the room of the chunk before, which nobody has any more.
        self.buffer.resize(length, 0);
        self.file.read(start, &mut self.buffer).map_err(OpenError::io("read", &self.name))?;
        if crc32fast::hash(&self.buffer) != checksum {
            return Err(damaged(Damage::Body));
        }
        self.at = start + length as u64;
        if length > 0 {
            return Ok(Some((at, self.buffer.split().freeze())));
        }
        if self.at < self.bytes {
            return Err(OpenError::Damaged { file: self.name.clone(), at: self.at, damage: Damage::Magic });
        }
        Ok(None)
    }
}
