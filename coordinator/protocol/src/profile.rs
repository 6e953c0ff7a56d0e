//! The client profile: where the coordinator is, and what to show it. The coordinator writes it (`kiln.toml`), whoever
//! attaches reads it.
//!
//! Text in, text out: whoever calls reads and writes the file, and keeps its mode at 0600.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What the keys of a profile mean; every one of them is needed.
const KEYS: [(&str, &str); 5] = [
    ("address", "the coordinator's `host:port`"),
    ("server_name", "the name in the coordinator's certificate"),
    ("ca", "the coordinator's CA certificate (PEM)"),
    ("certificate", "the client certificate (PEM)"),
    ("key", "the client certificate's private key (PEM)"),
];

const HEAD: &str = "\
# Kiln client profile, written by the coordinator. Copy it to every machine whose programs attach.
# It holds a private key: keep it readable by its owner only (mode 0600), and out of version control.

";

/// How to reach a coordinator, and the credentials it asks for.
#[derive(Clone, Eq, PartialEq)]
pub struct Profile {
    /// The coordinator's `host:port`; an IPv6 address stands in brackets.
    pub address: String,
    /// The name that the coordinator's certificate is checked against: a host name or an IP address.
    pub server_name: String,
    /// The CA certificate that the coordinator's certificate is checked against, as PEM.
    pub ca: String,
    /// The client certificate, as PEM.
    pub certificate: String,
    /// The private key of the client certificate, as PEM. Never printed by `Debug`.
    pub key: String,
}

/// A text that is not a profile. The name of the file is the caller's to add.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProfileError {
    /// The text is not TOML.
    #[error("line {line} is not TOML: {what}; let the coordinator write the profile again")]
    Syntax {
        /// Where, from 1.
        line: usize,
        /// What the parser says.
        what: String,
    },
    /// A key is not there.
    #[error("key `{key}` is missing: {meaning}; let the coordinator write the profile again")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it is for.
        meaning: &'static str,
    },
    /// A key that no profile has.
    #[error(
        "key `{key}` is unknown: a profile has `address`, `server_name`, `ca`, `certificate` and `key`, and nothing else"
    )]
    Unknown {
        /// The key.
        key: String,
    },
    /// The value of a key cannot be used.
    #[error("key `{key}` ({meaning}) is wrong: {what}")]
    Wrong {
        /// The key.
        key: &'static str,
        /// What it is for.
        meaning: &'static str,
        /// What is wrong.
        what: &'static str,
    },
}

/// The keys in the order of the file: what one has to edit comes first.
#[derive(Deserialize, Serialize)]
struct Text {
    address: String,
    server_name: String,
    ca: String,
    certificate: String,
    key: String,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// When the text is not TOML, or a key is missing, unknown or cannot be used.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let mut table: toml::Table = text.parse().map_err(|error| syntax(text, &error))?;
        let values = KEYS.map(|(key, meaning)| match table.remove(key) {
            Some(toml::Value::String(value)) => Ok(value),
            Some(_) => Err(wrong(key, "it is not a string")),
            None => Err(ProfileError::Missing { key, meaning }),
        });
        let [address, server_name, ca, certificate, key] = values;
        // A misspelt key shows up twice: as missing, and as unknown. The unknown one tells more.
        if let Some(key) = table.keys().next() {
            return Err(ProfileError::Unknown { key: key.clone() });
        }
        let profile =
            Self { address: address?, server_name: server_name?, ca: ca?, certificate: certificate?, key: key? };
        profile.check()?;
        Ok(profile)
    }

    /// The text of the profile.
    #[must_use]
    pub fn print(&self) -> String {
        let text = Text {
            address: self.address.clone(),
            server_name: self.server_name.clone(),
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        };
        let body = toml::to_string_pretty(&text).expect("five strings are always TOML");
        format!("{HEAD}{body}")
    }

    /// Host and port of the address.
    ///
    /// # Errors
    /// When the address is not `host:port` with a port above 0.
    pub fn host_and_port(&self) -> Result<(&str, u16), ProfileError> {
        split_address(&self.address).map_err(|what| wrong("address", what))
    }

    fn check(&self) -> Result<(), ProfileError> {
        self.host_and_port()?;
        if self.server_name.is_empty() {
            return Err(wrong("server_name", "it is empty"));
        }
        for (key, value) in [("ca", &self.ca), ("certificate", &self.certificate)] {
            if !value.contains("-----BEGIN CERTIFICATE-----") {
                return Err(wrong(key, "it holds no `-----BEGIN CERTIFICATE-----`"));
            }
        }
        let private = self.key.contains("-----BEGIN ") && self.key.contains("PRIVATE KEY-----");
        if !private {
            return Err(wrong("key", "it holds no `-----BEGIN PRIVATE KEY-----`"));
        }
        Ok(())
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profile")
            .field("address", &self.address)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Cuts `host:port` in two; brackets around an IPv6 address fall away.
///
/// # Errors
/// What is wrong, to be said beside where the text came from.
pub fn split_address(address: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("it is not `host:port`")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err("an IPv6 address needs brackets, as in `[::1]:4747`");
    }
    let host = bare.unwrap_or(host);
    if host.is_empty() {
        return Err("it has no host");
    }
    match port.parse() {
        Ok(0) | Err(_) => Err("its port is not a number from 1 to 65535"),
        Ok(port) => Ok((host, port)),
    }
}

