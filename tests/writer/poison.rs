//! Refused readings cost no other readings. If the data is not at fault, the writers wait.

use std::time::{Duration, Instant};

use wattgate::reading::Reading;

use crate::support::*;

const ASIDE: &str = "select count(*) from quarantined_readings";

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reading_is_set_aside_alone() {
    let database = Database::new().await;
    let rule = "alter table meter_telemetry_history
        add constraint plausible check (kwh_consumed_ac < 100)";
    database.run(rule).await;
    let gateway = database.gateway(1);
    let ids: Vec<String> = (0..300).map(|n| format!("M{n:03}")).collect();
    let readings: Vec<Reading<'_>> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| meter(id, 0, if n % 100 == 7 { 500.0 } else { 1.0 }))
        .chain([vehicle("V1", 0, 50.0)])
        .collect();
    gateway.store(&readings).await;
    assert_eq!(database.sums().await, [298, 0, 3]);
    assert_eq!(database.rows().await, 298);
    let aside =
        "select string_agg(concat_ws(' ', device_id, sqlstate, reading ->> 'kwhConsumedAc'),
        '; ' order by device_id) from quarantined_readings where reason like '%plausible%'";
    assert_eq!(
        database.text(aside).await,
        "M007 23514 500.0; M107 23514 500.0; M207 23514 500.0"
    );
    // The next readings are stored with COPY, or with a strategy that leads back to it.
    gateway.store(&[meter("M007", 60, 1.0)]).await;
    assert_eq!(database.sums().await, [299, 0, 3]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_out_of_the_columns_range_is_set_aside() {
    let database = Database::new().await;
    let trigger = "create function refuse() returns trigger language plpgsql as $$
        begin
            if new.soc = 13 then raise exception 'unlucky' using errcode = '22003'; end if;
            return new;
        end $$;
        create trigger refuse before insert on vehicle_telemetry_history
        for each row execute function refuse()";
    database.run(trigger).await;
    let gateway = database.gateway(1);
    gateway
        .store(&[
            vehicle("V1", 0, 12.0),
            vehicle("V1", 1, 13.0),
            vehicle("V1", 2, 14.0),
        ])
        .await;
    assert_eq!(database.sums().await, [2, 0, 1]);
    let aside = "select sqlstate || ' ' || reason from quarantined_readings";
    assert_eq!(database.text(aside).await, "22003 unlucky");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_nothing_but_poison_costs_one_statement_a_reading() {
    let database = Database::new().await;
    let dir = dir();
    // A sequence also counts rows that are rolled back.
    let rule = "alter table meter_telemetry_history
            add constraint plausible check (kwh_consumed_ac < 100);
        create sequence statements;
        create function count_statement() returns trigger language plpgsql as $$
        begin
            perform nextval('statements');
            return null;
        end $$;
        create trigger count_statement before insert on meter_telemetry_history
        for each statement execute function count_statement()";
    database.run(rule).await;
    let ids: Vec<String> = (0..100).map(|n| format!("M{n:03}")).collect();
    let gateway = Gateway::open(dir.path(), 1);
    let readings: Vec<Reading<'_>> = (0..10_000)
        .map(|n| {
            let kwh = if n % 1000 == 999 { 1.0 } else { 500.0 };
            meter(&ids[n % 100], n as i64, kwh)
        })
        .collect();
    gateway.send(&readings).await;
    gateway.kill().await;
    let begun = Instant::now();
    let gateway = Gateway::start(dir.path(), 1, &database);
    gateway.drained().await;
    let took = begun.elapsed();
    assert_eq!(database.sums().await, [10, 0, 9990]);
    assert_eq!(database.rows().await, 10);
    assert_eq!(database.count(ASIDE).await, 9990);
    let statements = database.count("select last_value from statements").await;
    assert!(statements < 10_200, "{statements}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    gateway.stop().await;
}

/// Breaks the environment and sends readings. Checks that they wait, that the gateway reports the fault, and that
/// they are stored once it is fixed.
async fn waits(database: &Database, break_it: &str, words: &str, label: &str, mend_it: &str) {
    recorder();
    let gateway = database.gateway(1);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    let before = retries(label);
    // The test's own session may lose the right to fix it.
    let root = database.session().await;
    database.run(break_it).await;
    gateway
        .send(&[meter("M1", 60, 1.0), vehicle("V1", 60, 50.0)])
        .await;
    gateway.reports(words).await;
    assert!(retries(label) > before, "{label}");
    root.batch_execute(mend_it).await.unwrap();
    gateway.drained().await;
    gateway.up().await;
    assert_eq!(database.sums().await, [3, 0, 0]);
    assert_eq!(database.rows().await, 3);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_is_waited_for() {
    let database = Database::new().await;
    let there = "alter table vehicle_telemetry_history rename to away";
    let back = "alter table away rename to vehicle_telemetry_history";
    waits(&database, there, "SQLSTATE 42P01", "42P01", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_right_is_waited_for() {
    let database = Database::new().await;
    let user = database.text("current_user").await;
    let name = database.text("current_database()").await;
    // The writers use a role with all rights, until some are revoked.
    let role = format!(
        "drop role if exists limited_{name};
         create role limited_{name};
         grant limited_{name} to {user};
         grant all on all tables in schema public to limited_{name};
         grant all on schema public to limited_{name};
         alter table meter_telemetry_history owner to limited_{name};
         alter table vehicle_telemetry_history owner to limited_{name};
         alter role {user} in database {name} set role to limited_{name}"
    );
    database.run(&role).await;
    // Under a lock, because attaching a partition or a vacuum updates the same catalog row.
    let locked = |change: &str| {
        format!(
            "begin; lock table vehicle_telemetry_history;
             {change} limited_{name}; commit"
        )
    };
    let revoke = locked("revoke insert on vehicle_telemetry_history from");
    let grant = locked("grant insert on vehicle_telemetry_history to");
    let grant = format!("reset role; {grant}");
    waits(&database, &revoke, "SQLSTATE 42501", "42501", &grant).await;
    let cleanup = format!(
        "alter role {user} in database {name} reset role;
         reassign owned by limited_{name} to {user};
         drop owned by limited_{name}; drop role limited_{name}"
    );
    database.run(&cleanup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    let database = Database::new().await;
    let full = "create function full_disk() returns trigger language plpgsql as $$
        begin raise exception 'No space left on device' using errcode = '53100'; end $$;
        create trigger full_disk before insert on vehicle_telemetry_history
        for each row execute function full_disk()";
    let room = "drop trigger full_disk on vehicle_telemetry_history";
    waits(&database, full, "SQLSTATE 53100", "53100", room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_made_read_only_is_waited_for() {
    let database = Database::new().await;
    let name = database.text("current_database()").await;
    let only = format!(
        "alter database {name} set default_transaction_read_only = on;
         select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name like 'wattgate writer%'"
    );
    let write = format!(
        "set default_transaction_read_only = off;
         alter database {name} set default_transaction_read_only = off"
    );
    waits(
        &database,
        &only,
        "does not allow writes",
        "connection",
        &write,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_another_type_is_waited_for() {
    let database = Database::new().await;
    // Every row is refused with an SQLSTATE of class 22, but none is at fault.
    let alter = "alter table vehicle_telemetry_history alter column soc type integer";
    let back = "alter table vehicle_telemetry_history alter column soc type double precision";
    database
        .run("drop view vehicle_readings; drop view vehicle_status")
        .await;
    let gateway = database.gateway(1);
    gateway.store(&[vehicle("V1", 0, 50.0)]).await;
    database.run(alter).await;
    gateway.send(&[vehicle("V1", 60, 50.0)]).await;
    gateway.reports("SQLSTATE 22P03").await;
    assert_eq!(database.count(ASIDE).await, 0);
    database.run(back).await;
    gateway.drained().await;
    assert_eq!(database.sums().await, [2, 0, 0]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_partition_quarantines_nothing() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    // The session knows the partition, which is then dropped. The SQLSTATE is that of a broken CHECK.
    database
        .run("drop table meter_telemetry_history_2024_02")
        .await;
    gateway
        .store(&[meter("M1", 60, 1.0), meter("M2", 60, 1.0)])
        .await;
    assert_eq!(database.sums().await, [3, 0, 0]);
    assert_eq!(database.rows().await, 2);
    assert_eq!(database.count(ASIDE).await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_partition_costs_no_reading_beside_poison() {
    let database = Database::new().await;
    let rule = "alter table meter_telemetry_history
        add constraint plausible check (kwh_consumed_ac < 100)";
    database.run(rule).await;
    let gateway = database.gateway(1);
    let next_month = 30 * DAY;
    gateway
        .store(&[meter("M1", 0, 1.0), meter("M1", next_month, 1.0)])
        .await;
    // The batch is halved to find the refused reading, which comes first. The other rows have no partition, and
    // are refused with the same SQLSTATE.
    database
        .run("drop table meter_telemetry_history_2024_03")
        .await;
    gateway
        .store(&[meter("M1", 60, 500.0), meter("M1", next_month + 60, 1.0)])
        .await;
    assert_eq!(database.sums().await, [3, 0, 1]);
    assert_eq!(database.rows().await, 2);
    assert_eq!(database.count(ASIDE).await, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_made_is_waited_for() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway.store(&[meter("M1", 0, 1.0)]).await;
    // Dropped, and dropped again whenever it is created.
    let no_partitions = "create function no_partitions() returns event_trigger language plpgsql
        as $$ begin raise exception 'not now' using errcode = '55000'; end $$;
        create event trigger no_partitions on ddl_command_start
        when tag in ('CREATE TABLE') execute function no_partitions()";
    database
        .run("drop table meter_telemetry_history_2024_02")
        .await;
    database.run(no_partitions).await;
    gateway.send(&[meter("M1", 60, 1.0)]).await;
    gateway.reports("not now").await;
    assert_eq!(database.count(ASIDE).await, 0);
    database.run("drop event trigger no_partitions").await;
    gateway.drained().await;
    assert_eq!(database.sums().await, [2, 0, 0]);
    gateway.stop().await;
}
