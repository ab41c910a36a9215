//! `GET /v1/export/meter` and `/v1/export/vehicle`: history of a window, for people who take
//! their data elsewhere.
//!
//! Device by device in the order of their registration, each by time, some thousand readings a
//! statement: memory is constant whatever the window, and a slow client holds neither a snapshot
//! nor a connection to the database. What is stored while an export runs may be in it or not.

mod parquet;

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use deadpool_postgres::Pool;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use serde::{Serialize, Serializer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_postgres::{Error, Row};

use super::performance::window_of;
use crate::energy::interval::Run;
use crate::http::Context;
use crate::http::request::query;
use crate::http::request::query::Query;
use crate::http::response::database;
use crate::http::response::database::WORK_TIMEOUT;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::reading::{Stream, Timestamp};
use parquet::ParquetFile;

/// Readings of one statement: about 1 MB as NDJSON.
const READINGS_MAX: i64 = 5_000;
/// Devices that are looked up at once.
const DEVICES_MAX: i64 = 1_000;
/// Devices without a reading that are passed over before the client is given a sign of life.
const IDLE_DEVICES_MAX: usize = 1_000;
/// Exports as Parquet at a time: a file gathers 16 MB before it writes.
pub(crate) const PARQUET_MAX: usize = 4;
/// When to come again where so many are running.
const BUSY_RETRY_SECONDS: u64 = 30;

pub(crate) static PARQUET: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(PARQUET_MAX)));

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Ndjson,
    Parquet,
}

impl Format {
    fn read(text: Option<&str>) -> Result<Self, Problem> {
        match text {
            None | Some("csv") => Ok(Format::Csv),
            Some("ndjson") => Ok(Format::Ndjson),
            Some("parquet") => Ok(Format::Parquet),
            Some(_) => Err(query::bad(
                "format must be csv, ndjson or parquet".to_owned(),
            )),
        }
    }

    const fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Ndjson => "application/x-ndjson",
            Format::Parquet => "application/vnd.apache.parquet",
        })
    }

    const fn disposition(self, stream: Stream) -> HeaderValue {
        HeaderValue::from_static(match (stream, self) {
            (Stream::Meter, Format::Csv) => "attachment; filename=\"meter.csv\"",
            (Stream::Meter, Format::Ndjson) => "attachment; filename=\"meter.ndjson\"",
            (Stream::Meter, Format::Parquet) => "attachment; filename=\"meter.parquet\"",
            (Stream::Vehicle, Format::Csv) => "attachment; filename=\"vehicle.csv\"",
            (Stream::Vehicle, Format::Ndjson) => "attachment; filename=\"vehicle.ndjson\"",
            (Stream::Vehicle, Format::Parquet) => "attachment; filename=\"vehicle.parquet\"",
        })
    }
}

/// The fields of a stream's readings in every format, as they are ingested: what is exported can
/// be sent again.
const fn fields(stream: Stream) -> &'static [&'static str] {
    match stream {
        Stream::Meter => &[
            "meterId",
            "kwhConsumedAc",
            "voltage",
            "timestamp",
            "energyKind",
        ],
        Stream::Vehicle => &[
            "vehicleId",
            "soc",
            "kwhDeliveredDc",
            "batteryTemp",
            "timestamp",
            "energyKind",
            "meterId",
            "sessionId",
        ],
    }
}

/// The value of one field.
#[derive(Debug, Clone, Copy)]
enum Value<'r> {
    Text(&'r str),
    TextOrNone(Option<&'r str>),
    Number(f64),
    Instant(Timestamp),
}

/// One reading's values, in the order of [`fields`].
fn values<'r>(stream: Stream, device: &'r str, row: &'r Row) -> Result<Vec<Value<'r>>, Error> {
    let at = Value::Instant(row.try_get(0)?);
    let (interval, register): (Option<f64>, Option<f64>) = (row.try_get(1)?, row.try_get(2)?);
    let kind = if register.is_some() {
        "register"
    } else {
        "interval"
    };
    let (device, kind) = (Value::Text(device), Value::Text(kind));
    let kwh = Value::Number(register.or(interval).unwrap_or_default());
    let number = |column| row.try_get(column).map(Value::Number);
    let name = |column| row.try_get(column).map(Value::TextOrNone);
    Ok(match stream {
        Stream::Meter => vec![device, kwh, number(3)?, at, kind],
        Stream::Vehicle => vec![
            device,
            number(3)?,
            kwh,
            number(4)?,
            at,
            kind,
            name(5)?,
            name(6)?,
        ],
    })
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Text(text) => serializer.serialize_str(text),
            Value::TextOrNone(text) => text.serialize(serializer),
            Value::Number(number) => serializer.serialize_f64(*number),
            Value::Instant(at) => serializer.collect_str(at),
        }
    }
}

/// A reading as JSON; what is not there is left out.
struct Line<'a>(Stream, &'a [Value<'a>]);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = fields(self.0).iter().zip(self.1);
        serializer.collect_map(named.filter(|(_, value)| !matches!(value, Value::TextOrNone(None))))
    }
}

fn write_csv(values: &[Value<'_>], out: &mut String) {
    for (n, value) in values.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        // Writing to a string does not fail.
        match value {
            Value::Text(text) => quote(text, out),
            Value::TextOrNone(text) => quote(text.unwrap_or_default(), out),
            Value::Number(number) => write!(out, "{number}").unwrap_or_default(),
            Value::Instant(at) => write!(out, "{at}").unwrap_or_default(),
        }
    }
    out.push_str("\r\n");
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
    window: Run,
    /// Devices that are looked up and not done; the next is the last.
    devices: Vec<(i32, String)>,
    /// The device that was looked up last; none behind it once `exhausted`.
    after: i32,
    exhausted: bool,
    /// Up to where the next device's readings are sent.
    sent_up_to: Timestamp,
}

