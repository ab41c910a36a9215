//! Rolls up some devices' hours in one transaction.
//!
//! Marks of dirty hours, readings and rollups belong to one snapshot. A mark made meanwhile is neither seen
//! nor removed. Its hour is read from history until the next step.

use std::time::Instant;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, IsolationLevel, Transaction};

use super::readings::{self, READINGS_PER_TRANSACTION, Span};
use super::sparse::Stretch;
use super::{DeviceHour, Roller};
use crate::energy::exact::temperature_parts;
use crate::energy::hour::{Growing, Whole};
use crate::metrics;
use crate::reading::{EnergyKind, HOUR_MICROS, PerStream, Stream, Timestamp};

/// The most devices of one transaction.
pub(super) const DEVICES_MAX: usize = 2_000;
/// Devices of the first transaction, before the roller knows how much they send.
const DEVICES_FIRST: usize = 100;
/// The longest span of the hours of one transaction, so that it plans few partitions.
const SPAN_MICROS_MAX: i64 = 24 * HOUR_MICROS;

/// How many devices the next transaction rolls up.
pub(super) struct Pace {
    pub(super) devices: usize,
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
    pub(super) fn learn(&mut self, devices: usize, readings: usize) {
        let each = (readings / devices.max(1)).max(1);
        let most = (self.devices * 2).min(DEVICES_MAX);
        self.devices = (READINGS_PER_TRANSACTION / each).clamp(1, most);
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

    /// Rolls up some device-hours, in one transaction if they have as few readings as the pace expects, and yields.
    ///
    /// Order:  sorted by hour
    async fn roll_up_some(
        &mut self,
        client: &mut Client,
        stream: Stream,
        mut hours: &[DeviceHour],
    ) -> Result<(), Error> {
        while !hours.is_empty() {
            let began = Instant::now();
            let work = snapshot(client).await?;
            let spans = hours.iter().map(|hour| Span::whole(*hour)).collect();
            let Done { spans, readings } = roll_up(&work, stream, spans).await?;
            work.commit().await?;
            self.readings += readings as u64;
            self.pace.learn(spans, readings);
            metrics::rolled_up(spans, began.elapsed());
            self.yield_after(began.elapsed()).await;
            hours = hours.get(spans..).unwrap_or_default();
        }
        Ok(())
    }
}

pub(super) async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, Error> {
    client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .start()
        .await
}

/// Removes the rollups of some hours.
///
/// Order:  sorted by hour
pub(super) async fn remove(
    work: &Transaction<'_>,
    stream: Stream,
    hours: &[DeviceHour],
) -> Result<(), Error> {
    if hours.is_empty() {
        return Ok(());
    }
    let remove = match stream {
        Stream::Meter => sql!("hour_remove_meters"),
        Stream::Vehicle => sql!("hour_remove_vehicles"),
    };
    by_hour(work, remove, hours, &[]).await
}

/// What a transaction has rolled up.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// The first so many spans; at least one, if there are any.
    pub(super) spans: usize,
    /// The readings that it has read.
    pub(super) readings: usize,
}

/// Replaces the rollups of the first hours, as many as one transaction takes.
///
/// Order:  sorted by hour
pub(super) async fn roll_up(
    work: &Transaction<'_>,
    stream: Stream,
    spans: Vec<Span>,
) -> Result<Done, Error> {
    let add = match stream {
        Stream::Meter => sql!("hour_add_meters"),
        Stream::Vehicle => sql!("hour_add_vehicles"),
    };
    if spans.is_empty() {
        return Ok(Done::default());
    }
    let mut hours: Vec<DeviceHour> = spans.iter().map(|span| span.hour).collect();
    let (rollups, readings) = readings::roll_up(work, stream, spans).await?;
    hours.truncate(rollups.len());
    let spans = hours.len();
    remove(work, stream, &hours).await?;
    let mut columns = Columns::default();
    for (hour, rollup) in hours.into_iter().zip(rollups) {
        let stored = rollup.and_then(Growing::finish);
        if let Some(stored) = stored.as_ref().and_then(Stored::of) {
            columns.push(hour, &stored);
        }
    }
    if !columns.devices.is_empty() {
        work.execute(add, &columns.parameters(stream)).await?;
    }
    Ok(Done { spans, readings })
}

/// Runs a statement on the devices of each hour: devices ($1), hour ($2), then the further parameters.
///
/// Order:  sorted by hour
pub(super) async fn by_hour(
    work: &Transaction<'_>,
    sql: &str,
    hours: &[DeviceHour],
    more: &[&(dyn ToSql + Sync)],
) -> Result<(), Error> {
    let statement = work.prepare(sql).await?;
    for devices in hours.chunk_by(|a, b| a.1 == b.1) {
        let Some((_, hour)) = devices.first() else {
            continue;
        };
        let devices: Vec<i32> = devices.iter().map(|(device, _)| *device).collect();
        let both: [&(dyn ToSql + Sync); 2] = [&devices, hour];
        work.execute(&statement, &[&both, more].concat()).await?;
    }
    Ok(())
}

/// A rollup whose numbers the table can hold.
struct Stored {
    whole: Whole,
    /// Readings, resets, suspect readings.
    counts: [i32; 3],
    temperature: (i64, i64),
}

impl Stored {
    /// `None` if a number is too large: the hour is read.
    fn of(whole: &Whole) -> Option<Self> {
        let rolled_up = &whole.summary.rolled_up;
        let count = |n: u64| i32::try_from(n).ok();
        Some(Stored {
            whole: *whole,
            counts: [
                count(rolled_up.between + 2)?,
                count(rolled_up.resets)?,
                count(rolled_up.suspect)?,
            ],
            temperature: temperature_parts(rolled_up.temperature_sum)?,
        })
    }
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
    fn push(&mut self, (device, hour): DeviceHour, stored: &Stored) {
        let Stored {
            whole: Whole { summary, ends_temp },
            counts: [readings, resets, suspect],
            temperature,
        } = stored;
        let (first, last) = (summary.first, summary.last);
        self.devices.push(device);
        self.hours.push(hour);
        for (end, reading) in [first, last].into_iter().enumerate() {
            self.ends_at[end].push(reading.at);
            self.ends_kwh[end].push(reading.energy.kwh);
            self.ends_temp[end].push(ends_temp[end]);
        }
        self.is_register
            .push(first.energy.kind == EnergyKind::Register);
        self.readings.push(*readings);
        self.energy_mwh.push(summary.rolled_up.mwh);
        self.odd[0].push(*resets);
        self.odd[1].push(*suspect);
        self.power_watts.push(summary.power_watts);
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
