//! Each statement in `sql/queries` touches about as much as is requested, whatever PostgreSQL knows about its
//! tables: on few rows and on many, without statistics, with statistics that lack the newest data, and with fresh
//! ones.
//!
//! Statistics always lack the newest data. If a statement has a second plan that reads a whole table for each key,
//! that plan brings a writer to a standstill.

mod cases;

use std::collections::BTreeSet;

use serde_json::Value;
use tokio_postgres::SimpleQueryMessage;

use self::cases::{CASES, Case, WITHOUT_PLAN};
use crate::support::*;

/// Pages that a row may cost: a three-level index and the table, twice.
const PAGES_A_ROW: i64 = 8;
/// Pages that any statement may read: catalogs, or a small table as a whole, which takes 1 ms.
const PAGES_LEAST: i64 = 400;
/// Rows that the steps of a plan may return per requested row.
const ROWS_A_ROW: i64 = 12;
/// Rows that any statement may read: some 10 ms, while a table is still small.
const ROWS_LEAST: i64 = 100_000;

/// What a statement has touched.
#[derive(Debug, Default)]
struct Work {
    pages: i64,
    rows: i64,
    answered: i64,
}

impl Work {
    fn of(explained: &Value) -> Self {
        let root = &explained[0]["Plan"];
        let mut work = Work {
            pages: number(root, "Shared Hit Blocks") + number(root, "Shared Read Blocks"),
            answered: number(root, "Actual Rows"),
            rows: 0,
        };
        work.add(root);
        work
    }

    /// Adds the rows of a step and of all steps below it, including those that a filter removed.
    fn add(&mut self, step: &Value) {
        let loops = number(step, "Actual Loops");
        for rows in [
            "Actual Rows",
            "Rows Removed by Filter",
            "Rows Removed by Join Filter",
            "Rows Removed by Index Recheck",
        ] {
            self.rows += number(step, rows) * loops;
        }
        let below = step["Plans"].as_array();
        below.into_iter().flatten().for_each(|step| self.add(step));
    }
}

/// From PostgreSQL 18 on, the number of rows per loop is fractional.
fn number(step: &Value, field: &str) -> i64 {
    step[field].as_f64().map_or(0, |n| n.ceil() as i64)
}

/// Runs a statement in a transaction that is rolled back. Returns PostgreSQL's error if it takes too long.
async fn work_of(database: &Database, case: &Case) -> Result<(Work, Value), String> {
    let path = format!("sql/queries/{}.sql", case.name);
    let text = std::fs::read_to_string(path).unwrap();
    database.run("begin").await;
    database.run(&format!("prepare examined as {text}")).await;
    let arguments = match case.arguments {
        "" => String::new(),
        some => format!("({some})"),
    };
    let sql = format!("explain (analyze, buffers, format json) execute examined{arguments}");
    let lines = database.sql.simple_query(&sql).await;
    database.run("rollback; deallocate examined").await;
    let mut json = String::new();
    for line in &lines.map_err(|e| format!("{e:?}"))? {
        if let SimpleQueryMessage::Row(row) = line {
            json += row.get(0).unwrap();
        }
    }
    let explained: Value = serde_json::from_str(&json).unwrap();
    Ok((Work::of(&explained), explained))
}

/// Checks all statements and returns those that touch too much.
async fn excessive(database: &Database, when: &str) -> Vec<String> {
    let mut found = Vec::new();
    for case in CASES {
        let mut units = database.count(case.requested).await;
        for table in case.whole {
            let rows = format!("select count(*) from {table}");
            units += database.count(&rows).await;
        }
        let name = case.name;
        let (work, plan) = match work_of(database, case).await {
            Ok(done) => done,
            Err(why) => {
                found.push(format!("{name}, {when}: {why}"));
                continue;
            }
        };
        let units = units + work.answered;
        if work.pages > PAGES_LEAST + PAGES_A_ROW * units
            || work.rows > ROWS_LEAST + ROWS_A_ROW * units
        {
            found.push(format!(
                "{name}, {when}, for {units} rows: {work:?}\n{plan:#}"
            ));
        }
    }
    found
}

