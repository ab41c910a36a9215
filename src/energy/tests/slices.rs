//! Slices of hours go on where they were, whatever ended the roller, and a step is never longer for a longer pause.

use std::sync::Arc;
use std::time::Duration;

use super::database::Store;
use super::summaries::{count, meter_with, minute, write_marked};
use crate::postgres::partitions;
use crate::reading::Timestamp;
use crate::rollups::Roller;

/// Meters with a reading per minute.
pub(super) const METERS: i64 = 20;
/// How many readings a part reads: five times as many as while readings arrive, and the rest of an hour.
const PART: i64 = 5 * 40 + 60;

/// A roller that has just begun, whose steps are one part each.
pub(super) fn roller(retention: Option<Duration>) -> Roller {
    Roller::new(Arc::new(|| Duration::ZERO), retention)
        .without_pauses()
        .with_readings_per_transaction(40)
        .with_steps_of(Duration::ZERO)
}

/// Does a step of a roller that has just begun. Returns whether there is more, and how many readings it has read.
async fn step_anew(store: &Store, retention: Option<Duration>, now: Timestamp) -> (bool, i64) {
    let mut client = store.pool.get().await.unwrap();
    let mut roller = roller(retention);
    let is_busy = roller.step(&mut client, now).await.unwrap();
    (is_busy, i64::try_from(roller.readings()).unwrap())
}

/// Stores a reading of each meter in each minute.
pub(super) async fn write(store: &Store, minutes: std::ops::Range<i64>) {
    let client = store.pool.get().await.unwrap();
    let register = format!(
        "insert into meters (external_id) select 'N' || n from generate_series(1, {METERS}) as n
        on conflict do nothing"
    );
    client.batch_execute(&register).await.unwrap();
    let readings = "insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
        select m.id, t, 0.25, 230 from meters as m, generate_series($1::timestamptz, $2, '1 minute') as t
        where m.external_id like 'N%'";
    let (from, to) = (minute(minutes.start), minute(minutes.end - 1));
    client.execute(readings, &[&from, &to]).await.unwrap();
}

/// Hours that do not hold what their readings add up to.
pub(super) async fn wrong(store: &Store, from: i64, to: i64) -> i64 {
    let sql = format!(
        "select count(*) from (
            select meter_id, date_trunc('hour', ts - interval '1 microsecond') as hour, count(*)::integer as readings
            from meter_telemetry_history
            where ts > to_timestamp({from}) and ts <= to_timestamp({to}) group by 1, 2
        ) as h
        full join (
            select * from meter_hours where hour >= to_timestamp({from}) and hour < to_timestamp({to})
        ) as r using (meter_id, hour)
        where h.readings is distinct from r.readings or r.energy_mwh is distinct from 250000 * (h.readings - 1)",
        from = minute(from).as_micros() / 1_000_000,
        to = minute(to).as_micros() / 1_000_000,
    );
    count(store, &sql).await
}

#[test]
fn a_roller_that_begins_anew_goes_on_within_its_slice() {
    const DAY: i64 = 24 * 60;
    let store = Store::start();
    store.runtime.block_on(async {
        // A day of long ago: older hours.
        write(&store, 1 - 100 * DAY..1 - 100 * DAY + 300).await;
        let (mut steps, mut read) = (0, 0);
        loop {
            let (is_busy, readings) = step_anew(&store, None, minute(90)).await;
            read += readings;
            if !is_busy {
                break;
            }
            steps += 1;
            assert!(steps < 200, "a slice does not come to its end");
        }
        assert_eq!(read, METERS * 300);
        assert_eq!(wrong(&store, -100 * DAY, -99 * DAY).await, 0);
        assert_eq!(count(&store, "select count(*) from hours_slices").await, 0);
    });
}

/// The gateways were away for a day, and their clients kept their readings.
#[test]
fn new_hours_after_a_pause_are_rolled_up_part_by_part() {
    const HOURS: i64 = 26;
    let store = Store::start();
    store.runtime.block_on(async {
        let meter = meter_with(&store, 1..5).await;
        let mut client = store.pool.get().await.unwrap();
        let mut first = roller(None);
        while first.step(&mut client, minute(75)).await.unwrap() {}
        drop(client);
        write(&store, 61..61 + HOURS * 60).await;
        let now = minute(75 + HOURS * 60);
        let (mut read, mut late, mut steps) = (0, 0, 0);
        loop {
            steps += 1;
            assert!(steps < 500, "a slice does not come to its end");
            let (is_busy, readings) = step_anew(&store, None, now).await;
            assert!(readings <= PART, "{readings} readings in one step");
            read += readings;
            if !is_busy {
                break;
            }
            // Late readings of what is rolled up already, and of what is not.
            if late < 5 && read > METERS * HOURS * 10 * (late + 1) {
                late += 1;
                for at in [62, 61 + HOURS * 60 - 70] {
                    write_marked(&store, meter, at + late).await;
                }
            }
        }
        assert_eq!(late, 5);
        assert_eq!(wrong(&store, 0, 60 + HOURS * 60).await, 0);
        assert_eq!(
            count(&store, "select count(*) from meter_hour_marks").await,
            0
        );
        // Those of the late hours may be read twice.
        assert!(
            (METERS * HOURS * 60..METERS * HOURS * 60 + 100).contains(&read),
            "{read}"
        );
    });
}

