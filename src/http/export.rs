//! `GET /v1/export/meter` and `/v1/export/vehicle`: history of a window, for people who take
//! their data elsewhere.
//!
//! Device by device in the order of their registration, each by time, some thousand readings a
//! statement: memory is constant whatever the window, and a slow client holds neither a snapshot
//! nor a connection to the database. What is stored while an export runs may be in it or not.

use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use deadpool_postgres::Pool;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use serde::Serialize;
use tokio::time::timeout;
use tokio_postgres::{Error, Row};

use super::Context;
use super::database::{self, WORK_TIMEOUT};
use super::performance::window_of;
use super::problem::Problem;
use super::query::{self, Query};
use super::reply::{self, Reply};
use crate::analytics::runs::Run;
use crate::reading::{Stream, Timestamp};

/// Readings of one statement: about 1 MB as NDJSON.
const READINGS_MAX: i64 = 5_000;
/// Devices that are looked up at once.
const DEVICES_MAX: i64 = 1_000;
/// Devices without a reading that are passed over before the client is given a sign of life.
const IDLE_DEVICES_MAX: usize = 1_000;

macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("../../sql/queries/", $name, ".sql"))
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Ndjson,
}

impl Format {
    const fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Ndjson => "application/x-ndjson",
        })
    }
}

/// One reading as it is ingested: an export can be sent again.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", untagged)]
enum Exported<'a> {
    #[serde(rename_all = "camelCase")]
    Meter {
        meter_id: &'a str,
        kwh_consumed_ac: f64,
        voltage: f64,
        timestamp: String,
        energy_kind: &'static str,
    },
    #[serde(rename_all = "camelCase")]
    Vehicle {
        vehicle_id: &'a str,
        soc: f64,
        kwh_delivered_dc: f64,
        battery_temp: f64,
        timestamp: String,
        energy_kind: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        meter_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        session_id: Option<&'a str>,
    },
}

const METER_HEADER: &str = "meterId,kwhConsumedAc,voltage,timestamp,energyKind\r\n";
const VEHICLE_HEADER: &str =
    "vehicleId,soc,kwhDeliveredDc,batteryTemp,timestamp,energyKind,meterId,sessionId\r\n";

impl<'a> Exported<'a> {
    fn read(stream: Stream, device: &'a str, row: &'a Row) -> Result<Self, Error> {
        let at: Timestamp = row.try_get(0)?;
        let (interval, register): (Option<f64>, Option<f64>) = (row.try_get(1)?, row.try_get(2)?);
        let energy_kind = if register.is_some() {
            "register"
        } else {
            "interval"
        };
        let kwh = register.or(interval).unwrap_or_default();
        let timestamp = at.to_string();
        Ok(match stream {
            Stream::Meter => Exported::Meter {
                meter_id: device,
                kwh_consumed_ac: kwh,
                voltage: row.try_get(3)?,
                timestamp,
                energy_kind,
            },
            Stream::Vehicle => Exported::Vehicle {
                vehicle_id: device,
                soc: row.try_get(3)?,
                kwh_delivered_dc: kwh,
                battery_temp: row.try_get(4)?,
                timestamp,
                energy_kind,
                meter_id: row.try_get(5)?,
                session_id: row.try_get(6)?,
            },
        })
    }

    fn write_csv(&self, out: &mut String) {
        // Writing to a string does not fail.
        match self {
            Exported::Meter {
                meter_id,
                kwh_consumed_ac,
                voltage,
                timestamp,
                energy_kind,
            } => {
                quote(meter_id, out);
                write!(
                    out,
                    ",{kwh_consumed_ac},{voltage},{timestamp},{energy_kind}"
                )
                .ok();
            }
            Exported::Vehicle {
                vehicle_id,
                soc,
                kwh_delivered_dc,
                battery_temp,
                timestamp,
                energy_kind,
                meter_id,
                session_id,
            } => {
                quote(vehicle_id, out);
                let numbers = format!(",{soc},{kwh_delivered_dc},{battery_temp}");
                write!(out, "{numbers},{timestamp},{energy_kind},").ok();
                quote(meter_id.unwrap_or_default(), out);
                out.push(',');
                quote(session_id.unwrap_or_default(), out);
            }
        }
        out.push_str("\r\n");
    }
}

/// Writes a field of CSV, in quotes where it needs them.
///
/// Source: RFC 4180
fn quote(text: &str, out: &mut String) {
    if text.contains([',', '"']) || text != text.trim() {
        out.push('"');
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(text);
    }
}

/// An export on its way.
struct Export {
    pool: Pool,
    stream: Stream,
    format: Format,
    window: Run,
    /// Devices that are looked up and not done; the next is the last.
    devices: Vec<(i32, String)>,
    /// The device that was looked up last; none behind it once `exhausted`.
    after: i32,
    exhausted: bool,
    /// Up to where the next device's readings are sent.
    sent_up_to: Timestamp,
    /// What is sent first.
    header: Option<&'static str>,
}

