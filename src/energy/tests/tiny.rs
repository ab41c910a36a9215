//! Tiny fleets: two or three vehicles, two meters, and a few readings each. All times are multiples of five
//! minutes, so that edges of all kinds often coincide.

use proptest::prelude::*;

use super::reference::{MINUTE, World};
use crate::energy::attribution::{MeterKey, NamedPlace, Session, SessionKey, VehicleReading};
use crate::energy::device::EnergyReading;
use crate::reading::{Energy, EnergyKind, Timestamp};

/// All times are multiples of this.
const TICK: i64 = 5 * MINUTE;

fn tick(n: i64) -> Timestamp {
    Timestamp::from_micros(n * TICK)
}

/// A device's readings: each one's distance in ticks from the previous one, and its value.
fn energies() -> impl Strategy<Value = Vec<(i64, Energy)>> {
    let step = prop_oneof![5 => Just(1), 3 => Just(2), 2 => Just(3), 2 => Just(4), 2 => 5..13i64];
    let kwh = prop::sample::select(vec![0.0, 0.9, 1.0, 2.0, 3.0]);
    let event = prop_oneof![12 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(4)];
    let kind = prop_oneof![3 => Just(Some(true)), 3 => Just(Some(false)), 1 => Just(None)];
    let steps = prop::collection::vec((step, kwh, event, any::<bool>()), 0..9);
    (kind, -2..12i64, steps).prop_map(|(kind, start, steps)| {
        let (mut at, mut register) = (start, 10.0);
        let mut readings = Vec::new();
        for (step, kwh, event, is_register) in steps {
            if !kind.unwrap_or(is_register) {
                let kind = EnergyKind::Interval;
                readings.push((at, Energy { kwh, kind }));
            } else {
                // The register continues, restarts, is corrected by a little or by more, or reports 0 once.
                register = match event {
                    1 => kwh,
                    2 => f64::max(register - 0.01, 0.0),
                    3 => f64::max(register - 0.02, 0.0),
                    _ => register + kwh,
                };
                let kwh = if event == 4 { 0.0 } else { register };
                let kind = EnergyKind::Register;
                readings.push((at, Energy { kwh, kind }));
            }
            at += step;
        }
        readings
    })
}

/// Successive sessions, each at one of two meters. The last may be open.
fn sessions() -> impl Strategy<Value = Vec<Session>> {
    let session = (0..12i64, 1..14i64, 0..2i32);
    let some = prop_oneof![
        2 => Just(Vec::new()).boxed(),
        3 => prop::collection::vec(session, 1..3).boxed(),
    ];
    (some, prop::bool::weighted(0.1)).prop_map(|(some, is_open)| {
        let mut at = -3;
        let mut sessions = Vec::new();
        let count = some.len();
        for (n, (gap, long, meter)) in some.into_iter().enumerate() {
            let start = at + gap;
            at = start + long;
            let ended = (!is_open || n + 1 < count).then(|| tick(at));
            sessions.push(Session {
                key: SessionKey(n as i32),
                meter: MeterKey(meter),
                started: tick(start),
                ended,
            });
        }
        sessions
    })
}

type Stays = (Vec<VehicleReading>, Vec<Session>);

fn vehicle() -> impl Strategy<Value = Stays> {
    let place = prop_oneof![8 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(4)];
    let places = prop_oneof![
        3 => Just(vec![0; 9]).boxed(),
        2 => prop::collection::vec(place, 9).boxed(),
    ];
    (energies(), sessions(), places).prop_map(|(energies, sessions, places)| {
        let session = |n: usize| match sessions.get(n) {
            Some(own) => NamedPlace::Session(own.key, own.meter),
            None => NamedPlace::Unknown,
        };
        let reading = |((at, energy), place)| VehicleReading {
            at: tick(at),
            energy,
            battery_temp: 25.5,
            place: match place {
                1 | 2 => Some(NamedPlace::Meter(MeterKey(place - 1))),
                3 | 4 => Some(session(place as usize - 3)),
                _ => None,
            },
        };
        let readings = energies.into_iter().zip(places).map(reading);
        (readings.collect(), sessions)
    })
}

/// Two or three vehicles and two meters for one to three hours, and a window with arbitrary ends.
pub(super) fn tiny_world() -> impl Strategy<Value = World> {
    let owner = || prop_oneof![Just(None), (0..3usize).prop_map(Some)];
    let edge = || prop_oneof![6 => Just(0), 1 => -2..3i64, 1 => Just(MINUTE)];
    let now = prop_oneof![3 => Just(200), 1 => 5..40i64];
    (
        prop::collection::vec(vehicle(), 2..=3),
        prop::collection::vec(energies(), 2),
        (owner(), owner()),
        ((-4..30i64, edge()), (1..26i64, edge())),
        now,
    )
        .prop_map(|(vehicles, meters, owners, (from, long), now)| {
            let reading = |(at, energy)| EnergyReading {
                at: tick(at),
                energy,
            };
            let meters = meters.into_iter();
            World {
                vehicles,
                meters: meters
                    .map(|m| m.into_iter().map(reading).collect())
                    .collect(),
                owners: vec![owners.0, owners.1.filter(|_| owners.0 != owners.1)],
                from: from.0 * TICK + from.1,
                to: (from.0 + long.0) * TICK + long.1,
                now: now * TICK,
            }
        })
}
