//! The rollup's work is proportional to the readings that exist.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::Client;

use super::database::Store;
use super::summaries::{count, meter_with, minute, reading, sum_up, write_marked};
use crate::energy::device::EnergyReading;
use crate::rollups::Roller;

/// A device whose clock was wrong creates partitions in the distant past. Each takes one step, however many hours
/// and devices there are.
#[test]
fn a_partition_with_few_readings_takes_one_step() {
    const DAY: i64 = 24 * 60;
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 1..5).await;
        // A reading at the very start of a partition belongs to an hour that no partition covers.
        store.write_meter(meter, &[reading(-22 * 60)]).await;
        let old: Vec<EnergyReading> = (1..6).map(|n| reading(n - 100 * DAY)).collect();
        store.write_meter(meter, &old).await;
        let mut client = store.pool.get().await.unwrap();
        // Each partition range takes one step for its own hour, and one for an hour that ends at its start.
        let most = 2 * partitions(&store).await;
        let steps = steps(&mut client).await;
        assert!(steps <= most, "{steps} steps, more than {most}");
        let rolled_up = "select sum(readings)::bigint from meter_hours";
        assert_eq!(count(&store, rolled_up).await, 9);
    });
}

/// The number of distinct ranges that have partitions.
async fn partitions(store: &Store) -> usize {
    let ranges = "select count(distinct pg_get_expr(relpartbound, oid)) from pg_class
        where relispartition and relkind = 'r'";
    usize::try_from(count(store, ranges).await).unwrap()
}

/// A month is imported after it has passed. For most devices most of its hours are empty, and most registered
/// devices have no reading in it at all. It is read once, and the number of index searches is proportional to the
/// devices with readings.
#[test]
fn a_full_month_is_read_once_and_searched_twice_per_device() {
    // 2019-03. Each meter has one reading per minute in two of the hours; one meter in twenty only in the first.
    // One meter has ten per second for seven hours, more than a transaction reads.
    const IMPORT: &str = "create table imported partition of meter_telemetry_history
            for values from ('2019-03-01') to ('2019-04-01');
        insert into meters (external_id) select 'idle-' || n from generate_series(1, 3000) as n;
        insert into meters (external_id) select 'M-' || n from generate_series(1, 1000) as n;
        insert into meters (external_id) select 'more-' || n from generate_series(1, 3000) as n;
        insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
        select m.id, timestamptz '2019-03-01' + (m.id * 37 + h * 300) % 743 * interval '1 hour'
            + s * interval '1 minute', s / 64.0, 230
        from meters as m, generate_series(0, 1) as h, generate_series(1, 60) as s
        where m.external_id like 'M-%' and (h = 0 or m.id % 20 > 0);
        insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
        select (select max(id) from meters where external_id like 'M-%'),
            timestamptz '2019-03-31 16:59:59.95' + n * interval '100 milliseconds', 0.25, 230
        from generate_series(1, 252000) as n
        on conflict do nothing";
    // Differences between the rollups and the expected ones.
    const WRONG: &str = "select count(*) from (
            select meter_id, date_trunc('hour', ts - interval '1 microsecond') as hour, count(*)::integer as readings,
                min(ts) as first_at, max(ts) as last_at,
                (sum(round(kwh_consumed_ac * 1e6)) - (array_agg(round(kwh_consumed_ac * 1e6) order by ts))[1])::bigint
                    as energy_mwh
            from imported group by 1, 2
        ) as h
        full join (select * from meter_hours where hour < '2019-04-01') as r using (meter_id, hour)
        where (h.readings, h.first_at, h.last_at, h.energy_mwh)
            is distinct from (r.readings, r.first_at, r.last_at, r.energy_mwh)";
    let store = Store::start();
    store.runtime.block_on(async {
        let mut client = store.pool.get().await.unwrap();
        client.batch_execute(IMPORT).await.unwrap();
        let all = count(&store, "select count(*) from imported").await;
        assert!(all > 350_000, "{all} readings");
        let searches = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes where relname = 'imported'";
        // A session keeps its statistics to itself until it is made to flush them at the end of a transaction.
        let flush = "select pg_stat_force_next_flush()";
        client.batch_execute(flush).await.unwrap();
        let before = count(&store, searches).await;
        let mut roller = Roller::new(Arc::new(|| Duration::ZERO), None).without_pauses();
        while roller.step(&mut client, minute(90)).await.unwrap() {}
        client.batch_execute(flush).await.unwrap();
        let searched = count(&store, searches).await - before;
        assert_eq!(count(&store, WRONG).await, 0);
        let rolled_up = "select count(*) from meter_hours";
        assert!(count(&store, rolled_up).await > 1_950 + 6);
        assert_eq!(roller.readings(), all as u64);
        // One search to find it, one to read it, and a few per transaction.
        assert!(searched <= 2 * 1_000 + 20, "{searched} searches");
    });
}

/// While readings arrive, an hour with a burst of late ones is rolled up only now and then. When none wait, it is
/// rolled up at once.
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

/// Rolls up everything and counts the steps.
async fn steps(client: &mut Client) -> usize {
    let mut roller = Roller::new(Arc::new(|| Duration::ZERO), None).without_pauses();
    let mut steps = 0;
    while roller.step(client, minute(90)).await.unwrap() {
        steps += 1;
    }
    steps
}

/// A default partition may hold readings of any time. The hours between the other partitions are skipped.
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
        // Far from all other partitions, so none of these hours is rolled up, and each search must skip them.
        let others = "insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
            select $1, $2::timestamptz - interval '10 years' + n * interval '1 minute', 1, 230
            from generate_series(1, 50000) as n";
        client.execute(others, &[&meter, &minute(0)]).await.unwrap();
        let pages = "select coalesce(sum(idx_blks_read + idx_blks_hit), 0)::bigint
            from pg_statio_user_indexes where relname = 'other_meters'";
        let flush = "select pg_stat_force_next_flush()";
        client.batch_execute(flush).await.unwrap();
        let before = count(&store, pages).await;
        // Each partition range takes one step for its own hour, and one for an hour that ends at its start.
        let most = 2 * partitions(&store).await;
        assert!(steps(&mut client).await <= most);
        let rolled_up = "select sum(readings)::bigint from meter_hours";
        assert_eq!(count(&store, rolled_up).await, 9);
        client.batch_execute(flush).await.unwrap();
        let read = count(&store, pages).await - before;
        // The index has some 140 pages. Each step reads only what a few searches need.
        assert!(
            (1..=10 * most as i64).contains(&read),
            "{read} pages in {most} steps"
        );
    });
}

/// One device has more readings in an hour than a statement should read or memory should hold. One late reading
/// comes after all of them, and one in between.
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
            // The first reading's energy is counted from a reading before the hour.
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
