//! The readings of many devices at once: a few statements for a whole chunk of a fleet.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::try_join4;
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use super::AskError;
use super::history::{FromHistory, History, NEARBY_MICROS, spans_beyond};
use super::hour_rows::{Readings, Summed};
use crate::energy::interval::{Run, Runs};
use crate::reading::Timestamp;

/// What is wanted of one device: its readings after `low`, up to `high`.
#[derive(Debug, Clone, Copy)]
struct Wish {
    device: i32,
    low: Timestamp,
    high: Timestamp,
}

/// A moment from which a neighbour of a device is looked for.
type Edge = (i32, Timestamp);

/// What was fetched before it is known which hours may be taken as they are summed up.
pub(super) struct Sought<T> {
    /// Where hours may be.
    sums: Runs,
    hours: Vec<Summed<T>>,
    /// Readings outside of those, and neighbours.
    raw: Vec<(i32, T)>,
}

fn wishes(device: i32, runs: &Runs) -> impl Iterator<Item = Wish> {
    runs.as_slice().iter().map(move |run| Wish {
        device,
        low: run.start(),
        high: run.end(),
    })
}

impl History<'_> {
    /// The readings of many devices in each of their runs, with the neighbours on both sides of
    /// each that [`DeviceEnergy::new`](crate::energy::device::DeviceEnergy::new) asks for: of
    /// registers of 0, which may go on for long, the one at the run and none of the rest. Hours
    /// that may be taken as they are summed up are.
    ///
    /// Order:  a device's runs ascending, apart; its readings ascending by time
    pub(super) async fn around_many<T: FromHistory>(
        &self,
        wanted: &BTreeMap<i32, Vec<Run>>,
    ) -> Result<HashMap<i32, Readings<T>>, AskError> {
        let sought = self.seek::<T>(wanted).await?;
        self.settle(sought, wanted).await
    }

    /// Fetches what is wanted whatever is known of it: all but the readings of hours that may be
    /// summed up.
    pub(super) async fn seek<T: FromHistory>(
        &self,
        wanted: &BTreeMap<i32, Vec<Run>>,
    ) -> Result<Sought<T>, AskError> {
        let runs = || {
            wanted
                .iter()
                .flat_map(|(d, runs)| runs.iter().map(move |run| (*d, *run)))
        };
        let before: Vec<Edge> = runs().map(|(d, run)| (d, run.start())).collect();
        let after: Vec<Edge> = runs().map(|(d, run)| (d, run.end())).collect();
        let sums = self.sums();
        let mut edges: Vec<Wish> = Vec::with_capacity(before.len());
        for (device, run) in runs() {
            edges.extend(wishes(device, &Runs::from_iter([run]).without(&sums)));
        }
        // Sent at once, and answered one after the other.
        let (hours, edges, before, after) = try_join4(
            self.hours_many::<T>(wanted),
            self.inside::<T>(&edges),
            self.neighbours_many::<T>(&before, false),
            self.neighbours_many::<T>(&after, true),
        )
        .await?;
        let raw = edges.into_iter().chain(before).chain(after).collect();
        Ok(Sought { sums, hours, raw })
    }

    /// Takes what is summed up, and fetches the rest.
    pub(super) async fn settle<T: FromHistory>(
        &self,
        sought: Sought<T>,
        wanted: &BTreeMap<i32, Vec<Run>>,
    ) -> Result<HashMap<i32, Readings<T>>, AskError> {
        let (mut readings, taken) = self.taken(sought.hours, wanted);
        let mut rest: Vec<Wish> = Vec::new();
        for (&device, runs) in wanted {
            for run in runs {
                let mut left = sought.sums.cut(*run);
                if let Some(taken) = taken.get(&device) {
                    left = left.without(taken);
                }
                rest.extend(wishes(device, &left));
            }
        }
        let rest = self.inside::<T>(&rest).await?;
        for (device, one) in sought.raw.into_iter().chain(rest) {
            readings.entry(device).or_default().list.push(one);
        }
        for of_device in readings.values_mut() {
            of_device.list.sort_unstable_by_key(|r: &T| r.energy().at);
            // The neighbours of two runs may be the same, or lie in the other run.
            of_device.list.dedup_by_key(|r| r.energy().at);
        }
        Ok(readings)
    }

    /// The readings in some runs.
    async fn inside<T: FromHistory>(&self, runs: &[Wish]) -> Result<Vec<(i32, T)>, AskError> {
        let found = self.wished(T::IN_RUNS, runs, None).await?;
        let of_device = |(wish, one): (usize, T)| (runs[wish].device, one);
        Ok(found.into_iter().map(of_device).collect())
    }

    /// The same of one device.
    pub(super) async fn around<T: FromHistory>(
        &self,
        device: i32,
        runs: &[Run],
    ) -> Result<Readings<T>, AskError> {
        let wanted = BTreeMap::from([(device, runs.to_vec())]);
        let mut readings = self.around_many(&wanted).await?;
        Ok(readings.remove(&device).unwrap_or_default())
    }

    /// The nearest readings beyond some edges and, where one is a register of 0, the nearest that
    /// is not.
    async fn neighbours_many<T: FromHistory>(
        &self,
        edges: &[Edge],
        after: bool,
    ) -> Result<Vec<(i32, T)>, AskError> {
        let nearest = self.search_many::<T>(edges, after, false).await?;
        let mut found: Vec<(i32, T)> = Vec::with_capacity(nearest.len());
        let mut zeros: Vec<Edge> = Vec::new();
        for (edge, one) in nearest {
            let (device, at) = (edges[edge].0, one.energy().at);
            if one.energy().is_zero_register() {
                zeros.push((device, if after { at } else { at.plus_micros(-1) }));
            }
            found.push((device, one));
        }
        let firm = self.search_many::<T>(&zeros, after, true).await?;
        found.extend(firm.into_iter().map(|(edge, one)| (zeros[edge].0, one)));
        Ok(found)
    }

    /// One reading beyond each edge, where there is one, with the place of its edge: nearby
    /// first, then a few partitions at a time for those edges that had none so far.
    ///
    /// Behind an edge there is often none, because the window ends now: no look nearby comes first.
    async fn search_many<T: FromHistory>(
        &self,
        edges: &[Edge],
        after: bool,
        not_zero: bool,
    ) -> Result<Vec<(usize, T)>, AskError> {
        let text = if after { T::AFTER_MANY } else { T::BEFORE_MANY };
        // Up to where each edge has been looked for, once the first statement has run.
        let looked = |edge: usize| match after {
            true => edges[edge].1,
            false => edges[edge].1.plus_micros(-NEARBY_MICROS),
        };
        let mut found = Vec::new();
        if !after {
            let near = edges
                .iter()
                .enumerate()
                .map(|(edge, &(device, high))| Wish {
                    device,
                    low: looked(edge),
                    high,
                });
            let near: Vec<Wish> = near.collect();
            found = self.wished(text, &near, Some(not_zero)).await?;
        }
        let mut open = vec![true; edges.len()];
        found.iter().for_each(|(edge, _)| open[*edge] = false);
        let left = (0..edges.len()).filter(|&edge| open[edge]).map(looked);
        let Some(nearest) = (if after { left.min() } else { left.max() }) else {
            return Ok(found);
        };
        let ranges = self.ranges(T::STREAM).await?;
        for (from, to) in spans_beyond(ranges, nearest, after) {
            let mut asked: Vec<usize> = (0..edges.len()).filter(|&edge| open[edge]).collect();
            let wish = |edge: usize| match after {
                true => (looked(edge).max(from), to),
                false => (from, looked(edge).min(to)),
            };
            asked.retain(|&edge| wish(edge).0 < wish(edge).1);
            let wishes = asked.iter().map(|&edge| Wish {
                device: edges[edge].0,
                low: wish(edge).0,
                high: wish(edge).1,
            });
            let wishes: Vec<Wish> = wishes.collect();
            for (place, one) in self.wished(text, &wishes, Some(not_zero)).await? {
                open[asked[place]] = false;
                found.push((asked[place], one));
            }
            if !open.contains(&true) {
                break;
            }
        }
        Ok(found)
    }

    /// Runs a statement that takes wishes; each reading with the place of its wish.
    async fn wished<T: FromHistory>(
        &self,
        text: &'static str,
        wishes: &[Wish],
        not_zero: Option<bool>,
    ) -> Result<Vec<(usize, T)>, AskError> {
        let low = wishes.iter().map(|wish| wish.low).min();
        let high = wishes.iter().map(|wish| wish.high).max();
        let (Some(low), Some(high)) = (low, high) else {
            return Ok(Vec::new());
        };
        let devices: Vec<i32> = wishes.iter().map(|wish| wish.device).collect();
        let lows: Vec<Timestamp> = wishes.iter().map(|wish| wish.low).collect();
        let highs: Vec<Timestamp> = wishes.iter().map(|wish| wish.high).collect();
        let statement = self.work.prepare_cached(text).await?;
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&devices, &lows, &highs, &low, &high];
        if let Some(not_zero) = &not_zero {
            parameters.push(not_zero);
        }
        let rows = self.work.query_raw(&statement, parameters).await?;
        pin_mut!(rows);
        let mut readings = Vec::new();
        while let Some(row) = rows.try_next().await? {
            self.lease.one_more()?;
            // Ordinality counts from 1.
            let wish: i32 = row.try_get(T::COLUMNS)?;
            readings.push((wish as usize - 1, T::read(&row)?));
        }
        Ok(readings)
    }
}
