//! Rolls up new and older hours: slice by slice, and each slice part by part.
//!
//! A part is one transaction. It stores where its slice goes on, and with the last part that the slice is rolled up. So
//! whatever ends a roller, the next one repeats at most one part.

use std::ops::Range as Span;
use std::time::Instant;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Transaction};

use super::build::{add, remove_existing, snapshot};
use super::failures::{may_be_its_fault, passed_over};
use super::listing::Listing;
use super::readings::{self, Part, Passed, Place, Reach};
use super::slice::{self, Slice};
use super::stored::{self, Kind};
use super::{CHECK_EVERY, Roller};
use crate::metrics;
use crate::reading::{Stream, Timestamp};

/// While no readings arrive, one transaction reads this many times as many readings of a slice; about 200 ms.
const TIMES_WHILE_IDLE: usize = 5;

/// Which hours are rolled up, and which could be.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    /// Older hours that start before it are not rolled up.
    pub(super) floor: Timestamp,
    /// The same for new hours.
    pub(super) floor_of_new: Timestamp,
    /// The hours that are rolled up.
    pub(super) built: Span<Timestamp>,
    /// Where the hours end that have passed. No transaction stores further readings of them without a mark.
    pub(super) newest: Timestamp,
}

impl Bounds {
    /// Where the next new hours begin. After a long pause the floor may have passed the first of them; the last hour is
    /// always rolled up.
    fn first_new(&self) -> Timestamp {
        let last = slice::before(self.newest);
        self.built.end.max(self.floor_of_new.hour().min(last))
    }

    /// Whether a slice of new hours that was begun can go on.
    fn goes_on(&self, slice: &Slice) -> bool {
        let (first, start) = (self.first_new(), slice.hours.start);
        let is_behind_gap = start > self.built.end && first > self.built.end;
        let is_next = start == self.built.end || is_behind_gap;
        // With a short retention, the floor lies beyond all hours, and the last one is rolled up all the same.
        let is_kept = start >= first || slice.is_kept(self.floor_of_new);
        is_next && slice.hours.end <= self.newest && is_kept
    }

    /// What is rolled up once a slice is done.
    fn with(&self, kind: Kind, slice: &Slice) -> Span<Timestamp> {
        match kind {
            // Hours are missing between.
            Kind::New if slice.hours.start > self.built.end => slice.hours.clone(),
            Kind::New => self.built.start..slice.hours.end,
            Kind::Older => slice.hours.start..self.built.end,
        }
    }
}

impl Roller {
    /// Rolls up the next parts of the hours that have passed since the last step. `false` means that there are none.
    pub(super) async fn new_hours(
        &mut self,
        client: &mut Client,
        listing: &Listing,
        bounds: &Bounds,
    ) -> Result<bool, Error> {
        if bounds.built.end >= bounds.newest {
            return Ok(false);
        }
        let begun = stored::load(client, Kind::New).await?;
        let slice = match begun.filter(|slice| bounds.goes_on(slice)) {
            Some(slice) => slice,
            None => {
                let first = bounds.first_new();
                let most = match slice::before(bounds.newest) <= first {
                    true => 1,
                    false => self.hours_max(client, listing, Kind::New, first).await?,
                };
                let ranges = listing.bounded();
                Slice::new(slice::newer(&ranges, first, bounds.newest, most))
            }
        };
        self.some_parts(client, listing, Kind::New, slice, bounds)
            .await?;
        Ok(true)
    }

    /// Rolls up the next parts of the hours before those that are rolled up. `false` means that there are none.
    pub(super) async fn older_hours(
        &mut self,
        client: &mut Client,
        listing: &Listing,
        bounds: &Bounds,
    ) -> Result<bool, Error> {
        let (floor, ranges) = (bounds.floor, listing.bounded());
        let Some(hour) = slice::hour_before(&ranges, floor, bounds.built.start) else {
            return Ok(false);
        };
        let begun = stored::load(client, Kind::Older).await?;
        let begun = begun.filter(|slice| slice.ends_with(hour) && slice.is_kept(floor));
        let slice = match begun {
            Some(slice) => slice,
            None => {
                let most = self.hours_max(client, listing, Kind::Older, hour).await?;
                Slice::new(slice::older(&ranges, floor, hour, most))
            }
        };
        self.some_parts(client, listing, Kind::Older, slice, bounds)
            .await?;
        Ok(true)
    }

