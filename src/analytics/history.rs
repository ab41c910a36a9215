//! Readings from history, with their neighbours however far away.
//!
//! Every statement has constant bounds of time, a few partitions wide, so that PostgreSQL plans and locks only
//! those. A neighbour is searched nearby first, and then a few partitions at a time.

use std::sync::Arc;

use deadpool_postgres::{Client, Transaction};
use tokio::sync::OnceCell;
use tokio_postgres::{Error, IsolationLevel, Row};

use super::AskError;
use super::budget::Lease;
use super::hour_rows::{HourRow, Hours};
use crate::energy::attribution::{MeterKey, NamedPlace, SessionKey, VehicleReading};
use crate::energy::device::EnergyReading;
use crate::energy::exact::temperature_sum;
use crate::energy::window::DAY_MICROS;
use crate::postgres::partitions;
use crate::postgres::partitions::{Partitions, Range};
use crate::reading::{Energy, EnergyKind, PerStream, Stream, Timestamp};

/// How far from a window the search for a neighbour begins. Nearly every device has a reading within this time.
pub(super) const NEARBY_MICROS: i64 = 3 * DAY_MICROS;

/// How many partitions one statement may search.
const PARTITIONS_PER_STATEMENT: usize = 8;

/// The side of an edge on which a neighbour is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// A reading of either stream, as decoded from its row.
pub(super) trait FromHistory: Copy + Send {
    const STREAM: Stream;
    /// Reads readings of many devices. Each is followed by the index of its span.
    const IN_INTERVALS: &'static str;
    const BEFORE_MANY: &'static str;
    const AFTER_MANY: &'static str;
    /// Reads rolled-up hours.
    const HOURS: &'static str;
    /// The number of columns of a reading.
    const COLUMNS: usize;

    fn read(row: &Row) -> Result<Self, Error>;
    fn read_hour(row: &Row) -> Result<Option<HourRow<Self>>, Error>;
    fn energy(&self) -> EnergyReading;
}

fn energy_reading(row: &Row) -> Result<EnergyReading, Error> {
    let (interval, register): (Option<f64>, Option<f64>) = (row.try_get(1)?, row.try_get(2)?);
    let kind = match register {
        Some(_) => EnergyKind::Register,
        None => EnergyKind::Interval,
    };
    let kwh = register.or(interval).unwrap_or_default();
    Ok(EnergyReading {
        at: row.try_get(0)?,
        energy: Energy { kwh, kind },
    })
}

impl FromHistory for EnergyReading {
    const STREAM: Stream = Stream::Meter;
    const IN_INTERVALS: &'static str = sql!("readings_meters");
    const BEFORE_MANY: &'static str = sql!("neighbours_before_meters");
    const AFTER_MANY: &'static str = sql!("neighbours_after_meters");
    const HOURS: &'static str = sql!("hours_meters");
    const COLUMNS: usize = 3;

    fn read(row: &Row) -> Result<Self, Error> {
        energy_reading(row)
    }

    fn read_hour(row: &Row) -> Result<Option<HourRow<Self>>, Error> {
        HourRow::read(row, 0, |reading, _| Ok(reading))
    }

    fn energy(&self) -> EnergyReading {
        *self
    }
}

/// A vehicle's reading whose named session has not been looked up yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawVehicleReading {
    pub(super) reading: VehicleReading,
    pub(super) named_session: Option<SessionKey>,
}

impl FromHistory for RawVehicleReading {
    const STREAM: Stream = Stream::Vehicle;
    const IN_INTERVALS: &'static str = sql!("readings_vehicles");
    const BEFORE_MANY: &'static str = sql!("neighbours_before_vehicles");
    const AFTER_MANY: &'static str = sql!("neighbours_after_vehicles");
    const HOURS: &'static str = sql!("hours_vehicles");
    const COLUMNS: usize = 6;

    fn read(row: &Row) -> Result<Self, Error> {
        let EnergyReading { at, energy } = energy_reading(row)?;
        let meter: Option<i32> = row.try_get(4)?;
        let session: Option<i32> = row.try_get(5)?;
        let place = match (meter, session) {
            (Some(meter), _) => Some(NamedPlace::Meter(MeterKey(meter))),
            (None, Some(_)) => Some(NamedPlace::Unknown),
            (None, None) => None,
        };
        Ok(RawVehicleReading {
            reading: VehicleReading {
                at,
                energy,
                battery_temp: row.try_get(3)?,
                place,
            },
            named_session: session.map(SessionKey),
        })
    }

