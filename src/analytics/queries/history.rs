//! Readings out of history, with their neighbours wherever they lie.
//!
//! Every statement has constant bounds of time, a few partitions wide: PostgreSQL plans and locks
//! only those. A neighbour is looked for nearby first, and then a few partitions at a time.

use deadpool_postgres::Transaction;
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::AskError;
use super::budget::Lease;
use crate::analytics::attribution::{MeterKey, NamedPlace, SessionKey, VehicleReading};
use crate::analytics::device::EnergyReading;
use crate::analytics::runs::Run;
use crate::analytics::window::DAY_MICROS;
use crate::postgres::partitions::{self, Range};
use crate::reading::{Energy, EnergyKind, Stream, Timestamp};

/// How far around a window a neighbour is looked for first: nearly every device has one there.
pub(super) const NEARBY_MICROS: i64 = 3 * DAY_MICROS;

/// How many partitions one statement may search.
const PARTITIONS_PER_STATEMENT: usize = 8;

macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("../../../sql/queries/", $name, ".sql"))
    };
}

/// A reading of either stream, as its row gives it.
pub(super) trait FromHistory: Copy + Send {
    const STREAM: Stream;
    const IN_RUN: &'static str;
    const BEFORE: &'static str;
    const AFTER: &'static str;
    /// The same for many devices, each row with the place of its wish behind the reading.
    const IN_RUNS: &'static str;
    const BEFORE_MANY: &'static str;
    const AFTER_MANY: &'static str;
    /// How many columns a reading has.
    const COLUMNS: usize;

    fn read(row: &Row) -> Result<Self, tokio_postgres::Error>;
    fn energy(&self) -> EnergyReading;
}

fn energy_reading(row: &Row) -> Result<EnergyReading, tokio_postgres::Error> {
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
    const IN_RUN: &'static str = sql!("readings_meter");
    const BEFORE: &'static str = sql!("neighbour_before_meter");
    const AFTER: &'static str = sql!("neighbour_after_meter");
    const IN_RUNS: &'static str = sql!("readings_meters");
    const BEFORE_MANY: &'static str = sql!("neighbours_before_meters");
    const AFTER_MANY: &'static str = sql!("neighbours_after_meters");
    const COLUMNS: usize = 3;

    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        energy_reading(row)
    }

    fn energy(&self) -> EnergyReading {
        *self
    }
}

/// A vehicle's reading whose named session is not looked up yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawVehicleReading {
    pub(super) reading: VehicleReading,
    pub(super) named_session: Option<SessionKey>,
}

impl FromHistory for RawVehicleReading {
    const STREAM: Stream = Stream::Vehicle;
    const IN_RUN: &'static str = sql!("readings_vehicle");
    const BEFORE: &'static str = sql!("neighbour_before_vehicle");
    const AFTER: &'static str = sql!("neighbour_after_vehicle");
    const IN_RUNS: &'static str = sql!("readings_vehicles");
    const BEFORE_MANY: &'static str = sql!("neighbours_before_vehicles");
    const AFTER_MANY: &'static str = sql!("neighbours_after_vehicles");
    const COLUMNS: usize = 6;

    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
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

    fn energy(&self) -> EnergyReading {
        EnergyReading::from(&self.reading)
    }
}

/// One question's view of history: a snapshot, and what it may hold of it.
pub(super) struct History<'a> {
    pub(super) work: &'a Transaction<'a>,
    pub(super) lease: Lease,
    /// The partitions of each stream, once they were asked for.
    partitions: [Option<Vec<Range>>; 2],
}

impl<'a> History<'a> {
    pub(super) fn new(work: &'a Transaction<'a>, lease: Lease) -> Self {
        History {
            work,
            lease,
            partitions: [None, None],
        }
    }

    /// Counts from here on in another lease, and gives the one so far to whoever holds what was
    /// read under it.
    pub(super) fn renew(&mut self, lease: Lease) -> Lease {
        std::mem::replace(&mut self.lease, lease)
    }

    /// The readings of a device in each of some runs, with the neighbours on both sides of each
    /// that [`DeviceEnergy::new`](crate::analytics::device::DeviceEnergy::new) asks for: of
    /// registers of 0, which may go on for long, the one at the run and none of the rest.
    ///
    /// Order:  runs ascending, apart; the answer ascending by time
    pub(super) async fn around<T: FromHistory>(
        &mut self,
        device: i32,
        runs: &[Run],
    ) -> Result<Vec<T>, AskError> {
        let mut readings: Vec<T> = Vec::new();
        for run in runs {
            for neighbour in self.neighbours::<T>(device, run.start(), false).await? {
                self.keep(&mut readings, neighbour)?;
            }
            self.in_run(device, *run, &mut readings).await?;
            for neighbour in self.neighbours::<T>(device, run.end(), true).await? {
                self.keep(&mut readings, neighbour)?;
            }
        }
        // The neighbours of two runs may be the same, or lie in the other run.
        if runs.len() > 1 {
            readings.sort_unstable_by_key(|r| r.energy().at);
            readings.dedup_by_key(|r| r.energy().at);
        }
        Ok(readings)
    }

