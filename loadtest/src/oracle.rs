//! Compares acknowledged readings with the database.
//!
//! Every acknowledged reading is a debt. Looking up the last acknowledged request of each connection shows cheaply
//! when all debts may be paid. Then the run's readings are counted, and only that count decides.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

use crate::generator::body::{Clock, Stream, device_id};
use crate::generator::stats::{Sent, Stats};
use crate::verdict::Verdict;

/// How often the last readings are looked up, and so the error of the committed rate.
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// How often the run's readings are counted. Each count scans the whole index.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// Probes per connection: enough to reach every shard of the gateway.
const PROBES_MAX: usize = 64;

/// The queries of each stream, in the order of [`Stream::index`].
const PROBE: [&str; 2] = [
    include_str!("../sql/probe_meter.sql"),
    include_str!("../sql/probe_vehicle.sql"),
];
const COUNT: [&str; 2] = [
    include_str!("../sql/count_meter.sql"),
    include_str!("../sql/count_vehicle.sql"),
];

/// Why the comparison failed.
#[derive(Debug, thiserror::Error)]
#[error("the database: {}", crate::output::cause(.0))]
pub(crate) struct OracleError(#[from] tokio_postgres::Error);

/// What to compare with, and the times of the run.
#[derive(Debug)]
pub(crate) struct Oracle<'a> {
    pub(crate) url: &'a str,
    pub(crate) clock: Clock,
    /// How long the acknowledged readings may take to be stored.
    pub(crate) within: Duration,
}

/// How many readings of a run the database holds.
#[derive(Debug)]
pub(crate) struct Stored {
    acked: u64,
    unknown: u64,
    stored: u64,
    /// The time from the first request until everything was stored. `None` means that it never was.
    seconds: Option<f64>,
}

impl Oracle<'_> {
    /// Waits until every acknowledged reading is stored or the time is over, and counts.
    ///
    /// Calls `stored` before counting, which costs the server much time.
    ///
    /// Blocks: at most `within`, plus one count
    ///
    /// # Errors
    /// [`OracleError`]: the database is unreachable, or refuses a query.
    pub(crate) async fn compare(
        &self,
        stats: &Stats,
        stored: impl FnOnce(),
    ) -> Result<Stored, OracleError> {
        let (client, connection) = tokio_postgres::connect(self.url, NoTls).await?;
        // A connection error shows up in the query that uses the connection.
        tokio::spawn(async move { drop(connection.await) });
        let began = stats.first_send.unwrap_or_else(Instant::now);
        let deadline = Instant::now() + self.within;
        let mut result = Stored {
            acked: stats.acked(),
            unknown: stats.unknown(),
            stored: 0,
            seconds: None,
        };
        while !self.last_are_stored(&client, &stats.sent).await? && Instant::now() < deadline {
            tokio::time::sleep(PROBE_EVERY).await;
        }
        stored();
        loop {
            // If the count is complete, it already was when counting began.
            let seconds = began.elapsed().as_secs_f64();
            result.stored = self.count(&client, &stats.sent).await?;
            if result.stored >= result.acked {
                result.seconds = Some(seconds);
                return Ok(result);
            }
            if Instant::now() >= deadline {
                return Ok(result);
            }
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    /// Whether every connection's last acknowledged readings are stored.
    async fn last_are_stored(&self, client: &Client, sent: &[Sent]) -> Result<bool, OracleError> {
        for stream in Stream::ALL {
            let (mut devices, mut times) = (Vec::new(), Vec::new());
            for sent in sent.iter().filter(|sent| sent.stream == stream) {
                let Some((position, readings)) = sent.last_acked else {
                    continue;
                };
                let positions = position..position + u64::from(readings);
                for position in positions.rev().take(PROBES_MAX) {
                    let (device, step) = sent.devices.at(position);
                    devices.push(device_id(stream, device));
                    times.push(instant(self.clock.at_us(step)));
                }
            }
            let (Some(from), Some(to)) = (times.iter().min(), times.iter().max()) else {
                continue;
            };
            let found: i64 = client
                .query_one(PROBE[stream.index()], &[&devices, &times, from, to])
                .await?
                .get(0);
            if usize::try_from(found) != Ok(devices.len()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn count(&self, client: &Client, sent: &[Sent]) -> Result<u64, OracleError> {
        let mut total = 0;
        for stream in Stream::ALL {
            let of_stream = sent.iter().filter(|sent| sent.stream == stream);
            let last = of_stream
                .filter_map(|sent| Some(sent.devices.at(sent.positions.checked_sub(1)?).1))
                .max();
            let Some(last_step) = last else {
                continue;
            };
            let from = instant(self.clock.start_us);
            let to = instant(self.clock.at_us(last_step));
            let like = format!("{}%", stream.device_prefix());
            let stored: i64 = client
                .query_one(
                    COUNT[stream.index()],
                    &[&from, &to, &self.clock.interval_us, &like],
                )
                .await?
                .get(0);
            total += u64::try_from(stored).unwrap_or(0);
        }
        Ok(total)
    }
}

fn instant(at_us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(at_us).unwrap_or(0))
}

impl Stored {
    fn missing(&self) -> u64 {
        self.acked.saturating_sub(self.stored)
    }

    /// Readings beyond those that were acknowledged or may have been accepted: stored twice, or from another run.
    fn surplus(&self) -> u64 {
        self.stored.saturating_sub(self.acked + self.unknown)
    }

    /// Readings per second, up to the moment when everything was stored.
    pub(crate) fn committed_per_second(&self) -> Option<f64> {
        self.seconds.map(|seconds| self.stored as f64 / seconds)
    }

    /// Right if every acknowledged reading is stored, and nothing beyond what was accepted or may have been.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.missing() == 0 && self.surplus() == 0 {
            Verdict::Right
        } else {
            Verdict::Wrong
        }
    }

    /// The result as text.
    pub(crate) fn to_text(&self) -> String {
        let rate = match (self.seconds, self.committed_per_second()) {
            (Some(seconds), Some(rate)) => {
                format!(
                    "all stored {seconds:.3} s after the first request: {rate:.0} committed readings/s"
                )
            }
            _ => "NOT all stored in time".to_owned(),
        };
        format!(
            "{rate}\nacknowledged {}, stored {}, missing {}, surplus {} (unknown {})\n",
            self.acked,
            self.stored,
            self.missing(),
            self.surplus(),
            self.unknown,
        )
    }

    /// The result as JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "acked": self.acked,
            "stored": self.stored,
            "missing": self.missing(),
            "surplus": self.surplus(),
            "unknown": self.unknown,
            "seconds": self.seconds,
            "committedPerSecond": self.committed_per_second(),
            "right": self.verdict() == Verdict::Right,
        })
    }
}
