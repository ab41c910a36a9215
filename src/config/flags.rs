//! The flags of the gateway. The texts are checked later, so that all errors are reported at once.

use std::path::PathBuf;

use clap::Args;

use super::alerts::AlertArgs;
use super::energy::EnergyArgs;

/// Where the data is.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DataDirArgs {
    /// The directory of the write-ahead log, the API keys and the embedded PostgreSQL
    #[arg(long, default_value = "./data", value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// Which database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// The PostgreSQL database; without it, an embedded server under the data directory is used
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// The directory of PostgreSQL's programs, for the embedded server [default: found
    /// automatically]
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
}

/// What is logged.
#[derive(Debug, Clone, Args)]
pub struct LoggingArgs {
    /// The format of the log on stderr: text or json [default: text on a terminal, otherwise json]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// The log level: error, warn, info, debug or trace; or a filter by module
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
}

/// How history is kept.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// The width of new partitions of history, stored in the database: month or day [default: the
    /// stored width; month for a new database]
    #[arg(long, value_name = "WIDTH")]
    pub partition: Option<String>,
    /// Drop history that is older than this, in whole partitions; stored in the database [default:
    /// the stored time; a new database keeps history forever]
    #[arg(long, value_name = "TIME")]
    pub retention: Option<String>,
}

/// The flags of the gateway.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The address and port to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    pub listen: String,
    /// Which database.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Standbys of the database that answer queries, as hosts of one connection string; changes and
    /// readings go to the primary [default: the primary answers queries]
    #[arg(long, value_name = "URL", hide_env_values = true)]
    pub read_database_url: Option<String>,
    /// How far a standby may be behind before the primary answers instead: 2s to 1h
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub read_max_lag: String,
    /// Where the data is.
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// Shards of the write-ahead log, each with its own writer: 1 to 64 [default: the number of
    /// cores]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// The largest size of the write-ahead log on disk; at least 64MiB
    #[arg(long, default_value = "10GiB", value_name = "SIZE")]
    pub wal_limit: String,
    /// How much of the log to keep after its readings are stored, for a database that fails over or
    /// is restored; never more than a quarter of --wal-limit
    #[arg(long, default_value = "1GiB", value_name = "SIZE")]
    pub wal_retain: String,
    /// When to sync the log: always or never. never is for benchmarks only: a power cut then loses
    /// acknowledged readings
    #[arg(long, default_value = "always", value_name = "WHEN")]
    pub wal_sync: String,
    /// Allow the log on a file system where a sync guarantees nothing: in memory (tmpfs) or on a
    /// network
    #[arg(long, value_parser = clap::builder::FalseyValueParser::new())]
    pub wal_allow_volatile: bool,
    /// For tests: end the process at this point, as a kill would
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "POINT")]
    pub end_at: Option<crate::failpoint::Point>,
    /// For tests: end it the n-th time that the point is reached
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, default_value_t = 1, value_name = "N")]
    pub end_at_time: u32,
    /// For tests: make this part of the gateway panic
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "PART", requires = "panic_when")]
    pub panic_in: Option<String>,
    /// For tests: panic as soon as this file exists
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "FILE")]
    pub panic_when: Option<std::path::PathBuf>,
    /// Memory for readings that are not yet in the log
    #[arg(long, default_value = "256MiB", value_name = "SIZE")]
    pub memory_limit: String,
    /// The most rows in a micro-batch
    #[arg(long, default_value = "400000", value_name = "N")]
    pub batch_rows: String,
    /// How long a small batch waits for more readings; up to eight times as long under load
    #[arg(long, default_value = "25ms", value_name = "TIME")]
    pub linger: String,
    /// How old live status may become under load
    #[arg(long, default_value = "1s", value_name = "TIME")]
    pub live_interval: String,
    /// The largest body of a request, after decompression
    #[arg(long, default_value = "8MiB", value_name = "SIZE")]
    pub max_body: String,
    /// The most connections that may be open at once
    #[arg(long, default_value = "16384", value_name = "N")]
    pub max_connections: String,
    /// How long the headers of a request may take to arrive
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub header_timeout: String,
    /// How long an idle connection is kept open; choose more than the idle timeout of any proxy in
    /// front of the gateway
    #[arg(long, default_value = "620s", value_name = "TIME")]
    pub idle_timeout: String,
    /// How long the whole body of a request may take to arrive
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub body_timeout: String,
    /// How long a request with ack=committed waits for the database before the gateway answers 503
    #[arg(long, default_value = "10s", value_name = "TIME")]
    pub commit_timeout: String,
    /// How history is kept.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// Refuse readings that are older than this [default: no limit; 400d with day partitions]
    #[arg(long, value_name = "TIME")]
    pub max_age: Option<String>,
    /// Whether requests need an API key: off or keys [default: off on a loopback address, otherwise
    /// keys]
    #[arg(long, value_name = "MODE")]
    pub auth: Option<String>,
    /// The certificate for TLS and its chain, in PEM; the gateway picks up changed files within 30
    /// seconds, and on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Certificate authorities of clients, in PEM: a client with a certificate from one of them may
    /// send readings without a key, or act as the key that was created with --certificate
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,
    /// Origins of web pages that may call the gateway from a browser, separated by commas, or * for
    /// all [default: none]
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    pub cors_origin: Vec<String>,
    /// Proxies in front of the gateway: addresses or networks, separated by commas. The gateway
    /// then logs the client address from their X-Forwarded-For, and accepts any Host header
    /// [default: none]
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    pub trusted_proxies: Vec<String>,
    /// What is logged.
    #[command(flatten)]
    pub logging: LoggingArgs,
    /// An OpenTelemetry collector to send metrics to, by OTLP over HTTP, such as
    /// http://127.0.0.1:4318 [default: none]
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// How often metrics are sent to the collector
    #[arg(long, default_value = "60s", value_name = "TIME")]
    pub otlp_interval: String,
    /// How long a stop waits for the writers; readings not stored by then stay in the log
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub shutdown_timeout: String,
    /// How energy is judged.
    #[command(flatten)]
    pub energy: EnergyArgs,
    /// When an alert opens, and where it is sent.
    #[command(flatten)]
    pub alerts: AlertArgs,
}
