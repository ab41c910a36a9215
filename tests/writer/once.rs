//! A batch is stored in one transaction, exactly once.

use std::time::Duration;

use wattgate::ingest::admission::AckMode;
use wattgate::reading::{ExternalId, Reading, Stream, shard_of};
use wattgate::writer::WriterOptions;

use crate::proxy::{Fault, Proxy};
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_becomes_visible_all_at_once_in_one_transaction() {
    let database = Database::new().await;
    let proxy = Proxy::start(&database.socket());
    let mut gateway = Gateway::fresh(1);
    gateway
        .send(&[
            meter("M1", 0, 1.0),
            meter("M1", 1, 1.0),
            vehicle("V1", 0, 50.0),
        ])
        .await;
    proxy.set(Fault::HoldCommit);
    let at_once = WriterOptions {
        live_interval: Duration::ZERO,
        ..OPTIONS
    };
    gateway.write_through(&proxy, &database, at_once);
    // Everything but the COMMIT has been sent, and no session sees any of it.
    proxy.commits(1).await;
    let live = "(select count(*) from meter_status) + (select count(*) from vehicle_status)";
    let moved = "select count(*) from wal_checkpoints where meter_readings > 0";
    assert_eq!(database.rows().await, 0);
    assert_eq!(database.count(live).await, 0);
    assert_eq!(database.count(moved).await, 0);
    // The server then ends the session. No session will ever see the batch.
    assert_eq!(database.end_sessions().await, 1);
    until("the end of the session", || async {
        database.end_sessions().await == 0
    })
    .await;
    assert_eq!(database.rows().await, 0);
    proxy.set(Fault::None);
    gateway.drained().await;
    assert_eq!(database.sums().await, [3, 0, 0]);
    // All rows have the same transaction id.
    let transactions = "select count(distinct xmin::text) from (
        select xmin from meter_telemetry_history union all
        select xmin from vehicle_telemetry_history union all
        select xmin from meter_live_status union all
        select xmin from vehicle_live_status union all
        select xmin from wal_checkpoints) as written";
    assert_eq!(database.count(transactions).await, 1);
    assert_eq!(database.rows().await, 3);
    assert_eq!(database.count(live).await, 2);
    gateway.stop().await;
    assert_eq!(database.rows().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_not_repeated() {
    let database = Database::new().await;
    let proxy = Proxy::start(&database.socket());
    let mut gateway = Gateway::fresh(1);
    gateway.write_through(&proxy, &database, OPTIONS);
    gateway.up().await;
    for round in 0..5 {
        proxy.set(Fault::LoseCommitAnswer);
        let second = i64::from(round) * 10;
        let both = [meter("M1", second, 1.0), vehicle("V1", second, 50.0)];
        // The number of quarantined readings was in the lost response, so zero would be a guess.
        assert_eq!(gateway.send_as(&both, AckMode::Committed).await, None);
        proxy.commits(round + 1).await;
        // The next COMMIT to be lost must not be one that only writes live status.
        until("live status of all that is stored", || async {
            let behind = "select count(*) from wal_checkpoints where live_position < position";
            database.count(behind).await == 0
        })
        .await;
    }
    gateway.drained().await;
    // If the cursor had not moved to the checkpoint, its batches would show up here as duplicates.
    assert_eq!(database.sums().await, [10, 0, 0]);
    assert_eq!(database.rows().await, 10);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_counted_and_stored_once() {
    let database = Database::new().await;
    let dir = dir();
    let gateway = Gateway::start(dir.path(), 2, &database);
    let ids = ids("M", 20);
    let readings = each(&ids, 0, 1.5);
    // Repeats within a batch, across batches, and in a stream that is mostly new.
    gateway
        .store(&[readings.clone(), readings.clone()].concat())
        .await;
    assert_eq!(database.sums().await, [20, 20, 0]);
    gateway.store(&readings).await;
    assert_eq!(database.sums().await, [20, 40, 0]);
    let mut mixed = each(&ids, 60, 1.5);
    mixed.extend(&readings[..3]);
    gateway.store(&mixed).await;
    assert_eq!(database.sums().await, [40, 43, 0]);
    gateway.stop().await;
    // Repeats across a restart.
    let gateway = Gateway::start(dir.path(), 2, &database);
    gateway.store(&mixed).await;
    assert_eq!(database.sums().await, [40, 66, 0]);
    assert_eq!(database.rows().await, 40);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_acknowledged_of_contradicting_readings_stays() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    // In one batch. The first one has neither the smallest nor the last value.
    gateway
        .store(&[
            meter("M1", 0, 2.0),
            meter("M1", 0, 2.0),
            meter("M1", 0, 1.0),
            meter("M1", 1, 9.0),
        ])
        .await;
    assert_eq!(database.sums().await, [2, 1, 1]);
    // In a later batch.
    gateway
        .store(&[meter("M1", 0, 3.0), meter("M1", 2, 1.0)])
        .await;
    assert_eq!(database.sums().await, [3, 1, 2]);
    let kept = "select kwh_consumed_ac from meter_readings where ts = '2024-02-09T15:30:00Z'";
    assert_eq!(database.text(kept).await, "2");
    let aside = "select string_agg(concat_ws(' ', stream, device_id, sqlstate, ts::text,
        reading ->> 'kwhConsumedAc', reason), '; ' order by position) from quarantined_readings";
    let at = "2024-02-09 15:30:00+00";
    let reason = "another reading of this device and time, with other values, is stored";
    assert_eq!(
        database.text(aside).await,
        format!("meter M1 23505 {at} 1.0 {reason}; meter M1 23505 {at} 3.0 {reason}")
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_shards_changes_nothing() {
    let database = Database::new().await;
    let dir = dir();
    let ids = ids("M", 50);
    let mut second = 0;
    for shards in [3, 1, 5] {
        // Sent while no writer runs, so that the next start drains it with another number of shards.
        let gateway = Gateway::open(dir.path(), shards);
        let readings = each(&ids, second, 1.0);
        gateway.send(&readings).await;
        // It contradicts a reading of an older run, so order must be kept across different numbers of shards.
        let others = each(&ids, 0, 1.0);
        gateway.send(&others).await;
        let late = each(&ids, -60, f64::from(shards));
        gateway.send(&late).await;
        gateway.kill().await;
        second += 60;
    }
    let gateway = Gateway::start(dir.path(), 2, &database);
    gateway.drained().await;
    assert_eq!(database.sums().await, [200, 150, 100]);
    let kept = "select count(*) from meter_readings where ts < '2024-02-09T15:30:00Z'
        and kwh_consumed_ac = 3";
    assert_eq!(database.count(kept).await, 50);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_appears_after_it_was_looked_for_stops_no_writer() {
    let database = Database::new().await;
    // What another gateway could do at the worst moment: the row appears just before the COPY.
    let other = "create table came (first boolean);
        create function comes() returns trigger language plpgsql as $$
        begin
            if not exists (select from came) then
                insert into came values (true);
                insert into meter_telemetry_history select new.*;
            end if;
            return new;
        end $$;
        create trigger comes before insert on meter_telemetry_history
        for each row execute function comes()";
    database.run(other).await;
    let gateway = database.gateway(1);
    gateway
        .store(&[meter("M1", 0, 1.0), meter("M1", 1, 1.0)])
        .await;
    assert_eq!(database.rows().await, 2);
    assert_eq!(database.sums().await, [1, 1, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_other_shards_is_stored_before_the_next() {
    let database = Database::new().await;
    let dir = dir();
    let ids = ids("M", 40);
    let of = |kwh| each(&ids, 0, kwh);
    let gateway = Gateway::open(dir.path(), 1);
    gateway.send(&of(1.0)).await;
    let run = gateway.source.runs()[0].id;
    gateway.kill().await;
    // An operator's session locks the older run's checkpoint; the other writer has no shard in that run. That
    // session has the process id recorded in the row, but a different start time, so it is not terminated.
    let operator = database.session().await;
    let insert = format!(
        "insert into wal_checkpoints (run_id, shard, position, live_position, epoch, backend_pid,
            backend_start) values ('{run}', 0, 4096, 4096, 0, pg_backend_pid(), '-infinity')"
    );
    operator.batch_execute(&insert).await.unwrap();
    operator
        .batch_execute("begin; select 1 from wal_checkpoints for update")
        .await
        .unwrap();
    let gateway = Gateway::start(dir.path(), 2, &database);
    gateway.send(&of(2.0)).await;
    gateway.reports("lock timeout").await;
    assert_eq!(database.rows().await, 0, "a later reading came first");
    operator.batch_execute("rollback").await.unwrap();
    gateway.drained().await;
    assert_eq!(database.sums().await, [40, 0, 40]);
    let kept = "select count(*) from meter_readings where kwh_consumed_ac = 1";
    assert_eq!(database.count(kept).await, 40);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_log_stores_nothing_twice() {
    let database = Database::new().await;
    let (original, copy) = (dir(), dir());
    let gateway = Gateway::open(original.path(), 2);
    let ids = ids("M", 200);
    for second in 0..5 {
        let readings = each(&ids, second, 1.0);
        gateway.send(&readings).await;
    }
    gateway.kill().await;
    for entry in std::fs::read_dir(original.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let both = [&original, &copy].map(|dir| Gateway::start(dir.path(), 2, &database));
    for (gateway, id) in both.iter().zip(["M1", "M2"]) {
        gateway.send(&[meter(id, 10, 1.0)]).await;
    }
    until("all of it", || async { database.rows().await == 1002 }).await;
    for gateway in both {
        gateway.stop().await;
    }
    assert_eq!(database.rows().await, 1002);
    let counted = "select sum(meter_readings) from wal_checkpoints";
    assert_eq!(database.count(counted).await, 1002);

    // One of the two may already have retired a run, forgotten it, and deleted its checkpoints. The other one then
    // stores the run again, as duplicates.
    database.run("delete from wal_checkpoints").await;
    let gateway = Gateway::start(original.path(), 2, &database);
    gateway.stop().await;
    assert_eq!(database.rows().await, 1002);
    assert_eq!(database.sums().await, [0, 1001, 0]);
}

/// A request of several frames. A shard without readings in the last ones has nothing to store there, so its
/// checkpoint does not reach the end of the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_answered_where_a_shard_has_no_later_rows() {
    let database = Database::new().await;
    let gateway = database.gateway(2);
    let ids = ids("M", 100);
    let of_shard = |shard| {
        let is_in = |id: &&String| {
            let id = ExternalId::new(id).unwrap();
            shard_of(Stream::Meter, id, 2) == shard
        };
        ids.iter().find(is_in).unwrap()
    };
    let mut readings: Vec<Reading<'_>> = (0..50).map(|n| meter(of_shard(0), n, 1.0)).collect();
    readings.extend((0..80_000).map(|n| meter(of_shard(1), n, 1.0)));
    assert_eq!(
        gateway.send_as(&readings, AckMode::Committed).await,
        Some(0)
    );
    assert_eq!(database.sums().await, [80_050, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_reports_how_many_readings_are_in_quarantine() {
    let database = Database::new().await;
    let gateway = database.gateway(2);
    let first = [meter("M1", 0, 1.0), meter("M1", 1, 1.0)];
    assert_eq!(gateway.send_as(&first, AckMode::Committed).await, Some(0));
    let second = [
        meter("M1", 0, 2.0),
        meter("M1", 1, 1.0),
        meter("M1", 2, 1.0),
        meter("M1", 2, 3.0),
        meter("M2", 0, 1.0),
    ];
    assert_eq!(gateway.send_as(&second, AckMode::Committed).await, Some(2));
    assert_eq!(gateway.send_as(&first, AckMode::Committed).await, Some(0));
    assert_eq!(gateway.send_as(&second, AckMode::Durable).await, None);
    gateway.stop().await;
}
