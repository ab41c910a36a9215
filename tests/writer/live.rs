//! Live status never goes back in time, and is never left wrong.

use std::time::Duration;

use wattgate::ingest::admission::AckMode;
use wattgate::reading::Reading;
use wattgate::writer::WriterOptions;

use crate::support::*;

const METERS: &str = "select string_agg(concat_ws(' ', meter_id, to_char(ts, 'MI:SS'),
    kwh_consumed_ac), '; ' order by meter_id) from meter_status where meter_id like 'M%'";
const NEVER: WriterOptions = WriterOptions {
    live_interval: Duration::from_secs(3600),
    ..OPTIONS
};

/// Sends the readings together with those of many other devices, so that not every batch writes live status.
async fn send_among_many(gateway: &Gateway, readings: &[Reading<'_>]) {
    let ids = ids("C", 300);
    let mut all = each(&ids, 0, 1.0);
    all.extend(readings);
    gateway.send(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_status_never_goes_back_in_time() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway
        .store(&[
            meter("M1", 10, 1.0),
            meter("M1", 5, 2.0),
            meter("M2", 1, 3.0),
        ])
        .await;
    until("live status", || async {
        database.text(METERS).await == "M1 30:10 1; M2 30:01 3"
    })
    .await;
    gateway
        .store(&[meter("M1", 9, 4.0), meter("M2", 2, 5.0)])
        .await;
    until("live status of M2", || async {
        database.text(METERS).await == "M1 30:10 1; M2 30:02 5"
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_status_that_was_not_written_yet_survives_a_kill() {
    let database = Database::new().await;
    let dir = dir();
    let mut gateway = Gateway::open(dir.path(), 1);
    gateway.write(&database, NEVER);
    send_among_many(&gateway, &[meter("M1", 10, 1.0), vehicle("V1", 10, 50.0)]).await;
    gateway.drained().await;
    gateway.store(&[meter("M1", 5, 2.0)]).await;
    assert_eq!(database.text(METERS).await, "");
    gateway.kill().await;
    // Nothing new arrives, because the devices are silent.
    let gateway = Gateway::start(dir.path(), 1, &database);
    until("live status", || async {
        database.text(METERS).await == "M1 30:10 1"
            && database.text("select soc from vehicle_status").await == "50"
    })
    .await;
    gateway.drained().await;
    assert_eq!(database.sums().await, [303, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_status_that_was_not_written_yet_survives_a_lost_session() {
    let database = Database::new().await;
    let mut gateway = Gateway::fresh(1);
    gateway.write(&database, NEVER);
    send_among_many(&gateway, &[meter("M1", 10, 1.0)]).await;
    gateway.drained().await;
    assert_eq!(database.text(METERS).await, "");
    database.end_sessions().await;
    // The readings sent after the loss are not newer.
    gateway.store(&[meter("M1", 5, 2.0)]).await;
    gateway.stop().await;
    assert_eq!(database.text(METERS).await, "M1 30:10 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_does_not_come_back_as_live_status() {
    let database = Database::new().await;
    let dir = dir();
    let rule = "alter table meter_telemetry_history
        add constraint plausible check (kwh_consumed_ac < 100)";
    database.run(rule).await;
    let mut gateway = Gateway::open(dir.path(), 1);
    gateway.write(&database, NEVER);
    send_among_many(&gateway, &[meter("M1", 10, 1.0), meter("M1", 20, 500.0)]).await;
    gateway.drained().await;
    assert_eq!(database.sums().await, [301, 0, 1]);
    assert_eq!(database.text(METERS).await, "");
    gateway.kill().await;
    let gateway = Gateway::start(dir.path(), 1, &database);
    until("live status", || async {
        !database.text(METERS).await.is_empty()
    })
    .await;
    assert_eq!(database.text(METERS).await, "M1 30:10 1");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_status_is_written_with_some_batches_and_not_each() {
    let database = Database::new().await;
    let mut gateway = Gateway::fresh(1);
    gateway.write(&database, NEVER);
    send_among_many(&gateway, &[]).await;
    for second in 0..5 {
        gateway.store(&[meter("M1", second, 1.0)]).await;
    }
    assert_eq!(database.text(METERS).await, "");
    // When the gateway stops, it writes live status.
    gateway.stop().await;
    assert_eq!(database.text(METERS).await, "M1 30:04 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_reading_is_live_at_once() {
    let database = Database::new().await;
    let mut gateway = Gateway::fresh(1);
    let options = WriterOptions {
        live_at_once_devices: 1,
        ..NEVER
    };
    gateway.write(&database, options);
    for second in 0..5 {
        let reading = meter("M1", second, 1.0);
        gateway.send_as(&[reading], AckMode::Committed).await;
        assert_eq!(database.text(METERS).await, format!("M1 30:0{second} 1"));
    }
    gateway.stop().await;
}

/// Counts the rows that are offered to live status, whether or not they replace anything.
const OFFERED: &str = "
    create sequence offered;
    create function offer() returns trigger language plpgsql as $$
    begin
        perform nextval('offered');
        return new;
    end $$;
    create trigger offer before insert on meter_live_status for each row execute function offer()";

async fn offered(database: &Database) -> i64 {
    let all = "select case when is_called then last_value else 0 end from offered";
    database.count(all).await
}

async fn is_live(database: &Database, meters: &str) {
    until(meters, || async { database.text(METERS).await == meters }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reading_costs_no_upsert() {
    let database = Database::new().await;
    database.run(OFFERED).await;
    let gateway = database.gateway(1);
    gateway
        .store(&[meter("M1", 10, 1.0), meter("M2", 0, 1.0)])
        .await;
    is_live(&database, "M1 30:10 1; M2 30:00 1").await;
    assert_eq!(offered(&database).await, 2);
    for second in 1..6 {
        gateway
            .store(&[meter("M1", second, 2.0), meter("M2", second, 2.0)])
            .await;
        is_live(&database, &format!("M1 30:10 1; M2 30:0{second} 2")).await;
    }
    assert_eq!(offered(&database).await, 7);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_keep_the_newest_reading_of_both() {
    let database = Database::new().await;
    database.run(OFFERED).await;
    let (one, other) = (database.gateway(1), database.gateway(1));
    one.store(&[meter("M1", 10, 1.0)]).await;
    is_live(&database, "M1 30:10 1").await;
    other.store(&[meter("M1", 30, 3.0)]).await;
    is_live(&database, "M1 30:30 3").await;
    // Newer than anything this gateway knows, but older than what is stored.
    one.store(&[meter("M1", 20, 2.0), meter("M2", 0, 1.0)])
        .await;
    is_live(&database, "M1 30:30 3; M2 30:00 1").await;
    // Newer than both.
    one.store(&[meter("M1", 40, 4.0)]).await;
    is_live(&database, "M1 30:40 4; M2 30:00 1").await;
    // A repeat of what the other gateway stored proves nothing about live status.
    other.store(&[meter("M3", 50, 5.0)]).await;
    is_live(&database, "M1 30:40 4; M2 30:00 1; M3 30:50 5").await;
    let (before, readings) = (
        offered(&database).await,
        [meter("M3", 50, 5.0), meter("M2", 1, 2.0)],
    );
    one.store(&readings).await;
    is_live(&database, "M1 30:40 4; M2 30:01 2; M3 30:50 5").await;
    one.store(&[meter("M3", 49, 4.0), meter("M2", 2, 3.0)])
        .await;
    is_live(&database, "M1 30:40 4; M2 30:02 3; M3 30:50 5").await;
    assert_eq!(offered(&database).await, before + 3);
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_reading_than_a_refused_one_is_live() {
    let database = Database::new().await;
    let rule = "alter table meter_telemetry_history
        add constraint plausible check (kwh_consumed_ac < 100)";
    database.run(rule).await;
    let gateway = database.gateway(1);
    gateway.store(&[meter("M1", 10, 1.0)]).await;
    gateway.store(&[meter("M1", 30, 500.0)]).await;
    assert_eq!(database.sums().await, [1, 0, 1]);
    gateway.store(&[meter("M1", 20, 2.0)]).await;
    is_live(&database, "M1 30:20 2").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_tables_are_made_for_updates_in_place() {
    // Free space in each page and no second index. An update then stays within its page (HOT), and the table does
    // not grow while readings arrive.
    let database = Database::new().await;
    for table in ["meter_live_status", "vehicle_live_status"] {
        let options = format!(
            "select array_to_string(reloptions, ' ') from pg_class where oid = '{table}'::regclass"
        );
        let options = database.text(&options).await;
        assert!(options.contains("fillfactor=50"), "{options}");
        assert!(
            options.contains("autovacuum_vacuum_scale_factor=0.05"),
            "{options}"
        );
        let indexes = format!("select count(*) from pg_index where indrelid = '{table}'::regclass");
        assert_eq!(database.count(&indexes).await, 1);
    }
}
