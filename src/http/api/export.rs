//! `GET /v1/export/meter` and `/v1/export/vehicle`: the history of a window, for other systems.
//!
//! Devices come in the order of their registration, each one's readings by time, as `store::export` reads them.

mod parquet;

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CONTENT_DISPOSITION, HeaderValue};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::performance::window_of;
use super::reading_view::{ReadingView, Value, fields};
use crate::http::request::call::Call;
use crate::http::request::query;
use crate::http::response::problem::{Kind, Problem};
use crate::http::response::reply;
use crate::http::response::reply::Reply;
use crate::postgres::{ReadError, Reads};
use crate::reading::{Stream, Timestamp};
use crate::store::export::{Export, Piece};
use parquet::ParquetFile;

/// The most Parquet exports at once. Each buffers 16 MB before it writes.
pub(crate) const PARQUET_MAX: usize = 4;
/// How soon to retry if that many are running.
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
            Some(_) => Err(query::bad("format must be csv, ndjson or parquet")),
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

fn write_csv(reading: ReadingView<'_>, out: &mut String) {
    for (n, value) in reading.values().enumerate() {
        if n > 0 {
            out.push(',');
        }
        // Writing to a string cannot fail.
        match value {
            Value::Text(text) => quote(text, out),
            Value::OptionalText(text) => quote(text.unwrap_or_default(), out),
            Value::Number(number) => write!(out, "{number}").unwrap_or_default(),
            Value::Instant(at) => write!(out, "{at}").unwrap_or_default(),
        }
    }
    out.push_str("\r\n");
}

/// Writes a text as a CSV field, quoted if necessary. A text that a spreadsheet would run as a formula begins with an
/// apostrophe.
///
/// Source: RFC 4180; OWASP ASVS 5.0, 1.2.10
fn quote(text: &str, out: &mut String) {
    let apostrophe = if is_formula(text) { "'" } else { "" };
    if text.contains([',', '"']) || text != text.trim() {
        out.push('"');
        out.push_str(apostrophe);
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(apostrophe);
        out.push_str(text);
    }
}

/// Whether a spreadsheet could run a text as a formula. Apostrophes before it do not count, so that a program can undo
/// this: if the text after all apostrophes begins with one of these characters, it removes one apostrophe.
///
/// Ids hold no tabs and other control characters, which would count too. Some spreadsheets read the wide characters of
/// East Asian texts as the narrow ones.
fn is_formula(text: &str) -> bool {
    let rest = text.trim_start_matches('\'');
    rest.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

/// An export that is being sent to a client.
struct Sending {
    reads: Reads,
    export: Export,
}

/// The format of an export, with the data that was not sent yet.
enum Writing {
    CsvHeader,
    Csv,
    Ndjson,
    Parquet(Box<ParquetFile>, OwnedSemaphorePermit),
    Ended,
}

/// Responds with the history of a window.
pub(crate) async fn export(call: Call<'_>, stream: Stream) -> Result<Reply, Problem> {
    let reads = call.reads();
    let window = window_of(&call.query, Timestamp::now())?;
    let format = Format::read(call.query.get("format"))?;
    let writing = match format {
        Format::Csv => Writing::CsvHeader,
        Format::Ndjson => Writing::Ndjson,
        Format::Parquet => {
            let busy = |_| {
                let detail = format!("{PARQUET_MAX} Parquet exports are running; retry later");
                Problem::new(Kind::Overloaded, detail).retry_after(BUSY_RETRY_SECONDS)
            };
            let permit = Arc::clone(&PARQUET).try_acquire_owned().map_err(busy)?;
            let file = ParquetFile::new(stream).map_err(|error| {
                Problem::new(Kind::Internal, format!("cannot begin the file: {error}"))
            })?;
            Writing::Parquet(Box::new(file), permit)
        }
    };
    // If the database is unreachable, respond with 503 instead of a body that breaks off.
    reads.check().await?;
    let sending = Sending {
        reads: reads.clone(),
        export: Export::new(stream, window.start(), window.end()),
    };
    let pieces = stream::try_unfold((sending, writing), |(mut sending, writing)| async move {
        let piece = sending.piece(writing).await;
        if let Err(error) = &piece {
            tracing::warn!(%error, "an export was truncated");
        }
        let piece = piece.map_err(io::Error::other)?;
        Ok::<_, io::Error>(piece.map(|(piece, writing)| (Frame::data(piece), (sending, writing))))
    });
    let mut reply = reply::streamed(StatusCode::OK, format.media_type(), StreamBody::new(pieces));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_DISPOSITION, format.disposition(stream));
    Ok(reply)
}

#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Parquet(#[from] ::parquet::errors::ParquetError),
    #[error("writing the file: {0}")]
    Writer(#[from] tokio::task::JoinError),
}

/// A part of the body, and the state for writing the next one.
type Part = (Bytes, Writing);

impl Sending {
    /// The next part of the body; `None` at the end. A part may be empty, so that hyper notices if the client has
    /// closed its connection.
    async fn piece(&mut self, writing: Writing) -> Result<Option<Part>, ExportError> {
        let part = match writing {
            Writing::CsvHeader => {
                let names: Vec<&str> = fields(self.export.stream())
                    .iter()
                    .map(|field| field.name)
                    .collect();
                let header = names.join(",") + "\r\n";
                (Bytes::from(header), Writing::Csv)
            }
            Writing::Csv | Writing::Ndjson => {
                let Some(piece) = self.readings().await? else {
                    return Ok(None);
                };
                (Bytes::from(text(&writing, &piece)?), writing)
            }
            Writing::Parquet(file, permit) => self.group(file, permit).await?,
            Writing::Ended => return Ok(None),
        };
        Ok(Some(part))
    }

    /// Collects readings for a row group and writes it.
    async fn group(
        &mut self,
        mut file: Box<ParquetFile>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Part, ExportError> {
        let mut ended = false;
        while !file.is_full() && !ended {
            match self.readings().await? {
                None => ended = true,
                Some(piece) if piece.readings.is_empty() => {
                    return Ok((Bytes::new(), Writing::Parquet(file, permit)));
                }
                Some(piece) => file.push(&piece),
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

    /// The next readings, all of one device. Empty if the query only skipped devices without readings.
    async fn readings(&mut self) -> Result<Option<Piece>, ReadError> {
        // A failed query changes nothing that the next one would miss.
        let export = Mutex::new(&mut self.export);
        self.reads
            .ask(async |client| export.lock().await.next(client).await)
            .await
    }
}

fn text(writing: &Writing, piece: &Piece) -> Result<String, ExportError> {
    let mut text = String::new();
    for reading in &piece.readings {
        let view = ReadingView {
            device: &piece.device,
            reading,
        };
        if matches!(writing, Writing::Ndjson) {
            text.push_str(&serde_json::to_string(&view)?);
            text.push('\n');
        } else {
            write_csv(view, &mut text);
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_field_that_needs_quotes_is_quoted() {
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

    #[test]
    fn no_csv_field_is_a_formula_and_each_can_be_read_back() {
        for (text, expected) in [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("＝1", "'＝1"),
            (
                "=HYPERLINK(\"x\",\"y\")",
                "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\"",
            ),
            ("'=1", "''=1"),
            ("'a", "'a"),
            ("a=1", "a=1"),
        ] {
            let mut out = String::new();
            quote(text, &mut out);
            assert_eq!(out, expected);
        }
    }
}
