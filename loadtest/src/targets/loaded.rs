//! A load that was sent to a gateway, and its cost.

use serde_json::{Value, json};

use super::gateway::Spent;
use crate::generator::Outcome;
use crate::oracle::Stored;
use crate::verdict::Verdict;

/// A load, with the CPU time from its first request until everything was stored.
#[derive(Debug)]
pub(super) struct Loaded {
    outcome: Outcome,
    spent: Spent,
}

impl Loaded {
    pub(super) fn new(outcome: Outcome, before: Spent, after: Spent) -> Self {
        Loaded {
            outcome,
            spent: Spent {
                gateway: after.gateway - before.gateway,
                server: after.server - before.server,
            },
        }
    }

    /// The number of acknowledged readings.
    pub(super) fn acked(&self) -> u64 {
        self.outcome.stats.acked()
    }

    /// The number of readings that were rejected, or may have been.
    pub(super) fn not_taken(&self) -> u64 {
        self.outcome.stats.unknown() + self.outcome.stats.rejected
    }

    /// Readings per second until everything was stored; 0 if that never happened.
    pub(super) fn committed(&self) -> f64 {
        let stored = self.outcome.stored.as_ref();
        stored.and_then(Stored::committed_per_second).unwrap_or(0.0)
    }

    /// Whether the oracle found every acknowledged reading once.
    pub(super) fn is_right(&self) -> bool {
        let stored = self.outcome.stored.as_ref();
        stored.is_some_and(|stored| stored.verdict() == Verdict::Right)
    }

    /// A quantile of the acknowledgements' latency.
    pub(super) fn latency_ms(&self, quantile: f64) -> f64 {
        self.outcome.stats.latency_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// The CPU time.
    pub(super) fn spent(&self) -> Spent {
        self.spent
    }

    /// The gateway's CPU time per reading, in microseconds.
    pub(super) fn gateway_us(&self) -> f64 {
        self.spent.gateway * 1e6 / self.acked().max(1) as f64
    }

    /// The server's CPU time per reading, in microseconds.
    pub(super) fn server_us(&self) -> f64 {
        self.spent.server * 1e6 / self.acked().max(1) as f64
    }

    /// The whole result.
    pub(super) fn to_json(&self) -> Value {
        let mut json = self.outcome.to_json();
        json["processorUsPerReading"] =
            json!({ "gateway": self.gateway_us(), "server": self.server_us() });
        json
    }
}
