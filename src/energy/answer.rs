//! The answer for one vehicle and one window.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attribution::{MeterKey, Piece, Rule, SessionKey, Vehicle, VehicleKey};
use super::coverage::{Coverage, Watched, coverage};
use super::device::{DeviceEnergy, EnergyReading, Oddities};
use super::exact::{Exact, temperature_units};
use super::interval::{Run, Runs};
use super::question::{Meter, Question};
use super::sharing::{Guest, credited, first_start, known};
use super::whereabouts::{Stays, whereabouts};
use crate::reading::Timestamp;

/// How a vehicle was attributed in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    None,
    /// By one rule only.
    Only(Rule),
    /// By several.
    Mixed,
}

/// The answer, in exact values.
#[derive(Debug, Clone)]
pub struct Performance {
    /// W, as asked.
    pub window: Run,
    /// AC attributed to the vehicle in W.
    pub consumed_ac: Exact,
    /// All DC of the vehicle in W.
    pub delivered_dc: Exact,
    /// DC at moments in W at which the meter is known.
    pub matched_dc: Exact,
    /// The sum of the battery's temperatures, in 1e-24 °C.
    pub temperature_sum: i128,
    /// The vehicle's readings in W.
    pub data_points: u64,
    /// The meters' readings in the attribution periods cut at W.
    pub meter_data_points: u64,
    /// By which rules.
    pub method: Method,
    /// At which meters in W, ascending by key.
    pub meters: Vec<MeterKey>,
    /// How many different sessions put the vehicle at a meter in W, or are named by a reading
    /// that does. A session all of whose time rule 1 took by naming the meter is not counted.
    pub sessions: u64,
    /// How much of the time is told about.
    pub coverage: Coverage,
    /// Resets and suspect readings: of the meters in the attribution periods cut at W, and of
    /// the vehicle in W, each at the time of its reading.
    pub oddities: Oddities,
    /// Those of the vehicle alone.
    pub own_oddities: Oddities,
}

/// The energy of a part of the window, in exact values.
#[derive(Debug, Clone)]
pub struct Slice {
    /// Which part.
    pub window: Run,
    /// AC attributed to the vehicle in it.
    pub consumed_ac: Exact,
    /// All DC of the vehicle in it.
    pub delivered_dc: Exact,
    /// DC at moments in it at which the meter is known.
    pub matched_dc: Exact,
}

impl Slice {
    /// A part without energy.
    pub fn empty(window: Run) -> Self {
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
/// DC that lies in periods at two meters at once (sessions that the registry would refuse) is
/// matched where either meter is known.
///
/// # Errors
/// [`Cuts`]: see [`performance_and_parts`].
pub fn performance(question: &Question<'_>) -> Result<Performance, Cuts> {
    Ok(performance_and_parts(question, &[])?.0)
}

/// Answers a question, and says how much of the energy lies in each of some parts of the window.
///
/// Attribution is the whole window's: parts that make up the window add up to the answer, exactly.
///
/// Order:  as the parts are given
///
/// # Errors
/// [`Cuts`]: what is condensed and to be given as it is. Never where nothing is condensed.
pub fn performance_and_parts(
    question: &Question<'_>,
    parts: &[Run],
) -> Result<(Performance, Vec<Slice>), Cuts> {
    let settled = Settled::new(question, parts);
    if !settled.cuts.is_empty() {
        return Err(settled.cuts);
    }
    let whole = settled.answer(question);
    let slices = parts.iter().map(|&part| settled.slice(part));
    Ok((whole, slices.collect()))
}

/// From when on the vehicles of a question have to be given, as far as a meter's first reading ever
/// says: where the earliest of the attribution periods begins that hold it, where that reading is
/// divided among several. `None` where no such reading is in the window.
pub fn divided_since(question: &Question<'_>) -> Option<Timestamp> {
    let settled = Settled::new(question, &[]);
    let starts = settled.places.iter().filter_map(|place| {
        let meter = place.meter.as_ref()?;
        first_start(meter, &place.guest, &place.others, &place.in_window)
    });
    starts.min()
}

/// What is condensed where the answer depends on the readings themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cuts {
    /// Of vehicles, the one asked for and others.
    pub vehicles: Vec<(VehicleKey, Run)>,
    /// Of meters.
    pub meters: Vec<(MeterKey, Run)>,
}

impl Cuts {
    /// Tells whether nothing is cut.
    pub fn is_empty(&self) -> bool {
        self.vehicles.is_empty() && self.meters.is_empty()
    }

