//! Reads the readings of device-hours page by page, and rolls them up as they come.
//!
//! An hour with millions of readings needs no more memory than any other.

use std::ops::Range;

use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Transaction};

use super::DeviceHour;
use crate::energy::device::EnergyReading;
use crate::energy::hour::{Growing, Measured};
use crate::reading::{Energy, EnergyKind, HOUR_MICROS, Stream, Timestamp};

/// The most readings that one transaction reads, and one statement; about 50 ms. A device-hour that exceeds it is still
/// read to its end.
pub(super) const READINGS_PER_TRANSACTION: usize = 40_000;
/// Readings of one device-hour that are added at once. It bounds the memory.
const ADDED_AT_ONCE: usize = 4_096;

/// The readings that one rollup adds.
#[derive(Debug)]
pub(super) struct Span {
    /// The device-hour.
    pub(super) hour: DeviceHour,
    /// The rollup that these readings extend; `None` means that the hour is read from its start.
    pub(super) base: Option<Growing>,
    /// The last moment of the readings.
    pub(super) to: Timestamp,
}

impl Span {
    /// All readings of an hour.
    pub(super) fn whole((device, hour): DeviceHour) -> Self {
        Span {
            hour: (device, hour),
            base: None,
            to: hour.plus_micros(HOUR_MICROS),
        }
    }

    /// The moment after which the readings lie.
    fn after(&self) -> Timestamp {
        self.base
            .as_ref()
            .map_or(self.hour.1, |base| base.last_at())
    }
}

/// Where a slice resumes: at `device`, with its hours from `from` on, and then with all later devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) device: i32,
    pub(super) from: Timestamp,
}

impl Place {
    /// Where some hours begin.
    pub(super) fn first(hours: &Range<Timestamp>) -> Self {
        Place {
            device: i32::MIN,
            from: hours.start,
        }
    }

    /// Behind an hour of a device. `None` means the end.
    fn behind((device, hour): DeviceHour, hours: &Range<Timestamp>) -> Option<Self> {
        let from = hour.plus_micros(HOUR_MICROS);
        if from < hours.end {
            return Some(Place { device, from });
        }
        Self::after(device, hours)
    }

    /// After a device. `None` means the end.
    fn after(device: i32, hours: &Range<Timestamp>) -> Option<Self> {
        device.checked_add(1).map(|device| Place {
            device,
            from: hours.start,
        })
    }
}

/// How far a part reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// The last device.
    pub(super) until: i32,
    /// How many readings, about.
    pub(super) most: usize,
}

/// Hours of a device that are passed over.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// `None` means that no device is left.
    pub(super) device: Option<i32>,
    /// `None` means that it has no readings.
    pub(super) hours: Option<Range<Timestamp>>,
    /// Where the next part begins; `None` means at no place.
    pub(super) next: Option<Place>,
}

impl Passed {
    /// All hours of a device, from a place on.
    pub(super) fn device(Place { device, from }: Place, hours: &Range<Timestamp>) -> Self {
        Passed {
            device: Some(device),
            hours: Some(from..hours.end),
            next: Place::after(device, hours),
        }
    }
}

/// A part of a slice.
#[derive(Default)]
pub(super) struct Part {
    /// The devices that were looked at.
    pub(super) devices: Vec<i32>,
    /// Each device-hour that has readings; `None` where they must be read.
    pub(super) rollups: Vec<(DeviceHour, Option<Growing>)>,
    /// How many readings were read.
    pub(super) readings: usize,
    /// Where the next part begins. `None` means that this was the last.
    pub(super) next: Option<Place>,
}

