//! The fingerprint of a client certificate: the SHA-256 of its bytes.

use std::fmt;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::hex::{hex, sha256};

/// The SHA-256 of a certificate in DER. It is not secret; `openssl x509 -fingerprint -sha256` prints it
/// with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(#[serde(with = "super::hex")] [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        Fingerprint(sha256(der))
    }

    /// The fingerprint of the first certificate in a PEM file, which is the client's own.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn of_pem_file(path: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
        let der = CertificateDer::from_pem_file(path).map_err(|error| wrong(&error))?;
        Ok(Fingerprint::of(&der))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}
