//! Rolls up some devices' hours in one transaction.
//!
//! Marks of dirty hours, readings and rollups belong to one snapshot. A mark made meanwhile is neither seen
//! nor removed. Its hour is read from history until the next step.

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, IsolationLevel, Row, Transaction};

use super::sparse::Stretch;
use super::{DeviceHour, Roller, load};
use crate::energy::device::EnergyReading;
use crate::energy::exact::temperature_parts;
use crate::energy::hour::{Measured, Summary, summarize};
use crate::metrics;
use crate::reading::{Energy, EnergyKind, HOUR_MICROS, PerStream, Stream, Timestamp};

/// About how many readings one transaction holds: some 50 ms, and a few MB.
const READINGS_PER_TRANSACTION: usize = 40_000;
/// The most devices of one transaction.
const DEVICES_MAX: usize = 2_000;
/// Devices of the first transaction, before the roller knows how much they send.
const DEVICES_FIRST: usize = 100;
/// The most dirty hours of one transaction.
const DIRTY_MAX: i64 = 1_000;
/// How often a pass over the dirty hours begins while readings arrive. Why: late readings come in bursts, and
/// each of their batches makes the same hours dirty. Until then the hours are read from history.
const DIRTY_EVERY: Duration = Duration::from_secs(30);
/// The longest span of the hours of one transaction, so that it plans few partitions.
const SPAN_MICROS_MAX: i64 = 24 * HOUR_MICROS;

/// How many devices the next transaction rolls up.
pub(super) struct Pace {
    devices: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            devices: DEVICES_FIRST,
        }
    }
}

impl Pace {
    /// Adapts to what the last transaction held. It grows slowly, because hours differ.
    fn learn(&mut self, devices: usize, readings: usize) {
        let each = (readings / devices.max(1)).max(1);
        let most = (self.devices * 2).min(DEVICES_MAX);
        self.devices = (READINGS_PER_TRANSACTION / each).clamp(1, most);
    }
}

/// How far the dirty hours are rolled up again.
pub(super) struct DirtyPass {
    /// The last device-hour of the pass.
    after: PerStream<DeviceHour>,
    ended: Option<Instant>,
}

impl Default for DirtyPass {
    fn default() -> Self {
        DirtyPass {
            // No reading is older.
            after: PerStream::from_fn(|_| (i32::MIN, Timestamp::Y2000.hour())),
            ended: None,
        }
    }
}

impl DirtyPass {
    /// Whether a pass is under way, or the next may begin.
    pub(super) fn is_due(&self, readings_wait: bool) -> bool {
        !readings_wait
            || self
                .ended
                .is_none_or(|ended| ended.elapsed() >= DIRTY_EVERY)
    }

    /// Nothing dirty is left behind the last device-hour.
    pub(super) fn end(&mut self) {
        *self = DirtyPass {
            ended: Some(Instant::now()),
            ..DirtyPass::default()
        };
    }
}

impl Roller {
    /// Rolls up some hours of the device-hours that hold all of their readings.
    pub(super) async fn stretch(
        &mut self,
        client: &mut Client,
        stretch: &Stretch,
    ) -> Result<(), Error> {
        for stream in Stream::ALL {
            let found = stretch.found[stream].iter().flatten().copied();
            let found: Vec<DeviceHour> = found
                .filter(|(_, hour)| stretch.hours.contains(hour))
                .collect();
            let mut left: &[DeviceHour] = &found;
            while let Some((_, first)) = left.first() {
                // A longer span would plan many partitions.
                let last = first.plus_micros(SPAN_MICROS_MAX);
                let within = left.partition_point(|(_, hour)| *hour < last);
                let (now, later) = left.split_at(within.min(self.pace.devices));
                self.roll_up_some(client, stream, now).await?;
                left = later;
            }
        }
        Ok(())
    }

    /// Rolls up an hour of all devices of both streams, or of those found to have readings in it.
    pub(super) async fn hour(
        &mut self,
        client: &mut Client,
        hour: Timestamp,
        found: &PerStream<Option<Vec<DeviceHour>>>,
    ) -> Result<(), Error> {
        for stream in Stream::ALL {
            if let Some(found) = &found[stream] {
                let found = found.iter().copied().filter(|(_, other)| *other == hour);
                let found: Vec<DeviceHour> = found.collect();
                for some in found.chunks(DEVICES_MAX) {
                    self.roll_up_some(client, stream, some).await?;
                }
                continue;
            }
            let next = match stream {
                Stream::Meter => sql!("hour_devices_meters"),
                Stream::Vehicle => sql!("hour_devices_vehicles"),
            };
            let next = client.prepare(next).await?;
            let mut after = i32::MIN;
            loop {
                let limit = self.pace.devices as i64;
                let rows = client.query(&next, &[&after, &limit]).await?;
                let devices: Vec<DeviceHour> = rows.iter().map(|row| (row.get(0), hour)).collect();
                let Some(&(last, _)) = devices.last() else {
                    break;
                };
                after = last;
                self.roll_up_some(client, stream, &devices).await?;
            }
        }
        Ok(())
    }

