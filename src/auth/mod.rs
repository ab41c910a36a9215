//! Who may call: API keys, their rights, their rates and the devices they may speak for.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`key`] | a key's text, its hash, its rights, and what is kept of it |
//! | [`mod@file`] | the keys of a data directory: read, changed atomically |
//! | [`keyring`] | the keys in memory, found by a request's text, renewed when the file changes |
//! | [`certificate`] | a client certificate that stands for a key |
//! | [`bucket`] | a rate of readings |
//!
//! The file is the truth: it is there whether or not the database is, and whether or not the
//! gateway runs. Of a key only its SHA-256 is kept: 256 random bits cannot be guessed, so that a
//! slow hash would add cost for the gateway and none for a thief.
//!
//! Absent on purpose: HTTP (which route needs which right stands beside the routes) and the
//! database.

pub mod bucket;
pub mod certificate;
pub mod file;
mod hex;
pub mod key;
pub mod keyring;

pub use bucket::Bucket;
pub use certificate::Fingerprint;
pub use file::{KeyFile, KeyFileError};
pub use key::{Record, Rights, Secret};
pub use keyring::{Certified, Key, Keyring};

/// Which clients may call `/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Every client that reaches the address.
    Off,
    /// Only clients that send a key.
    Keys,
}
