//! Rolls up the hours of devices that have passed, so that long windows need not read every reading.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod` | who rolls up, when, and in which order |
//! | `seal` | the watermark, and the transactions that must end before it holds |
//! | `build` | some devices' hours, in one transaction |
//!
//! One gateway of a database rolls up: the one that holds an advisory lock. It takes the hours that have
//! passed since the last step; then the hours that late readings have made dirty; then the hours before
//! the first one it ever took, backward. An hour without a rollup is read as it is, so that a late rollup
//! costs time and never a wrong answer.
//!
//! # Rules
//!
//! - **A rollup row is valid in any snapshot that has no dirty mark for its hour.** A batch's first statement
//!   gives its transaction an id; the batch then reads the watermark, and marks each older hour that it
//!   stores a reading of. The roller moves the watermark, commits, and waits until every transaction with an
//!   older id has finished: each of those has seen the new watermark. One REPEATABLE READ transaction then
//!   reads marks and readings, replaces the rows, and deletes only the marks that it read. Marks are only
//!   ever added: `on conflict do nothing` would lose a mark made while an older one is worked off.
//! - **A rollup row is valid only within the built hours**, none of which lies beyond the watermark, whatever marks
//!   there are: readings beyond it leave no mark. Where a clock was ahead, the watermark is moved back together
//!   with everything behind it, and a mark elsewhere goes together with its row.
//! - **Hours leave before their partition does**, so that no answer holds what history no longer does.
//! - **The roller yields.** While readings arrive it rests as long as it works. While readings have waited in
//!   the log for over a second it does nothing.
//! - **Nothing finer than an hour is rolled up.** Rows of five minutes would add more than a fifth to the cost
//!   of every reading, to save what a ranking needs once a minute.

mod build;
mod seal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error, GenericClient};

use super::metrics;
use crate::postgres::leader::{Role, Work};
use crate::postgres::partitions::{Partitions, Range};
use crate::postgres::{Target, Use, explain, partitions};
use crate::reading::{HOUR_MICROS, Stream, Timestamp};

/// One gateway of a database rolls up hours.
const ROLE: Role = Role {
    work: "the rollup of hours",
    session: "wattgate summaries",
    purpose: Use::Sums,
    lock_key: i64::from_be_bytes(*b"wg-hours"),
    table: "hours_progress",
};
/// How long after its end an hour is sealed. Why: nearly every reading is there by then; each one
/// that comes later costs a mark and its hour once more.
const SEAL_AFTER_MICROS: i64 = 10 * 60 * 1_000_000;
/// How far behind the seal the clock must be for it to be taken back: a clock that was ahead was mended, or one
/// is behind. Every reading of an hour that is sealed too early would cost the hour once more.
const UNSEAL_MICROS: i64 = HOUR_MICROS;
/// How often it looks whether there is something to do.
const EVERY: Duration = Duration::from_secs(2);
/// How often marks are counted.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// How long readings wait in the log where the writers do not keep up: it makes way then.
const WAITS_LONG: Duration = Duration::from_secs(1);
/// How long it makes way before it looks again.
const MAKE_WAY: Duration = Duration::from_millis(200);
/// Hours that are about to leave with the retention are not summed up any more.
const LEAVING_MICROS: i64 = 24 * HOUR_MICROS;

/// How long the oldest reading waits in the log.
pub type Waits = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How far hours are summed up.
#[derive(Debug, Clone, Copy)]
struct Progress {
    sealed_to: Option<Timestamp>,
    built_from: Option<Timestamp>,
    built_to: Option<Timestamp>,
}

impl Progress {
    /// The hours that have been summed up: only their rows answer questions, and only their marks
    /// are worth a new sum. None of them lies beyond the watermark.
    fn built(&self) -> std::ops::Range<Timestamp> {
        let never = Timestamp::from_micros(i64::MIN);
        let to = self.built_to.min(self.sealed_to).unwrap_or(never);
        self.built_from.unwrap_or(to)..to
    }
}

/// Who sums up, between two steps.
pub struct Roller {
    waits: Waits,
    retention: Option<Duration>,
    /// Whoever had begun before the last seal is over.
    is_settled: bool,
    pace: build::Pace,
    counted: Option<(Instant, u64)>,
}