/// Sends history of a window.
pub(super) async fn export(
    context: &Context,
    stream: Stream,
    text: Option<&str>,
) -> Result<Reply, Problem> {
    let query = Query::parse(text, &["from", "to", "format"])?;
    let window = window_of(&query, Timestamp::now())?;
    let format = match query.get("format") {
        None | Some("csv") => Format::Csv,
        Some("ndjson") => Format::Ndjson,
        Some(_) => return Err(query::bad("format must be csv or ndjson".to_owned())),
    };
    // A database that is away is an answer of 503, and not a body that ends.
    drop(database::client(&context.reads).await?);
    let header = match (format, stream) {
        (Format::Ndjson, _) => None,
        (Format::Csv, Stream::Meter) => Some(METER_HEADER),
        (Format::Csv, Stream::Vehicle) => Some(VEHICLE_HEADER),
    };
    let export = Export {
        pool: context.reads.clone(),
        stream,
        format,
        window,
        devices: Vec::new(),
        after: i32::MIN,
        exhausted: false,
        sent_up_to: window.start(),
        header,
    };
    let pieces = stream::try_unfold(export, |mut export| async move {
        let piece = export.next().await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(piece.map(|piece| (Frame::data(piece), export)))
    });
    let mut reply = reply::streamed(StatusCode::OK, format.media_type(), StreamBody::new(pieces));
    let name = match (stream, format) {
        (Stream::Meter, Format::Csv) => "attachment; filename=\"meter.csv\"",
        (Stream::Meter, Format::Ndjson) => "attachment; filename=\"meter.ndjson\"",
        (Stream::Vehicle, Format::Csv) => "attachment; filename=\"vehicle.csv\"",
        (Stream::Vehicle, Format::Ndjson) => "attachment; filename=\"vehicle.ndjson\"",
    };
    let headers = reply.headers_mut();
    headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static(name));
    Ok(reply)
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the database cannot be reached: {0}")]
    Pool(#[from] deadpool_postgres::PoolError),
    #[error(transparent)]
    Database(#[from] Error),
    #[error("the database did not answer in time")]
    TooSlow,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Export {
    /// The next piece of the body; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, ExportError> {
        if let Some(header) = self.header.take() {
            return Ok(Some(Bytes::from_static(header.as_bytes())));
        }
        let piece = timeout(WORK_TIMEOUT, self.read()).await;
        let piece = piece
            .map_err(|_| ExportError::TooSlow)
            .and_then(|piece| piece);
        if let Err(error) = &piece {
            tracing::warn!(%error, "an export was cut");
        }
        piece
    }

    async fn read(&mut self) -> Result<Option<Bytes>, ExportError> {
        let client = self.pool.get().await?;
        let (devices, readings) = match self.stream {
            Stream::Meter => (sql!("export_devices_meter"), sql!("export_meter")),
            Stream::Vehicle => (sql!("export_devices_vehicle"), sql!("export_vehicle")),
        };
        let readings = client.prepare_cached(readings).await?;
        for _ in 0..IDLE_DEVICES_MAX {
            if self.devices.is_empty() && !self.exhausted {
                let statement = client.prepare_cached(devices).await?;
                let rows = client
                    .query(&statement, &[&self.after, &DEVICES_MAX])
                    .await?;
                let device = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
                self.devices = rows.iter().map(device).collect::<Result<_, Error>>()?;
                self.exhausted = self.devices.is_empty();
                self.after = self.devices.last().map_or(self.after, |(id, _)| *id);
                self.devices.reverse();
            }
            let Some((id, name)) = self.devices.last() else {
                return Ok(None);
            };
            let (from, to) = (self.sent_up_to, self.window.end());
            let rows = client
                .query(&readings, &[id, &from, &to, &READINGS_MAX])
                .await?;
            let text = self.text(name, &rows)?;
            match rows.last() {
                Some(last) if rows.len() as i64 == READINGS_MAX => {
                    self.sent_up_to = last.try_get(0)?
                }
                _ => {
                    self.devices.pop();
                    self.sent_up_to = self.window.start();
                }
            }
            if !text.is_empty() {
                return Ok(Some(Bytes::from(text)));
            }
        }
        // An empty piece: a client that has gone is noticed.
        Ok(Some(Bytes::new()))
    }

    fn text(&self, device: &str, rows: &[Row]) -> Result<String, ExportError> {
        let mut text = String::new();
        for row in rows {
            let reading = Exported::read(self.stream, device, row)?;
            match self.format {
                Format::Csv => reading.write_csv(&mut text),
                Format::Ndjson => {
                    text.push_str(&serde_json::to_string(&reading)?);
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_a_comma_a_quote_or_a_space_at_its_edge_is_quoted() {
        for (text, expected) in [
            ("M1", "M1"),
            ("a,b", "\"a,b\""),
            ("say \"a\"", "\"say \"\"a\"\"\""),
            (" a", "\" a\""),
            ("", ""),
        ] {
            let mut out = String::new();
            quote(text, &mut out);
            assert_eq!(out, expected);
        }
    }
}
