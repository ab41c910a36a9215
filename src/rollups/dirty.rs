//! Rolls up dirty hours again, pass by pass.
//!
//! A pass gets a number, and the roller waits until every transaction that may know only an older number has finished.
//! Then the pass takes the marks of earlier passes, in the order of their key. A mark of the pass itself stays, because
//! writers leave no second mark for later readings. Its hour is rolled up to the mark's earliest reading, so the next
//! pass reads only what is new, and no reading twice.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, Row, Transaction};

use super::build::{DEVICES_MAX, Done, by_hour, remove, roll_up, snapshot};
use super::failures::passed_over;
use super::readings::{Place, Span};
use super::slice::LEAST;
use super::watermark::Older;
use super::{DeviceHour, Roller, load};
use crate::energy::device::EnergyReading;
use crate::energy::exact::temperature_sum;
use crate::energy::hour::{Growing, RolledUp, Summary, Whole};
use crate::energy::interval::Interval;
use crate::metrics;
use crate::reading::{Energy, EnergyKind, HOUR_MICROS, PerStream, Stream, Timestamp};

/// The most marks that one transaction reads.
const MARKS_MAX: i64 = 4_000;
/// How often a pass begins while readings arrive. Why: late readings come in bursts, and a pass may read the hours
/// of each as a whole. Until then the hours are read from history.
const EVERY: Duration = Duration::from_secs(30);
/// How long after a pass the next one may begin at the earliest. While passes follow each other, the pause doubles up
/// to [`EVERY`], because another gateway may store a burst that this gateway's log does not show.
const PAUSE: Duration = Duration::from_secs(2);
/// Before each mark.
const FIRST: DeviceHour = (i32::MIN, LEAST);

/// How far the dirty hours are rolled up again.
pub(super) struct DirtyPass {
    state: State,
    /// When the last pass ended.
    ended: Option<Instant>,
    /// How long after it the next one may begin.
    pause: Duration,
}

enum State {
    /// No pass is under way.
    Between,
    /// The pass of this number has begun, and older transactions may still leave marks of earlier ones.
    Begun(i64, Older),
    /// The pass is under way.
    Pass(Pass),
}

/// The progress of a pass. It has processed the device-hours up to `after`, and ends at `last`, the last ones when it
/// began. It goes no further, because marks of this pass may be added there while it runs.
#[derive(Clone, Copy)]
struct Pass {
    number: i64,
    after: PerStream<DeviceHour>,
    last: PerStream<Option<DeviceHour>>,
}

/// What a step has done for dirty hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing to do now.
    Nothing,
    /// A pass waits for older transactions.
    Waits,
    /// Some hours are rolled up again, or a pass has ended.
    Done,
}

impl Default for DirtyPass {
    fn default() -> Self {
        DirtyPass {
            state: State::Between,
            ended: None,
            pause: Duration::ZERO,
        }
    }
}

impl DirtyPass {
    /// Whether passes follow each other, which shows that readings arrive somewhere.
    pub(super) fn is_repeated(&self) -> bool {
        let since = self.ended.map(|ended| ended.elapsed());
        let goes_on = !matches!(self.state, State::Between);
        self.pause > PAUSE && (goes_on || since.is_some_and(|since| self.follows(since)))
    }

    /// Whether a pass that begins this long after the last one counts as following it.
    fn follows(&self, since: Duration) -> bool {
        since < 2 * self.pause + PAUSE
    }

    fn ends(&mut self) {
        self.state = State::Between;
        self.ended = Some(Instant::now());
    }

    /// Records that a pass begins this long after the end of the last one.
    fn begins(&mut self, since: Option<Duration>) {
        self.pause = match since {
            Some(since) if self.follows(since) => (2 * self.pause).clamp(PAUSE, EVERY),
            _ => PAUSE,
        };
    }
}

/// A dirty device-hour, combined from all of its marks.
struct Dirty {
    hour: DeviceHour,
    /// The earliest reading that its rollup may lack; `None` means any.
    earliest: Option<Timestamp>,
    /// The earliest reading of the marks that the pass does not take.
    staying: Option<Timestamp>,
    /// Whether the pass takes one of its marks.
    is_taken: bool,
}

