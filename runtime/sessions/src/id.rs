//! The id of a session, which is all that a visitor needs to be that visitor.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;

/// The random bytes of an id: 160 bits.
const ID_BYTES: usize = 20;
/// An id as text: two hexadecimal digits for each byte.
const ID_CHARS: usize = 2 * ID_BYTES;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The id of a session: 160 bits of the system's randomness, in hexadecimal. The visitor's cookie has it; the cluster
/// knows its [hash](Self::key). Its `Debug` form does not show it.
#[derive(Clone, Eq, PartialEq)]
pub struct SessionId([u8; ID_CHARS]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

impl SessionId {
    /// A new one; `None` when the system has no randomness to give.
    #[must_use]
    pub fn random() -> Option<Self> {
        let mut bytes = [0; ID_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let mut text = [0; ID_CHARS];
        write_hex(&bytes, &mut text);
        Some(Self(text))
    }

    /// The id that a text is, if it has the form of one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (id, behind) = Self::split_from(text.as_bytes())?;
        behind.is_empty().then_some(id)
    }

    /// The id at the beginning of a text, and what is behind it.
    pub(crate) fn split_from(text: &[u8]) -> Option<(Self, &[u8])> {
        let (id, behind) = text.split_first_chunk::<ID_CHARS>()?;
        // All of them, without a branch for each.
        let is_hex = id.iter().fold(true, |is_hex, byte| is_hex & matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_hex.then_some((Self(*id), behind))
    }

    /// The id as the cookie has it. Whoever knows it has the session: keep it out of logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The key under which the cluster keeps the session: [`key_of`] the id.
    #[must_use]
    pub fn key(&self) -> String {
        key_of(self.expose())
    }
}

/// The key under which the session with this id is kept: the SHA-256 of the id's text, in hexadecimal. `kiln get
/// sessions KEY` shows the session, and so does `kiln get sessions ID`, since the root says that its keys are hashes.
#[must_use]
pub fn key_of(id: &str) -> String {
    let hash = digest(&SHA256, id.as_bytes());
    let mut text = [0; 64];
    write_hex(hash.as_ref(), &mut text);
    std::str::from_utf8(&text).unwrap_or_default().to_owned()
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_new_and_are_read_back() {
        let (one, other) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(SessionId::parse(one.expose()), Some(one.clone()));
        assert_eq!(one.expose().len(), 40);
    }

    #[test]
    fn what_is_no_id_is_none() {
        let long = "0".repeat(41);
        let upper = "A".repeat(40);
        for text in ["", "0", long.as_str(), upper.as_str(), "g000000000000000000000000000000000000000"] {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_key_is_the_hash_and_nothing_shows_the_id() {
        // `printf abc | sha256sum`
        assert_eq!(key_of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let id = SessionId::random().unwrap();
        assert_eq!(id.key(), key_of(id.expose()));
        assert!(!format!("{id:?}").contains(id.expose()));
    }
}
