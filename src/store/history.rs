//! The readings of one device, in pages.

use deadpool_postgres::Client;
use tokio_postgres::Error;

use super::ids::known;
use super::reading::StoredReading;
use super::{Page, limit_of};
use crate::postgres::ReadError;
use crate::postgres::registry::Registry;
use crate::reading::{ExternalId, Stream, Timestamp};

/// Which readings to return.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whether the device is a meter or a vehicle.
    pub stream: Stream,
    /// The device.
    pub device: ExternalId<'a>,
    /// The exclusive start.
    pub after: Timestamp,
    /// The inclusive end.
    pub to: Timestamp,
    /// The most readings to return.
    pub limit: usize,
}

/// Reads a page; `None` for an unknown device.
///
/// Order:  oldest first
pub async fn page(
    client: &Client,
    wanted: Wanted<'_>,
) -> Result<Option<Page<StoredReading>>, ReadError> {
    let (registry, sql) = match wanted.stream {
        Stream::Meter => (Registry::Meters, sql!("history_meter")),
        Stream::Vehicle => (Registry::Vehicles, sql!("history_vehicle")),
    };
    let Some(device) = known(client, registry, wanted.device.as_str()).await? else {
        return Ok(None);
    };
    let statement = client.prepare_cached(sql).await?;
    let limit = limit_of(wanted.limit);
    let rows = client
        .query(&statement, &[&device, &wanted.after, &wanted.to, &limit])
        .await?;
    let items: Result<Vec<_>, Error> = rows
        .iter()
        .map(|row| StoredReading::decode_history(wanted.stream, row))
        .collect();
    Ok(Some(Page::of(items?, wanted.limit)))
}
