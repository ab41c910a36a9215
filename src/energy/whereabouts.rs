//! Where all vehicles of a question are, by all three rules.

use std::collections::BTreeMap;

use super::attribution::{
    MeterKey, Piece, Vehicle, VehicleKey, goes_by_same_id, intervals_of, named_and_sessions,
    periods, same_id,
};
use super::interval::{Interval, Intervals};
use super::question::Question;

/// Where one vehicle is.
#[derive(Debug, Default)]
pub struct Stays {
    /// Pieces by each rule on its own.
    pub pieces: Vec<Piece>,
    /// Its attribution periods, not clipped to a window.
    pub periods: BTreeMap<MeterKey, Intervals>,
}

/// Finds where the vehicle of a question and all others are.
///
/// Rule 3 applies to the other vehicles as to the question's vehicle. If a meter's own vehicle is there by rule 3,
/// and another by rule 1 or 2, energy is divided between them, and the DC of both counts.
pub fn whereabouts(question: &Question<'_>) -> BTreeMap<VehicleKey, Stays> {
    let others = question.meters.iter().flat_map(|meter| meter.others);
    let mut vehicles: BTreeMap<VehicleKey, &Vehicle<'_>> = BTreeMap::new();
    for vehicle in [&question.vehicle].into_iter().chain(others) {
        vehicles.entry(vehicle.key).or_insert(vehicle);
    }
    let placed = |(&key, vehicle): (&VehicleKey, &&Vehicle<'_>)| {
        (key, named_and_sessions(vehicle, question.now))
    };
    let mut pieces: BTreeMap<VehicleKey, Vec<Piece>> = vehicles.iter().map(placed).collect();
    for meter in question.meters {
        let Some(owner) = meter.owner.and_then(|owner| vehicles.get(&owner)) else {
            continue;
        };
        if !goes_by_same_id(owner, question.window) {
            continue;
        }
        let guests = meter.others.iter().map(|other| other.key);
        let guests = guests.chain([question.vehicle.key]);
        let mut excluded: Vec<Interval> = Vec::new();
        for guest in guests.filter(|&guest| guest != owner.key) {
            let there = pieces.get(&guest).into_iter().flatten();
            excluded.extend(there.filter(|p| p.meter == meter.key).map(|p| p.interval));
        }
        if let Some(own) = pieces.get_mut(&owner.key) {
            excluded.extend_from_slice(intervals_of(own).as_slice());
            own.extend(same_id(
                question.now,
                meter.key,
                &Intervals::from_iter(excluded),
            ));
        }
    }
    let stays = |(key, pieces): (VehicleKey, Vec<Piece>)| {
        let periods = periods(&pieces);
        (key, Stays { pieces, periods })
    };
    pieces.into_iter().map(stays).collect()
}
