//! Alerts, in pages.

use deadpool_postgres::Client;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::{Page, limit_of};
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Stream, Timestamp};

/// An alert as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredAlert {
    /// Its number. Later alerts have higher numbers.
    pub id: i64,
    /// The name of its alert kind.
    pub kind: String,
    /// Whether it concerns a meter or a vehicle.
    pub stream: Stream,
    /// Its device; `None` for an alert that concerns the whole fleet.
    pub device: Option<String>,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was last updated.
    pub updated_at: Timestamp,
    /// When it was closed; `None` while it is open.
    pub closed_at: Option<Timestamp>,
    /// The value that was found.
    pub value: f64,
    /// The limit that the value passed.
    pub limit: f64,
    /// Further values, as a JSON object that depends on the kind.
    pub details: String,
}

/// The sort order, and where the page begins.
#[derive(Debug, Clone, Copy)]
pub enum Order<'a> {
    /// Newest first, only those with a number below `before`.
    Newest {
        /// The exclusive upper bound.
        before: i64,
    },
    /// Certain kinds first, each group newest first.
    KindsFirst {
        /// The kinds to list first.
        kinds: &'a [&'a str],
        /// The last alert before the page: whether it is of one of these kinds, and its number.
        before: (bool, i64),
    },
}

/// Which alerts to list.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    /// The sort order, and where the page begins.
    pub order: Order<'a>,
    /// Only alerts of this kind.
    pub kind: Option<&'a str>,
    /// Only open alerts, or only closed ones.
    pub open: Option<bool>,
    /// Only alerts of this device.
    pub device: Option<(Stream, ExternalId<'a>)>,
    /// The most alerts to return.
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
