//! Answers from a real PostgreSQL with rolled-up hours, late readings and sessions, and hours that are rolled up
//! again. They must always equal the answers computed from all readings.

use std::sync::Arc;
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use tokio_postgres::types::ToSql;

use super::database::{BASE, KEYS, Store, answers_are_exact, placed, worlds};
use super::reference::{MINUTE, World};
use super::report;
use super::rolled_up::dense_world;
use crate::analytics::{Analyst, Judgement};
use crate::energy::attribution::NamedPlace;
use crate::energy::device::EnergyReading;
use crate::energy::interval::Interval;
use crate::energy::window::DAY_MICROS;
use crate::reading::{Energy, EnergyKind, Stream, Timestamp};
use crate::rollups::Roller;

const WORLDS: usize = 60;
/// One in this many readings comes late.
const LATE: usize = 9;

/// Rolls up until nothing is left. `now` is after the end of all worlds.
pub(super) async fn sum_up(store: &Store, now: Timestamp) {
    let mut client = store.pool.get().await.unwrap();
    let mut roller = Roller::new(Arc::new(|| Duration::ZERO), None).without_pauses();
    while roller.step(&mut client, now).await.unwrap() {}
}

pub(super) async fn count(store: &Store, sql: &str) -> i64 {
    let client = store.pool.get().await.unwrap();
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// The late part of a world, or the rest of it.
fn part(world: &World, late: bool) -> World {
    let mut part = world.clone();
    let mut n: usize = 0;
    let mut is_kept = || {
        n += 1;
        n.is_multiple_of(LATE) == late
    };
    for readings in &mut part.meters {
        readings.retain(|_| is_kept());
    }
    for (readings, _) in &mut part.vehicles {
        readings.retain(|_| is_kept());
    }
    if late != has_late_sessions(world)
        && let Some((_, sessions)) = part.vehicles.last_mut()
    {
        sessions.clear();
    }
    part
}

/// Whether the last vehicle's sessions are registered late. They are not if readings name sessions.
fn has_late_sessions(world: &World) -> bool {
    let mut readings = world.vehicles.iter().flat_map(|(readings, _)| readings);
    !readings.any(|r| matches!(r.place, Some(NamedPlace::Session(..) | NamedPlace::Unknown)))
}

/// Stores late readings with their dirty marks in one transaction, as the writers do.
async fn write_late(store: &Store, late: &World, base: i32) {
    let mark = |stream: Stream, key: i32, earliest: Vec<Timestamp>| async move {
        let client = store.pool.get().await.unwrap();
        let sql = match stream {
            Stream::Meter => sql!("hour_mark_meters"),
            Stream::Vehicle => sql!("hour_mark_vehicles"),
        };
        let keys = vec![key; earliest.len()];
        let hours: Vec<Timestamp> = earliest.iter().map(|at| at.hour()).collect();
        let marks: [&(dyn ToSql + Sync); 4] = [&keys, &hours, &earliest, &0i64];
        client.execute(sql, &marks).await.unwrap();
    };
    for (key, readings) in (base..).zip(&late.meters) {
        store.write_meter(key, readings).await;
        let earliest = readings.iter().map(|r| r.at).collect();
        mark(Stream::Meter, key, earliest).await;
    }
    for (key, (readings, _)) in (base..).zip(&late.vehicles) {
        store.write_vehicle(key, base, readings).await;
        let earliest = readings.iter().map(|r| r.at).collect();
        mark(Stream::Vehicle, key, earliest).await;
    }
    if let Some((key, (_, sessions))) = (base..).zip(&late.vehicles).last() {
        store.write_sessions(key, base, sessions).await;
    }
}

#[test]
fn answers_stay_exact_with_rollups_and_late_readings() {
    let store = Store::start();
    let analyst = Analyst::new(2, Judgement::default());
    let mut runner = TestRunner::default();
    let mut fleet: Vec<World> = Vec::new();
    for n in 0..WORLDS {
        fleet.push(match n % 4 {
            0 => worlds().new_tree(&mut runner).unwrap().current(),
            _ => {
                let world = dense_world().new_tree(&mut runner).unwrap().current();
                placed(world, 0, 0)
            }
        });
    }
    let bases = || (KEYS..).step_by(KEYS as usize);
    let last = fleet.iter().map(|world| world.to).max().unwrap();
    let now = Timestamp::from_micros(last + DAY_MICROS);
    let exact = |fleet: &[World], when: &str| {
        for (world, base) in fleet.iter().zip(bases()) {
            let outcome = answers_are_exact(&store, &analyst, world, base);
            outcome.unwrap_or_else(|why| panic!("{when}: {why}\n{world:?}"));
        }
    };
    let early: Vec<World> = fleet.iter().map(|world| part(world, false)).collect();
    let late: Vec<World> = fleet.iter().map(|world| part(world, true)).collect();
    store.runtime.block_on(async {
        for (world, base) in early.iter().zip(bases()) {
            store.write(world, base).await;
        }
        sum_up(&store, now).await;
        let hours =
            "select (select count(*) from meter_hours) + (select count(*) from vehicle_hours)";
        let hours = count(&store, hours).await;
        assert!(hours > WORLDS as i64, "{hours} hours are rolled up");
    });
    exact(&early, "rolled up");
    store.runtime.block_on(async {
        for (late, base) in late.iter().zip(bases()) {
            write_late(&store, late, base).await;
        }
    });
    exact(&fleet, "with late readings");
    store.runtime.block_on(async {
        let marks = "select (select count(*) from meter_hour_marks)
            + (select count(*) from vehicle_hour_marks)";
        assert!(count(&store, marks).await > 0);
        sum_up(&store, now).await;
        assert_eq!(count(&store, marks).await, 0);
    });
    exact(&fleet, "rolled up again");
    store.runtime.block_on(async {
        for world in fleet.iter().step_by(WORLDS / 4) {
            let at = Timestamp::from_micros;
            let window = Interval::new(at(world.from), at(world.to)).unwrap();
            report::check(&store, &fleet, window, at(world.now)).await;
        }
    });
}

/// A transaction that read the old watermark stores a reading without a mark after the watermark has moved. The
/// rollup waits for that transaction, so it includes the reading.
#[test]
fn transactions_with_an_older_watermark_are_waited_for() {
    let store = Store::start();
    let minute = |n: i64| Timestamp::from_micros(BASE + n * MINUTE);
    let reading = |n: i64| EnergyReading {
        at: minute(n),
        energy: Energy {
            kwh: 0.25,
            kind: EnergyKind::Interval,
        },
    };
    let sealed_to = sql!("hours_sealed");
    store.runtime.block_on(async {
        let mut early = store.pool.get().await.unwrap();
        let registry = "insert into meters (external_id) values ('M') returning id";
        let meter: i32 = early.query_one(registry, &[]).await.unwrap().get(0);
        let readings: Vec<EnergyReading> = (1..5).map(reading).collect();
        store.write_meter(meter, &readings).await;
        let mut client = store.pool.get().await.unwrap();
        let mut roller = Roller::new(Arc::new(|| Duration::ZERO), None).without_pauses();
        roller.step(&mut client, minute(15)).await.unwrap();

        let work = early.transaction().await.unwrap();
        let begin = "select pg_current_xact_id()::text";
        work.query_one(begin, &[]).await.unwrap();
        let seen = work.query_one(sealed_to, &[&true, &0i64]).await.unwrap();
        let seen: Timestamp = seen.get(0);
        assert_eq!(seen, minute(0));
        let summing =
            tokio::spawn(
                async move { while roller.step(&mut client, minute(75)).await.unwrap() {} },
            );
        let other = store.pool.get().await.unwrap();
        let has_moved = async {
            while other
                .query_one(sealed_to, &[&true, &0i64])
                .await
                .unwrap()
                .get::<_, Timestamp>(0)
                == seen
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), has_moved)
            .await
            .unwrap();
        let late = "insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
            values ($1, $2, 0.25, 230)";
        work.execute(late, &[&meter, &minute(6)]).await.unwrap();
        work.commit().await.unwrap();
        summing.await.unwrap();
        let sum = "select readings, energy_mwh from meter_hours where meter_id = $1 and hour = $2";
        let sum = other.query_one(sum, &[&meter, &minute(0)]).await.unwrap();
        assert_eq!((sum.get::<_, i32>(0), sum.get::<_, i64>(1)), (5, 1_000_000));
    });
}

