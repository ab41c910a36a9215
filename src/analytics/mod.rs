//! Questions over windows: fetches from the database, in one snapshot, what an answer depends on.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `history` | readings with their neighbours, within constant bounds of time |
//! | `vehicles` | vehicles: their readings, their sessions, and which others are at a meter |
//! | `bulk` | the readings of many devices, in a few statements |
//! | `chunk` | a part of the fleet, with everything that its vehicles' answers depend on |
//! | `reach` | how far beyond its window a question must fetch |
//! | `hours`, `hour_rows` | rolled-up hours in place of their readings |
//! | `fleet` | every vehicle over one window |
//! | `fleet_cache` | one survey of the fleet at a time, shared, and kept for a minute |
//! | `budget` | how many readings all questions may hold in memory |
//!
//! # Rules
//!
//! - **No statement searches history without constant bounds of time.** With hundreds of partitions, planning
//!   alone would take longer than the answer.
//! - **An answer reaches beyond its window** (`reach`): a shared meter's amount is divided by all DC of its time, and
//!   an attribution period goes on to the meter's next reading. Nearly always both lie within 90 minutes, and one
//!   exchange fetches everything.
//! - **The fleet's answer is the sum of its vehicles' answers**: the same arithmetic over readings that are
//!   fetched in chunks, in one snapshot. A survey that is asked for again after 25 s is renewed in the
//!   background.
//! - **Computing happens off the async workers**, at most one computation a core.

mod budget;
mod bulk;
mod chunk;
mod fleet;
mod fleet_cache;
mod history;
mod hour_rows;
mod hours;
mod reach;
mod vehicles;

use std::collections::HashMap;
use std::sync::Arc;

use deadpool_postgres::{Client, Transaction};
use futures_util::future::try_join;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio_postgres::{Error, IsolationLevel, Row};

use crate::energy::answer::{Cuts, divided_since, performance_and_parts};
use crate::energy::attribution::{CLAIM_MICROS_MAX, MeterKey, VehicleKey};
use crate::energy::device::{EnergyReading, SUSPECT_WATTS_DEFAULT};
use crate::energy::interval::{Run, Runs};
use crate::energy::report::StatusBounds;
use crate::energy::tariff::Tariff;
use crate::energy::window::DAY_MICROS;
use crate::energy::{Performance, Slice, plan};
use crate::postgres::ReadError;
use crate::reading::{ExternalId, Stream, Timestamp};
use budget::{Budget, Lease};
pub use fleet::{FleetSlice, Rank, Ranked, Survey, Surveyed};
use fleet_cache::Surveys;
pub use fleet_cache::{Asked, Kept};
use history::History;
use hour_rows::{Hours, Readings};
use hours::ROUNDS_MAX;
use vehicles::{Fetched, FetchedMeter};

/// How far behind a window vehicles' readings are fetched at first: enough for periods that reach to
/// a meter's next reading where it reports hourly.
const BEHIND_MICROS: i64 = 6 * CLAIM_MICROS_MAX;

/// Runs at one meter that are closer than this are fetched as one.
const JOIN_MICROS: i64 = DAY_MICROS;

/// Of how many meters the readings are fetched at once.
const METERS_AT_ONCE: usize = 8;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// As the database or the network give it.
    #[error(transparent)]
    Database(#[from] Error),
    /// The question could not be put to the database.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The question needs more readings than one may hold; ask for a shorter window.
    #[error("the window holds too many readings; ask for a shorter one")]
    TooManyReadings,
    /// Other questions hold the memory; ask again later.
    #[error("other questions hold too many readings at the moment")]
    Busy,
    /// The fleet's answer is still being computed; ask again, or for a shorter window.
    #[error("the fleet's answer takes longer than a request may; ask again, or for less")]
    TooSlow,
    /// A defect: the arithmetic panicked.
    #[error("the answer could not be computed")]
    Failed,
}

/// An answer with the ids that print it.
#[derive(Debug)]
pub struct Answer {
    /// The exact values.
    pub performance: Performance,
    /// The external ids of its meters, in any order.
    pub meter_ids: Vec<String>,
    /// The energy in the parts of the window that were asked for.
    pub parts: Vec<Slice>,
}

