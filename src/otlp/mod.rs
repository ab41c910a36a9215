//! Metrics to an OpenTelemetry collector: OTLP over HTTP, in JSON.
//!
//! Pushes the values of `/metrics` where a scraper has no access. OTLP's JSON needs no protobuf and no second
//! registry of metrics.

mod translate;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;

use crate::http_client::{DefaultPorts, PostError, Receiver, UrlError};
use crate::outage::Outage;
use translate::{Resource, Times, export};

/// How long a collector may take for one push; the next push follows at the next interval.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The path for metrics below the base URL.
const PATH: &str = "/v1/metrics";

/// The port of OTLP over HTTP.
const PORTS: DefaultPorts = DefaultPorts {
    plain: 4318,
    tls: 4318,
};

/// Where metrics are sent.
#[derive(Clone)]
pub struct Collector {
    receiver: Receiver,
    every: Duration,
}

impl Collector {
    /// Takes the base URL of a collector, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it, and how often it is
    /// sent metrics.
    pub fn new(url: &str, every: Duration) -> Result<Self, UrlError> {
        let url = format!("{}{PATH}", url.trim_end_matches('/'));
        Ok(Collector {
            receiver: Receiver::new(&url, PORTS)?,
            every,
        })
    }

    /// Sends metrics until it is cancelled. An unreachable collector is logged once. Only the samples from the
    /// outage are missing: counters are cumulative, so no counts are lost.
    ///
    /// Cancel: safe
    pub async fn run(self, instance: String, scrape: Arc<dyn Fn() -> String + Send + Sync>) {
        let resource = Resource {
            version: env!("CARGO_PKG_VERSION"),
            instance,
        };
        let start_nanos = nanos();
        let mut every = tokio::time::interval(self.every);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outage = Outage::default();
        loop {
            every.tick().await;
            let times = Times {
                start_nanos,
                now_nanos: nanos(),
            };
            let body = export(&scrape(), times, &resource).to_string();
            match self.post(body).await {
                Err(error) if outage.begins() => {
                    tracing::warn!(%error, "metrics do not reach the collector; trying again");
                }
                Ok(()) if outage.ends() => tracing::info!("metrics reach the collector again"),
                _ => {}
            }
        }
    }

    async fn post(&self, body: String) -> Result<(), PostError> {
        self.receiver.post_json(&[], body, TIMEOUT).await
    }
}

fn nanos() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_base_url() {
        let new = |url| Collector::new(url, Duration::from_secs(60));
        let collector = new("http://otel:4318/").unwrap().receiver;
        assert_eq!(collector.address(), ("otel", 4318));
        assert_eq!(collector.target(), "/v1/metrics");
        let collector = new("http://[::1]/base").unwrap().receiver;
        assert_eq!(collector.address(), ("::1", 4318));
        assert_eq!(collector.target(), "/base/v1/metrics");
        for wrong in ["", "otel:4318", "http://", "grpc://otel"] {
            assert!(new(wrong).is_err(), "{wrong}");
        }
    }
}