    fn read_hour(row: &Row) -> Result<Option<HourRow<Self>>, Error> {
        let (micro, rest): (i64, i64) = (row.try_get(14)?, row.try_get(15)?);
        let temperature_sum = temperature_sum(micro, rest);
        HourRow::read(row, temperature_sum, |EnergyReading { at, energy }, end| {
            Ok(RawVehicleReading {
                reading: VehicleReading {
                    at,
                    energy,
                    battery_temp: row.try_get(12 + end)?,
                    place: None,
                },
                named_session: None,
            })
        })
    }

    fn energy(&self) -> EnergyReading {
        EnergyReading::from(&self.reading)
    }
}

/// Begins a read-only transaction with one snapshot for all statements.
pub(super) async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, Error> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
}

/// One query's view of history: a snapshot, and the budget for what it may read.
pub(super) struct History<'a> {
    pub(super) work: &'a Transaction<'a>,
    pub(super) lease: Lease,
    /// The rolled-up hours that may be used; `None` if none may be.
    pub(super) hours: Option<Arc<Hours>>,
    /// The partitions of each stream, once loaded.
    partitions: OnceCell<PerStream<Vec<Range>>>,
}

impl<'a> History<'a> {
    pub(super) fn new(work: &'a Transaction<'a>, lease: Lease) -> Self {
        History {
            work,
            lease,
            hours: None,
            partitions: OnceCell::new(),
        }
    }

    /// Allows rolled-up hours.
    pub(super) fn with_hours(mut self, hours: Hours) -> Self {
        self.hours = Some(Arc::new(hours));
        self
    }

    /// Counts readings in another lease from here on. Returns the previous one, which must be kept as long as the
    /// readings that it counts.
    pub(super) fn renew(&mut self, lease: Lease) -> Lease {
        std::mem::replace(&mut self.lease, lease)
    }

    /// The partitions of a stream. The first call loads both streams' in one round trip.
    pub(super) async fn ranges(&self, stream: Stream) -> Result<&[Range], AskError> {
        let loading = || async move {
            let statement = self.work.prepare_cached(partitions::BOTH).await?;
            let rows = self.work.query(&statement, &[]).await?;
            Ok::<_, AskError>(Partitions::of_both(&rows)?.map(Partitions::into_ranges))
        };
        let both = self.partitions.get_or_try_init(loading).await?;
        Ok(&both[stream])
    }
}

/// Spans (from, to] of a few partitions each, nearest first. Together they cover every partition on one side of an
/// edge; the edge itself is `Before`.
pub(super) fn spans_beyond(
    ranges: &[Range],
    edge: Timestamp,
    side: Side,
) -> Vec<(Timestamp, Timestamp)> {
    let mut beyond: Vec<Range> = ranges
        .iter()
        .filter(|range| match side {
            Side::Before => range.from <= edge,
            Side::After => edge < range.to,
        })
        .copied()
        .collect();
    beyond.sort_unstable();
    if side == Side::Before {
        beyond.reverse();
    }
    let span = |chunk: &[Range]| {
        let from = chunk.iter().map(|range| range.from.plus_micros(-1)).min()?;
        let to = chunk.iter().map(|range| range.to.plus_micros(-1)).max()?;
        Some(match side {
            Side::Before => (from, to.min(edge)),
            Side::After => (from.max(edge), to),
        })
    };
    beyond
        .chunks(PARTITIONS_PER_STATEMENT)
        .filter_map(span)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: i64) -> Timestamp {
        Timestamp::from_micros(n)
    }

    #[test]
    fn neighbours_are_searched_a_few_partitions_at_a_time() {
        let range = |n: i64| Range {
            from: at(n * 100),
            to: at(n * 100 + 100),
        };
        let ranges: Vec<Range> = (0..20).map(range).collect();
        let before = spans_beyond(&ranges, at(1050), Side::Before);
        assert_eq!(before, [(at(299), at(1050)), (at(-1), at(299))]);
        let after = spans_beyond(&ranges, at(1050), Side::After);
        assert_eq!(after, [(at(1050), at(1799)), (at(1799), at(1999))]);
        assert_eq!(spans_beyond(&ranges, at(-1), Side::Before), []);
        assert_eq!(
            spans_beyond(&ranges, at(1999), Side::After),
            [(at(1999), at(1999))]
        );
    }
}
