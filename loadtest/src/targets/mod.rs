//! The table of targets. This program starts a gateway for each load, with its embedded PostgreSQL and, on
//! request, on another server as well. Each figure is compared with a limit that was measured within the same
//! minutes on the same kind of server.
//!
//! [`gateway`] starts and watches the gateway, and [`server`] a server that is not embedded. [`cases`] has the
//! targets, with the larger ones in their own files; [`loaded`] is the result of a load. [`machine`] describes the
//! machine, and [`table`] prints the results. T7 and T13 (with 100 M rows of history) and T9 (which fills
//! databases of several GB) are measured only if they are named.

mod cases;
mod database;
mod gateway;
mod history;
mod loaded;
mod machine;
mod plot;
mod server;
mod t10;
mod t11;
mod t12;
mod t13;
mod t6;
mod t7;
mod t9;
mod table;

use std::path::PathBuf;

use crate::generator;
use crate::limits::LimitError;
use crate::output::{report, say};
use crate::verdict::Verdict;
use cases::{Case, Run};
use server::{Cluster, Server};

/// Measure a gateway against its targets, along with the limits, and write the results.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The gateway's program
    #[arg(long)]
    gateway: PathBuf,
    /// Measure only these targets, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Case>,
    /// How long to send each load
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    /// How long T6 stops the database
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    outage_seconds: u64,
    /// Readings that T7 queries, and that T13 rolls up
    #[arg(long, default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    history_rows: u64,
    /// Devices of these readings: half meters, half vehicles
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    history_devices: u32,
    /// Where to keep T7's history on the embedded server for another run [default: the scratch
    /// directory, which is emptied]
    #[arg(long)]
    history: Option<PathBuf>,
    /// Readings of history under each load of T9, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000000,10000000,100000000"
    )]
    growth_rows: Vec<u64>,
    /// Where gateways keep their data while they are measured; emptied before and after
    #[arg(long, default_value = "/var/tmp/wattgate-targets")]
    scratch: PathBuf,
    /// Also measure on a server with PostgreSQL's defaults, created with the programs in this
    /// directory
    #[arg(long, value_name = "BIN")]
    server_defaults: Option<PathBuf>,
    /// Also measure on this server, in a database `wattgate_targets` that is created anew for each
    /// gateway
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Do not measure on the embedded server
    #[arg(long)]
    not_embedded: bool,
    /// An option of the gateway, such as `--gateway-option=--shards=4`; may be repeated
    #[arg(long = "gateway-option")]
    gateway_options: Vec<String>,
    /// Where to write the results, as DATE-MACHINE.json and .md
    #[arg(long, default_value = "loadtest/results")]
    results: PathBuf,
    /// The name of the machine in the names of the results
    #[arg(long, default_value = "machine")]
    machine: String,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetsError {
    #[error("the gateway: {0}")]
    Gateway(String),
    #[error("the server with defaults: {0}")]
    Server(String),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Load(#[from] generator::RunError),
    #[error("{0}")]
    Options(#[from] clap::Error),
    #[error("the database: {}", crate::output::cause(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Measures, prints the table, and writes it to files.
///
/// Shape:  wrong if the oracle found readings missing or surplus; an unmet target is still a result
///
/// # Errors
/// [`TargetsError`]: the gateway cannot be started or used.
pub(crate) fn run(options: Options) -> Result<Verdict, TargetsError> {
    let began = jiff::Timestamp::now();
    let machine = machine::describe(&options.gateway)?;
    let servers = servers(&options)?;
    let mut run = Run::new(&options);
    for case in Case::ALL {
        if options.only.contains(&case) || options.only.is_empty() && !case.is_long() {
            for server in &servers {
                say(&format!("== {} on {}", case.name(), server.name()));
                run.set_server(server);
                run.measure(case)?;
            }
        }
    }
    let rows = run.rows();
    let text = table::markdown(&run.heading(&machine, began), rows);
    report(&text)?;
    std::fs::create_dir_all(&options.results)?;
    let date = began.strftime("%Y-%m-%d").to_string();
    let path = options.results.join(format!("{date}-{}", options.machine));
    std::fs::write(path.with_extension("md"), &text)?;
    if let Some(plot) = run.plot() {
        let name = format!("{date}-{}-memory.svg", options.machine);
        std::fs::write(options.results.join(name), plot)?;
    }
    let json = table::json(
        machine.to_json(&run.postgresql()),
        began,
        options.seconds,
        rows,
    );
    std::fs::write(path.with_extension("json"), format!("{json:#}\n"))?;
    let right = rows.iter().all(|row| row.is_right);
    Ok(if right {
        Verdict::Right
    } else {
        Verdict::Wrong
    })
}

/// The servers to measure on.
fn servers(options: &Options) -> Result<Vec<Server>, TargetsError> {
    let mut servers = Vec::new();
    if !options.not_embedded {
        servers.push(Server::Embedded);
    }
    if let Some(bin) = &options.server_defaults {
        // Next to the scratch directory, which is emptied for each gateway.
        let dir = options.scratch.with_extension("server");
        servers.push(Server::Defaults(Cluster::start(bin, &dir)?));
    }
    servers.extend(options.server.clone().map(Server::Given));
    Ok(servers)
}
