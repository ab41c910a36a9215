//! Hours that are summed up, fetched in place of their readings.
//!
//! A row of the summaries is used where it is there, in the same snapshot as the readings, and no
//! mark says that a reading has come since. Everything else is read as it is: where there is no
//! row, where an edge that is known beforehand goes through the hour, where the hour implies more
//! power than the bound, and where the arithmetic has said that it needs the readings.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use super::AskError;
use super::history::{FromHistory, History};
use super::hour_rows::{Readings, Summed, Taken};
use crate::energy::answer::Cuts;
use crate::energy::hour::hour_run;
use crate::energy::interval::{Run, Runs};
use crate::reading::{Stream, Timestamp};

/// How often a question is asked again with fewer hours summed up, before all is read as it is.
/// Why: the first answer finds nearly all edges, and the second the edges that follow from them.
pub(super) const ROUNDS_MAX: usize = 3;

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
