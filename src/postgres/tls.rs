//! TLS to the database: how the server is verified, and which certificate the client sends.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::der::PublicKey;
use super::verifier::{Check, Verifier};

/// How much of the server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    /// Only that the server holds the certificate's key; nothing in the certificate itself is verified.
    Nothing,
    /// That an authority has signed it.
    Chain,
    /// That an authority has signed it for the requested host.
    Full,
}

/// The files that authenticate the client, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientFiles {
    pub(super) cert: String,
    pub(super) key: String,
}

/// The options of TLS in a connection string.
#[derive(Debug, Clone)]
pub(super) struct TlsOptions {
    /// Whether connections are encrypted. If not, the files are not read, as in libpq.
    pub(super) used: bool,
    pub(super) verify: Verify,
    pub(super) root: Option<String>,
    pub(super) client: Option<ClientFiles>,
    /// Whether the host's name is sent in the clear.
    pub(super) sni: bool,
    /// Whether TLS begins without a request to the server.
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

/// Makes the connector that encrypts connections, and reads its files.
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
        // If a connection begins with TLS, the server recognises the protocol only by this name.
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
        return Err(wrong(&"it contains no certificate in PEM"));
    }
    Ok(found)
}

/// Reads the client's certificate and key. The certificate may have version 1.
fn client_key(files: &ClientFiles, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = certificates("sslcert", &files.cert)?;
    let path = Path::new(&files.key);
    let wrong = |why: &dyn Display| format!("sslkey {}: {why}", files.key);
    let found = std::fs::metadata(path).map_err(|error| wrong(&error))?;
    // As in libpq: a key that others can read proves nothing.
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
        return Err(wrong(&"it does not belong to the certificate in sslcert"));
    }
    Ok(CertifiedKey::new(chain, key))
}

#[cfg(test)]
mod tests {
    use crate::postgres::Target;
    use rcgen::{CertificateParams, KeyPair};

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
        assert!(faults(wrong)[0].contains("does not belong to the certificate"));
        let missing = format!(
            "sslmode=verify-ca sslrootcert={} sslcert={} sslkey={}",
            path("no"),
            path("none"),
            path("key")
        );
        let found = faults(missing);
        assert!(
            found.len() == 2
                && found[0].starts_with("sslrootcert")
                && found[1].starts_with("sslcert"),
            "{found:?}"
        );
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(path("key"), mode).unwrap();
        assert!(faults(good)[0].contains("chmod 600"));
    }
}
