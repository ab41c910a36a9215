//! Rolled-up hours change no digit of an answer.

use proptest::prelude::*;

use super::database::whole;
use super::differential::{ask, owners};
use super::reference::{MINUTE, World};
use crate::energy::answer::{Performance, SplitHours, performance_and_parts};
use crate::energy::attribution::{
    MeterKey, NamedPlace, Session, SessionKey, Vehicle, VehicleKey, VehicleReading,
};
use crate::energy::device::EnergyReading;
use crate::energy::hour::{Growing, Measured, RolledUp, hour_interval, summarize};
use crate::energy::interval::Interval;
use crate::energy::question::{Meter, Question};
use crate::reading::{Energy, EnergyKind, Timestamp};

fn ts(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// Readings a few minutes apart for some hours, occasionally with a silence, a reset, a correction, a zero, a
/// surge or another energy kind.
fn dense_energies() -> impl Strategy<Value = Vec<(i64, Energy)>> {
    let step = prop_oneof![40 => 1..6i64, 2 => 14..16i64, 1 => 16..70i64];
    let event = prop_oneof![60 => Just(0), 1 => 1..6i32];
    let steps = prop::collection::vec((step, 0..900_000i64, event), 20..110);
    (0..50i64, any::<bool>(), steps).prop_map(|(start, is_register, steps)| {
        let mut at = start * MINUTE + 3;
        let mut register = 70_000_000;
        let mut readings = Vec::new();
        for (step, more, event) in steps {
            at += step * MINUTE + i64::from(event);
            let (mut mwh, mut is_register) = (more, is_register);
            if event == 5 {
                is_register = !is_register;
            }
            if is_register {
                register = match event {
                    1 => more,
                    2 => register - 20_000,
                    _ => register + more,
                };
                mwh = if event == 3 { 0 } else { register };
            } else if event == 4 {
                mwh = 90_000_000_000;
            }
            let kind = match is_register {
                true => EnergyKind::Register,
                false => EnergyKind::Interval,
            };
            let kwh = mwh as f64 / 1e6;
            readings.push((at, Energy { kwh, kind }));
        }
        readings
    })
}

/// One or two vehicles and two meters for some hours, with sessions, named places, or the same id.
pub(super) fn dense_world() -> impl Strategy<Value = World> {
    let session = (0..300i64, 20..200i64, 0..2i32);
    let vehicle = (
        dense_energies(),
        prop::collection::vec(session, 0..3),
        prop::option::weighted(0.2, (0..100usize, 0..2i32)),
    );
    (
        prop::collection::vec(vehicle, 1..3),
        prop::collection::vec(dense_energies(), 2),
        owners(),
        (-70..130i64, 90..400i64, -1..2i64, 200..700i64),
    )
        .prop_map(|(vehicles, meters, owners, (from, long, odd, now))| {
            let vehicles = vehicles.into_iter().map(|(energies, sessions, named)| {
                let mut readings: Vec<VehicleReading> = energies
                    .into_iter()
                    .zip(1..)
                    .map(|((at, energy), n)| VehicleReading {
                        at: ts(at),
                        energy,
                        battery_temp: 20.0 + f64::from(n) / 7.0,
                        place: None,
                    })
                    .collect();
                if let Some((at, meter)) = named
                    && let Some(reading) = readings.get_mut(at)
                {
                    reading.place = Some(NamedPlace::Meter(MeterKey(meter)));
                }
                let mut end_before = i64::MIN;
                let mut sessions: Vec<_> = sessions;
                sessions.sort_unstable();
                let mut kept = Vec::new();
                for (start, long, meter) in sessions {
                    if start > end_before {
                        end_before = start + long;
                        kept.push(Session {
                            key: SessionKey(kept.len() as i32),
                            meter: MeterKey(meter),
                            started: ts(start * MINUTE + 5),
                            ended: Some(ts(end_before * MINUTE)),
                        });
                    }
                }
                (readings, kept)
            });
            let reading = |(at, energy)| EnergyReading { at: ts(at), energy };
            World {
                vehicles: vehicles.collect(),
                meters: meters
                    .into_iter()
                    .map(|m| m.into_iter().map(reading).collect())
                    .collect(),
                owners,
                from: from * MINUTE,
                to: (from + long) * MINUTE + odd,
                now: now * MINUTE,
            }
        })
}

/// A device's readings, with the whole hours of a window rolled up.
fn condense<T: Copy>(
    readings: &[T],
    window: Interval,
    excluded: impl Fn(Interval) -> bool,
    measured: impl Fn(&T) -> Measured,
) -> (Vec<T>, Vec<RolledUp>) {
    let (mut left, mut rolled_up) = (Vec::new(), Vec::new());
    let hour_of = |r: &T| measured(r).reading.at.hour();
    for hour in readings.chunk_by(|a, b| hour_of(a) == hour_of(b)) {
        let interval = hour_interval(hour_of(&hour[0])).unwrap();
        let all: Vec<Measured> = hour.iter().map(&measured).collect();
        let sum = summarize(&all).filter(|s| s.power_watts <= 1_000_000);
        let whole = window.and(interval) == Some(interval);
        match sum.filter(|s| whole && !excluded(s.rolled_up.interval)) {
            Some(sum) => {
                left.extend([hour[0], hour[hour.len() - 1]]);
                rolled_up.push(sum.rolled_up);
            }
            None => left.extend_from_slice(hour),
        }
    }
    (left, rolled_up)
}

/// The vehicles that a session or a name may put at a meter.
fn others_at<'a>(vehicles: &[Vehicle<'a>], meter: MeterKey) -> Vec<Vehicle<'a>> {
    let names = |v: &Vehicle<'_>| v.readings.iter().any(|r| r.place.is_some());
    let is_there = |v: &&Vehicle<'_>| names(v) || v.sessions.iter().any(|s| s.meter == meter);
    vehicles.iter().filter(is_there).copied().collect()
}

