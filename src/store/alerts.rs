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
    /// Who acknowledged it, and when; `None` means that it is not acknowledged.
    pub acknowledgement: Option<Action>,
    /// The mute in force, of those that cover it the one that ends last; `None` for a closed alert.
    pub mute: Option<Mute>,
}

/// What an operator did: when, with which key, and what they noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// When.
    pub at: Timestamp,
    /// The id of the key; `None` if the gateway required no key.
    pub key: Option<String>,
    /// The name of the key at that time.
    pub name: Option<String>,
    /// The note.
    pub note: Option<String>,
}

/// A mute that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mute {
    /// When it ends.
    pub until: Timestamp,
    /// The name of the kind of alert; `None` means every kind.
    pub kind: Option<String>,
    /// Who muted.
    pub action: Action,
}

/// The sort order, and where the page begins.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Newest first, only those with a number below `before`.
    Newest {
        /// The exclusive upper bound.
        before: i64,
    },
    /// Critical kinds first, each group newest first.
    CriticalFirst {
        /// The last alert before the page: whether its kind is critical, and its number.
        before: (bool, i64),
    },
}

/// Which alerts to list. `None` filters nothing.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    /// The sort order, and where the page begins.
    pub order: Order,
    /// The names of the critical kinds.
    pub critical: &'a [&'a str],
    /// Only critical alerts, or only the others.
    pub is_critical: Option<bool>,
    /// Only alerts of this kind.
    pub kind: Option<&'a str>,
    /// Only open alerts, or only closed ones.
    pub open: Option<bool>,
    /// Only alerts of this device.
    pub device: Option<(Stream, ExternalId<'a>)>,
    /// Only alerts of devices whose ids begin with this.
    pub prefix: Option<ExternalId<'a>>,
    /// Only acknowledged alerts, or only the others.
    pub acknowledged: Option<bool>,
    /// Only muted alerts, or only the others.
    pub muted: Option<bool>,
    /// The time now, which decides whether a mute is in force.
    pub now: Timestamp,
    /// The most alerts to return.
    pub limit: usize,
}

impl Filter<'_> {
    /// The first page of all alerts, the newest first.
    pub const fn all(now: Timestamp, limit: usize) -> Self {
        Filter {
            order: Order::Newest { before: i64::MAX },
            critical: &[],
            is_critical: None,
            kind: None,
            open: None,
            device: None,
            prefix: None,
            acknowledged: None,
            muted: None,
            now,
            limit,
        }
    }
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
    let prefix = filter.prefix.map(ExternalId::as_str);
    let (sql, (is_critical, before)) = match filter.order {
        Order::Newest { before } => (sql!("alerts"), (true, before)),
        Order::CriticalFirst { before } => (sql!("alerts_by_severity"), before),
    };
    let wanted: [&(dyn ToSql + Sync); 13] = [
        &before,
        &filter.kind,
        &filter.open,
        &limit,
        &stream,
        &device,
        &prefix,
        &filter.critical,
        &filter.is_critical,
        &filter.acknowledged,
        &filter.muted,
        &filter.now,
        &is_critical,
    ];
    let statement = client.prepare_cached(sql).await?;
    // Only the order by severity uses the last one.
    let wanted = &wanted[..statement.params().len().min(wanted.len())];
    let rows = client.query(&statement, wanted).await?;
    let items: Result<Vec<_>, Error> = rows.iter().map(StoredAlert::decode).collect();
    Ok(Page::of(items?, filter.limit))
}

/// Finds alerts by their numbers. Numbers without an alert are skipped.
///
/// Order:  the oldest first
///
/// # Errors
/// [`ReadError`]
pub async fn by_ids(
    client: &Client,
    ids: &[i64],
    now: Timestamp,
) -> Result<Vec<StoredAlert>, ReadError> {
    let statement = client.prepare_cached(sql!("alerts_by_id")).await?;
    let rows = client.query(&statement, &[&ids, &now]).await?;
    let found: Result<Vec<_>, Error> = rows.iter().map(StoredAlert::decode).collect();
    Ok(found?)
}

impl Action {
    /// Decodes the time, the key, its name and the note, from this column on. `None` if there is no time.
    fn decode(row: &Row, at: usize) -> Result<Option<Self>, Error> {
        let Some(time) = row.try_get(at)? else {
            return Ok(None);
        };
        Ok(Some(Action {
            at: time,
            key: row.try_get(at + 1)?,
            name: row.try_get(at + 2)?,
            note: row.try_get(at + 3)?,
        }))
    }
}

impl Mute {
    /// Decodes its end, who muted, and the kind, from this column on. `None` if there is no mute.
    pub(super) fn decode(row: &Row, at: usize) -> Result<Option<Self>, Error> {
        let Some(action) = Action::decode(row, at + 1)? else {
            return Ok(None);
        };
        Ok(Some(Mute {
            until: row.try_get(at)?,
            kind: row.try_get(at + 5)?,
            action,
        }))
    }
}

impl StoredAlert {
    /// Decodes a row.
    fn decode(row: &Row) -> Result<Self, Error> {
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
            acknowledgement: Action::decode(row, 10)?,
            mute: Mute::decode(row, 14)?,
        })
    }
}