fn wrong(key: &'static str, what: &'static str) -> ProfileError {
    let meaning = KEYS.iter().find(|(name, _)| *name == key).map_or("", |(_, meaning)| meaning);
    ProfileError::Wrong { key, meaning, what }
}

fn syntax(text: &str, error: &toml::de::Error) -> ProfileError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    // The parser's own Display would quote the line, which may be a line of the key.
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    ProfileError::Syntax { line, what: error.message().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile {
            address: "db.example:4747".into(),
            server_name: "db.example".into(),
            ca: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".into(),
            certificate: "-----BEGIN CERTIFICATE-----\nBB==\n-----END CERTIFICATE-----\n".into(),
            key: "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n".into(),
        }
    }

    fn error_of(text: &str) -> String {
        Profile::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_printed_profile_reads_back() {
        let text = profile().print();
        assert_eq!(Profile::parse(&text), Ok(profile()));
        assert!(text.starts_with("# Kiln client profile"), "{text}");
    }

    #[test]
    fn the_key_is_never_shown() {
        assert!(!format!("{:?}", profile()).contains("secret"));
        let broken = profile().print().replace("secret", "secret\"\"\" = ");
        let message = error_of(&broken);
        assert!(message.starts_with("line "), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn every_key_is_needed_and_no_other_allowed() {
        for (key, meaning) in KEYS {
            let mut table: toml::Table = profile().print().parse().unwrap();
            let value = table.remove(key).unwrap();
            let message = error_of(&table.to_string());
            assert!(message.contains(key) && message.contains(meaning), "{message}");
            table.insert(format!("{key}s"), value);
            assert!(error_of(&table.to_string()).contains(&format!("`{key}s` is unknown")));
            table.remove(&format!("{key}s"));
            table.insert(key.into(), toml::Value::Integer(1));
            assert!(error_of(&table.to_string()).contains("not a string"));
        }
    }

    #[test]
    fn values_are_checked() {
        let with = |change: &dyn Fn(&mut Profile)| {
            let mut profile = profile();
            change(&mut profile);
            error_of(&profile.print())
        };
        assert!(with(&|p| p.address = "db.example".into()).contains("host:port"));
        assert!(with(&|p| p.address = "db.example:0".into()).contains("65535"));
        assert!(with(&|p| p.address = "::1:4747".into()).contains("brackets"));
        assert!(with(&|p| p.server_name.clear()).contains("`server_name`"));
        assert!(with(&|p| p.ca = "x".into()).contains("`ca`"));
        assert!(with(&|p| p.certificate.clear()).contains("`certificate`"));
        assert!(with(&|p| p.key = "-----BEGIN CERTIFICATE-----".into()).contains("`key`"));
    }

    #[test]
    fn addresses_are_cut_in_two() {
        assert_eq!(split_address("[::1]:4747"), Ok(("::1", 4747)));
        assert_eq!(split_address("localhost:1"), Ok(("localhost", 1)));
        assert!(split_address(":1").is_err());
        assert!(split_address("h:70000").is_err());
    }
}
