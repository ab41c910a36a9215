//! A chunk of a fleet: what its vehicles' answers are computed from, fetched together.

use std::collections::{BTreeMap, HashMap, HashSet};

use tokio_postgres::types::ToSql;

use super::history::History;
use super::hours::Readings;
use super::people::{self, FetchedVehicle};
use super::{AskError, BEHIND_MICROS, joined, lowest};
use crate::analytics::attribution::{CLAIM_MICROS_MAX, MeterKey, Vehicle, VehicleKey};
use crate::analytics::condensed::Condensed;
use crate::analytics::device::EnergyReading;
use crate::analytics::performance::{
    Cuts, Meter, Performance, Question, Slice, performance_and_parts, plan,
};
use crate::analytics::runs::{Run, Runs};
use crate::reading::{Stream, Timestamp};

macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("../../../sql/queries/", $name, ".sql"))
    };
}

/// A registered vehicle.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) key: i32,
    pub(super) id: String,
    pub(super) same_id: Option<i32>,
    pub(super) has_session: bool,
}

/// Who names each meter, or a session there, in a window: with the first and the last such
/// reading.
pub(super) type Named = HashMap<i32, Vec<(VehicleKey, Timestamp, Timestamp)>>;

/// Loads who names which meter in a window.
pub(super) async fn named(history: &mut History<'_>, window: Run) -> Result<Named, AskError> {
    let statement = history.work.prepare_cached(sql!("fleet_named")).await?;
    let behind = window.end().plus_micros(CLAIM_MICROS_MAX);
    let rows = history
        .work
        .query(&statement, &[&window.start(), &behind])
        .await?;
    let mut named = Named::new();
    for row in &rows {
        history.lease.one_more()?;
        let vehicle = VehicleKey(row.try_get(1)?);
        let there = (vehicle, row.try_get(2)?, row.try_get(3)?);
        named.entry(row.try_get(0)?).or_default().push(there);
    }
    Ok(named)
}

/// A vehicle with the meter of its id, where rule 3 may apply, and where it was in the window.
type There = (Member, Option<MeterKey>, BTreeMap<MeterKey, Runs>);

/// A vehicle of a chunk, with where it was.
#[derive(Debug)]
struct Asked {
    member: Member,
    same_id: Option<MeterKey>,
    /// Its meters, and who else may be there.
    meters: Vec<(MeterKey, Vec<VehicleKey>)>,
}

/// Some vehicles with all that their answers depend on.
#[derive(Debug)]
pub(super) struct Chunk {
    window: Run,
    now: Timestamp,
    asked: Vec<Asked>,
    vehicles: HashMap<i32, FetchedVehicle>,
    meters: HashMap<i32, Readings<EnergyReading>>,
    /// The meters whose readings are here over the whole window.
    pub(super) whole_meters: Vec<i32>,
}

/// Fetches what [`Question`] asks for, for many vehicles at once.
///
/// Each vehicle's part is what the question of one fetches, or more.
pub(super) async fn fetch(
    history: &mut History<'_>,
    named: &Named,
    members: &[Member],
    window: Run,
    now: Timestamp,
) -> Result<Chunk, AskError> {
    let behind = window.end().plus_micros(BEHIND_MICROS);
    let span = Run::new(window.start(), behind).unwrap_or(window);
    let spans: BTreeMap<i32, Run> = members.iter().map(|m| (m.key, span)).collect();
    let mut vehicles = people::vehicles(history, &spans).await?;
    let mut there: Vec<There> = Vec::new();
    let mut runs_by_meter: BTreeMap<i32, Vec<Run>> = BTreeMap::new();
    for member in members {
        let Some(vehicle) = vehicles.get(&member.key) else {
            continue;
        };
        if vehicle.readings.is_empty() && !member.has_session {
            continue;
        }
        let plan = plan(&vehicle.borrow(), window, now);
        let mut wanted = plan.meters;
        let same_id = member.same_id.map(MeterKey).filter(|_| plan.asks_same_id);
        if let Some(meter) = same_id {
            wanted.insert(meter, Runs::from_iter([window]));
        }
        for (meter, runs) in &wanted {
            let of_meter = runs_by_meter.entry(meter.0).or_default();
            of_meter.extend_from_slice(runs.as_slice());
        }
        there.push((member.clone(), same_id, wanted));
    }
    for (&meter, runs) in &mut runs_by_meter {
        let ends = runs.iter().flat_map(|run| [run.start(), run.end()]);
        history.refuse_at(Stream::Meter, meter, ends);
        *runs = joined(&runs.iter().copied().collect());
    }
    let meters: HashMap<i32, Readings<EnergyReading>> = history.around_many(&runs_by_meter).await?;
    let others = others(history, named, &there).await?;

    let (asked, wider) = settle(there, &meters, &others, span, window, &vehicles);
    vehicles.extend(people::vehicles(history, &wider).await?);
    let is_whole = |runs: &Vec<Run>| {
        let holds = |run: &Run| run.start() <= window.start() && window.end() <= run.end();
        runs.iter().any(holds)
    };
    let whole = runs_by_meter.iter().filter(|(_, runs)| is_whole(runs));
    Ok(Chunk {
        window,
        now,
        asked,
        vehicles,
        whole_meters: whole.map(|(&meter, _)| meter).collect(),
        meters,
    })
}

