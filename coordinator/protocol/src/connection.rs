//! What both ends of a connection hold to: how long silence lasts, what the network is taken to be before it is
//! measured, and the codes that say why a connection was closed. Plain numbers; QUIC itself is the drivers'.
//!
//! Absent: how much one side lets the other send unread. Each side chooses that for itself.

use std::time::Duration;

/// Silence after which a peer is taken for lost. QUIC takes the lower value of the two ends, and a node that is cut off
/// has to notice as soon as the coordinator does: so both state this one.
pub const IDLE_TIMEOUT_MS: u32 = 3_000;
/// How often a side that has nothing to say shows that it lives: one of them may be lost within the idle timeout.
pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long the coordinator keeps a node's grants without hearing from it, where nothing else is configured. A node stops
/// trusting them a tenth of that before, counted from the sending of the last heartbeat that was answered.
pub const LEASE: Duration = Duration::from_secs(5);
/// How long nodes may take to come back to a coordinator that was started again, and to say what they hold, before it
/// stops renewing the leases of those that have not. No lock changes hands meanwhile.
pub const RECONNECT_WINDOW: Duration = Duration::from_secs(8);
/// The round trip time that is assumed for the first packets of a handshake; then it is measured. QUIC's own assumption
/// of a third of a second makes a lost first packet cost about a second.
pub const INITIAL_RTT: Duration = Duration::from_millis(20);
/// What is sent before the first acknowledgement. A local network is not probed from 15 kB upwards: bursts of commits
/// would wait for it.
pub const INITIAL_CONGESTION_WINDOW_BYTES: u64 = 1 << 20;

/// Why a connection was closed, for programs: its application error code. The reason beside it is for people.
///
/// None is 0: that is what QUIC says by itself when a connection is dropped, for example in the middle of a handshake that
/// takes too long. It must not be taken for a goodbye, after which a node holds nothing any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseCode {
    /// In good order: the peer said goodbye, or this side leaves and holds nothing any more.
    Goodbye,
    /// The coordinator stops.
    Stopping,
    /// The peer was not attached.
    Refused,
    /// The peer broke the protocol.
    Violation,
    /// The peer does not read what it is sent.
    Slow,
    /// The peer did not attach in time.
    Late,
    /// The node goes on with another connection.
    Reconnecting,
}

impl CloseCode {
    /// The code as it is sent.
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        match self {
            Self::Goodbye => 1,
            Self::Stopping => 2,
            Self::Refused => 3,
            Self::Violation => 4,
            Self::Slow => 5,
            Self::Late => 6,
            Self::Reconnecting => 7,
        }
    }
}
