//! A question about a vehicle over a window, and what to fetch to answer it.

use std::collections::BTreeMap;

use super::attribution::{
    MeterKey, Vehicle, VehicleKey, goes_by_same_id, named_and_sessions, periods,
};
use super::device::{EnergyReading, SUSPECT_WATTS_DEFAULT};
use super::hour::RolledUp;
use super::interval::{Interval, Intervals};
use crate::reading::Timestamp;

/// A meter, its readings, and the other vehicles that may be at it.
#[derive(Debug, Clone, Copy)]
pub struct Meter<'a> {
    /// Its key.
    pub key: MeterKey,
    /// The vehicle whose id equals the meter's, if there is one. Only that vehicle can claim the meter by rule 3.
    /// It matters only if it is the question's vehicle or one of the others.
    pub owner: Option<VehicleKey>,
    /// Its readings, ascending by time, with distinct times.
    pub readings: &'a [EnergyReading],
    /// Rollups of readings that are left out of `readings`, each between two neighbours that are there.
    pub rolled_up: &'a [RolledUp],
    /// The other vehicles that a session or a named reading puts at this meter. If the question's vehicle is among
    /// them, it is ignored.
    pub others: &'a [Vehicle<'a>],
}

/// A question, with everything that its answer depends on.
///
/// For an exact answer over the window (from, to] the caller supplies the following.
/// [`DeviceEnergy::new`](super::device::DeviceEnergy::new) defines what neighbours are.
///
/// 1. `vehicle`: its readings in (from, to + 15 min] and the one before them, and its sessions that overlap that
///    interval. [`plan`] then names the meters, and tells whether to look for one with the vehicle's id.
/// 2. Each of these meters: its readings in (from, to] and the neighbours on both sides. Let L be the earliest of these
///    times and `from`, and H the latest of these and `to`. The window does not clip how a reading's energy is divided:
///    all DC over the reading's interval counts. If a meter's first reading is an interval in (from, to] and is divided
///    among several vehicles, L is also no later than [`divided_since`](super::answer::divided_since).
/// 3. `vehicle` again: its readings in (L, H + 15 min] and the neighbours on both sides, and its sessions that overlap
///    (L, H + 15 min]. H also matters for the period that contains a meter's next reading. If no other vehicle is at
///    its meters, L may be `from`.
/// 4. `others` of each meter: every vehicle with a session there that overlaps (L, H], or with a reading in
///    (L, H + 15 min] that names the meter or a session there. Each comes with its readings in (L, H + 15 min] and
///    the neighbours, and with all its sessions that overlap that interval, at any meter. By rule 3, a vehicle that
///    arrives before the meter's next reading matters too, as does the meter's own vehicle if it is one of them.
///
/// Further data does no harm, but nothing may be missing in between. A property test compares the answer from
/// exactly this data with the answer from everything.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The window W, (from, to].
    pub window: Interval,
    /// Nothing after now is attributed.
    pub now: Timestamp,
    /// The vehicle of the question.
    pub vehicle: Vehicle<'a>,
    /// The meters concerned. A meter that is not given counts as having no readings.
    pub meters: &'a [Meter<'a>],
    /// The implied power above which a reading is suspect.
    pub suspect_watts: u64,
}

impl<'a> Question<'a> {
    /// Makes a question about a vehicle with no meters yet.
    pub fn new(window: Interval, now: Timestamp, vehicle: Vehicle<'a>) -> Self {
        Question {
            window,
            now,
            vehicle,
            meters: &[],
            suspect_watts: SUSPECT_WATTS_DEFAULT,
        }
    }
}

/// What to fetch to answer a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The meters by rules 1 and 2, and the times at each within the window.
    pub meters: BTreeMap<MeterKey, Intervals>,
    /// Whether rule 3 may apply. If so, look for a meter with the vehicle's id and fetch it over the whole window.
    pub asks_same_id: bool,
}

/// Determines what to fetch from the vehicle's own readings and sessions.
pub fn plan(vehicle: &Vehicle<'_>, window: Interval, now: Timestamp) -> Plan {
    let pieces = named_and_sessions(vehicle, now);
    let cut = periods(&pieces)
        .into_iter()
        .map(|(meter, intervals)| (meter, intervals.clip(window)));
    Plan {
        meters: cut.filter(|(_, intervals)| !intervals.is_empty()).collect(),
        asks_same_id: goes_by_same_id(vehicle, window),
    }
}