impl Dirty {
    fn span(&self, base: Option<Growing>) -> Span {
        let end = self.hour.1.plus_micros(HOUR_MICROS);
        Span {
            hour: self.hour,
            // Up to its last reading, the rollup lacks none.
            base: base.filter(|base| self.earliest.is_some_and(|at| at > base.last_at())),
            to: self.staying.map_or(end, |at| end.min(at.plus_micros(-1))),
        }
    }
}

impl Roller {
    /// Does the next part of a pass over the dirty hours, or begins one if it is due.
    ///
    /// A pass takes each device-hour once, in the order of the marks' key, so it ends even if new marks are made
    /// meanwhile.
    pub(super) async fn dirty(
        &mut self,
        client: &mut Client,
        floor: Timestamp,
    ) -> Result<Step, Error> {
        let (number, older) = match self.dirty_pass.state {
            State::Pass(pass) => return self.go_on(client, pass, floor).await,
            State::Begun(number, older) => (number, older),
            State::Between => {
                if !are_dirty(client).await? {
                    return Ok(Step::Nothing);
                }
                let since = self.dirty_pass.ended.map(|ended| ended.elapsed());
                if self.has_pauses && since.is_some_and(|since| since < self.dirty_pass.pause) {
                    return Ok(Step::Nothing);
                }
                let is_early = since.is_some_and(|since| since < EVERY);
                if is_early && self.arrivals.go_on().await {
                    return Ok(Step::Nothing);
                }
                // Late readings may have made partitions.
                self.listing = None;
                let row = client.query_one(sql!("hours_pass"), &[]).await?;
                if self.has_pauses {
                    self.dirty_pass.begins(since);
                }
                (row.try_get(0)?, Older::now(client).await?)
            }
        };
        if !older.have_finished(client).await? {
            self.dirty_pass.state = State::Begun(number, older);
            return Ok(Step::Waits);
        }
        let pass = Pass {
            number,
            after: PerStream::from_fn(|_| FIRST),
            last: last_marks(client).await?,
        };
        self.dirty_pass.state = State::Pass(pass);
        self.go_on(client, pass, floor).await
    }

    async fn go_on(
        &mut self,
        client: &mut Client,
        mut pass: Pass,
        floor: Timestamp,
    ) -> Result<Step, Error> {
        for stream in Stream::ALL {
            if let Some(last) = self.dirty_some(client, stream, pass, floor).await? {
                pass.after[stream] = last;
                self.dirty_pass.state = State::Pass(pass);
                return Ok(Step::Done);
            }
        }
        self.dirty_pass.ends();
        Ok(Step::Done)
    }

    /// Rolls up the next dirty hours of a pass again, and removes the marks that it takes. Returns the last of
    /// them; `None` at the end.
    ///
    /// A dirty hour can lie outside the hours that may have rollups: its mark survives when the watermark is moved
    /// back, and a late reading can fall below `floor`. Such an hour loses its rollup and is read from history.
    /// A rollup beyond the watermark would miss every later reading, because those leave no mark.
    async fn dirty_some(
        &mut self,
        client: &mut Client,
        stream: Stream,
        pass: Pass,
        floor: Timestamp,
    ) -> Result<Option<DeviceHour>, Error> {
        let Some(end) = pass.last[stream] else {
            return Ok(None);
        };
        let began = Instant::now();
        let work = snapshot(client).await?;
        let mut marks = marks(&work, stream, pass.number, pass.after[stream]).await?;
        marks.retain(|dirty| key(dirty.hour) <= key(end));
        let Some((device, from)) = marks.first().map(|dirty| dirty.hour) else {
            return Ok(None);
        };
        let spot = (stream, Place { device, from });
        // New marks may come before the part that has failed. It is tried again by itself, whatever they hold.
        let failed = self.failures.of_dirty().failed_after(spot);
        let is_hopeless = self.failures.of_dirty().is_hopeless(spot);
        if let Some((of, place)) = failed {
            let end = (place.device, place.from);
            marks.retain(|dirty| of != stream || key(dirty.hour) < key(end));
        } else {
            marks.truncate(self.failures.of_dirty().most(DEVICES_MAX));
        }
        if is_hopeless {
            marks.truncate(1);
        }
        let tried = marks.len();
        // A hopeless hour, too, loses its rollup and is read from history.
        let floor = (!is_hopeless).then_some(floor);
        let again = roll_up_again(work, stream, pass.number, marks, floor).await;
        match &again {
            Ok(again) if failed.is_none() => {
                let mut failures = self.failures.of_dirty();
                failures.succeeds(spot, again.device_hours, DEVICES_MAX);
            }
            Ok(_) => {}
            Err(error) => {
                let mut failures = self.failures.of_dirty();
                failures.fails(spot, tried, began.elapsed(), error);
            }
        }
        let again = again?;
        if is_hopeless {
            passed_over(stream, device, from..from.plus_micros(HOUR_MICROS));
        }
        self.readings += again.readings as u64;
        metrics::rolled_up(again.device_hours, began.elapsed());
        self.yield_after(began.elapsed()).await;
        Ok(Some(again.last))
    }
}

