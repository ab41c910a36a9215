//! `GET /v1/history/{meter,vehicle}/{id}`: the readings of one device, as they were sent.

use deadpool_postgres::{Client, Pool};
use hyper::StatusCode;
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::{Error, Row};

use super::performance::window_of;
use crate::energy::interval::Run;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::database;
use crate::http::response::database::WORK_TIMEOUT;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::ingest::decode::timestamp;
use crate::reading::{ExternalId, Stream, Timestamp};

/// A reading as its device sent it: it can be sent again as it is.
#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Item<'a> {
    Meter {
        meter_id: &'a str,
        kwh_consumed_ac: f64,
        voltage: f64,
        energy_kind: &'static str,
        timestamp: String,
    },
    Vehicle {
        vehicle_id: &'a str,
        soc: f64,
        kwh_delivered_dc: f64,
        battery_temp: f64,
        energy_kind: &'static str,
        timestamp: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        meter_id: Option<String>,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    items: Vec<Item<'a>>,
    next: Option<String>,
    time_window_start: String,
    time_window_end: String,
}

/// Readings of a device in a window, oldest first, a page at a time; 404 for one never seen.
///
/// The cursor is the time of the page's last reading, which no other reading of the device has.
pub(crate) async fn page(
    pool: &Pool,
    stream: Stream,
    id: &str,
    text: Option<&str>,
) -> Result<Reply, Problem> {
    let id = query::path_id(id)?;
    let query = Query::parse(text, &["from", "to", "tz", "limit", "after"])?;
    let window = window_of(&query, Timestamp::now())?;
    let limit = query.limit()?;
    let after = after(&query)?.map_or(window.start(), |after| after.max(window.start()));
    let client = database::client(pool).await?;
    let found = timeout(
        WORK_TIMEOUT,
        read(&client, stream, id, after, window.end(), limit),
    )
    .await;
    let Some(rows) = database::finish(client, found)? else {
        let detail = format!("no reading of this {stream} was seen");
        return Err(Problem::new(Kind::NotFound, detail));
    };
    reply::json(
        StatusCode::OK,
        &page_of(stream, id.as_str(), window, &rows, limit)?,
    )
}

/// The time after which the page begins.
fn after(query: &Query<'_>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = query.get("after") else {
        return Ok(None);
    };
    let at = timestamp::parse(text).filter(|at| at.is_writable());
    at.map(Some)
        .ok_or_else(|| query::bad("after must be the `next` of the page before".to_owned()))
}

/// One row more than a page has, where there is one; none for an unknown device.
async fn read(
    client: &Client,
    stream: Stream,
    id: ExternalId<'_>,
    after: Timestamp,
    to: Timestamp,
    limit: usize,
) -> Result<Option<Vec<Row>>, Error> {
    let (find, history) = match stream {
        Stream::Meter => (sql!("meter_find"), sql!("history_meter")),
        Stream::Vehicle => (sql!("vehicle_find"), sql!("history_vehicle")),
    };
    let find = client.prepare_cached(find).await?;
    let Some(device) = client.query_opt(&find, &[&id.as_str()]).await? else {
        return Ok(None);
    };
    let device: i32 = device.try_get(0)?;
    let history = client.prepare_cached(history).await?;
    let limit = limit as i64 + 1;
    let rows = client
        .query(&history, &[&device, &after, &to, &limit])
        .await?;
    Ok(Some(rows))
}

fn page_of<'a>(
    stream: Stream,
    id: &'a str,
    window: Run,
    rows: &[Row],
    limit: usize,
) -> Result<Page<'a>, Error> {
    let mut items = Vec::with_capacity(rows.len().min(limit));
    let mut last = None;
    for row in rows.iter().take(limit) {
        let (interval, register): (Option<f64>, Option<f64>) = (row.try_get(1)?, row.try_get(2)?);
        let kwh = register.or(interval).unwrap_or_default();
        let energy_kind = if register.is_some() {
            "register"
        } else {
            "interval"
        };
        let timestamp = row.try_get::<_, Timestamp>(0)?.to_string();
        last = Some(timestamp.clone());
        items.push(match stream {
            Stream::Meter => Item::Meter {
                meter_id: id,
                kwh_consumed_ac: kwh,
                voltage: row.try_get(3)?,
                energy_kind,
                timestamp,
            },
            Stream::Vehicle => Item::Vehicle {
                vehicle_id: id,
                soc: row.try_get(3)?,
                kwh_delivered_dc: kwh,
                battery_temp: row.try_get(4)?,
                energy_kind,
                timestamp,
                meter_id: row.try_get(5)?,
                session_id: row.try_get(6)?,
            },
        });
    }
    Ok(Page {
        items,
        next: last.filter(|_| rows.len() > limit),
        time_window_start: window.start().to_string(),
        time_window_end: window.end().to_string(),
    })
}
