//! A gateway of the test's own, and what is asked of it.

use std::path::Path;

use serde_json::Value;

pub(crate) use crate::gateway::{DEADLINE, Gateway, data_dir};

impl Gateway {
    /// Starts one, and waits until it is ready.
    pub(crate) fn ready(data: &Path, flags: &[&str]) -> Self {
        let gateway = Gateway::start(data, flags);
        gateway.wait("readiness", |g| g.call("GET", "/health/ready", "").0 == 200);
        gateway
    }

    /// Asks, and expects an answer.
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Sends readings, and waits until they are stored.
    pub(crate) fn send(&self, stream: &str, readings: &[String]) {
        let body = format!("[{}]", readings.join(","));
        let path = format!("/v1/ingestion/{stream}?ack=committed");
        let (status, answer) = self.call("POST", &path, &body);
        assert_eq!(status, 201, "{answer}");
        assert!(answer.contains("\"rejected\":0"), "{answer}");
    }

    pub(crate) fn session(&self, id: &str, vehicle: &str, meter: &str, from: &str, to: &str) {
        let body = format!(
            r#"{{"sessionId":"{id}","vehicleId":"{vehicle}","meterId":"{meter}","startedAt":"{from}","endedAt":"{to}"}}"#
        );
        let (status, answer) = self.call("POST", "/v1/sessions", &body);
        assert_eq!(status, 201, "{answer}");
    }

    /// The single answer over a window.
    pub(crate) fn performance(&self, vehicle: &str, from: &str, to: &str) -> Value {
        self.get(&format!(
            "/v1/analytics/performance/{vehicle}?from={from}&to={to}"
        ))
    }
}

/// A meter's reading; `kind` is `interval` or `register`.
pub(crate) fn meter(id: &str, at: &str, kwh: f64, kind: &str) -> String {
    format!(
        r#"{{"meterId":"{id}","kwhConsumedAc":{kwh},"voltage":230,"timestamp":"{at}","energyKind":"{kind}"}}"#
    )
}

/// A vehicle's reading; `more` are further fields, with a comma before each.
pub(crate) fn vehicle(id: &str, at: &str, kwh: f64, more: &str) -> String {
    format!(
        r#"{{"vehicleId":"{id}","soc":50,"kwhDeliveredDc":{kwh},"batteryTemp":30,"timestamp":"{at}"{more}}}"#
    )
}