/// What all questions share: memory and processors.
#[derive(Debug, Clone)]
pub struct Analyst {
    budget: Budget,
    processors: Arc<Semaphore>,
    judgement: Judgement,
    tariff: Option<Tariff>,
    surveys: Surveys,
}

/// From when on something is judged to be odd.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judgement {
    /// What a ratio tells.
    pub bounds: StatusBounds,
    /// The implied power above which a reading is suspect.
    pub suspect_watts: SuspectWatts,
}

/// An implied power above which a reading is suspect.
#[derive(Debug, Clone, Copy)]
pub struct SuspectWatts(pub u64);

impl Default for SuspectWatts {
    fn default() -> Self {
        SuspectWatts(SUSPECT_WATTS_DEFAULT)
    }
}

impl Analyst {
    /// Makes an analyst that computes so many answers at once.
    pub fn new(processors: usize, judgement: Judgement) -> Self {
        Analyst {
            budget: Budget::default(),
            processors: Arc::new(Semaphore::new(processors.max(1))),
            judgement,
            tariff: None,
            surveys: Surveys::default(),
        }
    }

    /// Turns what is lost into money, from now on.
    #[must_use]
    pub fn with_tariff(mut self, tariff: Option<Tariff>) -> Self {
        self.tariff = tariff;
        self
    }

    /// What a kWh costs, where it is known.
    pub const fn tariff(&self) -> Option<&Tariff> {
        self.tariff.as_ref()
    }

    /// What is judged to be odd.
    pub const fn judgement(&self) -> Judgement {
        self.judgement
    }

    /// Answers for one vehicle over a window, and for some parts of it; `None` for a vehicle
    /// that is not known.
    ///
    /// Blocks: for some statements, and for the arithmetic of at most 2 million readings
    /// Cancel: safe; the transaction is rolled back
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn performance(
        &self,
        client: &mut Client,
        vehicle: ExternalId<'_>,
        window: Run,
        parts: Vec<Run>,
        now: Timestamp,
    ) -> Result<Option<Answer>, AskError> {
        let work = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        let hours = Hours::new(window, &parts, self.judgement.suspect_watts.0);
        let mut history = History::new(&work, Lease::new(&self.budget)).with_hours(hours);
        let mut round = 0;
        let (performance, parts, mut meter_ids) = loop {
            round += 1;
            if round > ROUNDS_MAX {
                history.refuse_all();
            }
            let Some(mut fetched) = fetch(&mut history, vehicle, window, now).await? else {
                return Ok(None);
            };
            fetched.lease = Some(history.renew(Lease::new(&self.budget)));
            let meter_ids = std::mem::take(&mut fetched.meter_ids);
            match self.compute(fetched, window, parts.clone(), now).await? {
                Ok((performance, parts)) => break (performance, parts, meter_ids),
                Err(cuts) => history.refuse(&cuts),
            }
        };
        meter_ids.retain(|key, _| performance.meters.contains(&MeterKey(*key)));
        Ok(Some(Answer {
            performance,
            meter_ids: meter_ids.into_values().collect(),
            parts,
        }))
    }

    /// Answers for every known vehicle over a window, and sums up.
    ///
    /// One that nobody waits for makes way: it takes little at a time, and rests as long in between.
    ///
    /// Blocks: for some statements a chunk of devices; a fleet of 10,000 over a day takes seconds
    /// Cancel: safe; the transaction is rolled back
    ///
    /// # Errors
    /// [`AskError`]
    pub async fn survey(
        &self,
        client: &mut Client,
        window: Run,
        parts: Vec<Run>,
        now: Timestamp,
        makes_way: bool,
    ) -> Result<Surveyed, AskError> {
        let survey = Survey {
            window,
            now,
            makes_way,
            prices: self
                .tariff
                .as_ref()
                .map_or_else(Vec::new, |tariff| tariff.cut(window)),
            parts,
            bounds: self.judgement.bounds,
            suspect_watts: self.judgement.suspect_watts.0,
        };
        // A budget of its own: at most one survey runs, and it takes a chunk at a time.
        fleet::survey(client, &Budget::default(), survey).await
    }

