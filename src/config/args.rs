//! The command line as clap reads it: commands and texts, not yet checked.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::checks::variable;
use super::flags::{DataDirArgs, DatabaseArgs, HistoryArgs, LoggingArgs, ServeArgs};

/// A telemetry gateway for EV-charging fleets and smart meters.
///
/// Wattgate takes readings over HTTP, acknowledges them once they are safe on disk, and stores them
/// in PostgreSQL. It reports what each device is doing, and how much of the energy that you paid
/// for has reached the batteries.
#[derive(Debug, Parser)]
#[command(
    name = "wattgate",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    /// The command; without one, the gateway runs
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of the gateway, if no command is named.
    #[command(flatten)]
    pub serve: ServeArgs,
}

impl Cli {
    /// Reads the command line and the environment. Ends the process if they cannot be parsed, or after
    /// printing the help.
    pub fn read() -> Self {
        let matches = Cli::prepared().get_matches();
        Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// The command line as it is parsed. Each flag of the gateway has an environment variable, in every command.
    ///
    /// An empty variable counts as unset. A value may begin with `-`, so that the check of the flag reports what
    /// is wrong with it.
    pub fn prepared() -> clap::Command {
        let gateway = ServeArgs::augment_args(clap::Command::new("serve"));
        let flags = gateway.get_arguments().filter(|arg| !arg.is_hide_set());
        let flags: Vec<&str> = flags.filter_map(clap::Arg::get_long).collect();
        prepare(Cli::command(), &flags)
    }
}

fn prepare(command: clap::Command, flags: &[&str]) -> clap::Command {
    command
        .mut_args(
            |arg| match arg.get_long().filter(|flag| flags.contains(flag)) {
                Some(flag) => with_variable(variable(flag), arg),
                None => arg,
            },
        )
        .mut_subcommands(|command| match command.get_name() {
            // It is a gateway beside the configured one, so the variables are not for it.
            "demo" => command,
            _ => prepare(command, flags),
        })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this module reads the environment, for all others"
)]
fn with_variable(name: String, arg: clap::Arg) -> clap::Arg {
    let takes_value = arg.get_action().takes_values();
    let arg = arg.allow_hyphen_values(takes_value);
    match std::env::var_os(&name) {
        Some(value) if value.is_empty() => arg,
        _ => arg.env(name),
    }
}

/// The search path of programs, to find PostgreSQL.
#[expect(
    clippy::disallowed_methods,
    reason = "this module reads the environment, for all others"
)]
pub(super) fn search_path() -> Option<std::ffi::OsString> {
    std::env::var_os("PATH")
}

/// Whether a service manager waits for messages, as `sd_notify(3)` sends them.
#[expect(
    clippy::disallowed_methods,
    reason = "this module reads the environment, for all others"
)]
pub(super) fn has_service_manager() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The commands of the program.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the gateway (the default)
    Serve(Box<ServeArgs>),
    /// Show the gateway with a real day of charging: 86 sessions at a workplace, as if they were
    /// happening now. It uses a temporary PostgreSQL, and removes everything at the end
    Demo(DemoArgs),
    /// Apply the database migrations, then exit
    Migrate(MigrateArgs),
    /// Report everything that would keep a gateway from working: configuration, data directory,
    /// address, database and rights. The gateway may be running
    Check(Box<ServeArgs>),
    /// Erase everything that is stored about a vehicle. Stop all gateways on the database first
    Erase(EraseArgs),
    /// Create, list and revoke API keys. A running gateway picks up changes within seconds
    Keys {
        /// What to do with them.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Inspect, verify and repair the write-ahead log, or bind it to another database
    Wal {
        /// What to do with it.
        #[command(subcommand)]
        command: WalCommand,
    },
    /// List or retry quarantined readings: those that the database refused, and those that
    /// contradict a stored reading
    Quarantine {
        /// What to do with them.
        #[command(subcommand)]
        command: QuarantineCommand,
    },
}

/// The flags of a command that reaches the database of a gateway.
#[derive(Debug, Clone, Args)]
pub struct ReachArgs {
    /// Where the log is.
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    /// Where the database is.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// What is logged.
    #[command(flatten)]
    pub logging: LoggingArgs,
}

/// The flags of `wattgate demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// The loopback address and port to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:3100", value_name = "ADDRESS")]
    pub listen: String,
    /// The directory of PostgreSQL's programs [default: found automatically]
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    /// The log level: error, warn, info, debug or trace; or a filter by module
    #[arg(long, default_value = "warn", value_name = "LEVEL")]
    pub log_level: String,
}