/// Rolls up the next readings of some hours, device by device, as far as they reach.
///
/// Shape:  `around` holds the hours, and all partitions in which they lie
/// Order:  by device and hour
pub(super) async fn roll_up_next(
    work: &Transaction<'_>,
    stream: Stream,
    hours: &Range<Timestamp>,
    around: &Range<Timestamp>,
    place: Place,
    Reach { until, most }: Reach,
) -> Result<Part, Error> {
    let text = match stream {
        Stream::Meter => sql!("hour_slice_meters"),
        Stream::Vehicle => sql!("hour_slice_vehicles"),
    };
    let statement = work.prepare(text).await?;
    let limit = most as i64;
    let parameters: [&(dyn ToSql + Sync); 8] = [
        &place.device,
        &place.from,
        &hours.start,
        &hours.end,
        &around.start,
        &around.end,
        &limit,
        &until,
    ];
    let rows = work.query_raw(&statement, parameters).await?;
    pin_mut!(rows);
    let mut part = Part::default();
    let mut open: Option<(DeviceHour, State)> = None;
    let (mut read, mut has_readings) = (0, false);
    while let Some(row) = rows.try_next().await? {
        read += 1;
        let (device, at): (i32, Option<Timestamp>) = (row.try_get(0)?, row.try_get(1)?);
        if part.devices.last() != Some(&device) {
            part.devices.push(device);
        }
        has_readings = at.is_some();
        let Some(at) = at else {
            continue;
        };
        part.readings += 1;
        let hour = (device, at.hour());
        if open.as_ref().is_none_or(|(other, _)| *other != hour) {
            let closed = open.replace((hour, State::of(None)));
            part.rollups
                .extend(closed.map(|(hour, state)| (hour, state.finish())));
        }
        if let Some((_, state)) = &mut open {
            state.push(measured(&row, stream)?);
        }
    }
    let last = part.devices.last().copied().filter(|_| read >= most);
    part.next = Place::after(last.unwrap_or(until), hours);
    let Some((hour, state)) = open else {
        return Ok(part);
    };
    let mut rollup = state.finish();
    if read >= most && has_readings {
        part.next = Place::behind(hour, hours);
        if let Some(begun) = rollup {
            let rest = Span {
                base: Some(begun),
                ..Span::whole(hour)
            };
            let (rest, readings) = roll_up(work, stream, vec![rest]).await?;
            rollup = rest.into_iter().next().flatten();
            part.readings += readings;
        }
    }
    part.rollups.push((hour, rollup));
    Ok(part)
}

/// Finds the next device-hour of some hours, without its readings.
pub(super) async fn next_hour(
    client: &Client,
    stream: Stream,
    hours: &Range<Timestamp>,
    around: &Range<Timestamp>,
    place: Place,
) -> Result<Passed, Error> {
    let text = match stream {
        Stream::Meter => sql!("hour_slice_meters"),
        Stream::Vehicle => sql!("hour_slice_vehicles"),
    };
    let parameters: [&(dyn ToSql + Sync); 8] = [
        &place.device,
        &place.from,
        &hours.start,
        &hours.end,
        &around.start,
        &around.end,
        &1_i64,
        &i32::MAX,
    ];
    let Some(row) = client.query_opt(text, &parameters).await? else {
        return Ok(Passed::default());
    };
    let (device, at): (i32, Option<Timestamp>) = (row.try_get(0)?, row.try_get(1)?);
    let hour = at.map(Timestamp::hour);
    Ok(Passed {
        device: Some(device),
        hours: hour.map(|hour| hour..hour.plus_micros(HOUR_MICROS)),
        next: match hour {
            Some(hour) => Place::behind((device, hour), hours),
            None => Place::after(device, hours),
        },
    })
}

/// The first place of the next registered device, whether or not it has readings.
pub(super) async fn next_registered(
    client: &Client,
    stream: Stream,
    hours: &Range<Timestamp>,
    place: Place,
) -> Result<Option<Place>, Error> {
    let text = match stream {
        Stream::Meter => sql!("hour_devices_meters"),
        Stream::Vehicle => sql!("hour_devices_vehicles"),
    };
    let before = place.device.saturating_sub(1);
    let Some(row) = client.query_opt(text, &[&before, &1_i64]).await? else {
        return Ok(None);
    };
    let device = row.try_get(0)?;
    let from = match device == place.device {
        true => place.from,
        false => hours.start,
    };
    Ok(Some(Place { device, from }))
}

