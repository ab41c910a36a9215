//! Authentication: API keys, their rights, their rates and the devices they may send for.
//!
//! | file | what it holds |
//! | --- | --- |
//! | [`key`] | a key's text, its hash, its rights, and its stored record |
//! | [`mod@file`] | the keys of a data directory, in a file that changes atomically |
//! | [`keyring`] | the keys in memory, renewed when the file changes |
//! | [`certificate`] | a client certificate that stands for a key |
//! | [`bucket`] | a rate of readings |
//!
//! The file is the truth, whether or not the database or the gateway runs. Only the SHA-256 of a key is
//! stored. 256 random bits cannot be guessed, so a slow hash would cost the gateway time and protect
//! nothing.
//!
//! Absent on purpose: the database, and HTTP. The table of routes names the rights of each.

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