/// The flags of `wattgate migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// Which database.
    #[command(flatten)]
    pub reach: ReachArgs,
    /// How history is kept, stored in the database with the schema.
    #[command(flatten)]
    pub history: HistoryArgs,
}

/// The flags of `wattgate erase`.
#[derive(Debug, Clone, Args)]
pub struct EraseArgs {
    /// The vehicle's id
    #[arg(long, value_name = "ID")]
    pub vehicle: String,
    /// Which database.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// The commands for the write-ahead log in the data directory.
#[derive(Debug, Clone, Subcommand)]
pub enum WalCommand {
    /// Print runs, segments, shards, positions and counts. The gateway may be running
    Inspect {
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
        /// Where the log is.
        #[command(flatten)]
        data_dir: DataDirArgs,
    },
    /// Read and check every frame, and list the damage; exit with 1 if there is any. The gateway
    /// may be running
    Verify {
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
        /// Where the log is.
        #[command(flatten)]
        data_dir: DataDirArgs,
    },
    /// Copy every intact frame to a new directory, and list what is lost; the log itself stays
    /// unchanged. Stop the gateway first
    Repair {
        /// An empty or new directory; afterwards, put it in place of the log's directory
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// Where the log is.
        #[command(flatten)]
        data_dir: DataDirArgs,
    },
    /// Bind the log to the configured database, and accept the server that it reaches. The waiting readings then go
    /// there; readings already stored in another database stay where they are. The gateway may be running
    Adopt(ReachArgs),
    /// Accept the loss of readings that a restored database lacks and the log no longer holds, so
    /// that the gateway becomes ready again. The gateway may be running
    AcceptGap(ReachArgs),
}

/// The commands for API keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Create a key and print it once: only its hash is kept
    Create(CreateKeyArgs),
    /// List all keys, including revoked ones
    List(DataDirArgs),
    /// Revoke a key: the gateway refuses it within seconds
    Revoke {
        /// The key's id or its name
        #[arg(value_name = "ID|NAME")]
        key: String,
        /// Where the keys are.
        #[command(flatten)]
        data_dir: DataDirArgs,
    },
}

/// The terms of a new key.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CreateKeyArgs {
    /// The key's name; no other key in use may have the same name
    #[arg(long)]
    pub name: String,
    /// ingest, read or admin; separate several with commas
    #[arg(long)]
    pub rights: String,
    /// Restrict the key to devices whose ids begin with this [default: all devices]
    #[arg(long)]
    pub prefix: Option<String>,
    /// The most readings per second; the gateway answers 429 to more [default: no limit]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub rate: Option<u32>,
    /// A client certificate, in PEM, that stands for the key if --tls-client-ca is set: a client
    /// that presents it needs no key, and has this key's rights, prefix, rate and expiry [default:
    /// none]
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// When the key expires: a time such as 2027-01-01T00:00:00Z, or a duration from now such as 90d
    /// [default: never]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub expires: Option<String>,
    /// Where the keys are.
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

/// The commands for quarantined readings.
#[derive(Debug, Clone, Subcommand)]
pub enum QuarantineCommand {
    /// List quarantined readings, newest first, each with the stored reading that it contradicts
    List {
        /// The most readings to list
        #[arg(
            long,
            default_value_t = 100,
            value_name = "N",
            allow_hyphen_values = true
        )]
        limit: u32,
        /// Which of them.
        #[command(flatten)]
        which: QuarantineArgs,
        /// Print one JSON object per line, for programs
        #[arg(long)]
        json: bool,
        /// Which database.
        #[command(flatten)]
        reach: ReachArgs,
    },
    /// Store the readings that can be stored now; the others stay in quarantine. The totals on
    /// /metrics do not change: they record what happened to each reading when it left the log
    Retry {
        /// Retry all quarantined readings
        #[arg(long, required_unless_present_any = ["stream", "device"])]
        all: bool,
        /// Which of them.
        #[command(flatten)]
        which: QuarantineArgs,
        /// Which database.
        #[command(flatten)]
        reach: ReachArgs,
    },
}

/// A selection of readings.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct QuarantineArgs {
    /// Only readings of meters, or only those of vehicles
    #[arg(long, value_enum, value_name = "meter|vehicle")]
    pub stream: Option<StreamArg>,
    /// Only the readings of one device
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
