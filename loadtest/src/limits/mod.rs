//! The limits that results are held against, measured on the same machine in the same minutes.
//!
//! L1 is the rate of PostgreSQL alone ([`copy`]). L2 and L3 are the rates of a bare hyper server that stores
//! nothing, for single readings without and with pipelining. L3 is also measured over HTTP/2.

pub(crate) mod copy;

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::generator::{self, Options as Load};
use crate::noop;
use crate::output::{report, say};

/// Measure the limits: COPY alone, and a bare responder.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The database in which L1 is measured, in a schema `wattgate_limits` that goes afterwards
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Rows of L1
    #[arg(long, default_value_t = 4_000_000)]
    rows: u64,
    /// How long each of L2 and L3 is driven
    #[arg(long, default_value = "10s")]
    duration: String,
    /// Write the result as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Why a limit could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("the database: {0}")]
    Database(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Load(#[from] generator::RunError),
    #[error("{0}")]
    Options(#[from] clap::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A load of single readings for a bare responder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bare {
    /// 256 connections, a request at a time.
    L2,
    /// 64 connections, 16 requests pipelined.
    L3,
    /// 64 connections of HTTP/2, 16 streams.
    L3Http2,
}

impl Bare {
    const ALL: [Bare; 3] = [Bare::L2, Bare::L3, Bare::L3Http2];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Bare::L2 => "L2",
            Bare::L3 => "L3",
            Bare::L3Http2 => "L3-http2",
        }
    }

    /// The generator's options; the same load is sent to a gateway.
    pub(crate) const fn load(self) -> &'static [&'static str] {
        match self {
            Bare::L2 => &["--format", "single", "--connections", "256"],
            Bare::L3 => &[
                "--format",
                "single",
                "--connections",
                "64",
                "--pipeline",
                "16",
            ],
            Bare::L3Http2 => &[
                "--format",
                "single",
                "--connections",
                "64",
                "--pipeline",
                "16",
                "--http2",
            ],
        }
    }

    /// Measures the answers a second of a bare responder on one thread of this process.
    ///
    /// # Errors
    /// [`LimitError`]: the responder cannot listen, or answers nothing.
    pub(crate) fn measure(self, duration: &str) -> Result<f64, LimitError> {
        say(&format!("{}: a bare responder", self.name()));
        let url = format!("http://{}", noop::start(self == Bare::L3Http2)?);
        let mut arguments = self.load().to_vec();
        arguments.extend(["--url", &url, "--duration", duration]);
        let outcome = generator::measure(Load::of(&arguments)?)?;
        Ok(outcome.stats.acked_rate())
    }
}

/// Measures and reports.
///
/// # Errors
/// [`LimitError`]: a limit could not be measured, or the report could not be written.
pub(crate) fn run(options: Options) -> Result<(), LimitError> {
    let mut json = serde_json::Map::new();
    if let Some(url) = &options.database_url {
        say("L1: COPY in two connections");
        let copied = copy::measure(url, options.rows)?;
        report(&format!(
            "L1        {:>9.0} rows/s ({} rows in {:.1} s)\n",
            copied.per_second(),
            copied.rows,
            copied.seconds
        ))?;
        json.insert("L1".to_owned(), json!(copied.per_second()));
    }
    for bare in Bare::ALL {
        let rate = bare.measure(&options.duration)?;
        report(&format!("{:<9} {rate:>9.0} answers/s\n", bare.name()))?;
        json.insert(bare.name().to_owned(), json!(rate));
    }
    if let Some(path) = &options.json {
        std::fs::write(path, format!("{:#}\n", Value::Object(json)))?;
    }
    Ok(())
}
