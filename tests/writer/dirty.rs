//! Late readings make their hours dirty, and the rollup handles dirty hours in passes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use wattgate::reading::Timestamp;
use wattgate::rollups::Roller;

use crate::support::*;

/// A slice reads so few readings at once that it takes several transactions. Each of them is a step.
const READINGS: usize = 25;
/// The time at which the rollup works. The watermark is past all hours.
const NOW: i64 = NOON + 20 * 3600;

/// Counts rollup rows that should be valid but are wrong, by comparing them with history in the same snapshot. All
/// readings are intervals, so a rollup consists of a count, two ends and a sum.
pub(crate) const WRONG: &str = "select count(*) from meter_hours as r, hours_progress as p, lateral (
        select count(*) as readings, min(h.ts) as first_at, max(h.ts) as last_at,
            sum(round(h.kwh_consumed_ac * 1e6)) - (array_agg(round(h.kwh_consumed_ac * 1e6) order by h.ts))[1]
                as energy
        from meter_telemetry_history as h
        where h.meter_id = r.meter_id and h.ts > r.hour and h.ts <= r.hour + interval '1 hour'
    ) as h
    where r.hour >= p.built_from and r.hour < least(p.built_to, p.sealed_to)
        and not exists (select from meter_hour_marks as m where m.meter_id = r.meter_id and m.hour = r.hour)
        and (h.readings, h.first_at, h.last_at, h.energy) is distinct from
            (r.readings::bigint, r.first_at, r.last_at, r.energy_mwh::double precision)";

/// A rollup and its session.
pub(crate) struct Rolling {
    roller: Roller,
    client: Client,
    /// The time, in seconds.
    pub(crate) now: i64,
}

impl Rolling {
    async fn new(database: &Database) -> Self {
        Rolling::at(database, NOW).await
    }

    pub(crate) async fn at(database: &Database, now: i64) -> Self {
        Rolling {
            roller: Roller::new(Arc::new(|| Duration::ZERO), None)
                .without_pauses()
                .with_readings_per_transaction(READINGS)
                .with_steps_of(Duration::ZERO),
            client: database.session().await,
            now,
        }
    }

    async fn try_step(&mut self) -> Result<bool, tokio_postgres::Error> {
        let now = Timestamp::from_micros(self.now * 1_000_000);
        self.roller.step(&mut self.client, now).await
    }

    pub(crate) async fn step(&mut self) -> bool {
        self.try_step().await.unwrap()
    }

    /// Does a step whose statements may take a millisecond.
    pub(crate) async fn cancelled(&mut self) {
        let set = |to: &str| format!("set statement_timeout = '{to}'");
        self.client.batch_execute(&set("1ms")).await.unwrap();
        if let Err(error) = self.try_step().await {
            assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
        }
        // This statement, too, may be cancelled.
        while self.client.batch_execute(&set("0")).await.is_err() {
            assert!(!self.client.is_closed());
        }
    }

