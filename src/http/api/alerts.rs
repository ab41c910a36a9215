//! `GET /v1/alerts`: what people should look at, newest first.

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tokio_postgres::{Error, Row};

use crate::alerts::Kind;
use crate::http::Context;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::database;
use crate::http::response::database::WORK_TIMEOUT;
use crate::http::response::problem::Problem;
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::reading::Timestamp;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    alert_id: String,
    kind: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vehicle_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meter_id: Option<String>,
    opened_at: String,
    updated_at: String,
    closed_at: Option<String>,
    value: f64,
    bound: f64,
    details: Box<RawValue>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<Alert>,
    next: Option<String>,
}

/// Lists alerts.
pub(crate) async fn list(context: &Context, text: Option<&str>) -> Result<Reply, Problem> {
    let query = Query::parse(
        text,
        &["state", "kind", "vehicleId", "meterId", "limit", "after"],
    )?;
    let limit = query.limit()?;
    let open = match query.get("state") {
        None => None,
        Some("open") => Some(true),
        Some("closed") => Some(false),
        Some(_) => return Err(query::bad("state must be open or closed".to_owned())),
    };
    let kind = query.get("kind");
    if kind.is_some_and(|kind| Kind::ALL.iter().all(|known| known.name() != kind)) {
        let names = Kind::ALL.map(Kind::name).join(", ");
        return Err(query::bad(format!("kind must be one of {names}")));
    }
    let device = match (query.id("vehicleId")?, query.id("meterId")?) {
        (None, None) => None,
        (Some(id), None) => Some(("vehicle", id.as_str())),
        (None, Some(id)) => Some(("meter", id.as_str())),
        (Some(_), Some(_)) => {
            let both = "an alert is of one device: give vehicleId or meterId";
            return Err(query::bad(both.to_owned()));
        }
    };
    let (stream, id) = device.unzip();
    let after = match query.get("after") {
        None => i64::MAX,
        Some(id) => id
            .parse()
            .map_err(|_| query::bad("after must be the next that an answer gave".to_owned()))?,
    };
    let client = database::client(&context.reads).await?;
    // One more than asked for tells whether there is a next page.
    let most = limit as i64 + 1;
    let work = async {
        let statement = client.prepare_cached(sql!("alerts")).await?;
        client
            .query(&statement, &[&after, &kind, &open, &most, &stream, &id])
            .await
    };
    let worked: Result<Result<Vec<Row>, Error>, _> = timeout(WORK_TIMEOUT, work).await;
    let rows = database::finish(client, worked)?;
    let items: Result<Vec<Alert>, Error> = rows.iter().take(limit).map(alert).collect();
    let items = items?;
    let next = items.last().filter(|_| rows.len() > limit);
    let page = Page {
        next: next.map(|last| last.alert_id.clone()),
        items,
    };
    reply::json(StatusCode::OK, &page)
}

/// A row's alert as one line of JSON, with its device's id.
pub(crate) fn alert_json(row: &Row) -> Result<(String, String), Error> {
    let alert = alert(row)?;
    // Texts and finite numbers always have a JSON form, and control characters are escaped in it.
    let json = serde_json::to_string(&alert).unwrap_or_default();
    let device = alert.vehicle_id.or(alert.meter_id);
    Ok((device.unwrap_or_default(), json))
}

fn alert(row: &Row) -> Result<Alert, Error> {
    let instant = |at: Timestamp| at.to_string();
    let id: i64 = row.try_get(0)?;
    let is_vehicle = row.try_get::<_, &str>(2)? == "vehicle";
    let device: Option<String> = row.try_get(3)?;
    let (vehicle_id, meter_id) = if is_vehicle {
        (device, None)
    } else {
        (None, device)
    };
    let closed_at: Option<Timestamp> = row.try_get(6)?;
    Ok(Alert {
        alert_id: id.to_string(),
        kind: row.try_get(1)?,
        state: if closed_at.is_some() {
            "closed"
        } else {
            "open"
        },
        vehicle_id,
        meter_id,
        opened_at: instant(row.try_get(4)?),
        updated_at: instant(row.try_get(5)?),
        closed_at: closed_at.map(instant),
        value: row.try_get(7)?,
        bound: row.try_get(8)?,
        details: RawValue::from_string(row.try_get(9)?).unwrap_or_default(),
    })
}
