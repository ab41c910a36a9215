//! All vehicles over one window, exactly, from one snapshot.
//!
//! The fleet is read in chunks of a few statements each, so that memory stays bounded. While one chunk is
//! computed, the next one is fetched.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Transaction};
use tokio::task::JoinHandle;

use super::budget::{Budget, Lease};
use super::chunk;
use super::chunk::{Member, Named};
use super::fleet_report::{FleetReport, ReportQuestion, Sums};
use super::history::{History, snapshot};
use super::hour_rows::Hours;
use super::hours::ROUNDS_MAX;
use super::vehicles::meter_ids;
use super::{AskError, Priority};
use crate::energy::device::EnergyReading;

/// The approximate number of readings of a chunk. It takes some tens of MB, and statements of about a second.
const CHUNK_READINGS: usize = 300_000;
/// Devices of the first chunk, before it is known how many readings they have.
const CHUNK_DEVICES_FIRST: usize = 64;
/// The most devices of a chunk.
const CHUNK_DEVICES_MAX: usize = 2_000;
/// The most devices of a chunk in a report that yields, for statements of some milliseconds.
const CHUNK_DEVICES_GENTLE: usize = 250;
/// How long a report yields. After that it runs at full speed: it holds a snapshot, and must finish within 90 s.
const GENTLE_FOR: Duration = Duration::from_secs(20);

/// Computes the report on a fleet.
///
/// Blocks: for some statements per chunk, first of vehicles, then of meters
/// Cancel: safe; the transaction is rolled back
pub(super) async fn report(
    client: &mut Client,
    budget: &Budget,
    question: ReportQuestion,
) -> Result<FleetReport, AskError> {
    let work = snapshot(client).await?;
    let question = Arc::new(question);
    let hours = Hours::new(
        question.timeframe.window,
        &question.parts(),
        question.suspect_watts,
    );
    let mut history = History::new(&work, Lease::new(budget)).with_hours(hours.clone());
    let named = chunk::named(&mut history, question.timeframe.window).await?;
    // Keeps the readings counted by `named` reserved.
    let _held = history.renew(Lease::new(budget));
    let mut walk = Walk {
        work: &work,
        history: &mut history,
        budget,
        named: &named,
        question: Arc::clone(&question),
        pace: ChunkPace::new(question.priority),
    };
    let sums = walk.all(Sums::new(question)).await?;
    let sums = walk.rest(sums).await?;
    let mut history = history.with_hours(hours);
    Ok(meters(&work, &mut history, budget, sums).await?.finish())
}

/// Decides how many devices the next chunk has.
struct ChunkPace {
    devices: usize,
    /// When the report stops resting between chunks, and when the present chunk began.
    gentle_until: Option<Instant>,
    works_since: Instant,
}

impl ChunkPace {
    fn new(priority: Priority) -> Self {
        let now = Instant::now();
        ChunkPace {
            devices: CHUNK_DEVICES_FIRST,
            gentle_until: (priority == Priority::Yields).then(|| now + GENTLE_FOR),
            works_since: now,
        }
    }

    fn is_gentle(&self) -> bool {
        self.gentle_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// If the report yields, rests for as long as the last chunk took.
    async fn rest(&mut self) {
        if self.is_gentle() {
            tokio::time::sleep(self.works_since.elapsed()).await;
        }
        self.works_since = Instant::now();
    }

    /// Sets the size of the next chunk from the readings of the last one.
    fn learn(&mut self, devices: usize, readings: usize) {
        let each = (readings / devices.max(1)).max(1);
        let most = match self.is_gentle() {
            true => CHUNK_DEVICES_GENTLE,
            false => CHUNK_DEVICES_MAX,
        };
        self.devices = (CHUNK_READINGS / each).clamp(1, most);
    }

    /// Halves the next chunk after one that was too large. Returns `false` if a single device is already too
    /// large.
    fn shrink(&mut self, error: &AskError, devices: usize) -> bool {
        let memory = matches!(error, AskError::TooManyReadings | AskError::Busy);
        self.devices = (devices / 2).max(1);
        memory && devices > 1
    }
}

/// The state of a walk through the fleet. One chunk is fetched while the previous one is computed.
struct Walk<'w, 'h> {
    work: &'w Transaction<'w>,
    history: &'h mut History<'w>,
    budget: &'h Budget,
    named: &'h Named,
    question: Arc<ReportQuestion>,
    pace: ChunkPace,
}

impl Walk<'_, '_> {
    /// Adds some vehicles to the sums. Returns `false` if they were too many for one chunk.
    async fn add(
        &mut self,
        members: &[Member],
        running: Running,
    ) -> Result<(Running, bool), AskError> {
        let (window, now) = (self.question.timeframe.window, self.question.timeframe.now);
        self.pace.rest().await;
        match chunk::fetch(self.history, self.named, members, window, now).await {
            Ok(chunk) => {
                self.pace.learn(members.len(), self.history.lease.used());
                let names = meter_ids(self.work, &chunk.meter_keys()).await?;
                let lease = self.history.renew(Lease::new(self.budget));
                let mut sums = running.finish().await?;
                let task = tokio::task::spawn_blocking(move || {
                    sums.add_vehicles(&chunk, &names);
                    drop((chunk, lease));
                    sums
                });
                Ok((Running::Busy(task), true))
            }
            Err(error) => {
                drop(self.history.renew(Lease::new(self.budget)));
                let sums = running.finish().await?;
                match self.pace.shrink(&error, members.len()) {
                    true => Ok((Running::Idle(Box::new(sums)), false)),
                    false => Err(error),
                }
            }
        }
    }

