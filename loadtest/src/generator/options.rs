//! The options of a load.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::body::{DEVICES_MAX, Format, Stream};
use super::order::Order;
use crate::target::Target;

/// The default time of a run's first reading before now, which leaves room for as many steps.
pub(super) const START_BEFORE_US: i64 = 24 * 3600 * 1_000_000;

/// Generate load: unique readings, on a schedule or as fast as it goes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The gateway
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    pub(super) url: Target,
    /// Which readings
    #[arg(long, value_enum, default_value = "meter")]
    pub(super) stream: Streams,
    /// How many devices, of each stream
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    pub(super) devices: u32,
    /// Which device sends next, once a round each
    #[arg(long, value_enum, default_value = "sequence")]
    pub(super) order: Order,
    /// Readings in a request
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(super) readings_per_request: u32,
    /// How a body holds its readings; `single` means one reading a request
    #[arg(long, value_enum, default_value = "ndjson")]
    pub(super) format: Format,
    /// Compress each body with gzip; costs the generator far more than sending it plain
    #[arg(long)]
    pub(super) gzip: bool,
    /// Keep-alive connections
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(super) connections: u32,
    /// Requests in flight on a connection: pipelined, or as many streams of HTTP/2
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) pipeline: u32,
    /// Speak HTTP/2 (with prior knowledge), each of the requests in flight on a stream of its own
    #[arg(long)]
    pub(super) http2: bool,
    /// Threads that share the connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) threads: u32,
    /// How long to send, as `60s`, `5m` or `1h`
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(super) duration: Duration,
    /// End after so many rounds of each connection's devices, even if time is left
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rounds: Option<u64>,
    /// Readings a second, on a schedule that waits for no answer; without it, as fast as it goes
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// When the gateway answers: buffered, durable or committed
    #[arg(long)]
    pub(super) ack: Option<String>,
    /// Makes the run's values, and times that no run with another seed shares; without it, random
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// The time of the first reading (RFC 3339, or `now`); without it, 24 hours ago
    #[arg(long)]
    pub(super) start: Option<Start>,
    /// Between two readings of a device (a round), in milliseconds of the readings' time
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..=3_600_000))]
    pub(super) interval_ms: i64,
    /// Sent as `Authorization: Bearer`
    #[arg(long, env = "WATTGATE_KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
    /// Compare with what this database holds, after all acknowledged readings should be there
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(super) database_url: Option<String>,
    /// How long to wait for the acknowledged readings to be stored
    #[arg(long, default_value = "120s", value_parser = duration)]
    pub(super) stored_within: Duration,
    /// Write the result as JSON too
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Set by another part of this program to end the load.
    #[arg(skip)]
    pub(crate) stop: Arc<AtomicBool>,
}

/// When a run's readings begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    At(jiff::Timestamp),
}

impl Start {
    pub(super) fn at_us(self, now_us: i64) -> i64 {
        match self {
            Start::Now => now_us,
            Start::At(at) => at.as_microsecond(),
        }
    }
}

impl std::str::FromStr for Start {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "now" => Ok(Start::Now),
            text => text.parse().map(Start::At),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Streams {
    Meter,
    Vehicle,
    /// Requests of both, in turns
    Mixed,
}

impl Streams {
    pub(super) const fn list(self) -> &'static [Stream] {
        match self {
            Streams::Meter => &[Stream::Meter],
            Streams::Vehicle => &[Stream::Vehicle],
            Streams::Mixed => &Stream::ALL,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 500ms, 60s, 5m or 1h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

impl Options {
    /// The options of a command line, for another tool that makes load.
    ///
    /// # Errors
    /// A wrong argument, by name.
    pub(crate) fn of(arguments: &[&str]) -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        #[command(no_binary_name = true)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        let mut options = <Alone as clap::Parser>::try_parse_from(arguments)?.options;
        // The environment is meant for the user's own run.
        if !arguments.contains(&"--database-url") {
            options.database_url = None;
        }
        Ok(options)
    }

    /// How many sequences of requests there are, each with devices of its own.
    pub(super) fn sequences(&self) -> u32 {
        if self.http2 {
            self.connections * self.pipeline
        } else {
            self.connections
        }
    }

    /// The time between two requests of an open loop.
    pub(super) fn between(&self) -> Option<Duration> {
        let readings = f64::from(self.readings_per_request);
        self.rate
            .map(|rate| Duration::from_secs_f64(readings / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_now_or_a_time() {
        let of = |start| Options::of(&["--start", start]).map(|options| options.start);
        assert_eq!(of("now").unwrap(), Some(Start::Now));
        let at = of("2026-11-30T12:00:00Z").unwrap().unwrap();
        assert_eq!(at.at_us(1), 1_796_040_000_000_000);
        assert!(of("yesterday").is_err());
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("5 days").is_err() && duration("-1s").is_err());
    }
}
