//! The command line as clap reads it: texts and numbers, not yet checked.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::alerts::AlertArgs;
use super::energy::EnergyArgs;

/// A telemetry gateway for EV-charging fleets and smart meters.
///
/// Takes readings over HTTP, acknowledges them once they are safe on disk, writes them behind
/// into PostgreSQL, and answers what each device is doing and how much of the energy paid for
/// reached the battery.
#[derive(Debug, Parser)]
#[command(name = "wattgate", version, max_term_width = 100)]
pub struct Cli {
    /// What to do; without it: serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The configuration, for every command.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What the program can do.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run the gateway (the default)
    Serve,
    /// Apply the database's migrations, and end
    Migrate,
    /// Say in words what keeps a gateway from working: configuration, data directory, address,
    /// database, rights; a gateway may be running
    Check,
    /// Erase everything that is kept of a vehicle; no gateway may be running
    Erase {
        /// The vehicle's id
        #[arg(long, value_name = "ID")]
        vehicle: String,
    },
    /// Make, list and revoke API keys, whether or not the gateway runs; it knows within seconds
    Keys {
        /// What to do with them.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Look at the write-ahead log, verify and repair it, or bind it to another database
    Wal {
        /// What to do with it.
        #[command(subcommand)]
        command: WalCommand,
    },
    /// List or retry the readings that were set aside: refused by the database, or contradicting
    /// a stored one
    Quarantine {
        /// What to do with them.
        #[command(subcommand)]
        command: QuarantineCommand,
    },
}

/// What can be done with the write-ahead log under the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum WalCommand {
    /// Print runs, segments, shards, places and counts; a gateway may be running
    Inspect {
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Read and check every frame, and tell what is damaged; exits with 1 if anything is. A gateway
    /// may be running
    Verify {
        /// One JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Copy what is sound to a new directory, and tell what is lost; the log itself is not changed.
    /// The gateway must not be running
    Repair {
        /// An empty or new directory; put it in place of the log's directory afterwards
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Bind the log to the database that the configuration names: what waits in it is stored there
    /// from now on, and what is stored in the other database is not. A gateway may be running
    Adopt,
    /// Give up readings that a restored database lacks and the log no longer holds: a gateway is ready
    /// again in spite of them. It may be running
    AcceptGap,
}

/// What can be done with API keys.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it, once: only its hash is kept
    Create(CreateKeyArgs),
    /// List the keys, those that were revoked too
    List,
    /// Refuse a key from now on
    Revoke {
        /// The key's id or its name
        #[arg(value_name = "ID|NAME")]
        key: String,
    },
}

/// What a new key may do.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CreateKeyArgs {
    /// What to call it; no other key in use may be called so
    #[arg(long)]
    pub name: String,
    /// ingest, read, admin: one or several, between commas
    #[arg(long)]
    pub rights: String,
    /// It may speak only for devices whose ids begin so [default: any]
    #[arg(long)]
    pub prefix: Option<String>,
    /// Readings a second; more are answered with 429 [default: no limit]
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// A client certificate, in PEM, that stands for the key where --tls-client-ca is set: who shows
    /// it needs no key, and has this one's rights, prefix, rate and expiry [default: none]
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// A time as 2027-01-01T00:00:00Z, or from now as 90d, after which it is refused
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
}

/// What can be done with readings that were set aside.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum QuarantineCommand {
    /// List them, newest first
    List {
        /// How many at most
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
        /// Which of them.
        #[command(flatten)]
        which: QuarantineArgs,
        /// A JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Insert into history what fits now; what is refused again stays where it is. The sums on
    /// /metrics are not changed: they tell what became of a reading when it left the log
    Retry {
        /// All of them
        #[arg(long, required_unless_present_any = ["stream", "device"])]
        all: bool,
        /// Which of them.
        #[command(flatten)]
        which: QuarantineArgs,
    },
}

/// Which readings are meant.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct QuarantineArgs {
    /// Only meters' or only vehicles' readings
    #[arg(long, value_enum, value_name = "meter|vehicle")]
    pub stream: Option<StreamArg>,
    /// Only one device's readings
    #[arg(long, value_name = "ID")]
    pub device: Option<String>,
}

