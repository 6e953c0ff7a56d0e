//! Keys of the QUIC endpoint that outlive the process. With them a restarted coordinator answers packets of connections
//! it no longer knows with a stateless reset, so nodes notice the restart at once and not after the idle timeout.

use super::{DirectoryError, file};
use std::fmt::Write as _;
use std::path::Path;

const RESET_KEY_BYTES: usize = 64;
const CONNECTION_ID_KEY_BYTES: usize = 8;
const ALL_BYTES: usize = RESET_KEY_BYTES + CONNECTION_ID_KEY_BYTES;

/// The keys.
pub(crate) struct QuicKeys {
    /// Signs stateless resets.
    pub(crate) reset: [u8; RESET_KEY_BYTES],
    /// Marks connection ids as this coordinator's.
    pub(crate) connection_id: u64,
}

pub(super) fn load_or_create(path: &Path) -> Result<QuicKeys, DirectoryError> {
    if let Some(text) = file::read_private(path)? {
        return parse(text.trim()).ok_or_else(|| DirectoryError::Corrupt {
            path: path.to_owned(),
            what: format!("it is not {ALL_BYTES} bytes in hex"),
            advice: "remove it to have a new one made (attached nodes then notice the restart later)",
        });
    }
    let bytes: [u8; ALL_BYTES] = super::authority::random()?;
    let mut text = String::with_capacity(2 * ALL_BYTES + 1);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all text");
    }
    file::write(path, &format!("{text}\n"))?;
    Ok(split(&bytes))
}

fn parse(text: &str) -> Option<QuicKeys> {
    let digits = text.as_bytes();
    if digits.len() != 2 * ALL_BYTES {
        return None;
    }
    let mut bytes = [0; ALL_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(split(&bytes))
}

fn split(bytes: &[u8; ALL_BYTES]) -> QuicKeys {
    let (reset, connection_id) = bytes.split_at(RESET_KEY_BYTES);
    QuicKeys {
        reset: reset.try_into().expect("cut to this length"),
        connection_id: u64::from_le_bytes(connection_id.try_into().expect("cut to this length")),
    }
}
