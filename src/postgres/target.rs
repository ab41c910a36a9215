//! Which database, and how a session to it is opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sessions::{Opener, Session, Use};

/// Why a database URL, or what it names, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is no URL of PostgreSQL.
    #[error("must be a PostgreSQL URL, as postgres://user@host:5432/database: {0}")]
    Url(String),
    /// Its `sslmode` is none that PostgreSQL knows.
    #[error("sslmode must be disable, prefer, require, verify-ca or verify-full")]
    SslMode,
    /// The certificates to trust cannot be read.
    #[error("cannot read the certificates to trust: {0}")]
    Certificates(String),
}

/// How much of the server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    Full,
}

/// A database that sessions can be opened to.
#[derive(Clone)]
pub struct Target {
    config: Config,
    tls: MakeRustlsConnect,
}

/// Checks a database URL without reaching for anything.
///
/// # Errors
/// What is wrong with it, without repeating it: it holds a password.
pub fn check_url(url: &str) -> Result<(), TargetError> {
    split_ssl(url).and_then(|(rest, _, _)| parse(&rest).map(|_| ()))
}

impl Target {
    /// Takes a URL as libpq does, `sslmode` and `sslrootcert` included.
    ///
    /// `prefer` and `require` encrypt without checking who answers, as libpq does without a root
    /// certificate; `verify-ca` and `verify-full` check against `sslrootcert` or the system's.
    ///
    /// # Errors
    /// [`TargetError`]: the operator has to mend the URL.
    pub fn from_url(url: &str) -> Result<Self, TargetError> {
        let (rest, mode, root) = split_ssl(url)?;
        let mut config = parse(&rest)?;
        let (ssl, verify) = match mode.as_deref() {
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            None | Some("prefer") => (SslMode::Prefer, Verify::Nothing),
            Some("require") if root.is_some() => (SslMode::Require, Verify::Chain),
            Some("require") => (SslMode::Require, Verify::Nothing),
            Some("verify-ca") => (SslMode::Require, Verify::Chain),
            Some("verify-full") => (SslMode::Require, Verify::Full),
            Some(_) => return Err(TargetError::SslMode),
        };
        config.ssl_mode(ssl);
        Ok(Target::new(config, tls(verify, root.as_deref())?))
    }

    /// Takes a server on a unix socket, as the embedded one is.
    ///
    /// # Errors
    /// [`TargetError::Certificates`]: never in practice, no certificate is read.
    pub fn from_socket(
        directory: &Path,
        port: u16,
        user: &str,
        database: &str,
    ) -> Result<Self, TargetError> {
        let mut config = Config::new();
        config
            .host_path(directory)
            .port(port)
            .user(user)
            .dbname(database);
        config.ssl_mode(SslMode::Disable);
        Ok(Target::new(config, tls(Verify::Nothing, None)?))
    }

    fn new(mut config: Config, tls: MakeRustlsConnect) -> Self {
        config
            .connect_timeout(Duration::from_secs(5))
            .tcp_user_timeout(Duration::from_secs(15))
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(10))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        Target { config, tls }
    }

    /// Opens a session of its own.
    ///
    /// # Errors
    /// As PostgreSQL or the network give them; try again later.
    pub async fn connect(
        &self,
        name: &str,
        purpose: Use,
    ) -> Result<Session, tokio_postgres::Error> {
        let mut config = self.config.clone();
        config.application_name(name);
        Session::open(&config, self.tls.clone(), purpose).await
    }

    /// Makes the pool of the read path: bounded, apart from the writers' sessions.
    ///
    /// # Errors
    /// As the pool's builder gives them.
    pub fn pool(
        &self,
        size: usize,
    ) -> Result<deadpool_postgres::Pool, deadpool_postgres::BuildError> {
        let mut config = self.config.clone();
        config.application_name("wattgate reads");
        let manager = deadpool_postgres::Manager::from_connect(
            config,
            Opener {
                tls: self.tls.clone(),
            },
            deadpool_postgres::ManagerConfig {
                recycling_method: deadpool_postgres::RecyclingMethod::Fast,
            },
        );
        deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .wait_timeout(Some(Duration::from_secs(5)))
            .create_timeout(Some(Duration::from_secs(5)))
            .recycle_timeout(Some(Duration::from_secs(5)))
            .build()
    }
}

