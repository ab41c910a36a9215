//! The readings of many devices at once: a few statements for a whole chunk of a fleet.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::try_join4;
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use super::AskError;
use super::history::{FromHistory, History, NEARBY_MICROS, Side, spans_beyond};
use super::hour_rows::{Readings, RolledUpHour};
use crate::energy::interval::{Interval, Intervals};
use crate::reading::Timestamp;

/// The readings of one device in (`low`, `high`].
#[derive(Debug, Clone, Copy)]
struct DeviceSpan {
    device: i32,
    low: Timestamp,
    high: Timestamp,
}

/// Whether registers of 0 count as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zeros {
    Included,
    Skipped,
}

/// A device, and the moment beyond which its neighbour is searched.
type Edge = (i32, Timestamp);

/// What is fetched first, before it is known which hours exist as rollups.
pub(super) struct Sought<T> {
    /// The intervals in which hours may be used as rollups.
    sums: Intervals,
    hours: Vec<RolledUpHour<T>>,
    /// Readings outside those intervals, and neighbours.
    raw: Vec<(i32, T)>,
}

fn spans_of(device: i32, intervals: &Intervals) -> impl Iterator<Item = DeviceSpan> {
    intervals.as_slice().iter().map(move |interval| DeviceSpan {
        device,
        low: interval.start(),
        high: interval.end(),
    })
}

