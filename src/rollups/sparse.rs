//! Partitions with few readings: all their hours are rolled up in one pass, from the readings that are there.
//!
//! One device whose clock was wrong makes partitions of months long past. To look at each of their hours, for
//! each device that is registered, would take hours for a few readings.

use std::collections::BTreeSet;
use std::ops::Range as Span;

use tokio_postgres::{Client, Error};

use super::DeviceHour;
use crate::postgres::partitions;
use crate::postgres::partitions::Range;
use crate::reading::{HOUR_MICROS, PerStream, Stream, Timestamp};

/// The most readings that are rolled up in one pass, of one stream: it bounds the memory for their keys.
const READINGS_MAX: usize = 100_000;

/// The hours below an instant that can be rolled up in one pass.
pub(super) struct Stretch {
    /// All readings of these hours belong to the device-hours found. Empty if it begins in a full partition.
    pub(super) hours: Span<Timestamp>,
    /// The device-hours with readings, as far as a stream's partitions were searched, sorted by hour; `None` if
    /// a full partition of the stream reaches into the newest hour.
    pub(super) found: PerStream<Option<Vec<DeviceHour>>>,
}

/// The partitions that are known to hold more than one pass may read.
#[derive(Default)]
pub(super) struct Full(PerStream<BTreeSet<Range>>);

impl Full {
    /// Searches for the longest stretch of hours that ends where `to` does, not below `floor`.
    ///
    /// Readings that are stored later leave a mark, because the stretch lies below the watermark.
    ///
    /// Shape:  the partitions of both streams, ascending
    pub(super) async fn stretch(
        &mut self,
        client: &Client,
        partitions: &PerStream<Vec<Range>>,
        floor: Timestamp,
        to: Timestamp,
    ) -> Result<Stretch, Error> {
        let mut from = floor.hour();
        let mut found: PerStream<Option<Vec<DeviceHour>>> = PerStream::default();
        let below = |stream| {
            let all: &[Range] = &partitions[stream];
            all.iter().rev().filter(|range| range.from <= to)
        };
        let both = Stream::ALL.into_iter().flat_map(below);
        // A reading at the start of a partition belongs to the hour that ends there.
        match both.map(|range| range.from.hour()).min() {
            Some(lowest) => from = from.max(lowest),
            None => from = to,
        }
        for stream in Stream::ALL {
            let mut hours = BTreeSet::new();
            let mut left = READINGS_MAX;
            let mut end = from;
            let mut names = None;
            for range in below(stream) {
                if range.to <= end {
                    continue;
                }
                if range.is_open_below() || self.0[stream].contains(range) {
                    // Open below is also all of time, the range of a default partition.
                    end = to.min(after(range.to));
                    continue;
                }
                let names = match &mut names {
                    Some(names) => names,
                    none => none.insert(partitions::named(client, stream).await?),
                };
                // One that was dropped meanwhile holds nothing.
                let Some((_, name)) = names.iter().find(|(named, _)| named == range) else {
                    continue;
                };
                match self.read(client, stream, (*range, name), left).await? {
                    Some(keys) => {
                        left -= keys.count;
                        hours.extend(keys.hours);
                    }
                    None => end = to.min(after(range.to)),
                }
            }
            from = from.max(end);
            found[stream] = (end < to).then(|| {
                let sorted = hours.into_iter();
                sorted.map(|(hour, device)| (device, hour)).collect()
            });
        }
        Ok(Stretch {
            hours: from..to,
            found,
        })
    }

    /// Reads which device-hours a partition holds; `None` if it has more than `most` readings.
    async fn read(
        &mut self,
        client: &Client,
        stream: Stream,
        (range, name): (Range, &str),
        most: usize,
    ) -> Result<Option<Keys>, Error> {
        let found = partitions::keys(client, stream, name, most).await?;
        let keys = Keys {
            count: found.len(),
            hours: found
                .into_iter()
                .map(|(device, at)| (at.hour(), device))
                .collect(),
        };
        if keys.count <= most {
            return Ok(Some(keys));
        }
        if most == READINGS_MAX {
            self.0[stream].insert(range);
        }
        Ok(None)
    }
}

/// The device-hours of a partition.
struct Keys {
    count: usize,
    hours: BTreeSet<(Timestamp, i32)>,
}

/// The start of the first hour that lies behind an instant as a whole.
fn after(at: Timestamp) -> Timestamp {
    at.hour().plus_micros(HOUR_MICROS)
}
