//! The queries fetch enough: answers from a real PostgreSQL equal those computed from all readings.

use std::sync::Arc;
use std::time::Duration;

use crate::postgres::ReadPool;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::differential::{ask, busy_world, frac, world};
use super::reference::{Frac, MINUTE, World};
use super::tiny::tiny_world;
use crate::analytics::{Analyst, Judgement, Timeframe};
use crate::energy::answer::{Method, Performance};
use crate::energy::attribution::{MeterKey, NamedPlace, Session, SessionKey, VehicleReading};
use crate::energy::coverage::Coverage;
use crate::energy::device::{EnergyReading, Oddities};
use crate::energy::interval::Interval;
use crate::energy::window::DAY_MICROS;
use crate::postgres::PartitionWidth;
use crate::postgres::embedded;
use crate::postgres::embedded::{Embedded, EmbeddedConfig};
use crate::postgres::migrations::{HistoryOptions, migrate};
use crate::postgres::{Target, partitions};
use crate::reading::{Energy, EnergyKind, ExternalId, Stream, Timestamp};

/// The base of all times: two hours before the end of a month, so that a partition boundary falls in the middle of
/// each world.
pub(super) const BASE: i64 = 1_706_745_600_000_000 - 120 * MINUTE;

/// How far the first part of a world may be moved back: not at all, just beyond the first search, or by many
/// partitions.
const MOVES: [i64; 3] = [0, 3 * DAY_MICROS + 5 * MINUTE, 100 * DAY_MICROS];

/// The number of keys of each kind that each world uses.
pub(super) const KEYS: i32 = 16;

/// The key of a session that readings name and that is never registered.
const NEVER_REGISTERED: i32 = 15;