    /// All of a meter's and of its vehicles' where a meter is shared: an amount is divided by what
    /// each received over just its time.
    fn add_shared(&mut self, question: &Question<'_>, meter: &Meter<'_>, guests: &[VehicleKey]) {
        self.meters
            .extend(meter.condensed.iter().map(|sum| (meter.key, sum.run)));
        let others = meter.others.iter();
        let others = others.filter(|other| guests.contains(&other.key));
        for vehicle in others.chain([&question.vehicle]) {
            let condensed = vehicle.condensed.iter();
            self.vehicles
                .extend(condensed.map(|sum| (vehicle.key, sum.run)));
        }
    }
}

/// A meter where the vehicle is in the window: its energy, and who is there.
struct Place {
    key: MeterKey,
    /// The vehicle's periods there, cut at the window.
    in_window: Runs,
    /// `None` where nothing is known of it.
    meter: Option<DeviceEnergy>,
    guest: Guest,
    others: Vec<Guest>,
}

/// A question once everything is attributed, before a window cuts it.
struct Settled {
    own: Arc<DeviceEnergy>,
    pieces: Vec<Piece>,
    places: Vec<Place>,
    coverage: Coverage,
    /// The moments at which a meter is known.
    known: Runs,
    /// Where something is condensed that an edge goes through; nothing else holds then.
    cuts: Cuts,
}

impl Settled {
    fn new(question: &Question<'_>, parts: &[Run]) -> Self {
        let watts = question.suspect_watts;
        let own = Arc::new(energy_of(&question.vehicle, watts));
        let mut stays = whereabouts(question);
        let Stays { pieces, periods } = stays.remove(&question.vehicle.key).unwrap_or_default();
        let mut edges = edges_of(question, parts, &pieces);
        let mut cuts = Cuts::default();
        let mut places = Vec::new();
        let mut known_moments = Vec::new();
        let mut energies: BTreeMap<VehicleKey, Arc<DeviceEnergy>> = BTreeMap::new();
        let given: BTreeMap<MeterKey, &Meter<'_>> =
            question.meters.iter().map(|m| (m.key, m)).collect();
        for (key, periods) in periods {
            let in_window = periods.cut(question.window);
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
                cuts.meters
                    .extend(energy.cut_by(&edges).map(|run| (key, run)));
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
                    cuts.add_shared(question, meter, &guests);
                }
            }
            places.push(place);
        }
        let known = Runs::from_iter(known_moments);
        edges.extend(known.as_slice().iter().flat_map(|r| [r.start(), r.end()]));
        edges.sort_unstable();
        let own_cuts = own.cut_by(&edges).map(|run| (question.vehicle.key, run));
        cuts.vehicles.extend(own_cuts);
        let coverage = covered(question.window, &pieces, &places, &own);
        Settled {
            own,
            pieces,
            places,
            coverage,
            known,
            cuts,
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
            for &run in place.in_window.as_slice() {
                answer.meter_data_points += meter.count_in(run);
                answer.oddities.add(meter.oddities_in(run));
            }
        }
        answer
    }

    fn slice(&self, part: Run) -> Slice {
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

/// The edges at which what is condensed may be cut, ascending.
fn edges_of(question: &Question<'_>, parts: &[Run], pieces: &[Piece]) -> Vec<Timestamp> {
    let runs = pieces.iter().map(|piece| piece.run);
    let runs = runs.chain(parts.iter().copied()).chain([question.window]);
    let mut edges: Vec<Timestamp> = runs.flat_map(|run| [run.start(), run.end()]).collect();
    edges.push(question.now);
    edges.sort_unstable();
    edges
}

/// The energy of a vehicle.
fn energy_of(vehicle: &Vehicle<'_>, suspect_watts: u64) -> DeviceEnergy {
    let readings = vehicle.readings.iter().map(EnergyReading::from);
    DeviceEnergy::with_condensed(readings, vehicle.condensed, suspect_watts)
}

/// The part of the answer that needs no meter.
fn blank(question: &Question<'_>, own: &DeviceEnergy, pieces: &[Piece]) -> Performance {
    let window = question.window;
    let readings = question.vehicle.readings.iter();
    let temperatures = readings
        .filter(|r| window.contains(r.at))
        .map(|r| temperature_units(r.battery_temp));
    let condensed = question.vehicle.condensed.iter();
    let condensed = condensed
        .filter(|sum| window.contains(sum.run.end()))
        .map(|sum| sum.temperature_sum);
    let here = || {
        pieces
            .iter()
            .filter(|piece| piece.run.and(window).is_some())
    };
    let rules: BTreeSet<Rule> = here().map(|piece| piece.rule).collect();
    let sessions: BTreeSet<SessionKey> = here().filter_map(|piece| piece.session).collect();
    let mut rules = rules.into_iter();
    Performance {
        window,
        consumed_ac: Exact::default(),
        delivered_dc: Exact::default(),
        matched_dc: Exact::default(),
        temperature_sum: temperatures.chain(condensed).sum(),
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
    DeviceEnergy::with_condensed(readings, meter.condensed, suspect_watts)
}

/// The other vehicles that are at a meter in some moments, with their attribution periods there.
fn guests_at<'a>(
    question: &'a Question<'a>,
    meter: &'a Meter<'a>,
    stays: &'a BTreeMap<VehicleKey, Stays>,
    moments: &'a Runs,
) -> impl Iterator<Item = (&'a Vehicle<'a>, &'a Runs)> {
    let others = meter.others.iter();
    let others = others.filter(|other| other.key != question.vehicle.key);
    others.filter_map(move |vehicle| {
        let periods = stays.get(&vehicle.key)?.periods.get(&meter.key)?;
        (!periods.and(moments).is_empty()).then_some((vehicle, periods))
    })
}

/// How much of the attributed time has readings.
fn covered(window: Run, pieces: &[Piece], places: &[Place], own: &DeviceEnergy) -> Coverage {
    let same_id = pieces.iter().filter(|piece| piece.rule == Rule::SameId);
    let same_id = same_id.filter_map(|piece| Some((piece.meter, piece.run.and(window)?)));
    let same_id: Vec<(MeterKey, Run)> = same_id.collect();
    let by_same_id: Vec<Runs> = places
        .iter()
        .map(|place| {
            let here = same_id.iter().filter(|(meter, _)| *meter == place.key);
            here.map(|(_, run)| *run).collect()
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
