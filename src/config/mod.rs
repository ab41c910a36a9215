//! The command line and the environment, checked as a whole: everything that is wrong is
//! reported at once. This is the one module that reads the environment.

mod alerts;
mod args;
mod checks;
mod commands;
mod energy;
mod flags;
mod parts;
mod units;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::alerts::Settings;
use crate::analytics::Judgement;
use crate::energy::tariff::Tariff;
use crate::http::request::client_ip::Network;
use crate::http::server::tls::TlsFiles;
use crate::ingest::admission;
use crate::otlp::Collector;
pub use crate::postgres::PartitionWidth;
use crate::wal::frame::SHARDS_MAX;
use crate::wal::{LIMIT_BYTES_MIN, SyncMode};
pub use alerts::AlertArgs;
pub use args::{
    Cli, Command, CreateKeyArgs, EraseArgs, KeysCommand, MigrateArgs, QuarantineArgs,
    QuarantineCommand, ReachArgs, StreamArg, WalCommand,
};
use checks::{Checks, given};
pub use commands::MigrateConfig;
pub use energy::EnergyArgs;
pub use flags::{DataDirArgs, DatabaseArgs, HistoryArgs, LoggingArgs, ServeArgs};
pub use units::{parse_bytes, parse_duration};

/// Who may call `/v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Every client that reaches the address.
    Off,
    /// Only clients that show a key.
    Keys,
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone)]
pub struct Logging {
    /// `None` means text on a terminal, and JSON elsewhere.
    pub format: Option<LogFormat>,
    /// A filter as `tracing-subscriber` reads it.
    pub level: String,
}

impl Default for Logging {
    fn default() -> Self {
        Logging {
            format: None,
            level: "info".to_owned(),
        }
    }
}

/// Where a gateway's data are: what commands need to find them.
#[derive(Clone)]
pub struct DataConfig {
    /// The database; `None` means the embedded PostgreSQL.
    pub database_url: Option<String>,
    /// Where the log and the embedded database live.
    pub data_dir: PathBuf,
    /// Where PostgreSQL's programs are; `None` means that they are searched for.
    pub pg_bin: Option<PathBuf>,
    /// The search path of programs.
    pub path: Option<OsString>,
}

/// A checked configuration.
#[derive(Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The database; `None` means the embedded PostgreSQL.
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
    /// The width of new partitions; `None` means what the database says, months at first.
    pub partition: Option<PartitionWidth>,
    /// How long history is kept; `None` means forever.
    pub retention: Option<Duration>,
    /// Older readings are refused; `None` means that all since 2000 are accepted.
    pub max_age: Option<Duration>,
    /// Who may call.
    pub auth: AuthMode,
    /// The files of TLS; `None` means that connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// The proxies whose `X-Forwarded-For` is trusted.
    pub trusted_proxies: Vec<Network>,
    /// The origins of web pages that may call.
    pub cors_origins: Vec<String>,
    /// How energy is judged.
    pub energy: Judgement,
    /// What a kWh costs; `None` means that answers hold no costs.
    pub tariff: Option<Tariff>,
    /// When an alert opens, and where it is sent; `None` turns alerts off.
    pub alerts: Option<Settings>,
    /// Where metrics are sent; `None` means that they are only scraped.
    pub collector: Option<Collector>,
    /// What is logged.
    pub logging: Logging,
    /// How long a stop may take before what is left stays in the log.
    pub shutdown_timeout: Duration,
    /// Where PostgreSQL's programs are; `None` means that they are searched for.
    pub pg_bin: Option<PathBuf>,
    /// The search path of programs.
    pub path: Option<OsString>,
}

/// Everything that is wrong with a configuration, a line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\nwattgate: "))]
pub struct ConfigErrors(pub Vec<String>);

impl ConfigErrors {
    fn unless_empty(errors: Vec<String>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ConfigErrors(errors))
        }
    }
}

/// Day partitions with no bound on age would let one device make thousands of them.
const MAX_AGE_WITH_DAYS: Duration = Duration::from_secs(400 * 86_400);

impl Checks {
    fn history(&mut self, args: &HistoryArgs) -> (Option<PartitionWidth>, Option<Duration>) {
        let known = [
            ("month", PartitionWidth::Month),
            ("day", PartitionWidth::Day),
        ];
        let partition = given(args.partition.as_deref());
        (
            partition.map(|text| self.choice("--partition", text, &known)),
            self.span("--retention", args.retention.as_deref()),
        )
    }

    fn auth(&mut self, text: Option<&str>, listen: SocketAddr) -> AuthMode {
        let known = [("off", AuthMode::Off), ("keys", AuthMode::Keys)];
        match given(text) {
            Some(text) => self.choice("--auth", text, &known),
            None if listen.ip().is_loopback() => AuthMode::Off,
            None => AuthMode::Keys,
        }
    }
}

