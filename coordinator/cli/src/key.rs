//! Keys as people type and read them: strings as they are, integers in decimal, everything else as `hex:...`.

use crate::output::unshown;
use kiln_protocol::limits::KEY_BYTES_MAX;
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;

const HEX: &str = "hex:";

/// The key of what people know an object by, in a root of which it is said that its keys are hashes.
pub(crate) fn hashed(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key that the root cannot have.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("`{text}` is not a key of this root: its keys are `{structure}`, from {min} to {max}")]
    Integer { text: String, structure: String, min: String, max: String },
    #[error(
        "`{text}` is not a key of this root: its keys are `{structure}`; write `hex:` and an even number of hex digits"
    )]
    Hex { text: String, structure: String },
    #[error("this key has {bytes} bytes, the limit is {KEY_BYTES_MAX}")]
    TooLong { bytes: usize },
}

/// The integer types that keys can have: how many bytes, and whether signed.
fn integer(structure: &str) -> Option<(u32, bool)> {
    let (signed, bits) = match structure.split_at_checked(1)? {
        ("u", bits) => (false, bits),
        ("i", bits) => (true, bits),
        _ => return None,
    };
    match bits {
        "8" | "16" | "32" | "64" | "128" => Some((bits.parse::<u32>().ok()? / 8, signed)),
        _ => None,
    }
}

/// The keys that a text from the command line may mean: the one that `kiln ls` shows like this, then the one that is
/// this text.
pub(crate) fn readings(structure: &str, text: &str) -> Result<Vec<Vec<u8>>, KeyError> {
    let unshown = unshown(text);
    let mut keys = vec![parse(structure, &unshown)?];
    if unshown != text {
        keys.extend(parse(structure, text));
    }
    Ok(keys)
}

/// The canonical bytes of a key of this structure.
pub(crate) fn parse(structure: &str, text: &str) -> Result<Vec<u8>, KeyError> {
    let bytes = if structure == "string" {
        text.as_bytes().to_vec()
    } else if let Some((bytes, signed)) = integer(structure) {
        parse_integer(structure, text, bytes, signed)?
    } else {
        parse_hex(text).ok_or_else(|| KeyError::Hex { text: text.to_owned(), structure: structure.to_owned() })?
    };
    if bytes.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

#[expect(clippy::big_endian_bytes, reason = "keys order as numbers do")]
fn parse_integer(structure: &str, text: &str, bytes: u32, signed: bool) -> Result<Vec<u8>, KeyError> {
    let bits = bytes * 8;
    let wrong = |min: String, max: String| KeyError::Integer {
        text: text.to_owned(),
        structure: structure.to_owned(),
        min,
        max,
    };
    let number = if signed {
        let (min, max) = (i128::MIN >> (128 - bits), i128::MAX >> (128 - bits));
        match text.parse::<i128>() {
            // Flipping the sign bit makes negative numbers the smaller ones.
            Ok(number) if (min..=max).contains(&number) => number.cast_unsigned() ^ (1 << (bits - 1)),
            _ => return Err(wrong(min.to_string(), max.to_string())),
        }
    } else {
        let max = u128::MAX >> (128 - bits);
        match text.parse::<u128>() {
            Ok(number) if number <= max => number,
            _ => return Err(wrong("0".into(), max.to_string())),
        }
    };
    let all = number.to_be_bytes();
    Ok(all[all.len() - bytes as usize..].to_vec())
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(HEX)?.as_bytes();
    if digits.len() % 2 != 0 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The text of a key, as [`parse`] takes it. Bytes that no key of this structure has are shown in hex.
pub(crate) fn show(structure: &str, bytes: &[u8]) -> String {
    let text = if structure == "string" {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    } else {
        integer(structure).and_then(|(length, signed)| show_integer(bytes, length, signed))
    };
    text.unwrap_or_else(|| {
        let mut text = HEX.to_owned();
        for byte in bytes {
            write!(text, "{byte:02x}").expect("a string takes all text");
        }
        text
    })
}

#[expect(clippy::big_endian_bytes, reason = "keys order as numbers do")]
fn show_integer(bytes: &[u8], length: u32, signed: bool) -> Option<String> {
    if bytes.len() != length as usize {
        return None;
    }
    let mut all = [0; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    let number = u128::from_be_bytes(all);
    if !signed {
        return Some(number.to_string());
    }
    let unused = 128 - length * 8;
    let number = (number ^ (1 << (length * 8 - 1))) << unused;
    Some((number.cast_signed() >> unused).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_shown_alike() {
        for (structure, text, bytes) in [
            ("string", "s-1", &b"s-1"[..]),
            ("string", "hex:00", b"hex:00"),
            ("u8", "255", &[255]),
            ("u32", "258", &[0, 0, 1, 2]),
            ("i8", "-128", &[0]),
            ("i8", "127", &[255]),
            ("i16", "-1", &[0x7f, 0xff]),
            ("i64", "0", &[0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("(u8, string)", "hex:0161", &[1, b'a']),
            ("bytes", "hex:", &[]),
        ] {
            assert_eq!(parse(structure, text).as_deref(), Ok(bytes), "{structure} {text}");
            assert_eq!(show(structure, bytes), text);
        }
        for (structure, text) in [
            ("u128", u128::MAX.to_string()),
            ("i128", i128::MIN.to_string()),
            ("i128", i128::MAX.to_string()),
            ("i128", "-7".to_owned()),
        ] {
            assert_eq!(show(structure, &parse(structure, &text).unwrap()), text);
        }
    }

    #[test]
    fn signed_keys_order_as_numbers() {
        let keys = ["-300", "-1", "0", "1", "300"].map(|text| parse("i32", text).unwrap());
        assert!(keys.is_sorted());
    }

    #[test]
    fn wrong_keys_say_what_would_be_right() {
        let complaint = |structure, text| parse(structure, text).unwrap_err().to_string();
        assert!(complaint("i8", "128").contains("from -128 to 127"));
        assert!(complaint("u16", "-1").contains("from 0 to 65535"));
        assert!(complaint("u16", "x").contains("`x` is not a key"));
        assert!(complaint("bool", "true").contains("hex:"));
        assert!(complaint("bytes", "hex:+1").contains("hex:"));
        assert!(complaint("bytes", "hex:é").contains("hex:"));
        assert!(complaint("string", &"x".repeat(KEY_BYTES_MAX + 1)).contains("1025 bytes"));
    }

    #[test]
    fn bytes_of_another_structure_are_shown_in_hex() {
        assert_eq!(show("u32", &[1]), "hex:01");
        assert_eq!(show("string", &[0xff]), "hex:ff");
    }
}