/// Says with whom each vehicle may share a meter, and whose readings are needed over more than
/// `span`: as far as what is divided reaches.
fn settle(
    there: Vec<There>,
    meters: &HashMap<i32, Readings<EnergyReading>>,
    others: &HashMap<(i32, i32), Vec<VehicleKey>>,
    span: Run,
    window: Run,
    held: &HashMap<i32, FetchedVehicle>,
) -> (Vec<Asked>, BTreeMap<i32, Run>) {
    let mut wider: BTreeMap<i32, Run> = BTreeMap::new();
    let mut asked = Vec::with_capacity(there.len());
    for (member, same_id, wanted) in there {
        let (mut low, mut high) = (span.start(), span.end());
        let mut with_others = Vec::with_capacity(wanted.len());
        for (meter, runs) in &wanted {
            let readings = meters.get(&meter.0).map_or(&[][..], |m| &m.list);
            let others = others.get(&(member.key, meter.0));
            let goes_on = runs.as_slice().last();
            let goes_on = goes_on.is_some_and(|run| run.end() == window.end());
            // A period that goes on behind the window is followed to the meter's next reading.
            if let (true, Some(last)) = (goes_on, readings.last()) {
                high = high.max(last.at.plus_micros(CLAIM_MICROS_MAX));
            }
            if others.is_some() {
                low = low.min(lowest(readings, window));
            }
            with_others.push((*meter, others.cloned().unwrap_or_default()));
        }
        let needed = Run::new(low, high).unwrap_or(span);
        let guests = with_others.iter().flat_map(|(_, others)| others);
        for key in guests.map(|other| other.0).chain([member.key]) {
            if needed != span || !held.contains_key(&key) {
                let run = wider.entry(key).or_insert(needed);
                let (from, to) = (run.start().min(low), run.end().max(high));
                *run = Run::new(from, to).unwrap_or(span);
            }
        }
        asked.push(Asked {
            member,
            same_id,
            meters: with_others,
        });
    }
    (asked, wider)
}

/// The others that may be at a meter when a vehicle is, by (vehicle, meter).
async fn others(
    history: &History<'_>,
    named: &Named,
    there: &[There],
) -> Result<HashMap<(i32, i32), Vec<VehicleKey>>, AskError> {
    let (mut vehicles, mut meters) = (Vec::new(), Vec::new());
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    let mut found: HashMap<(i32, i32), HashSet<VehicleKey>> = HashMap::new();
    for (member, _, wanted) in there {
        for (meter, runs) in wanted {
            for run in runs.as_slice() {
                vehicles.push(member.key);
                meters.push(meter.0);
                starts.push(run.start());
                ends.push(run.end());
                for &(other, first, last) in named.get(&meter.0).into_iter().flatten() {
                    // The last reading claims up to 15 minutes before itself.
                    let behind = run.end().plus_micros(CLAIM_MICROS_MAX);
                    if other.0 != member.key && first <= behind && last > run.start() {
                        found
                            .entry((member.key, meter.0))
                            .or_default()
                            .insert(other);
                    }
                }
            }
        }
    }
    let statement = history
        .work
        .prepare_cached(sql!("fleet_sessions_at"))
        .await?;
    let parameters: [&(dyn ToSql + Sync); 4] = [&vehicles, &meters, &starts, &ends];
    for row in &history.work.query(&statement, &parameters).await? {
        let place = (row.try_get(0)?, row.try_get(1)?);
        let other = VehicleKey(row.try_get(2)?);
        found.entry(place).or_default().insert(other);
    }
    let listed = |(place, others): (_, HashSet<VehicleKey>)| (place, others.into_iter().collect());
    Ok(found.into_iter().map(listed).collect())
}

impl Chunk {
    /// The answers of all vehicles that are known, with the energy in some parts of the window; or
    /// what has to be fetched as it is for one.
    pub(super) fn answers<'a>(
        &'a self,
        parts: &'a [Run],
        suspect_watts: u64,
    ) -> impl Iterator<Item = (&'a Member, Result<(Performance, Vec<Slice>), Cuts>)> {
        self.asked.iter().filter_map(move |asked| {
            let others: Vec<Vec<Vehicle<'_>>> = asked
                .meters
                .iter()
                .map(|(_, others)| {
                    let there = others.iter().filter_map(|key| self.vehicles.get(&key.0));
                    there.map(FetchedVehicle::borrow).collect()
                })
                .collect();
            let meters: Vec<Meter<'_>> = asked
                .meters
                .iter()
                .zip(&others)
                .map(|((key, _), others)| Meter {
                    key: *key,
                    readings: self.meter(key.0).0,
                    condensed: self.meter(key.0).1,
                    others,
                })
                .collect();
            let answer = performance_and_parts(
                &Question {
                    window: self.window,
                    now: self.now,
                    vehicle: self.vehicles.get(&asked.member.key)?.borrow(),
                    same_id: asked.same_id,
                    meters: &meters,
                    suspect_watts,
                },
                parts,
            );
            Some((&asked.member, answer))
        })
    }

    /// Where the vehicles were.
    pub(super) fn meter_keys(&self) -> Vec<i32> {
        let of_vehicle = |asked: &Asked| {
            asked
                .meters
                .iter()
                .map(|(key, _)| key.0)
                .collect::<Vec<_>>()
        };
        self.asked.iter().flat_map(of_vehicle).collect()
    }

    /// The readings of a meter, and what of it is condensed.
    pub(super) fn meter(&self, key: i32) -> (&[EnergyReading], &[Condensed]) {
        match self.meters.get(&key) {
            Some(readings) => (&readings.list, &readings.condensed),
            None => (&[], &[]),
        }
    }
}