/// A fleet of this many devices. Its statistics cover everything but the newest data.
async fn fleet(devices: u32) -> Database {
    let database = Database::new().await;
    let world = include_str!("plans/world.sql").replace("@devices@", &devices.to_string());
    database.run(&world).await;
    // Only the test collects statistics, and its foreign keys are known to be valid.
    database
        .run(
            "do $$ declare t regclass; begin
                for t in select oid from pg_class
                    where relkind = 'r' and relnamespace = 'public'::regnamespace
                loop execute format('alter table %s set (autovacuum_enabled = off)', t); end loop;
            end $$;
            set session_replication_role = replica;
            set plan_cache_mode = force_custom_plan;
            set statement_timeout = '60s'",
        )
        .await;
    let (fleet, half) = (devices * 20, devices * 10);
    database
        .run(&format!(
            "call add_devices(1, {half}); call add_readings(0, 399); call add_hours(0, 79);
            call add_marks(0, 19); delete from meter_hour_marks; delete from vehicle_hour_marks;
            call add_sessions(1, 10); call add_rest(1, 20);
            analyze;
            call add_devices({half} + 1, {fleet}); call add_readings(400, 429);
            call add_hours(80, 99); call add_marks(0, 19); call add_sessions(11, 12);
            call add_rest(21, 40);
            update meter_live_status set ts = ended() where meter_id <= {devices};
            update vehicle_live_status set ts = ended() where vehicle_id <= {devices}"
        ))
        .await;
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_depends_on_fresh_statistics() {
    let files = std::fs::read_dir("sql/queries").unwrap();
    let files: BTreeSet<String> = files
        .map(|file| {
            file.unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let known = CASES.iter().map(|case| case.name).chain(WITHOUT_PLAN);
    let known: BTreeSet<String> = known.map(str::to_owned).collect();
    assert_eq!(
        files, known,
        "each file of sql/queries has a case in plans/cases.rs"
    );
    let mut found = Vec::new();
    for devices in [10, 400] {
        let database = fleet(devices).await;
        found.extend(excessive(&database, &format!("{devices} devices, stale")).await);
        database.run("analyze").await;
        found.extend(excessive(&database, &format!("{devices} devices, fresh")).await);
        database
            .run(
                "set allow_system_table_mods = on;
                delete from pg_statistic using pg_class as c
                where starelid = c.oid and c.relnamespace = 'public'::regnamespace;
                update pg_class set reltuples = -1, relpages = 0
                where relnamespace = 'public'::regnamespace;
                set allow_system_table_mods = off",
            )
            .await;
        found.extend(excessive(&database, &format!("{devices} devices, absent")).await);
        // So that the next run's server need not replay a million rows.
        database.run("checkpoint").await;
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_alerts_looks_up_no_mutes_but_its_own() {
    let database = Database::new().await;
    database
        .run(
            "insert into vehicles (external_id) select 'V' || n from generate_series(1, 10000) as n;
            insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
            select 'silent', 'vehicle', id, now(), now(), 1, 1, '{}' from vehicles;
            insert into alert_mutes (stream, device_id, muted_until, muted_at)
            select 'vehicle', id, now() + interval '1 day', now() from vehicles;
            set plan_cache_mode = force_custom_plan",
        )
        .await;
    let ordered = [("alerts", ""), ("alerts_by_severity", ", true")];
    for statistics in ["", "analyze"] {
        database.run(statistics).await;
        for (name, before) in ordered {
            let arguments = format!(
                "9000000, null, true, 100, null, null, null, array['silent'], null, null, null, now(){before}"
            );
            let case = Case {
                name,
                arguments: arguments.leak(),
                requested: "100",
                whole: &[],
            };
            let (work, plan) = work_of(&database, &case).await.unwrap();
            assert_eq!(work.answered, 100);
            // The open alerts are read once, in some 200 pages, and sorted.
            assert!(work.pages < 3_000, "{name}: {work:?}\n{plan:#}");
        }
    }
}
