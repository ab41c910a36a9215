//! Which hours a question may take rolled up, and a row of them.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;

use crate::energy::answer::Cuts;
use crate::energy::device::EnergyReading;
use crate::energy::hour::{Condensed, hour_run};
use crate::energy::interval::{Run, Runs};
use crate::reading::{Energy, EnergyKind, HOUR_MICROS, Stream, Timestamp};

/// Readings of a device, some of them as the sums of hours.
#[derive(Debug)]
pub(super) struct Readings<T> {
    pub(super) list: Vec<T>,
    pub(super) condensed: Vec<Condensed>,
}

impl<T> Default for Readings<T> {
    fn default() -> Self {
        Readings {
            list: Vec::new(),
            condensed: Vec::new(),
        }
    }
}

/// Which hours a question may take as they are summed up.
#[derive(Debug, Clone)]
pub(super) struct Hours {
    /// Their starts, ascending; each hour lies wholly in the window.
    pub(super) starts: Vec<Timestamp>,
    pub(super) suspect_watts: u64,
    pub(super) refused: HashSet<(Stream, i32, Timestamp)>,
}

impl Hours {
    /// The full hours of a window that no edge of its parts goes through.
    pub(super) fn new(window: Run, parts: &[Run], suspect_watts: u64) -> Self {
        let mut edges: HashSet<Timestamp> = HashSet::new();
        for edge in parts.iter().flat_map(|part| [part.start(), part.end()]) {
            edges.extend(cut_hour(edge));
        }
        let first = window.start().plus_micros(HOUR_MICROS).hour();
        let mut start = match cut_hour(window.start()) {
            Some(_) => first,
            None => window.start(),
        };
        let mut starts = Vec::new();
        while hour_run(start).is_some_and(|hour| hour.end() <= window.end()) {
            if !edges.contains(&start) {
                starts.push(start);
            }
            start = start.plus_micros(HOUR_MICROS);
        }
        Hours {
            starts,
            suspect_watts,
            refused: HashSet::new(),
        }
    }

    /// Takes a device's readings as they are around an edge.
    pub(super) fn refuse_at(&mut self, stream: Stream, device: i32, edge: Timestamp) {
        let hour = cut_hour(edge).map(|hour| (stream, device, hour));
        self.refused.extend(hour);
    }

    pub(super) fn refuse(&mut self, cuts: &Cuts) {
        let vehicles = cuts.vehicles.iter();
        let vehicles = vehicles.map(|(key, run)| (Stream::Vehicle, key.0, run.end().hour()));
        let meters = cuts.meters.iter();
        let meters = meters.map(|(key, run)| (Stream::Meter, key.0, run.end().hour()));
        self.refused.extend(vehicles.chain(meters));
    }
}

/// The start of the hour that an edge goes through; `None` where it is a full hour itself.
fn cut_hour(edge: Timestamp) -> Option<Timestamp> {
    (edge.as_micros().rem_euclid(HOUR_MICROS) != 0).then(|| edge.hour())
}

/// An hour of a device that is summed up, by its start.
pub(super) type Summed<T> = (i32, Timestamp, HourRow<T>);

/// What stands for the hours of each device that are summed up, and which those are.
pub(super) type Taken<T> = (HashMap<i32, Readings<T>>, HashMap<i32, Runs>);

/// A row of the summaries.
pub(super) struct HourRow<T> {
    pub(super) first: T,
    pub(super) last: T,
    pub(super) condensed: Condensed,
    pub(super) power_watts: i64,
}

impl<T> HourRow<T> {
    /// Reads a row; `reading` completes its first (0) and its last (1) reading.
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
        let Some(run) = Run::new(first.at, last.at) else {
            return Ok(None);
        };
        Ok(Some(HourRow {
            first: reading(first, 0)?,
            last: reading(last, 1)?,
            condensed: Condensed {
                run,
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
    fn the_hours_of_a_window_are_those_that_no_edge_goes_through() {
        let at = |minute: i64| Timestamp::from_micros(minute * 60_000_000);
        let run = |from, to| Run::new(at(from), at(to)).unwrap();
        let starts = |window, parts: &[Run]| Hours::new(window, parts, 1).starts;
        assert_eq!(starts(run(0, 120), &[]), [at(0), at(60)]);
        assert_eq!(starts(run(-10, 179), &[]), [at(0), at(60)]);
        assert_eq!(starts(run(1, 119), &[]), []);
        let parts = [run(0, 90), run(90, 180)];
        assert_eq!(starts(run(0, 180), &parts), [at(0), at(120)]);
    }
}
