//! Rolls up some device-hours in one transaction.
//!
//! Marks of dirty hours, readings and rollups belong to one snapshot. A mark made meanwhile is neither seen
//! nor removed. Its hour is read from history until the next step.

use std::ops::Range;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, IsolationLevel, Transaction};

use super::DeviceHour;
use super::readings::{self, Part, Place, Span};
use crate::energy::exact::temperature_parts;
use crate::energy::hour::{Growing, Whole};
use crate::reading::{EnergyKind, Stream, Timestamp};

/// The most dirty device-hours of one transaction.
pub(super) const DEVICES_MAX: usize = 2_000;

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
    /// How many spans were rolled up, counted from the first; at least one, if any were given.
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
    if spans.is_empty() {
        return Ok(Done::default());
    }
    let mut hours: Vec<DeviceHour> = spans.iter().map(|span| span.hour).collect();
    let (rollups, readings) = readings::roll_up(work, stream, spans).await?;
    hours.truncate(rollups.len());
    let spans = hours.len();
    remove(work, stream, &hours).await?;
    add(work, stream, hours.into_iter().zip(rollups)).await?;
    Ok(Done { spans, readings })
}

/// Removes the rollups that the part of a slice has already: of a dirty hour, or from before it was chosen again.
pub(super) async fn remove_existing(
    work: &Transaction<'_>,
    stream: Stream,
    hours: &Range<Timestamp>,
    place: Place,
    part: &Part,
) -> Result<(), Error> {
    let remove = match stream {
        Stream::Meter => sql!("hour_remove_slice_meters"),
        Stream::Vehicle => sql!("hour_remove_slice_vehicles"),
    };
    // The parts before and after have their own.
    let end = Place {
        device: i32::MAX,
        from: hours.end,
    };
    let next = part.next.unwrap_or(end);
    let parameters: [&(dyn ToSql + Sync); 7] = [
        &part.devices,
        &hours.start,
        &hours.end,
        &place.device,
        &place.from,
        &next.device,
        &next.from,
    ];
    work.execute(remove, &parameters).await?;
    Ok(())
}

/// Stores rollups.
pub(super) async fn add(
    work: &Transaction<'_>,
    stream: Stream,
    rollups: impl IntoIterator<Item = (DeviceHour, Option<Growing>)>,
) -> Result<(), Error> {
    let add = match stream {
        Stream::Meter => sql!("hour_add_meters"),
        Stream::Vehicle => sql!("hour_add_vehicles"),
    };
    let mut columns = Columns::default();
    for (hour, rollup) in rollups {
        let stored = rollup.and_then(Growing::finish);
        if let Some(stored) = stored.as_ref().and_then(Stored::of) {
            columns.push(hour, &stored);
        }
    }
    if !columns.devices.is_empty() {
        work.execute(add, &columns.parameters(stream)).await?;
    }
    Ok(())
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