/// A meter with readings at some minutes of an hour.
pub(super) async fn meter_with(store: &Store, minutes: std::ops::Range<i64>) -> i32 {
    let client = store.pool.get().await.unwrap();
    let registry = "insert into meters (external_id) values ('M') returning id";
    let meter: i32 = client.query_one(registry, &[]).await.unwrap().get(0);
    let readings: Vec<EnergyReading> = minutes.map(reading).collect();
    store.write_meter(meter, &readings).await;
    meter
}

pub(super) fn minute(n: i64) -> Timestamp {
    Timestamp::from_micros(BASE + n * MINUTE)
}

pub(super) fn reading(n: i64) -> EnergyReading {
    EnergyReading {
        at: minute(n),
        energy: Energy {
            kwh: 0.25,
            kind: EnergyKind::Interval,
        },
    }
}

/// Stores a late reading with its dirty mark.
pub(super) async fn write_marked(store: &Store, meter: i32, n: i64) {
    store.write_meter(meter, &[reading(n)]).await;
    let client = store.pool.get().await.unwrap();
    let mark = sql!("hour_mark_meters");
    let (hours, earliest) = (vec![minute(n).hour()], vec![minute(n)]);
    let marks: [&(dyn ToSql + Sync); 4] = [&vec![meter], &hours, &earliest, &0i64];
    client.execute(mark, &marks).await.unwrap();
}

