//! Why the coordinator closes a connection: a code for programs, a reason for people.

use quinn::VarInt;

/// What a closed connection tells its peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Close {
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
    /// The peer said goodbye, or the coordinator ended the connection in good order.
    pub const GOODBYE: u32 = 0;
    /// The coordinator stops.
    pub const STOPPING: u32 = 1;
    /// The peer was not attached.
    pub const REFUSED: u32 = 2;
    /// The peer broke the protocol.
    pub const VIOLATION: u32 = 3;
    /// The peer does not read what it is sent.
    pub const SLOW: u32 = 4;
    /// The peer did not attach in time.
    pub const LATE: u32 = 5;

    /// The application error code of the closed connection.
    #[must_use]
    pub const fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Goodbye => Self::GOODBYE,
            Self::Stopping => Self::STOPPING,
            Self::Refused(_) => Self::REFUSED,
            Self::Violation(_) => Self::VIOLATION,
            Self::Slow(_) => Self::SLOW,
            Self::Late => Self::LATE,
        })
    }

    /// The reason, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
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