    async fn compute(
        &self,
        fetched: Fetched,
        window: Run,
        parts: Vec<Run>,
        now: Timestamp,
    ) -> Result<Computed, AskError> {
        let Ok(processor) = Arc::clone(&self.processors).acquire_owned().await else {
            return Err(AskError::Failed);
        };
        let suspect_watts = self.judgement.suspect_watts.0;
        let computed = tokio::task::spawn_blocking(move || {
            let answer = answer(&fetched, window, &parts, now, suspect_watts);
            drop(processor);
            answer
        });
        computed.await.map_err(|_| AskError::Failed)
    }
}

/// An answer, or what has to be fetched as it is.
type Computed = Result<(Performance, Vec<Slice>), Cuts>;

/// Asks the arithmetic about what was fetched.
fn answer(
    fetched: &Fetched,
    window: Run,
    parts: &[Run],
    now: Timestamp,
    suspect_watts: u64,
) -> Computed {
    fetched.asked(window, now, suspect_watts, |question| {
        performance_and_parts(question, parts)
    })
}

/// Fetches what [`Question`](crate::energy::Question) asks for; `None` for a vehicle that is not known.
///
/// A meter's readings are fetched where the vehicle was there, not over the whole window: what
/// lies between such runs is never credited, and the neighbours of each run are fetched with it.
/// Of other vehicles those are fetched that are at a meter when this one is (by rule 3, when it
/// could be): no others share an amount with it.
async fn fetch(
    history: &mut History<'_>,
    id: ExternalId<'_>,
    window: Run,
    now: Timestamp,
) -> Result<Option<Fetched>, AskError> {
    let Some(row) = known(history, id).await? else {
        return Ok(None);
    };
    let key = VehicleKey(row.try_get(0)?);
    let has_session: bool = row.try_get(1)?;
    let same_id_meter: Option<i32> = row.try_get(2)?;
    let behind = window.end().plus_micros(BEHIND_MICROS);
    let span = Run::new(window.start(), behind).unwrap_or(window);
    let vehicle = vehicles::vehicle(history, key, span).await?;
    if vehicle.readings.is_empty() && !has_session {
        return Ok(None);
    }
    let plan = plan(&vehicle.borrow(), window, now);
    let same_id = same_id_meter.map(MeterKey).filter(|_| plan.asks_same_id);
    let wanted = reach::wanted(plan, same_id, window);
    for (meter, wanted) in &wanted {
        let runs = wanted.runs.as_slice().iter();
        let ends = runs.flat_map(|r| [r.start(), r.end()]);
        history.refuse_at(Stream::Meter, meter.0, ends);
    }
    let shared: &History<'_> = history;
    let mut at = Vec::with_capacity(wanted.len());
    for (&meter, wanted) in &wanted {
        let looked = wanted.looked(window, now);
        at.push(at_meter(shared, meter, key, &wanted.runs, looked));
    }
    let at = stream::iter(at).buffered(METERS_AT_ONCE).try_collect();
    let keys: Vec<i32> = wanted.keys().map(|meter| meter.0).collect();
    let (at, meter_ids): (Vec<_>, _) = try_join(at, meter_ids(shared.work, &keys)).await?;
    let mut meters = Vec::with_capacity(wanted.len());
    for ((key, wanted), (readings, others)) in wanted.into_iter().zip(at) {
        meters.push(FetchedMeter {
            key,
            wanted,
            readings,
            owner: None,
            others: others.into_iter().collect(),
        });
    }
    let fetched = Fetched {
        vehicle,
        meters,
        others: HashMap::new(),
        meter_ids,
        lease: None,
    };
    complete(history, fetched, window, now).await.map(Some)
}