/// Answers like the queries do, with as many rolled-up hours as possible. Also returns how many were used.
fn ask_rolled_up(world: &World, v: usize) -> (Performance, usize) {
    let window = Interval::new(ts(world.from), ts(world.to)).unwrap();
    let mut splits = SplitHours::default();
    for _ in 0..10 {
        let vehicles: Vec<_> = (0..)
            .zip(&world.vehicles)
            .map(|(key, (readings, sessions))| {
                let excluded =
                    |interval: Interval| splits.vehicles.contains(&(VehicleKey(key), interval));
                let measured = |r: &VehicleReading| Measured {
                    reading: EnergyReading::from(r),
                    battery_temp: r.battery_temp,
                    is_named: r.place.is_some(),
                };
                (
                    key,
                    condense(readings, window, excluded, measured),
                    sessions,
                )
            })
            .collect();
        let vehicles: Vec<Vehicle<'_>> = vehicles
            .iter()
            .map(|(key, (readings, rolled_up), sessions)| Vehicle {
                key: VehicleKey(*key),
                readings,
                rolled_up,
                sessions,
            })
            .collect();
        let meters: Vec<_> = (0..)
            .zip(&world.meters)
            .map(|(key, readings)| {
                let excluded =
                    |interval: Interval| splits.meters.contains(&(MeterKey(key), interval));
                let measured = |r: &EnergyReading| Measured {
                    reading: *r,
                    battery_temp: 0.0,
                    is_named: false,
                };
                let others = others_at(&vehicles, MeterKey(key));
                (key, condense(readings, window, excluded, measured), others)
            })
            .collect();
        let meters: Vec<Meter<'_>> = meters
            .iter()
            .map(|(key, (readings, rolled_up), others)| Meter {
                key: MeterKey(*key),
                owner: world.owners[*key as usize].map(|v| VehicleKey(v as i32)),
                readings,
                rolled_up,
                others,
            })
            .collect();
        let mut question = Question::new(window, ts(world.now), vehicles[v]);
        question.meters = &meters;
        match performance_and_parts(&question, &[]) {
            Ok((answer, _)) => {
                let hours = meters.iter().map(|m| m.rolled_up.len()).sum::<usize>();
                return (answer, hours + vehicles[v].rolled_up.len());
            }
            Err(more) => {
                splits.vehicles.extend(more.vehicles);
                splits.meters.extend(more.meters);
            }
        }
    }
    panic!("it asks for more and more");
}

#[test]
fn rolled_up_hours_give_the_answer_of_their_readings() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let taken = std::cell::Cell::new((0, 0));
    let ran = runner.run(&dense_world(), |world| {
        for v in 0..world.vehicles.len() {
            let (found, hours) = ask_rolled_up(&world, v);
            let raw = ask(&world, v, world.from, world.to);
            prop_assert_eq!(whole(&found, 0), whole(&raw, 0));
            let (asked, with_hours) = taken.get();
            taken.set((asked + 1, with_hours + usize::from(hours > 1)));
        }
        Ok(())
    });
    ran.unwrap();
    let (asked, with_hours) = taken.get();
    assert!(with_hours * 8 > asked, "{with_hours} of {asked} had any");
}

#[test]
fn an_hour_that_is_extended_equals_the_hour_as_a_whole() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let extended = std::cell::Cell::new(0);
    let ran = runner.run(&(dense_world(), 1..9usize), |(world, part)| {
        for (readings, _) in &world.vehicles {
            let measured = |r: &VehicleReading| Measured {
                reading: EnergyReading::from(r),
                battery_temp: r.battery_temp,
                is_named: r.place.is_some(),
            };
            for hour in readings.chunk_by(|a, b| a.at.hour() == b.at.hour()) {
                let hour: Vec<Measured> = hour.iter().map(measured).collect();
                let mut growing = Growing::begin(hour[0]);
                for some in hour[1..].chunks(part) {
                    // The form in which it would be stored and read again.
                    let stored = growing.and_then(Growing::finish);
                    if let Some(stored) = &stored {
                        growing = Some(Growing::resume(stored));
                        extended.set(extended.get() + 1);
                    }
                    growing = growing.and_then(|growing| growing.extended(some));
                }
                let found = growing.and_then(Growing::finish).map(|whole| whole.summary);
                prop_assert_eq!(found, summarize(&hour));
                let ends = [hour[0].battery_temp, hour[hour.len() - 1].battery_temp];
                let whole = growing.and_then(Growing::finish);
                prop_assert!(whole.is_none_or(|whole| whole.ends_temp == ends));
            }
        }
        Ok(())
    });
    ran.unwrap();
    assert!(extended.get() > 1_000);
}
