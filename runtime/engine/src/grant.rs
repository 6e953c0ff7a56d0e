//! The cell that local holders of one lock meet in: one word, one CAS, no message.

use crate::sync::{AtomicU32, AtomicU64, Ordering};
use kiln_protocol::Token;
use kiln_protocol::message::Mode;

const GRANT_MASK: u32 = 0b11;
const GRANT_READ: u32 = 1;
const GRANT_WRITE: u32 = 2;
/// Only the lock's state machine admits holders, and releases must tell it.
const CLOSED: u32 = 1 << 2;
const WRITER: u32 = 1 << 3;
const READER: u32 = 1 << 4;

/// What the node was granted, and who holds it here.
///
/// # Invariants
/// 1. `WRITER` is set by at most one holder, and only while there are no readers and the grant is a write grant.
/// 2. Readers are counted only while there is a grant and no writer.
/// 3. The token is stored before the grant bits that it belongs to, and not changed while a writer holds.
#[derive(Debug)]
pub struct GrantCell {
    word: AtomicU32,
    token: AtomicU64,
}

impl Default for GrantCell {
    fn default() -> Self {
        Self { word: AtomicU32::new(0), token: AtomicU64::new(0) }
    }
}

const fn grant_bits(grant: Option<Mode>) -> u32 {
    match grant {
        None => 0,
        Some(Mode::Read) => GRANT_READ,
        Some(Mode::Write) => GRANT_WRITE,
    }
}

/// What admitting a holder of this mode adds, and which bits must be clear for it.
const fn admission(mode: Mode) -> (u32, u32) {
    match mode {
        Mode::Read => (READER, WRITER),
        Mode::Write => (WRITER, !(GRANT_MASK | CLOSED)),
    }
}

impl GrantCell {
    fn admit(&self, mode: Mode, refused: u32) -> bool {
        let (add, busy) = admission(mode);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & GRANT_MASK < grant_bits(Some(mode)) || word & (busy | refused) != 0 {
                return false;
            }
            // Acquire: pairs with the release in `leave` and in `set_grant`, so that this holder sees what earlier
            // holders published and the token of the grant.
            match self.word.compare_exchange_weak(word, word + add, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Takes the lock if the cached grant and the local holders allow it at once.
    pub fn try_enter(&self, mode: Mode) -> bool {
        self.admit(mode, CLOSED)
    }

    /// As `try_enter`, for the state machine: also while the cell is closed.
    pub(crate) fn enter_closed(&self, mode: Mode) -> bool {
        self.admit(mode, 0)
    }

    /// Leaves the lock. `true`: the state machine must be told.
    pub fn leave(&self, mode: Mode) -> bool {
        let (held, _) = admission(mode);
        // Release: pairs with the acquire in `admit`.
        let before = self.word.fetch_sub(held, Ordering::Release);
        debug_assert!(before & !(GRANT_MASK | CLOSED) >= held, "left a lock that was not held");
        before & CLOSED != 0
    }

    /// The token of the present grant. Meaningful to a holder.
    pub fn token(&self) -> Token {
        // Relaxed: a holder entered through `admit`, which acquired the grant bits stored after the token.
        Token::from_bits(self.token.load(Ordering::Relaxed))
    }

    /// Sets the grant. Holders stay counted.
    pub(crate) fn set_grant(&self, grant: Option<Mode>, token: Token) {
        self.token.store(token.to_bits(), Ordering::Relaxed);
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let next = (word & !GRANT_MASK) | grant_bits(grant);
            // Release: pairs with the acquire in `admit`. Acquire: a grant is given back after all holders left.
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// From now on only the state machine admits holders.
    pub(crate) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Holders enter on their own again.
    pub(crate) fn open(&self) {
        self.word.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// Whether a local writer holds the lock.
    pub(crate) fn has_writer(&self) -> bool {
        self.word.load(Ordering::Acquire) & WRITER != 0
    }

    /// Whether nobody here holds the lock.
    pub(crate) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Acquire) & !(GRANT_MASK | CLOSED) == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use kiln_protocol::Epoch;

    fn token(number: u64) -> Token {
        Token::new(Epoch::from_bits(1), number).expect("small numbers fit")
    }

    #[test]
    fn nobody_enters_without_a_grant() {
        let cell = GrantCell::default();
        assert!(!cell.try_enter(Mode::Read));
        assert!(!cell.try_enter(Mode::Write));
    }

    #[test]
    fn a_write_grant_admits_one_writer_or_many_readers() {
        let cell = GrantCell::default();
        cell.set_grant(Some(Mode::Write), token(1));
        assert!(cell.try_enter(Mode::Write));
        assert!(!cell.try_enter(Mode::Write));
        assert!(!cell.try_enter(Mode::Read));
        assert!(!cell.leave(Mode::Write));
        assert!(cell.try_enter(Mode::Read));
        assert!(cell.try_enter(Mode::Read));
        assert!(!cell.try_enter(Mode::Write));
    }

    #[test]
    fn a_read_grant_admits_no_writer() {
        let cell = GrantCell::default();
        cell.set_grant(Some(Mode::Read), token(1));
        assert!(!cell.try_enter(Mode::Write));
        assert!(cell.try_enter(Mode::Read));
    }

    #[test]
    fn a_closed_cell_tells_of_releases() {
        let cell = GrantCell::default();
        cell.set_grant(Some(Mode::Write), token(1));
        assert!(cell.try_enter(Mode::Write));
        cell.close();
        assert!(cell.leave(Mode::Write));
        assert!(!cell.try_enter(Mode::Write));
        assert!(cell.enter_closed(Mode::Write));
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use crate::sync::Arc;
    use kiln_protocol::Epoch;

    /// A recall that meets a writer in any order: either the writer's release tells the state machine, or the state
    /// machine sees the cell idle. Never neither, or the recall would wait for ever.
    #[test]
    fn a_recall_is_never_missed() {
        loom::model(|| {
            let cell = Arc::new(GrantCell::default());
            cell.set_grant(Some(Mode::Write), Token::new(Epoch::from_bits(1), 1).unwrap());
            let holder = {
                let cell = Arc::clone(&cell);
                loom::thread::spawn(move || cell.try_enter(Mode::Write) && cell.leave(Mode::Write))
            };
            cell.close();
            let idle = cell.is_idle();
            let told = holder.join().unwrap();
            assert!(idle || told);
            assert!(cell.is_idle());
        });
    }

    /// Two writers and a reader never hold at once.
    #[test]
    fn holders_exclude_each_other() {
        loom::model(|| {
            let cell = Arc::new(GrantCell::default());
            let inside = Arc::new(AtomicU32::new(0));
            cell.set_grant(Some(Mode::Write), Token::new(Epoch::from_bits(1), 1).unwrap());
            let enter = |mode: Mode| {
                let (cell, inside) = (Arc::clone(&cell), Arc::clone(&inside));
                move || {
                    if cell.try_enter(mode) {
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                        let _ = inside.fetch_sub(1, Ordering::Relaxed);
                        let _ = cell.leave(mode);
                    }
                }
            };
            let other = loom::thread::spawn(enter(Mode::Write));
            enter(Mode::Write)();
            enter(Mode::Read)();
            other.join().unwrap();
        });
    }
}
