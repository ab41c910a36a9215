//! Turns flags into the settings of each part, and checks them one by one and against each other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use tracing_subscriber::EnvFilter;

use super::checks::{Checks, given};
use super::flags::{DataDirArgs, DatabaseArgs, HistoryArgs, LoggingArgs, ServeArgs};
use super::{Config, DataConfig, LogFormat, Logging, args, units};
use crate::auth::{AuthMode, Keyring};
use crate::http::Settings;
use crate::http::server::tls::{Tls, TlsFiles};
use crate::ingest::admission;
use crate::ingest::pipeline::PipelineLimits;
use crate::otlp::Collector;
use crate::postgres::embedded::ProgramSearch;
use crate::postgres::migrations::HistoryOptions;
use crate::postgres::{PartitionWidth, ReplicaSettings, Target, TargetError};
use crate::wal::header::SHARDS_MAX;
use crate::wal::medium::unsafe_kind;
use crate::wal::{LogOptions, SyncMode};
use crate::writer::WriterOptions;

/// Without a bound on age, one device could create thousands of day partitions.
pub(super) const MAX_AGE_WITH_DAYS: Duration = Duration::from_secs(400 * 86_400);

impl Checks {
    pub(super) fn log(&mut self, args: &ServeArgs, cores: usize) -> LogOptions {
        let shards = match given(args.shards.as_deref()) {
            Some(text) => self.number("--shards", text, 1..=SHARDS_MAX.into()) as u16,
            None => u16::try_from(cores).map_or(SHARDS_MAX, |cores| cores.min(SHARDS_MAX)),
        };
        let limit = self.bytes("--wal-limit", &args.wal_limit, LogOptions::LIMIT_BYTES);
        let retain = self.bytes("--wal-retain", &args.wal_retain, LogOptions::RETAIN_BYTES);
        let syncs = [("always", SyncMode::Always), ("never", SyncMode::Never)];
        LogOptions {
            shards,
            limit_bytes: limit.unwrap_or_default(),
            retain_bytes: retain.unwrap_or_default(),
            sync: self.choice("--wal-sync", &args.wal_sync, &syncs),
        }
    }

    /// The memory for readings, which must hold the largest body.
    ///
    /// Units:  bytes; a `body_bytes_max` of 0 substitutes a wrong one
    pub(super) fn memory(&mut self, args: &ServeArgs, body_bytes_max: usize) -> u64 {
        let (flag, text) = ("--memory-limit", &args.memory_limit);
        let memory = self.bytes(flag, text, admission::MEMORY_BYTES);
        let least = admission::memory_least(body_bytes_max);
        if memory.is_some_and(|memory| memory < least) {
            let rule = format!(
                "must be at least {}, so that the largest body fits (--max-body {})",
                units::bytes_text(least),
                args.max_body
            );
            self.wrong_value(flag, text, rule);
        }
        memory.unwrap_or_default()
    }

    pub(super) fn pipeline(
        &mut self,
        args: &ServeArgs,
        history: HistoryOptions,
        cores: usize,
    ) -> PipelineLimits {
        let by_day = history.partition == Some(PartitionWidth::Day);
        let max_age = self
            .span("--max-age", args.max_age.as_deref())
            .or(by_day.then_some(MAX_AGE_WITH_DAYS));
        PipelineLimits {
            // A reading older than the retention would be dropped at once.
            age_max: max_age.into_iter().chain(history.retention).min(),
            commit_within: self.timeout("--commit-timeout", &args.commit_timeout),
            cores,
        }
    }

    pub(super) fn writers(&mut self, args: &ServeArgs) -> WriterOptions {
        let rows = self.number("--batch-rows", &args.batch_rows, WriterOptions::BATCH_ROWS);
        let (linger, live) = (&args.linger, &args.live_interval);
        WriterOptions {
            batch_rows_max: rows as usize,
            moderate_rows: WriterOptions::MODERATE_ROWS,
            linger: self.duration("--linger", linger, WriterOptions::LINGER_MAX),
            live_interval: self.duration("--live-interval", live, WriterOptions::LIVE_INTERVAL_MAX),
            live_at_once_devices: WriterOptions::LIVE_AT_ONCE_DEVICES,
            answer_within: WriterOptions::ANSWER_WITHIN,
        }
    }

    /// The limits of the edge. The caller sets `local_hosts_only`, which depends on other flags.
    pub(super) fn http(&mut self, args: &ServeArgs) -> Settings {
        let body = self.bytes("--max-body", &args.max_body, Settings::BODY_BYTES);
        let connections = &args.max_connections;
        let connections = self.number("--max-connections", connections, Settings::CONNECTIONS);
        Settings {
            body_bytes_max: body.unwrap_or_default() as usize,
            connections_max: connections as usize,
            header_timeout: self.timeout("--header-timeout", &args.header_timeout),
            idle_timeout: self.timeout("--idle-timeout", &args.idle_timeout),
            body_timeout: self.timeout("--body-timeout", &args.body_timeout),
            write_timeout: Settings::WRITE_TIMEOUT,
            drain_timeout: Settings::DRAIN_TIMEOUT,
            cors_origins: self.origins(&args.cors_origin),
            trusted_proxies: self.networks(&args.trusted_proxies),
            local_hosts_only: false,
        }
    }

