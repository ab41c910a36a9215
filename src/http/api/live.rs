//! `GET /v1/live/…`: the newest reading of each device.

use hyper::StatusCode;
use serde::Serialize;

use super::reading_view::ReadingView;
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::Reply;
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Stream, Timestamp};
use crate::store::live::{self, LiveStatus};

/// A reading older than this is stale: devices report once a minute, and two reports may be lost.
const STALE_MICROS: i64 = 180 * 1_000_000;

/// A device's newest reading, as it was ingested.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(flatten)]
    reading: ReadingView<'a>,
    received_at: String,
    stale: bool,
}

impl<'a> Status<'a> {
    fn new(status: &'a LiveStatus, now: Timestamp) -> Self {
        let LiveStatus {
            device,
            received_at,
            reading,
        } = status;
        Status {
            reading: ReadingView { device, reading },
            received_at: received_at.to_string(),
            stale: is_stale(reading.at, now),
        }
    }
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    items: Vec<Status<'a>>,
    next: Option<&'a str>,
}

/// One device; 404 if it was never seen.
pub(crate) async fn one(call: Call<'_>, stream: Stream) -> Result<Reply, Problem> {
    let id = query::path_id(call.id)?;
    let reads = &call.context.reads;
    let found: Result<_, ReadError> = reads
        .ask(async |client| live::find(client, stream, id).await)
        .await;
    match found? {
        Some(status) => json::reply(StatusCode::OK, &Status::new(&status, Timestamp::now())),
        None => Err(Problem::new(
            Kind::NotFound,
            format!("no reading of this {stream} is stored"),
        )),
    }
}

/// Devices in the order of their ids' bytes, a page at a time.
pub(crate) async fn list(call: Call<'_>, stream: Stream) -> Result<Reply, Problem> {
    let limit = call.query.limit()?;
    let after = call.query.id("after")?.map_or("", ExternalId::as_str);
    let reads = &call.context.reads;
    let page = reads
        .ask(async |client| live::list(client, stream, after, limit).await)
        .await?;
    let now = Timestamp::now();
    let items = page.items.iter().map(|status| Status::new(status, now));
    let page = Page {
        items: items.collect(),
        next: page.last_before_more().map(|last| last.device.as_str()),
    };
    json::reply(StatusCode::OK, &page)
}

/// A status as one line of JSON.
pub(crate) fn status_json(status: &LiveStatus, now: Timestamp) -> String {
    // Texts and finite numbers always have a JSON form, and control characters are escaped in it.
    serde_json::to_string(&Status::new(status, now)).unwrap_or_default()
}

fn is_stale(at: Timestamp, now: Timestamp) -> bool {
    now.as_micros().saturating_sub(at.as_micros()) > STALE_MICROS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Energy, EnergyKind};
    use crate::store::reading::{StoredDetails, StoredReading};

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
        let status = LiveStatus {
            device: "V".to_owned(),
            received_at: Timestamp::Y2000.plus_micros(1),
            reading: StoredReading {
                at: Timestamp::Y2000,
                energy: Energy {
                    kwh: 41.3,
                    kind: EnergyKind::Interval,
                },
                details: StoredDetails::Vehicle {
                    soc: 80.5,
                    battery_temp: 31.5,
                    meter: None,
                    session: None,
                },
            },
        };
        let expected = serde_json::json!({
            "vehicleId": "V", "soc": 80.5, "kwhDeliveredDc": 41.3, "batteryTemp": 31.5,
            "energyKind": "interval", "timestamp": "2000-01-01T00:00:00Z",
            "receivedAt": "2000-01-01T00:00:00.000001Z", "stale": true
        });
        let json = status_json(&status, Timestamp::now());
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value, expected);
    }
}
