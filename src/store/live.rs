//! The newest reading of each device.

use deadpool_postgres::Client;
use tokio_postgres::{Error, Row};

use super::reading::StoredReading;
use super::{Page, limit_of};
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Stream, Timestamp};

/// A device's newest reading.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveStatus {
    /// The device.
    pub device: String,
    /// When the gateway received the reading.
    pub received_at: Timestamp,
    /// The reading.
    pub reading: StoredReading,
}

impl LiveStatus {
    /// Decodes a row: the device, when it was received, and the reading's columns.
    pub(super) fn decode(stream: Stream, row: &Row) -> Result<Self, Error> {
        Ok(LiveStatus {
            device: row.try_get(0)?,
            received_at: row.try_get(1)?,
            reading: StoredReading::decode(stream, row, 2)?,
        })
    }
}

/// Finds one device's status; `None` for an unknown device.
pub async fn find(
    client: &Client,
    stream: Stream,
    device: ExternalId<'_>,
) -> Result<Option<LiveStatus>, ReadError> {
    let sql = match stream {
        Stream::Meter => sql!("live_meter"),
        Stream::Vehicle => sql!("live_vehicle"),
    };
    let statement = client.prepare_cached(sql).await?;
    let row = client.query_opt(&statement, &[&device.as_str()]).await?;
    Ok(row
        .map(|row| LiveStatus::decode(stream, &row))
        .transpose()?)
}

/// Lists the devices after an id; an empty `after` begins with the first.
///
/// Order:  by the bytes of their ids
pub async fn list(
    client: &Client,
    stream: Stream,
    after: &str,
    limit: usize,
) -> Result<Page<LiveStatus>, ReadError> {
    let sql = match stream {
        Stream::Meter => sql!("live_meters"),
        Stream::Vehicle => sql!("live_vehicles"),
    };
    let statement = client.prepare_cached(sql).await?;
    let rows = client
        .query(&statement, &[&after, &limit_of(limit)])
        .await?;
    let items: Result<Vec<_>, Error> = rows
        .iter()
        .map(|row| LiveStatus::decode(stream, row))
        .collect();
    Ok(Page::of(items?, limit))
}
