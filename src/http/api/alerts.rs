//! `GET /v1/alerts`: what operators should look at, newest first.

use hyper::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::alerts::Kind;
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::json;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::reading::Stream;
use crate::store::alerts::{self, Filter, StoredAlert};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    alert_id: String,
    kind: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vehicle_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meter_id: Option<&'a str>,
    opened_at: String,
    updated_at: String,
    closed_at: Option<String>,
    value: f64,
    bound: f64,
    details: Box<RawValue>,
}

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<Alert<'a>>,
    next: Option<String>,
}

/// Lists alerts.
pub(crate) async fn list(call: Call<'_>) -> Result<Reply, Problem> {
    let query = &call.query;
    let limit = query.limit()?;
    let open = match query.get("state") {
        None => None,
        Some("open") => Some(true),
        Some("closed") => Some(false),
        Some(_) => return Err(query::bad("state must be open or closed")),
    };
    let kind = query.get("kind");
    if kind.is_some_and(|kind| Kind::ALL.iter().all(|known| known.name() != kind)) {
        let names = Kind::ALL.map(Kind::name).join(", ");
        return Err(query::bad(format!("kind must be one of {names}")));
    }
    let device = match (query.id("vehicleId")?, query.id("meterId")?) {
        (None, None) => None,
        (Some(id), None) => Some((Stream::Vehicle, id)),
        (None, Some(id)) => Some((Stream::Meter, id)),
        (Some(_), Some(_)) => {
            let both = "an alert is of one device: give vehicleId or meterId";
            return Err(query::bad(both));
        }
    };
    let before = match query.get("after") {
        None => i64::MAX,
        Some(id) => id
            .parse()
            .map_err(|_| query::bad("after is not a cursor that this endpoint returned"))?,
    };
    let filter = Filter {
        before,
        kind,
        open,
        device,
        limit,
    };
    let reads = &call.context.reads;
    let found = reads
        .ask(async |client| alerts::list(client, filter).await)
        .await?;
    let page = Page {
        items: found.items.iter().map(Alert::from).collect(),
        next: found.last_before_more().map(|last| last.id.to_string()),
    };
    json::reply(StatusCode::OK, &page)
}

/// An alert as one line of JSON.
pub(crate) fn alert_json(alert: &StoredAlert) -> String {
    // Texts and finite numbers always have a JSON form, and control characters are escaped in it.
    serde_json::to_string(&Alert::from(alert)).unwrap_or_default()
}

impl<'a> From<&'a StoredAlert> for Alert<'a> {
    fn from(alert: &'a StoredAlert) -> Self {
        let device = alert.device.as_deref();
        Alert {
            alert_id: alert.id.to_string(),
            kind: &alert.kind,
            state: match alert.closed_at {
                Some(_) => "closed",
                None => "open",
            },
            vehicle_id: device.filter(|_| alert.stream == Stream::Vehicle),
            meter_id: device.filter(|_| alert.stream == Stream::Meter),
            opened_at: alert.opened_at.to_string(),
            updated_at: alert.updated_at.to_string(),
            closed_at: alert.closed_at.map(|at| at.to_string()),
            value: alert.value,
            bound: alert.limit,
            details: RawValue::from_string(alert.details.clone()).unwrap_or_default(),
        }
    }
}
