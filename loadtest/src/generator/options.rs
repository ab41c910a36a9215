//! The options of a load.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::body::{DEVICES_MAX, Format, Stream};
use super::order::Order;
use crate::target::Target;

/// How long before now a run's first reading is by default. It leaves time for many steps.
pub(super) const START_BEFORE_US: i64 = 24 * 3600 * 1_000_000;

/// Generate load: unique readings, on a schedule or as fast as possible.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The gateway
    #[arg(long, default_value = "http://127.0.0.1:3000")]
    pub(super) url: Target,
    /// Which readings to send
    #[arg(long, value_enum, default_value = "meter")]
    pub(super) stream: Streams,
    /// How many devices of each kind send
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    pub(super) devices: u32,
    /// The order in which the devices send, each once per round
    #[arg(long, value_enum, default_value = "sequence")]
    pub(super) order: Order,
    /// Readings per request
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(super) readings_per_request: u32,
    /// The format of a body; `single` means one reading per request
    #[arg(long, value_enum, default_value = "ndjson")]
    pub(super) format: Format,
    /// Compress each body with gzip, which costs the generator far more time than sending it plain
    #[arg(long)]
    pub(super) gzip: bool,
    /// Keep-alive connections
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(super) connections: u32,
    /// Requests in flight per connection: pipelined, or on as many HTTP/2 streams
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(super) pipeline: u32,
    /// Use HTTP/2 (with prior knowledge), with a stream for each request in flight
    #[arg(long)]
    pub(super) http2: bool,
    /// Threads that share the connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) threads: u32,
    /// How long to send, such as `60s`, `5m` or `1h`
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(super) duration: Duration,
    /// End after this many rounds of each connection's devices, even if time is left
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rounds: Option<u64>,
    /// Readings per second, on a schedule that waits for no response [default: as fast as possible]
    #[arg(long)]
    pub(super) rate: Option<f64>,
    /// When the gateway responds: buffered, durable or committed
    #[arg(long)]
    pub(super) ack: Option<String>,
    /// Determines the values of the run, and times that no run with another seed uses [default:
    /// random]
    #[arg(long)]
    pub(super) seed: Option<u64>,
    /// The time of the first reading (RFC 3339, or `now`) [default: 24 hours ago]
    #[arg(long)]
    pub(super) start: Option<Start>,
    /// The time between two readings of a device (a round), in milliseconds
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..=3_600_000))]
    pub(super) interval_ms: i64,
    /// Sent as `Authorization: Bearer`
    #[arg(long, env = "WATTGATE_KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
    /// Compare the acknowledged readings with those in this database, once they should all be stored
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(super) database_url: Option<String>,
    /// How long to wait for the acknowledged readings to be stored
    #[arg(long, default_value = "120s", value_parser = duration)]
    pub(super) stored_within: Duration,
    /// Also write the result as JSON, to this file
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
    /// Requests of both, alternately
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
    let wrong = || format!("`{text}` must be a time, such as 500ms, 60s, 5m or 1h");
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
    /// The options of a command line, for another tool that generates load.
    ///
    /// # Errors
    /// An invalid argument, by name.
    pub(crate) fn of(arguments: &[&str]) -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        #[command(no_binary_name = true)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        let mut options = <Alone as clap::Parser>::try_parse_from(arguments)?.options;
        // The environment is meant only for runs that a user starts.
        if !arguments.contains(&"--database-url") {
            options.database_url = None;
        }
        Ok(options)
    }

    /// The number of request sequences, each of which has its own devices.
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
