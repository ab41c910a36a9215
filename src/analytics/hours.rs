//! Rolled-up hours, fetched in place of their readings.
//!
//! A rollup row is used if the snapshot that holds the readings holds it too, and its hour is not dirty. Readings
//! are fetched instead if there is no such row, if a known edge splits the hour, if the hour implies more power
//! than the bound, or if the arithmetic needs its readings.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use super::AskError;
use super::history::{FromHistory, History};
use super::hour_rows::{Readings, RolledUpHour, Usable};
use crate::energy::answer::SplitHours;
use crate::energy::hour::hour_interval;
use crate::energy::interval::{Interval, Intervals};
use crate::reading::{Stream, Timestamp};

/// How often a query is computed with fewer and fewer rolled-up hours before all readings are fetched. Why 3: the
/// first attempt finds nearly all edges, and the second finds the edges that follow from them.
pub(super) const ROUNDS_MAX: usize = 3;

impl History<'_> {
    /// Excludes hours that were split.
    pub(super) fn exclude(&mut self, splits: &SplitHours) {
        if let Some(hours) = &mut self.hours {
            Arc::make_mut(hours).exclude(splits);
        }
    }

    /// Excludes the hours of a device that these edges split.
    pub(super) fn exclude_at(
        &mut self,
        stream: Stream,
        device: i32,
        edges: impl IntoIterator<Item = Timestamp>,
    ) {
        if let Some(hours) = &mut self.hours {
            let hours = Arc::make_mut(hours);
            for edge in edges {
                hours.exclude_at(stream, device, edge);
            }
        }
    }

    /// Excludes all hours from now on.
    pub(super) fn exclude_all(&mut self) {
        self.hours = None;
    }

    /// The intervals in which hours may be used as rollups.
    pub(super) fn sums(&self) -> Intervals {
        let starts = self.hours.iter().flat_map(|hours| &hours.starts);
        starts.filter_map(|start| hour_interval(*start)).collect()
    }

    /// Fetches the rolled-up hours in the given intervals.
    pub(super) async fn hours_many<T: FromHistory>(
        &self,
        wanted: &BTreeMap<i32, Vec<Interval>>,
    ) -> Result<Vec<RolledUpHour<T>>, AskError> {
        let mut found = Vec::new();
        let intervals = || wanted.values().flatten();
        let low = intervals().map(|interval| interval.start()).min();
        let high = intervals().map(|interval| interval.end()).max();
        let all = low
            .zip(high)
            .and_then(|(low, high)| Interval::new(low, high));
        let (Some(hours), Some(all)) = (&self.hours, all) else {
            return Ok(found);
        };
        let within = |start: &&Timestamp| {
            hour_interval(**start).is_some_and(|hour| all.and(hour) == Some(hour))
        };
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

    /// Selects the hours that lie in the intervals and may be used. Also returns the intervals that they cover, by
    /// device.
    pub(super) fn usable<T: FromHistory>(
        &self,
        found: Vec<RolledUpHour<T>>,
        wanted: &BTreeMap<i32, Vec<Interval>>,
    ) -> Usable<T> {
        let mut readings: HashMap<i32, Readings<T>> = HashMap::with_capacity(wanted.len());
        let mut rolled_up: HashMap<i32, Vec<Interval>> = HashMap::new();
        let Some(hours) = &self.hours else {
            return (readings, HashMap::new());
        };
        for (device, start, sum) in found {
            let is_wanted = |hour: &Interval| {
                let intervals = wanted.get(&device).into_iter().flatten();
                let mut holding = intervals.filter(|interval| interval.and(*hour) == Some(*hour));
                let is_whole =
                    holding.next().is_some() && hours.starts.binary_search(&start).is_ok();
                is_whole && !hours.excluded.contains(&(T::STREAM, device, start))
            };
            let Some(hour) = hour_interval(start).filter(is_wanted) else {
                continue;
            };
            if u64::try_from(sum.power_watts).is_ok_and(|watts| watts <= hours.suspect_watts) {
                let of_device = readings.entry(device).or_default();
                of_device.list.extend([sum.first, sum.last]);
                of_device.rolled_up.push(sum.rolled_up);
                rolled_up.entry(device).or_default().push(hour);
            }
        }
        for of_device in readings.values_mut() {
            of_device.rolled_up.sort_unstable_by_key(|sum| sum.interval);
        }
        let intervals =
            |(device, rolled_up): (_, Vec<Interval>)| (device, Intervals::from_iter(rolled_up));
        (readings, rolled_up.into_iter().map(intervals).collect())
    }
}
