//! The public key of a certificate, of any version, read from its DER.
//!
//! webpki parses version 3 only. PostgreSQL's manual and Citus make certificates of version 1. A mode
//! that verifies nothing of the certificate needs only its key.

/// The public key in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PublicKey<'a> {
    /// The whole `SubjectPublicKeyInfo`.
    pub(super) der: &'a [u8],
    /// The content of its `AlgorithmIdentifier`.
    pub(super) algorithm: &'a [u8],
    /// The key itself, without the count of unused bits.
    pub(super) bits: &'a [u8],
}

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version`, which version 1 leaves out.
const VERSION: u8 = 0xa0;

impl<'a> PublicKey<'a> {
    /// Finds the key; `None` means that the bytes are not a certificate.
    ///
    /// Source: RFC 5280, section 4.1
    pub(super) fn of_certificate(certificate: &'a [u8]) -> Option<Self> {
        let (certificate, _, _) = element(certificate, SEQUENCE)?;
        let (mut fields, _, _) = element(certificate, SEQUENCE)?;
        if fields.first() == Some(&VERSION) {
            fields = element(fields, VERSION)?.2;
        }
        // The serial number, then the signature, issuer, validity and subject.
        fields = element(fields, INTEGER)?.2;
        for _ in 0..4 {
            fields = element(fields, SEQUENCE)?.2;
        }
        let (key, der, _) = element(fields, SEQUENCE)?;
        let (algorithm, _, rest) = element(key, SEQUENCE)?;
        let (bits, _, _) = element(rest, BIT_STRING)?;
        Some(PublicKey {
            der,
            algorithm,
            bits: bits.strip_prefix(&[0])?,
        })
    }
}

/// Splits off one element with this tag: its content, the whole element, and the bytes after it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[found, first], rest) = input.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, content) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length is in the next one to four bytes.
        0x81..=0x84 => {
            let (bytes, content) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
            (length, content)
        }
        _ => return None,
    };
    let (content, after) = content.split_at_checked(length)?;
    let whole = input.get(..input.len() - after.len())?;
    Some((content, whole, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_certificate_is_found() {
        let made = rcgen::generate_simple_self_signed(["h".to_owned()]).unwrap();
        let der = made.cert.der();
        let key = PublicKey::of_certificate(der).unwrap();
        assert_eq!(key.bits, made.signing_key.public_key_raw());
        assert!(key.der.ends_with(key.bits));
        // A truncated certificate is either not a certificate, or has the same key.
        for length in 0..der.len() {
            let truncated = PublicKey::of_certificate(&der[..length]);
            assert!(truncated.is_none_or(|truncated| truncated == key));
        }
    }
}
