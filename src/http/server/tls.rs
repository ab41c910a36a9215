//! TLS on the listening socket, with certificates that can be renewed at run time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::auth::file::Stamp;

/// The PEM files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by the intermediate certificates.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities for client certificates. `None` means that clients need none.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let always = [self.cert.as_path(), self.key.as_path()];
        always.into_iter().chain(self.client_ca.as_deref())
    }

    fn stamps(&self) -> Result<Vec<Option<Stamp>>, TlsError> {
        let stamp = |path| Stamp::of(path).map_err(|error| TlsError::new(path, error));
        self.paths().map(stamp).collect()
    }
}

/// Why these files cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct TlsError {
    path: PathBuf,
    why: String,
}

impl TlsError {
    /// The file at fault.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn new(path: &Path, why: impl fmt::Display) -> Self {
        TlsError {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

/// When to read the files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Only if one of them has changed.
    IfChanged,
    /// Always.
    Always,
}

/// The TLS configuration for new connections.
pub struct Tls {
    files: TlsFiles,
    /// Locked while the files are read, so that an older state never replaces a newer one.
    seen: Mutex<Vec<Option<Stamp>>>,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`]: a file cannot be read, or the key does not belong to the certificate.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let seen = Mutex::new(files.stamps()?);
        let current = RwLock::new(Arc::new(load(&files)?));
        Ok(Tls {
            files,
            seen,
            current,
        })
    }

    /// Reads the files again. Returns whether it did.
    ///
    /// Open connections keep their certificates.
    ///
    /// Blocks: for some file system calls
    ///
    /// # Errors
    /// [`TlsError`]: the current certificate stays in use, and the next refresh tries again. This includes the
    /// moment between the replacement of a key and that of its certificate.
    pub fn refresh(&self, when: Refresh) -> Result<bool, TlsError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.files.stamps()?;
        if stamps == *seen && when == Refresh::IfChanged {
            return Ok(false);
        }
        let next = Arc::new(load(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        *seen = stamps;
        Ok(true)
    }

    /// The configuration for a new connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn load(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(default_provider());
    let certs = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::new(&files.key, error))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new(&files.cert, error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                let added = roots.add(authority);
                added.map_err(|error| TlsError::new(path, error))?;
            }
            // A client without a certificate may still send a key.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::new(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certs, key)
        .map_err(|error| TlsError::new(&files.cert, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error| TlsError::new(path, error);
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect();
    let found = found.map_err(wrong)?;
    if found.is_empty() {
        return Err(TlsError::new(
            path,
            "the file must hold a certificate in PEM",
        ));
    }
    Ok(found)
}
