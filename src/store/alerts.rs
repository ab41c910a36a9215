//! Alerts, a page at a time.

use deadpool_postgres::Client;
use tokio_postgres::{Error, Row};

use super::{Page, limit_of};
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Stream, Timestamp};

/// An alert as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredAlert {
    /// Its number; later alerts have higher ones.
    pub id: i64,
    /// The name of its kind.
    pub kind: String,
    /// The kind of its device.
    pub stream: Stream,
    /// Its device; `None` for an alert of the whole fleet.
    pub device: Option<String>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was updated last.
    pub updated_at: Timestamp,
    /// When it was closed; `None` while it is open.
    pub closed_at: Option<Timestamp>,
    /// What was found.
    pub value: f64,
    /// The limit that it passed.
    pub limit: f64,
    /// Further values of its kind, as a JSON object.
    pub details: String,
}

/// Which alerts to list.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    /// Alerts with a lower number.
    pub before: i64,
    /// Only this kind.
    pub kind: Option<&'a str>,
    /// Only open ones, or only closed ones.
    pub open: Option<bool>,
    /// Only this device's.
    pub device: Option<(Stream, ExternalId<'a>)>,
    /// How many at most.
    pub limit: usize,
}

/// Lists alerts.
///
/// Order:  newest first
///
/// # Errors
/// [`ReadError`]
pub async fn list(client: &Client, filter: Filter<'_>) -> Result<Page<StoredAlert>, ReadError> {
    let statement = client.prepare_cached(sql!("alerts")).await?;
    let (stream, device) = filter
        .device
        .map(|(stream, id)| (stream.name(), id.as_str()))
        .unzip();
    let rows = client
        .query(
            &statement,
            &[
                &filter.before,
                &filter.kind,
                &filter.open,
                &limit_of(filter.limit),
                &stream,
                &device,
            ],
        )
        .await?;
    let items: Result<Vec<_>, Error> = rows.iter().map(StoredAlert::decode).collect();
    Ok(Page::of(items?, filter.limit))
}

impl StoredAlert {
    /// Decodes a row.
    pub(super) fn decode(row: &Row) -> Result<Self, Error> {
        Ok(StoredAlert {
            id: row.try_get(0)?,
            kind: row.try_get(1)?,
            stream: match row.try_get(2)? {
                "vehicle" => Stream::Vehicle,
                _ => Stream::Meter,
            },
            device: row.try_get(3)?,
            opened_at: row.try_get(4)?,
            updated_at: row.try_get(5)?,
            closed_at: row.try_get(6)?,
            value: row.try_get(7)?,
            limit: row.try_get(8)?,
            details: row.try_get(9)?,
        })
    }
}
