//! A key's text, its hash and its rights.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;

use super::certificate::Fingerprint;
use super::hex::{hex, sha256, unhex};
use crate::reading::{ID_CHARS_MAX, Timestamp};

/// The prefix of every key. Scanners for secrets can find a key in a repository by it.
const MARK: &str = "wg_";
/// The public part, which lists and logs show.
pub const ID_BYTES: usize = 4;
/// The secret part: 256 bits.
const SECRET_BYTES: usize = 32;
/// `wg_`, the id, `_`, and the secret, in hexadecimal digits.
const TEXT_LEN: usize = MARK.len() + 2 * ID_BYTES + 1 + 2 * SECRET_BYTES;

/// The id of a key: not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(#[serde(with = "super::hex")] [u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl KeyId {
    /// The id in the text of a key, if the text has a key's form.
    pub fn of(text: &[u8]) -> Option<KeyId> {
        let (id, secret) = text
            .strip_prefix(MARK.as_bytes())
            .filter(|_| text.len() == TEXT_LEN)?
            .split_at_checked(2 * ID_BYTES)?;
        let secret = secret.strip_prefix(b"_")?;
        let lower = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
        if !secret.iter().all(lower) {
            return None;
        }
        unhex(id).map(KeyId)
    }
}

/// The text of a key, which its owner sees once.
///
/// Only [`Secret::reveal`] shows it; `Debug` does not.
pub struct Secret(String);

impl Secret {
    /// Makes a key from the system's random bytes.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; ID_BYTES + SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        let (id, secret) = bytes.split_at(ID_BYTES);
        Ok(Secret(format!("{MARK}{}_{}", hex(id), hex(secret))))
    }

    /// The key's id.
    pub fn id(&self) -> KeyId {
        // The text was made in this form.
        KeyId::of(self.0.as_bytes()).unwrap_or(KeyId([0; ID_BYTES]))
    }

    /// The hash, which is stored.
    pub fn hash(&self) -> Hash {
        Hash::of(self.0.as_bytes())
    }

    /// The text itself, to show once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.id())
    }
}

/// The SHA-256 of a key's text.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Hash(#[serde(with = "super::hex")] [u8; 32]);

impl Hash {
    /// Hashes a text.
    pub fn of(text: &[u8]) -> Self {
        Hash(sha256(text))
    }

    /// Whether two hashes are equal, in constant time.
    pub fn is(&self, other: &Hash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(…)")
    }
}

/// The set of rights of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

impl Rights {
    /// Send readings, and report charging sessions.
    pub const INGEST: Rights = Rights(1);
    /// Read.
    pub const READ: Rights = Rights(2);
    /// Declare meters, change sessions, acknowledge alerts and mute devices.
    pub const ADMIN: Rights = Rights(4);

    const NAMES: [(&'static str, Rights); 3] = [
        ("ingest", Rights::INGEST),
        ("read", Rights::READ),
        ("admin", Rights::ADMIN),
    ];

    /// The union of two sets.
    #[must_use]
    pub const fn or(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// Whether the sets share a right.
    pub const fn any_of(self, rights: Rights) -> bool {
        self.0 & rights.0 != 0
    }

    /// Reads names between commas, at least one.
    ///
    /// # Errors
    /// A sentence that names the unknown right.
    pub fn parse(text: &str) -> Result<Rights, String> {
        let mut rights = Rights::default();
        for name in text.split(',').map(str::trim) {
            let known = Rights::NAMES.iter().find(|(known, _)| *known == name);
            let (_, right) = known.ok_or_else(|| {
                format!("{name:?} is not a right; the rights are ingest, read and admin")
            })?;
            rights = rights.or(*right);
        }
        Ok(rights)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Rights::NAMES.iter().filter(|(_, r)| self.any_of(*r));
        let names: Vec<&str> = names.map(|(name, _)| *name).collect();
        f.write_str(&names.join(","))
    }
}

/// The stored record of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The public part of the key's text.
    pub id: KeyId,
    /// Its name, unique among keys that are not revoked.
    pub name: String,
    /// The hash of its text.
    pub sha256: Hash,
    /// Its rights.
    pub rights: Rights,
    /// The prefix of its devices' ids. `None` means any device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Readings a second. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// The client certificate that stands for the key. `None` means that only its text does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Fingerprint>,
    /// When it was created.
    #[serde(with = "time")]
    pub created_at: Option<Timestamp>,
    /// When it expires.
    #[serde(default, with = "time", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, with = "time", skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

impl Record {
    /// Whether the key is neither revoked nor expired.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }
}

/// Checks the name of a key, or a prefix of device ids.
///
/// # Errors
/// A sentence about what is wrong.
pub fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.is_empty() || text.chars().count() > ID_CHARS_MAX || text.chars().any(char::is_control)
    {
        return Err(format!(
            "{what} must be 1 to {ID_CHARS_MAX} characters of printable text"
        ));
    }
    Ok(())
}

impl Serialize for Rights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Rights::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Times as RFC 3339, for operators who read the file.
mod time {
    use super::{Deserialize, Deserializer, Serializer, Timestamp};

    pub(super) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.collect_str(at),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Some(Timestamp::from_micros(at.as_microsecond())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_prefix_an_id_and_256_random_bits() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_eq!(one.reveal().len(), TEXT_LEN);
        assert!(one.reveal().starts_with(&format!("wg_{}_", one.id())));
        assert!(!one.hash().is(&other.hash()));
        assert!(one.hash().is(&Hash::of(one.reveal().as_bytes())));
    }

    #[test]
    fn a_text_without_the_form_of_a_key_has_no_id() {
        let good = Secret::generate().unwrap();
        let good = good.reveal();
        assert!(KeyId::of(good.as_bytes()).is_some());
        let wrong = [
            "",
            "wg_",
            &good[1..],
            &good[..good.len() - 1],
            &good.to_uppercase(),
            &good.replace("wg_", "wG_"),
            &good.replacen('_', "-", 2),
            &format!("{good}0"),
        ];
        for text in wrong {
            assert!(KeyId::of(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_secret_and_its_hash_are_not_shown_by_accident() {
        let secret = Secret::generate().unwrap();
        let hidden = secret.reveal().rsplit('_').next().unwrap();
        assert!(!format!("{secret:?}").contains(hidden));
        assert_eq!(format!("{:?}", secret.hash()), "Hash(…)");
    }

    #[test]
    fn rights_are_read_by_name() {
        let both = Rights::parse("read, ingest").unwrap();
        assert_eq!(both.to_string(), "ingest,read");
        assert!(both.any_of(Rights::INGEST.or(Rights::ADMIN)) && !both.any_of(Rights::ADMIN));
        for wrong in ["", "write", "ingest,", "Ingest"] {
            assert!(Rights::parse(wrong).is_err(), "{wrong}");
        }
    }
}
