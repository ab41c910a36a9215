//! All vehicles over one window, exactly, from one snapshot.
//!
//! The fleet is taken a chunk at a time, some statements each, so that memory is bounded whatever
//! its size; while one chunk is computed the next is fetched.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Client, Transaction};
use tokio::task::JoinHandle;
use tokio_postgres::IsolationLevel;

use super::budget::{Budget, Lease};
use super::chunk;
use super::chunk::{Chunk, Member, Named};
use super::history::History;
use super::hour_rows::Hours;
use super::hours::ROUNDS_MAX;
use super::{AskError, meter_ids};
use crate::energy::answer::{Cuts, Slice};
use crate::energy::device::{DeviceEnergy, EnergyReading};
use crate::energy::exact::Exact;
use crate::energy::hour::Condensed;
use crate::energy::interval::Run;
use crate::energy::report::{EfficiencyStatus, Printed, StatusBounds};
use crate::energy::tariff::Costs;
use crate::reading::Timestamp;

/// Readings that a chunk is to have, about: some tens of MB, and statements of about a second.
const CHUNK_READINGS: usize = 300_000;
/// Devices of the first chunk, before it is known how much they send.
const CHUNK_DEVICES_FIRST: usize = 64;
/// Devices of a chunk, at most.
const CHUNK_DEVICES_MAX: usize = 2_000;
/// The same where it makes way: statements of some milliseconds.
const CHUNK_DEVICES_GENTLE: usize = 250;
/// How long it makes way. Why: it holds a snapshot meanwhile, and may take a minute and a half in all.
const GENTLE_FOR: Duration = Duration::from_secs(20);

/// What a survey is about.
#[derive(Debug, Clone)]
pub struct Survey {
    /// W.
    pub window: Run,
    /// Time after it is not attributed.
    pub now: Timestamp,
    /// Parts of the window whose energy is summed up too; they make up the window, or none.
    pub parts: Vec<Run>,
    /// What a kWh costs when; in parts that make up the window, or none.
    pub prices: Vec<(Run, i64)>,
    /// What a ratio tells.
    pub bounds: StatusBounds,
    /// The implied power above which a reading is suspect.
    pub suspect_watts: u64,
    /// Nobody waits for it.
    pub makes_way: bool,
}

/// What a ranking orders and filters a vehicle by.
#[derive(Debug, Clone)]
pub struct Rank {
    /// Its external id.
    pub vehicle_id: Arc<str>,
    /// Its status.
    pub status: EfficiencyStatus,
    /// Its printed ratio in 1/100 percent; `None` where AC is 0.
    pub ratio: Option<i64>,
    /// AC minus matched DC, in mWh as printed.
    pub lost_mwh: i128,
}

/// One vehicle of a fleet, printed.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// Its id in the database.
    pub key: i32,
    /// How many of its own readings are suspect.
    pub suspect: u64,
    /// Its place.
    pub rank: Rank,
    /// The whole answer.
    pub printed: Printed,
}

/// What the numbers and texts of a printed answer take outside of its struct, about.
const PRINTED_BYTES: usize = 64;

/// The energy of all meters and vehicles in a part of the window.
#[derive(Debug, Clone)]
pub struct FleetSlice {
    /// What all meters measured.
    pub meter_ac: Exact,
    /// The vehicles'.
    pub vehicles: Slice,
}

impl FleetSlice {
    fn empty(part: Run) -> Self {
        FleetSlice {
            meter_ac: Exact::default(),
            vehicles: Slice::empty(part),
        }
    }
}

/// The answer of a survey.
#[derive(Debug)]
pub struct Surveyed {
    /// Every known vehicle, by id.
    pub vehicles: Vec<Ranked>,
    /// Every meter by its id in the database, and how many of its readings are suspect.
    pub meters: Vec<(i32, u64)>,
    /// The whole window.
    pub whole: FleetSlice,
    /// Its parts, as they were asked for.
    pub parts: Vec<FleetSlice>,
    /// What the vehicles' energy has cost; none where no tariff is known.
    pub costs: Option<Costs>,
}

/// What the chunks add to.
struct Sums {
    survey: Arc<Survey>,
    vehicles: Vec<Ranked>,
    meters: Vec<(i32, u64)>,
    whole: FleetSlice,
    parts: Vec<FleetSlice>,
    costs: Costs,
    /// The meters whose energy is in the sums.
    meters_done: HashSet<i32>,
    /// Vehicles whose answers need readings as they are.
    again: Vec<Member>,
    /// Which readings.
    cuts: Vec<Cuts>,
}

