//! The rollup's work is in proportion to the readings that exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Client;

use super::database::Store;
use super::summaries::{count, meter_with, minute, reading, sum_up, write_marked};
use crate::energy::device::EnergyReading;
use crate::reading::Timestamp;
use crate::rollups::Roller;

/// A device whose clock was wrong makes partitions of long ago. Their hours take one step, however many hours and
/// devices there are; a partition with many readings takes a step for each of its hours.
#[test]
fn partitions_with_few_readings_take_one_pass() {
    const DAY: i64 = 24 * 60;
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 1..5).await;
        // The start of a partition is the end of an hour that no partition holds.
        store.write_meter(meter, &[reading(-22 * 60)]).await;
        let old: Vec<EnergyReading> = (1..6).map(|n| reading(n - 100 * DAY)).collect();
        store.write_meter(meter, &old).await;
        let mut client = store.pool.get().await.unwrap();
        assert_eq!(steps(&mut client).await, 1);
        let rolled_up = "select sum(readings)::bigint from meter_hours";
        assert_eq!(count(&store, rolled_up).await, 9);

        let again = "truncate meter_hours;
            update hours_progress set built_from = sealed_to, built_to = sealed_to";
        client.batch_execute(again).await.unwrap();
        let at = minute(-5 * DAY).as_micros();
        let many: Vec<EnergyReading> = (0..100_001)
            .map(|n| EnergyReading {
                at: Timestamp::from_micros(at + n * 60_000),
                ..reading(0)
            })
            .collect();
        store.write_meter(meter, &many).await;
        // The newer hours, the hours of the day and the one that ends where it starts, and the older hours.
        assert_eq!(steps(&mut client).await, 1 + 25 + 1);
        // The first of them belongs to the hour before, and is its only reading.
        assert_eq!(count(&store, rolled_up).await, 9 + 100_000);
    });
}

/// While readings arrive, a burst of late ones has its hour rolled up at most once in a while; when none wait, at
/// once.
#[test]
fn dirty_hours_wait_for_a_pass_while_readings_arrive() {
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 1..5).await;
        sum_up(&store, minute(90)).await;
        let mut client = store.pool.get().await.unwrap();
        let marks = "select count(*) from meter_hour_marks";
        let waits = Arc::new(AtomicBool::new(true));
        let waiting = Arc::clone(&waits);
        let millisecond = move || Duration::from_millis(u64::from(waiting.load(Ordering::Relaxed)));
        let mut roller = Roller::new(Arc::new(millisecond), None).without_pauses();
        // The first pass begins at once.
        for (late, left) in [(6, 0), (7, 1), (8, 2)] {
            write_marked(&store, meter, late).await;
            while roller.step(&mut client, minute(90)).await.unwrap() {}
            assert_eq!(count(&store, marks).await, left);
        }
        waits.store(false, Ordering::Relaxed);
        while roller.step(&mut client, minute(90)).await.unwrap() {}
        assert_eq!(count(&store, marks).await, 0);
        let rolled_up = "select sum(readings)::bigint from meter_hours";
        assert_eq!(count(&store, rolled_up).await, 7);
    });
}

/// Rolls up everything, and counts the steps.
async fn steps(client: &mut Client) -> usize {
    let mut roller = Roller::new(Arc::new(|| Duration::ZERO), None).without_pauses();
    let mut steps = 0;
    while roller.step(client, minute(90)).await.unwrap() {
        steps += 1;
    }
    steps
}

/// A default partition may hold readings of any time. The hours between the other partitions are passed over.
#[test]
fn beside_a_default_partition_gaps_cost_nothing() {
    const DAY: i64 = 24 * 60;
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 1..5).await;
        let old: Vec<EnergyReading> = (1..6).map(|n| reading(n - 100 * DAY)).collect();
        store.write_meter(meter, &old).await;
        let mut client = store.pool.get().await.unwrap();
        let default = "create table other_meters partition of meter_telemetry_history default";
        client.batch_execute(default).await.unwrap();
        let partitions = "select count(distinct pg_get_expr(relpartbound, oid)) from pg_class
            where relispartition and relkind = 'r'";
        let partitions = usize::try_from(count(&store, partitions).await).unwrap();
        // The hours of each partition of a day, and the one that ends where it starts.
        assert!(steps(&mut client).await <= 25 * partitions);
        let rolled_up = "select sum(readings)::bigint from meter_hours";
        assert_eq!(count(&store, rolled_up).await, 9);
    });
}

/// An hour of one device with more readings than a statement reads, or memory should hold. A late reading after all of
/// them, and one among them.
#[test]
fn an_hour_with_very_many_readings_is_rolled_up_in_pages() {
    const MANY: i64 = 450_000;
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 0..0).await;
        let client = store.pool.get().await.unwrap();
        let many = "insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
            select $1, $2::timestamptz + n * interval '7 milliseconds', 0.25, 230
            from generate_series(1, $3::bigint) as n";
        let written = client.execute(many, &[&meter, &minute(0), &MANY]).await;
        assert_eq!(written.unwrap(), MANY as u64);
        sum_up(&store, minute(90)).await;
        let readings = "select sum(readings)::bigint from meter_hours";
        let energy = "select sum(energy_mwh)::bigint from meter_hours";
        let is_whole = async |late: i64| {
            assert_eq!(count(&store, readings).await, MANY + late);
            // The energy of the first reading is counted from the reading before the hour.
            assert_eq!(count(&store, energy).await, (MANY + late - 1) * 250_000);
        };
        is_whole(0).await;
        for (late, at) in [(1, 59), (2, 31)] {
            write_marked(&store, meter, at).await;
            sum_up(&store, minute(90)).await;
            is_whole(late).await;
        }
    });
}