    /// Kills it in the middle of a step, after the step has waited this many times.
    pub(crate) async fn kill(mut self, database: &Database, waits: u32) {
        {
            let step = self.step();
            tokio::pin!(step);
            let mut polled = 0;
            std::future::poll_fn(|context| {
                polled += 1;
                let is_done = step.as_mut().poll(context).is_ready();
                match is_done || polled > waits {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await;
        }
        let token = self.client.cancel_token();
        drop(self);
        // Its statements finish or are rolled back before another rollup leads, because the lock belongs to the
        // session.
        token.cancel_query(tokio_postgres::NoTls).await.ok();
        until("the end of the roller's session", || async {
            database
                .count(
                    "select count(*) from pg_stat_activity where datname = current_database()
                     and backend_type = 'client backend' and application_name = '' and pid <> pg_backend_pid()",
                )
                .await
                == 0
        })
        .await;
    }
}

/// A database whose watermark is past all hours.
async fn with_watermark() -> Database {
    let database = Database::new().await;
    database
        .run(&format!(
            "update hours_progress set sealed_to = to_timestamp({NOW})"
        ))
        .await;
    database
}

/// The number of marks, and how many of them cover only one batch.
async fn marks(database: &Database) -> [i64; 2] {
    let all = "select count(*) from meter_hour_marks";
    [
        database.count(all).await,
        database.count(&format!("{all} where pass = 0")).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_late_readings_leaves_one_mark_in_a_pass() {
    let database = with_watermark().await;
    let gateway = database.gateway(1);
    for second in [60, 61, 120] {
        gateway.store(&[meter("M1", second, 1.0)]).await;
    }
    assert_eq!(marks(&database).await, [1, 0]);
    // A reading before the mark's earliest needs another mark, because the rollup relies on knowing the earliest.
    gateway.store(&[meter("M1", 59, 1.0)]).await;
    assert_eq!(marks(&database).await, [2, 0]);
    for second in [59, 60, 180] {
        gateway.store(&[meter("M1", second, 1.0)]).await;
    }
    assert_eq!(marks(&database).await, [2, 0]);
    // Another device and another hour each get their own mark.
    gateway
        .store(&[meter("M2", 60, 1.0), meter("M1", 3_600, 1.0)])
        .await;
    assert_eq!(marks(&database).await, [4, 0]);
    // In a later pass, earlier marks no longer count.
    database.run("update hours_pass set pass = pass + 1").await;
    gateway.store(&[meter("M1", 200, 1.0)]).await;
    assert_eq!(marks(&database).await, [5, 0]);
    // A new session does not remember the marks of a lost one.
    database.end_sessions().await;
    gateway.store(&[meter("M1", 201, 1.0)]).await;
    assert_eq!(marks(&database).await, [6, 0]);
    gateway.stop().await;
}

/// The rollup of an older gateway removes each mark that it sees, so no mark may stand for a later batch.
#[tokio::test(flavor = "multi_thread")]
async fn beside_the_rollup_of_an_older_gateway_each_batch_leaves_its_mark() {
    let database = with_watermark().await;
    let older = database.session().await;
    let key = wattgate::postgres::leader::ROLLUP_WITHOUT_PASSES;
    let lock = format!("select pg_advisory_lock({key})");
    older.batch_execute(&lock).await.unwrap();
    let gateway = database.gateway(1);
    for (second, n) in [(60, 1), (61, 2)] {
        gateway.store(&[meter("M1", second, 1.0)]).await;
        assert_eq!(marks(&database).await, [n, n]);
    }
    let unlock = format!("select pg_advisory_unlock({key})");
    older.batch_execute(&unlock).await.unwrap();
    for second in [62, 63] {
        gateway.store(&[meter("M1", second, 1.0)]).await;
        assert_eq!(marks(&database).await, [3, 2]);
    }
    // While this gateway runs, an older one rolls up nothing.
    let taken = format!("select pg_try_advisory_lock({key})::int");
    assert_eq!(
        older.query_one(&taken, &[]).await.unwrap().get::<_, i32>(0),
        0
    );
    gateway.stop().await;
}

/// The first full hour.
const HOUR: i64 = 1_800;
/// Creates meters with a reading in each second of an hour, and a mark on that hour.
const DENSE: &str = "with m as (
        insert into meters (external_id) select 'dense-' || n from generate_series(1, 30) as n returning id
    ), h as (
        insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
        select id, to_timestamp(HOUR + s), 0.25, 230 from m, generate_series(1, 3600) as s
    )
    insert into meter_hour_marks (hour, meter_id) select to_timestamp(HOUR), id from m";

/// Counts the dirty hours.
const DIRTY: &str = "select count(distinct (hour, meter_id)) from meter_hour_marks";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_dirty_hours_reads_few_readings() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    // This reading creates the partition for the hours.
    gateway.store(&[meter("M1", 1, 1.0)]).await;
    gateway.stop().await;
    let mut rolling = Rolling::new(&database).await;
    while rolling.step().await {}
    let dense = DENSE.replace("HOUR", &(NOON + HOUR).to_string());
    database.run(&dense).await;
    let mut left = 30;
    while left > 0 {
        assert!(rolling.step().await);
        let now = database.count(DIRTY).await;
        // Twelve hours hold more than 40,000 readings.
        assert!(left - now <= 12, "{} hours at once", left - now);
        left = now;
    }
    assert_eq!(database.count(WRONG).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_readings_in_order_are_added_without_reading_the_hour_again() {
    const EARLY: u64 = 1_000;
    let database = Database::new().await;
    let gateway = database.gateway(1);
    let readings = |seconds: Range<i64>| -> Vec<_> {
        let all = seconds.map(|second| meter("M1", HOUR + second, 0.25));
        all.collect()
    };
    // The second half of the hour is empty.
    gateway.store(&readings(1..EARLY as i64 + 1)).await;
    let mut rolling = Rolling::new(&database).await;
    while rolling.step().await {}
    let before = rolling.roller.readings();
    assert_eq!(before, EARLY);
    gateway.store(&readings(3_000..3_010)).await;
    while rolling.step().await {}
    assert_eq!(rolling.roller.readings() - before, 10);
    // A reading before the last one: the whole hour is read again.
    gateway.store(&readings(2_000..2_001)).await;
    while rolling.step().await {}
    assert_eq!(rolling.roller.readings() - before, 10 + EARLY + 11);
    assert_eq!(database.count(DIRTY).await, 0);
    assert_eq!(database.count(WRONG).await, 0);
    gateway.stop().await;
}

/// The log of the rollup's own gateway is idle. Another gateway stores the late readings.
#[tokio::test(flavor = "multi_thread")]
async fn passes_over_a_burst_at_another_gateway_keep_a_pause() {
    const BATCHES: i64 = 40;
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway.store(&[meter("M1", 1, 1.0)]).await;
    let mut rolling = Rolling {
        roller: Roller::new(Arc::new(|| Duration::ZERO), None),
        client: database.session().await,
        now: NOW,
    };
    while rolling.step().await {}
    let pass = || database.count("select pass from hours_pass");
    let (first, began) = (pass().await, std::time::Instant::now());
    for second in 2..BATCHES + 2 {
        gateway.store(&[meter("M1", second, 1.0)]).await;
        while rolling.step().await {}
    }
    let passes = pass().await - first;
    let pauses = i64::try_from(began.elapsed().as_secs()).unwrap() / 2;
    assert!(passes <= 1 + pauses, "{passes} passes in {pauses} pauses");
    let comes = async {
        while database.count(DIRTY).await > 0 {
            if !rolling.step().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    tokio::time::timeout(2 * LIMIT, comes).await.unwrap();
    gateway.stop().await;
}

/// Another session's statement takes long. New and dirty hours must wait no longer than necessary.
#[tokio::test(flavor = "multi_thread")]
async fn older_hours_are_rolled_up_while_a_pass_waits() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    let mut rolling = Rolling::new(&database).await;
    while rolling.step().await {}
    let long = database.session().await;
    long.batch_execute("begin; select pg_current_xact_id()")
        .await
        .unwrap();
    gateway.store(&[meter("M1", 1, 1.0)]).await;
    let built = "select extract(epoch from built_from)::bigint from hours_progress";
    let before = database.count(built).await;
    while database.count(built).await >= before {
        assert!(rolling.step().await);
    }
    assert_eq!(database.count(DIRTY).await, 1, "the pass does not wait");
    long.batch_execute("commit").await.unwrap();
    while rolling.step().await {}
    assert_eq!(database.count(DIRTY).await, 0);
    gateway.stop().await;
}