fn parse(url: &str) -> Result<Config, TargetError> {
    // The driver's messages name what is wrong and repeat no value.
    url.parse::<Config>()
        .map_err(|e| TargetError::Url(e.to_string()))
}

/// Takes `sslmode` and `sslrootcert` out of a URL: the driver knows fewer modes than libpq.
fn split_ssl(url: &str) -> Result<(String, Option<String>, Option<String>), TargetError> {
    let (mut mode, mut root) = (None, None);
    let mut take = |name: &str, value: &str| -> bool {
        let slot = match name {
            "sslmode" => &mut mode,
            "sslrootcert" => &mut root,
            _ => return false,
        };
        let decoded = percent_encoding::percent_decode_str(value.trim_matches('\''));
        *slot = Some(decoded.decode_utf8_lossy().into_owned());
        true
    };
    let rest = if url.contains("://") {
        match url.split_once('?') {
            None => url.to_owned(),
            Some((base, query)) => {
                let kept: Vec<&str> = query
                    .split('&')
                    .filter(|pair| !pair.split_once('=').is_some_and(|(n, v)| take(n, v)))
                    .collect();
                if kept.is_empty() {
                    base.to_owned()
                } else {
                    format!("{base}?{}", kept.join("&"))
                }
            }
        }
    } else {
        let keeps = |pair: &&str| !pair.split_once('=').is_some_and(|(n, v)| take(n, v));
        url.split_whitespace()
            .filter(keeps)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let known = ["disable", "prefer", "require", "verify-ca", "verify-full"];
    match &mode {
        Some(mode) if !known.contains(&mode.as_str()) => Err(TargetError::SslMode),
        _ => Ok((rest, mode, root)),
    }
}

fn tls(verify: Verify, root: Option<&str>) -> Result<MakeRustlsConnect, TargetError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |e: &dyn std::fmt::Display| TargetError::Certificates(e.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?;
    let config = match verify {
        Verify::Nothing => {
            let verifier = Arc::new(CheckSome {
                roots: None,
                provider,
            });
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        }
        Verify::Chain => {
            let roots = Some(Arc::new(roots(root)?));
            let verifier = Arc::new(CheckSome { roots, provider });
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        }
        Verify::Full => {
            let roots = Arc::new(roots(root)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|e| failed(&e))?;
            builder.with_webpki_verifier(verifier).with_no_client_auth()
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn roots(path: Option<&str>) -> Result<RootCertStore, TargetError> {
    let failed = |e: &dyn std::fmt::Display| TargetError::Certificates(e.to_string());
    let mut store = RootCertStore::empty();
    match path.filter(|p| *p != "system") {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))? {
                let certificate = certificate.map_err(|e| failed(&e))?;
                store.add(certificate).map_err(|e| failed(&e))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err(TargetError::Certificates("there are none".to_owned()));
    }
    Ok(store)
}

/// Checks less than rustls does by itself: nothing, or the chain without the host's name, as
/// libpq's `require` and `verify-ca` do.
#[derive(Debug)]
struct CheckSome {
    roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for CheckSome {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, known)
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

    #[test]
    fn libpqs_ssl_modes_are_known_in_both_forms() {
        for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
            assert!(check_url(&format!("postgres://u@h/db?sslmode={mode}")).is_ok());
            assert!(check_url(&format!("host=h user=u sslmode={mode}")).is_ok());
        }
        let url =
            "postgres://u:p@h/db?connect_timeout=3&sslmode=verify-full&sslrootcert=/r%20c.pem";
        let (rest, mode, root) = split_ssl(url).unwrap();
        assert_eq!(rest, "postgres://u:p@h/db?connect_timeout=3");
        assert_eq!(
            (mode.as_deref(), root.as_deref()),
            (Some("verify-full"), Some("/r c.pem"))
        );
        assert!(matches!(
            check_url("postgres://h/db?sslmode=maybe"),
            Err(TargetError::SslMode)
        ));
        assert!(matches!(check_url("mysql://h"), Err(TargetError::Url(_))));
    }
}