    /// Rolls up the next parts of a slice, for as long as a step takes.
    async fn some_parts(
        &mut self,
        client: &mut Client,
        listing: &Listing,
        kind: Kind,
        mut slice: Slice,
        bounds: &Bounds,
    ) -> Result<(), Error> {
        let began = Instant::now();
        while !self.part(client, listing, kind, &mut slice, bounds).await?
            && began.elapsed() < self.step_for
        {}
        Ok(())
    }

    /// Rolls up the next part of a slice in one transaction, and yields. Returns whether the slice has ended.
    async fn part(
        &mut self,
        client: &mut Client,
        listing: &Listing,
        kind: Kind,
        slice: &mut Slice,
        bounds: &Bounds,
    ) -> Result<bool, Error> {
        let Some(spot) = slice.place() else {
            return Ok(true);
        };
        let began = Instant::now();
        let usual = match self.yields() {
            true => self.per_transaction,
            false => self.per_transaction * TIMES_WHILE_IDLE,
        };
        let (stream, place) = spot;
        let alone = self.failures.of(kind).goes_alone(spot);
        let registered = match alone {
            true => readings::next_registered(client, stream, &slice.hours, place).await?,
            false => None,
        };
        let spot = (stream, registered.unwrap_or(place));
        let (reach, is_hopeless) = {
            let failures = self.failures.of(kind);
            (failures.reach(spot, usual), failures.is_hopeless(spot))
        };
        let around = slice::around(&listing.ranges[stream], &slice.hours);
        let done = if alone && registered.is_none() {
            let end = Passed::default();
            pass_over(client, kind, slice, bounds, spot, end).await
        } else if alone && is_hopeless {
            let device = Passed::device(spot.1, &slice.hours);
            pass_over(client, kind, slice, bounds, spot, device).await
        } else if is_hopeless {
            let next = readings::next_hour(client, stream, &slice.hours, &around, place);
            match next.await {
                Ok(hour) => pass_over(client, kind, slice, bounds, spot, hour).await,
                // Not even its times can be read.
                Err(error) if !client.is_closed() && may_be_its_fault(error.code()) => {
                    self.failures.of(kind).goes_on_alone();
                    return Ok(false);
                }
                Err(error) => Err(error),
            }
        } else {
            roll_up(client, kind, slice, &around, bounds, spot, reach).await
        };
        match &done {
            Ok(done) => {
                let mut failures = self.failures.of(kind);
                failures.succeeds(spot, done.looked_at, usual);
                failures.comes_to(spot, slice.next[stream], done.passed);
            }
            Err(error) => {
                let worked = began.elapsed();
                self.failures
                    .of(kind)
                    .fails(spot, reach.most, worked, error);
            }
        }
        let done = done?;
        self.readings += done.readings as u64;
        metrics::rolled_up(done.device_hours, began.elapsed());
        if !done.is_stored {
            // What is rolled up was changed meanwhile, by an operator perhaps. The next step begins with that.
            tokio::time::sleep(CHECK_EVERY).await;
            return Ok(true);
        }
        self.yield_after(began.elapsed()).await;
        Ok(slice.place().is_none())
    }
}

/// What a part has done.
#[derive(Debug, Default)]
struct Done {
    /// Whether it was committed.
    is_stored: bool,
    device_hours: usize,
    readings: usize,
    /// Readings, or devices without any.
    looked_at: usize,
    /// A device of which hours were passed over.
    passed: Option<i32>,
}

