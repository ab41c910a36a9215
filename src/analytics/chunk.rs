//! A chunk of a fleet, with everything that its vehicles' answers depend on.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::AskError;
use super::history::History;
use super::hour_rows::Readings;
use super::reach;
use super::reach::{BEHIND_MICROS, Others, Owners, Place, Rows, Wanted, joined};
use super::vehicles;
use super::vehicles::FetchedVehicle;
use crate::energy::answer::{Performance, Slice, SplitHours, divided_since, performance_and_parts};
use crate::energy::attribution::{CLAIM_MICROS_MAX, MeterKey, Vehicle, VehicleKey};
use crate::energy::device::{EnergyReading, SUSPECT_WATTS_DEFAULT};
use crate::energy::hour::RolledUp;
use crate::energy::interval::Interval;
use crate::energy::question::{Meter, Question, plan};
use crate::reading::{Stream, Timestamp};

/// A registered vehicle.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) key: i32,
    pub(super) id: String,
    pub(super) same_id: Option<i32>,
    pub(super) has_session: bool,
}

/// For each meter, the vehicles whose readings name it, or a session there, in a window, each with its first and
/// last such reading.
pub(super) type Named = HashMap<i32, Vec<(VehicleKey, Timestamp, Timestamp)>>;

/// Loads which vehicles name which meters in a window and shortly after it.
pub(super) async fn named(history: &mut History<'_>, window: Interval) -> Result<Named, AskError> {
    let statement = history.work.prepare_cached(sql!("fleet_named")).await?;
    let behind = window.end().plus_micros(BEHIND_MICROS);
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

/// A vehicle of a chunk, with its meters.
#[derive(Debug)]
struct PlacedVehicle {
    member: Member,
    /// Its meters, each with the other vehicles that may be there.
    meters: Vec<(MeterKey, Wanted, HashSet<VehicleKey>)>,
    /// How far back to search if a meter's first reading is divided among vehicles.
    first_low: Option<Timestamp>,
}

/// Some vehicles, with everything that their answers depend on.
#[derive(Debug)]
pub(super) struct Chunk {
    window: Interval,
    now: Timestamp,
    placed: Vec<PlacedVehicle>,
    vehicles: HashMap<i32, FetchedVehicle>,
    meters: HashMap<i32, Readings<EnergyReading>>,
    /// The vehicles that have the same id as shared meters, or as meters to which rule 3 may apply.
    owners: Owners,
    /// The meters whose readings over the whole window are loaded.
    pub(super) whole_meters: Vec<i32>,
}

/// Fetches what [`Question`] requires, for many vehicles at once.
///
/// For each vehicle this covers at least what a query for it alone would fetch.
pub(super) async fn fetch(
    history: &mut History<'_>,
    named: &Named,
    members: &[Member],
    window: Interval,
    now: Timestamp,
) -> Result<Chunk, AskError> {
    let behind = window.end().plus_micros(BEHIND_MICROS);
    let span = Interval::new(window.start(), behind).unwrap_or(window);
    let spans: BTreeMap<i32, Interval> = members.iter().map(|m| (m.key, span)).collect();
    let vehicles = vehicles::vehicles(history, &spans).await?;
    let mut placed: Vec<PlacedVehicle> = Vec::new();
    let mut owners = Owners::new();
    let mut intervals_by_meter: BTreeMap<i32, Vec<Interval>> = BTreeMap::new();
    for member in members {
        let Some(vehicle) = vehicles.get(&member.key) else {
            continue;
        };
        if vehicle.readings.is_empty() && !member.has_session {
            continue;
        }
        let plan = plan(&vehicle.borrow(), window, now);
        let same_id = member.same_id.map(MeterKey).filter(|_| plan.asks_same_id);
        owners.extend(same_id.map(|meter| (meter, VehicleKey(member.key))));
        let wanted = reach::wanted(plan, same_id, window);
        for (meter, wanted) in &wanted {
            let of_meter = intervals_by_meter.entry(meter.0).or_default();
            of_meter.extend_from_slice(wanted.intervals.as_slice());
        }
        let meters = wanted.into_iter();
        placed.push(PlacedVehicle {
            member: member.clone(),
            meters: meters
                .map(|(key, wanted)| (key, wanted, HashSet::new()))
                .collect(),
            first_low: None,
        });
    }
    for (&meter, intervals) in &mut intervals_by_meter {
        let ends = intervals
            .iter()
            .flat_map(|interval| [interval.start(), interval.end()]);
        history.exclude_at(Stream::Meter, meter, ends);
        *intervals = joined(&intervals.iter().copied().collect());
    }
    let meters: HashMap<i32, Readings<EnergyReading>> =
        history.around_many(&intervals_by_meter).await?;
    let mut others = others(history, named, &placed, window, now).await?;
    for placed in &mut placed {
        placed.add(&mut others);
    }
    let is_whole = |intervals: &Vec<Interval>| {
        let holds = |interval: &Interval| {
            interval.start() <= window.start() && window.end() <= interval.end()
        };
        intervals.iter().any(holds)
    };
    let whole = intervals_by_meter
        .iter()
        .filter(|(_, intervals)| is_whole(intervals));
    let mut chunk = Chunk {
        window,
        now,
        placed,
        vehicles,
        owners,
        whole_meters: whole.map(|(&meter, _)| meter).collect(),
        meters,
    };
    let mut held = spans;
    while chunk.complete(history, &mut held).await? {}
    Ok(chunk)
}

impl PlacedVehicle {
    /// Adds other vehicles that may be at this vehicle's meters.
    fn add(&mut self, others: &mut Others) {
        for (meter, _, there) in &mut self.meters {
            there.extend(
                others
                    .remove(&(self.member.key, meter.0))
                    .unwrap_or_default(),
            );
        }
    }
}

/// The other vehicles that may be at a meter at the same time, by vehicle and meter.
async fn others(
    history: &History<'_>,
    named: &Named,
    placed: &[PlacedVehicle],
    window: Interval,
    now: Timestamp,
) -> Result<Others, AskError> {
    let mut rows = Rows::default();
    let mut found = Others::new();
    for PlacedVehicle { member, meters, .. } in placed {
        for (meter, wanted, _) in meters {
            for &interval in wanted.looked(window, now).as_slice() {
                rows.add(VehicleKey(member.key), *meter, interval);
                for &(other, first, last) in named.get(&meter.0).into_iter().flatten() {
                    // A reading claims up to 15 minutes before it, so look a little further.
                    let behind = interval.end().plus_micros(CLAIM_MICROS_MAX);
                    if other.0 != member.key && first <= behind && last > interval.start() {
                        found
                            .entry((member.key, meter.0))
                            .or_default()
                            .insert(other);
                    }
                }
            }
        }
    }
    for (place, other) in rows.with_session(history).await? {
        found.entry(place).or_default().insert(other);
    }
    Ok(found)
}

impl Chunk {
    /// How far each vehicle's answer reaches at each of its meters, in order.
    fn places(&self) -> Vec<Place<'_>> {
        let mut places = Vec::new();
        for placed in &self.placed {
            for (meter, wanted, others) in &placed.meters {
                let (readings, _) = self.meter(meter.0);
                let mut reach = wanted.reach(readings, others, self.window, self.now);
                if let (true, Some(low)) = (reach.is_first, placed.first_low) {
                    reach.low = low;
                }
                places.push(Place {
                    vehicle: VehicleKey(placed.member.key),
                    meter: *meter,
                    wanted,
                    others,
                    reach,
                });
            }
        }
        places
    }

    /// Fetches the vehicles' readings beyond the `held` spans, as far as the meters' readings require, and the
    /// other vehicles that may be at the meters.
    ///
    /// Returns `true` if a meter's first reading is divided, so that the search must go further back.
    async fn complete(
        &mut self,
        history: &mut History<'_>,
        held: &mut BTreeMap<i32, Interval>,
    ) -> Result<bool, AskError> {
        let (window, now) = (self.window, self.now);
        let behind = window.end().plus_micros(BEHIND_MICROS);
        let places = self.places();
        let owners = reach::owners(history, &places).await?;
        let mut unseen = reach::unseen(history, &places, &owners, window, now).await?;
        let mut spans: BTreeMap<i32, (Interval, bool)> = BTreeMap::new();
        for place in &places {
            let high = place.reach.high.plus_micros(CLAIM_MICROS_MAX).max(behind);
            let Some(span) = Interval::new(place.reach.low, high) else {
                continue;
            };
            let (interval, is_first) = spans.entry(place.vehicle.0).or_insert((span, false));
            let (low, high) = (
                interval.start().min(span.start()),
                interval.end().max(span.end()),
            );
            *interval = Interval::new(low, high).unwrap_or(span);
            *is_first |= place.reach.is_first;
        }
        for (meter, owner) in owners {
            self.owners.entry(meter).or_insert(owner);
        }
        let mut wider: BTreeMap<i32, Interval> = BTreeMap::new();
        for placed in &mut self.placed {
            placed.add(&mut unseen);
            let Some((span, _)) = spans.get(&placed.member.key) else {
                continue;
            };
            let others = placed.meters.iter().flat_map(|(_, _, others)| others);
            for key in others.map(|other| other.0).chain([placed.member.key]) {
                let interval = match wider.get(&key).or(held.get(&key)) {
                    Some(interval) if interval.and(*span) == Some(*span) => continue,
                    Some(interval) => Interval::new(
                        interval.start().min(span.start()),
                        interval.end().max(span.end()),
                    ),
                    None => Some(*span),
                };
                wider.extend(interval.map(|interval| (key, interval)));
            }
        }
        self.vehicles
            .extend(vehicles::vehicles(history, &wider).await?);
        held.extend(wider);
        let mut goes_on = false;
        for n in 0..self.placed.len() {
            let key = self.placed[n].member.key;
            let Some((span, true)) = spans.get(&key) else {
                continue;
            };
            let start = self.ask(&self.placed[n], SUSPECT_WATTS_DEFAULT, divided_since);
            if let Some(start) = start.flatten() {
                let low = reach::further_back(history, window, span.start(), start).await?;
                goes_on |= low.is_some();
                self.placed[n].first_low = low.or(Some(span.start()));
            }
        }
        Ok(goes_on)
    }

    /// Asks the question about one vehicle.
    fn ask<R>(
        &self,
        placed: &PlacedVehicle,
        suspect_watts: u64,
        ask: impl FnOnce(&Question<'_>) -> R,
    ) -> Option<R> {
        let others = placed.meters.iter().map(|(_, _, others)| {
            let there = others.iter().filter_map(|key| self.vehicles.get(&key.0));
            there.map(FetchedVehicle::borrow).collect()
        });
        let others: Vec<Vec<Vehicle<'_>>> = others.collect();
        let meters = placed.meters.iter().zip(&others);
        let meters = meters.map(|((key, _, _), others)| Meter {
            key: *key,
            owner: self.owners.get(key).copied(),
            readings: self.meter(key.0).0,
            rolled_up: self.meter(key.0).1,
            others,
        });
        let meters: Vec<Meter<'_>> = meters.collect();
        Some(ask(&Question {
            window: self.window,
            now: self.now,
            vehicle: self.vehicles.get(&placed.member.key)?.borrow(),
            meters: &meters,
            suspect_watts,
        }))
    }

    /// The answers for all known vehicles, with the energy in the requested parts of the window. A vehicle may
    /// instead get the rolled-up hours whose individual readings its answer needs.
    pub(super) fn answers<'a>(
        &'a self,
        parts: &'a [Interval],
        suspect_watts: u64,
    ) -> impl Iterator<Item = (&'a Member, Result<(Performance, Vec<Slice>), SplitHours>)> {
        self.placed.iter().filter_map(move |placed| {
            let ask = |question: &Question<'_>| performance_and_parts(question, parts);
            let answer = self.ask(placed, suspect_watts, ask)?;
            Some((&placed.member, answer))
        })
    }

    /// The meters at which the vehicles were.
    pub(super) fn meter_keys(&self) -> Vec<i32> {
        let of_vehicle = |placed: &PlacedVehicle| {
            placed
                .meters
                .iter()
                .map(|(key, _, _)| key.0)
                .collect::<Vec<_>>()
        };
        self.placed.iter().flat_map(of_vehicle).collect()
    }

    /// A meter's readings and rolled-up hours.
    pub(super) fn meter(&self, key: i32) -> (&[EnergyReading], &[RolledUp]) {
        match self.meters.get(&key) {
            Some(readings) => (&readings.list, &readings.rolled_up),
            None => (&[], &[]),
        }
    }
}