/// A stream, on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StreamArg {
    /// Meters
    Meter,
    /// Vehicles
    Vehicle,
}

/// The flags; each has an environment variable.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 picks one
    #[arg(
        long,
        global = true,
        env = "WATTGATE_LISTEN",
        default_value = "127.0.0.1:3000"
    )]
    pub listen: String,
    /// PostgreSQL to write to; without it, an embedded one is run under the data directory
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub database_url: Option<String>,
    /// Where the write-ahead log and the embedded PostgreSQL live
    #[arg(
        long,
        global = true,
        env = "WATTGATE_DATA_DIR",
        default_value = "./data",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,
    /// Shards of the log, each with a writer: 1 to 64 [default: the number of cores]
    #[arg(long, global = true, env = "WATTGATE_SHARDS", value_name = "N")]
    pub shards: Option<u64>,
    /// The write-ahead log on disk, all in; at least 64MiB
    #[arg(
        long,
        global = true,
        env = "WATTGATE_WAL_LIMIT",
        default_value = "10GiB",
        value_name = "SIZE"
    )]
    pub wal_limit: String,
    /// How much of the log is kept behind the checkpoints, for a database that fails over or is
    /// restored; at most a quarter of the limit is
    #[arg(
        long,
        global = true,
        env = "WATTGATE_WAL_RETAIN",
        default_value = "1GiB",
        value_name = "SIZE"
    )]
    pub wal_retain: String,
    /// always, or never: for benchmarks only, a power cut then loses acknowledged readings
    #[arg(
        long,
        global = true,
        env = "WATTGATE_WAL_SYNC",
        default_value = "always",
        value_name = "WHEN"
    )]
    pub wal_sync: String,
    /// Let the log live in memory (tmpfs) or on a network file system, where a sync is no promise
    #[arg(
        long,
        global = true,
        env = "WATTGATE_WAL_ALLOW_VOLATILE",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub wal_allow_volatile: bool,
    /// For tests: end the process at this place, as a kill would
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "POINT")]
    pub end_at: Option<crate::failpoint::Point>,
    /// For tests: at which of the times that it is reached
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, default_value_t = 1, value_name = "N")]
    pub end_at_time: u32,
    /// For tests: let this part of the gateway panic
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "PART", requires = "panic_when")]
    pub panic_in: Option<String>,
    /// For tests: as soon as this file is there
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "FILE")]
    pub panic_when: Option<std::path::PathBuf>,
    /// Memory for readings on their way
    #[arg(
        long,
        global = true,
        env = "WATTGATE_MEMORY_LIMIT",
        default_value = "256MiB",
        value_name = "SIZE"
    )]
    pub memory_limit: String,
    /// Rows of a micro-batch at most
    #[arg(
        long,
        global = true,
        env = "WATTGATE_BATCH_ROWS",
        default_value_t = 100_000,
        value_name = "N"
    )]
    pub batch_rows: u64,
    /// How long a small batch waits for more readings; up to eight times as long while many come
    #[arg(
        long,
        global = true,
        env = "WATTGATE_LINGER",
        default_value = "25ms",
        value_name = "TIME"
    )]
    pub linger: String,
    /// How stale live status may be while load is high
    #[arg(
        long,
        global = true,
        env = "WATTGATE_LIVE_INTERVAL",
        default_value = "1s",
        value_name = "TIME"
    )]
    pub live_interval: String,
    /// A request's body at most
    #[arg(
        long,
        global = true,
        env = "WATTGATE_MAX_BODY",
        default_value = "8MiB",
        value_name = "SIZE"
    )]
    pub max_body: String,
    /// Connections at once
    #[arg(
        long,
        global = true,
        env = "WATTGATE_MAX_CONNECTIONS",
        default_value_t = 16_384,
        value_name = "N"
    )]
    pub max_connections: u64,
    /// For a request's head
    #[arg(
        long,
        global = true,
        env = "WATTGATE_HEADER_TIMEOUT",
        default_value = "60s",
        value_name = "TIME"
    )]
    pub header_timeout: String,
    /// How long a connection is kept between two requests: longer than proxies keep theirs
    #[arg(
        long,
        global = true,
        env = "WATTGATE_IDLE_TIMEOUT",
        default_value = "620s",
        value_name = "TIME"
    )]
    pub idle_timeout: String,
    /// For a request's body, all of it
    #[arg(
        long,
        global = true,
        env = "WATTGATE_BODY_TIMEOUT",
        default_value = "30s",
        value_name = "TIME"
    )]
    pub body_timeout: String,
    /// How long ack=committed waits for the database before it answers 503
    #[arg(
        long,
        global = true,
        env = "WATTGATE_COMMIT_TIMEOUT",
        default_value = "10s",
        value_name = "TIME"
    )]
    pub commit_timeout: String,
    /// The width of history's new partitions, kept in the database: month or day [default: month]
    #[arg(long, global = true, env = "WATTGATE_PARTITION", value_name = "WIDTH")]
    pub partition: Option<String>,
    /// Drop history older than this, in whole partitions [default: it is kept]
    #[arg(long, global = true, env = "WATTGATE_RETENTION", value_name = "TIME")]
    pub retention: Option<String>,
    /// Refuse readings older than this [default: none; 400d with day partitions]
    #[arg(long, global = true, env = "WATTGATE_MAX_AGE", value_name = "TIME")]
    pub max_age: Option<String>,
    /// off or keys [default: off on a loopback address, keys elsewhere]
    #[arg(long, global = true, env = "WATTGATE_AUTH", value_name = "WHO")]
    pub auth: Option<String>,
    /// Certificate to serve TLS with, and those between it and its authority, in PEM; files that
    /// change are taken up within 30 seconds, and at SIGHUP
    #[arg(
        long,
        global = true,
        env = "WATTGATE_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(
        long,
        global = true,
        env = "WATTGATE_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
    /// Authorities of clients, in PEM: who shows a certificate of theirs may send readings
    /// without a key, or what a key made with --certificate says
    #[arg(
        long,
        global = true,
        env = "WATTGATE_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    pub tls_client_ca: Option<PathBuf>,
    /// Origins of web pages that may call from a browser, between commas, or * [default: none]
    #[arg(
        long,
        global = true,
        env = "WATTGATE_CORS_ORIGIN",
        value_name = "ORIGINS",
        value_delimiter = ','
    )]
    pub cors_origin: Vec<String>,
    /// Proxies before the gateway, addresses or networks between commas: the client's address in the
    /// log is then what they say in X-Forwarded-For, and any Host is answered [default: none]
    #[arg(
        long,
        global = true,
        env = "WATTGATE_TRUSTED_PROXIES",
        value_name = "NETWORKS",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<String>,
    /// text or json, on stderr [default: text on a terminal, else json]
    #[arg(
        long,
        global = true,
        env = "WATTGATE_LOG_FORMAT",
        value_name = "FORMAT"
    )]
    pub log_format: Option<String>,
    /// error, warn, info, debug or trace, or a filter by module
    #[arg(
        long,
        global = true,
        env = "WATTGATE_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,
    /// An OpenTelemetry collector that is sent the metrics by OTLP over HTTP, as
    /// http://127.0.0.1:4318 [default: none]
    #[arg(
        long,
        global = true,
        env = "WATTGATE_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,
    /// How often the collector is sent them
    #[arg(
        long,
        global = true,
        env = "WATTGATE_OTLP_INTERVAL",
        default_value = "60s",
        value_name = "TIME"
    )]
    pub otlp_interval: String,
    /// How long a stop waits for the writers; what is left then stays in the log
    #[arg(
        long,
        global = true,
        env = "WATTGATE_SHUTDOWN_TIMEOUT",
        default_value = "30s",
        value_name = "TIME"
    )]
    pub shutdown_timeout: String,
    /// Where PostgreSQL's programs are [default: they are searched for]
    #[arg(long, global = true, env = "PG_BIN", value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    /// How energy is judged.
    #[command(flatten)]
    pub energy: EnergyArgs,
    /// When an alert opens, and who is told.
    #[command(flatten)]
    pub alerts: AlertArgs,
}

/// The search path of programs, for finding PostgreSQL.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the file that reads the environment"
)]
pub(super) fn search_path() -> Option<std::ffi::OsString> {
    std::env::var_os("PATH")
}