impl Config {
    /// Whether only programs of this machine are served: the gateway listens on a loopback address,
    /// asks for no keys, and stands behind no proxy.
    pub fn is_for_this_machine(&self) -> bool {
        self.auth == AuthMode::Off
            && self.listen.ip().is_loopback()
            && self.trusted_proxies.is_empty()
    }

    /// Where the data are.
    pub fn data(&self) -> DataConfig {
        DataConfig {
            database_url: self.database_url.clone(),
            data_dir: self.data_dir.clone(),
            pg_bin: self.pg_bin.clone(),
            path: self.path.clone(),
        }
    }

    /// Checks the flags, and the files that they name.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check(args: &ServeArgs) -> Result<Self, ConfigErrors> {
        let mut checks = Checks::default();
        let config = Config::take(args, &mut checks);
        ConfigErrors::unless_empty(checks.errors).map(|()| config)
    }

    /// The same for a gateway that is about to start: it must be able to use its data directory.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check_to_serve(args: &ServeArgs) -> Result<Self, ConfigErrors> {
        let mut checks = Checks::default();
        let config = Config::take(args, &mut checks);
        checks.place(&config.data_dir, config.wal_allow_volatile);
        ConfigErrors::unless_empty(checks.errors).map(|()| config)
    }

    fn take(args: &ServeArgs, checks: &mut Checks) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let shards = given(args.shards.as_deref());
        let shards = shards.map(|text| checks.number("--shards", text, 1..=SHARDS_MAX.into()));
        let listen = checks.listen(&args.listen);
        let auth = checks.auth(args.auth.as_deref(), listen);
        let data = checks.data(&args.data_dir, &args.database);
        let (partition, retention) = checks.history(&args.history);
        let max_age = checks.span("--max-age", args.max_age.as_deref());
        let (memory, body) = memory_and_body(args, checks);
        if auth == AuthMode::Keys {
            checks.keys(&data.data_dir);
        }
        let wal_limit = checks.bytes("--wal-limit", &args.wal_limit, LIMIT_BYTES_MIN..=1 << 50);
        let wal_retain = checks.bytes("--wal-retain", &args.wal_retain, 0..=1 << 50);
        let syncs = [("always", SyncMode::Always), ("never", SyncMode::Never)];
        let second = Duration::from_secs(1);
        Config {
            listen,
            database_url: data.database_url,
            data_dir: data.data_dir,
            shards: shards.unwrap_or(cores.min(SHARDS_MAX.into()) as u64) as u16,
            wal_limit_bytes: wal_limit.unwrap_or_default(),
            wal_retain_bytes: wal_retain.unwrap_or_default(),
            wal_sync: checks.choice("--wal-sync", &args.wal_sync, &syncs),
            wal_allow_volatile: args.wal_allow_volatile,
            #[cfg(debug_assertions)]
            end_at: args.end_at.map(|point| (point, args.end_at_time)),
            memory_limit_bytes: memory.unwrap_or_default(),
            batch_rows_max: checks.number("--batch-rows", &args.batch_rows, 100..=1_000_000)
                as usize,
            linger: checks.duration("--linger", &args.linger, 10 * second),
            live_interval: checks.duration("--live-interval", &args.live_interval, 60 * second),
            body_bytes_max: body.unwrap_or_default() as usize,
            connections_max: checks.number(
                "--max-connections",
                &args.max_connections,
                1..=1_000_000,
            ) as usize,
            header_timeout: checks.timeout("--header-timeout", &args.header_timeout),
            idle_timeout: checks.timeout("--idle-timeout", &args.idle_timeout),
            body_timeout: checks.timeout("--body-timeout", &args.body_timeout),
            commit_timeout: checks.timeout("--commit-timeout", &args.commit_timeout),
            partition,
            retention,
            max_age: max_age
                .or((partition == Some(PartitionWidth::Day)).then_some(MAX_AGE_WITH_DAYS)),
            auth,
            tls: checks.tls(args),
            trusted_proxies: checks.networks(&args.trusted_proxies),
            cors_origins: checks.origins(&args.cors_origin),
            energy: args.energy.check(checks),
            tariff: args.energy.tariff(checks),
            alerts: checks.alerts(&args.alerts),
            collector: checks.collector(args),
            logging: checks.logging(&args.logging),
            shutdown_timeout: checks.timeout("--shutdown-timeout", &args.shutdown_timeout),
            pg_bin: data.pg_bin,
            path: data.path,
        }
    }
}

