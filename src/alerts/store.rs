//! The table of alerts, and the queue of deliveries to the webhook.
//!
//! While a device is muted, its deliveries are withheld. When the mute ends, what is still worth knowing is delivered:
//! the opening of an alert that is still open and that nobody has acknowledged, and the closing of one whose opening
//! was delivered. So no closing is delivered without its opening.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use tokio_postgres::{Client, Row, Transaction};

use super::evaluate::Findings;
use super::{AlertError, Kind, Settings};
use crate::reading::{Stream, Timestamp};

/// The most waiting deliveries. Why 20,000: twice what a fleet of 10,000 queues if all of it falls silent at once.
const DELIVERIES_MAX: i64 = 20_000;
/// How long a closed alert is kept.
const KEPT_MICROS: i64 = 400 * 86_400_000_000;
/// The most withheld events of one transaction.
const RELEASED_MAX: i64 = 5_000;

/// An alert that has opened or closed.
struct Event {
    name: &'static str,
    id: i64,
    kind: String,
    stream: Stream,
    device: i32,
    opened_at: Timestamp,
    closed_at: Option<Timestamp>,
    value: f64,
    bound: f64,
    details: Value,
}

/// Opens, updates and closes alerts, and queues or withholds their deliveries, in one transaction. So every change has
/// a delivery, and every delivery a change.
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
                kind: kind.to_owned(),
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
                kind: kind.to_owned(),
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
        if settings.webhook.is_some() {
            events = withhold(&work, events, now).await?;
        }
        queue(&work, settings, &events).await?;
        let forgotten = now.plus_micros(-KEPT_MICROS);
        work.execute(sql!("alert_forget"), &[&forgotten]).await?;
    }
    work.commit().await?;
    Ok(())
}

/// Delivers what mutes that have ended withheld, and forgets these mutes.
///
/// Blocks: until COMMIT
pub(super) async fn release(
    client: &mut Client,
    settings: &Settings,
    now: Timestamp,
) -> Result<(), AlertError> {
    client.execute(sql!("alert_mutes_forget"), &[&now]).await?;
    if settings.webhook.is_none() {
        return Ok(());
    }
    loop {
        let work = client.transaction().await?;
        let rows = work
            .query(sql!("alert_release"), &[&now, &RELEASED_MAX])
            .await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            events.extend(released(row)?);
        }
        queue(&work, settings, &events).await?;
        work.commit().await?;
        if rows.len() < RELEASED_MAX as usize {
            return Ok(());
        }
    }
}

/// A withheld event. `None` for the opening of an alert that has closed since: an earlier version, which knows no
/// mutes, has closed it and delivered that.
fn released(row: &Row) -> Result<Option<Event>, AlertError> {
    let closed_at: Option<Timestamp> = row.try_get(6)?;
    let name = match (row.try_get::<_, &str>(0)?, closed_at) {
        ("opened", None) => "opened",
        ("closed", Some(_)) => "closed",
        _ => return Ok(None),
    };
    Ok(Some(Event {
        name,
        id: row.try_get(1)?,
        kind: row.try_get(2)?,
        stream: match row.try_get(3)? {
            "vehicle" => Stream::Vehicle,
            _ => Stream::Meter,
        },
        device: row.try_get(4)?,
        opened_at: row.try_get(5)?,
        closed_at,
        value: row.try_get(7)?,
        bound: row.try_get(8)?,
        details: serde_json::from_str(row.try_get(9)?).unwrap_or_default(),
    }))
}

/// Withholds the events of muted devices. Returns the events to deliver.
async fn withhold(
    work: &Transaction<'_>,
    events: Vec<Event>,
    now: Timestamp,
) -> Result<Vec<Event>, AlertError> {
    let ids = |name: &str| -> Vec<i64> {
        let named = events.iter().filter(|event| event.name == name);
        named.map(|event| event.id).collect()
    };
    let closed = ids("closed");
    let unheard = ids_of(
        &work
            .query(sql!("alert_never_announced"), &[&closed])
            .await?,
    )?;
    let all: Vec<i64> = events.iter().map(|event| event.id).collect();
    let muted = ids_of(&work.query(sql!("alert_muted"), &[&all, &now]).await?)?;
    if unheard.is_empty() && muted.is_empty() {
        return Ok(events);
    }
    for name in ["opened", "closed"] {
        let mut withheld = ids(name);
        withheld.retain(|id| muted.contains(id) && !unheard.contains(id));
        work.execute(sql!("alert_withhold"), &[&withheld, &name])
            .await?;
    }
    let (silent, loud): (Vec<Event>, Vec<Event>) = events
        .into_iter()
        .partition(|event| unheard.contains(&event.id) || muted.contains(&event.id));
    for Event { name, id, kind, .. } in silent {
        tracing::info!(alert = id, kind, "alert {name}, but its device is muted");
    }
    Ok(loud)
}

fn ids_of(rows: &[Row]) -> Result<HashSet<i64>, tokio_postgres::Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Logs the events, and queues their deliveries.
async fn queue(
    work: &Transaction<'_>,
    settings: &Settings,
    events: &[Event],
) -> Result<(), AlertError> {
    if events.is_empty() {
        return Ok(());
    }
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
        // Not the time at which the search began, which may be long ago: deliveries are sent in the order of their
        // times, and the closing of an alert must not be sent before its opening.
        let now = Timestamp::now();
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
            "severity": Kind::severity_of(&self.kind).name(),
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
