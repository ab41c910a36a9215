//! The answer for one vehicle and one window.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attribution::{MeterKey, Piece, Rule, SessionKey, Vehicle, VehicleKey};
use super::coverage::{Coverage, Watched, coverage};
use super::device::{DeviceEnergy, EnergyReading, Oddities};
use super::exact::{Exact, temperature_units};
use super::interval::{Interval, Intervals};
use super::question::{Meter, Question};
use super::sharing::{Guest, credited, first_start, known};
use super::whereabouts::{Stays, whereabouts};
use crate::reading::Timestamp;

/// The rules by which a vehicle was attributed in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// No rule applied.
    None,
    /// Only this rule.
    Only(Rule),
    /// Several rules.
    Mixed,
}

/// The answer in exact numbers.
#[derive(Debug, Clone)]
pub struct Performance {
    /// The requested window W, (from, to].
    pub window: Interval,
    /// AC attributed to the vehicle in W.
    pub consumed_ac: Exact,
    /// All DC of the vehicle in W.
    pub delivered_dc: Exact,
    /// DC at moments in W whose meter energy is known.
    pub matched_dc: Exact,
    /// The sum of the battery temperatures, in 1e-24 °C.
    pub temperature_sum: i128,
    /// The vehicle's readings in W.
    pub data_points: u64,
    /// The meters' readings in the attribution periods within the window.
    pub meter_data_points: u64,
    /// The rules that applied.
    pub method: Method,
    /// The vehicle's meters in W, ascending by key.
    pub meters: Vec<MeterKey>,
    /// The number of distinct sessions that put the vehicle at a meter in W, or that are named by a reading which
    /// does so. A session does not count if readings that name the meter (rule 1) cover all of its time.
    pub sessions: u64,
    /// How much of the time has readings.
    pub coverage: Coverage,
    /// Resets and suspect readings: of the vehicle in W, and of the meters in the attribution periods within the
    /// window. Each counts at the time of its reading.
    pub oddities: Oddities,
    /// The same for the vehicle alone.
    pub own_oddities: Oddities,
}

/// The energy in a part of the window, in exact numbers.
#[derive(Debug, Clone)]
pub struct Slice {
    /// The part.
    pub window: Interval,
    /// AC attributed to the vehicle in it.
    pub consumed_ac: Exact,
    /// All DC of the vehicle in it.
    pub delivered_dc: Exact,
    /// DC at moments in it whose meter energy is known.
    pub matched_dc: Exact,
}

impl Slice {
    /// A part without energy.
    pub fn empty(window: Interval) -> Self {
        Slice {
            window,
            consumed_ac: Exact::default(),
            delivered_dc: Exact::default(),
            matched_dc: Exact::default(),
        }
    }

    /// Adds another vehicle's energy in the same part.
    pub fn add(&mut self, other: &Slice) {
        self.consumed_ac.add(&other.consumed_ac);
        self.delivered_dc.add(&other.delivered_dc);
        self.matched_dc.add(&other.matched_dc);
    }
}

/// Answers a question.
///
/// If the vehicle has overlapping periods at two meters (the registry would refuse such sessions), DC in the
/// overlap is matched if either meter's energy is known.
///
/// # Errors
/// [`SplitHours`]: see [`performance_and_parts`].
pub fn performance(question: &Question<'_>) -> Result<Performance, SplitHours> {
    Ok(performance_and_parts(question, &[])?.0)
}

/// Answers a question, and computes the energy in each of the given parts of the window.
///
/// Attribution uses the whole window, so the energy of parts that cover the window adds up exactly to the answer.
///
/// Order:  that of `parts`
///
/// # Errors
/// [`SplitHours`]: the rolled-up hours whose readings the answer needs. It cannot occur without rolled-up hours.
pub fn performance_and_parts(
    question: &Question<'_>,
    parts: &[Interval],
) -> Result<(Performance, Vec<Slice>), SplitHours> {
    let settled = Settled::new(question, parts);
    if !settled.splits.is_empty() {
        return Err(settled.splits);
    }
    let whole = settled.answer(question);
    let slices = parts.iter().map(|&part| settled.slice(part));
    Ok((whole, slices.collect()))
}

/// The start of the earliest attribution period that contains a meter's first reading, if that reading is divided
/// among several vehicles. The caller must supply the readings of the question's vehicle from there on. `None`
/// means that no such reading is in the window.
pub fn divided_since(question: &Question<'_>) -> Option<Timestamp> {
    let settled = Settled::new(question, &[]);
    let starts = settled.places.iter().filter_map(|place| {
        let meter = place.meter.as_ref()?;
        first_start(meter, &place.guest, &place.others, &place.in_window)
    });
    starts.min()
}

/// Rolled-up hours whose readings an answer needs one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SplitHours {
    /// Hours of vehicles: the question's own and others.
    pub vehicles: Vec<(VehicleKey, Interval)>,
    /// Hours of meters.
    pub meters: Vec<(MeterKey, Interval)>,
}

