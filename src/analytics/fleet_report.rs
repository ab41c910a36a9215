//! The report on a fleet: the sums of its vehicles' and meters' answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::chunk::{Chunk, Member};
use super::{Priority, Timeframe};
use crate::energy::answer::{Slice, SplitHours};
use crate::energy::device::{DeviceEnergy, EnergyReading};
use crate::energy::exact::Exact;
use crate::energy::hour::RolledUp;
use crate::energy::interval::Interval;
use crate::energy::report::{EfficiencyStatus, Printed, StatusBounds};
use crate::energy::tariff::Costs;

/// A query about a fleet.
#[derive(Debug, Clone)]
pub(super) struct ReportQuestion {
    /// The window, and its parts if a series was requested.
    pub(super) timeframe: Timeframe,
    /// The price of a kWh in each part of the window; empty without a tariff.
    pub(super) prices: Vec<(Interval, i64)>,
    /// The bounds by which ratios are rated.
    pub(super) bounds: StatusBounds,
    /// The implied power above which a reading is suspect.
    pub(super) suspect_watts: u64,
    pub(super) priority: Priority,
}

impl ReportQuestion {
    /// The parts whose energy is computed: first those of the series, then those of the prices.
    pub(super) fn parts(&self) -> Vec<Interval> {
        let priced = self.prices.iter().map(|(interval, _)| *interval);
        self.timeframe.parts.iter().copied().chain(priced).collect()
    }
}

/// The values by which a ranking sorts and filters vehicles.
#[derive(Debug, Clone)]
pub struct Rank {
    /// Its external id.
    pub vehicle_id: Arc<str>,
    /// Its status.
    pub status: EfficiencyStatus,
    /// Its printed ratio in 1/100 percent; `None` if AC is 0.
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
    /// The values that decide its place in a ranking.
    pub rank: Rank,
    /// The whole answer.
    pub printed: Printed,
}

/// The approximate memory that a printed answer takes outside its struct.
const PRINTED_BYTES: usize = 64;

/// The energy of all meters and vehicles in a part of the window.
#[derive(Debug, Clone)]
pub struct FleetSlice {
    /// What all meters measured.
    pub meter_ac: Exact,
    /// The sums of the vehicles.
    pub vehicles: Slice,
}

impl FleetSlice {
    fn empty(part: Interval) -> Self {
        FleetSlice {
            meter_ac: Exact::default(),
            vehicles: Slice::empty(part),
        }
    }
}

/// The answer for a fleet.
#[derive(Debug)]
pub struct FleetReport {
    /// Every known vehicle, by id.
    pub vehicles: Vec<Ranked>,
    /// The database id of every meter, and the number of its suspect readings.
    pub meters: Vec<(i32, u64)>,
    /// The whole window.
    pub whole: FleetSlice,
    /// The requested parts.
    pub parts: Vec<FleetSlice>,
    /// The cost of the vehicles' energy; `None` without a tariff.
    pub costs: Option<Costs>,
}

/// The running sums, to which each chunk is added.
pub(super) struct Sums {
    pub(super) question: Arc<ReportQuestion>,
    vehicles: Vec<Ranked>,
    meters: Vec<(i32, u64)>,
    whole: FleetSlice,
    parts: Vec<FleetSlice>,
    costs: Costs,
    /// The meters whose energy is already included.
    pub(super) meters_done: HashSet<i32>,
    /// The vehicles whose answers need readings in place of rolled-up hours.
    pub(super) again: Vec<Member>,
    /// The rolled-up hours that those answers cannot use.
    pub(super) splits: Vec<SplitHours>,
}

impl Sums {
    /// Finishes the report after every vehicle and meter was added.
    pub(super) fn finish(mut self) -> FleetReport {
        self.vehicles
            .sort_unstable_by(|a, b| a.rank.vehicle_id.cmp(&b.rank.vehicle_id));
        FleetReport {
            vehicles: self.vehicles,
            meters: self.meters,
            whole: self.whole,
            parts: self.parts,
            costs: (!self.question.prices.is_empty()).then_some(self.costs),
        }
    }

    pub(super) fn new(question: Arc<ReportQuestion>) -> Self {
        Sums {
            vehicles: Vec::new(),
            meters: Vec::new(),
            whole: FleetSlice::empty(question.timeframe.window),
            parts: question
                .timeframe
                .parts
                .iter()
                .map(|&part| FleetSlice::empty(part))
                .collect(),
            meters_done: HashSet::new(),
            costs: Costs::default(),
            again: Vec::new(),
            splits: Vec::new(),
            question,
        }
    }

    pub(super) fn add_vehicles(&mut self, chunk: &Chunk, names: &HashMap<i32, String>) {
        let question = Arc::clone(&self.question);
        let parts = question.parts();
        for (member, answer) in chunk.answers(&parts, question.suspect_watts) {
            let (answer, slices) = match answer {
                Ok(answer) => answer,
                Err(splits) => {
                    self.again.push(member.clone());
                    self.splits.push(splits);
                    continue;
                }
            };
            let (slices, priced) = slices.split_at(question.timeframe.parts.len());
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
            let mut printed = Printed::new(&answer, &member.id, meters.collect(), &question.bounds);
            if !question.prices.is_empty() {
                let prices = question.prices.iter().map(|(_, price)| *price);
                let costs = Costs::of(priced, prices);
                // The currency appears once for all items, not in each.
                printed = printed.with_costs(&costs, None);
                self.costs.add(&costs);
            }
            let suspect = answer.own_oddities.suspect;
            self.vehicles
                .extend(Ranked::new(member.key, suspect, printed));
        }
        for &meter in &chunk.whole_meters {
            if self.meters_done.insert(meter) {
                let (readings, rolled_up) = chunk.meter(meter);
                self.add_meter(meter, readings, rolled_up);
            }
        }
    }

    /// Adds a meter. Each of its rolled-up hours lies within the window and within one of its parts.
    pub(super) fn add_meter(
        &mut self,
        key: i32,
        readings: &[EnergyReading],
        rolled_up: &[RolledUp],
    ) {
        let readings = readings.iter().copied();
        let watts = self.question.suspect_watts;
        let meter = DeviceEnergy::with_rolled_up(readings, rolled_up, watts);
        let odd = meter.oddities_in(self.question.timeframe.window);
        self.meters.push((key, odd.suspect));
        self.whole
            .meter_ac
            .add(&meter.energy(self.question.timeframe.window));
        for part in &mut self.parts {
            part.meter_ac.add(&meter.energy(part.vehicles.window));
        }
    }
}

impl Ranked {
    /// `None` if the loss does not fit in 128 bits.
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

    /// The approximate number of bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let meters = self.printed.attribution.meters.iter();
        let meters = meters.map(|meter| size_of_val(meter) + meter.len());
        size_of_val(self) + PRINTED_BYTES + meters.sum::<usize>()
    }
}
