//! The command line and the environment, checked as a whole: everything that is wrong is
//! reported at once. This is the one file that reads the environment.

mod alerts;
mod args;
mod energy;
mod units;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use self::alerts::AlertArgs;
pub use self::args::{
    Cli, Command, CreateKeyArgs, KeysCommand, QuarantineArgs, QuarantineCommand, ServeArgs,
    StreamArg, WalCommand,
};
pub use self::energy::EnergyArgs;
pub use self::units::{parse_bytes, parse_duration};
use crate::alerts::Settings;
use crate::analytics::queries::Judgement;
use crate::analytics::tariff::Tariff;
use crate::gate;
use crate::http::forwarded::Network;
use crate::http::tls::TlsFiles;
use crate::otlp::Collector;
pub use crate::postgres::PartitionWidth;
use crate::postgres::{Target, TargetError};
use crate::wal::frame::SHARDS_MAX;
use crate::wal::{LIMIT_BYTES_MIN, SyncMode};

/// Who may call `/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Everyone who reaches the address.
    Off,
    /// Only who shows a key.
    Keys,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The database; none: the embedded PostgreSQL.
    pub database_url: Option<String>,
    /// Where the log and the embedded database live.
    pub data_dir: PathBuf,
    /// Shards of the log, each with a writer.
    pub shards: u16,
    /// The log on disk, all in.
    pub wal_limit_bytes: u64,
    /// The log kept behind the checkpoints.
    pub wal_retain_bytes: u64,
    /// Whether the log is synced.
    pub wal_sync: SyncMode,
    /// Whether the log may live where a sync is no promise.
    pub wal_allow_volatile: bool,
    /// Where to end the process, and at which of the times that it is reached.
    #[cfg(debug_assertions)]
    pub end_at: Option<(crate::failpoint::Point, u32)>,
    /// For readings on their way.
    pub memory_limit_bytes: u64,
    /// Rows of a micro-batch, at most.
    pub batch_rows_max: usize,
    /// How long a small batch waits for more.
    pub linger: Duration,
    /// How stale live status may be under load.
    pub live_interval: Duration,
    /// A request's body, at most.
    pub body_bytes_max: usize,
    /// Connections at once, at most.
    pub connections_max: usize,
    /// From the connection, or a head's first byte, to the end of a request's head.
    pub header_timeout: Duration,
    /// How long a connection is kept between two requests.
    pub idle_timeout: Duration,
    /// From the head to the end of the body.
    pub body_timeout: Duration,
    /// How long `ack=committed` waits.
    pub commit_timeout: Duration,
    /// The width of new partitions; none: what the database says, months at first.
    pub partition: Option<PartitionWidth>,
    /// How long history is kept; none: for ever.
    pub retention: Option<Duration>,
    /// Older readings are refused; none: all since 2000 are taken.
    pub max_age: Option<Duration>,
    /// Who may call.
    pub auth: AuthMode,
    /// The files of TLS; none: connections are plain.
    pub tls: Option<TlsFiles>,
    /// The proxies whose word about a client's address is believed.
    pub trusted_proxies: Vec<Network>,
    /// The origins of web pages that may call.
    pub cors_origins: Vec<String>,
    /// How energy is judged.
    pub energy: Judgement,
    /// What a kWh costs; none: lost energy has no cost.
    pub tariff: Option<Tariff>,
    /// When an alert opens, and who is told; none: alerts are not looked for.
    pub alerts: Option<Settings>,
    /// Who is sent the metrics; none: they are scraped alone.
    pub collector: Option<Collector>,
    /// How events are written; none: text on a terminal, JSON elsewhere.
    pub log_format: Option<LogFormat>,
    /// A filter as `tracing-subscriber` reads it.
    pub log_level: String,
    /// How long a stop may take before what is left stays in the log.
    pub shutdown_timeout: Duration,
    /// Where PostgreSQL's programs are; none: they are searched for.
    pub pg_bin: Option<PathBuf>,
    /// The search path of programs.
    pub path: Option<std::ffi::OsString>,
}

