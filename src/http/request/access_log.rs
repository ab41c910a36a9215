//! What is recorded when a response leaves: the metrics, and a line of the access log.

use std::net::IpAddr;
use std::time::Instant;

use hyper::StatusCode;

use super::request_id::RequestId;
use crate::auth::key::KeyId;
use crate::metrics;

/// The label of requests whose path has no route.
pub(crate) const NO_ROUTE: &str = "none";

/// A request with its response, for the metrics and the log.
pub(crate) struct AccessRecord {
    pub(crate) id: RequestId,
    pub(crate) label: &'static str,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
    /// How safe the request's readings are when its response leaves, if it had any.
    pub(crate) ack: Option<&'static str>,
    pub(crate) key: Option<KeyId>,
    pub(crate) client: Option<IpAddr>,
    pub(crate) began: Instant,
}

impl AccessRecord {
    /// Counts and logs the request, now that its response may leave.
    pub(crate) fn write(self) {
        self.write_at(Instant::now());
    }

    /// The same, for a response that was allowed to leave at `moment`.
    pub(crate) fn write_at(self, moment: Instant) {
        let took = moment.saturating_duration_since(self.began);
        metrics::http_request(self.label, self.method, self.status, self.ack, took);
        tracing::debug!(
            request = %self.id,
            route = self.label,
            method = self.method,
            status = self.status,
            key = self.key.map(tracing::field::display),
            client = self.client.map(tracing::field::display),
            micros = took.as_micros() as u64,
            "answered"
        );
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        AccessRecord {
            id: RequestId::of(super::fields::Field::Absent),
            label: NO_ROUTE,
            method: "POST",
            status: 202,
            ack: None,
            key: None,
            client: None,
            began: Instant::now(),
        }
    }

    /// Records a request whose response was replaced with 503 because the log has failed.
    pub(crate) fn write_failed(mut self) {
        self.status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
        self.write();
    }
}
