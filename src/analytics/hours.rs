//! Hours that are summed up, fetched in place of their readings.
//!
//! A row of the summaries is used where it is there, in the same snapshot as the readings, and no
//! mark says that a reading has come since. Everything else is read as it is: where there is no
//! row, where an edge that is known beforehand goes through the hour, where the hour implies more
//! power than the bound, and where the arithmetic has said that it needs the readings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::AskError;
use super::history::{FromHistory, History};
use crate::energy::answer::Cuts;
use crate::energy::device::EnergyReading;
use crate::energy::hour::{Condensed, hour_run};
use crate::energy::interval::{Run, Runs};
use crate::reading::{Energy, EnergyKind, HOUR_MICROS, Stream, Timestamp};

/// How often a question is asked again with fewer hours summed up, before all is read as it is.
/// Why: the first answer tells nearly all edges; what those lead to is told by the second.
pub(super) const ROUNDS_MAX: usize = 3;

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
    starts: Vec<Timestamp>,
    suspect_watts: u64,
    refused: HashSet<(Stream, i32, Timestamp)>,
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

    fn refuse(&mut self, cuts: &Cuts) {
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
    power_watts: i64,
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

impl History<'_> {
    /// Takes readings as they are where they were cut.
    pub(super) fn refuse(&mut self, cuts: &Cuts) {
        if let Some(hours) = &mut self.hours {
            Arc::make_mut(hours).refuse(cuts);
        }
    }

    /// Takes a device's readings as they are around some edges.
    pub(super) fn refuse_at(
        &mut self,
        stream: Stream,
        device: i32,
        edges: impl IntoIterator<Item = Timestamp>,
    ) {
        if let Some(hours) = &mut self.hours {
            let hours = Arc::make_mut(hours);
            for edge in edges {
                hours.refuse_at(stream, device, edge);
            }
        }
    }

    /// Takes everything as it is from here on.
    pub(super) fn refuse_all(&mut self) {
        self.hours = None;
    }

    /// The runs that hours may be summed up in.
    pub(super) fn sums(&self) -> Runs {
        let starts = self.hours.iter().flat_map(|hours| &hours.starts);
        starts.filter_map(|start| hour_run(*start)).collect()
    }

    /// Fetches the hours in some runs that are summed up.
    pub(super) async fn hours_many<T: FromHistory>(
        &self,
        wanted: &BTreeMap<i32, Vec<Run>>,
    ) -> Result<Vec<Summed<T>>, AskError> {
        let mut found = Vec::new();
        let runs = || wanted.values().flatten();
        let low = runs().map(|run| run.start()).min();
        let high = runs().map(|run| run.end()).max();
        let all = low.zip(high).and_then(|(low, high)| Run::new(low, high));
        let (Some(hours), Some(all)) = (&self.hours, all) else {
            return Ok(found);
        };
        let within =
            |start: &&Timestamp| hour_run(**start).is_some_and(|hour| all.and(hour) == Some(hour));
        let mut starts = hours.starts.iter().filter(within);
        let Some(first) = starts.next() else {
            return Ok(found);
        };
        let last = starts.next_back().unwrap_or(first);
        let devices: Vec<i32> = wanted.keys().copied().collect();
        let statement = self.work.prepare_cached(T::HOURS).await?;
        let parameters: [&(dyn ToSql + Sync); 3] = [&devices, first, last];
        let rows = self.work.query_raw(&statement, parameters).await?;
        pin_mut!(rows);
        while let Some(row) = rows.try_next().await? {
            self.lease.one_more()?;
            self.lease.one_more()?;
            if let Some(sum) = T::read_hour(&row)? {
                found.push((row.try_get(0)?, row.try_get(1)?, sum));
            }
        }
        Ok(found)
    }

    /// Takes those hours that lie in the runs and may be taken, and says of each device which they
    /// are.
    pub(super) fn taken<T: FromHistory>(
        &self,
        found: Vec<Summed<T>>,
        wanted: &BTreeMap<i32, Vec<Run>>,
    ) -> Taken<T> {
        let mut readings: HashMap<i32, Readings<T>> = HashMap::with_capacity(wanted.len());
        let mut taken: HashMap<i32, Vec<Run>> = HashMap::new();
        let Some(hours) = &self.hours else {
            return (readings, HashMap::new());
        };
        for (device, start, sum) in found {
            let is_wanted = |hour: &Run| {
                let runs = wanted.get(&device).into_iter().flatten();
                let mut holding = runs.filter(|run| run.and(*hour) == Some(*hour));
                let is_whole =
                    holding.next().is_some() && hours.starts.binary_search(&start).is_ok();
                is_whole && !hours.refused.contains(&(T::STREAM, device, start))
            };
            let Some(hour) = hour_run(start).filter(is_wanted) else {
                continue;
            };
            if u64::try_from(sum.power_watts).is_ok_and(|watts| watts <= hours.suspect_watts) {
                let of_device = readings.entry(device).or_default();
                of_device.list.extend([sum.first, sum.last]);
                of_device.condensed.push(sum.condensed);
                taken.entry(device).or_default().push(hour);
            }
        }
        for of_device in readings.values_mut() {
            of_device.condensed.sort_unstable_by_key(|sum| sum.run);
        }
        let runs = |(device, taken): (_, Vec<Run>)| (device, Runs::from_iter(taken));
        (readings, taken.into_iter().map(runs).collect())
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
