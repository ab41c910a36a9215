//! The part of a meter's energy that is credited to one vehicle, whether it is there alone or with others.

use std::sync::Arc;

use super::device::{Amount, DeviceEnergy, Extent};
use super::exact::Exact;
use super::interval::{Interval, Intervals};
use crate::reading::Timestamp;

/// One vehicle at a meter: its attribution periods there, not clipped to a window, and its DC energy.
#[derive(Debug, Clone)]
pub struct Guest {
    /// When it was at the meter.
    pub periods: Intervals,
    /// Its DC energy, wherever it was received. Shared by all meters that it visits.
    pub energy: Arc<DeviceEnergy>,
}

/// Sums the part of a meter's energy in `window` that is credited to `guest`.
///
/// An amount is divided among the vehicles present, in proportion to their DC over its whole interval within their
/// periods at this meter, whatever the window. A vehicle that is alone is credited with all of it, with or without
/// DC. If several are present and none has DC, no vehicle is credited.
///
/// A meter's first reading has no start. Its interval begins with the earliest period that contains it.
pub fn credited(meter: &DeviceEnergy, guest: &Guest, others: &[Guest], window: Interval) -> Exact {
    let mut sum = Exact::default();
    for amount in meter.amounts_in(window) {
        match amount.extent {
            Extent::Moment { since } => {
                if window.contains(amount.at) && guest.periods.contains(amount.at) {
                    let present: Vec<&Guest> = others
                        .iter()
                        .filter(|o| o.periods.contains(amount.at))
                        .collect();
                    add_moment(&mut sum, amount, since, guest, &present);
                }
            }
            Extent::Spread { .. } => add_spread(&mut sum, amount, guest, others, window),
        }
    }
    sum
}

fn add_moment(
    sum: &mut Exact,
    amount: &Amount,
    since: Option<Timestamp>,
    guest: &Guest,
    present: &[&Guest],
) {
    let mwh = i128::from(amount.mwh);
    if present.is_empty() {
        return sum.add_mwh(mwh);
    }
    let holders = present.iter().copied().chain([guest]);
    let earliest = holders.filter_map(|g| start_of_period(g, amount.at)).min();
    if let Some(span) = since
        .or(earliest)
        .and_then(|start| Interval::new(start, amount.at))
    {
        let (weight, weights) = weigh(guest, present, span);
        sum.add_share(mwh, (1, 1), &weight, &weights);
    }
}

fn add_spread(sum: &mut Exact, amount: &Amount, guest: &Guest, others: &[Guest], window: Interval) {
    let Some(span) = amount.spread() else {
        return;
    };
    let (mwh, all) = (i128::from(amount.mwh), span.micros());
    let Some(cut) = span.and(window) else {
        return;
    };
    let mut alone: i128 = 0;
    for own in guest.periods.within(cut) {
        for part in parts(own, others) {
            // A part contains no edge of a period, so a vehicle that is there at its end is there throughout.
            let present: Vec<&Guest> = others
                .iter()
                .filter(|o| o.periods.contains(part.end()))
                .collect();
            if present.is_empty() {
                alone += part.micros();
                continue;
            }
            let (weight, weights) = weigh(guest, &present, span);
            sum.add_share(mwh, (part.micros(), all), &weight, &weights);
        }
    }
    sum.add_part(mwh, alone, all);
}

/// Splits an interval at the edges of the other vehicles' periods.
fn parts(interval: Interval, others: &[Guest]) -> Vec<Interval> {
    let mut edges = vec![interval.start(), interval.end()];
    for other in others {
        edges.extend(
            other
                .periods
                .within(interval)
                .flat_map(|r| [r.start(), r.end()]),
        );
    }
    edges.sort_unstable();
    edges.dedup();
    edges
        .windows(2)
        .filter_map(|pair| Interval::new(*pair.first()?, *pair.last()?))
        .collect()
}

/// The DC of `guest`, and of all vehicles present, over the interval of a meter's amount.
fn weigh(guest: &Guest, present: &[&Guest], span: Interval) -> (Exact, Exact) {
    let weight = guest.energy.energy_in(&guest.periods, span);
    let mut weights = weight.clone();
    for other in present {
        weights.add(&other.energy.energy_in(&other.periods, span));
    }
    (weight, weights)
}

/// The start of the earliest attribution period that contains a meter's first reading, if that reading is at one
/// of the given `moments` and is divided among several vehicles.
pub fn first_start(
    meter: &DeviceEnergy,
    guest: &Guest,
    others: &[Guest],
    moments: &Intervals,
) -> Option<Timestamp> {
    let first = meter.amounts().first()?;
    let is_first = first.extent == Extent::Moment { since: None } && moments.contains(first.at);
    let shares = |other: &Guest| other.periods.contains(first.at);
    if !is_first || !others.iter().any(shares) {
        return None;
    }
    let all = others.iter().chain([guest]);
    all.filter_map(|g| start_of_period(g, first.at)).min()
}

fn start_of_period(guest: &Guest, at: Timestamp) -> Option<Timestamp> {
    let last = Interval::new(at.plus_micros(-1), at)?;
    let intervals = guest.periods.as_slice();
    intervals
        .iter()
        .find(|interval| interval.and(last).is_some())
        .map(|interval| interval.start())
}

/// The moments within `periods` at which a meter's energy is known: the meter's next reading is an interval
/// reading in the same period, or they lie between two register neighbours.
pub fn known(meter: &DeviceEnergy, periods: &Intervals) -> Intervals {
    let mut known = Vec::new();
    for amount in meter.amounts() {
        match amount.extent {
            Extent::Spread { start } => {
                known.extend(
                    Interval::new(start, amount.at)
                        .into_iter()
                        .flat_map(|r| periods.within(r)),
                );
            }
            Extent::Moment { since } => {
                let start = since.unwrap_or(Timestamp::from_micros(i64::MIN));
                // Of the periods that overlap the interval, only the last can contain the reading.
                let last = Interval::new(start, amount.at)
                    .and_then(|interval| periods.within(interval).last());
                known.extend(last.filter(|interval| interval.end() == amount.at));
            }
        }
    }
    known.into_iter().collect()
}