fn ts(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

/// A migrated PostgreSQL of the test's own.
pub(super) struct Store {
    pub(super) runtime: Runtime,
    embedded: Option<Embedded>,
    pub(super) pool: ReadPool,
    _dir: TempDir,
}

impl Store {
    pub(super) fn start() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = EmbeddedConfig::new(dir.path());
        config.elsewhere = dir.path().join("elsewhere");
        config.ready_within = Duration::from_secs(60);
        let (embedded, pool) = runtime.block_on(async {
            let embedded = embedded::start(config).await.unwrap();
            let at = embedded.connection();
            let target =
                Target::from_socket(&at.socket_dir, at.port, &at.user, &at.database).unwrap();
            let pool = target.pool(4).unwrap();
            let client = pool.get().await.unwrap();
            migrate(&client, HistoryOptions::default()).await.unwrap();
            // Five days apart, so that many partitions lie between the distant parts.
            let apart = (-22..=0).map(|n| ts(BASE + n * 5 * DAY_MICROS));
            let here = (-1..=2).map(|n| ts(BASE + n * DAY_MICROS));
            let moved = MOVES
                .iter()
                .flat_map(|by| [0, DAY_MICROS].map(|d| ts(BASE + d - by)));
            let instants: Vec<Timestamp> = apart.chain(here).chain(moved).collect();
            for stream in Stream::ALL {
                partitions::ensure(&client, stream, PartitionWidth::Day, &instants)
                    .await
                    .unwrap();
            }
            drop(client);
            (embedded, pool)
        });
        Store {
            runtime,
            embedded: Some(embedded),
            pool,
            _dir: dir,
        }
    }

    /// Writes a world under its own keys, from `base` on.
    pub(super) async fn write(&self, world: &World, base: i32) {
        let client = self.pool.get().await.unwrap();
        let vehicles: Vec<i32> = (0..world.vehicles.len() as i32).map(|v| base + v).collect();
        let names: Vec<String> = vehicles.iter().map(|v| format!("V{v}")).collect();
        let registry = "overriding system value select * from unnest($1::int[], $2::text[])";
        let sql = format!("insert into vehicles (id, external_id) {registry}");
        client.execute(&sql, &[&vehicles, &names]).await.unwrap();
        let meters: Vec<i32> = (0..world.meters.len() as i32).map(|m| base + m).collect();
        let names = |m: &i32| match world.owners[(m - base) as usize] {
            Some(owner) => format!("V{}", base + owner as i32),
            None => format!("M{m}"),
        };
        let names: Vec<String> = meters.iter().map(names).collect();
        let sql = format!("insert into meters (id, external_id) {registry}");
        client.execute(&sql, &[&meters, &names]).await.unwrap();
        for (m, readings) in world.meters.iter().enumerate() {
            self.write_meter(base + m as i32, readings).await;
        }
        for (v, (readings, sessions)) in world.vehicles.iter().enumerate() {
            let key = base + v as i32;
            self.write_vehicle(key, base, readings).await;
            self.write_sessions(key, base, sessions).await;
        }
        // Old sessions of another vehicle that readings name nevertheless.
        for s in 0..3 {
            let start = BASE - 300 * DAY_MICROS + i64::from(s) * MINUTE;
            self.session(
                base * 2 + s,
                base,
                base + s % 2,
                ts(start),
                Some(ts(start + 1)),
            )
            .await;
        }
    }

    pub(super) async fn write_sessions(&self, key: i32, base: i32, sessions: &[Session]) {
        for session in sessions {
            let (id, meter) = (session.key.0 + base * 2, base + session.meter.0);
            self.session(id, key, meter, session.started, session.ended)
                .await;
        }
    }

    pub(super) async fn write_meter(&self, key: i32, readings: &[EnergyReading]) {
        let client = self.pool.get().await.unwrap();
        let at: Vec<Timestamp> = readings.iter().map(|r| r.at).collect();
        let energies: Vec<Energy> = readings.iter().map(|r| r.energy).collect();
        let (interval, register) = columns(&energies);
        let sql = "insert into meter_telemetry_history
            (meter_id, voltage, ts, kwh_consumed_ac, kwh_register)
            select $1, 230, * from unnest($2::timestamptz[], $3::float8[], $4::float8[])";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&key, &at, &interval, &register];
        client.execute(sql, &parameters).await.unwrap();
    }

    pub(super) async fn write_vehicle(&self, key: i32, base: i32, readings: &[VehicleReading]) {
        let client = self.pool.get().await.unwrap();
        let at: Vec<Timestamp> = readings.iter().map(|r| r.at).collect();
        let energies: Vec<Energy> = readings.iter().map(|r| r.energy).collect();
        let (interval, register) = columns(&energies);
        let temps: Vec<f64> = readings.iter().map(|r| r.battery_temp).collect();
        let named_meter = |place: Option<NamedPlace>| match place {
            Some(NamedPlace::Meter(m)) => Some(base + m.0),
            _ => None,
        };
        let named_session = |place: Option<NamedPlace>| match place {
            Some(NamedPlace::Session(s, _)) => Some(base * 2 + s.0),
            Some(NamedPlace::Unknown) => Some(base * 2 + NEVER_REGISTERED),
            _ => None,
        };
        let named: Vec<Option<i32>> = readings.iter().map(|r| named_meter(r.place)).collect();
        let in_session: Vec<Option<i32>> =
            readings.iter().map(|r| named_session(r.place)).collect();
        let sql = "insert into vehicle_telemetry_history (vehicle_id, soc, ts,
            kwh_delivered_dc, kwh_register, battery_temp, named_meter_id, named_session_id)
            select $1, 50, * from unnest($2::timestamptz[], $3::float8[], $4::float8[],
                $5::float8[], $6::int[], $7::int[])";
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&key, &at, &interval, &register, &temps, &named, &in_session];
        client.execute(sql, &parameters).await.unwrap();
    }

    async fn session(
        &self,
        key: i32,
        vehicle: i32,
        meter: i32,
        start: Timestamp,
        end: Option<Timestamp>,
    ) {
        let client = self.pool.get().await.unwrap();
        let name = format!("S{key}");
        let sql = "with named as (
                insert into session_names (id, external_id) overriding system value
                values ($1, $2) returning id
            )
            insert into charging_sessions (session_id, vehicle_id, meter_id, started_at, ended_at)
            select id, $3, $4, $5, $6 from named";
        client
            .execute(sql, &[&key, &name, &vehicle, &meter, &start, &end])
            .await
            .unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.pool.close();
        if let Some(embedded) = self.embedded.take() {
            self.runtime
                .block_on(embedded.stop(Duration::from_secs(20)));
        }
    }
}

fn columns(energies: &[Energy]) -> (Vec<Option<f64>>, Vec<Option<f64>>) {
    let of = |kind: EnergyKind| {
        let kwh = |e: &Energy| (e.kind == kind).then_some(e.kwh);
        energies.iter().map(kwh).collect()
    };
    (of(EnergyKind::Interval), of(EnergyKind::Register))
}