/// The retention drops the first hours soon.
#[test]
fn new_hours_below_the_floor_are_not_rolled_up() {
    let store = Store::start();
    store.runtime.block_on(async {
        meter_with(&store, 1..5).await;
        let mut client = store.pool.get().await.unwrap();
        let mut first = roller(None);
        while first.step(&mut client, minute(75)).await.unwrap() {}
        drop(client);
        write(&store, 61..61 + 48 * 60).await;
        // The floor is 24 hours before.
        let (kept, now) = (Duration::from_secs(48 * 3600), minute(75 + 48 * 60));
        let mut steps = 0;
        while step_anew(&store, Some(kept), now).await.0 {
            steps += 1;
            assert!(steps < 500, "a slice does not come to its end");
        }
        let below = format!(
            "select count(*) from meter_hours as h, hours_progress as p
            where h.hour > to_timestamp({}) and h.hour < p.built_from",
            minute(0).as_micros() / 1_000_000
        );
        assert_eq!(count(&store, &below).await, 0);
        let built = "select (extract(epoch from built_from) / 3600)::bigint from hours_progress";
        assert_eq!(
            count(&store, built).await,
            minute(75 + 24 * 60).hour().as_micros() / 3_600_000_000
        );
        assert_eq!(wrong(&store, 25 * 60, 49 * 60).await, 0);
    });
}

/// The floor lies beyond all hours.
#[test]
fn new_hours_end_where_the_retention_is_short() {
    let store = Store::start();
    store.runtime.block_on(async {
        meter_with(&store, 1..5).await;
        let mut client = store.pool.get().await.unwrap();
        let mut first = roller(None);
        while first.step(&mut client, minute(75)).await.unwrap() {}
        drop(client);
        write(&store, 61..121).await;
        let kept = Some(Duration::from_secs(6 * 3600));
        let mut steps = 0;
        while step_anew(&store, kept, minute(135)).await.0 {
            steps += 1;
            assert!(steps < 100, "a slice does not come to its end");
        }
        assert_eq!(wrong(&store, 60, 120).await, 0);
    });
}

/// By more than the retention, and the readings are of the present.
#[test]
fn a_clock_that_is_ahead_gives_up_no_rollups() {
    let store = Store::start();
    store.runtime.block_on(async {
        meter_with(&store, 1..5).await;
        write(&store, 61..121).await;
        let mut client = store.pool.get().await.unwrap();
        let mut first = roller(None);
        while first.step(&mut client, minute(135)).await.unwrap() {}
        let live = format!(
            "insert into meter_live_status (meter_id, ts, received_at, kwh_consumed_ac, voltage)
            select id, to_timestamp({0}), to_timestamp({0}), 1, 230 from meters",
            minute(130).as_micros() / 1_000_000
        );
        client.batch_execute(&live).await.unwrap();
        let built = "select extract(epoch from built_from)::bigint from hours_progress";
        let before = count(&store, built).await;
        let kept = Some(Duration::from_secs(30 * 24 * 3600));
        let mut ahead = roller(kept);
        let now = minute(135 + 100 * 24 * 60);
        let new = "select (built_to > to_timestamp({}))::int::bigint from hours_progress";
        let new = new.replace("{}", &(minute(180).as_micros() / 1_000_000).to_string());
        while count(&store, &new).await == 0 {
            assert!(ahead.step(&mut client, now).await.unwrap());
        }
        assert_eq!(count(&store, built).await, before);
    });
}

#[test]
fn rollups_that_exist_are_found_by_one_search_per_device() {
    const HOURS: i64 = 30;
    let store = Store::start();
    store.runtime.block_on(async {
        meter_with(&store, 1..5).await;
        write(&store, 61..61 + HOURS * 60).await;
        let mut client = store.pool.get().await.unwrap();
        let now = minute(75 + HOURS * 60);
        let whole = || Roller::new(Arc::new(|| Duration::ZERO), None).without_pauses();
        let mut roller = whole();
        while roller.step(&mut client, now).await.unwrap() {}
        let again = "update hours_progress set built_from = sealed_to, built_to = sealed_to";
        let flush = "select pg_stat_force_next_flush()";
        client.batch_execute(again).await.unwrap();
        client.batch_execute(flush).await.unwrap();
        let searches = "select coalesce(sum(idx_scan), 0)::bigint from pg_stat_user_indexes
            where relname = 'meter_hours'";
        let before = count(&store, searches).await;
        let mut roller = whole().with_steps_of(Duration::ZERO);
        let mut parts = 0;
        while roller.step(&mut client, now).await.unwrap() {
            parts += 1;
        }
        client.batch_execute(flush).await.unwrap();
        let searched = count(&store, searches).await - before;
        assert_eq!(wrong(&store, 0, 60 + HOURS * 60).await, 0);
        // Most parts are of partitions without readings.
        assert!(
            (1..=6 * (METERS + 1) + parts).contains(&searched),
            "{searched} searches"
        );
    });
}

