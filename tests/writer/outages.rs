//! A database that is unavailable, the wrong one, or unresponsive.

use std::time::{Duration, Instant};

use wattgate::postgres::migrations::{HistoryOptions, MigrationError, migrate};
use wattgate::reading::{Stream, StreamCounts};
use wattgate::writer::WriterOptions;

use crate::proxy::{Fault, Proxy};
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_refused_while_readings_are_accepted() {
    let (right, wrong) = (Database::new().await, Database::new().await);
    let dir = dir();
    let gateway = Gateway::start(dir.path(), 1, &right);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    gateway.stop().await;
    recorder();
    let gateway = Gateway::start(dir.path(), 1, &wrong);
    gateway
        .reports(&right.settings.database_id.to_string())
        .await;
    assert!(retries("wrong_database") > 0.0);
    gateway.send(&[meter("M1", 1, 1.0)]).await;
    let waiting = gateway.progress().snapshot().waiting;
    assert_eq!(waiting, [StreamCounts::of(Stream::Meter, 1)]);
    assert_eq!(wrong.rows().await, 0);
    assert_eq!(wrong.count("select count(*) from wal_checkpoints").await, 0);
    gateway.kill().await;
    let gateway = Gateway::start(dir.path(), 1, &right);
    gateway.drained().await;
    assert_eq!(right.sums().await, [2, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_refused() {
    let right = Database::new().await;
    let gateway = right.gateway(1);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    // Drops everything while the gateway runs, like a restore that starts from nothing.
    right
        .run("drop schema public cascade; create schema public")
        .await;
    gateway.send(&[meter("M1", 1, 1.0)]).await;
    right.end_sessions().await;
    gateway.reports("not migrated").await;
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_never_answers_is_given_up() {
    let database = Database::new().await;
    let proxy = Proxy::start(&database.socket());
    recorder();
    let mut gateway = Gateway::fresh(1);
    let quick = WriterOptions {
        answer_within: Duration::from_millis(500),
        ..OPTIONS
    };
    gateway.write_through(&proxy, &database, quick);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    // First in an open session, then while one is being opened. Each is given up in time.
    let before = retries("timeout");
    let begun = Instant::now();
    proxy.set(Fault::Swallow);
    gateway.send(&[meter("M1", 1, 1.0)]).await;
    until("two sessions were given up", || async {
        retries("timeout") >= before + 2.0
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(gateway.down().unwrap().contains("did not answer"));
    proxy.set(Fault::None);
    gateway.drained().await;
    assert_eq!(database.sums().await, [2, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_cancelled() {
    let database = Database::new().await;
    let slow = "create table slow (seconds int);
        insert into slow values (60);
        create function slow() returns trigger language plpgsql as $$
        begin
            perform pg_sleep(seconds) from slow;
            return new;
        end $$;
        create trigger slow before insert on meter_telemetry_history
        for each row execute function slow()";
    database.run(slow).await;
    let mut gateway = Gateway::fresh(1);
    gateway.send(&[meter("M1", 0, 1.0)]).await;
    let quick = WriterOptions {
        answer_within: Duration::from_millis(200),
        ..OPTIONS
    };
    gateway.write(&database, quick);
    until("the statement runs", || async {
        database.waiting("PgSleep").await > 0
    })
    .await;
    database.run("update slow set seconds = 0").await;
    gateway.reports("did not answer within").await;
    until("the statement was given up", || async {
        database.waiting("PgSleep").await == 0
    })
    .await;
    gateway.drained().await;
    assert_eq!(database.sums().await, [1, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_hold_every_id_is_refused() {
    let database = Database::new().await;
    database.run("drop database if exists latin").await;
    let latin = "create database latin template template0 encoding 'LATIN1' locale 'C'";
    database.run(latin).await;
    let session = database.session_to("latin").await;
    let refused = migrate(&session, HistoryOptions::default()).await;
    assert!(
        matches!(&refused, Err(MigrationError::Encoding(found)) if found == "LATIN1"),
        "{refused:?}"
    );
    let made = session
        .query_one("select to_regclass('schema_migrations') is null", &[])
        .await
        .unwrap();
    assert!(made.get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_panics_goes_on() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    // A checkpoint that is not an integer cannot be decoded, and no code expects one.
    database
        .run("alter table wal_checkpoints alter column meter_gap type numeric")
        .await;
    database.end_sessions().await;
    gateway.reports("panicked").await;
    gateway.send(&[meter("M1", 1, 1.0)]).await;
    database
        .run("alter table wal_checkpoints alter column meter_gap type bigint")
        .await;
    gateway.drained().await;
    assert_eq!(database.sums().await, [2, 0, 0]);
    gateway.stop().await;
}