/// Rolls up the next part of a slice in one transaction.
async fn roll_up(
    client: &mut Client,
    kind: Kind,
    slice: &mut Slice,
    around: &Span<Timestamp>,
    bounds: &Bounds,
    (stream, place): (Stream, Place),
    reach: Reach,
) -> Result<Done, Error> {
    let work = snapshot(client).await?;
    let hours = &slice.hours;
    let part = readings::roll_up_next(&work, stream, hours, around, place, reach).await?;
    remove_existing(&work, stream, &slice.hours, place, &part).await?;
    let mut done = Done {
        is_stored: false,
        device_hours: part.rollups.len(),
        readings: part.readings,
        looked_at: part.readings.max(part.devices.len()),
        passed: None,
    };
    add(&work, stream, part.rollups).await?;
    slice.next[stream] = part.next;
    if advance(&work, kind, slice, bounds).await? {
        work.commit().await?;
        done.is_stored = true;
    }
    Ok(done)
}

/// Passes over hours of a device in a slice, because they cannot be rolled up. Without a rollup they are read from
/// history.
async fn pass_over(
    client: &mut Client,
    kind: Kind,
    slice: &mut Slice,
    bounds: &Bounds,
    (stream, place): (Stream, Place),
    passed: Passed,
) -> Result<Done, Error> {
    let part = Part {
        devices: passed.device.into_iter().collect(),
        next: passed.next,
        ..Part::default()
    };
    let work = snapshot(client).await?;
    remove_existing(&work, stream, &slice.hours, place, &part).await?;
    slice.next[stream] = part.next;
    let is_stored = advance(&work, kind, slice, bounds).await?;
    if is_stored {
        work.commit().await?;
        if let Some((device, hours)) = passed.device.zip(passed.hours) {
            passed_over(stream, device, hours);
        }
    }
    Ok(Done {
        is_stored,
        looked_at: 1,
        passed: passed.device,
        ..Done::default()
    })
}

/// Stores where a slice goes on, or that it is rolled up. `false` means that other hours are rolled up than those that
/// were when it was chosen.
async fn advance(
    work: &Transaction<'_>,
    kind: Kind,
    slice: &Slice,
    bounds: &Bounds,
) -> Result<bool, Error> {
    if slice.place().is_some() {
        stored::put(work, kind, slice).await?;
        return Ok(true);
    }
    stored::end(work, kind).await?;
    let (built, before) = (bounds.with(kind, slice), &bounds.built);
    let parameters: [&(dyn ToSql + Sync); 4] =
        [&built.start, &built.end, &before.start, &before.end];
    Ok(work.execute(sql!("hours_built"), &parameters).await? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::HOUR_MICROS;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_micros(hour * HOUR_MICROS)
    }

    fn bounds(floor: i64) -> Bounds {
        Bounds {
            floor: at(floor),
            floor_of_new: at(floor),
            built: at(100)..at(200),
            newest: at(300),
        }
    }

    #[test]
    fn new_hours_after_a_pause_begin_at_the_floor() {
        assert_eq!(bounds(0).first_new(), at(200));
        // An hour includes its end.
        assert_eq!(bounds(251).first_new(), at(250));
        assert_eq!(bounds(500).first_new(), at(299));
        let built = |start, end| bounds(0).with(Kind::New, &Slice::new(at(start)..at(end)));
        assert_eq!(built(200, 210), at(100)..at(210));
        assert_eq!(built(250, 260), at(250)..at(260));
        let older = Slice::new(at(90)..at(100));
        assert_eq!(bounds(0).with(Kind::Older, &older), at(90)..at(200));
    }

    #[test]
    fn a_slice_of_new_hours_goes_on_where_they_still_are_new() {
        let slice = |start, end| Slice::new(at(start)..at(end));
        assert!(bounds(0).goes_on(&slice(200, 210)));
        assert!(!bounds(0).goes_on(&slice(199, 210)));
        assert!(!bounds(0).goes_on(&slice(201, 210)));
        // The watermark was moved back.
        assert!(!bounds(0).goes_on(&slice(200, 301)));
        // It began at the floor, which has moved since.
        assert!(bounds(251).goes_on(&slice(245, 255)));
        assert!(bounds(251).goes_on(&slice(238, 255)));
        assert!(!bounds(251).goes_on(&slice(237, 255)));
        assert!(!bounds(251).goes_on(&slice(200, 255)));
        // The retention is so short that the floor lies beyond all hours.
        assert!(bounds(318).goes_on(&slice(299, 300)));
    }
}
