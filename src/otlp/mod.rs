//! Metrics to an OpenTelemetry collector: OTLP over HTTP, in JSON.
//!
//! The same numbers as `/metrics` has, pushed where nobody can scrape. OTLP's JSON needs nothing
//! that is not here already: no protobuf, no second HTTP client, no second registry of metrics.

mod translate;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, timeout};

use translate::{Resource, Times, export};

/// How often metrics are sent. Why: it is the default of OpenTelemetry's own exporters.
const EVERY: Duration = Duration::from_secs(60);
/// A collector that takes longer is tried again at the next time.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where a collector takes metrics, below what was told.
const PATH: &str = "/v1/metrics";

/// Where metrics are sent.
#[derive(Debug, Clone)]
pub struct Collector {
    uri: Uri,
    host: String,
    port: u16,
    every: Duration,
}

/// Why a collector cannot be used; the operator has to mend the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a URL such as http://collector:4318; for encryption, run a collector beside the gateway"
)]
pub struct CollectorError;

impl Collector {
    /// Takes the base URL of a collector, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    ///
    /// # Errors
    /// [`CollectorError`]
    pub fn new(url: &str) -> Result<Self, CollectorError> {
        let base = url.strip_prefix("http://").ok_or(CollectorError)?;
        let base = base.trim_end_matches('/');
        let uri: Uri = format!("http://{base}{PATH}")
            .parse()
            .map_err(|_| CollectorError)?;
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or(CollectorError)?;
        Ok(Collector {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(4318),
            uri,
            every: EVERY,
        })
    }

    /// Sends at another pace than each minute.
    #[must_use]
    pub fn every(self, every: Duration) -> Self {
        Collector { every, ..self }
    }

    /// Sends metrics until it is cancelled. A collector that is away is told once, and costs nothing
    /// but the numbers in between: all sums are since the start.
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
        let mut said = false;
        loop {
            every.tick().await;
            let times = Times {
                start_nanos,
                now_nanos: nanos(),
            };
            let body = export(&scrape(), times, &resource).to_string();
            let sent = timeout(TIMEOUT, self.post(body)).await;
            let failed = sent
                .unwrap_or_else(|_| Err("no answer in time".to_owned()))
                .err();
            match (&failed, said) {
                (Some(why), false) => {
                    tracing::warn!(why, "metrics do not reach the collector; trying again")
                }
                (None, true) => tracing::info!("metrics reach the collector again"),
                _ => {}
            }
            said = failed.is_some();
        }
    }

    async fn post(&self, body: String) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let socket = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| text(&e))?;
        let request = Request::post(self.uri.path())
            .header(HOST, self.uri.authority().map_or("", |a| a.as_str()))
            .header(USER_AGENT, concat!("wattgate/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| text(&e))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
        let (mut sender, connection) = handshake.map_err(|e| text(&e))?;
        let connection = tokio::spawn(connection);
        let answered = sender.send_request(request).await;
        // The answer's body is of no interest.
        connection.abort();
        let status = answered.map_err(|e| text(&e))?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("the collector answers {status}")),
        }
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
    fn a_collector_is_a_url_of_plain_http() {
        let collector = Collector::new("http://otel:4318/").unwrap();
        assert_eq!((collector.host.as_str(), collector.port), ("otel", 4318));
        assert_eq!(collector.uri.path(), "/v1/metrics");
        assert_eq!(
            Collector::new("http://[::1]/base").unwrap().uri.path(),
            "/base/v1/metrics"
        );
        for wrong in [
            "",
            "otel:4318",
            "https://otel:4318",
            "http://",
            "grpc://otel",
        ] {
            assert!(Collector::new(wrong).is_err(), "{wrong}");
        }
    }
}