/// All that is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

/// Day partitions with no bound on age would let one device make thousands of them.
const MAX_AGE_WITH_DAYS: Duration = Duration::from_secs(400 * 86_400);

impl Config {
    /// Whether it is for programs of this machine alone: reached at its own address, without keys, and
    /// by no proxy.
    pub fn is_for_this_machine(&self) -> bool {
        self.auth == AuthMode::Off
            && self.listen.ip().is_loopback()
            && self.trusted_proxies.is_empty()
    }

    /// Checks the arguments and takes them as a configuration.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong, a line each.
    #[expect(
        clippy::too_many_lines,
        reason = "one line a flag, in the order of the struct"
    )]
    pub fn check(args: &ServeArgs) -> Result<Self, ConfigErrors> {
        let mut checks = Checks::default();
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let listen: SocketAddr = checks.parse("--listen", &args.listen, |text| {
            text.parse()
                .map_err(|_| "must be an address and a port, as 127.0.0.1:3000".to_owned())
        });
        let partition = args.partition.as_ref().map(|text| {
            let known = [
                ("month", PartitionWidth::Month),
                ("day", PartitionWidth::Day),
            ];
            checks.choice("--partition", text, &known)
        });
        let auth = match &args.auth {
            Some(text) => checks.choice(
                "--auth",
                text,
                &[("off", AuthMode::Off), ("keys", AuthMode::Keys)],
            ),
            None if listen.ip().is_loopback() => AuthMode::Off,
            None => AuthMode::Keys,
        };
        let max_age = checks.optional("--max-age", args.max_age.as_deref(), parse_duration);
        let config = Config {
            listen,
            database_url: checks.database_url(args.database_url.as_deref()),
            data_dir: args.data_dir.clone(),
            shards: checks.within(
                "--shards",
                args.shards
                    .unwrap_or(cores.min(usize::from(SHARDS_MAX)) as u64),
                1..=u64::from(SHARDS_MAX),
            ) as u16,
            wal_limit_bytes: checks.bytes(
                "--wal-limit",
                &args.wal_limit,
                LIMIT_BYTES_MIN..=1 << 50,
            ),
            wal_retain_bytes: checks.bytes("--wal-retain", &args.wal_retain, 0..=1 << 50),
            wal_allow_volatile: args.wal_allow_volatile,
            #[cfg(debug_assertions)]
            end_at: args.end_at.map(|point| (point, args.end_at_time)),
            wal_sync: checks.choice(
                "--wal-sync",
                &args.wal_sync,
                &[("always", SyncMode::Always), ("never", SyncMode::Never)],
            ),
            memory_limit_bytes: checks.bytes(
                "--memory-limit",
                &args.memory_limit,
                16 << 20..=1 << 40,
            ),
            batch_rows_max: checks.within("--batch-rows", args.batch_rows, 100..=1_000_000)
                as usize,
            linger: checks.duration("--linger", &args.linger, Duration::from_secs(10)),
            live_interval: checks.duration(
                "--live-interval",
                &args.live_interval,
                Duration::from_secs(60),
            ),
            body_bytes_max: checks.bytes("--max-body", &args.max_body, 1 << 10..=256 << 20)
                as usize,
            connections_max: checks.within("--max-connections", args.max_connections, 1..=1_000_000)
                as usize,
            header_timeout: checks.timeout("--header-timeout", &args.header_timeout),
            idle_timeout: checks.timeout("--idle-timeout", &args.idle_timeout),
            body_timeout: checks.timeout("--body-timeout", &args.body_timeout),
            commit_timeout: checks.timeout("--commit-timeout", &args.commit_timeout),
            partition,
            retention: checks.optional("--retention", args.retention.as_deref(), parse_duration),
            max_age: max_age
                .or((partition == Some(PartitionWidth::Day)).then_some(MAX_AGE_WITH_DAYS)),
            auth,
            tls: args
                .tls_cert
                .clone()
                .zip(args.tls_key.clone())
                .map(|(cert, key)| TlsFiles {
                    cert,
                    key,
                    client_ca: args.tls_client_ca.clone(),
                }),
            trusted_proxies: checks.networks(&args.trusted_proxies),
            cors_origins: checks.origins(&args.cors_origin),
            energy: args.energy.check(&mut checks.errors),
            tariff: args.energy.tariff(&mut checks.errors),
            alerts: checks.alerts(&args.alerts),
            collector: checks.collector(args),
            log_format: args.log_format.as_ref().map(|text| {
                let known = [("text", LogFormat::Text), ("json", LogFormat::Json)];
                checks.choice("--log-format", text, &known)
            }),
            log_level: args.log_level.clone(),
            shutdown_timeout: checks.timeout("--shutdown-timeout", &args.shutdown_timeout),
            pg_bin: args.pg_bin.clone(),
            path: args::search_path(),
        };
        let least = gate::memory_least(config.body_bytes_max);
        if config.memory_limit_bytes < least {
            checks.errors.push(format!(
                "--memory-limit must be at least {least} bytes, so that the largest body \
                 (--max-body) finds room"
            ));
        }
        if checks.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(checks.errors))
        }
    }
}

