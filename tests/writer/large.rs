//! Large batches, which a writer takes when it is behind.

use std::time::Duration;

use tokio_postgres::Client;
use wattgate::ingest::admission::AckMode;
use wattgate::writer::WriterOptions;

use crate::support::*;

const OPTIONS_OF_LARGE: WriterOptions = WriterOptions {
    batch_rows_max: 20_000,
    moderate_rows: 1_000,
    ..OPTIONS
};
/// Devices in one frame of the log.
const DEVICES: usize = 300;

/// Records how many rows each statement stored.
const SIZES: &str = "
    create table sizes (n integer generated always as identity, size integer);
    create function measure() returns trigger language plpgsql as $$
    begin
        insert into sizes (size) select count(*) from taken;
        return null;
    end $$;
    create trigger measure after insert on meter_telemetry_history
    referencing new table as taken for each statement execute function measure()";
const REFUSING: &str = "alter table meter_telemetry_history
    add constraint plausible check (kwh_consumed_ac < 100)";

async fn send_seconds(gateway: &Gateway, seconds: std::ops::Range<i64>) {
    let ids = ids("M", DEVICES);
    for second in seconds {
        gateway.send(&each(&ids, second, 1.0)).await;
    }
}

/// A gateway that has stored enough clean batches to end the search for repeats.
async fn after_clean_batches(database: &Database) -> Gateway {
    let mut gateway = Gateway::fresh(1);
    gateway.write(database, OPTIONS_OF_LARGE);
    for second in 0..25 {
        gateway.store(&[meter("first", second, 1.0)]).await;
    }
    gateway
}