/// Surveys a fleet.
///
/// Blocks: for some statements a chunk of vehicles, and then of meters
/// Cancel: safe; the transaction is rolled back
pub(super) async fn survey(
    client: &mut Client,
    budget: &Budget,
    survey: Survey,
) -> Result<Surveyed, AskError> {
    let work = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let survey = Arc::new(survey);
    let priced = survey.prices.iter().map(|(run, _)| *run);
    let parts: Vec<Run> = survey.parts.iter().copied().chain(priced).collect();
    let hours = Hours::new(survey.window, &parts, survey.suspect_watts);
    let mut history = History::new(&work, Lease::new(budget)).with_hours(hours.clone());
    let named = chunk::named(&mut history, survey.window).await?;
    // Held as long as `named` is.
    let _held = history.renew(Lease::new(budget));
    let mut walk = Walk {
        work: &work,
        history: &mut history,
        budget,
        named: &named,
        survey: Arc::clone(&survey),
        pace: Pace::new(survey.makes_way),
    };
    let sums = walk.all(Sums::new(Arc::clone(&survey))).await?;
    let sums = walk.rest(sums).await?;
    let mut history = history.with_hours(hours);
    let mut sums = meters(&work, &mut history, budget, sums).await?;
    sums.vehicles
        .sort_unstable_by(|a, b| a.rank.vehicle_id.cmp(&b.rank.vehicle_id));
    Ok(Surveyed {
        vehicles: sums.vehicles,
        meters: sums.meters,
        whole: sums.whole,
        parts: sums.parts,
        costs: (!survey.prices.is_empty()).then_some(sums.costs),
    })
}

/// How many devices the next chunk has.
struct Pace {
    devices: usize,
    /// Until when it rests after each chunk, and since when this chunk is worked at.
    gentle_until: Option<Instant>,
    works_since: Instant,
}

impl Pace {
    fn new(makes_way: bool) -> Self {
        let now = Instant::now();
        Pace {
            devices: CHUNK_DEVICES_FIRST,
            gentle_until: makes_way.then(|| now + GENTLE_FOR),
            works_since: now,
        }
    }

    fn is_gentle(&self) -> bool {
        self.gentle_until
            .is_some_and(|until| Instant::now() < until)
    }

    /// Leaves the machine to others for as long as the last chunk took, where nobody waits.
    async fn rest(&mut self) {
        if self.is_gentle() {
            tokio::time::sleep(self.works_since.elapsed()).await;
        }
        self.works_since = Instant::now();
    }

    /// Takes what a chunk held as the measure of the next.
    fn learn(&mut self, devices: usize, readings: usize) {
        let each = (readings / devices.max(1)).max(1);
        let most = match self.is_gentle() {
            true => CHUNK_DEVICES_GENTLE,
            false => CHUNK_DEVICES_MAX,
        };
        self.devices = (CHUNK_READINGS / each).clamp(1, most);
    }

    /// Takes less after a chunk that did not fit; `false` where one device is already too much.
    fn shrink(&mut self, error: &AskError, devices: usize) -> bool {
        let memory = matches!(error, AskError::TooManyReadings | AskError::Busy);
        self.devices = (devices / 2).max(1);
        memory && devices > 1
    }
}

/// What goes on from chunk to chunk: one is fetched while the one before is computed.
struct Walk<'w, 'h> {
    work: &'w Transaction<'w>,
    history: &'h mut History<'w>,
    budget: &'h Budget,
    named: &'h Named,
    survey: Arc<Survey>,
    pace: Pace,
}

