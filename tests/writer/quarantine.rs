//! `wattgate quarantine` lists quarantined readings, and stores them once they fit.

use std::process::{Command, Stdio};

use wattgate::reading::{Details, ExternalId, Place};

use crate::binary::data_dir;
use crate::support::*;

/// Runs the command and returns its output.
async fn quarantine(database: &Database, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command.arg("quarantine").args(words).args([
        "--database-url",
        &database.url(),
        "--log-level",
        "error",
    ]);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

const RULE: &str = "alter table meter_telemetry_history
        add constraint plausible check (kwh_consumed_ac < 100);
    alter table vehicle_telemetry_history add constraint cool check (battery_temp < 60)";
const NO_RULE: &str = "alter table meter_telemetry_history drop constraint plausible;
    alter table vehicle_telemetry_history drop constraint cool";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_stored_once_it_fits() {
    let database = Database::new().await;
    database.run(RULE).await;
    let gateway = database.gateway(2);
    let hot = |second, place| wattgate::reading::Reading {
        details: Details::Vehicle {
            soc: 50.5,
            battery_temp: 80.25,
            place: Some(place),
        },
        ..vehicle("V1", second, 0.0)
    };
    gateway
        .store(&[
            meter("M1", 0, 1.0),
            meter("M1", 60, 123.456_789),
            meter("M2", 60, 500.0),
            hot(0, Place::Session(ExternalId::new("S1").unwrap())),
            hot(1, Place::Meter(ExternalId::new("M1").unwrap())),
        ])
        .await;
    assert_eq!(database.sums().await, [1, 0, 4]);
    let printed = quarantine(&database, &["list", "--device", "M2"]).await;
    assert!(
        printed.contains("2024-02-09T15:31:00Z  meter M2  23514") && printed.contains("plausible"),
        "{printed}"
    );
    let printed = quarantine(&database, &["list", "--limit", "1"]).await;
    assert!(
        printed.ends_with("1 of 4 are shown; --limit shows more"),
        "{printed}"
    );
    let printed = quarantine(&database, &["list", "--stream", "vehicle", "--json"]).await;
    let lines: Vec<serde_json::Value> = printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["reading"]["sessionId"], "S1");
    assert_eq!(lines[1]["reading"]["meterId"], "M1");

    // The constraint is still there.
    let retried =
        |stored, stay| format!("{stored} stored, 0 were already stored, {stay} stay in quarantine");
    let printed = quarantine(&database, &["retry", "--all"]).await;
    assert_eq!(printed, retried(0, 4));
    database.run(NO_RULE).await;
    let printed = quarantine(&database, &["retry", "--device", "M2"]).await;
    assert_eq!(printed, retried(1, 0));
    let printed = quarantine(&database, &["retry", "--all"]).await;
    assert_eq!(printed, retried(3, 0));
    let printed = quarantine(&database, &["list"]).await;
    assert_eq!(printed, "nothing is in quarantine");
    let rows = "select string_agg(concat_ws(' ', vehicle_id, battery_temp, soc, named_meter_id is not null,
        named_session_id is not null), '; ' order by ts) from vehicle_telemetry_history";
    assert_eq!(
        database.text(rows).await,
        "1 80.25 50.5 f t; 1 80.25 50.5 t f"
    );
    let exact = "select kwh_consumed_ac from meter_status where meter_id = 'M1'";
    assert_eq!(database.text(exact).await, "123.456789");
    // Their reported outcome stays what it was when they left the log, while the gateway runs.
    gateway.store(&[meter("M1", 120, 1.0)]).await;
    assert_eq!(database.sums().await, [2, 0, 4]);
    assert_eq!(database.rows().await, 6);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_stays_until_the_other_is_gone() {
    let database = Database::new().await;
    let gateway = database.gateway(1);
    gateway
        .store(&[
            meter("M1", 0, 1.0),
            meter("M1", 0, 2.0),
            meter("M1", 0, 2.0),
            meter("M1", 0, 3.0),
        ])
        .await;
    assert_eq!(database.sums().await, [1, 0, 3]);
    let printed = quarantine(&database, &["retry", "--all"]).await;
    assert_eq!(
        printed,
        "0 stored, 0 were already stored, 3 stay in quarantine"
    );
    // An operator decides that the stored reading was wrong.
    database.run("delete from meter_telemetry_history").await;
    let printed = quarantine(&database, &["retry", "--all"]).await;
    assert_eq!(
        printed,
        "1 stored, 1 were already stored, 1 stay in quarantine"
    );
    let kept = "select kwh_consumed_ac from meter_readings";
    assert_eq!(database.text(kept).await, "2");
    gateway.stop().await;
}

#[test]
fn a_running_gateways_database_is_found() {
    let data = data_dir();
    let gateway = crate::binary::Gateway::start(data.path(), &[]);
    let wattgate = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        command.args(words).arg("--data-dir").arg(data.path());
        command.env_remove("DATABASE_URL").stderr(Stdio::null());
        command
    };
    let reading = |kwh| {
        format!(
            r#"{{"meterId":"M1","kwhConsumedAc":{kwh},"voltage":240,"timestamp":"2024-02-09T15:30:00Z"}}"#
        )
    };
    let body = format!("[{},{}]", reading(1), reading(2));
    let (status, answer) = gateway.call("POST", "/v1/ingestion/meter?ack=committed", &body);
    assert_eq!(status, 201, "{answer}");
    let start = r#"{"success":false,"accepted":2,"rejected":0,"ack":"committed","quarantined":1,"#;
    assert!(answer.starts_with(start), "{answer}");

    let listed = wattgate(&["quarantine", "list"]).output().unwrap();
    let printed = String::from_utf8(listed.stdout).unwrap();
    assert!(printed.contains("meter M1  23505"), "{printed}");
    // It shows both values, so that an operator can decide which one is right.
    let line = |name: &str| printed.lines().find(|line| line.trim().starts_with(name));
    let (refused, stored) = (line("refused:").unwrap(), line("stored:").unwrap());
    assert!(refused.contains(r#""kwhConsumedAc": 2"#), "{printed}");
    assert!(stored.contains(r#""kwhConsumedAc": 1"#), "{printed}");
    gateway.terminate();
    // If no gateway runs, the command starts the server itself.
    let listed = wattgate(&["quarantine", "list", "--json"])
        .output()
        .unwrap();
    let printed = String::from_utf8(listed.stdout).unwrap();
    let listed: serde_json::Value = serde_json::from_str(printed.trim()).unwrap();
    assert_eq!(listed["deviceId"], "M1");
    let kwh = ["reading", "stored"].map(|which| listed[which]["kwhConsumedAc"].as_f64().unwrap());
    assert_eq!(kwh, [2.0, 1.0]);
}