/// The memory for readings, and the largest body, which must fit into it.
///
/// Units:  bytes
fn memory_and_body(args: &ServeArgs, checks: &mut Checks) -> (Option<u64>, Option<u64>) {
    let memory = checks.bytes("--memory-limit", &args.memory_limit, 16 << 20..=1 << 40);
    let body = checks.bytes("--max-body", &args.max_body, 1 << 10..=256 << 20);
    if let (Some(memory), Some(body)) = (memory, body) {
        let least = admission::memory_least(body as usize);
        if memory < least {
            let rule = format!(
                "must be at least {}, so that the largest body fits (--max-body {})",
                units::bytes_text(least),
                args.max_body
            );
            checks.wrong_value("--memory-limit", &args.memory_limit, rule);
        }
    }
    (memory, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    fn check(args: &[&str]) -> Result<Config, ConfigErrors> {
        let words = std::iter::once("wattgate").chain(args.iter().copied());
        let matches = Cli::prepared().try_get_matches_from(words).unwrap();
        Config::check(&Cli::from_arg_matches(&matches).unwrap().serve)
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
    fn everything_wrong_is_reported_at_once() {
        let wrong = [
            ("--listen", "here"),
            ("--shards", "65"),
            ("--wal-limit", "1MiB"),
            ("--linger", "soon"),
            ("--retention", "-5"),
            ("--batch-rows", "many"),
            ("--max-connections", "-1"),
            ("--alert-efficiency", "high"),
            ("--efficiency-good", "101"),
            ("--tariff", "cheap"),
            ("--tariff-zone", "Middle/Earth"),
            ("--tariff-currency", "euro"),
            ("--tls-cert", "/nowhere.pem"),
            ("--database-url", "postgres://h/db?colour=red"),
            ("--pg-bin", "/nowhere"),
            ("--log-level", "a=b=c"),
        ];
        let args: Vec<&str> = wrong
            .iter()
            .flat_map(|(flag, text)| [*flag, *text])
            .collect();
        let Err(ConfigErrors(errors)) = check(&args) else {
            panic!("accepted")
        };
        assert_eq!(errors.len(), wrong.len(), "{errors:#?}");
        for (flag, _) in wrong {
            // Each names its environment variable too.
            let start = format!("{flag} (");
            assert!(
                errors.iter().any(|e| e.starts_with(&start)),
                "{flag}: {errors:#?}"
            );
        }
    }

    #[test]
    fn a_tariff_is_checked_part_by_part_also_without_prices() {
        let errors = |args: &[&str]| check(args).err().map_or(0, |errors| errors.0.len());
        assert_eq!(
            errors(&["--tariff-zone", "Middle/Earth", "--tariff-currency", "€"]),
            2
        );
        assert_eq!(
            errors(&["--tariff", "-0.05,06:00=0.3", "--tariff-currency", "EUR"]),
            0
        );
        assert_eq!(errors(&["--tariff", ""]), 0);
    }

    #[test]
    fn a_bound_is_given_in_the_unit_of_its_flag() {
        let said = |args: &[&str]| check(args).err().unwrap().to_string();
        let memory = said(&["--memory-limit", "20MiB"]);
        assert!(
            memory.contains("at least 64MiB") && !memory.contains("67108864"),
            "{memory}"
        );
        assert!(
            memory.starts_with("--memory-limit (WATTGATE_MEMORY_LIMIT) 20MiB"),
            "{memory}"
        );
        let linger = said(&["--linger", "1h"]);
        assert!(linger.contains("at most 10s"), "{linger}");
        let timeout = said(&["--body-timeout", "2d"]);
        assert!(timeout.contains("1ms to 1h"), "{timeout}");
        let retention = said(&["--retention", "-5"]);
        assert!(
            retention.contains("--retention (WATTGATE_RETENTION) -5: must be"),
            "{retention}"
        );
    }

    #[test]
    fn each_command_has_only_the_flags_that_it_uses() {
        let parse = |line: &str| Cli::prepared().try_get_matches_from(line.split(' '));
        for line in [
            "wattgate keys list --listen 127.0.0.1:1",
            "wattgate keys create --name a --rights read --database-url x",
            "wattgate wal inspect --database-url postgres://h",
            "wattgate wal verify --log-level debug",
            "wattgate quarantine list --shards 2",
            "wattgate migrate --listen 127.0.0.1:1",
            "wattgate erase --vehicle V --retention 5d",
            "wattgate --data-dir d keys list",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in [
            "wattgate --shards 2",
            "wattgate serve --shards 2",
            "wattgate check --listen 127.0.0.1:1 --database-url postgres://h",
            "wattgate keys list --data-dir d",
            "wattgate wal adopt --data-dir d --database-url postgres://h",
            "wattgate quarantine list --limit 3 --database-url postgres://h --log-level debug",
            "wattgate migrate --partition day",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn off_loopback_keys_are_needed_unless_auth_is_off_by_name() {
        let auth = |args: &[&str]| check(args).ok().unwrap().auth;
        assert_eq!(auth(&["--listen", "0.0.0.0:3000"]), AuthMode::Keys);
        assert_eq!(auth(&["--listen", "[::]:3000"]), AuthMode::Keys);
        let by_name = ["--listen", "0.0.0.0:3000", "--auth", "off"];
        assert_eq!(auth(&by_name), AuthMode::Off);
        assert_eq!(auth(&["--listen", "[::1]:3000"]), AuthMode::Off);
        assert_eq!(auth(&["--auth", "keys"]), AuthMode::Keys);
    }

    #[test]
    fn a_loopback_address_without_keys_is_for_this_machine() {
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
