//! Why the coordinator closes a connection: a code for programs, a reason for people.

use kiln_protocol::CloseCode;
use quinn::VarInt;

/// What a closed connection tells its peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Close {
    /// The peer said goodbye.
    Goodbye,
    /// The coordinator stops.
    Stopping,
    /// The peer was not attached; the message before says why.
    Refused(String),
    /// The peer broke the protocol.
    Violation(String),
    /// The peer does not read what it is sent.
    Slow(String),
    /// The peer did not attach in time.
    Late,
}

impl Close {
    pub(super) const fn code(&self) -> VarInt {
        let code = match self {
            Self::Goodbye => CloseCode::Goodbye,
            Self::Stopping => CloseCode::Stopping,
            Self::Refused(_) => CloseCode::Refused,
            Self::Violation(_) => CloseCode::Violation,
            Self::Slow(_) => CloseCode::Slow,
            Self::Late => CloseCode::Late,
        };
        VarInt::from_u32(code.to_bits())
    }

    /// The reason, in words.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Goodbye => "goodbye",
            Self::Stopping => "the coordinator is stopping",
            Self::Refused(why) | Self::Violation(why) | Self::Slow(why) => why,
            Self::Late => "no Hello arrived in time",
        }
    }

    pub(super) fn apply(&self, connection: &quinn::Connection) {
        connection.close(self.code(), self.reason().as_bytes());
    }
}