    /// Rolls up some device-hours in one transaction, and yields.
    ///
    /// Order:  sorted by hour
    async fn roll_up_some(
        &mut self,
        client: &mut Client,
        stream: Stream,
        hours: &[DeviceHour],
    ) -> Result<(), Error> {
        let began = Instant::now();
        let work = snapshot(client).await?;
        let readings = roll_up(&work, stream, hours).await?;
        work.commit().await?;
        self.pace.learn(hours.len(), readings);
        metrics::rolled_up(hours.len(), began.elapsed());
        self.yield_after(began.elapsed()).await;
        Ok(())
    }

    /// Rolls up the next dirty hours of a pass again and removes their marks. Returns `false` at its end.
    ///
    /// A pass takes each device-hour once, in the order of the marks' key, so that it ends although new marks
    /// are made meanwhile.
    ///
    /// A dirty hour can lie outside the built hours: its mark survives when the watermark is moved back,
    /// and a late reading can fall below `floor`. Such an hour loses its rollup and is read from history.
    /// A rollup beyond the watermark would miss every later reading, because those leave no mark.
    pub(super) async fn dirty(
        &mut self,
        client: &mut Client,
        stream: Stream,
        floor: Timestamp,
    ) -> Result<bool, Error> {
        let (marks, unmark) = match stream {
            Stream::Meter => (sql!("hour_marks_meters"), sql!("hour_unmark_meters")),
            Stream::Vehicle => (sql!("hour_marks_vehicles"), sql!("hour_unmark_vehicles")),
        };
        let began = Instant::now();
        let work = snapshot(client).await?;
        let limit = DIRTY_MAX.min(self.pace.devices as i64);
        let (device, hour) = self.dirty_pass.after[stream];
        let rows = work.query(marks, &[&limit, &hour, &device]).await?;
        let dirty: Vec<DeviceHour> = rows.iter().map(|row| (row.get(1), row.get(0))).collect();
        let Some(last) = dirty.last() else {
            return Ok(false);
        };
        let built = load(&work).await?.built();
        let (kept, rest): (Vec<DeviceHour>, Vec<DeviceHour>) =
            (dirty.iter().copied()).partition(|(_, hour)| *hour >= floor && built.contains(hour));
        let readings = roll_up(&work, stream, &kept).await?;
        remove(&work, stream, &rest).await?;
        by_hour(&work, unmark, &dirty).await?;
        work.commit().await?;
        self.dirty_pass.after[stream] = *last;
        self.pace.learn(dirty.len(), readings);
        metrics::rolled_up(dirty.len(), began.elapsed());
        self.yield_after(began.elapsed()).await;
        Ok(true)
    }
}

async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, Error> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()
        .await
}

/// Removes the rollups of some hours.
///
/// Order:  sorted by hour
async fn remove(work: &Transaction<'_>, stream: Stream, hours: &[DeviceHour]) -> Result<(), Error> {
    if hours.is_empty() {
        return Ok(());
    }
    let remove = match stream {
        Stream::Meter => sql!("hour_remove_meters"),
        Stream::Vehicle => sql!("hour_remove_vehicles"),
    };
    by_hour(work, remove, hours).await
}

/// Replaces the rollups of some hours. Returns how many readings they hold.
///
/// Order:  sorted by hour
async fn roll_up(
    work: &Transaction<'_>,
    stream: Stream,
    hours: &[DeviceHour],
) -> Result<usize, Error> {
    let add = match stream {
        Stream::Meter => sql!("hour_add_meters"),
        Stream::Vehicle => sql!("hour_add_vehicles"),
    };
    if hours.is_empty() {
        return Ok(0);
    }
    let measured = readings(work, stream, hours).await?;
    let count = measured.iter().map(Vec::len).sum();
    // Tens of thousands of readings would block an async worker.
    let rollups = tokio::task::spawn_blocking(move || {
        let rollups = measured.into_iter().map(|mut hour| {
            hour.sort_unstable_by_key(|m| m.reading.at);
            Some((summarize(&hour)?, hour))
        });
        rollups
            .map(|rollup| {
                let (summary, hour) = rollup?;
                let ends = (hour.first()?.battery_temp, hour.last()?.battery_temp);
                let temperature = temperature_parts(summary.rolled_up.temperature_sum)?;
                Some((summary, ends, temperature))
            })
            .collect::<Vec<_>>()
    });
    // After a panic, the hours have no rollup.
    let rollups = rollups.await.unwrap_or_default();
    remove(work, stream, hours).await?;
    let mut columns = Columns::default();
    for (&hour, rollup) in hours.iter().zip(&rollups) {
        if let Some((summary, ends, temperature)) = rollup {
            columns.push(hour, summary, *ends, *temperature);
        }
    }
    if !columns.devices.is_empty() {
        work.execute(add, &columns.parameters(stream)).await?;
    }
    Ok(count)
}

