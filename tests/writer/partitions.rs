//! Partitions are created when needed and dropped when too old.

use std::time::{Duration, Instant};

use wattgate::postgres::PartitionWidth;
use wattgate::postgres::migrations::{HistoryOptions, migrate};
use wattgate::postgres::partitions::{Dropped, drop_before};
use wattgate::reading::{Stream, Timestamp};

use crate::binary;
use crate::binary::data_dir;
use crate::support::*;

const NAMES: &str =
    "select string_agg(inhrelid::regclass::text, ' ' order by inhrelid::regclass::text)
    from pg_inherits where inhparent = 'meter_telemetry_history'::regclass";

#[tokio::test(flavor = "multi_thread")]
async fn late_readings_make_their_partitions() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway
        .store(&[
            meter("M1", 0, 1.0),
            meter("M1", -3 * 365 * DAY, 1.0),
            vehicle("V1", -40 * DAY, 50.0),
        ])
        .await;
    assert_eq!(database.sums().await, [3, 0, 0]);
    let names = database.text(NAMES).await;
    for name in ["history_2024_02", "history_2021_02"] {
        assert!(names.contains(name), "{names}");
    }
    assert!(!names.contains("2023_12"), "{names}");
    // With a default partition, attaching another one would scan all of it.
    let default = "select count(*) from pg_partitioned_table where partdefid <> 0";
    assert_eq!(database.count(default).await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_a_day_wide_where_that_is_asked_for() {
    let database = Database::with(HistoryOptions {
        partition: Some(PartitionWidth::Day),
        retention: None,
    })
    .await;
    let dir = dir();
    let gateway = Gateway::start(dir.path(), 1, &database);
    gateway
        .store(&[meter("M1", 0, 1.0), meter("M1", DAY, 1.0)])
        .await;
    let names = database.text(NAMES).await;
    for name in ["history_2024_02_09", "history_2024_02_10"] {
        assert!(names.contains(name), "{names}");
    }
    // Monthly partitions from now on. Existing ones stay, and new ones cover the rest of the month.
    gateway.stop().await;
    database
        .run("update gateway_database set partition_width = 'month'")
        .await;
    let gateway = Gateway::start(dir.path(), 1, &database);
    gateway.store(&[meter("M1", 5 * DAY, 1.0)]).await;
    let names = database.text(NAMES).await;
    assert!(
        names.contains("history_2024_02_11_to_2024_03_01"),
        "{names}"
    );
    assert_eq!(database.sums().await, [3, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_make_the_same_partitions_at_once() {
    let database = Database::new().await;
    let (mut one, mut other) = (Gateway::fresh(2), Gateway::fresh(2));
    let ids = ids("M", 24);
    let months = |year: i64| -> Vec<_> {
        let days = |n: usize| -(year * 365 + n as i64 * 31) * DAY;
        ids.iter()
            .enumerate()
            .map(|(n, id)| meter(id, days(n % 12), 1.0))
            .collect()
    };
    for gateway in [&one, &other] {
        gateway.send(&months(1)).await;
        gateway.send(&months(2)).await;
    }
    one.write(&database, OPTIONS);
    other.write(&database, OPTIONS);
    one.drained().await;
    other.drained().await;
    assert_eq!(database.sums().await, [48, 48, 0]);
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_made_by_one_at_a_time_and_beside_an_open_copy() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    // Another gateway is in the middle of a batch, and of creating a partition.
    let other = database.session().await;
    other
        .batch_execute(
            "select pg_advisory_lock(x'77617474'::bigint << 32 | x'70617274'::bigint);
             begin; lock table meter_telemetry_history in row exclusive mode",
        )
        .await
        .unwrap();
    gateway.send(&[meter("M1", -400 * DAY, 1.0)]).await;
    until("the writer waits for the other", || async {
        database.waiting("advisory").await == 1
    })
    .await;
    assert_eq!(database.rows().await, 1);
    other
        .batch_execute("select pg_advisory_unlock_all()")
        .await
        .unwrap();
    // Storing does not wait for the end of that batch.
    gateway.drained().await;
    assert_eq!(database.rows().await, 2);
    other.batch_execute("rollback").await.unwrap();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_never_queues_behind_a_reader() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway
        .store(&[meter("M1", 0, 1.0), meter("M1", -40 * DAY, 1.0)])
        .await;
    let reader = database.session().await;
    reader
        .batch_execute("begin; select * from meter_telemetry_history")
        .await
        .unwrap();
    let janitor = database.session().await;
    janitor.batch_execute("set timezone = 'UTC'").await.unwrap();
    let before = Timestamp::from_micros(NOON * 1_000_000);
    let begun = Instant::now();
    let outcome = drop_before(&janitor, Stream::Meter, before).await.unwrap();
    assert_eq!(
        outcome,
        Dropped {
            dropped: 0,
            left: 1
        }
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
    // Nothing queues behind it: readings are stored while the reader goes on.
    gateway.store(&[meter("M1", 1, 1.0)]).await;
    reader.batch_execute("rollback").await.unwrap();
    let outcome = drop_before(&janitor, Stream::Meter, before).await.unwrap();
    assert_eq!(
        outcome,
        Dropped {
            dropped: 1,
            left: 0
        }
    );
    assert_eq!(database.rows().await, 2);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_partition_by_partition() {
    // All gateways use one order, so that they never wait for each other in a circle.
    let database = Database::new().await;
    database
        .watch_inserts("meter_telemetry_history", "tg_relid")
        .await;
    let mut gateway = Gateway::fresh(1);
    let mut readings = Vec::new();
    let ids = ids("M", 10);
    for id in &ids {
        for days in [0, -31, -62] {
            readings.push(meter(id, days * DAY, 1.0));
        }
    }
    gateway.send(&readings).await;
    gateway.write(&database, OPTIONS);
    gateway.drained().await;
    let changes = "select count(*) from (
        select value, lag(value) over (order by place) as before from inserted) as i
        where value <> before";
    assert_eq!(database.count("select count(*) from inserted").await, 30);
    assert_eq!(database.count(changes).await, 2);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_counts_from_the_newest_reading() {
    // These readings are from 2024, so today's clock is years ahead of them.
    let database = Database::with(HistoryOptions {
        retention: Some(Duration::from_secs(30 * DAY as u64)),
        ..HistoryOptions::default()
    })
    .await;
    let dir = dir();
    let gateway = Gateway::start(dir.path(), 1, &database);
    gateway
        .store(&[meter("M1", 0, 1.0), meter("M1", -50 * DAY, 1.0)])
        .await;
    gateway.stop().await;
    let gateway = Gateway::start(dir.path(), 1, &database);
    until("the old partition is dropped", || async {
        database.rows().await < 2
    })
    .await;
    gateway.store(&[meter("M1", 1, 1.0)]).await;
    gateway.stop().await;
    assert_eq!(database.rows().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_stays_stored_until_an_operator_removes_it() {
    let retention = Some(Duration::from_secs(30 * DAY as u64));
    let database = Database::with(HistoryOptions {
        retention,
        ..HistoryOptions::default()
    })
    .await;
    let without_flag = || migrate(&database.sql, HistoryOptions::default());
    assert_eq!(without_flag().await.unwrap().retention, retention);
    // As docs/src/operating.md describes it.
    database
        .run("update gateway_database set retention_seconds = null")
        .await;
    assert_eq!(without_flag().await.unwrap().retention, None);
}

/// Another gateway or an operator changes the retention.
#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_is_changed_is_followed() {
    let database = Database::new().await;
    assert_eq!(database.settings.retention, None);
    database
        .run("update gateway_database set retention_seconds = 86400")
        .await;
    let gateway = database.gateway(1);
    let mut kept = gateway.writers.as_ref().unwrap().retention();
    let day = Some(Duration::from_secs(DAY as u64));
    let followed = kept.wait_for(|kept| *kept == day);
    tokio::time::timeout(2 * LIMIT, followed)
        .await
        .unwrap()
        .unwrap();
    gateway.stop().await;
}

/// A partition for a reading past the retention would be dropped at once.
#[test]
fn a_retention_that_is_stored_bounds_the_age_of_readings() {
    let data = data_dir();
    binary::Gateway::ready(data.path(), &["--retention", "30d"]).terminate();
    let gateway = binary::Gateway::ready(data.path(), &[]);
    let at = gateway.sql(
        "select to_char(now() at time zone 'utc' - interval '40 days', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
    );
    let body =
        format!(r#"[{{"meterId":"M1","kwhConsumedAc":1,"voltage":230,"timestamp":"{at}"}}]"#);
    let (status, answer) = gateway.call("POST", "/v1/ingestion/meter", &body);
    assert_eq!(status, 400, "{answer}");
    assert!(answer.contains("too_old"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_made_by_hand_are_used_as_they_are() {
    let database = Database::new().await;
    // Partitions without a lower or an upper bound, and one that is partitioned further by device.
    database
        .run(
            "create table old_meters partition of meter_telemetry_history
            for values from ('-infinity') to ('2024-02-01 00:00+00');
            create table new_meters partition of meter_telemetry_history
            for values from ('2024-03-01 00:00+00') to ('infinity');
            create table these_meters partition of meter_telemetry_history
            for values from ('2024-02-01 00:00+00') to ('2024-03-01 00:00+00')
            partition by hash (meter_id);
            create table even_meters partition of these_meters for values with (modulus 2, remainder 0);
            create table odd_meters partition of these_meters for values with (modulus 2, remainder 1);
            create table all_vehicles partition of vehicle_telemetry_history default",
        )
        .await;
    let gateway = database.gateway(1);
    for day in [-400, -20, 0, 60] {
        gateway
            .send(&[
                meter("M1", day * DAY, 1.0),
                meter("M2", day * DAY, 1.0),
                vehicle("V1", day * DAY, 50.0),
            ])
            .await;
    }
    gateway.drained().await;
    assert_eq!(database.sums().await, [12, 0, 0]);
    assert_eq!(database.count("select count(*) from old_meters").await, 4);
    assert_eq!(database.count("select count(*) from new_meters").await, 2);
    assert_eq!(database.count("select count(*) from all_vehicles").await, 4);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_missing_by_hand_costs_no_reading() {
    let database = Database::new().await;
    // A partition was partitioned further by hand, and has no part yet that accepts a row.
    database
        .run(
            "create table these_meters partition of meter_telemetry_history
            for values from ('2024-02-01 00:00+00') to ('2024-03-01 00:00+00')
            partition by hash (meter_id)",
        )
        .await;
    let gateway = database.gateway(1);
    gateway
        .send(&[meter("M1", 0, 1.0), meter("M2", 0, 1.0)])
        .await;
    gateway.reports("no partition of relation").await;
    assert_eq!(
        database
            .count("select count(*) from quarantined_readings")
            .await,
        0
    );
    database
        .run("create table all_meters partition of these_meters for values with (modulus 1, remainder 0)")
        .await;
    gateway.drained().await;
    assert_eq!(database.sums().await, [2, 0, 0]);
    gateway.stop().await;
}
