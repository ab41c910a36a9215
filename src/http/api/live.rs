//! `GET /v1/live/…`: the newest reading of each device.

use std::iter;

use hyper::StatusCode;
use serde::Serialize;

use super::reading_view::ReadingView;
use crate::energy::latest::{Before, power, silent_after, usual_interval};
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::json;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply::Reply;
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Stream, Timestamp};
use crate::store::live::{self, LiveStatus};

/// A device's newest reading, as it was ingested.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(flatten)]
    reading: ReadingView<'a>,
    received_at: String,
    power_kw: Option<f64>,
    interval_seconds: Option<f64>,
    stale: bool,
}

impl<'a> Status<'a> {
    fn new(status: &'a LiveStatus, now: Timestamp, suspect_watts: u64) -> Self {
        let LiveStatus {
            device,
            received_at,
            reading,
            earlier,
        } = status;
        let before = earlier.first().map(|before| Before {
            at: before.at,
            register: before.register,
        });
        let times = earlier.iter().map(|earlier| earlier.at);
        let interval = usual_interval(iter::once(reading.at).chain(times));
        Status {
            reading: ReadingView { device, reading },
            received_at: received_at.to_string(),
            power_kw: power(reading.at, reading.energy, before, suspect_watts).map(thousandths),
            interval_seconds: interval.map(thousandths),
            stale: is_stale(reading.at, interval, now),
        }
    }
}

#[derive(Debug, Serialize)]
struct Page<'a> {
    items: Vec<Status<'a>>,
    next: Option<&'a str>,
}

/// Responds with one device; 404 if it is unknown.
pub(crate) async fn one(call: Call<'_>, stream: Stream) -> Result<Reply, Problem> {
    let id = query::path_id(call.id)?;
    let reads = call.reads();
    let now = Timestamp::now();
    let found: Result<_, ReadError> = reads
        .ask(async |client| live::find(client, stream, id, now).await)
        .await;
    match found? {
        Some(status) => {
            let suspect_watts = call.context.analyst.judgement().suspect_watts.0;
            let status = Status::new(&status, now, suspect_watts);
            json::reply(StatusCode::OK, &status)
        }
        None => Err(Problem::new(
            Kind::NotFound,
            format!("no reading of this {stream} is stored"),
        )),
    }
}

/// Lists devices by the bytes of their ids, in pages.
pub(crate) async fn list(call: Call<'_>, stream: Stream) -> Result<Reply, Problem> {
    let limit = call.query.limit()?;
    let after = call.query.id("after")?.map_or("", ExternalId::as_str);
    let reads = call.reads();
    let now = Timestamp::now();
    let page = reads
        .ask(async |client| live::list(client, stream, after, limit, now).await)
        .await?;
    let suspect_watts = call.context.analyst.judgement().suspect_watts.0;
    let items = page
        .items
        .iter()
        .map(|status| Status::new(status, now, suspect_watts));
    let page = Page {
        items: items.collect(),
        next: page.last_before_more().map(|last| last.device.as_str()),
    };
    json::reply(StatusCode::OK, &page)
}

/// A status as a single line of JSON.
pub(crate) fn status_json(status: &LiveStatus, now: Timestamp, suspect_watts: u64) -> String {
    // Serialising texts and finite numbers cannot fail, and escapes control characters.
    serde_json::to_string(&Status::new(status, now, suspect_watts)).unwrap_or_default()
}

/// Whether the latest reading is older than the device's usual interval explains.
fn is_stale(at: Timestamp, interval_seconds: Option<f64>, now: Timestamp) -> bool {
    let age = now.as_micros().saturating_sub(at.as_micros());
    age > (silent_after(interval_seconds) * 1e6) as i64
}

/// Rounds to watts or milliseconds, because further digits mean nothing.
fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Energy, EnergyKind};
    use crate::store::live::EarlierReading;
    use crate::store::reading::{StoredDetails, StoredReading};

    #[test]
    fn a_reading_is_stale_after_three_intervals_and_three_minutes() {
        let now = Timestamp::now();
        let after = |micros: i64, interval| is_stale(now.plus_micros(-micros), interval, now);
        for often in [None, Some(1.0), Some(60.0)] {
            assert!(!after(0, often) && !after(-60_000_000, often));
            assert!(!after(180_000_000, often) && after(180_000_001, often));
        }
        assert!(!after(2_700_000_000, Some(900.0)) && after(2_700_000_001, Some(900.0)));
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
            earlier: vec![EarlierReading {
                at: Timestamp::Y2000.plus_micros(-41_300_000_400),
                register: None,
            }],
        };
        let expected = serde_json::json!({
            "vehicleId": "V", "soc": 80.5, "kwhDeliveredDc": 41.3, "batteryTemp": 31.5,
            "energyKind": "interval", "timestamp": "2000-01-01T00:00:00Z",
            "receivedAt": "2000-01-01T00:00:00.000001Z", "powerKw": 3.6, "intervalSeconds": 41_300.0, "stale": true
        });
        let json = status_json(&status, Timestamp::now(), 1_000_000);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value, expected);
    }
}
