//! A database that was restored to an older state.

use wattgate::postgres::migrations::{HistoryOptions, migrate};
use wattgate::reading::Reading;
use wattgate::wal::{LIMIT_BYTES_MIN, LogOptions, SyncMode};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restored_database_has_lost_is_written_again_once() {
    let database = Database::new().await;
    let gateway = database.gateway(2);
    let ids = ids("M", 30);
    let at = |second| each(&ids, second, 1.0);
    gateway.store(&at(0)).await;
    database
        .run("create table backup as select * from wal_checkpoints")
        .await;
    for second in 1..5 {
        gateway.store(&at(second)).await;
    }
    assert_eq!(database.sums().await, [150, 0, 0]);
    // The restored database knows neither the last readings nor that they were written.
    database.end_sessions().await;
    database
        .run(
            "begin;
             update wal_checkpoints as c set position = b.position, live_position = b.live_position,
                meter_readings = b.meter_readings, meter_stored = b.meter_stored
             from backup as b where b.run_id = c.run_id and b.shard = c.shard;
             delete from meter_telemetry_history where ts > '2024-02-09T15:30:00Z';
             delete from meter_live_status;
             update wal_checkpoints set epoch = epoch + 1;
             commit",
        )
        .await;
    until("all of it again", || async { database.rows().await == 150 }).await;
    gateway.drained().await;
    assert_eq!(database.sums().await, [150, 0, 0]);
    let newest = "select count(*) from meter_status where ts = '2024-02-09T15:30:04Z'";
    gateway.stop().await;
    assert_eq!(database.count(newest).await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_older_than_the_log_is_a_counted_gap() {
    let database = Database::new().await;
    let dir = dir();
    let options = LogOptions {
        shards: 1,
        limit_bytes: LIMIT_BYTES_MIN,
        retain_bytes: 0,
        sync: SyncMode::Never,
    };
    let mut gateway = Gateway::open_with(dir.path(), options);
    gateway.write(&database, OPTIONS);
    // Long ids fill segments quickly.
    let id = "\u{1F50B}".repeat(64);
    let mut sent = 0;
    while gateway.source.runs()[0].first_position().segment() == 0 {
        let readings: Vec<Reading<'_>> = (sent..sent + 4000).map(|s| meter(&id, s, 1.0)).collect();
        gateway.send(&readings).await;
        sent += 4000;
        gateway.drained().await;
    }
    let first = gateway.source.runs()[0].first_position();
    database.end_sessions().await;
    database
        .run(
            "begin; delete from wal_checkpoints;
             truncate meter_telemetry_history, meter_live_status; commit",
        )
        .await;
    until("a gap", || async { gateway.progress().snapshot().gap > 0 }).await;
    until("the rest again", || async {
        let rest = "select meter_stored + meter_gap from wal_checkpoints";
        database.count(rest).await == sent
    })
    .await;
    let snapshot = gateway.progress().snapshot();
    let gap = database
        .count("select meter_gap from wal_checkpoints")
        .await;
    assert_eq!(snapshot.gap, gap as u64);
    assert!(gap > 0 && gap < sent, "{gap} of {sent}");
    assert_eq!(database.rows().await + gap, sent);
    assert!(first.segment() > 0);
    gateway.stop().await;
}

/// A gateway that retains no stored readings.
fn forgetful(dir: &std::path::Path, database: &Database) -> Gateway {
    let options = LogOptions {
        shards: 2,
        limit_bytes: LIMIT_BYTES_MIN,
        retain_bytes: 0,
        sync: SyncMode::Always,
    };
    let mut gateway = Gateway::open_with(dir, options);
    gateway.write(database, OPTIONS);
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_of_retired_runs_are_counted() {
    let database = Database::new().await;
    let dir = dir();
    let ids = ids("M", 30);
    let at = |second| each(&ids, second, 1.0);
    let gateway = forgetful(dir.path(), &database);
    gateway.store(&at(0)).await;
    database
        .run("create table backup as select * from wal_checkpoints")
        .await;
    gateway.store(&at(1)).await;
    gateway.stop().await;
    // A whole run that the backup does not know.
    let gateway = forgetful(dir.path(), &database);
    gateway.store(&at(2)).await;
    gateway.stop().await;
    let gateway = forgetful(dir.path(), &database);
    gateway.store(&at(3)).await;
    until("the older runs are retired", || async {
        gateway.source.runs().len() == 1
    })
    .await;
    assert_eq!(gateway.source.gaps(), []);
    database
        .run("create table newer as select * from wal_checkpoints")
        .await;

    let restore = |from: &str| {
        format!(
            "begin; truncate wal_checkpoints; insert into wal_checkpoints select * from {from};
             delete from meter_telemetry_history where ts > '2024-02-09T15:30:00Z'; commit"
        )
    };
    database.end_sessions().await;
    database.run(&restore("backup")).await;
    // All readings of the present run come back. Of each retired run, 30 are lost.
    until("the gaps", || async {
        gateway.progress().snapshot().gap == 60
    })
    .await;
    until("what the log holds", || async {
        database.rows().await == 60
    })
    .await;
    gateway.drained().await;
    let counted = "select sum(meter_gap) from wal_checkpoints";
    assert_eq!(database.count(counted).await, 60);
    let gaps = gateway.source.gaps();
    assert_eq!(gaps.iter().map(|gap| gap.readings).sum::<u64>(), 60);
    gateway.stop().await;

    // It is still known after a restart, and not counted twice.
    let gateway = forgetful(dir.path(), &database);
    until("the gaps again", || async {
        gateway.progress().snapshot().gap == 60
    })
    .await;
    assert_eq!(database.count(counted).await, 60);
    // A newer backup that contains those runs closes the gap.
    database.end_sessions().await;
    database.run(&restore("newer")).await;
    until("no gap any more", || async {
        gateway.progress().snapshot().gap == 0
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newly_bound_log_misses_nothing_from_before() {
    let (before, database) = (Database::new().await, Database::new().await);
    let dir = dir();
    let gateway = forgetful(dir.path(), &before);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    gateway.stop().await;
    let gateway = forgetful(dir.path(), &before);
    until("the run is retired", || async {
        gateway.source.runs().len() == 1
    })
    .await;
    gateway.stop().await;
    let id = database.text("select database_id from gateway_database");
    let id = id.await.parse().unwrap();
    let binding = wattgate::writer::binding::Binding::load(dir.path()).unwrap();
    binding.adopt(id).unwrap();
    let gateway = forgetful(dir.path(), &database);
    gateway.store(&[meter("M1", 1, 1.0)]).await;
    assert_eq!(gateway.progress().snapshot().gap, 0);
    assert_eq!(
        database
            .count("select count(*) from wal_checkpoints where meter_gap > 0")
            .await,
        0
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_behind_its_table_gives_new_devices_new_ids() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    let old = ids("OLD", 5);
    gateway.store(&each(&old, 0, 1.0)).await;
    let back = "select setval(pg_get_serial_sequence('meters', 'id'), 1, false)";
    let last = "select last_value from meters_id_seq";
    // While the gateway runs.
    database.run(back).await;
    let new = ids("NEW", 3);
    gateway.store(&each(&new, 0, 1.0)).await;
    assert_eq!(database.rows().await, 8);
    assert_eq!(
        database
            .count("select count(distinct id) from meters")
            .await,
        8
    );
    gateway.stop().await;
    // The migrations move it forward. They never move a sequence back.
    database.run(back).await;
    let history = HistoryOptions::default();
    migrate(&database.sql, history).await.unwrap();
    let newest = database.count("select max(id) from meters").await;
    assert_eq!(database.count(last).await, newest);
    database.run("select setval('meters_id_seq', 1000)").await;
    migrate(&database.sql, history).await.unwrap();
    assert_eq!(database.count(last).await, 1000);
    // Mutes are copied like devices.
    database
        .run(
            "insert into alert_mutes (stream, device_id, muted_until, muted_at)
            select 'meter', n, now(), now() from generate_series(1, 3) as n;
            select setval('alert_mutes_id_seq', 1, false)",
        )
        .await;
    migrate(&database.sql, history).await.unwrap();
    let last = "select last_value from alert_mutes_id_seq";
    assert_eq!(database.count(last).await, 3);
}
