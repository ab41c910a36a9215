//! TLS to the database: what is checked of the server, and what is shown of the client.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::der::PublicKey;

/// How much of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// That the server holds the certificate's key, and nothing of the certificate itself.
    Nothing,
    /// That an authority has signed it.
    Chain,
    /// That an authority has signed it for the host that was asked for.
    Full,
}

/// The files that prove who the client is, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientFiles {
    pub(super) cert: String,
    pub(super) key: String,
}

/// What a connection string says of TLS.
#[derive(Debug, Clone)]
pub(super) struct TlsOptions {
    /// False where no connection is encrypted: the files are not read then, as in libpq.
    pub(super) used: bool,
    pub(super) verify: Verify,
    pub(super) root: Option<String>,
    pub(super) client: Option<ClientFiles>,
    /// Whether the host's name is sent in the clear.
    pub(super) sni: bool,
    /// Whether TLS begins without asking the server for it.
    pub(super) direct: bool,
    pub(super) oldest_is_13: bool,
    pub(super) newest_is_12: bool,
}

impl TlsOptions {
    /// No TLS: a socket of this machine.
    pub(super) const OFF: TlsOptions = TlsOptions {
        used: false,
        verify: Verify::Nothing,
        root: None,
        client: None,
        sni: true,
        direct: false,
        oldest_is_13: false,
        newest_is_12: false,
    };
}

/// Makes what connections are encrypted with, and reads the files for it.
///
/// # Errors
/// Everything that is wrong with the files, a sentence each.
pub(super) fn connector(options: &TlsOptions) -> Result<MakeRustlsConnect, Vec<String>> {
    let mut faults = Vec::new();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verify = if options.used {
        options.verify
    } else {
        Verify::Nothing
    };
    let root = options.root.as_deref();
    let check = match verify {
        Verify::Nothing => Check::Nothing,
        Verify::Chain => roots(root).map_or_else(
            |why| {
                faults.push(why);
                Check::Nothing
            },
            Check::Chain,
        ),
        Verify::Full => full(root, &provider).unwrap_or_else(|why| {
            faults.push(why);
            Check::Nothing
        }),
    };
    let client = options.client.as_ref().filter(|_| options.used);
    let client = client.and_then(|files| {
        let shown = client_key(files, &provider);
        shown.map_err(|why| faults.push(why)).ok()
    });
    let versions: &[_] = match (options.oldest_is_13, options.newest_is_12) {
        (true, _) => &[&TLS13],
        (false, true) => &[&TLS12],
        (false, false) => &[&TLS13, &TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| vec![format!("TLS cannot be used: {error}")])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { check, provider }));
    let mut config = match client {
        Some(shown) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))),
        None => builder.with_no_client_auth(),
    };
    config.enable_sni = options.sni;
    if options.direct {
        // A server that is spoken to in TLS at once takes it for PostgreSQL by this name alone.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    if faults.is_empty() {
        Ok(MakeRustlsConnect::new(config))
    } else {
        Err(faults)
    }
}

fn full(root: Option<&str>, provider: &Arc<CryptoProvider>) -> Result<Check, String> {
    let roots = roots(root)?;
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .build()
        .map(Check::Full)
        .map_err(|error| format!("sslrootcert cannot be used: {error}"))
}

fn roots(path: Option<&str>) -> Result<Arc<RootCertStore>, String> {
    let mut store = RootCertStore::empty();
    match path.filter(|path| *path != "system") {
        Some(path) => {
            for certificate in certificates("sslrootcert", path)? {
                let added = store.add(certificate);
                added.map_err(|error| format!("sslrootcert {path}: {error}"))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(
                    "sslrootcert must name a file of certificates to trust: the system \
                            has none"
                        .to_owned(),
                );
            }
        }
    }
    Ok(Arc::new(store))
}

fn certificates(name: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn Display| format!("{name} {path}: {error}");
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(&error))?
        .collect();
    let found = found.map_err(|error| wrong(&error))?;
    if found.is_empty() {
        return Err(wrong(&"there is no certificate in PEM in it"));
    }
    Ok(found)
}