impl History<'_> {
    /// The readings of many devices in each of their intervals, with the neighbours on both sides that
    /// [`DeviceEnergy::new`](crate::energy::device::DeviceEnergy::new) needs. Of successive registers of 0, only
    /// the nearest is fetched, because there may be many. Rolled-up hours replace readings where possible.
    ///
    /// Order:  a device's intervals must be ascending and apart; its readings are returned ascending by time
    pub(super) async fn around_many<T: FromHistory>(
        &self,
        wanted: &BTreeMap<i32, Vec<Interval>>,
    ) -> Result<HashMap<i32, Readings<T>>, AskError> {
        let sought = self.seek::<T>(wanted).await?;
        self.settle(sought, wanted).await
    }

    /// Fetches everything except the readings of hours that may be rolled up.
    pub(super) async fn seek<T: FromHistory>(
        &self,
        wanted: &BTreeMap<i32, Vec<Interval>>,
    ) -> Result<Sought<T>, AskError> {
        let intervals = || {
            wanted
                .iter()
                .flat_map(|(d, intervals)| intervals.iter().map(move |interval| (*d, *interval)))
        };
        let before: Vec<Edge> = intervals()
            .map(|(d, interval)| (d, interval.start()))
            .collect();
        let after: Vec<Edge> = intervals()
            .map(|(d, interval)| (d, interval.end()))
            .collect();
        let sums = self.sums();
        let mut edges: Vec<DeviceSpan> = Vec::with_capacity(before.len());
        for (device, interval) in intervals() {
            edges.extend(spans_of(
                device,
                &Intervals::from_iter([interval]).without(&sums),
            ));
        }
        // Sent together, and answered in order.
        let (hours, edges, before, after) = try_join4(
            self.hours_many::<T>(wanted),
            self.inside::<T>(&edges),
            self.neighbours_many::<T>(&before, Side::Before),
            self.neighbours_many::<T>(&after, Side::After),
        )
        .await?;
        let raw = edges.into_iter().chain(before).chain(after).collect();
        Ok(Sought { sums, hours, raw })
    }

    /// Selects the usable rolled-up hours, and fetches the readings of the other hours.
    pub(super) async fn settle<T: FromHistory>(
        &self,
        sought: Sought<T>,
        wanted: &BTreeMap<i32, Vec<Interval>>,
    ) -> Result<HashMap<i32, Readings<T>>, AskError> {
        let (mut readings, rolled_up) = self.usable(sought.hours, wanted);
        let mut rest: Vec<DeviceSpan> = Vec::new();
        for (&device, intervals) in wanted {
            for interval in intervals {
                let mut left = sought.sums.clip(*interval);
                if let Some(rolled_up) = rolled_up.get(&device) {
                    left = left.without(rolled_up);
                }
                rest.extend(spans_of(device, &left));
            }
        }
        let rest = self.inside::<T>(&rest).await?;
        for (device, one) in sought.raw.into_iter().chain(rest) {
            readings.entry(device).or_default().list.push(one);
        }
        for of_device in readings.values_mut() {
            of_device.list.sort_unstable_by_key(|r: &T| r.energy().at);
            // Two intervals may share a neighbour, or a neighbour may lie in another interval.
            of_device.list.dedup_by_key(|r| r.energy().at);
        }
        Ok(readings)
    }

    /// The readings in the given intervals, without neighbours.
    async fn inside<T: FromHistory>(
        &self,
        intervals: &[DeviceSpan],
    ) -> Result<Vec<(i32, T)>, AskError> {
        let found = self.query_spans(T::IN_INTERVALS, intervals, None).await?;
        let of_device = |(span, one): (usize, T)| (intervals[span].device, one);
        Ok(found.into_iter().map(of_device).collect())
    }

    /// Like [`History::around_many`], for one device.
    pub(super) async fn around<T: FromHistory>(
        &self,
        device: i32,
        intervals: &[Interval],
    ) -> Result<Readings<T>, AskError> {
        let wanted = BTreeMap::from([(device, intervals.to_vec())]);
        let mut readings = self.around_many(&wanted).await?;
        Ok(readings.remove(&device).unwrap_or_default())
    }

    /// The nearest reading beyond each edge and, if that is a register of 0, also the nearest that is not.
    async fn neighbours_many<T: FromHistory>(
        &self,
        edges: &[Edge],
        side: Side,
    ) -> Result<Vec<(i32, T)>, AskError> {
        let nearest = self.search_many::<T>(edges, side, Zeros::Included).await?;
        let mut found: Vec<(i32, T)> = Vec::with_capacity(nearest.len());
        let mut zeros: Vec<Edge> = Vec::new();
        for (edge, one) in nearest {
            let (device, at) = (edges[edge].0, one.energy().at);
            if one.energy().is_zero_register() {
                let edge = match side {
                    Side::Before => at.plus_micros(-1),
                    Side::After => at,
                };
                zeros.push((device, edge));
            }
            found.push((device, one));
        }
        let firm = self.search_many::<T>(&zeros, side, Zeros::Skipped).await?;
        found.extend(firm.into_iter().map(|(edge, one)| (zeros[edge].0, one)));
        Ok(found)
    }

    /// The nearest reading beyond each edge, if there is one, with the index of the edge. The search before an
    /// edge begins nearby. If it finds nothing, it goes on, a few partitions at a time.
    ///
    /// After an edge the first step is skipped: there is often no reading, because the window ends now.
    async fn search_many<T: FromHistory>(
        &self,
        edges: &[Edge],
        side: Side,
        zeros: Zeros,
    ) -> Result<Vec<(usize, T)>, AskError> {
        let text = match side {
            Side::Before => T::BEFORE_MANY,
            Side::After => T::AFTER_MANY,
        };
        // How far the search of each edge has got after the first statement.
        let looked = |edge: usize| match side {
            Side::Before => edges[edge].1.plus_micros(-NEARBY_MICROS),
            Side::After => edges[edge].1,
        };
        let mut found = Vec::new();
        if side == Side::Before {
            let near = edges
                .iter()
                .enumerate()
                .map(|(edge, &(device, high))| DeviceSpan {
                    device,
                    low: looked(edge),
                    high,
                });
            let near: Vec<DeviceSpan> = near.collect();
            found = self.query_spans(text, &near, Some(zeros)).await?;
        }
        let mut open = vec![true; edges.len()];
        found.iter().for_each(|(edge, _)| open[*edge] = false);
        let left = (0..edges.len()).filter(|&edge| open[edge]).map(looked);
        let nearest = match side {
            Side::Before => left.max(),
            Side::After => left.min(),
        };
        let Some(nearest) = nearest else {
            return Ok(found);
        };
        let ranges = self.ranges(T::STREAM).await?;
        for (from, to) in spans_beyond(ranges, nearest, side) {
            let mut searched: Vec<usize> = (0..edges.len()).filter(|&edge| open[edge]).collect();
            let span = |edge: usize| match side {
                Side::Before => (from, looked(edge).min(to)),
                Side::After => (looked(edge).max(from), to),
            };
            searched.retain(|&edge| span(edge).0 < span(edge).1);
            let spans = searched.iter().map(|&edge| DeviceSpan {
                device: edges[edge].0,
                low: span(edge).0,
                high: span(edge).1,
            });
            let spans: Vec<DeviceSpan> = spans.collect();
            for (place, one) in self.query_spans(text, &spans, Some(zeros)).await? {
                open[searched[place]] = false;
                found.push((searched[place], one));
            }
            if !open.contains(&true) {
                break;
            }
        }
        Ok(found)
    }

    /// Runs a statement over spans. Returns each reading with the index of its span.
    async fn query_spans<T: FromHistory>(
        &self,
        text: &'static str,
        spans: &[DeviceSpan],
        zeros: Option<Zeros>,
    ) -> Result<Vec<(usize, T)>, AskError> {
        let low = spans.iter().map(|span| span.low).min();
        let high = spans.iter().map(|span| span.high).max();
        let (Some(low), Some(high)) = (low, high) else {
            return Ok(Vec::new());
        };
        let devices: Vec<i32> = spans.iter().map(|span| span.device).collect();
        let lows: Vec<Timestamp> = spans.iter().map(|span| span.low).collect();
        let highs: Vec<Timestamp> = spans.iter().map(|span| span.high).collect();
        let statement = self.work.prepare_cached(text).await?;
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&devices, &lows, &highs, &low, &high];
        let not_zero = zeros.map(|zeros| zeros == Zeros::Skipped);
        if let Some(not_zero) = &not_zero {
            parameters.push(not_zero);
        }
        let rows = self.work.query_raw(&statement, parameters).await?;
        pin_mut!(rows);
        let mut readings = Vec::new();
        while let Some(row) = rows.try_next().await? {
            self.lease.one_more()?;
            // Ordinality counts from 1.
            let span: i32 = row.try_get(T::COLUMNS)?;
            readings.push((span as usize - 1, T::read(&row)?));
        }
        Ok(readings)
    }
}
