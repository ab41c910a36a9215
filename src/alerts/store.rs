//! The table of alerts, and the queue of deliveries to the webhook.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::evaluate::Findings;
use super::{AlertError, Kind, Settings};
use crate::reading::{Stream, Timestamp};

/// The most waiting deliveries. Why: a fleet of 10,000 that falls silent at once.
const DELIVERIES_MAX: i64 = 20_000;
/// How long a closed alert is kept.
const KEPT_MICROS: i64 = 400 * 86_400_000_000;

/// An alert that has opened or closed.
struct Event {
    name: &'static str,
    id: i64,
    kind: &'static str,
    stream: Stream,
    device: i32,
    opened_at: Timestamp,
    closed_at: Option<Timestamp>,
    value: f64,
    bound: f64,
    details: Value,
}

/// Opens, updates and closes alerts, and queues their deliveries, in one transaction. So every change has a
/// delivery, and every delivery a change.
///
/// Blocks: until COMMIT
pub(super) async fn apply(
    client: &mut Client,
    settings: &Settings,
    findings: Findings,
    now: Timestamp,
) -> Result<(), AlertError> {
    let work = client.transaction().await?;
    let mut events = Vec::new();
    let open = work.prepare(sql!("alert_open")).await?;
    for finding in findings.found {
        let (kind, stream) = (finding.kind.name(), finding.stream.name());
        let details = finding.details.to_string();
        let row = work
            .query_one(
                &open,
                &[
                    &kind,
                    &stream,
                    &finding.device,
                    &now,
                    &finding.value,
                    &finding.bound,
                    &details,
                ],
            )
            .await?;
        if row.try_get(2)? {
            events.push(Event {
                name: "opened",
                id: row.try_get(0)?,
                kind,
                stream: finding.stream,
                device: finding.device,
                opened_at: now,
                closed_at: None,
                value: finding.value,
                bound: finding.bound,
                details: finding.details,
            });
        }
    }
    for (kind, stream, devices) in findings.over {
        let kind = kind.name();
        let rows = work
            .query(
                sql!("alert_close"),
                &[&kind, &stream.name(), &devices, &now],
            )
            .await?;
        for row in &rows {
            events.push(Event {
                name: "closed",
                id: row.try_get(0)?,
                kind,
                stream,
                device: row.try_get(1)?,
                opened_at: row.try_get(2)?,
                closed_at: Some(now),
                value: row.try_get(3)?,
                bound: row.try_get(4)?,
                details: serde_json::from_str(row.try_get(5)?).unwrap_or_default(),
            });
        }
    }
    if !events.is_empty() {
        queue(&work, settings, &events, now).await?;
        let forgotten = now.plus_micros(-KEPT_MICROS);
        work.execute(sql!("alert_forget"), &[&forgotten]).await?;
    }
    work.commit().await?;
    Ok(())
}

/// Logs the events, and queues their deliveries.
async fn queue(
    work: &tokio_postgres::Transaction<'_>,
    settings: &Settings,
    events: &[Event],
    now: Timestamp,
) -> Result<(), AlertError> {
    let of = |stream: Stream| -> Vec<i32> {
        let of_stream = events.iter().filter(|event| event.stream == stream);
        of_stream.map(|event| event.device).collect()
    };
    let (vehicles, meters) = (of(Stream::Vehicle), of(Stream::Meter));
    let rows = work
        .query(sql!("alert_device_names"), &[&vehicles, &meters])
        .await?;
    let mut names: HashMap<(String, i32), String> = HashMap::with_capacity(rows.len());
    for row in &rows {
        names.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    let deliver = work.prepare(sql!("alert_deliver")).await?;
    for event in events {
        let name = (event.stream.name().to_owned(), event.device);
        let device = names.get(&name).map(String::as_str).unwrap_or_default();
        tracing::info!(
            alert = event.id,
            kind = event.kind,
            device,
            "alert {}",
            event.name
        );
        if settings.webhook.is_none() {
            continue;
        }
        let body = event.body(device).to_string();
        let queued = work
            .query_opt(&deliver, &[&body, &now, &DELIVERIES_MAX])
            .await?;
        if queued.is_none() {
            tracing::error!(
                alert = event.id,
                "the webhook's queue is full: the delivery is dropped; GET /v1/alerts still lists \
                 the alert"
            );
        }
    }
    Ok(())
}

impl Event {
    fn body(&self, device: &str) -> Value {
        let mut alert = json!({
            "alertId": self.id.to_string(),
            "kind": self.kind,
            "severity": Kind::severity_of(self.kind).name(),
            "state": if self.closed_at.is_some() { "closed" } else { "open" },
            "openedAt": self.opened_at.to_string(),
            "closedAt": self.closed_at.map(|at| at.to_string()),
            "value": self.value,
            "bound": self.bound,
            "details": self.details,
        });
        let field = match self.stream {
            Stream::Meter => "meterId",
            Stream::Vehicle => "vehicleId",
        };
        alert[field] = json!(device);
        json!({"event": self.name, "alert": alert})
    }
}