/// Reads the client's certificate and key; the certificate may be of version 1.
fn client_key(files: &ClientFiles, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = certificates("sslcert", &files.cert)?;
    let path = Path::new(&files.key);
    let wrong = |why: &dyn Display| format!("sslkey {}: {why}", files.key);
    let found = std::fs::metadata(path).map_err(|error| wrong(&error))?;
    // libpq's own rule. A key that others can read proves nothing.
    let allowed = if found.uid() == 0 { 0o740 } else { 0o700 };
    if found.mode() & 0o777 & !allowed != 0 {
        return Err(wrong(
            &"others can read it; run chmod 600 on it (root's file: chmod 640)",
        ));
    }
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| wrong(&error))?;
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| wrong(&error))?;
    let certified = chain
        .first()
        .and_then(|cert| PublicKey::of_certificate(cert));
    let own = key.public_key();
    if let (Some(certified), Some(own)) = (certified, own)
        && certified.der != own.as_ref()
    {
        return Err(wrong(&"it is not the key of the certificate in sslcert"));
    }
    Ok(CertifiedKey::new(chain, key))
}

/// What is checked of a server's certificate.
#[derive(Debug)]
enum Check {
    Nothing,
    Chain(Arc<RootCertStore>),
    Full(Arc<WebPkiServerVerifier>),
}

/// Checks as much as the mode asks for, as libpq does.
#[derive(Debug)]
struct Verifier {
    check: Check,
    provider: Arc<CryptoProvider>,
}

/// A certificate of version 1 has no extensions: it can name no host.
const VERSION_1: &str = "the server's certificate cannot be verified: it is of X.509 version 1, or \
                         malformed; make one of version 3 with a subjectAltName, or use \
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
            // The certificate may be of a kind that cannot be verified: its key is all that counts.
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
    use super::*;
    use crate::postgres::Target;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::ServerConfig;
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// An element of DER with content of up to 65,535 bytes.
    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82, length[0], length[1]], content].concat()
    }

    /// A certificate of version 1 as Citus makes one: no version, no extensions. Its own signature
    /// is wrong, which nobody looks at who verifies nothing.
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

    /// Listens as PostgreSQL does up to the startup message; whether a client sends one in TLS.
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
            // The server says nothing after the startup message.
            Ok(_) => String::new(),
            Err(error) => crate::postgres::explain(&error),
        };
        (server.await.unwrap(), error)
    }

    #[tokio::test]
    async fn a_version_1_certificate_will_do_unless_it_is_verified() {
        let key = KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root.pem");
        let made = CertificateParams::new(["h".to_owned()]).unwrap();
        std::fs::write(&root, made.self_signed(&key).unwrap().pem()).unwrap();
        for version in ["TLSv1.2", "TLSv1.3"] {
            let versions =
                format!("ssl_min_protocol_version={version} ssl_max_protocol_version={version}");
            for mode in ["prefer", "require"] {
                let words = format!("sslmode={mode} {versions}");
                let (good, error) = is_let_in(version_1(&key), &key, &words).await;
                assert!(good, "{words}: {error}");
            }
            // Who does not hold the certificate's key is not its server.
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

    #[test]
    fn every_tls_file_that_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let [key, other] = [(); 2].map(|()| KeyPair::generate().unwrap());
        let cert = CertificateParams::new(["h".to_owned()]).unwrap();
        std::fs::write(path("cert"), cert.self_signed(&key).unwrap().pem()).unwrap();
        for (name, key) in [("key", &key), ("other", &other)] {
            std::fs::write(path(name), key.serialize_pem()).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(path(name), mode).unwrap();
        }
        let faults = |words: String| match Target::from_url(&format!("host=h {words}")) {
            Ok(_) => Vec::new(),
            Err(error) => error.0,
        };
        let good = format!("sslcert={} sslkey={}", path("cert"), path("key"));
        assert_eq!(faults(good.clone()), Vec::<String>::new());
        let wrong = format!("sslcert={} sslkey={}", path("cert"), path("other"));
        assert!(faults(wrong)[0].contains("not the key of the certificate"));
        let missing = format!(
            "sslmode=verify-ca sslrootcert={} sslcert={} sslkey={}",
            path("no"),
            path("none"),
            path("key")
        );
        let said = faults(missing);
        assert!(
            said.len() == 2 && said[0].starts_with("sslrootcert") && said[1].starts_with("sslcert"),
            "{said:?}"
        );
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(path("key"), mode).unwrap();
        assert!(faults(good)[0].contains("chmod 600"));
    }
}