impl SplitHours {
    /// Whether nothing is split.
    pub fn is_empty(&self) -> bool {
        self.vehicles.is_empty() && self.meters.is_empty()
    }

    /// Adds all rolled-up hours of a shared meter and of the vehicles there. An amount is divided by what each
    /// vehicle received in exactly the amount's interval, so every reading is needed.
    fn add_shared(&mut self, question: &Question<'_>, meter: &Meter<'_>, guests: &[VehicleKey]) {
        self.meters
            .extend(meter.rolled_up.iter().map(|sum| (meter.key, sum.interval)));
        let others = meter.others.iter();
        let others = others.filter(|other| guests.contains(&other.key));
        for vehicle in others.chain([&question.vehicle]) {
            let rolled_up = vehicle.rolled_up.iter();
            self.vehicles
                .extend(rolled_up.map(|sum| (vehicle.key, sum.interval)));
        }
    }
}

/// A meter at which the vehicle is in the window, with its energy and the other vehicles there.
struct Place {
    key: MeterKey,
    /// The vehicle's periods there, within the window.
    in_window: Intervals,
    /// `None` means that nothing about it was given.
    meter: Option<DeviceEnergy>,
    guest: Guest,
    others: Vec<Guest>,
}

/// A question after attribution, before it is clipped to a window.
struct Settled {
    own: Arc<DeviceEnergy>,
    pieces: Vec<Piece>,
    places: Vec<Place>,
    coverage: Coverage,
    /// The moments at which some meter's energy is known.
    known: Intervals,
    /// The rolled-up intervals that an edge splits. Unless it is empty, the other fields are not valid.
    splits: SplitHours,
}

impl Settled {
    fn new(question: &Question<'_>, parts: &[Interval]) -> Self {
        let watts = question.suspect_watts;
        let own = Arc::new(energy_of(&question.vehicle, watts));
        let mut stays = whereabouts(question);
        let Stays { pieces, periods } = stays.remove(&question.vehicle.key).unwrap_or_default();
        let mut edges = edges_of(question, parts, &pieces);
        let mut splits = SplitHours::default();
        let mut places = Vec::new();
        let mut known_moments = Vec::new();
        let mut energies: BTreeMap<VehicleKey, Arc<DeviceEnergy>> = BTreeMap::new();
        let given: BTreeMap<MeterKey, &Meter<'_>> =
            question.meters.iter().map(|m| (m.key, m)).collect();
        for (key, periods) in periods {
            let in_window = periods.clip(question.window);
            if in_window.is_empty() {
                continue;
            }
            let mut place = Place {
                key,
                in_window,
                meter: None,
                guest: Guest {
                    periods,
                    energy: Arc::clone(&own),
                },
                others: Vec::new(),
            };
            if let Some(meter) = given.get(&key) {
                let energy = meter_energy(meter, watts);
                splits
                    .meters
                    .extend(energy.split_by(&edges).map(|interval| (key, interval)));
                known_moments.extend_from_slice(known(&energy, &place.guest.periods).as_slice());
                place.meter = Some(energy);
                let mut guests = Vec::new();
                for (vehicle, periods) in guests_at(question, meter, &stays, &place.in_window) {
                    guests.push(vehicle.key);
                    let energy = energies.entry(vehicle.key);
                    let energy = energy.or_insert_with(|| Arc::new(energy_of(vehicle, watts)));
                    place.others.push(Guest {
                        periods: periods.clone(),
                        energy: Arc::clone(energy),
                    });
                }
                if !guests.is_empty() {
                    splits.add_shared(question, meter, &guests);
                }
            }
            places.push(place);
        }
        let known = Intervals::from_iter(known_moments);
        edges.extend(known.as_slice().iter().flat_map(|r| [r.start(), r.end()]));
        edges.sort_unstable();
        let own_splits = own
            .split_by(&edges)
            .map(|interval| (question.vehicle.key, interval));
        splits.vehicles.extend(own_splits);
        let coverage = covered(question.window, &pieces, &places, &own);
        Settled {
            own,
            pieces,
            places,
            coverage,
            known,
            splits,
        }
    }

    fn answer(&self, question: &Question<'_>) -> Performance {
        let energy = self.slice(question.window);
        let mut answer = blank(question, &self.own, &self.pieces);
        answer.consumed_ac = energy.consumed_ac;
        answer.delivered_dc = energy.delivered_dc;
        answer.matched_dc = energy.matched_dc;
        answer.coverage = self.coverage;
        for place in &self.places {
            answer.meters.push(place.key);
            let Some(meter) = &place.meter else {
                continue;
            };
            for &interval in place.in_window.as_slice() {
                answer.meter_data_points += meter.count_in(interval);
                answer.oddities.add(meter.oddities_in(interval));
            }
        }
        answer
    }

