//! Measures the limits that results are compared with, on the same machine within the same minutes.
//!
//! L1 is the rate of PostgreSQL alone ([`copy`]), and L4 the same in the shape of a fleet. L2 and L3 are the rates
//! of a bare hyper server that stores nothing ([`bare`]), for single readings without and with pipelining. L3 is
//! also measured over HTTP/2.

pub(crate) mod bare;
pub(crate) mod copy;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::generator;
use crate::output::{report, say};
use bare::Bare;
use copy::Shape;

/// Measure the limits: COPY alone, and a bare responder.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The database in which L1 and L4 are measured, in a schema `wattgate_limits` that is removed afterwards
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Rows of L1, and of each L4
    #[arg(long, default_value_t = 4_000_000)]
    rows: u64,
    /// Devices of each L4, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000")]
    fleet_devices: Vec<u32>,
    /// How long to measure each of L2 and L3
    #[arg(long, default_value = "10s")]
    duration: String,
    /// Also write the result as JSON, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Why a limit could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("the database: {}", crate::output::cause(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Load(#[from] generator::RunError),
    #[error("{0}")]
    Options(#[from] clap::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Measures and reports.
///
/// # Errors
/// [`LimitError`]: a limit could not be measured, or the report could not be written.
pub(crate) fn run(options: Options) -> Result<(), LimitError> {
    let mut json = serde_json::Map::new();
    if let Some(url) = &options.database_url {
        let fleets = options.fleet_devices.iter().copied().map(Shape::fleet);
        for shape in std::iter::once(Shape::L1).chain(fleets) {
            let name = shape.name();
            say(&format!("{name}: COPY in two connections"));
            let copied = copy::measure(url, shape, options.rows)?;
            report(&format!(
                "{name:<12} {:>9.0} rows/s ({} rows in {:.1} s)\n",
                copied.per_second(),
                copied.rows,
                copied.seconds
            ))?;
            json.insert(name, json!(copied.per_second()));
        }
    }
    for bare in Bare::ALL {
        let answered = bare.measure(&options.duration)?;
        report(&format!(
            "{:<12} {:>9.0} answers/s, {:.1} us of processor time each\n",
            bare.name(),
            answered.rate,
            answered.processor_us
        ))?;
        json.insert(bare.name().to_owned(), json!(answered.rate));
    }
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", Value::Object(json)))?;
    }
    Ok(())
}
