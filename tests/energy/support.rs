//! The test's own gateway, and requests to it.

use serde_json::Value;

pub(crate) use crate::gateway::{DEADLINE, Gateway, data_dir};

/// No evaluation of alerts, because these tests are about responses.
pub(crate) const NO_ALERTS: [&str; 2] = ["--alert-interval", "0s"];

impl Gateway {
    /// Sends readings and waits until they are stored.
    pub(crate) fn send(&self, stream: &str, readings: &[String]) {
        self.store(stream, &format!("[{}]", readings.join(",")));
    }

    pub(crate) fn session(&self, id: &str, vehicle: &str, meter: &str, from: &str, to: &str) {
        let body = format!(
            r#"{{"sessionId":"{id}","vehicleId":"{vehicle}","meterId":"{meter}","startedAt":"{from}","endedAt":"{to}"}}"#
        );
        let (status, answer) = self.call("POST", "/v1/sessions", &body);
        assert_eq!(status, 201, "{answer}");
    }

    /// The result for one vehicle over a window.
    pub(crate) fn performance(&self, vehicle: &str, from: &str, to: &str) -> Value {
        self.get(&format!(
            "/v1/analytics/performance/{vehicle}?from={from}&to={to}"
        ))
    }
}

/// A meter reading; `kind` is `interval` or `register`.
pub(crate) fn meter(id: &str, at: &str, kwh: f64, kind: &str) -> String {
    format!(
        r#"{{"meterId":"{id}","kwhConsumedAc":{kwh},"voltage":230,"timestamp":"{at}","energyKind":"{kind}"}}"#
    )
}

/// A vehicle reading; `more` are further fields, each preceded by a comma.
pub(crate) fn vehicle(id: &str, at: &str, kwh: f64, more: &str) -> String {
    format!(
        r#"{{"vehicleId":"{id}","soc":50,"kwhDeliveredDc":{kwh},"batteryTemp":30,"timestamp":"{at}"{more}}}"#
    )
}