    /// Adds all vehicles.
    async fn all(&mut self, sums: Sums) -> Result<Sums, AskError> {
        let statement = self.work.prepare_cached(sql!("fleet_vehicles")).await?;
        let mut running = Running::Idle(Box::new(sums));
        let mut after = i32::MIN;
        loop {
            let limit = self.pace.devices as i64;
            let rows = self.work.query(&statement, &[&after, &limit]).await?;
            let member = |row: &tokio_postgres::Row| {
                Ok(Member {
                    key: row.try_get(0)?,
                    id: row.try_get(1)?,
                    same_id: row.try_get(2)?,
                    has_session: row.try_get(3)?,
                })
            };
            let members: Vec<Member> = rows.iter().map(member).collect::<Result<_, AskError>>()?;
            let Some(last) = members.last() else {
                return running.finish().await;
            };
            let fits;
            (running, fits) = self.add(&members, running).await?;
            if fits {
                after = last.key;
            }
        }
    }

    /// Adds the vehicles whose answers need readings in place of rolled-up hours. Each round uses fewer rolled-up
    /// hours.
    async fn rest(&mut self, mut sums: Sums) -> Result<Sums, AskError> {
        for round in 1.. {
            let mut left = std::mem::take(&mut sums.again);
            if left.is_empty() {
                break;
            }
            for splits in sums.splits.drain(..) {
                self.history.exclude(&splits);
            }
            if round >= ROUNDS_MAX {
                self.history.exclude_all();
            }
            let mut running = Running::Idle(Box::new(sums));
            while !left.is_empty() {
                let some = self.pace.devices.min(left.len());
                let fits;
                (running, fits) = self.add(&left[..some], running).await?;
                if fits {
                    left.drain(..some);
                }
            }
            sums = running.finish().await?;
        }
        Ok(sums)
    }
}

async fn meters(
    work: &Transaction<'_>,
    history: &mut History<'_>,
    budget: &Budget,
    sums: Sums,
) -> Result<Sums, AskError> {
    let statement = work.prepare_cached(sql!("fleet_meters")).await?;
    let window = sums.question.timeframe.window;
    let done: HashSet<i32> = sums.meters_done.clone();
    let mut pace = ChunkPace::new(sums.question.priority);
    let mut running = Running::Idle(Box::new(sums));
    let mut after = i32::MIN;
    loop {
        pace.rest().await;
        let rows = work
            .query(&statement, &[&after, &(pace.devices as i64)])
            .await?;
        let key = |row: &tokio_postgres::Row| row.try_get(0);
        let keys: Vec<i32> = rows.iter().map(key).collect::<Result<_, _>>()?;
        let Some(&last) = keys.last() else {
            return running.finish().await;
        };
        let new = keys.iter().filter(|key| !done.contains(key));
        let wanted = new.map(|&key| (key, vec![window])).collect();
        match history.around_many::<EnergyReading>(&wanted).await {
            Ok(readings) => {
                after = last;
                pace.learn(wanted.len(), history.lease.used());
                let lease = history.renew(Lease::new(budget));
                let mut sums = running.finish().await?;
                running = Running::Busy(tokio::task::spawn_blocking(move || {
                    for (&meter, of_meter) in &readings {
                        sums.add_meter(meter, &of_meter.list, &of_meter.rolled_up);
                    }
                    drop((readings, lease));
                    sums
                }));
            }
            Err(error) => {
                drop(history.renew(Lease::new(budget)));
                running = Running::Idle(Box::new(running.finish().await?));
                if !pace.shrink(&error, keys.len()) {
                    return Err(error);
                }
            }
        }
    }
}

/// The sums, or the computation that adds a chunk to them.
enum Running {
    Idle(Box<Sums>),
    Busy(JoinHandle<Sums>),
}

impl Running {
    async fn finish(self) -> Result<Sums, AskError> {
        match self {
            Running::Idle(sums) => Ok(*sums),
            Running::Busy(task) => task.await.map_err(|_| AskError::Failed),
        }
    }
}