/// What a transaction over dirty hours has done.
struct Again {
    /// The last of them.
    last: DeviceHour,
    device_hours: usize,
    readings: usize,
}

/// Rolls up dirty hours again, those from the floor on, and removes the marks that the pass takes. Without a floor,
/// each hour loses its rollup.
///
/// Order:  as the marks' key; at least one
async fn roll_up_again(
    work: Transaction<'_>,
    stream: Stream,
    pass: i64,
    marks: Vec<Dirty>,
    floor: Option<Timestamp>,
) -> Result<Again, Error> {
    let mut last = marks.last().map_or(FIRST, |dirty| dirty.hour);
    let taken: Vec<Dirty> = marks.into_iter().filter(|dirty| dirty.is_taken).collect();
    let end = load(&work).await?.built().end;
    let may_have = |dirty: &Dirty| floor.is_some_and(|floor| (floor..end).contains(&dirty.hour.1));
    let mut all: Vec<DeviceHour> = taken.iter().map(|dirty| dirty.hour).collect();
    let (kept, rest): (Vec<Dirty>, Vec<Dirty>) = taken.into_iter().partition(may_have);
    let bases = bases(&work, stream, &kept).await?;
    let spans = kept.iter().zip(bases).map(|(dirty, base)| dirty.span(base));
    let Done { spans, readings } = roll_up(&work, stream, spans.collect()).await?;
    // The next transaction takes the others.
    if spans < kept.len()
        && let Some(done) = kept[..spans].last()
    {
        last = done.hour;
        all.retain(|hour| key(*hour) <= key(last));
    }
    let rest = rest.iter().map(|dirty| dirty.hour);
    let rest: Vec<DeviceHour> = rest.filter(|hour| key(*hour) <= key(last)).collect();
    remove(&work, stream, &rest).await?;
    let unmark = match stream {
        Stream::Meter => sql!("hour_unmark_meters"),
        Stream::Vehicle => sql!("hour_unmark_vehicles"),
    };
    by_hour(&work, unmark, &all, &[&pass]).await?;
    work.commit().await?;
    Ok(Again {
        last,
        device_hours: all.len(),
        readings,
    })
}

/// The order of the marks' key.
const fn key((device, hour): DeviceHour) -> (Timestamp, i32) {
    (hour, device)
}

/// The last dirty device-hours.
async fn last_marks(client: &Client) -> Result<PerStream<Option<DeviceHour>>, Error> {
    let row = client.query_one(sql!("hours_last_marks"), &[]).await?;
    let last = |at: usize| {
        let (hour, device): (Option<Timestamp>, Option<i32>) =
            (row.try_get(at)?, row.try_get(at + 1)?);
        Ok::<_, Error>(device.zip(hour))
    };
    Ok(PerStream {
        meter: last(0)?,
        vehicle: last(2)?,
    })
}

/// Whether any hour is dirty.
async fn are_dirty(client: &Client) -> Result<bool, Error> {
    let row = client.query_one(sql!("hours_first_marks"), &[]).await?;
    let first: [Option<Timestamp>; 2] = [row.try_get(0)?, row.try_get(1)?];
    Ok(first.iter().any(Option::is_some))
}