#[test]
fn partitions_are_not_listed_at_each_step() {
    let store = Store::start();
    store.runtime.block_on(async {
        meter_with(&store, 1..5).await;
        write(&store, 61..181).await;
        let mut client = store.pool.get().await.unwrap();
        let flush = "select pg_stat_force_next_flush()";
        // Few partitions are found without the catalog's index.
        let lists = "select coalesce(sum(seq_scan + idx_scan), 0)::bigint from pg_stat_sys_tables
            where relname = 'pg_inherits'";
        let mut roller = roller(None);
        assert!(roller.step(&mut client, minute(195)).await.unwrap());
        client.batch_execute(flush).await.unwrap();
        let before = count(&store, lists).await;
        let mut steps = 1;
        while roller.step(&mut client, minute(195)).await.unwrap() {
            steps += 1;
        }
        client.batch_execute(flush).await.unwrap();
        let listed = count(&store, lists).await - before;
        assert!(
            steps > 40 && listed < steps,
            "listed {listed} times in {steps} steps"
        );
    });
}

#[test]
fn the_size_of_a_divided_partition_is_that_of_its_parts() {
    const DIVIDED: &str = "create table month partition of meter_telemetry_history
            for values from ('2019-03-01') to ('2019-04-01') partition by range (ts);
        create table first_half partition of month for values from ('2019-03-01') to ('2019-03-16');
        insert into meters (external_id) values ('M');
        insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
        select m.id, timestamptz '2019-03-02' + n * interval '1 minute', 0.25, 230
        from meters as m, generate_series(1, 1000) as n";
    let store = Store::start();
    store.runtime.block_on(async {
        let client = store.pool.get().await.unwrap();
        client.batch_execute(DIVIDED).await.unwrap();
        let both = partitions::list_both(&client).await.unwrap();
        let table = count(&store, "select 'month'::regclass::oid::bigint").await;
        let month = both
            .meter
            .iter()
            .find(|listed| i64::from(listed.table) == table);
        let size = partitions::size(&client, month.unwrap().table)
            .await
            .unwrap();
        let expected = count(&store, "select pg_relation_size('first_half')").await;
        assert!(expected > 0);
        assert_eq!(size, expected);
    });
}

/// All readings of a month lie in a few hours.
#[test]
fn a_slice_reads_no_more_where_hours_are_filled_unevenly() {
    const IMPORT: &str = "create table imported partition of meter_telemetry_history
            for values from ('2019-03-01') to ('2019-04-01');
        insert into meters (external_id) select 'I' || n from generate_series(1, 200) as n;
        insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
        select m.id, timestamptz '2019-03-31 19:00' + s * interval '20 seconds', 0.25, 230
        from generate_series(1, 899) as s, meters as m order by s, m.id";
    let store = Store::start();
    store.runtime.block_on(async {
        let mut client = store.pool.get().await.unwrap();
        client.batch_execute(IMPORT).await.unwrap();
        let bytes = count(&store, "select pg_relation_size('imported')").await;
        let most = bytes / 3;
        // What each slice has read is between what was rolled up before it and after it.
        let follow = "create table slices as select built_from, built_from as built_to from hours_progress;
            create function follow() returns trigger language plpgsql as $$ begin
                insert into slices values (new.built_from, old.built_from); return null;
            end $$;
            create trigger follow after update on hours_progress for each row execute function follow()";
        client.batch_execute(follow).await.unwrap();
        let roller = Roller::new(Arc::new(|| Duration::ZERO), None).without_pauses();
        let mut roller = roller.with_bytes_per_slice(most);
        while roller.step(&mut client, minute(90)).await.unwrap() {}
        let largest = "select max(n) from (
                select count(*) as n from slices as s, imported as i
                where i.ts > s.built_from and i.ts <= s.built_to group by s.ctid
            ) as s";
        let (largest, all) = (count(&store, largest).await, 200 * 899);
        assert!((all / 6..=all / 3).contains(&largest), "{largest} of {all} readings in one slice");
        let slices = count(&store, "select count(*) from slices where built_from < '2019-04-01'").await;
        assert!(slices < 20, "{slices} slices");
        assert_eq!(roller.readings(), all as u64);
    });
}
