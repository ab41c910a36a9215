//! Rolled-up hours give the same results as their readings, whatever arrives late.

use std::fs;

use serde_json::Value;

use crate::support::{Gateway, NO_ALERTS, data_dir, meter, vehicle};

const FROM: &str = "2024-02-09T00:30:00Z";
const TO: &str = "2024-02-09T11:45:00Z";

/// One reading per minute from a meter and a vehicle for twelve hours, except every seventh minute.
fn day(gateway: &Gateway, id: &str, only: impl Fn(u32) -> bool) {
    let minutes = || (0..720).filter(|n| only(*n));
    let at = |n: u32| format!("2024-02-09T{:02}:{:02}:{:02}Z", n / 60, n % 60, n % 59);
    let kwh = |n: u32| f64::from(100 + n % 37) / 1000.0;
    let meters: Vec<String> = minutes()
        .map(|n| meter(id, &at(n), kwh(n), "interval"))
        .collect();
    let vehicles: Vec<String> = minutes()
        .map(|n| vehicle(id, &at(n), kwh(n) * 0.9, ""))
        .collect();
    gateway.send("meter", &meters);
    gateway.send("vehicle", &vehicles);
}

/// The result from readings alone: all rollups are removed in the query's own transaction.
fn raw(gateway: &Gateway, ids: &[&str]) -> Vec<Value> {
    gateway.sql(
        "create table kept_meter_hours as select * from meter_hours;
        create table kept_vehicle_hours as select * from vehicle_hours;
        truncate meter_hours, vehicle_hours;",
    );
    let answers = answers(gateway, ids);
    gateway.sql(
        "insert into meter_hours select * from kept_meter_hours on conflict do nothing;
        insert into vehicle_hours select * from kept_vehicle_hours on conflict do nothing;
        drop table kept_meter_hours, kept_vehicle_hours;",
    );
    answers
}

fn answers(gateway: &Gateway, ids: &[&str]) -> Vec<Value> {
    let performance = |id: &&str| gateway.performance(id, FROM, TO);
    ids.iter().map(performance).collect()
}

fn is_rolled_up(gateway: &Gateway) -> bool {
    gateway.sql(
        "select (select count(*) from meter_hours) >= 22
            and (select count(*) from vehicle_hours) >= 22
            and not exists (select from meter_hour_marks)
            and not exists (select from vehicle_hour_marks);",
    ) == "t"
}

#[test]
fn late_readings_correct_rolled_up_hours() {
    let data = data_dir();
    let gateway = Gateway::ready(data.path(), &NO_ALERTS);
    gateway.wait("the first watermark", |g| {
        g.sql("select sealed_to is not null from hours_progress;") == "t"
    });
    let ids = ["CAR-1", "CAR-2"];
    for id in ids {
        day(&gateway, id, |n| n % 7 != 3);
    }
    gateway.wait("the rollup", is_rolled_up);
    let rolled_up = answers(&gateway, &ids);
    assert_eq!(rolled_up, raw(&gateway, &ids));
    assert_eq!(rolled_up[0]["dataPoints"], 578);

    // Late readings count at once, whether or not their hours have been rolled up again.
    for id in ids {
        day(&gateway, id, |n| n % 7 == 3);
    }
    let mended = answers(&gateway, &ids);
    assert_eq!(mended[0]["dataPoints"], 675);
    gateway.wait("hours rolled up again", is_rolled_up);
    assert_eq!(answers(&gateway, &ids), mended);
    assert_eq!(raw(&gateway, &ids), mended);

    // A session that is registered late has edges within hours.
    gateway.session(
        "S",
        "CAR-1",
        "CAR-1",
        "2024-02-09T02:17:00Z",
        "2024-02-09T08:41:30Z",
    );
    let in_session = answers(&gateway, &ids);
    assert_eq!(in_session[0]["attribution"]["method"], "session");
    assert_eq!(raw(&gateway, &ids), in_session);

    // A kill while many hours wait to be rolled up loses no dirty hour.
    day(&gateway, "CAR-3", |_| true);
    drop(gateway);
    let gateway = Gateway::ready(data.path(), &NO_ALERTS);
    gateway.wait("hours rolled up after a kill", is_rolled_up);
    assert_eq!(answers(&gateway, &ids), in_session);
    assert_eq!(raw(&gateway, &ids), in_session);
    gateway.terminate();
}

#[test]
fn the_log_reports_the_end_of_a_rollup_outage() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    fn has_logged(words: &str) -> impl Fn(&Gateway) -> bool {
        move |g| fs::read_to_string(&g.events).unwrap().contains(words)
    }
    gateway.wait("the first watermark", |g| {
        g.sql("select sealed_to is not null from hours_progress;") == "t"
    });
    gateway.sql("alter table hours_progress rename to elsewhere;");
    gateway.wait("a failure", has_logged("rollup has failed; trying again"));
    gateway.sql("alter table elsewhere rename to hours_progress;");
    gateway.wait("its end", has_logged("rollup works again"));
}
