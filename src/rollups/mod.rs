//! Rolls up the hours of devices that have passed, so that long windows need not read every reading.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod` | when hours are rolled up, and in which order |
//! | `arrivals` | whether readings arrive |
//! | `watermark` | the transactions that must end before the watermark holds |
//! | `hours` | rolls up new and older hours, slice by slice |
//! | `slice` | which hours a slice has |
//! | `fill` | how full the hours of a partition are |
//! | `listing` | the partitions of history |
//! | `stored` | where slices go on, as the database has it |
//! | `build` | rolls up some device-hours in one transaction |
//! | `failures` | what follows from parts that fail |
//! | `readings` | reads the readings of device-hours page by page, and adds them up |
//! | `dirty` | rolls up dirty hours again, pass by pass |
//!
//! One gateway of a database rolls up at a time ([`postgres::leader`](crate::postgres::leader)). First come
//! the hours that have passed since the last step. Then come the hours that late readings have made
//! dirty, and last the older hours, backward. New and older hours are rolled up slice by slice, each device by device.
//! An hour without a rollup is read from history, so a late rollup costs time and never makes an answer wrong.
//!
//! # Rules
//!
//! - **A rollup row is valid in any snapshot that has no dirty mark for its hour.** A batch's first statement
//!   gives its transaction an id. The batch then reads the watermark, and marks as dirty each older hour for
//!   which it stores a reading. The roller moves the watermark, commits, and waits until every transaction with
//!   an older id has finished. All later transactions see the new watermark. One REPEATABLE READ transaction
//!   then reads dirty marks and readings, replaces the rows, and deletes marks that it read. Marks
//!   are only ever added: `on conflict do nothing` would lose a mark made while an older one is processed.
//! - **A mark of a pass stands until a later pass.** A session leaves a mark of (device, hour) once in a pass, and
//!   again only for readings before the mark's earliest. The roller begins a pass by giving it the next number, and
//!   waits as it does after moving the watermark. So each transaction that stores a reading later has a mark of this
//!   pass, and the roller deletes marks of earlier passes only. In any snapshot, a reading that the row lacks is not
//!   before the earliest of the hour's marks. So a row whose last reading lies before all of them is extended, and
//!   otherwise all readings of the hour are read again.
//! - **Rollups of gateways that know no passes are kept away.** They delete every mark that they see. Such a
//!   rollup needs a lock exclusively. A session whose marks must last for a whole pass takes it in share mode, and so
//!   does the roller.
//! - **A rollup row is valid only within the built hours.** None of them lies beyond the watermark, where
//!   readings leave no mark. If a clock was ahead, the watermark is moved back, and all rows beyond it are
//!   removed. A dirty hour outside the built hours loses its mark together with its row.
//! - **Each part of a slice stores where the slice goes on**, in its own transaction, and the last one that the slice's
//!   hours are rolled up. Until then its rows are outside the built hours. Those of older hours have marks like all
//!   others. Above the built hours a pass would take a mark with its row, so passes begin only when all new hours are
//!   rolled up.
//! - **A part that fails is tried again at half the size**, after a rest that grows. A device-hour that fails alone
//!   three times is passed over, logged and counted: without a rollup it is read from history, and all others go on.
//! - **Rollups are removed before their partition is dropped**, so that no answer outlives its readings.
//! - **A burst of late readings costs one rollup.** While readings arrive, dirty hours wait for the next pass. The
//!   pause between successive passes grows to half a minute, because another gateway may store the burst.
//! - **Work is in proportion to the readings that are there**, not to the hours or devices that could have some.
//! - **A wait for older transactions holds up nothing else.** A step looks once, and goes on with other hours.
//! - **The roller yields.** While readings arrive, it rests after an hour that has just passed for as long as it
//!   worked, and for older and for dirty hours nine times as long: a tenth of a core. While readings have waited
//!   in the log for over a second, it does nothing.
//! - **Nothing finer than an hour is rolled up.** Rows of five minutes would add more than a fifth to the cost
//!   of every reading, and only save the work of one ranking per minute.

mod arrivals;
mod build;
mod dirty;
mod failures;
mod fill;
mod hours;
mod listing;
mod readings;
mod slice;
mod stored;
mod watermark;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, GenericClient};