/// Reads the next dirty device-hours, each with all of its marks.
///
/// Order:  as the marks' key: by hour
async fn marks(
    work: &Transaction<'_>,
    stream: Stream,
    pass: i64,
    (device, hour): DeviceHour,
) -> Result<Vec<Dirty>, Error> {
    let sql = match stream {
        Stream::Meter => sql!("hour_marks_meters"),
        Stream::Vehicle => sql!("hour_marks_vehicles"),
    };
    let rows = work.query(sql, &[&MARKS_MAX, &hour, &device]).await?;
    let mut found: Vec<Dirty> = Vec::new();
    for row in &rows {
        let hour: DeviceHour = (row.try_get(1)?, row.try_get(0)?);
        let (made_in, earliest): (i64, Option<Timestamp>) = (row.try_get(2)?, row.try_get(3)?);
        let is_new = found.last().is_none_or(|last| last.hour != hour);
        if is_new {
            found.push(Dirty {
                hour,
                earliest,
                staying: None,
                is_taken: false,
            });
        }
        let Some(dirty) = found.last_mut() else {
            continue;
        };
        // `None` comes first.
        dirty.earliest = dirty.earliest.min(earliest);
        if made_in < pass {
            dirty.is_taken = true;
        } else {
            let at = earliest.unwrap_or(hour.1);
            dirty.staying = Some(dirty.staying.map_or(at, |before| before.min(at)));
        }
    }
    // The last may have more marks than were read. If it is the only one, all its readings are read.
    if rows.len() as i64 == MARKS_MAX {
        match &mut found[..] {
            [only] => only.earliest = None,
            _ => drop(found.pop()),
        }
    }
    found.truncate(DEVICES_MAX);
    Ok(found)
}

/// The rollups of those dirty hours that can be extended.
///
/// Order:  as the hours
async fn bases(
    work: &Transaction<'_>,
    stream: Stream,
    dirty: &[Dirty],
) -> Result<Vec<Option<Growing>>, Error> {
    let sql = match stream {
        Stream::Meter => sql!("hour_rows_meters"),
        Stream::Vehicle => sql!("hour_rows_vehicles"),
    };
    let statement = work.prepare(sql).await?;
    let mut bases = Vec::with_capacity(dirty.len());
    for hour in dirty.chunk_by(|a, b| a.hour.1 == b.hour.1) {
        let Some(start) = hour.first().map(|dirty| dirty.hour.1) else {
            continue;
        };
        let extended = hour.iter().filter(|dirty| dirty.earliest.is_some());
        let devices: Vec<i32> = extended.map(|dirty| dirty.hour.0).collect();
        let rows = match devices.is_empty() {
            true => Vec::new(),
            false => work.query(&statement, &[&devices, &start]).await?,
        };
        let mut found = HashMap::new();
        for row in &rows {
            let device: i32 = row.try_get(0)?;
            found.extend(base(row, stream)?.map(|base| (device, base)));
        }
        bases.extend(hour.iter().map(|dirty| found.remove(&dirty.hour.0)));
    }
    Ok(bases)
}

/// Decodes a stored rollup. `None` means that its times are not an interval.
fn base(row: &Row, stream: Stream) -> Result<Option<Growing>, Error> {
    let kind = match row.try_get(5)? {
        true => EnergyKind::Register,
        false => EnergyKind::Interval,
    };
    let end = |at: usize, kwh: usize| {
        Ok::<_, Error>(EnergyReading {
            at: row.try_get(at)?,
            energy: Energy {
                kwh: row.try_get(kwh)?,
                kind,
            },
        })
    };
    let (first, last) = (end(1, 3)?, end(2, 4)?);
    let counts: [i32; 3] = [row.try_get(6)?, row.try_get(8)?, row.try_get(9)?];
    let [readings, resets, suspect] = counts.map(|n| u64::try_from(n).unwrap_or(0));
    let (ends_temp, temperature_sum) = match stream {
        Stream::Meter => ([0.0; 2], 0),
        Stream::Vehicle => (
            [row.try_get(11)?, row.try_get(12)?],
            temperature_sum(row.try_get(13)?, row.try_get(14)?),
        ),
    };
    let Some(interval) = Interval::new(first.at, last.at) else {
        return Ok(None);
    };
    Ok(Some(Growing::resume(&Whole {
        summary: Summary {
            first,
            last,
            rolled_up: RolledUp {
                interval,
                between: readings.saturating_sub(2),
                mwh: row.try_get(7)?,
                resets,
                suspect,
                temperature_sum,
            },
            power_watts: row.try_get(10)?,
        },
        ends_temp,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_between_passes_grows_while_they_follow_each_other() {
        let mut pass = DirtyPass::default();
        pass.begins(None);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.push(pass.pause.as_secs());
            let next = pass.pause + Duration::from_secs(1);
            pass.begins(Some(next));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30]);
        assert!(!pass.follows(Duration::from_secs(62)));
        pass.begins(Some(Duration::from_secs(62)));
        assert_eq!(pass.pause, PAUSE);
    }
}
