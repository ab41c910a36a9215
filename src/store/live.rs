//! The newest reading of each device, with some earlier ones.
//!
//! The earlier ones are read from history, which costs some 8 µs per device. They are exact whatever order
//! readings arrived in and whichever gateway stored them, and the writers need not maintain them.

use std::cmp::Reverse;

use deadpool_postgres::Client;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use super::reading::StoredReading;
use super::{Page, limit_of};
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Stream, Timestamp};

/// How many earlier readings are read: enough to derive the usual interval between them.
const EARLIER_MAX: i64 = 6;
/// Up to how many changed devices at once the live stream includes earlier readings. For this many, reading them
/// takes the server some 50 ms. For more, every event would be delayed.
const STREAM_MAX: usize = 5_000;
/// Earlier readings are searched only in the last days, so that few partitions are read.
const EARLIER_MICROS: i64 = 3 * 86_400_000_000;
/// How far clocks may be ahead.
const AHEAD_MICROS: i64 = 86_400_000_000;

/// The parameters that bound the search for earlier readings.
struct Bounds {
    from: Timestamp,
    to: Timestamp,
    most: i64,
}

impl Bounds {
    fn at(now: Timestamp) -> Self {
        Bounds {
            from: now.plus_micros(-EARLIER_MICROS),
            to: now.plus_micros(AHEAD_MICROS),
            most: EARLIER_MAX,
        }
    }

    fn params(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.from, &self.to, &self.most]
    }
}

/// A reading before a device's newest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EarlierReading {
    /// Its time.
    pub at: Timestamp,
    /// The register's value in kWh; `None` if the reading is the energy of an interval.
    pub register: Option<f64>,
}

/// A device's newest reading.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveStatus {
    /// The device.
    pub device: String,
    /// When the gateway received it.
    pub received_at: Timestamp,
    /// The reading.
    pub reading: StoredReading,
    /// Readings of the last days before it, at most as many as it takes to derive the usual interval.
    ///
    /// Order:  newest first
    pub earlier: Vec<EarlierReading>,
}

impl LiveStatus {
    /// Decodes a row: the device, when it was received, the times and registers of earlier readings, and the
    /// reading's columns.
    fn decode(stream: Stream, row: &Row) -> Result<Self, Error> {
        let times: Option<Vec<Timestamp>> = row.try_get(2)?;
        let registers: Option<Vec<Option<f64>>> = row.try_get(3)?;
        let (times, registers) = (times.unwrap_or_default(), registers.unwrap_or_default());
        let earlier = times.into_iter().zip(registers);
        let mut earlier: Vec<EarlierReading> = earlier
            .map(|(at, register)| EarlierReading { at, register })
            .collect();
        earlier.sort_unstable_by_key(|reading| Reverse(reading.at));
        Ok(LiveStatus {
            device: row.try_get(0)?,
            received_at: row.try_get(1)?,
            reading: StoredReading::decode(stream, row, 4)?,
            earlier,
        })
    }
}

/// Finds the status of one device; `None` if it is unknown.
pub async fn find(
    client: &Client,
    stream: Stream,
    device: ExternalId<'_>,
    now: Timestamp,
) -> Result<Option<LiveStatus>, ReadError> {
    let sql = match stream {
        Stream::Meter => sql!("live_meter"),
        Stream::Vehicle => sql!("live_vehicle"),
    };
    let statement = client.prepare_cached(sql).await?;
    let bounds = Bounds::at(now);
    let [from, to, most] = bounds.params();
    let row = client
        .query_opt(&statement, &[&device.as_str(), from, to, most])
        .await?;
    Ok(row
        .map(|row| LiveStatus::decode(stream, &row))
        .transpose()?)
}

/// Lists the devices after an id. An empty `after` starts with the first.
///
/// Order:  by the bytes of the ids
pub async fn list(
    client: &Client,
    stream: Stream,
    after: &str,
    limit: usize,
    now: Timestamp,
) -> Result<Page<LiveStatus>, ReadError> {
    let sql = match stream {
        Stream::Meter => sql!("live_meters"),
        Stream::Vehicle => sql!("live_vehicles"),
    };
    let statement = client.prepare_cached(sql).await?;
    let bounds = Bounds::at(now);
    let [from, to, most] = bounds.params();
    let rows = client
        .query(&statement, &[&after, &limit_of(limit), from, to, most])
        .await?;
    let items: Result<Vec<_>, Error> = rows
        .iter()
        .map(|row| LiveStatus::decode(stream, row))
        .collect();
    Ok(Page::of(items?, limit))
}

/// Reads the status of the devices with these integer ids, each with its id. For more than [`STREAM_MAX`] devices,
/// earlier readings are left out.
///
/// Order:  none
///
/// # Errors
/// The driver's errors.
pub(super) async fn of_ids(
    client: &Client,
    stream: Stream,
    ids: &[i32],
    now: Timestamp,
) -> Result<Vec<(i32, LiveStatus)>, Error> {
    let sql = match stream {
        Stream::Meter => sql!("stream_meters"),
        Stream::Vehicle => sql!("stream_vehicles"),
    };
    let statement = client.prepare_cached(sql).await?;
    let mut bounds = Bounds::at(now);
    if ids.len() > STREAM_MAX {
        bounds.most = 0;
    }
    let [from, to, most] = bounds.params();
    let rows = client.query(&statement, &[&ids, from, to, most]).await?;
    let status = |row: &Row| {
        let id = row.try_get(row.len() - 1)?;
        Ok((id, LiveStatus::decode(stream, row)?))
    };
    rows.iter().map(status).collect()
}
