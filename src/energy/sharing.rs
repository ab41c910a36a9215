//! What of a meter's energy is credited to one vehicle, alone or among several.

use std::sync::Arc;

use super::device::{Amount, DeviceEnergy, Extent};
use super::exact::Exact;
use super::interval::{Run, Runs};
use crate::reading::Timestamp;

/// One vehicle at a meter: its attribution periods there, cut by no window, and its DC.
#[derive(Debug, Clone)]
pub struct Guest {
    /// When it was at the meter.
    pub periods: Runs,
    /// What it received, wherever it was; shared between the meters where it was.
    pub energy: Arc<DeviceEnergy>,
}

/// Sums the energy of a meter in `window` that is credited to `guest`.
///
/// An amount is divided among the guests present in the ratio of their DC over the whole of it
/// within their periods at this meter, whatever the window cuts. One alone gets all, with or
/// without DC; several without any get nothing.
///
/// A meter's first reading has no start: it begins where the earliest of the periods begins that
/// hold it.
pub fn credited(meter: &DeviceEnergy, guest: &Guest, others: &[Guest], window: Run) -> Exact {
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
            Extent::Spread { start } => {
                if let Some(span) = Run::new(start, amount.at) {
                    add_spread(&mut sum, amount.mwh, span, guest, others, window);
                }
            }
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
        .and_then(|start| Run::new(start, amount.at))
    {
        let (weight, weights) = weigh(guest, present, span);
        sum.add_share(mwh, (1, 1), &weight, &weights);
    }
}

fn add_spread(sum: &mut Exact, mwh: i64, span: Run, guest: &Guest, others: &[Guest], window: Run) {
    let (mwh, all) = (i128::from(mwh), span.micros());
    let Some(cut) = span.and(window) else {
        return;
    };
    let mut alone: i128 = 0;
    for own in guest.periods.within(cut) {
        for part in parts(own, others) {
            // A part holds no edge of a period: who is there at its end is there all along.
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

/// Cuts a run at the edges of the others' periods.
fn parts(run: Run, others: &[Guest]) -> Vec<Run> {
    let mut edges = vec![run.start(), run.end()];
    for other in others {
        edges.extend(other.periods.within(run).flat_map(|r| [r.start(), r.end()]));
    }
    edges.sort_unstable();
    edges.dedup();
    edges
        .windows(2)
        .filter_map(|pair| Run::new(*pair.first()?, *pair.last()?))
        .collect()
}

/// The DC of one guest, and of all present, over a meter's amount.
fn weigh(guest: &Guest, present: &[&Guest], span: Run) -> (Exact, Exact) {
    let weight = guest.energy.energy_in(&guest.periods, span);
    let mut weights = weight.clone();
    for other in present {
        weights.add(&other.energy.energy_in(&other.periods, span));
    }
    (weight, weights)
}

/// Where the earliest of the attribution periods begins that hold a meter's first reading, where that
/// is divided among several at one of some moments.
pub fn first_start(
    meter: &DeviceEnergy,
    guest: &Guest,
    others: &[Guest],
    moments: &Runs,
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
    let last = Run::new(at.plus_micros(-1), at)?;
    let runs = guest.periods.as_slice();
    runs.iter()
        .find(|run| run.and(last).is_some())
        .map(|run| run.start())
}

/// The moments within `periods` at which a meter's energy is known: its next reading is an
/// interval in the same period, or they lie between two register neighbours.
pub fn known(meter: &DeviceEnergy, periods: &Runs) -> Runs {
    let mut known = Vec::new();
    for amount in meter.amounts() {
        match amount.extent {
            Extent::Spread { start } => {
                known.extend(
                    Run::new(start, amount.at)
                        .into_iter()
                        .flat_map(|r| periods.within(r)),
                );
            }
            Extent::Moment { since } => {
                let start = since.unwrap_or(Timestamp::from_micros(i64::MIN));
                // The last of the periods that touch the run is the one that holds the reading.
                let last = Run::new(start, amount.at).and_then(|run| periods.within(run).last());
                known.extend(last.filter(|run| run.end() == amount.at));
            }
        }
    }
    known.into_iter().collect()
}