    fn keep<T>(&mut self, readings: &mut Vec<T>, one: T) -> Result<(), AskError> {
        self.lease.one_more()?;
        readings.push(one);
        Ok(())
    }

    async fn in_run<T: FromHistory>(
        &mut self,
        device: i32,
        run: Run,
        readings: &mut Vec<T>,
    ) -> Result<(), AskError> {
        let statement = self.work.prepare_cached(T::IN_RUN).await?;
        let (from, to) = (run.start(), run.end());
        let parameters: [&(dyn ToSql + Sync); 3] = [&device, &from, &to];
        let rows = self.work.query_raw(&statement, parameters).await?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await? {
            let one = T::read(&row)?;
            self.keep(readings, one)?;
        }
        Ok(())
    }

    /// The nearest reading before (not after) or after a moment and, where that is a register of
    /// 0, the nearest that is not; ascending.
    async fn neighbours<T: FromHistory>(
        &mut self,
        device: i32,
        at: Timestamp,
        after: bool,
    ) -> Result<Vec<T>, AskError> {
        let Some(nearest) = self.neighbour::<T>(device, at, after, false).await? else {
            return Ok(Vec::new());
        };
        let energy = nearest.energy();
        let is_zero = is_zero_register(&energy);
        let from = match after {
            true => energy.at,
            false => energy.at.plus_micros(-1),
        };
        let firm = match is_zero {
            true => self.neighbour::<T>(device, from, after, true).await?,
            false => None,
        };
        let mut both: Vec<T> = firm.into_iter().chain([nearest]).collect();
        both.sort_unstable_by_key(|r| r.energy().at);
        Ok(both)
    }

    async fn neighbour<T: FromHistory>(
        &mut self,
        device: i32,
        at: Timestamp,
        after: bool,
        not_zero: bool,
    ) -> Result<Option<T>, AskError> {
        let nearby = match after {
            true => (at, at.plus_micros(NEARBY_MICROS)),
            false => (at.plus_micros(-NEARBY_MICROS), at),
        };
        if let Some(found) = self.search::<T>(device, nearby, after, not_zero).await? {
            return Ok(Some(found));
        }
        let edge = if after { nearby.1 } else { nearby.0 };
        let ranges = self.ranges(T::STREAM).await?;
        for span in spans_beyond(&ranges, edge, after) {
            if let Some(found) = self.search::<T>(device, span, after, not_zero).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn search<T: FromHistory>(
        &self,
        device: i32,
        (from, to): (Timestamp, Timestamp),
        after: bool,
        not_zero: bool,
    ) -> Result<Option<T>, AskError> {
        let text = if after { T::AFTER } else { T::BEFORE };
        let statement = self.work.prepare_cached(text).await?;
        let row = self
            .work
            .query_opt(&statement, &[&device, &from, &to, &not_zero])
            .await?;
        Ok(row.as_ref().map(T::read).transpose()?)
    }

    pub(super) async fn ranges(&mut self, stream: Stream) -> Result<Vec<Range>, AskError> {
        if let Some(ranges) = &self.partitions[stream.index()] {
            return Ok(ranges.clone());
        }
        let client: &tokio_postgres::Transaction<'_> = self.work;
        let ranges = partitions::load(client, stream).await?.into_ranges();
        self.partitions[stream.index()] = Some(ranges.clone());
        Ok(ranges)
    }
}

/// Tells whether a reading is a register of 0, as the arithmetic rounds it.
pub(super) fn is_zero_register(reading: &EnergyReading) -> bool {
    reading.energy.kind == EnergyKind::Register && reading.energy.kwh < 0.000_000_5
}

/// The spans (from, to] that hold what lies at or before an edge, or behind it: nearest first, a
/// few partitions each.
pub(super) fn spans_beyond(
    ranges: &[Range],
    edge: Timestamp,
    after: bool,
) -> Vec<(Timestamp, Timestamp)> {
    let mut beyond: Vec<Range> = ranges
        .iter()
        .filter(|range| {
            if after {
                edge < range.to
            } else {
                range.from <= edge
            }
        })
        .copied()
        .collect();
    beyond.sort_unstable();
    if !after {
        beyond.reverse();
    }
    let span = |chunk: &[Range]| {
        let from = chunk.iter().map(|range| range.from.plus_micros(-1)).min()?;
        let to = chunk.iter().map(|range| range.to.plus_micros(-1)).max()?;
        Some(match after {
            true => (from.max(edge), to),
            false => (from, to.min(edge)),
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
    fn what_lies_beyond_is_searched_nearest_first_and_a_few_partitions_at_a_time() {
        let range = |n: i64| Range {
            from: at(n * 100),
            to: at(n * 100 + 100),
        };
        let ranges: Vec<Range> = (0..20).map(range).collect();
        let before = spans_beyond(&ranges, at(1050), false);
        assert_eq!(before, [(at(299), at(1050)), (at(-1), at(299))]);
        let after = spans_beyond(&ranges, at(1050), true);
        assert_eq!(after, [(at(1050), at(1799)), (at(1799), at(1999))]);
        assert_eq!(spans_beyond(&ranges, at(-1), false), []);
        assert_eq!(
            spans_beyond(&ranges, at(1999), true),
            [(at(1999), at(1999))]
        );
    }
}