/// Moves a world to the time of the partitions, and the part before minute `cut` further back. Session keys are
/// made distinct, as in a registry.
pub(super) fn placed(mut world: World, cut: i64, back: i64) -> World {
    let place = |t: i64| BASE + t - if t < cut * MINUTE { back } else { 0 };
    let moved = |t: Timestamp| ts(place(t.as_micros()));
    for meter in &mut world.meters {
        meter.iter_mut().for_each(|r| r.at = moved(r.at));
    }
    for (v, (readings, sessions)) in world.vehicles.iter_mut().enumerate() {
        for (n, session) in sessions.iter_mut().enumerate() {
            session.key = SessionKey(3 + v as i32 * 3 + n as i32);
            session.started = moved(session.started);
            session.ended = session.ended.map(moved);
        }
        for reading in readings {
            reading.at = moved(reading.at);
            if let Some(NamedPlace::Session(key, _)) = reading.place {
                reading.place = Some(match sessions.get(key.0 as usize) {
                    Some(own) => NamedPlace::Session(own.key, own.meter),
                    None => NamedPlace::Session(key, MeterKey(key.0 % 2)),
                });
            }
        }
    }
    (world.from, world.to, world.now) = (place(world.from), place(world.to), place(world.now));
    world
}

/// A whole answer, in a comparable form.
pub(super) type Whole = (
    [Frac; 3],
    (i128, u64, u64, u64),
    Method,
    Vec<i32>,
    Coverage,
    Oddities,
);

pub(super) fn whole(answer: &Performance, base: i32) -> Whole {
    let a = answer;
    (
        [
            frac(&a.consumed_ac),
            frac(&a.delivered_dc),
            frac(&a.matched_dc),
        ],
        (
            a.temperature_sum,
            a.data_points,
            a.meter_data_points,
            a.sessions,
        ),
        a.method,
        a.meters.iter().map(|key| key.0 - base).collect(),
        a.coverage,
        a.oddities,
    )
}

pub(super) fn worlds() -> impl Strategy<Value = World> {
    let world = prop_oneof![
        4 => tiny_world(),
        1 => busy_world(),
        1 => world(3, 20),
        1 => world(1, 25),
    ];
    (world, 0..260i64, prop::sample::select(&MOVES[..]))
        .prop_map(|(world, cut, back)| placed(world, cut, back))
}

fn check(store: &Store, analyst: &Analyst, world: &World, base: i32) -> Result<(), TestCaseError> {
    store.runtime.block_on(async {
        store.write(world, base).await;
    });
    answers_are_exact(store, analyst, world, base)
}

/// Checks that every vehicle's answer equals the one computed from all readings.
pub(super) fn answers_are_exact(
    store: &Store,
    analyst: &Analyst,
    world: &World,
    base: i32,
) -> Result<(), TestCaseError> {
    let window = Interval::new(ts(world.from), ts(world.to)).unwrap();
    store.runtime.block_on(async {
        let mut client = store.pool.get().await.unwrap();
        for (v, (readings, sessions)) in world.vehicles.iter().enumerate() {
            let id = format!("V{}", base + v as i32);
            let id = ExternalId::new(&id).unwrap();
            let timeframe = Timeframe {
                window,
                parts: Vec::new(),
                now: ts(world.now),
            };
            let found = analyst
                .performance(&mut client, id, timeframe)
                .await
                .unwrap();
            let Some(found) = found else {
                prop_assert!(readings.is_empty() && sessions.is_empty() && v > 0);
                continue;
            };
            let expected = ask(world, v, world.from, world.to);
            prop_assert_eq!(
                whole(&found.performance, base),
                whole(&expected, 0),
                "vehicle {}",
                v
            );
        }
        Ok(())
    })
}

#[test]
fn what_is_fetched_is_enough_for_the_exact_answer() {
    let store = Arc::new(Store::start());
    let analyst = Analyst::new(2, Judgement::default());
    let config = Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let next = std::cell::Cell::new(KEYS);
    let seed = RngSeed::Random;
    let mut runner = TestRunner::new(Config {
        rng_seed: seed,
        ..config
    });
    let ran = runner.run(&worlds(), |world| {
        let base = next.replace(next.get() + KEYS);
        check(&store, &analyst, &world, base)
    });
    ran.unwrap();
}