use self::arrivals::Arrivals;
use self::dirty::Step;
use self::failures::Failures;
use self::fill::Fill;
use self::hours::Bounds;
use self::listing::Listing;
use self::readings::READINGS_PER_TRANSACTION;
use self::watermark::Older;
use crate::metrics;
use crate::postgres::leader::{ROLLUP_WITHOUT_PASSES, Role, Success, Work};
use crate::postgres::migrations::stored_retention;
use crate::postgres::{Target, Use, explain, partitions};
use crate::reading::{HOUR_MICROS, PerStream, Timestamp};

/// One gateway of a database rolls up hours.
const ROLE: Role = Role {
    work: "the hourly rollup",
    session: "wattgate summaries",
    purpose: Use::Rollup,
    lock_key: i64::from_be_bytes(*b"wg-rolls"),
    shared_key: Some(ROLLUP_WITHOUT_PASSES),
    table: "hours_slices",
};
/// How long after its end an hour passes below the watermark. Why: nearly every reading has arrived by
/// then; each later one makes its hour dirty, which is then rolled up again.
const WATERMARK_BEHIND_MICROS: i64 = 10 * 60 * 1_000_000;
/// How far the watermark must be ahead of the clock to be moved back: a clock that was ahead was corrected,
/// or one is behind. Otherwise every new reading would make its hour dirty.
const WATERMARK_AHEAD_MICROS: i64 = HOUR_MICROS;
/// How often the roller checks for work.
const EVERY: Duration = Duration::from_secs(2);
/// How often the roller checks whether older transactions have finished, if it has nothing else to do.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// How often dirty hours are counted.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// Readings that wait for this long mean that the writers do not keep up, so the roller yields.
const WAITS_LONG: Duration = Duration::from_secs(1);
/// For hours that have just passed: how long the roller rests while readings arrive, as a multiple of its work. It is
/// low, so that the roller keeps up.
const RESTS_FOR_NEW: u32 = 1;
/// The same for older and for dirty hours: a tenth of a core.
const RESTS_FOR_OLD: u32 = 9;
/// How long a step works on new or older hours at least, so that what comes before each step costs little.
const STEP_FOR: Duration = Duration::from_millis(500);
/// How long the roller yields before it checks again.
const YIELD_FOR: Duration = Duration::from_millis(200);

/// How long the oldest reading waits in the log.
pub type Waits = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A device's hour.
type DeviceHour = (i32, Timestamp);

/// How far hours are rolled up.
#[derive(Debug, Clone, Copy)]
struct Progress {
    watermark: Option<Timestamp>,
    built_from: Option<Timestamp>,
    built_to: Option<Timestamp>,
}

impl Progress {
    /// The range of rolled-up hours. Only their rows are used for answers, and only they are rolled up again
    /// when they are dirty. None of them lies beyond the watermark.
    fn built(&self) -> std::ops::Range<Timestamp> {
        let never = Timestamp::from_micros(i64::MIN);
        let to = self.built_to.min(self.watermark).unwrap_or(never);
        self.built_from.unwrap_or(to)..to
    }
}

/// The state of the rollup between two steps.
pub struct Roller {
    arrivals: Arrivals,
    retention: Option<Duration>,
    /// Every transaction older than this watermark has finished.
    settled: Option<Timestamp>,
    /// Those older than a newer watermark may still run.
    settling: Option<(Older, Timestamp)>,
    failures: Failures,
    listing: Option<Arc<Listing>>,
    fills: PerStream<Option<Fill>>,
    dirty_pass: dirty::DirtyPass,
    /// How long it rests while readings arrive, as a multiple of its work.
    rests: u32,
    counted: Option<(Instant, u64)>,
    /// Whether it rests between two passes over dirty hours.
    has_pauses: bool,
    /// How many readings of a slice one transaction reads while others arrive.
    per_transaction: usize,
    /// How many bytes of history of a stream a slice reads, about.
    per_slice: i64,
    /// How long a step works on new or older hours.
    step_for: Duration,
    /// How many readings it has read.
    readings: u64,
}

