//! The counters of a run: shared ones for progress, and each connection's own for the result.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::body::Stream;
use super::order::Devices;

/// The highest measured latency. Higher latencies count as this.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// Counters that all connections add to, and the signal to stop.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) requests: AtomicU64,
    pub(crate) acked: AtomicU64,
    pub(crate) not_acked: AtomicU64,
    pub(crate) stop: AtomicBool,
}

impl Shared {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What one connection has sent of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) stream: Stream,
    pub(crate) devices: Devices,
    /// How many positions of the device sequence were sent, acknowledged or not.
    pub(crate) positions: u64,
    /// The last request that was accepted completely: its first position, and its length.
    pub(crate) last_acked: Option<(u64, u32)>,
    pub(crate) acked: u64,
    /// Readings that may or may not be stored: the response was 5xx, or there was none.
    pub(crate) unknown: u64,
}

/// The counters of one connection, or the sum of all.
#[derive(Debug)]
pub(crate) struct Stats {
    /// In microseconds, from the scheduled time if there is one, otherwise from sending.
    pub(crate) latency_us: Histogram<u64>,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) requests: u64,
    /// Readings that a final response rejected.
    pub(crate) rejected: u64,
    /// Connections that broke.
    pub(crate) breaks: u64,
    /// The last error of a connection.
    pub(crate) error: Option<String>,
    /// Whether the readings' times reached the present before the run was over.
    pub(crate) exhausted: bool,
    pub(crate) sent: Vec<Sent>,
    pub(crate) first_send: Option<Instant>,
    pub(crate) last_answer: Option<Instant>,
}

impl Stats {
    /// Makes empty counters.
    ///
    /// # Errors
    /// Never, because the bounds are constant and valid.
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Stats {
            latency_us: Histogram::new_with_bounds(1, LATENCY_MAX.as_micros() as u64, 3)?,
            statuses: BTreeMap::new(),
            requests: 0,
            rejected: 0,
            breaks: 0,
            error: None,
            exhausted: false,
            sent: Vec::new(),
            first_send: None,
            last_answer: None,
        })
    }

    /// Adds another connection's counters.
    pub(crate) fn add(&mut self, other: Stats) -> Result<(), hdrhistogram::AdditionError> {
        self.latency_us.add(&other.latency_us)?;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.requests += other.requests;
        self.rejected += other.rejected;
        self.breaks += other.breaks;
        self.error = other.error.or(self.error.take());
        self.exhausted |= other.exhausted;
        self.sent.extend(other.sent);
        self.first_send = self.first_send.into_iter().chain(other.first_send).min();
        self.last_answer = self.last_answer.max(other.last_answer);
        Ok(())
    }

    /// How many readings were accepted, according to the responses.
    pub(crate) fn acked(&self) -> u64 {
        self.sent.iter().map(|sent| sent.acked).sum()
    }

    /// How many readings may or may not be stored.
    pub(crate) fn unknown(&self) -> u64 {
        self.sent.iter().map(|sent| sent.unknown).sum()
    }

    /// The time from the first request to the last response, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        match (self.first_send, self.last_answer) {
            (Some(first), Some(last)) => last.duration_since(first).as_secs_f64().max(1e-6),
            _ => 0.0,
        }
    }

    /// Acknowledged readings per second.
    pub(crate) fn acked_rate(&self) -> f64 {
        if self.acked() == 0 {
            return 0.0;
        }
        self.acked() as f64 / self.seconds()
    }

    /// The result as text.
    pub(crate) fn to_text(&self) -> String {
        let at = |quantile| self.latency_us.value_at_quantile(quantile) as f64 / 1000.0;
        let mut text = format!(
            "{} answers in {:.3} s ({:.0}/s), {} readings acknowledged ({:.0}/s), {} refused, {} unknown\n\
             latency ms: p50 {:.3}, p90 {:.3}, p99 {:.3}, p99.9 {:.3}, max {:.3}\n",
            self.requests,
            self.seconds(),
            self.requests as f64 / self.seconds().max(1e-6),
            self.acked(),
            self.acked_rate(),
            self.rejected,
            self.unknown(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            self.latency_us.max() as f64 / 1000.0,
        );
        for (status, count) in &self.statuses {
            text.push_str(&format!("status {status}: {count}\n"));
        }
        if self.breaks > 0 {
            let error = self.error.as_deref().unwrap_or("closed");
            text.push_str(&format!(
                "broken connections: {}, the last: {error}\n",
                self.breaks
            ));
        }
        if self.exhausted {
            text.push_str(
                "the times of the readings reached the present: begin earlier with --start\n",
            );
        }
        text
    }

    /// The result as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let at = |quantile| self.latency_us.value_at_quantile(quantile) as f64 / 1e6;
        json!({
            "answers": self.requests,
            "seconds": self.seconds(),
            "readingsAcked": self.acked(),
            "readingsRejected": self.rejected,
            "readingsUnknown": self.unknown(),
            "ackedPerSecond": self.acked_rate(),
            "latencySeconds": {
                "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
                "max": self.latency_us.max() as f64 / 1e6,
            },
            "statuses": self.statuses,
            "brokenConnections": self.breaks,
            "lastError": self.error,
            "exhausted": self.exhausted,
        })
    }
}