/// Collects what is wrong, with stand-ins for wrong values so that the rest is checked too.
#[derive(Default)]
struct Checks {
    errors: Vec<String>,
}

impl Checks {
    fn parse<T: StandIn>(
        &mut self,
        flag: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        parse(text).unwrap_or_else(|why| {
            self.errors.push(format!("{flag} {text}: {why}"));
            T::stand_in()
        })
    }

    fn optional<T: StandIn>(
        &mut self,
        flag: &str,
        text: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        text.map(|text| self.parse(flag, text, parse))
    }

    fn choice<T: Copy>(&mut self, flag: &str, text: &str, known: &[(&str, T)]) -> T {
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return *value;
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        self.errors
            .push(format!("{flag} {text}: must be {}", names.join(" or ")));
        known[0].1
    }

    fn within(&mut self, flag: &str, value: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            self.errors
                .push(format!("{flag} {value}: must be {least} to {most}"));
        }
        value
    }

    fn bytes(&mut self, flag: &str, text: &str, range: std::ops::RangeInclusive<u64>) -> u64 {
        let value: u64 = self.parse(flag, text, parse_bytes);
        if value != u64::MAX && !range.contains(&value) {
            let (least, most) = (
                units::bytes_text(*range.start()),
                units::bytes_text(*range.end()),
            );
            self.errors
                .push(format!("{flag} {text}: must be {least} to {most}"));
        }
        value
    }

    fn duration(&mut self, flag: &str, text: &str, most: Duration) -> Duration {
        let value: Duration = self.parse(flag, text, parse_duration);
        if value > most {
            self.errors.push(format!(
                "{flag} {text}: must be at most {}s",
                most.as_secs()
            ));
        }
        value
    }

    fn timeout(&mut self, flag: &str, text: &str) -> Duration {
        let value = self.duration(flag, text, Duration::from_secs(3600));
        if value.is_zero() {
            self.errors
                .push(format!("{flag} {text}: must be more than 0"));
        }
        value
    }

    fn collector(&mut self, args: &ServeArgs) -> Option<Collector> {
        let every = self.timeout("--otlp-interval", &args.otlp_interval);
        let url = args.otlp_endpoint.as_deref()?;
        match Collector::new(url) {
            Ok(collector) => Some(collector.every(every)),
            Err(error) => {
                self.errors.push(format!("--otlp-endpoint {url}: {error}"));
                None
            }
        }
    }

    fn networks(&mut self, texts: &[String]) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in texts {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(why) => self.errors.push(format!("--trusted-proxies {text}: {why}")),
            }
        }
        networks
    }

    fn origins(&mut self, origins: &[String]) -> Vec<String> {
        for origin in origins {
            // As browsers send it: no path, no slash at the end, no upper case.
            let host = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            let known =
                |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b);
            let good = host.is_some_and(|h| !h.is_empty() && h.bytes().all(known));
            if !good && origin != "*" {
                self.errors.push(format!(
                    "--cors-origin {origin}: must be an origin, as https://example.org, or *"
                ));
            }
        }
        origins.to_vec()
    }

    fn database_url(&mut self, url: Option<&str>) -> Option<String> {
        let url = url.filter(|u| !u.is_empty())?;
        if let Err(TargetError(faults)) = Target::from_url(url) {
            // The URL holds a password: it is not repeated.
            let lines = faults
                .iter()
                .map(|why| format!("--database-url (DATABASE_URL): {why}"));
            self.errors.extend(lines);
        }
        Some(url.to_owned())
    }
}

