//! The checks of flags: each collects what is wrong, and stands in for a wrong value so that the
//! rest is checked too.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use tracing_subscriber::EnvFilter;

use super::flags::{DataDirArgs, DatabaseArgs, LoggingArgs, ServeArgs};
use super::{DataConfig, LogFormat, Logging, args, parse_bytes, parse_duration, units};
use crate::auth::Keyring;
use crate::http::request::client_ip::Network;
use crate::http::server::tls::{Tls, TlsFiles};
use crate::otlp::Collector;
use crate::postgres::{Target, TargetError};
use crate::wal::medium::unsafe_kind;

/// Collects everything that is wrong.
#[derive(Default)]
pub(super) struct Checks {
    pub(super) errors: Vec<String>,
}

/// A flag and its environment variable, as an error names them.
fn named(flag: &str) -> String {
    let variable = match flag {
        "--database-url" => "DATABASE_URL".to_owned(),
        "--pg-bin" => "PG_BIN".to_owned(),
        _ => {
            let name = flag.trim_start_matches('-').replace('-', "_");
            format!("WATTGATE_{}", name.to_ascii_uppercase())
        }
    };
    format!("{flag} ({variable})")
}

impl Checks {
    /// Says what is wrong with a flag, without its value.
    pub(super) fn wrong(&mut self, flag: &str, rule: impl Display) {
        self.errors.push(format!("{}: {rule}", named(flag)));
    }

    /// Says what is wrong with the value of a flag.
    pub(super) fn wrong_value(&mut self, flag: &str, value: impl Display, rule: impl Display) {
        self.errors.push(format!("{} {value}: {rule}", named(flag)));
    }

    fn parse<T>(
        &mut self,
        flag: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(text)
            .map_err(|why| self.wrong_value(flag, text, why))
            .ok()
    }

    pub(super) fn listen(&mut self, text: &str) -> SocketAddr {
        let address = self.parse("--listen", text, |text| {
            text.parse()
                .map_err(|_| "must be an address and a port, such as 127.0.0.1:3000".to_owned())
        });
        address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(super) fn choice<T: Copy>(&mut self, flag: &str, text: &str, known: &[(&str, T)]) -> T {
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return *value;
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        self.wrong_value(flag, text, format_args!("must be {}", names.join(" or ")));
        known[0].1
    }

    /// A whole number.
    pub(super) fn number(&mut self, flag: &str, text: &str, range: RangeInclusive<u64>) -> u64 {
        let number = text.parse().ok().filter(|n| range.contains(n));
        number.unwrap_or_else(|| {
            let rule = format!("must be {} to {}", range.start(), range.end());
            self.wrong_value(flag, text, rule);
            *range.start()
        })
    }

    /// A number with decimals, in a unit that the error names.
    pub(super) fn decimal(
        &mut self,
        flag: &str,
        text: &str,
        range: RangeInclusive<f64>,
        unit: &str,
    ) -> f64 {
        let number: Option<f64> = text.parse().ok().filter(|n| range.contains(n));
        number.unwrap_or_else(|| {
            let rule = format!("must be {} to {}{unit}", range.start(), range.end());
            self.wrong_value(flag, text, rule);
            *range.start()
        })
    }

    /// A size; `None` means that it is wrong.
    pub(super) fn bytes(
        &mut self,
        flag: &str,
        text: &str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.parse(flag, text, parse_bytes)?;
        if range.contains(&value) {
            return Some(value);
        }
        let [least, most] = [*range.start(), *range.end()].map(units::bytes_text);
        self.wrong_value(flag, text, format_args!("must be {least} to {most}"));
        None
    }

    pub(super) fn duration(&mut self, flag: &str, text: &str, most: Duration) -> Duration {
        let value = self.parse(flag, text, parse_duration).unwrap_or_default();
        if value > most {
            let rule = format!("must be at most {}", units::duration_text(most));
            self.wrong_value(flag, text, rule);
        }
        value
    }

    pub(super) fn timeout(&mut self, flag: &str, text: &str) -> Duration {
        let most = Duration::from_secs(3600);
        let value = self.parse(flag, text, parse_duration);
        if value.is_some_and(|value| value.is_zero() || value > most) {
            let rule = format!("must be 1ms to {}", units::duration_text(most));
            self.wrong_value(flag, text, rule);
        }
        value.unwrap_or_default()
    }

    /// A time that may be left out.
    pub(super) fn span(&mut self, flag: &str, text: Option<&str>) -> Option<Duration> {
        self.parse(flag, given(text)?, parse_duration)
    }

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

    pub(super) fn networks(&mut self, texts: &[String]) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(why) => self.wrong_value("--trusted-proxies", text, why),
            }
        }
        networks
    }

    pub(super) fn origins(&mut self, origins: &[String]) -> Vec<String> {
        for origin in origins {
            // As browsers send it: no path, no slash at the end, no upper case.
            let host = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            let known =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b);
            let good = host.is_some_and(|h| !h.is_empty() && h.bytes().all(known));
            if !good && origin != "*" {
                let rule = "must be an origin, such as https://example.org, or *";
                self.wrong_value("--cors-origin", origin, rule);
            }
        }
        origins.to_vec()
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

/// What was given: an empty text counts as nothing.
pub(super) fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// A path, or the nearest above it that exists.
fn nearest(path: &Path) -> PathBuf {
    let exists = |path: &&Path| path.symlink_metadata().is_ok();
    let found = path.ancestors().find(exists);
    found.map_or_else(|| PathBuf::from("."), Path::to_owned)
}
