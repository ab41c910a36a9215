//! `GET /v1/live/…`: what each device is doing now.

use deadpool_postgres::{Client, Pool};
use hyper::StatusCode;
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::{Error, Row};

use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::database;
use crate::http::response::database::WORK_TIMEOUT;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::reading::{ExternalId, Stream, Timestamp};

/// A reading older than this is stale: devices report once a minute, and two may get lost.
const STALE_MICROS: i64 = 180 * 1_000_000;

/// A device's newest reading, as it was sent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(flatten)]
    values: Values,
    energy_kind: &'static str,
    timestamp: String,
    received_at: String,
    stale: bool,
}

#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Values {
    Meter {
        meter_id: String,
        kwh_consumed_ac: f64,
        voltage: f64,
    },
    Vehicle {
        vehicle_id: String,
        soc: f64,
        kwh_delivered_dc: f64,
        battery_temp: f64,
    },
}

#[derive(Debug, Serialize)]
struct Page {
    items: Vec<Status>,
    next: Option<String>,
}

/// One device; 404 where it was never seen.
pub(crate) async fn one(pool: &Pool, stream: Stream, id: &str) -> Result<Reply, Problem> {
    let id = query::path_id(id)?;
    let client = database::client(pool).await?;
    let found = timeout(WORK_TIMEOUT, find(&client, stream, id)).await;
    match database::finish(client, found)? {
        Some(status) => reply::json(StatusCode::OK, &status),
        None => Err(Problem::new(
            Kind::NotFound,
            format!("no reading of this {stream} was seen"),
        )),
    }
}

/// Devices in the order of their ids' bytes, a page at a time.
pub(crate) async fn list(
    pool: &Pool,
    stream: Stream,
    text: Option<&str>,
) -> Result<Reply, Problem> {
    let query = Query::parse(text, &["limit", "after"])?;
    let limit = query.limit()?;
    let after = query.id("after")?.map_or("", ExternalId::as_str);
    let client = database::client(pool).await?;
    let found = timeout(WORK_TIMEOUT, page(&client, stream, after, limit)).await;
    reply::json(StatusCode::OK, &database::finish(client, found)?)
}

async fn find(
    client: &Client,
    stream: Stream,
    id: ExternalId<'_>,
) -> Result<Option<Status>, Error> {
    let sql = match stream {
        Stream::Meter => sql!("live_meter"),
        Stream::Vehicle => sql!("live_vehicle"),
    };
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_opt(&statement, &[&id.as_str()]).await?;
    row.map(|row| status(stream, &row, Timestamp::now()).map(|(_, status)| status))
        .transpose()
}

async fn page(client: &Client, stream: Stream, after: &str, limit: usize) -> Result<Page, Error> {
    let sql = match stream {
        Stream::Meter => sql!("live_meters"),
        Stream::Vehicle => sql!("live_vehicles"),
    };
    let statement = client.prepare_cached(sql).await?;
    // One more than asked for tells whether there is a next page.
    let rows = client
        .query(&statement, &[&after, &(limit as i64 + 1)])
        .await?;
    let now = Timestamp::now();
    let mut items = Vec::with_capacity(rows.len().min(limit));
    let mut last = None;
    for row in rows.iter().take(limit) {
        let (id, item) = status(stream, row, now)?;
        items.push(item);
        last = Some(id);
    }
    Ok(Page {
        items,
        next: last.filter(|_| rows.len() > limit),
    })
}

fn status(stream: Stream, row: &Row, now: Timestamp) -> Result<(String, Status), Error> {
    let id: String = row.try_get(0)?;
    let at: Timestamp = row.try_get(1)?;
    let received_at: Timestamp = row.try_get(2)?;
    let (interval, register): (Option<f64>, Option<f64>) = (row.try_get(3)?, row.try_get(4)?);
    let energy = register.or(interval).unwrap_or_default();
    let values = match stream {
        Stream::Meter => Values::Meter {
            meter_id: id.clone(),
            kwh_consumed_ac: energy,
            voltage: row.try_get(5)?,
        },
        Stream::Vehicle => Values::Vehicle {
            vehicle_id: id.clone(),
            kwh_delivered_dc: energy,
            soc: row.try_get(5)?,
            battery_temp: row.try_get(6)?,
        },
    };
    let status = Status {
        values,
        energy_kind: if register.is_some() {
            "register"
        } else {
            "interval"
        },
        timestamp: at.to_string(),
        received_at: received_at.to_string(),
        stale: is_stale(at, now),
    };
    Ok((id, status))
}

/// A row's status as one line of JSON, with the device's id.
pub(crate) fn status_json(
    stream: Stream,
    row: &Row,
    now: Timestamp,
) -> Result<(String, String), Error> {
    let (id, status) = status(stream, row, now)?;
    // Texts and finite numbers always have a JSON form, and control characters are escaped in it.
    Ok((id, serde_json::to_string(&status).unwrap_or_default()))
}

fn is_stale(at: Timestamp, now: Timestamp) -> bool {
    now.as_micros().saturating_sub(at.as_micros()) > STALE_MICROS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_stale_after_three_minutes() {
        let now = Timestamp::now();
        assert!(!is_stale(now, now));
        assert!(!is_stale(now.plus_micros(60_000_000), now));
        assert!(!is_stale(now.plus_micros(-180_000_000), now));
        assert!(is_stale(now.plus_micros(-180_000_001), now));
    }

    #[test]
    fn a_status_has_the_fields_that_the_device_sent() {
        let status = Status {
            values: Values::Vehicle {
                vehicle_id: "V".to_owned(),
                soc: 80.5,
                kwh_delivered_dc: 41.3,
                battery_temp: 31.5,
            },
            energy_kind: "interval",
            timestamp: Timestamp::Y2000.to_string(),
            received_at: Timestamp::Y2000.plus_micros(1).to_string(),
            stale: true,
        };
        let expected = serde_json::json!({
            "vehicleId": "V", "soc": 80.5, "kwhDeliveredDc": 41.3, "batteryTemp": 31.5,
            "energyKind": "interval", "timestamp": "2000-01-01T00:00:00Z",
            "receivedAt": "2000-01-01T00:00:00.000001Z", "stale": true
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
    }
}