    pub(super) fn history(&mut self, args: &HistoryArgs) -> HistoryOptions {
        let known = [
            ("month", PartitionWidth::Month),
            ("day", PartitionWidth::Day),
        ];
        let partition = given(args.partition.as_deref());
        HistoryOptions {
            partition: partition.map(|text| self.choice("--partition", text, &known)),
            retention: self.span("--retention", args.retention.as_deref()),
        }
    }

    pub(super) fn auth(&mut self, text: Option<&str>, listen: SocketAddr) -> AuthMode {
        let known = [("off", AuthMode::Off), ("keys", AuthMode::Keys)];
        match given(text) {
            Some(text) => self.choice("--auth", text, &known),
            None if listen.ip().is_loopback() => AuthMode::Off,
            None => AuthMode::Keys,
        }
    }

    pub(super) fn collector(&mut self, args: &ServeArgs) -> Option<Collector> {
        let every = self.timeout("--otlp-interval", &args.otlp_interval);
        let url = given(args.otlp_endpoint.as_deref())?;
        Collector::new(url, every)
            .map_err(|error| self.wrong_value("--otlp-endpoint", url, error))
            .ok()
    }

    /// Checks that the files of TLS belong together and can be used.
    pub(super) fn tls(&mut self, args: &ServeArgs) -> Option<TlsFiles> {
        let (cert, key) = match (&args.tls_cert, &args.tls_key) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (None, None) => {
                if args.tls_client_ca.is_some() {
                    let rule =
                        "needs --tls-cert and --tls-key: clients send certificates over TLS only";
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
            dir: dir.data_dir.clone(),
            server: self.server("--database-url", database.database_url.as_deref()),
            programs: ProgramSearch {
                pg_bin,
                path: args::search_path(),
            },
        }
    }

    fn server(&mut self, flag: &str, url: Option<&str>) -> Option<Target> {
        Target::from_url(given(url)?)
            .map_err(|TargetError(faults)| {
                // The URL holds a password, so it is not repeated.
                for why in faults {
                    self.wrong(flag, why);
                }
            })
            .ok()
    }

    pub(super) fn replicas(&mut self, args: &ServeArgs) -> Option<ReplicaSettings> {
        let (flag, text) = ("--read-max-lag", &args.read_max_lag);
        let bounds = ReplicaSettings::MAX_LAG;
        let max_lag = self.duration(flag, text, *bounds.end());
        if max_lag < *bounds.start() {
            let least = units::duration_text(*bounds.start());
            self.wrong_value(flag, text, format!("must be at least {least}"));
        }
        let (flag, url) = ("--read-database-url", args.read_database_url.as_deref());
        let target = self.server(flag, url)?;
        if given(args.database.database_url.as_deref()).is_none() {
            let rule = "needs --database-url: the embedded server has no standbys";
            self.wrong(flag, rule);
        }
        Some(ReplicaSettings { target, max_lag })
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

    /// Checks that the gateway can write to its data directory, and that a sync is reliable there.
    ///
    /// It writes nothing, because a full disk must not keep a gateway from starting.
    pub(super) fn place(&mut self, config: &Config) {
        let data = &config.data;
        let shown = data.dir.display();
        let existing = nearest(&data.dir);
        let allowed = if existing.is_dir() {
            access(&existing, Access::WRITE_OK | Access::EXEC_OK).map_err(std::io::Error::from)
        } else {
            Err(std::io::ErrorKind::NotADirectory.into())
        };
        if let Err(error) = allowed {
            let rule = format!("cannot be written: {error}; let the gateway's user own it");
            return self.wrong_value("--data-dir", shown, rule);
        }
        if let Ok(Some(kind)) = unsafe_kind(&nearest(&data.wal_dir()))
            && !config.wal_allow_volatile
        {
            let rule = format!(
                "is on {kind}, where synced data may be lost; choose another directory, or allow \
                 it with --wal-allow-volatile"
            );
            self.wrong_value("--data-dir", shown, rule);
        }
    }
}

/// The path itself, or the nearest existing one above it.
fn nearest(path: &Path) -> PathBuf {
    let exists = |path: &&Path| path.symlink_metadata().is_ok();
    let found = path.ancestors().find(exists);
    found.map_or_else(|| PathBuf::from("."), Path::to_owned)
}