/// Why a step failed; the next tries again.
#[derive(Debug, thiserror::Error)]
#[error("{}", explain(.0))]
struct RollupError(#[from] Error);

/// Rolls up hours until it is cancelled.
///
/// Cancel: safe; what is half done is rolled back
pub async fn run(target: Target, waits: Waits) {
    ROLE.lead(&target, &Rollup(waits)).await;
}

/// The rollup of hours, by the gateway that holds the lock.
struct Rollup(Waits);

impl Work for Rollup {
    type Error = RollupError;

    async fn work(&self, client: &mut Client) -> Result<(), RollupError> {
        let retention = "select retention_seconds from gateway_database";
        let retention = client.query_opt(retention, &[]).await?;
        let retention: Option<i64> = retention.and_then(|row| row.get(0));
        let retention = retention.and_then(|seconds| u64::try_from(seconds).ok());
        let mut roller = Roller::new(Arc::clone(&self.0), retention.map(Duration::from_secs));
        loop {
            if !roller.step(client, Timestamp::now()).await? {
                tokio::time::sleep(EVERY).await;
            }
        }
    }
}

impl Roller {
    /// Makes one; it waits for whoever has begun before.
    pub fn new(waits: Waits, retention: Option<Duration>) -> Self {
        Roller {
            waits,
            retention,
            is_settled: false,
            pace: build::Pace::default(),
            counted: None,
        }
    }

    /// Does what is next; `false` where nothing is to be done.
    ///
    /// Blocks: for an hour of all devices at the most
    /// Cancel: safe; done again
    ///
    /// # Errors
    /// As PostgreSQL gives them; what was committed stays.
    pub async fn step(&mut self, client: &mut Client, now: Timestamp) -> Result<bool, Error> {
        let seal = now.plus_micros(1 - SEAL_AFTER_MICROS).hour();
        let mut progress = load(&*client).await?;
        if (progress.sealed_to).is_some_and(|sealed| sealed > seal.plus_micros(UNSEAL_MICROS)) {
            unseal(client, seal).await?;
            progress = load(&*client).await?;
        }
        if progress.sealed_to.is_none_or(|sealed| sealed < seal) && (self.waits)() < WAITS_LONG {
            client.execute(sql!("hours_seal"), &[&seal]).await?;
            self.is_settled = false;
            progress = load(&*client).await?;
        }
        if !self.is_settled {
            seal::wait_for_older(client).await?;
            self.is_settled = true;
        }
        let (Some(sealed), Some(from), Some(to)) =
            (progress.sealed_to, progress.built_from, progress.built_to)
        else {
            return Ok(false);
        };
        let floor = self.floor(now);
        let ranges = ranges(client).await?;
        self.publish(
            client,
            now,
            to,
            waiting_hours(&ranges, floor, from, sealed, to),
        )
        .await?;
        if to < sealed {
            self.hour(client, to).await?;
            let next = to.plus_micros(HOUR_MICROS);
            client.execute(sql!("hours_built"), &[&from, &next]).await?;
            return Ok(true);
        }
        for stream in Stream::ALL {
            if self.marked(client, stream, floor).await? > 0 {
                return Ok(true);
            }
        }
        if let Some(hour) = hour_before(&ranges, floor, from) {
            self.hour(client, hour).await?;
            client.execute(sql!("hours_built"), &[&hour, &to]).await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// From when on hours are summed up.
    fn floor(&self, now: Timestamp) -> Timestamp {
        match self.retention {
            Some(retention) => partitions::oldest_kept(now, retention).plus_micros(LEAVING_MICROS),
            None => Timestamp::from_micros(i64::MIN),
        }
    }

    async fn publish(
        &mut self,
        client: &Client,
        now: Timestamp,
        built_to: Timestamp,
        waiting_hours: u64,
    ) -> Result<(), Error> {
        let marks = match self.counted {
            Some((at, marks)) if at.elapsed() < COUNT_EVERY => marks,
            _ => {
                let row = client.query_one(sql!("hours_mark_counts"), &[]).await?;
                let (meters, vehicles): (i64, i64) = (row.get(0), row.get(1));
                let marks = u64::try_from(meters + vehicles).unwrap_or(0);
                self.counted = Some((Instant::now(), marks));
                marks
            }
        };
        let lag = now.as_micros().saturating_sub(built_to.as_micros());
        let lag = Duration::from_micros(u64::try_from(lag).unwrap_or(0));
        metrics::summaries(lag, waiting_hours, marks);
        Ok(())
    }

    /// Leaves the database to the writers: as long as it has worked itself, and for longer where
    /// they do not keep up.
    async fn make_way(&self, worked: Duration) {
        let waits = (self.waits)();
        if !waits.is_zero() {
            tokio::time::sleep(worked).await;
        }
        while (self.waits)() >= WAITS_LONG {
            tokio::time::sleep(MAKE_WAY).await;
        }
    }
}

/// Takes the seal back, with all that was summed up behind it: from when this commits, readings of those
/// hours leave no mark.
async fn unseal(client: &mut Client, seal: Timestamp) -> Result<(), Error> {
    tracing::warn!(seal = %seal, "the clock has gone back: hours are summed up anew");
    let transaction = client.transaction().await?;
    transaction.execute(sql!("hours_unseal"), &[&seal]).await?;
    for removed in [
        sql!("hours_unsealed_meters"),
        sql!("hours_unsealed_vehicles"),
    ] {
        transaction.execute(removed, &[&seal]).await?;
    }
    transaction.commit().await
}

async fn load(client: &(impl GenericClient + Sync)) -> Result<Progress, Error> {
    let row = client.query_one(sql!("hours_progress"), &[]).await?;
    Ok(Progress {
        sealed_to: row.try_get(0)?,
        built_from: row.try_get(1)?,
        built_to: row.try_get(2)?,
    })
}

/// The partitions of both streams.
async fn ranges(client: &Client) -> Result<Vec<Range>, Error> {
    let both = partitions::load_both(client).await?;
    let ranges = both.into_iter().flat_map(Partitions::into_ranges);
    // Backward through one without a beginning there is no end: its hours are read as they are.
    Ok(ranges.filter(|range| !range.is_open_below()).collect())
}

/// The newest hour before `built_from` that history has a partition for.
fn hour_before(ranges: &[Range], floor: Timestamp, built_from: Timestamp) -> Option<Timestamp> {
    // A reading at the start of a partition is in the hour that ends there.
    let before = ranges.iter().filter(|range| range.from <= built_from);
    let newest = before.map(|range| range.to.min(built_from)).max()?;
    (newest > floor).then(|| newest.hour())
}

/// How many hours are to be looked at yet.
fn waiting_hours(
    ranges: &[Range],
    floor: Timestamp,
    built_from: Timestamp,
    sealed_to: Timestamp,
    built_to: Timestamp,
) -> u64 {
    let hours = |from: Timestamp, to: Timestamp| {
        let micros = to.as_micros().saturating_sub(from.as_micros());
        u64::try_from(micros.max(0))
            .unwrap_or(0)
            .div_ceil(HOUR_MICROS as u64)
    };
    let mut behind: Vec<Range> = ranges.to_vec();
    behind.sort_unstable();
    let mut counted_to = floor;
    let mut sum = hours(built_to, sealed_to);
    for range in behind {
        let from = range.from.max(counted_to);
        let to = range.to.min(built_from);
        if from < to {
            sum += hours(from, to);
            counted_to = to;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_micros(hour * HOUR_MICROS)
    }

    #[test]
    fn what_is_older_is_taken_backward_and_only_where_history_is() {
        let range = |from, to| Range {
            from: at(from),
            to: at(to),
        };
        let ranges = [range(0, 2), range(10, 20), range(10, 20)];
        let low = Timestamp::from_micros(i64::MIN);
        assert_eq!(hour_before(&ranges, low, at(15)), Some(at(14)));
        assert_eq!(waiting_hours(&ranges, low, at(15), at(16), at(16)), 7);
        // A reading at the very start of a partition ends the hour before it.
        assert_eq!(hour_before(&ranges, low, at(10)), Some(at(9)));
        assert_eq!(hour_before(&ranges, low, at(9)), Some(at(1)));
        assert_eq!(hour_before(&ranges, low, at(1)), Some(at(0)));
        assert_eq!(hour_before(&ranges, low, at(0)), Some(at(-1)));
        assert_eq!(hour_before(&ranges, low, at(-1)), None);
        assert_eq!(waiting_hours(&ranges, low, at(-1), at(20), at(18)), 2);
        assert_eq!(hour_before(&ranges, at(14), at(15)), Some(at(14)));
        assert_eq!(hour_before(&ranges, at(14), at(14)), None);
    }
}