/// The number of rollups that a query over a day uses for a meter.
async fn answering(store: &Store, meter: i32) -> usize {
    let client = store.pool.get().await.unwrap();
    let hours = sql!("hours_meters");
    let (from, to) = (minute(-24 * 60), minute(24 * 60));
    let rows = client.query(hours, &[&vec![meter], &from, &to]).await;
    rows.unwrap().len()
}

/// A clock that is three hours ahead moves the watermark past the current hour, a reading marks that hour dirty,
/// and then the clock is corrected. The mark must not cause a rollup of the hour, because its later readings leave
/// no marks. For the database, this is the same as a gateway with a fast clock handing over to one with a correct
/// clock.
#[test]
fn a_corrected_clock_leaves_no_rollup_of_an_open_hour() {
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 1..5).await;
        sum_up(&store, minute(195)).await;
        assert_eq!(answering(&store, meter).await, 1);
        write_marked(&store, meter, 6).await;
        sum_up(&store, minute(15)).await;
        let open = "select count(*) from meter_hours as h, hours_progress as p
            where h.hour >= p.sealed_to";
        assert_eq!(count(&store, open).await, 0);
        let marks = "select count(*) from meter_hour_marks";
        assert_eq!(count(&store, marks).await, 0);
        // With the present watermark, this reading leaves no mark.
        store.write_meter(meter, &[reading(7)]).await;
        assert_eq!(answering(&store, meter).await, 0);
        sum_up(&store, minute(75)).await;
        let whole = "select sum(readings)::bigint from meter_hours";
        assert_eq!(count(&store, whole).await, 6);
        assert_eq!(answering(&store, meter).await, 1);
    });
}

#[test]
fn a_rollup_outside_the_built_hours_is_not_used() {
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 1..5).await;
        sum_up(&store, minute(75)).await;
        assert_eq!(answering(&store, meter).await, 1);
        let client = store.pool.get().await.unwrap();
        for stale in [
            "update meter_hours set hour = hour + interval '1 hour'",
            "update meter_hours set hour = hour - interval '10 hours';
             update hours_progress set built_from = built_to - interval '2 hours'",
        ] {
            client.batch_execute(stale).await.unwrap();
            assert_eq!(answering(&store, meter).await, 0, "{stale}");
        }
    });
}

/// An hour that the retention is about to remove is not rolled up again. Its old rollup lacks the late reading and
/// must not answer in its place.
#[test]
fn a_late_reading_below_the_floor_removes_the_old_rollup() {
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 1..5).await;
        sum_up(&store, minute(75)).await;
        write_marked(&store, meter, 6).await;
        let mut client = store.pool.get().await.unwrap();
        let day = Duration::from_secs(24 * 3600);
        let mut roller = Roller::new(Arc::new(|| Duration::ZERO), Some(day)).without_pauses();
        let now = minute(36 * 60);
        while roller.step(&mut client, now).await.unwrap() {}
        let marks = "select count(*) from meter_hour_marks";
        assert_eq!(count(&store, marks).await, 0);
        assert_eq!(answering(&store, meter).await, 0);
    });
}
