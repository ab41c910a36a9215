//! The checks of groups of flags: what one flag of a part means beside its others.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use tracing_subscriber::EnvFilter;

use super::checks::{Checks, given};
use super::flags::{DataDirArgs, DatabaseArgs, LoggingArgs, ServeArgs};
use super::{DataConfig, LogFormat, Logging, args};
use crate::auth::Keyring;
use crate::http::server::tls::{Tls, TlsFiles};
use crate::otlp::Collector;
use crate::postgres::{Target, TargetError};
use crate::wal::medium::unsafe_kind;

impl Checks {
    pub(super) fn collector(&mut self, args: &ServeArgs) -> Option<Collector> {
        let every = self.timeout("--otlp-interval", &args.otlp_interval);
        let url = given(args.otlp_endpoint.as_deref())?;
        match Collector::new(url) {
            Ok(collector) => Some(collector.every(every)),
            Err(error) => {
                self.wrong_value("--otlp-endpoint", url, error);
                None
            }
        }
    }

    /// Checks that the files of TLS belong together and can be used.
    pub(super) fn tls(&mut self, args: &ServeArgs) -> Option<TlsFiles> {
        let (cert, key) = match (&args.tls_cert, &args.tls_key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (None, None) => {
                if args.tls_client_ca.is_some() {
                    let rule =
                        "needs --tls-cert and --tls-key: clients show certificates over TLS only";
                    self.wrong("--tls-client-ca", rule);
                }
                return None;
            }
            (Some(_), None) => {
                self.wrong(
                    "--tls-cert",
                    "needs --tls-key, the certificate's private key",
                );
                return None;
            }
            (None, Some(_)) => {
                self.wrong("--tls-key", "needs --tls-cert, the key's certificate");
                return None;
            }
        };
        let files = TlsFiles {
            cert,
            key,
            client_ca: args.tls_client_ca.clone(),
        };
        if let Err(error) = Tls::open(files.clone()) {
            let flag = match error.path() {
                path if path == files.cert => "--tls-cert",
                path if path == files.key => "--tls-key",
                _ => "--tls-client-ca",
            };
            self.wrong(flag, error);
        }
        Some(files)
    }

    /// Checks that the keys can be read.
    pub(super) fn keys(&mut self, data_dir: &Path) {
        if let Err(error) = Keyring::open(data_dir) {
            self.errors
                .push(format!("the API keys cannot be read: {error}"));
        }
    }

    pub(super) fn data(&mut self, dir: &DataDirArgs, database: &DatabaseArgs) -> DataConfig {
        let pg_bin = database.pg_bin.clone();
        if let Some(dir) = pg_bin.as_ref().filter(|dir| !dir.is_dir()) {
            self.wrong_value("--pg-bin", dir.display(), "there is no such directory");
        }
        DataConfig {
            database_url: self.database_url(database.database_url.as_deref()),
            data_dir: dir.data_dir.clone(),
            pg_bin,
            path: args::search_path(),
        }
    }

    fn database_url(&mut self, url: Option<&str>) -> Option<String> {
        let url = given(url)?;
        if let Err(TargetError(faults)) = Target::from_url(url) {
            // The URL holds a password: it is not repeated.
            for why in faults {
                self.wrong("--database-url", why);
            }
        }
        Some(url.to_owned())
    }

    pub(super) fn logging(&mut self, args: &LoggingArgs) -> Logging {
        if let Err(error) = EnvFilter::try_new(&args.log_level) {
            self.wrong_value("--log-level", &args.log_level, error);
        }
        let known = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Logging {
            format: given(args.log_format.as_deref())
                .map(|text| self.choice("--log-format", text, &known)),
            level: args.log_level.clone(),
        }
    }

    /// Checks that the gateway can write to its data directory, and that a sync means something
    /// there.
    ///
    /// It writes nothing: a full disk must not keep a gateway from starting.
    pub(super) fn place(&mut self, data_dir: &Path, allow_volatile: bool) {
        let shown = data_dir.display();
        let existing = nearest(data_dir);
        let allowed = if existing.is_dir() {
            access(&existing, Access::WRITE_OK | Access::EXEC_OK).map_err(std::io::Error::from)
        } else {
            Err(std::io::ErrorKind::NotADirectory.into())
        };
        if let Err(error) = allowed {
            let rule = format!("cannot be written: {error}; let the gateway's user own it");
            return self.wrong_value("--data-dir", shown, rule);
        }
        let wal_dir = data_dir.join("wal");
        if let Ok(Some(kind)) = unsafe_kind(&nearest(&wal_dir))
            && !allow_volatile
        {
            let rule = format!(
                "is on {kind}, where synced data may be lost; choose another directory, or allow \
                 it with --wal-allow-volatile"
            );
            self.wrong_value("--data-dir", shown, rule);
        }
    }
}

/// A path, or the nearest above it that exists.
fn nearest(path: &Path) -> PathBuf {
    let exists = |path: &&Path| path.symlink_metadata().is_ok();
    let found = path.ancestors().find(exists);
    found.map_or_else(|| PathBuf::from("."), Path::to_owned)
}
