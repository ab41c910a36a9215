//! Which vehicle drew a meter's energy: attribution periods by name, session or same id.

use std::collections::BTreeMap;

use super::interval::{Interval, Intervals};
pub use super::reading::CLAIM_MICROS_MAX;
use super::reading::{EnergyReading, RolledUp};
use crate::reading::{Energy, Timestamp};

/// A meter, by its id in the database.
///
/// A named meter without readings needs a key too (any unused one). It is attributed like any other, with energy
/// 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterKey(pub i32);

/// A vehicle, by its id in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VehicleKey(pub i32);

/// A charging session, by its id in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub i32);

/// The place that a vehicle's reading names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedPlace {
    /// At this meter.
    Meter(MeterKey),
    /// In this known session, at its meter.
    Session(SessionKey, MeterKey),
    /// In a session that is not known yet. It claims no meter. But a reading that names a session shows that the
    /// vehicle does not follow the convention of the same id, so rule 3 does not apply if the reading is in the
    /// window.
    Unknown,
}

/// One reading of a vehicle. The state of charge does not matter for the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VehicleReading {
    /// The time of the measurement.
    pub at: Timestamp,
    /// DC energy.
    pub energy: Energy,
    /// °C, -60 to 150.
    pub battery_temp: f64,
    /// Where it is charging, if the reading names a place.
    pub place: Option<NamedPlace>,
}

impl From<&VehicleReading> for EnergyReading {
    fn from(reading: &VehicleReading) -> Self {
        EnergyReading {
            at: reading.at,
            energy: reading.energy,
        }
    }
}

/// One charging session of a vehicle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its key.
    pub key: SessionKey,
    /// Its meter.
    pub meter: MeterKey,
    /// Its start, which is not part of it.
    pub started: Timestamp,
    /// Its end. An open session ends now.
    pub ended: Option<Timestamp>,
}

/// What is known of one vehicle.
#[derive(Debug, Clone, Copy)]
pub struct Vehicle<'a> {
    /// Its key.
    pub key: VehicleKey,
    /// Its readings, ascending by time, with distinct times.
    pub readings: &'a [VehicleReading],
    /// Rollups of readings that are left out of `readings`, each between two neighbours that are there. No
    /// rolled-up reading names a place.
    pub rolled_up: &'a [RolledUp],
    /// Its sessions, in any order.
    pub sessions: &'a [Session],
}

/// The rule that puts a vehicle at a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Its reading names the meter or a session there.
    Named,
    /// A session at the meter.
    Session,
    /// The meter has the vehicle's id.
    SameId,
}

/// A vehicle's time at one meter by one rule, before touching intervals are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The time.
    pub interval: Interval,
    /// Where.
    pub meter: MeterKey,
    /// The rule.
    pub rule: Rule,
    /// The session, if one puts it there.
    pub session: Option<SessionKey>,
}

/// Finds where a vehicle was by rules 1 and 2, over all its readings and sessions, without clipping to a window.
///
/// Pieces over (a, b] are exact if all readings in (a, b + 15 min], the one before them, and all sessions that
/// overlap (a, b] are given.
///
/// The registry keeps one vehicle's sessions from overlapping. If two overlap nevertheless, at different meters,
/// the vehicle is at both.
///
/// Order:  named pieces by time, then those of sessions in the given order
pub fn named_and_sessions(vehicle: &Vehicle<'_>, now: Timestamp) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut before: Option<Timestamp> = None;
    for reading in vehicle.readings {
        let (meter, session) = match reading.place {
            Some(NamedPlace::Meter(meter)) => (Some(meter), None),
            Some(NamedPlace::Session(session, meter)) => (Some(meter), Some(session)),
            Some(NamedPlace::Unknown) | None => (None, None),
        };
        let reach = reading.at.plus_micros(-CLAIM_MICROS_MAX);
        let start = before.map_or(reach, |before| before.max(reach));
        before = Some(reading.at);
        let claim = meter.zip(Interval::new(start, reading.at.min(now)));
        pieces.extend(claim.map(|(meter, interval)| Piece {
            interval,
            meter,
            rule: Rule::Named,
            session,
        }));
    }
    let named = intervals_of(&pieces);
    for session in vehicle.sessions {
        let end = session.ended.unwrap_or(now).min(now);
        let interval: Intervals = Interval::new(session.started, end).into_iter().collect();
        pieces.extend(
            interval
                .without(&named)
                .as_slice()
                .iter()
                .map(|&interval| Piece {
                    interval,
                    meter: session.meter,
                    rule: Rule::Session,
                    session: Some(session.key),
                }),
        );
    }
    pieces
}

/// Whether rule 3 may apply to a vehicle in a window: no session overlaps it, and no reading in it names a
/// place. An open session overlaps everything after its start.
pub fn goes_by_same_id(vehicle: &Vehicle<'_>, window: Interval) -> bool {
    let sessions = vehicle.sessions.iter().any(|session| {
        session.started < window.end() && session.ended.is_none_or(|end| end > window.start())
    });
    let first = vehicle
        .readings
        .partition_point(|reading| reading.at <= window.start());
    let named = vehicle
        .readings
        .iter()
        .skip(first)
        .take_while(|reading| reading.at <= window.end())
        .any(|reading| reading.place.is_some());
    !sessions && !named
}

/// Finds where a vehicle is by rule 3, if [`goes_by_same_id`] allows it: all time up to now, except `excluded`.
/// The result is clipped neither to a window nor by silences.
///
/// `excluded` is the time to which rule 3 does not apply: the vehicle's own pieces by rules 1 and 2 at any meter,
/// and all pieces of other vehicles at this one.
pub fn same_id(now: Timestamp, meter: MeterKey, excluded: &Intervals) -> Vec<Piece> {
    let always: Intervals = Interval::new(Timestamp::from_micros(i64::MIN), now)
        .into_iter()
        .collect();
    let piece = |&interval: &Interval| Piece {
        interval,
        meter,
        rule: Rule::SameId,
        session: None,
    };
    let free = always.without(excluded);
    free.as_slice().iter().map(piece).collect()
}

/// The attribution periods: pieces that touch at one meter are joined, whatever their rules.
pub fn periods(pieces: &[Piece]) -> BTreeMap<MeterKey, Intervals> {
    let mut by_meter: BTreeMap<MeterKey, Vec<Interval>> = BTreeMap::new();
    for piece in pieces {
        by_meter
            .entry(piece.meter)
            .or_default()
            .push(piece.interval);
    }
    by_meter
        .into_iter()
        .map(|(meter, intervals)| (meter, Intervals::from_iter(intervals)))
        .collect()
}

/// All the time that the pieces cover, at any meter.
pub fn intervals_of(pieces: &[Piece]) -> Intervals {
    pieces.iter().map(|piece| piece.interval).collect()
}