/// What an export is written as, and what was not sent of it yet.
enum Writing {
    Csv { header: bool },
    Ndjson,
    Parquet(Box<ParquetFile>, OwnedSemaphorePermit),
    Ended,
}

/// Sends history of a window.
pub(crate) async fn export(
    context: &Context,
    stream: Stream,
    text: Option<&str>,
) -> Result<Reply, Problem> {
    let query = Query::parse(text, &["from", "to", "tz", "format"])?;
    let window = window_of(&query, Timestamp::now())?;
    let format = Format::read(query.get("format"))?;
    let writing = match format {
        Format::Csv => Writing::Csv { header: true },
        Format::Ndjson => Writing::Ndjson,
        Format::Parquet => {
            let busy = |_| {
                let detail = "as many exports as Parquet as there may be at a time are running";
                Problem::new(Kind::Overloaded, detail).retry_after(BUSY_RETRY_SECONDS)
            };
            let permit = Arc::clone(&PARQUET).try_acquire_owned().map_err(busy)?;
            let file = ParquetFile::new(stream).map_err(|error| {
                Problem::new(Kind::Internal, format!("the file cannot be begun: {error}"))
            })?;
            Writing::Parquet(Box::new(file), permit)
        }
    };
    // A database that is away is an answer of 503, and not a body that ends.
    drop(database::client(&context.reads).await?);
    let export = Export {
        pool: context.reads.clone(),
        stream,
        window,
        devices: Vec::new(),
        after: i32::MIN,
        exhausted: false,
        sent_up_to: window.start(),
    };
    let pieces = stream::try_unfold((export, writing), |(mut export, writing)| async move {
        let piece = export.piece(writing).await;
        if let Err(error) = &piece {
            tracing::warn!(%error, "an export was cut");
        }
        let piece = piece.map_err(io::Error::other)?;
        Ok::<_, io::Error>(piece.map(|(piece, writing)| (Frame::data(piece), (export, writing))))
    });
    let mut reply = reply::streamed(StatusCode::OK, format.media_type(), StreamBody::new(pieces));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_DISPOSITION, format.disposition(stream));
    Ok(reply)
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the database cannot be reached: {0}")]
    Pool(#[from] deadpool_postgres::PoolError),
    #[error("{}", database::explained(.0))]
    Database(#[from] Error),
    #[error("the database did not answer in time")]
    TooSlow,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Parquet(#[from] ::parquet::errors::ParquetError),
    #[error("writing the file: {0}")]
    Writer(#[from] tokio::task::JoinError),
}

/// A part of the body, and what the next is written as.
type Piece = (Bytes, Writing);

impl Export {
    /// The next piece of the body; `None` at the end. One may be empty: a client that has gone is
    /// noticed.
    async fn piece(&mut self, writing: Writing) -> Result<Option<Piece>, ExportError> {
        let piece = match writing {
            Writing::Csv { header: true } => {
                let header = fields(self.stream).join(",") + "\r\n";
                (Bytes::from(header), Writing::Csv { header: false })
            }
            Writing::Csv { .. } | Writing::Ndjson => {
                let Some((device, rows)) = self.readings().await? else {
                    return Ok(None);
                };
                let text = self.text(&writing, &device, &rows)?;
                (Bytes::from(text), writing)
            }
            Writing::Parquet(file, permit) => self.group(file, permit).await?,
            Writing::Ended => return Ok(None),
        };
        Ok(Some(piece))
    }

    fn text(&self, writing: &Writing, device: &str, rows: &[Row]) -> Result<String, ExportError> {
        let mut text = String::new();
        for row in rows {
            let values = values(self.stream, device, row)?;
            if matches!(writing, Writing::Ndjson) {
                text.push_str(&serde_json::to_string(&Line(self.stream, &values))?);
                text.push('\n');
            } else {
                write_csv(&values, &mut text);
            }
        }
        Ok(text)
    }

    /// Gathers a row group and writes it.
    async fn group(
        &mut self,
        mut file: Box<ParquetFile>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Piece, ExportError> {
        let mut ended = false;
        while !file.is_full() && !ended {
            match self.readings().await? {
                None => ended = true,
                Some((_, rows)) if rows.is_empty() => {
                    return Ok((Bytes::new(), Writing::Parquet(file, permit)));
                }
                Some((device, rows)) => file.push(&device, &rows)?,
            }
        }
        let written = tokio::task::spawn_blocking(move || {
            if ended {
                return Ok((file.end()?, Writing::Ended));
            }
            Ok((file.group()?, Writing::Parquet(file, permit)))
        });
        written.await?
    }

    /// The next readings, all of one device; without any after many devices that have none.
    async fn readings(&mut self) -> Result<Option<(String, Vec<Row>)>, ExportError> {
        let read = timeout(WORK_TIMEOUT, self.read()).await;
        read.map_err(|_| ExportError::TooSlow)?
    }

    async fn read(&mut self) -> Result<Option<(String, Vec<Row>)>, ExportError> {
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
            let name = name.clone();
            match rows.last() {
                Some(last) if rows.len() as i64 == READINGS_MAX => {
                    self.sent_up_to = last.try_get(0)?
                }
                _ => {
                    self.devices.pop();
                    self.sent_up_to = self.window.start();
                }
            }
            if !rows.is_empty() {
                return Ok(Some((name, rows)));
            }
        }
        Ok(Some((String::new(), Vec::new())))
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
