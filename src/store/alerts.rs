//! Alerts, a page at a time.

use deadpool_postgres::Client;
use tokio_postgres::types::ToSql;
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

/// The order of the alerts, and after which one the page begins.
#[derive(Debug, Clone, Copy)]
pub enum Order<'a> {
    /// The newest first: those with a lower number than this.
    Newest {
        /// The number.
        before: i64,
    },
    /// Some kinds first, and the newest first among those.
    KindsFirst {
        /// The kinds that come first.
        kinds: &'a [&'a str],
        /// The alert before the page: whether its kind is one of them, and its number.
        before: (bool, i64),
    },
}

/// Which alerts to list.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    /// Which come first, and where the page begins.
    pub order: Order<'a>,
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
/// Order:  that of the filter
///
/// # Errors
/// [`ReadError`]
pub async fn list(client: &Client, filter: Filter<'_>) -> Result<Page<StoredAlert>, ReadError> {
    let (stream, device) = filter
        .device
        .map(|(stream, id)| (stream.name(), id.as_str()))
        .unzip();
    let limit = limit_of(filter.limit);
    let rows = match filter.order {
        Order::Newest { before } => {
            let statement = client.prepare_cached(sql!("alerts")).await?;
            let wanted: [&(dyn ToSql + Sync); 6] = [
                &before,
                &filter.kind,
                &filter.open,
                &limit,
                &stream,
                &device,
            ];
            client.query(&statement, &wanted).await?
        }
        Order::KindsFirst { kinds, before } => {
            let statement = client.prepare_cached(sql!("alerts_by_severity")).await?;
            let wanted: [&(dyn ToSql + Sync); 8] = [
                &before.1,
                &filter.kind,
                &filter.open,
                &limit,
                &stream,
                &device,
                &kinds,
                &before.0,
            ];
            client.query(&statement, &wanted).await?
        }
    };
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