/// A value that stands in for one that was wrong, so that checking goes on.
trait StandIn {
    fn stand_in() -> Self;
}

impl StandIn for Duration {
    fn stand_in() -> Self {
        Duration::from_secs(1)
    }
}

impl StandIn for u64 {
    fn stand_in() -> Self {
        u64::MAX
    }
}

impl StandIn for SocketAddr {
    fn stand_in() -> Self {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn check(args: &[&str]) -> Result<Config, ConfigErrors> {
        let cli = Cli::try_parse_from(std::iter::once("wattgate").chain(args.iter().copied()));
        Config::check(&cli.unwrap().serve)
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let config = check(&[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.listen, "127.0.0.1:3000".parse().unwrap());
        assert_eq!(config.wal_limit_bytes, 10 << 30);
        assert_eq!(config.wal_retain_bytes, 1 << 30);
        assert_eq!(config.memory_limit_bytes, 256 << 20);
        assert_eq!(config.body_bytes_max, 8 << 20);
        assert_eq!(config.auth, AuthMode::Off);
        assert_eq!(config.max_age, None);
        assert_eq!(
            check(&["--partition", "day"]).ok().unwrap().max_age,
            Some(MAX_AGE_WITH_DAYS)
        );
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let args = [
            "--listen",
            "here",
            "--shards",
            "65",
            "--wal-limit",
            "1MiB",
            "--linger",
            "soon",
        ];
        let Err(ConfigErrors(errors)) = check(&args) else {
            panic!("accepted")
        };
        assert_eq!(errors.len(), 4, "{errors:?}");
        for flag in ["--listen", "--shards", "--wal-limit", "--linger"] {
            assert!(
                errors.iter().any(|e| e.starts_with(flag)),
                "{flag}: {errors:?}"
            );
        }
    }

    #[test]
    fn off_a_loopback_address_keys_are_asked_for_unless_everyone_is_let_in_by_name() {
        let auth = |args: &[&str]| check(args).ok().unwrap().auth;
        assert_eq!(auth(&["--listen", "0.0.0.0:3000"]), AuthMode::Keys);
        assert_eq!(auth(&["--listen", "[::]:3000"]), AuthMode::Keys);
        let by_name = ["--listen", "0.0.0.0:3000", "--auth", "off"];
        assert_eq!(auth(&by_name), AuthMode::Off);
        assert_eq!(auth(&["--listen", "[::1]:3000"]), AuthMode::Off);
        assert_eq!(auth(&["--auth", "keys"]), AuthMode::Keys);
    }

    #[test]
    fn without_keys_a_loopback_address_is_for_this_machine_unless_a_proxy_is_named() {
        let alone = |args: &[&str]| check(args).ok().unwrap().is_for_this_machine();
        assert!(alone(&[]) && alone(&["--listen", "[::1]:3000"]));
        assert!(!alone(&["--auth", "keys"]));
        assert!(!alone(&["--listen", "0.0.0.0:3000", "--auth", "off"]));
        assert!(!alone(&["--trusted-proxies", "127.0.0.1"]));
    }

    #[test]
    fn a_wrong_database_url_is_not_repeated() {
        let Err(errors) = check(&["--database-url", "postgres://u:geheim@h:port/db"]) else {
            panic!("accepted")
        };
        assert!(errors.to_string().contains("DATABASE_URL"));
        assert!(!errors.to_string().contains("geheim"));
    }
}