/// Fetches what lies beyond the window, as far as the meters' readings say that it matters, and the
/// other vehicles that may be at the meters.
async fn complete(
    history: &mut History<'_>,
    mut fetched: Fetched,
    window: Run,
    now: Timestamp,
) -> Result<Fetched, AskError> {
    let key = fetched.vehicle.key;
    let behind = window.end().plus_micros(BEHIND_MICROS);
    // How far back is looked where a meter's first reading ever is divided.
    let mut first_low: Option<Timestamp> = None;
    loop {
        let places = fetched.places(window, now, first_low);
        let owners = reach::owners(history, &places).await?;
        let mut unseen = reach::unseen(history, &places, &owners, window, now).await?;
        let low = places.iter().map(|place| place.reach.low).min();
        let high = places.iter().map(|place| place.reach.high).max();
        let is_first = places.iter().any(|place| place.reach.is_first);
        let low = low.unwrap_or(window.start()).min(window.start());
        let high = high.map_or(behind, |high| {
            high.plus_micros(CLAIM_MICROS_MAX).max(behind)
        });
        for meter in &mut fetched.meters {
            meter.owner = owners.get(&meter.key).copied();
            if meter.wanted.by_same_id {
                meter.owner = Some(key);
            }
            meter
                .others
                .extend(unseen.remove(&(key.0, meter.key.0)).unwrap_or_default());
        }
        let span = Run::new(low, high).unwrap_or(window);
        if low < window.start() || high > behind {
            fetched.vehicle = vehicles::vehicle(history, key, span).await?;
        }
        // One that is at many meters is fetched once.
        let others = fetched.meters.iter().flat_map(|meter| &meter.others);
        let others = others.map(|other| (other.0, span)).collect();
        fetched.others = vehicles::vehicles(history, &others).await?;
        if !is_first {
            return Ok(fetched);
        }
        let start = fetched.asked(window, now, SUSPECT_WATTS_DEFAULT, divided_since);
        let further = match start {
            Some(start) => reach::further_back(history, window, low, start).await?,
            None => None,
        };
        match further {
            Some(low) => first_low = Some(low),
            None => return Ok(fetched),
        }
    }
}

/// Looks for a vehicle; in the same exchange come the partitions, because each exchange is a wait on
/// a busy machine.
async fn known(history: &History<'_>, id: ExternalId<'_>) -> Result<Option<Row>, AskError> {
    let vehicle = async {
        let statement = history.work.prepare_cached(sql!("performance_vehicle"));
        let statement = statement.await?;
        Ok(history.work.query_opt(&statement, &[&id.as_str()]).await?)
    };
    let (row, _) = try_join(vehicle, history.ranges(Stream::Vehicle)).await?;
    Ok(row)
}

/// A meter's readings where a vehicle was there, and who else was where that is looked at.
async fn at_meter(
    history: &History<'_>,
    meter: MeterKey,
    vehicle: VehicleKey,
    runs: &Runs,
    looked: Runs,
) -> Result<(Readings<EnergyReading>, Vec<VehicleKey>), AskError> {
    let spans = joined(runs);
    let readings = history.around::<EnergyReading>(meter.0, &spans);
    try_join(readings, vehicles::others(history, meter, vehicle, &looked)).await
}

/// Runs that are close to each other, as one.
fn joined(runs: &Runs) -> Vec<Run> {
    let mut joined: Vec<Run> = Vec::new();
    for &run in runs.as_slice() {
        let close = joined
            .last()
            .filter(|last| run.start() <= last.end().plus_micros(JOIN_MICROS))
            .and_then(|last| Run::new(last.start(), run.end()));
        match close {
            Some(both) => {
                joined.pop();
                joined.push(both);
            }
            None => joined.push(run),
        }
    }
    joined
}

/// The external ids of some meters.
async fn meter_ids(work: &Transaction<'_>, keys: &[i32]) -> Result<HashMap<i32, String>, AskError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let statement = work.prepare_cached(sql!("fleet_meter_names")).await?;
    let rows = work.query(&statement, &[&keys]).await?;
    let name = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_less_than_a_day_apart_are_fetched_as_one() {
        let run = |from: i64, to: i64| {
            let at = |hour: i64| Timestamp::from_micros(hour * 3_600_000_000);
            Run::new(at(from), at(to)).unwrap()
        };
        let runs = Runs::from_iter([run(0, 1), run(20, 21), run(45, 46), run(71, 72)]);
        assert_eq!(joined(&runs), [run(0, 46), run(71, 72)]);
    }
}