impl Walk<'_, '_> {
    /// Takes some vehicles into the sums. `false`: they were too many at once.
    async fn take(
        &mut self,
        members: &[Member],
        running: Running,
    ) -> Result<(Running, bool), AskError> {
        let (window, now) = (self.survey.window, self.survey.now);
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

    /// Takes all vehicles.
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
            let taken;
            (running, taken) = self.take(&members, running).await?;
            if taken {
                after = last.key;
            }
        }
    }

    /// Takes once more those vehicles whose answers need readings as they are, with ever fewer
    /// hours summed up.
    async fn rest(&mut self, mut sums: Sums) -> Result<Sums, AskError> {
        for round in 1.. {
            let mut left = std::mem::take(&mut sums.again);
            if left.is_empty() {
                break;
            }
            for cuts in sums.cuts.drain(..) {
                self.history.refuse(&cuts);
            }
            if round >= ROUNDS_MAX {
                self.history.refuse_all();
            }
            let mut running = Running::Idle(Box::new(sums));
            while !left.is_empty() {
                let some = self.pace.devices.min(left.len());
                let taken;
                (running, taken) = self.take(&left[..some], running).await?;
                if taken {
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
    let window = sums.survey.window;
    let done: HashSet<i32> = sums.meters_done.clone();
    let mut pace = Pace::new(sums.survey.makes_way);
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
                        sums.add_meter(meter, &of_meter.list, &of_meter.condensed);
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

impl Sums {
    fn new(survey: Arc<Survey>) -> Self {
        Sums {
            vehicles: Vec::new(),
            meters: Vec::new(),
            whole: FleetSlice::empty(survey.window),
            parts: survey
                .parts
                .iter()
                .map(|&part| FleetSlice::empty(part))
                .collect(),
            meters_done: HashSet::new(),
            costs: Costs::default(),
            again: Vec::new(),
            cuts: Vec::new(),
            survey,
        }
    }

    fn add_vehicles(&mut self, chunk: &Chunk, names: &HashMap<i32, String>) {
        let survey = Arc::clone(&self.survey);
        let priced = survey.prices.iter().map(|(run, _)| *run);
        let parts: Vec<Run> = survey.parts.iter().copied().chain(priced).collect();
        for (member, answer) in chunk.answers(&parts, survey.suspect_watts) {
            let (answer, slices) = match answer {
                Ok(answer) => answer,
                Err(cuts) => {
                    self.again.push(member.clone());
                    self.cuts.push(cuts);
                    continue;
                }
            };
            let (slices, priced) = slices.split_at(survey.parts.len());
            let whole = &mut self.whole.vehicles;
            whole.consumed_ac.add(&answer.consumed_ac);
            whole.delivered_dc.add(&answer.delivered_dc);
            whole.matched_dc.add(&answer.matched_dc);
            for (sum, slice) in self.parts.iter_mut().zip(slices) {
                sum.vehicles.add(slice);
            }
            let meters = answer
                .meters
                .iter()
                .filter_map(|key| names.get(&key.0).cloned());
            let mut printed = Printed::new(&answer, &member.id, meters.collect(), &survey.bounds);
            if !survey.prices.is_empty() {
                let prices = survey.prices.iter().map(|(_, price)| *price);
                let costs = Costs::of(priced, prices);
                // The currency stands once beside all.
                printed = printed.with_costs(&costs, None);
                self.costs.add(&costs);
            }
            let suspect = answer.own_oddities.suspect;
            self.vehicles
                .extend(Ranked::new(member.key, suspect, printed));
        }
        for &meter in &chunk.whole_meters {
            if self.meters_done.insert(meter) {
                let (readings, condensed) = chunk.meter(meter);
                self.add_meter(meter, readings, condensed);
            }
        }
    }

    /// What is condensed lies wholly in the window and in one of its parts.
    fn add_meter(&mut self, key: i32, readings: &[EnergyReading], condensed: &[Condensed]) {
        let readings = readings.iter().copied();
        let watts = self.survey.suspect_watts;
        let meter = DeviceEnergy::with_condensed(readings, condensed, watts);
        let odd = meter.oddities_in(self.survey.window);
        self.meters.push((key, odd.suspect));
        self.whole.meter_ac.add(&meter.energy(self.survey.window));
        for part in &mut self.parts {
            part.meter_ac.add(&meter.energy(part.vehicles.window));
        }
    }
}

impl Ranked {
    /// `None` where more is lost than an integer of 128 bits holds.
    fn new(key: i32, suspect: u64, printed: Printed) -> Option<Self> {
        Some(Ranked {
            key,
            suspect,
            rank: Rank {
                vehicle_id: Arc::clone(&printed.vehicle_id),
                status: printed.efficiency_status,
                ratio: printed
                    .efficiency_ratio
                    .as_ref()
                    .and_then(|ratio| i64::try_from(ratio.units()?).ok()),
                lost_mwh: printed.lost_energy()?,
            },
            printed,
        })
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let meters = self.printed.attribution.meters.iter();
        let meters = meters.map(|meter| size_of_val(meter) + meter.len());
        size_of_val(self) + PRINTED_BYTES + meters.sum::<usize>()
    }
}