    fn slice(&self, part: Interval) -> Slice {
        let mut slice = Slice::empty(part);
        for place in &self.places {
            if let Some(meter) = &place.meter {
                let ac = credited(meter, &place.guest, &place.others, part);
                slice.consumed_ac.add(&ac);
            }
        }
        slice.delivered_dc = self.own.energy(part);
        slice.matched_dc = self.own.energy_in(&self.known, part);
        slice
    }
}

/// The edges that may split a rolled-up interval, ascending.
fn edges_of(question: &Question<'_>, parts: &[Interval], pieces: &[Piece]) -> Vec<Timestamp> {
    let intervals = pieces.iter().map(|piece| piece.interval);
    let intervals = intervals
        .chain(parts.iter().copied())
        .chain([question.window]);
    let mut edges: Vec<Timestamp> = intervals
        .flat_map(|interval| [interval.start(), interval.end()])
        .collect();
    edges.push(question.now);
    edges.sort_unstable();
    edges
}

/// The energy of a vehicle.
fn energy_of(vehicle: &Vehicle<'_>, suspect_watts: u64) -> DeviceEnergy {
    let readings = vehicle.readings.iter().map(EnergyReading::from);
    DeviceEnergy::with_rolled_up(readings, vehicle.rolled_up, suspect_watts)
}

/// The parts of the answer that need no meter.
fn blank(question: &Question<'_>, own: &DeviceEnergy, pieces: &[Piece]) -> Performance {
    let window = question.window;
    let readings = question.vehicle.readings.iter();
    let temperatures = readings
        .filter(|r| window.contains(r.at))
        .map(|r| temperature_units(r.battery_temp));
    let rolled_up = question.vehicle.rolled_up.iter();
    let rolled_up = rolled_up
        .filter(|sum| window.contains(sum.interval.end()))
        .map(|sum| sum.temperature_sum);
    let here = || {
        pieces
            .iter()
            .filter(|piece| piece.interval.and(window).is_some())
    };
    let rules: BTreeSet<Rule> = here().map(|piece| piece.rule).collect();
    let sessions: BTreeSet<SessionKey> = here().filter_map(|piece| piece.session).collect();
    let mut rules = rules.into_iter();
    Performance {
        window,
        consumed_ac: Exact::default(),
        delivered_dc: Exact::default(),
        matched_dc: Exact::default(),
        temperature_sum: temperatures.chain(rolled_up).sum(),
        data_points: own.count_in(window),
        meter_data_points: 0,
        method: match (rules.next(), rules.next()) {
            (None, _) => Method::None,
            (Some(rule), None) => Method::Only(rule),
            (Some(_), Some(_)) => Method::Mixed,
        },
        meters: Vec::new(),
        sessions: sessions.len() as u64,
        coverage: Coverage::default(),
        oddities: own.oddities_in(window),
        own_oddities: own.oddities_in(window),
    }
}

/// The energy of a meter.
fn meter_energy(meter: &Meter<'_>, suspect_watts: u64) -> DeviceEnergy {
    let readings = meter.readings.iter().copied();
    DeviceEnergy::with_rolled_up(readings, meter.rolled_up, suspect_watts)
}

/// The other vehicles at a meter during the given moments, with their attribution periods there.
fn guests_at<'a>(
    question: &'a Question<'a>,
    meter: &'a Meter<'a>,
    stays: &'a BTreeMap<VehicleKey, Stays>,
    moments: &'a Intervals,
) -> impl Iterator<Item = (&'a Vehicle<'a>, &'a Intervals)> {
    let others = meter.others.iter();
    let others = others.filter(|other| other.key != question.vehicle.key);
    others.filter_map(move |vehicle| {
        let periods = stays.get(&vehicle.key)?.periods.get(&meter.key)?;
        (!periods.and(moments).is_empty()).then_some((vehicle, periods))
    })
}

/// How much of the attributed time has readings.
fn covered(window: Interval, pieces: &[Piece], places: &[Place], own: &DeviceEnergy) -> Coverage {
    let same_id = pieces.iter().filter(|piece| piece.rule == Rule::SameId);
    let same_id = same_id.filter_map(|piece| Some((piece.meter, piece.interval.and(window)?)));
    let same_id: Vec<(MeterKey, Interval)> = same_id.collect();
    let by_same_id: Vec<Intervals> = places
        .iter()
        .map(|place| {
            let here = same_id.iter().filter(|(meter, _)| *meter == place.key);
            here.map(|(_, interval)| *interval).collect()
        })
        .collect();
    let watched = places.iter().zip(&by_same_id);
    let watched = watched.map(|(place, by_same_id)| Watched {
        periods: &place.in_window,
        by_same_id,
        meter: place.meter.as_ref(),
    });
    coverage(watched, own)
}
