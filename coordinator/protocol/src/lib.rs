//! The language that Kiln's runtimes and its coordinator speak: ids, messages, their codec, the limits on
//! everything a peer can send, deltas, and what both ends of a connection hold to.
//!
//! No I/O, no clock, no threads: bytes in, messages out, and back. Both sides use this crate, so a commit has one
//! encoding and one check wherever it travels.

pub mod codec;
pub mod connection;
pub mod delta;
pub mod ids;
pub mod limits;
pub mod message;
pub mod profile;
pub mod schema;
pub mod structure;

pub use codec::{DecodeError, FrameDecoder, encode_to_coordinator, encode_to_node};
pub use connection::CloseCode;
pub use delta::{BadDelta, Write, Writes};
pub use ids::{
    BarrierId, CheckId, CommitSeq, Epoch, EventId, FieldId, GroupId, Incarnation, ListenerId, ObjectId, OwnerId,
    Partition, RequestId, RootId, Secret, Token, TypeId, Version, WatchId,
};
pub use message::{Failure, ToCoordinator, ToNode};
pub use profile::{Profile, ProfileError};

/// The version of this protocol, sent in `Hello`. A peer that speaks another one is refused (S19).
pub const PROTOCOL_VERSION: u16 = 2;

/// The ALPN name offered in the TLS handshake.
pub const ALPN: &[u8] = b"kiln/1";