/// Intervals a statement on the devices of each hour.
///
/// Order:  sorted by hour
async fn by_hour(work: &Transaction<'_>, sql: &str, hours: &[DeviceHour]) -> Result<(), Error> {
    let statement = work.prepare(sql).await?;
    for devices in hours.chunk_by(|a, b| a.1 == b.1) {
        let Some((_, hour)) = devices.first() else {
            continue;
        };
        let devices: Vec<i32> = devices.iter().map(|(device, _)| *device).collect();
        work.execute(&statement, &[&devices, hour]).await?;
    }
    Ok(())
}

/// Loads the readings of some hours.
///
/// Order:  hours as given; none within an hour
async fn readings(
    work: &Transaction<'_>,
    stream: Stream,
    hours: &[DeviceHour],
) -> Result<Vec<Vec<Measured>>, Error> {
    let (text, columns) = match stream {
        Stream::Meter => (sql!("readings_meters"), 3),
        Stream::Vehicle => (sql!("readings_vehicles"), 6),
    };
    let (devices, from): (Vec<i32>, Vec<Timestamp>) = hours.iter().copied().unzip();
    let to: Vec<Timestamp> = from.iter().map(|h| h.plus_micros(HOUR_MICROS)).collect();
    let (low, high) = (from.iter().min(), to.iter().max());
    let parameters: [&(dyn ToSql + Sync); 5] = [&devices, &from, &to, &low, &high];
    let statement = work.prepare(text).await?;
    let rows = work.query_raw(&statement, parameters).await?;
    pin_mut!(rows);
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); hours.len()];
    while let Some(row) = rows.try_next().await? {
        // Ordinality counts from 1.
        let place: i32 = row.try_get(columns)?;
        if let Some(hour) = measured.get_mut(place as usize - 1) {
            hour.push(read(&row, stream)?);
        }
    }
    Ok(measured)
}

fn read(row: &Row, stream: Stream) -> Result<Measured, Error> {
    let (interval, register): (Option<f64>, Option<f64>) = (row.try_get(1)?, row.try_get(2)?);
    let kind = match register {
        Some(_) => EnergyKind::Register,
        None => EnergyKind::Interval,
    };
    let kwh = register.or(interval).unwrap_or_default();
    let (battery_temp, is_named) = match stream {
        Stream::Meter => (0.0, false),
        Stream::Vehicle => {
            let named: [Option<i32>; 2] = [row.try_get(4)?, row.try_get(5)?];
            (row.try_get(3)?, named.iter().any(Option::is_some))
        }
    };
    Ok(Measured {
        reading: EnergyReading {
            at: row.try_get(0)?,
            energy: Energy { kwh, kind },
        },
        battery_temp,
        is_named,
    })
}

/// Rollups as the columns of one statement.
#[derive(Default)]
struct Columns {
    devices: Vec<i32>,
    hours: Vec<Timestamp>,
    ends_at: [Vec<Timestamp>; 2],
    ends_kwh: [Vec<f64>; 2],
    is_register: Vec<bool>,
    readings: Vec<i32>,
    energy_mwh: Vec<i64>,
    odd: [Vec<i32>; 2],
    power_watts: Vec<i64>,
    ends_temp: [Vec<f64>; 2],
    temperature: [Vec<i64>; 2],
}

impl Columns {
    fn push(
        &mut self,
        (device, hour): DeviceHour,
        summary: &Summary,
        temps: (f64, f64),
        temperature: (i64, i64),
    ) {
        let Summary {
            first,
            last,
            rolled_up,
            power_watts,
        } = summary;
        let count = |n: u64| i32::try_from(n).unwrap_or(i32::MAX);
        self.devices.push(device);
        self.hours.push(hour);
        for (end, reading) in [first, last].into_iter().enumerate() {
            self.ends_at[end].push(reading.at);
            self.ends_kwh[end].push(reading.energy.kwh);
        }
        self.is_register
            .push(first.energy.kind == EnergyKind::Register);
        self.readings.push(count(rolled_up.between + 2));
        self.energy_mwh.push(rolled_up.mwh);
        self.odd[0].push(count(rolled_up.resets));
        self.odd[1].push(count(rolled_up.suspect));
        self.power_watts.push(*power_watts);
        self.ends_temp[0].push(temps.0);
        self.ends_temp[1].push(temps.1);
        self.temperature[0].push(temperature.0);
        self.temperature[1].push(temperature.1);
    }

    fn parameters(&self, stream: Stream) -> Vec<&(dyn ToSql + Sync)> {
        let mut all: Vec<&(dyn ToSql + Sync)> = vec![
            &self.devices,
            &self.hours,
            &self.ends_at[0],
            &self.ends_at[1],
            &self.ends_kwh[0],
            &self.ends_kwh[1],
            &self.is_register,
            &self.readings,
            &self.energy_mwh,
            &self.odd[0],
            &self.odd[1],
            &self.power_watts,
        ];
        if stream == Stream::Vehicle {
            for ends in &self.ends_temp {
                all.push(ends);
            }
            for parts in &self.temperature {
                all.push(parts);
            }
        }
        all
    }
}
