//! The command line and the environment, checked as a whole. Everything that is wrong is reported at once.
//! No other module reads the environment.
//!
//! Each part owns its settings and their bounds; [`Config`] collects them.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `args`, `flags` | commands and flags as texts, not yet checked |
//! | `checks` | the check of one value, and the collection of what is wrong |
//! | `parts` | turns flags into the settings of a part |
//! | `alerts`, `energy` | the flags of one part, and their checks |
//! | `commands`, `demo` | the configurations of the commands other than the gateway itself |
//! | `units` | sizes and times as texts |

mod alerts;
mod args;
mod checks;
mod commands;
mod demo;
mod energy;
mod flags;
mod parts;
#[cfg(test)]
mod tests;
mod units;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::analytics::Judgement;
use crate::auth::AuthMode;
use crate::energy::tariff::Tariff;
use crate::http::server::tls::TlsFiles;
use crate::ingest::pipeline::PipelineLimits;
use crate::otlp::Collector;
use crate::postgres::embedded::ProgramSearch;
use crate::postgres::migrations::HistoryOptions;
use crate::postgres::{ReplicaSettings, Target};
use crate::wal::LogOptions;
use crate::writer::WriterOptions;
pub use alerts::AlertArgs;
pub use args::{
    Cli, Command, CreateKeyArgs, DemoArgs, EraseArgs, KeysCommand, MigrateArgs, QuarantineArgs,
    QuarantineCommand, ReachArgs, StreamArg, WalCommand,
};
use checks::Checks;
pub use commands::MigrateConfig;
pub use energy::EnergyArgs;
pub use flags::{DataDirArgs, DatabaseArgs, HistoryArgs, LoggingArgs, ServeArgs};
pub use units::{parse_bytes, parse_duration};

/// The format of logged events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines of text.
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

/// The places of a gateway's data, which commands need too.
#[derive(Clone)]
pub struct DataConfig {
    /// The directory of the log, the keys and the embedded database.
    pub dir: PathBuf,
    /// The database; `None` means the embedded PostgreSQL.
    pub server: Option<Target>,
    /// Where the programs of the embedded PostgreSQL are.
    pub programs: ProgramSearch,
}

impl DataConfig {
    /// The directory of the write-ahead log.
    pub fn wal_dir(&self) -> PathBuf {
        self.dir.join("wal")
    }
}

/// A checked configuration: the settings of each part.
#[derive(Clone)]
pub struct Config {
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// Where the data is.
    pub data: DataConfig,
    /// The read replicas; `None` means that the primary answers every query.
    pub replicas: Option<ReplicaSettings>,
    /// How the log is opened.
    pub log: LogOptions,
    /// Whether the log may lie on a file system where a sync guarantees nothing.
    pub wal_allow_volatile: bool,
    /// The failpoint that ends the process, and at which of the times that it is reached.
    #[cfg(debug_assertions)]
    pub end_at: Option<(crate::failpoint::Point, u32)>,
    /// Memory for readings that are not yet in the log, in bytes.
    pub memory_limit_bytes: u64,
    /// The limits between bodies and the log.
    pub pipeline: PipelineLimits,
    /// How the writers work.
    pub writers: WriterOptions,
    /// How history is kept.
    pub history: HistoryOptions,
    /// The limits of the edge.
    pub http: crate::http::Settings,
    /// Which clients may call.
    pub auth: AuthMode,
    /// The files of TLS; `None` means that connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// How energy is judged.
    pub energy: Judgement,
    /// What a kWh costs; `None` means that answers hold no costs.
    pub tariff: Option<Tariff>,
    /// When an alert opens, and where it is sent; `None` turns alerts off.
    pub alerts: Option<crate::alerts::Settings>,
    /// Whether the gateway sends itself the readings of the demo.
    pub demo: bool,
    /// Where metrics are sent; `None` means that they are only scraped.
    pub collector: Option<Collector>,
    /// What is logged.
    pub logging: Logging,
    /// Whether a service manager waits for messages about the gateway's state.
    pub service_manager: bool,
    /// How long a stop waits for the writers. The rest stays in the log.
    pub shutdown_timeout: Duration,
}

/// Everything that is wrong with a configuration, a line each.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\nwattgate: "))]
pub struct ConfigErrors(pub Vec<String>);

impl Config {
    /// Checks the flags, and the files that they name.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check(args: &ServeArgs) -> Result<Self, ConfigErrors> {
        let mut checks = Checks::default();
        let config = Config::take(args, &mut checks);
        checks.into_result(config)
    }

    /// The same for a gateway that is about to start: it must be able to use its data directory.
    ///
    /// # Errors
    /// [`ConfigErrors`]: everything that is wrong.
    pub fn check_to_serve(args: &ServeArgs) -> Result<Self, ConfigErrors> {
        let mut checks = Checks::default();
        let config = Config::take(args, &mut checks);
        checks.place(&config);
        checks.into_result(config)
    }

    fn take(args: &ServeArgs, checks: &mut Checks) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let listen = checks.listen(&args.listen);
        let auth = checks.auth(args.auth.as_deref(), listen);
        let data = checks.data(&args.data_dir, &args.database);
        if auth == AuthMode::Keys {
            checks.keys(&data.dir);
        }
        let history = checks.history(&args.history);
        let mut http = checks.http(args);
        http.local_hosts_only =
            auth == AuthMode::Off && listen.ip().is_loopback() && http.trusted_proxies.is_empty();
        Config {
            listen,
            replicas: checks.replicas(args),
            data,
            log: checks.log(args, cores),
            wal_allow_volatile: args.wal_allow_volatile,
            #[cfg(debug_assertions)]
            end_at: args.end_at.map(|point| (point, args.end_at_time)),
            memory_limit_bytes: checks.memory(args, http.body_bytes_max),
            pipeline: checks.pipeline(args, history, cores),
            writers: checks.writers(args),
            history,
            http,
            auth,
            tls: checks.tls(args),
            energy: args.energy.check(checks),
            tariff: args.energy.tariff(checks),
            alerts: checks.alerts(&args.alerts),
            demo: false,
            collector: checks.collector(args),
            logging: checks.logging(&args.logging),
            service_manager: args::has_service_manager(),
            shutdown_timeout: checks.timeout("--shutdown-timeout", &args.shutdown_timeout),
        }
    }
}
