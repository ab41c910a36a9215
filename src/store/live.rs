//! The newest reading of each device.

use deadpool_postgres::Client;
use tokio_postgres::{Error, Row};

use super::reading::StoredReading;
use super::{Page, limit_of};
use crate::postgres::ReadError;
use crate::reading::{EnergyKind, ExternalId, Stream, Timestamp};

/// A device's newest reading.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveStatus {
    /// The device.
    pub device: String,
    /// When the gateway received the reading.
    pub received_at: Timestamp,
    /// The reading.
    pub reading: StoredReading,
    /// The usual time between the device's readings; `None` until it has sent two.
    ///
    /// Units:  seconds
    pub interval_seconds: Option<f64>,
    /// The power between the last two readings of a register.
    ///
    /// Units:  kW
    pub register_kw: Option<f64>,
    /// The last reading with a power above 0.5 kW.
    pub active_at: Option<Timestamp>,
}

/// A device's reading is stale after this many of its intervals: two reports may be lost.
const STALE_INTERVALS: f64 = 3.0;
/// No reading is stale before, in seconds: three reports of a device that reports once a minute, and of any that
/// reports more often.
const STALE_SECONDS_MIN: f64 = 180.0;

impl LiveStatus {
    /// Decodes a row: the device, when it was received, the reading's columns, and what was learned.
    pub(super) fn decode(stream: Stream, row: &Row) -> Result<Self, Error> {
        let learned = match stream {
            Stream::Meter => 6,
            Stream::Vehicle => 7,
        };
        Ok(LiveStatus {
            device: row.try_get(0)?,
            received_at: row.try_get(1)?,
            reading: StoredReading::decode(stream, row, 2)?,
            interval_seconds: row.try_get(learned)?,
            register_kw: row.try_get(learned + 1)?,
            active_at: row.try_get(learned + 2)?,
        })
    }

    /// Whether the device has missed reports: its reading is older than three of its own intervals, and than
    /// three minutes. The alert of a silent device uses the same interval.
    pub fn is_stale(&self, now: Timestamp) -> bool {
        let intervals = self.interval_seconds.unwrap_or_default() * STALE_INTERVALS;
        let micros = (intervals.max(STALE_SECONDS_MIN) * 1e6) as i64;
        now.as_micros().saturating_sub(self.reading.at.as_micros()) > micros
    }

    /// The power that the last reading reports, in kW: an amount is of one usual interval. `None` until it is
    /// known.
    pub fn power_kw(&self) -> Option<f64> {
        let energy = self.reading.energy;
        match energy.kind {
            EnergyKind::Register => self.register_kw,
            EnergyKind::Interval => self
                .interval_seconds
                .filter(|seconds| *seconds > 0.0)
                .map(|seconds| energy.kwh * 3_600.0 / seconds),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Energy;
    use crate::store::reading::StoredDetails;

    fn status(kind: EnergyKind, interval_seconds: Option<f64>) -> LiveStatus {
        LiveStatus {
            device: "M".to_owned(),
            received_at: Timestamp::Y2000,
            reading: StoredReading {
                at: Timestamp::Y2000,
                energy: Energy { kwh: 1.5, kind },
                details: StoredDetails::Meter { voltage: 230.0 },
            },
            interval_seconds,
            register_kw: Some(7.2),
            active_at: None,
        }
    }

    #[test]
    fn a_reading_is_stale_after_three_intervals_of_its_device() {
        let is_stale = |interval, seconds: i64, micros| {
            let now = Timestamp::Y2000.plus_micros(seconds * 1_000_000 + micros);
            status(EnergyKind::Interval, interval).is_stale(now)
        };
        for often in [None, Some(1.0), Some(60.0)] {
            assert!(!is_stale(often, -60, 0) && !is_stale(often, 180, 0));
            assert!(is_stale(often, 180, 1));
        }
        assert!(!is_stale(Some(900.0), 2_700, 0));
        assert!(is_stale(Some(900.0), 2_700, 1));
    }

    #[test]
    fn the_power_is_of_the_interval_or_of_the_register() {
        let power = |kind, interval| status(kind, interval).power_kw();
        assert_eq!(power(EnergyKind::Interval, Some(900.0)), Some(6.0));
        assert_eq!(power(EnergyKind::Interval, None), None);
        assert_eq!(power(EnergyKind::Interval, Some(0.0)), None);
        assert_eq!(power(EnergyKind::Register, Some(900.0)), Some(7.2));
    }
}