/// Blocks the writers until the returned session commits.
async fn busy(database: &Database) -> Client {
    let session = database.session().await;
    let lock = "begin; lock table meter_telemetry_history in share mode";
    session.batch_execute(lock).await.unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_behind_takes_larger_batches() {
    let database = Database::new().await;
    database.run(SIZES).await;
    let mut gateway = Gateway::fresh(1);
    send_seconds(&gateway, 0..60).await;
    let options = WriterOptions {
        batch_rows_max: 4_000,
        ..OPTIONS_OF_LARGE
    };
    gateway.write(&database, options);
    gateway.drained().await;
    assert_eq!(database.sums().await, [18_000, 0, 0]);
    // The first batch is rounded up to whole frames.
    let first = "select size from sizes order by n limit 1";
    assert_eq!(database.count(first).await, 1_200);
    // On a slow machine, not every batch doubles. Two more doublings would reach 8,100.
    let largest = database.count("select max(size) from sizes").await;
    assert!((2_000..=4_200).contains(&largest), "{largest}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_its_commit_makes_batches_moderate() {
    let database = Database::new().await;
    database.run(SIZES).await;
    let gateway = after_clean_batches(&database).await;
    let busy = busy(&database).await;
    send_seconds(&gateway, 0..60).await;
    let last = [meter("last", 0, 1.0)];
    let committed = gateway.send_as(&last, AckMode::Committed);
    let freed = async {
        let is_urgent = || async { gateway.progress().is_urgent(0) };
        until("a client waits", is_urgent).await;
        busy.batch_execute("commit").await.unwrap();
    };
    tokio::join!(committed, freed);
    let largest = database.count("select max(size) from sizes").await;
    assert!((1_000..=1_200).contains(&largest), "{largest}");
    gateway.drained().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_that_is_refused_comes_back_in_parts() {
    let database = Database::new().await;
    database.run(SIZES).await;
    database.run(REFUSING).await;
    let earlier = database.gateway(1);
    earlier.store(&[meter("M7", 90, 1.0)]).await;
    earlier.stop().await;
    let mut gateway = Gateway::fresh(1);
    send_seconds(&gateway, 0..80).await;
    // It is the first device in storage order. If the batch were halved until the reading is found, the largest
    // part would come last.
    gateway.send(&[meter("M0", 200, 500.0)]).await;
    send_seconds(&gateway, 80..100).await;
    gateway.write(&database, OPTIONS_OF_LARGE);
    gateway.drained().await;
    // The duplicate is M7's reading, which another gateway has stored.
    assert_eq!(database.sums().await, [30_000, 1, 1]);
    assert_eq!(database.rows().await, 30_000);
    let largest = "select max(size) from sizes";
    assert!(database.count(largest).await >= 2_000);
    // A moderate batch plus one frame.
    let after = "select max(size) from (select size from sizes order by n desc limit 6) as s";
    assert!(database.count(after).await <= 1_000 + DEVICES as i64);
    let live = "select count(*) from meter_live_status where ts = to_timestamp($1)";
    let live = live.replace("$1", &(NOON + 99).to_string());
    gateway.stop().await;
    assert_eq!(database.count(&live).await, DEVICES as i64);
}

/// Counts the rows that were tried. A sequence keeps its value after a rollback.
const TRIED: &str = "
    create sequence tried;
    create function try() returns trigger language plpgsql as $$
    begin
        perform nextval('tried');
        return new;
    end $$;
    create trigger try before insert on meter_telemetry_history
    for each row execute function try()";

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reading_late_in_a_large_batch_costs_one_large_batch() {
    let database = Database::new().await;
    for sql in [SIZES, REFUSING, TRIED] {
        database.run(sql).await;
    }
    let gateway = after_clean_batches(&database).await;
    let busy = busy(&database).await;
    send_seconds(&gateway, 0..118).await;
    gateway.send(&[meter("M0", 200, 500.0)]).await;
    send_seconds(&gateway, 118..130).await;
    busy.batch_execute("commit").await.unwrap();
    gateway.drained().await;
    assert_eq!(database.sums().await, [39_025, 0, 1]);
    assert!(database.count("select max(size) from sizes").await >= 2_000);
    let tried = database.count("select last_value from tried").await;
    // One large batch, and the moderate one that has the reading.
    assert!(tried <= 39_026 + 20_300 + 2_400, "{tried}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contradictions_are_set_aside_in_moderate_parts() {
    let database = Database::new().await;
    let mut gateway = Gateway::fresh(1);
    send_seconds(&gateway, 0..20).await;
    let ids = ids("M", DEVICES);
    for n in 0..40 {
        gateway.send(&each(&ids, 100, 1.0 + f64::from(n))).await;
    }
    gateway.write(&database, OPTIONS_OF_LARGE);
    gateway.drained().await;
    assert_eq!(database.sums().await, [6_300, 0, 11_700]);
    let most = "select max(n) from
        (select count(*) as n from quarantined_readings group by xmin::text) as per_batch";
    let most = database.count(most).await;
    assert!(most <= 1_200, "{most}");
    gateway.stop().await;
}

/// Refuses live status once, with a large batch. Then counts readings in live status that history does not hold.
const LIVE_REFUSES: &str = "
    create sequence refusals;
    create function refuse() returns trigger language plpgsql as $$
    begin
        if (select max(size) from sizes) > 1500 and nextval('refusals') = 1 then
            raise exception 'refused' using errcode = '22000';
        end if;
        return null;
    end $$;
    create trigger refuse before insert on meter_live_status
    for each statement execute function refuse();
    create sequence unknown;
    create function compare() returns trigger language plpgsql as $$
    begin
        if not exists (
            select from meter_telemetry_history where meter_id = new.meter_id and ts = new.ts
        ) then
            perform nextval('unknown');
        end if;
        return new;
    end $$;
    create trigger compare before insert on meter_live_status
    for each row execute function compare()";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_back_does_not_become_live_status() {
    let database = Database::new().await;
    for sql in [SIZES, LIVE_REFUSES] {
        database.run(sql).await;
    }
    let mut gateway = Gateway::fresh(1);
    send_seconds(&gateway, 0..40).await;
    let options = WriterOptions {
        live_interval: Duration::ZERO,
        ..OPTIONS_OF_LARGE
    };
    gateway.write(&database, options);
    gateway.drained().await;
    gateway.stop().await;
    let called = |sequence: &str| format!("select is_called::int from {sequence}");
    assert_eq!(database.count(&called("refusals")).await, 1);
    assert_eq!(database.count(&called("unknown")).await, 0);
}
