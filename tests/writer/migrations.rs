//! A newer gateway next to older ones. Its migration waits, and nothing queues behind it.

use tokio_postgres::error::SqlState;
use wattgate::postgres::migrations::{HistoryOptions, migrate};

use crate::support::*;

/// The schema of gateways that do not know passes over dirty hours.
const OLDER: &str = "drop table hours_slices, hours_pass, alert_mutes, alert_withheld;
    alter table meter_hour_marks drop column pass, drop column earliest;
    alter table vehicle_hour_marks drop column pass, drop column earliest;
    alter table alerts drop column acknowledged_at, drop column acknowledged_key,
        drop column acknowledged_name, drop column acknowledged_note;
    delete from schema_migrations where version >= 6;";
const WAITING: &str = "select count(*) from pg_locks as l, pg_database as d
    where d.datname = current_database() and l.database = d.oid and not l.granted
        and l.relation = 'meter_hour_marks'::regclass";

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_a_table_holds_nobody_up() {
    let database = Database::new().await;
    database.run(OLDER).await;
    // A backup locks each table for as long as it reads.
    let backup = database.session().await;
    let read = "begin; lock table meter_hour_marks in access share mode";
    backup.batch_execute(read).await.unwrap();
    let newer = database.session().await;
    let migrating =
        tokio::spawn(async move { migrate(&newer, HistoryOptions::default()).await.map(drop) });

    until("the migration's wait", || async {
        database.count(WAITING).await > 0
    })
    .await;
    let older = database.session().await;
    older
        .batch_execute("set lock_timeout = '10s'")
        .await
        .unwrap();
    let mark = "insert into meter_hour_marks (hour, meter_id) values (now(), 1)";
    match older.batch_execute(mark).await {
        Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            panic!("an older gateway waits behind the migration")
        }
        result => result.unwrap(),
    }
    assert!(!migrating.is_finished(), "the table is held");

    backup.batch_execute("commit").await.unwrap();
    migrating.await.unwrap().unwrap();
    let kept = "select count(*) from meter_hour_marks where pass = 0 and earliest is null";
    assert_eq!(database.count(kept).await, 1);
}