/// Rolls up the readings of the first spans, as many as one transaction takes. Returns their rollups (`None` where
/// the readings must be read) and the number of readings.
///
/// Order:  as the spans
pub(super) async fn roll_up(
    work: &Transaction<'_>,
    stream: Stream,
    spans: Vec<Span>,
) -> Result<(Vec<Option<Growing>>, usize), Error> {
    let text = match stream {
        Stream::Meter => sql!("hour_readings_meters"),
        Stream::Vehicle => sql!("hour_readings_vehicles"),
    };
    let statement = work.prepare(text).await?;
    let devices: Vec<i32> = spans.iter().map(|span| span.hour.0).collect();
    let mut after: Vec<Timestamp> = spans.iter().map(Span::after).collect();
    let to: Vec<Timestamp> = spans.iter().map(|span| span.to).collect();
    let (low, high) = (after.iter().min().copied(), to.iter().max().copied());
    let mut rollups: Vec<State> = spans.into_iter().map(|span| State::of(span.base)).collect();
    let (mut first, mut end, mut count) = (0, rollups.len(), 0);
    loop {
        let (some, page) = (first..end, READINGS_PER_TRANSACTION as i64);
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &devices.get(some.clone()),
            &after.get(some.clone()),
            &to.get(some),
            &low,
            &high,
            &page,
        ];
        let rows = work.query_raw(&statement, parameters).await?;
        pin_mut!(rows);
        let (mut read, mut last) = (0, None);
        while let Some(row) = rows.try_next().await? {
            // Ordinality counts from 1.
            let wish: i32 = row.try_get(0)?;
            let place = first + wish as usize - 1;
            let measured = measured(&row, stream)?;
            if let Some(state) = rollups.get_mut(place) {
                state.push(measured);
            }
            if let Some((before, _)) = last.replace((place, measured.reading.at))
                && before != place
                && let Some(state) = rollups.get_mut(before)
            {
                state.add();
            }
            read += 1;
        }
        count += read;
        match last {
            // The next page continues after the last reading.
            Some((place, at)) if read >= READINGS_PER_TRANSACTION => {
                (first, end) = (place, place + 1);
                if let Some(after) = after.get_mut(place) {
                    *after = at;
                }
            }
            _ => break,
        }
    }
    let finished = rollups.into_iter().take(end).map(State::finish);
    Ok((finished.collect(), count))
}

/// A rollup that is being made.
struct State {
    rolled_up: Option<Growing>,
    /// Some of its readings must be read one by one.
    has_failed: bool,
    /// Readings that are not added yet.
    next: Vec<Measured>,
}

impl State {
    fn of(base: Option<Growing>) -> Self {
        State {
            rolled_up: base,
            has_failed: false,
            next: Vec::new(),
        }
    }

    fn push(&mut self, measured: Measured) {
        if self.has_failed {
            return;
        }
        self.next.push(measured);
        if self.next.len() >= ADDED_AT_ONCE {
            self.add();
        }
    }

    /// Adds what was pushed. Readings that are out of order are found by the arithmetic, and have no rollup.
    fn add(&mut self) {
        let next = std::mem::take(&mut self.next);
        let Some((first, later)) = next.split_first() else {
            return;
        };
        self.rolled_up = match self.rolled_up {
            Some(rolled_up) => rolled_up.extended(&next),
            None => Growing::begin(*first).and_then(|begun| begun.extended(later)),
        };
        self.has_failed = self.rolled_up.is_none();
    }

    fn finish(mut self) -> Option<Growing> {
        self.add();
        self.rolled_up
    }
}

fn measured(row: &Row, stream: Stream) -> Result<Measured, Error> {
    let (interval, register): (Option<f64>, Option<f64>) = (row.try_get(2)?, row.try_get(3)?);
    let kind = match register {
        Some(_) => EnergyKind::Register,
        None => EnergyKind::Interval,
    };
    let kwh = register.or(interval).unwrap_or_default();
    let (battery_temp, is_named) = match stream {
        Stream::Meter => (0.0, false),
        Stream::Vehicle => {
            let named: [Option<i32>; 2] = [row.try_get(5)?, row.try_get(6)?];
            (row.try_get(4)?, named.iter().any(Option::is_some))
        }
    };
    Ok(Measured {
        reading: EnergyReading {
            at: row.try_get(1)?,
            energy: Energy { kwh, kind },
        },
        battery_temp,
        is_named,
    })
}
