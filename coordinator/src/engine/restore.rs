//! From what was kept to a running engine: a snapshot, then the entries behind it.
//!
//! Replicated state only. Who holds which lock and which copy, the nodes say themselves when they are back.

use super::entry::{BadEntry, Entry, LogSeq, LogTime};
use super::state::State;
use super::walk::{Cut, Piece};
use super::window::Tokens;
use super::{Engine, Settings};
use kiln_protocol::{Epoch, Token};

/// State that is being read back.
#[derive(Debug)]
pub struct Restore {
    state: State,
    last: LogSeq,
    time: LogTime,
    is_begun: bool,
    tokens: Tokens,
}

impl Default for Restore {
    fn default() -> Self {
        Self::new()
    }
}

impl Restore {
    /// Nothing yet: a snapshot may be taken in, or the log from its first entry on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::new(),
            last: LogSeq::default(),
            time: LogTime::default(),
            is_begun: false,
            tokens: Tokens::default(),
        }
    }

    /// Takes a piece of a snapshot in, before any entry.
    ///
    /// # Errors
    /// When it does not fit what was taken in before; then this is of no more use.
    pub fn take(&mut self, piece: Piece) -> Result<(), BadEntry> {
        if let Piece::Start(Cut { seq, time, .. }) = piece {
            if std::mem::replace(&mut self.is_begun, true) {
                return Err(BadEntry::OutOfPlace { what: "the start of a snapshot" });
            }
            (self.last, self.time) = (seq, time);
        } else if !self.is_begun {
            return Err(BadEntry::OutOfPlace { what: "a piece of a snapshot" });
        }
        self.state.take(piece)
    }

    /// Carries out the entry behind the last one.
    ///
    /// # Errors
    /// When it does not follow, or does not fit the state; then this is of no more use.
    pub fn replay(&mut self, seq: LogSeq, time: LogTime, entry: &Entry) -> Result<(), BadEntry> {
        if seq != self.last.next() {
            return Err(BadEntry::OutOfOrder { what: "entry", number: seq.to_bits(), last: self.last.to_bits() });
        }
        self.is_begun = true;
        if !self.state.unindexed.is_empty() {
            self.state.index()?;
        }
        self.state.apply(self.time.max(time), entry)?;
        if let Entry::Committed { parts, .. } = entry {
            for part in parts.iter().filter(|part| part.token != Token::default()) {
                let highest = self.tokens.entry((part.object, part.group)).or_default();
                *highest = part.token.max(*highest);
            }
        }
        self.last = seq;
        self.time = self.time.max(time);
        Ok(())
    }

    /// The last entry that is part of the state; the next one has the number behind it.
    #[must_use]
    pub const fn last(&self) -> LogSeq {
        self.last
    }

    /// When that was made.
    #[must_use]
    pub const fn time(&self) -> LogTime {
        self.time
    }

    /// The epoch that was begun last; the next one must be above it. 0: there was none.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.state.epoch
    }

    /// How many objects there are.
    #[must_use]
    pub const fn objects(&self) -> u32 {
        self.state.objects.len()
    }

    /// The engine that goes on from here.
    ///
    /// # Errors
    /// When the epoch of the settings is not above every one before it, or two objects have one id or one key.
    pub fn engine(mut self, settings: Settings) -> Result<Engine, BadEntry> {
        let (epoch, last) = (settings.epoch, self.state.epoch);
        if epoch <= last {
            let (number, last) = (epoch.to_bits().into(), last.to_bits().into());
            return Err(BadEntry::OutOfOrder { what: "epoch", number, last });
        }
        self.state.index()?;
        let mut engine = Engine::with(settings, self.state, self.last, self.time);
        engine.restored_tokens = self.tokens;
        Ok(engine)
    }
}