/// Why a step failed; the next tries again.
#[derive(Debug, thiserror::Error)]
#[error("{}", explain(.0))]
struct RollupError(#[from] Error);

/// Rolls up hours until it is cancelled.
///
/// Cancel: safe; what is half done is rolled back
pub async fn run(target: Target, waits: Waits) {
    let failures = Failures::default();
    ROLE.lead(&target, &Rollup { waits, failures }).await;
}

/// The rollup of hours, by the gateway that holds the lock.
struct Rollup {
    waits: Waits,
    failures: Failures,
}

impl Work for Rollup {
    type Error = RollupError;

    async fn work(&self, client: &mut Client, success: &Success<'_>) -> Result<(), RollupError> {
        let mut roller = Roller::new(Arc::clone(&self.waits), None);
        roller.failures = self.failures.clone();
        tokio::time::sleep(self.failures.rest()).await;
        loop {
            // It may be changed at any time.
            roller.retention = stored_retention(client).await?;
            let is_busy = roller.step(client, Timestamp::now()).await?;
            success.note();
            if !is_busy {
                tokio::time::sleep(EVERY).await;
            }
        }
    }
}

impl Roller {
    /// Makes a roller that first waits for the older transactions.
    pub fn new(waits: Waits, retention: Option<Duration>) -> Self {
        Roller {
            arrivals: Arrivals::new(waits),
            retention,
            settled: None,
            settling: None,
            failures: Failures::default(),
            listing: None,
            fills: PerStream::default(),
            dirty_pass: dirty::DirtyPass::default(),
            rests: RESTS_FOR_NEW,
            counted: None,
            has_pauses: true,
            per_transaction: READINGS_PER_TRANSACTION,
            per_slice: slice::BYTES_MAX,
            step_for: STEP_FOR,
            readings: 0,
        }
    }

    /// Lets passes over dirty hours follow each other without a pause: where no writer needs the database.
    #[must_use]
    pub fn without_pauses(mut self) -> Self {
        self.has_pauses = false;
        self
    }

    /// Sets how many readings of a slice one transaction reads: fewer make it slower.
    #[must_use]
    pub fn with_readings_per_transaction(mut self, readings: usize) -> Self {
        self.per_transaction = readings;
        self
    }

    /// Sets how many bytes of history of a stream a slice reads, about.
    #[must_use]
    pub fn with_bytes_per_slice(mut self, bytes: i64) -> Self {
        self.per_slice = bytes;
        self
    }

    /// Sets how long a step works on new or older hours. With zero, each of its transactions is a step.
    #[must_use]
    pub fn with_steps_of(mut self, time: Duration) -> Self {
        self.step_for = time;
        self
    }

    /// Lets it know what has failed while another one rolled up: it follows that one in a new session.
    #[must_use]
    pub fn following(mut self, other: &Roller) -> Self {
        self.failures = other.failures.clone();
        self
    }

    /// How many readings it has read so far.
    pub const fn readings(&self) -> u64 {
        self.readings
    }

    /// Does the next step; `false` means that there is nothing to do.
    ///
    /// Blocks: for about half a second of work, and while it yields
    /// Cancel: safe; the step is repeated
    ///
    /// # Errors
    /// PostgreSQL's own errors; what was committed stays.
    pub async fn step(&mut self, client: &mut Client, now: Timestamp) -> Result<bool, Error> {
        let watermark = now.plus_micros(1 - WATERMARK_BEHIND_MICROS).hour();
        let mut progress = load(&*client).await?;
        let ahead = watermark.plus_micros(WATERMARK_AHEAD_MICROS);
        if progress.watermark.is_some_and(|current| current > ahead) {
            self.settling = None;
            self.settled = self.settled.min(Some(watermark));
            move_back(client, watermark).await?;
            progress = load(&*client).await?;
        }
        let is_due = progress.watermark.is_none_or(|current| current < watermark);
        // A wait that begins anew with each watermark might not end.
        if is_due && self.settling.is_none() && self.arrivals.wait() < WAITS_LONG {
            client.execute(sql!("hours_seal"), &[&watermark]).await?;
            progress = load(&*client).await?;
        }
        self.settle(client, progress.watermark).await?;
        let (Some(watermark), Some(from), Some(to)) =
            (progress.watermark, progress.built_from, progress.built_to)
        else {
            return Ok(false);
        };
        let floor = partitions::oldest_rolled_up(now, self.retention);
        let listing = self.listing(client).await?;
        let waiting = slice::waiting_hours(&listing.bounded(), floor, from..to, watermark);
        self.publish(client, now, to, waiting).await?;
        let Some(settled) = self.settled else {
            tokio::time::sleep(CHECK_EVERY).await;
            return Ok(true);
        };
        let newest = watermark.min(settled);
        let bounds = Bounds {
            floor,
            floor_of_new: self.floor_of_new(client, now, to..newest).await?,
            built: from..to,
            newest,
        };
        self.rests = RESTS_FOR_NEW;
        if self.new_hours(client, &listing, &bounds).await? {
            return Ok(true);
        }
        self.rests = RESTS_FOR_OLD;
        let step = self.dirty(client, floor).await?;
        if step == Step::Done || self.older_hours(client, &listing, &bounds).await? {
            return Ok(true);
        }
        let waits = step == Step::Waits || self.settling.is_some();
        if waits {
            tokio::time::sleep(CHECK_EVERY).await;
        }
        Ok(waits)
    }

    /// New hours that start before it are not rolled up. If the clock is years ahead, the rolled-up hours must not be
    /// given up, so the newest reading counts as well.
    async fn floor_of_new(
        &self,
        client: &Client,
        now: Timestamp,
        new: std::ops::Range<Timestamp>,
    ) -> Result<Timestamp, Error> {
        let floor = partitions::oldest_rolled_up(now, self.retention);
        if new.is_empty() || floor.hour() <= new.start {
            return Ok(floor);
        }
        let newest = client.query_one(sql!("newest_reading"), &[]).await?;
        let newest: Option<Timestamp> = newest.try_get(0)?;
        let now = newest.map_or(now, |newest| newest.min(now));
        Ok(partitions::oldest_rolled_up(now, self.retention))
    }

    /// The partitions, as they were a moment ago.
    async fn listing(&mut self, client: &Client) -> Result<Arc<Listing>, Error> {
        let listing = match self.listing.take().filter(|listing| !listing.is_old()) {
            Some(listing) => listing,
            None => Arc::new(Listing::read(client).await?),
        };
        self.listing = Some(Arc::clone(&listing));
        Ok(listing)
    }

    /// Checks whether the transactions older than the watermark have finished.
    async fn settle(&mut self, client: &Client, watermark: Option<Timestamp>) -> Result<(), Error> {
        let Some(watermark) = watermark else {
            return Ok(());
        };
        if self.settled >= Some(watermark) {
            return Ok(());
        }
        let (older, to) = match self.settling {
            Some(settling) => settling,
            None => (Older::now(client).await?, watermark),
        };
        if older.have_finished(client).await? {
            (self.settled, self.settling) = (Some(to), None);
        } else {
            self.settling = Some((older, to));
        }
        Ok(())
    }

    async fn publish(
        &mut self,
        client: &Client,
        now: Timestamp,
        built_to: Timestamp,
        waiting_hours: u64,
    ) -> Result<(), Error> {
        let dirty = match self.counted {
            Some((at, dirty)) if at.elapsed() < COUNT_EVERY => dirty,
            _ => {
                let row = client.query_one(sql!("hours_mark_counts"), &[]).await?;
                let (meters, vehicles): (i64, i64) = (row.get(0), row.get(1));
                let dirty = u64::try_from(meters + vehicles).unwrap_or(0);
                self.counted = Some((Instant::now(), dirty));
                dirty
            }
        };
        let lag = now.as_micros().saturating_sub(built_to.as_micros());
        let lag = Duration::from_micros(u64::try_from(lag).unwrap_or(0));
        metrics::rollups(lag, waiting_hours, dirty);
        Ok(())
    }

    /// Whether readings arrive, at this gateway or at another.
    fn yields(&self) -> bool {
        self.arrivals.were_recent() || self.dirty_pass.is_repeated()
    }

    /// Yields the database to the writers: rests while readings arrive, and until the writers keep up.
    async fn yield_after(&mut self, worked: Duration) {
        let mut waits = self.arrivals.wait();
        if self.yields() {
            tokio::time::sleep(worked * self.rests).await;
        }
        while waits >= WAITS_LONG {
            tokio::time::sleep(YIELD_FOR).await;
            waits = self.arrivals.wait();
        }
    }
}

/// Moves the watermark back, removes all rollups beyond it, and forgets slices that reach beyond it. Once this commits,
/// readings of those hours do not make them dirty.
async fn move_back(client: &mut Client, watermark: Timestamp) -> Result<(), Error> {
    tracing::warn!(seal = %watermark, "the clock went back; rolling up hours again");
    let transaction = client.transaction().await?;
    transaction
        .execute(sql!("hours_unseal"), &[&watermark])
        .await?;
    for removed in [
        sql!("hours_unsealed_meters"),
        sql!("hours_unsealed_vehicles"),
        sql!("hours_slices_unsealed"),
    ] {
        transaction.execute(removed, &[&watermark]).await?;
    }
    transaction.commit().await
}

async fn load(client: &(impl GenericClient + Sync)) -> Result<Progress, Error> {
    let row = client.query_one(sql!("hours_progress"), &[]).await?;
    Ok(Progress {
        watermark: row.try_get(0)?,
        built_from: row.try_get(1)?,
        built_to: row.try_get(2)?,
    })
}
