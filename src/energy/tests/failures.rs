//! Parts that always fail stop no others, and hold them up for a short time only.

use tokio_postgres::error::SqlState;

use super::database::Store;
use super::slices::{METERS, roller, write, wrong};
use super::summaries::{count, meter_with, minute, write_marked};
use crate::reading::Timestamp;
use crate::rollups::Roller;

/// Rolls up everything. A failure ends a session, and the next roller knows of it. Each must be the test's own. Returns how
/// many there were.
async fn with_failures(store: &Store, now: Timestamp) -> usize {
    failures_beside(store, &mut roller(None), now, None).await
}

/// The same after another roller, while late readings of a meter keep arriving.
async fn failures_beside(
    store: &Store,
    roller: &mut Roller,
    now: Timestamp,
    late: Option<i32>,
) -> usize {
    let mut client = store.pool.get().await.unwrap();
    let mut failures = 0;
    loop {
        match roller.step(&mut client, now).await {
            Ok(true) => {}
            Ok(false) => return failures,
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::DATA_CORRUPTED), "{error:?}");
                failures += 1;
                assert!(failures < 60, "a part fails again and again");
                *roller = self::roller(None).following(roller);
                if let Some(meter) = late {
                    write_marked(store, meter, 60 + failures as i64).await;
                }
            }
        }
    }
}

/// The id of one of the meters.
async fn bad_meter(store: &Store) -> i64 {
    count(
        store,
        "select id::bigint from meters where external_id = 'N7'",
    )
    .await
}

/// Lets each statement fail that stores a rollup of that meter.
async fn refuse_bad_meter(store: &Store) {
    let bad = bad_meter(store).await;
    let refuse = format!(
        "create function refuse() returns trigger language plpgsql as $$ begin
            if new.meter_id = {bad} then raise 'no' using errcode = 'XX001'; end if;
            return new;
        end $$;
        create trigger refuse before insert on meter_hours for each row execute function refuse()"
    );
    let client = store.pool.get().await.unwrap();
    client.batch_execute(&refuse).await.unwrap();
}

#[test]
fn a_device_that_cannot_be_rolled_up_stops_no_other() {
    const DAY: i64 = 24 * 60;
    let store = Store::start();
    store.runtime.block_on(async {
        write(&store, 1 - 100 * DAY..1 - 100 * DAY + 300).await;
        refuse_bad_meter(&store).await;
        assert!(with_failures(&store, minute(90)).await > 5);
        // Its five hours.
        assert_eq!(wrong(&store, -100 * DAY, -99 * DAY).await, 5);
        let all = "select count(*) from meter_hours";
        assert_eq!(count(&store, all).await, (METERS - 1) * 5);
    });
}

/// Each meter has a late reading.
#[test]
fn a_dirty_hour_that_cannot_be_rolled_up_stops_no_other() {
    let store = Store::start();
    store.runtime.block_on(async {
        let lowest = meter_with(&store, 1..5).await;
        write(&store, 61..100).await;
        write(&store, 101..121).await;
        assert_eq!(with_failures(&store, minute(135)).await, 0);
        refuse_bad_meter(&store).await;
        let client = store.pool.get().await.unwrap();
        let meters = "select id from meters where external_id like 'N%' order by id";
        for meter in client.query(meters, &[]).await.unwrap() {
            write_marked(&store, meter.get(0), 100).await;
        }
        drop(client);
        let mut roller = roller(None);
        assert!(failures_beside(&store, &mut roller, minute(135), Some(lowest)).await > 3);
        assert_eq!(wrong(&store, 60, 120).await, 1);
        let marks = "select count(*) from meter_hour_marks";
        assert_eq!(count(&store, marks).await, 0);
    });
}

/// Lets each statement fail that reads a reading of a meter.
fn guard(meter: i64) -> String {
    format!(
        "alter table meter_telemetry_history rename to kept;
        create function can_be_read(meter integer) returns boolean language plpgsql as $$ begin
            if meter = {meter} then raise 'no' using errcode = 'XX001'; end if;
            return true;
        end $$;
        create view meter_telemetry_history as select * from kept where can_be_read(meter_id)"
    )
}

const UNGUARD: &str =
    "drop view meter_telemetry_history; alter table kept rename to meter_telemetry_history";

/// Not even the time of its first reading.
#[test]
fn a_device_that_cannot_be_read_stops_no_other() {
    let store = Store::start();
    store.runtime.block_on(async {
        meter_with(&store, 1..5).await;
        let mut client = store.pool.get().await.unwrap();
        let mut first = roller(None);
        while first.step(&mut client, minute(75)).await.unwrap() {}
        write(&store, 61..181).await;
        let bad = bad_meter(&store).await;
        client.batch_execute(&guard(bad)).await.unwrap();
        assert!(with_failures(&store, minute(195)).await > 5);
        client.batch_execute(UNGUARD).await.unwrap();
        drop(client);
        assert_eq!(wrong(&store, 60, 180).await, 2);
    });
}

/// Each of its hours fails. The devices before it have no readings.
#[test]
fn a_device_behind_many_without_readings_is_passed_over_at_once() {
    let store = Store::start();
    store.runtime.block_on(async {
        meter_with(&store, 1..5).await;
        let mut client = store.pool.get().await.unwrap();
        let mut first = roller(None);
        while first.step(&mut client, minute(75)).await.unwrap() {}
        let register = "insert into meters (external_id) select 'empty-' || n from generate_series(1, 100) as n";
        client.batch_execute(register).await.unwrap();
        write(&store, 61..181).await;
        let bad = count(&store, "select min(id)::bigint from meters where external_id like 'N%'").await;
        client.batch_execute(&guard(bad)).await.unwrap();
        let failures = with_failures(&store, minute(195)).await;
        assert!((3..30).contains(&failures), "{failures} failures");
        client.batch_execute(UNGUARD).await.unwrap();
        drop(client);
        assert_eq!(wrong(&store, 60, 180).await, 2);
    });
}

#[test]
fn the_next_hour_of_a_device_that_was_passed_over_is_not_searched_for() {
    let store = Store::start();
    store.runtime.block_on(async {
        meter_with(&store, 1..5).await;
        assert_eq!(with_failures(&store, minute(75)).await, 0);
        write(&store, 61..121).await;
        refuse_bad_meter(&store).await;
        let mut roller = roller(None);
        let first = failures_beside(&store, &mut roller, minute(135), None).await;
        assert!(first > 3, "{first} failures");
        write(&store, 121..181).await;
        let next = failures_beside(&store, &mut roller, minute(195), None).await;
        assert_eq!(next, 3);
        assert_eq!(wrong(&store, 60, 180).await, 2);
    });
}

#[test]
fn a_partition_that_cannot_be_sampled_is_rolled_up() {
    const DAY: i64 = 24 * 60;
    let store = Store::start();
    store.runtime.block_on(async {
        write(&store, 1 - 100 * DAY..1 - 100 * DAY + 300).await;
        let mut client = store.pool.get().await.unwrap();
        let refuse = "create function public.date_trunc(text, timestamptz) returns timestamptz language plpgsql
            as $$ begin raise 'no' using errcode = 'XX001'; end $$;
            set search_path = public, pg_catalog";
        client.batch_execute(refuse).await.unwrap();
        let mut roller = roller(None).with_bytes_per_slice(40_000);
        while roller.step(&mut client, minute(90)).await.unwrap() {}
        let back = "reset search_path; drop function public.date_trunc(text, timestamptz)";
        client.batch_execute(back).await.unwrap();
        drop(client);
        assert_eq!(wrong(&store, -100 * DAY, -99 * DAY).await, 0);
    });
}
