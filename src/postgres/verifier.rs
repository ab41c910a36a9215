//! How much of a PostgreSQL server's certificate is verified.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};

use super::der::PublicKey;

/// How a server's certificate is verified.
#[derive(Debug)]
pub(super) enum Check {
    /// Only that the server holds the certificate's key; nothing in the certificate itself is verified.
    Nothing,
    /// That an authority has signed it.
    Chain(Arc<RootCertStore>),
    /// That an authority has signed it for the requested host.
    Full(Arc<WebPkiServerVerifier>),
}

/// Checks as much as `sslmode` demands, as libpq does.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) check: Check,
    pub(super) provider: Arc<CryptoProvider>,
}

/// A certificate of version 1 has no extensions, so it cannot name a host.
const VERSION_1: &str = "the server's certificate cannot be verified: it has X.509 version 1, or \
                         is malformed; create one of version 3 with a subjectAltName, or use \
                         sslmode=require, which verifies nothing";

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = || {
            ParsedCertificate::try_from(end_entity)
                .map_err(|_| rustls::Error::General(VERSION_1.to_owned()))
        };
        match &self.check {
            Check::Nothing => Ok(ServerCertVerified::assertion()),
            Check::Chain(roots) => {
                verify_server_cert_signed_by_trust_anchor(
                    &parsed()?,
                    roots,
                    intermediates,
                    now,
                    self.provider.signature_verification_algorithms.all,
                )?;
                Ok(ServerCertVerified::assertion())
            }
            Check::Full(verifier) => {
                parsed()?;
                verifier.verify_server_cert(
                    end_entity,
                    intermediates,
                    server_name,
                    ocsp_response,
                    now,
                )
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        match (&self.check, PublicKey::of_certificate(cert)) {
            // The certificate may be of a kind that cannot be verified: only its key matters.
            (Check::Nothing, Some(key)) => {
                let same = |(scheme, _): &&(SignatureScheme, _)| *scheme == dss.scheme;
                let algorithms = known.mapping.iter().find(same).map(|(_, found)| *found);
                let algorithms = algorithms.unwrap_or_default().iter();
                let mut fitting =
                    algorithms.filter(|known| known.public_key_alg_id().as_ref() == key.algorithm);
                fitting
                    .any(|known| {
                        known
                            .verify_signature(key.bits, message, dss.signature())
                            .is_ok()
                    })
                    .then(HandshakeSignatureValid::assertion)
                    .ok_or(rustls::CertificateError::BadSignature.into())
            }
            _ => rustls::crypto::verify_tls12_signature(message, cert, dss, known),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        match (&self.check, PublicKey::of_certificate(cert)) {
            (Check::Nothing, Some(key)) => rustls::crypto::verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(key.der),
                dss,
                known,
            ),
            _ => rustls::crypto::verify_tls13_signature(message, cert, dss, known),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::ServerConfig;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::postgres::Target;

    /// An element of DER with content of up to 65,535 bytes.
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], content].concat()
    }

    /// A certificate of version 1 as Citus makes one: no version, no extensions. Its own signature
    /// is wrong, which does not matter if nothing is verified.
    fn version_1(key: &KeyPair) -> CertificateDer<'static> {
        let made = CertificateParams::new(["h".to_owned()]).unwrap();
        let made = made.self_signed(key).unwrap();
        let public = PublicKey::of_certificate(made.der()).unwrap().der;
        let algorithm = element(0x30, &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
        let time = |text: &[u8]| element(0x17, text);
        let validity = [time(b"200101000000Z"), time(b"400101000000Z")].concat();
        let fields = [
            element(0x02, &[1]),
            algorithm.clone(),
            element(0x30, &[]),
            element(0x30, &validity),
            element(0x30, &[]),
            public.to_vec(),
        ];
        let signature = element(0x03, &[0, 1, 2, 3]);
        let body = element(0x30, &fields.concat());
        element(0x30, &[body, algorithm, signature].concat()).into()
    }

    /// Listens as PostgreSQL does, up to the startup message. Returns whether a client sent one over TLS.
    async fn is_let_in(
        cert: CertificateDer<'static>,
        key: &KeyPair,
        words: &str,
    ) -> (bool, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let key = provider.key_provider.load_private_key(key.into()).unwrap();
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![cert], key));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            socket.read_exact(&mut request).await.unwrap();
            socket.write_all(b"S").await.unwrap();
            let Ok(mut socket) = acceptor.accept(socket).await else {
                return false;
            };
            let mut startup = [0; 64];
            let n = socket.read(&mut startup).await.unwrap_or(0);
            startup[..n].windows(4).any(|part| part == b"user")
        });
        let url = format!("host=127.0.0.1 port={port} user=u {words}");
        let error = match Target::from_url(&url)
            .unwrap()
            .connect("test", crate::postgres::Use::Command)
            .await
        {
            // The server sends nothing after the startup message.
            Ok(_) => String::new(),
            Err(error) => crate::postgres::explain(&error),
        };
        (server.await.unwrap(), error)
    }

    #[tokio::test]
    async fn a_version_1_certificate_is_accepted_unless_verified() {
        let key = KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root.pem");
        let made = CertificateParams::new(["h".to_owned()]).unwrap();
        std::fs::write(&root, made.self_signed(&key).unwrap().pem()).unwrap();
        for version in ["TLSv1.2", "TLSv1.3"] {
            let versions =
                format!("ssl_min_protocol_version={version} ssl_max_protocol_version={version}");
            // Unset, it means `prefer`.
            for mode in ["", "sslmode=prefer", "sslmode=require"] {
                let words = format!("{mode} {versions}");
                let (good, error) = is_let_in(version_1(&key), &key, &words).await;
                assert!(good, "{words}: {error}");
            }
            // A server without the certificate's key is refused.
            let other = KeyPair::generate().unwrap();
            let words = format!("sslmode=require {versions}");
            assert!(!is_let_in(version_1(&key), &other, &words).await.0);
            for mode in ["verify-ca", "verify-full"] {
                let words = format!("sslmode={mode} sslrootcert={} {versions}", root.display());
                let (good, error) = is_let_in(version_1(&key), &key, &words).await;
                assert!(!good && error.contains("version 3"), "{words}: {error}");
            }
        }
    }
}
