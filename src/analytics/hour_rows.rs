//! Which rolled-up hours a query may use, and how their rows are decoded.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;

use crate::energy::answer::SplitHours;
use crate::energy::device::EnergyReading;
use crate::energy::hour::{RolledUp, hour_interval};
use crate::energy::interval::{Interval, Intervals};
use crate::reading::{Energy, EnergyKind, HOUR_MICROS, Stream, Timestamp};

/// A device's readings, some of them as rolled-up hours.
#[derive(Debug)]
pub(super) struct Readings<T> {
    pub(super) list: Vec<T>,
    pub(super) rolled_up: Vec<RolledUp>,
}

impl<T> Default for Readings<T> {
    fn default() -> Self {
        Readings {
            list: Vec::new(),
            rolled_up: Vec::new(),
        }
    }
}

/// The rolled-up hours that a query may use.
#[derive(Debug, Clone)]
pub(super) struct Hours {
    /// Their starts, ascending. Each hour lies completely within the window.
    pub(super) starts: Vec<Timestamp>,
    pub(super) suspect_watts: u64,
    pub(super) excluded: HashSet<(Stream, i32, Timestamp)>,
}

impl Hours {
    /// The full hours of a window that no edge of a part splits.
    pub(super) fn new(window: Interval, parts: &[Interval], suspect_watts: u64) -> Self {
        let mut edges: HashSet<Timestamp> = HashSet::new();
        for edge in parts.iter().flat_map(|part| [part.start(), part.end()]) {
            edges.extend(split_hour(edge));
        }
        let first = window.start().plus_micros(HOUR_MICROS).hour();
        let mut start = match split_hour(window.start()) {
            Some(_) => first,
            None => window.start(),
        };
        let mut starts = Vec::new();
        while hour_interval(start).is_some_and(|hour| hour.end() <= window.end()) {
            if !edges.contains(&start) {
                starts.push(start);
            }
            start = start.plus_micros(HOUR_MICROS);
        }
        Hours {
            starts,
            suspect_watts,
            excluded: HashSet::new(),
        }
    }

    /// Excludes the hour of a device that an edge splits.
    pub(super) fn exclude_at(&mut self, stream: Stream, device: i32, edge: Timestamp) {
        let hour = split_hour(edge).map(|hour| (stream, device, hour));
        self.excluded.extend(hour);
    }

    pub(super) fn exclude(&mut self, splits: &SplitHours) {
        let vehicles = splits.vehicles.iter();
        let vehicles =
            vehicles.map(|(key, interval)| (Stream::Vehicle, key.0, interval.end().hour()));
        let meters = splits.meters.iter();
        let meters = meters.map(|(key, interval)| (Stream::Meter, key.0, interval.end().hour()));
        self.excluded.extend(vehicles.chain(meters));
    }
}

/// The start of the hour that an edge splits; `None` if the edge is on the hour.
fn split_hour(edge: Timestamp) -> Option<Timestamp> {
    (edge.as_micros().rem_euclid(HOUR_MICROS) != 0).then(|| edge.hour())
}

/// A device's rolled-up hour: the device, the start, the row.
pub(super) type RolledUpHour<T> = (i32, Timestamp, HourRow<T>);

/// The readings and rollups of each device, and its rolled-up intervals.
pub(super) type Usable<T> = (HashMap<i32, Readings<T>>, HashMap<i32, Intervals>);

/// A row of a rollup table.
pub(super) struct HourRow<T> {
    pub(super) first: T,
    pub(super) last: T,
    pub(super) rolled_up: RolledUp,
    pub(super) power_watts: i64,
}

impl<T> HourRow<T> {
    /// Decodes a row. `reading` completes the first (0) or the last (1) reading.
    pub(super) fn read(
        row: &Row,
        temperature_sum: i128,
        reading: impl Fn(EnergyReading, usize) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<Self>, tokio_postgres::Error> {
        let kind = match row.try_get(6)? {
            true => EnergyKind::Register,
            false => EnergyKind::Interval,
        };
        let end = |at: usize, kwh: usize| {
            Ok::<_, tokio_postgres::Error>(EnergyReading {
                at: row.try_get(at)?,
                energy: Energy {
                    kwh: row.try_get(kwh)?,
                    kind,
                },
            })
        };
        let (first, last) = (end(2, 4)?, end(3, 5)?);
        let readings: i32 = row.try_get(7)?;
        let (resets, suspect): (i32, i32) = (row.try_get(9)?, row.try_get(10)?);
        let Some(interval) = Interval::new(first.at, last.at) else {
            return Ok(None);
        };
        Ok(Some(HourRow {
            first: reading(first, 0)?,
            last: reading(last, 1)?,
            rolled_up: RolledUp {
                interval,
                between: u64::try_from(readings - 2).unwrap_or(0),
                mwh: row.try_get(8)?,
                resets: u64::try_from(resets).unwrap_or(0),
                suspect: u64::try_from(suspect).unwrap_or(0),
                temperature_sum,
            },
            power_watts: row.try_get(11)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hours_of_a_window_are_those_that_no_edge_splits() {
        let at = |minute: i64| Timestamp::from_micros(minute * 60_000_000);
        let interval = |from, to| Interval::new(at(from), at(to)).unwrap();
        let starts = |window, parts: &[Interval]| Hours::new(window, parts, 1).starts;
        assert_eq!(starts(interval(0, 120), &[]), [at(0), at(60)]);
        assert_eq!(starts(interval(-10, 179), &[]), [at(0), at(60)]);
        assert_eq!(starts(interval(1, 119), &[]), []);
        let parts = [interval(0, 90), interval(90, 180)];
        assert_eq!(starts(interval(0, 180), &parts), [at(0), at(120)]);
    }
}
