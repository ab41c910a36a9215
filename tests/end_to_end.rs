//! The whole way of a reading: the real binary, its embedded PostgreSQL, real sockets, real kills.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::path::Path;

use wattgate::postgres::embedded::{self, EmbeddedConfig};

use crate::gateway::{DEADLINE, Gateway, command, data_dir};

fn start(data: &Path) -> Gateway {
    Gateway::start(data, &[])
}

fn reading(minute: usize, kwh: f64) -> String {
    format!(
        r#"{{"meterId":"M1","kwhConsumedAc":{kwh},"voltage":240.5,"timestamp":"2024-02-09T15:{minute:02}:00Z"}}"#
    )
}

const METER: &str = "/v1/ingestion/meter";

#[test]
fn acknowledged_readings_survive_a_kill_and_are_stored_once() {
    let data = data_dir();
    let gateway = start(data.path());
    for minute in 0..30 {
        let (status, body) = gateway.call("POST", METER, &reading(minute, 1.0));
        assert_eq!(status, 202, "{body}");
    }
    gateway.kill();

    let gateway = start(data.path());
    // A reading that was acknowledged before the kill is sent again, and one contradicts.
    let again = format!("[{},{}]", reading(29, 1.0), reading(28, 2.0));
    let (status, body) = gateway.call("POST", &format!("{METER}?ack=committed"), &again);
    assert_eq!(status, 201, "{body}");
    gateway.wait("the end of the log", |g| {
        g.metric("wattgate_database_up") == 1.0
            && (0..64).all(|shard| {
                let name = format!("wattgate_wal_readings{{shard=\"{shard}\",stream=\"meter\"}}");
                g.metric(&name) == 0.0
            })
    });
    let sum = |name: &str| {
        gateway.metric(&format!(
            "wattgate_readings_{name}_total{{stream=\"meter\"}}"
        ))
    };
    assert_eq!(sum("duplicate"), 1.0);
    assert_eq!(sum("quarantined"), 1.0);
    assert_eq!(sum("accepted"), sum("stored") + 2.0);
    let (status, live) = gateway.call("GET", "/v1/live/meters/M1", "");
    assert_eq!(status, 200);
    assert!(live.contains("2024-02-09T15:29:00Z"), "{live}");
    gateway.terminate();
}

#[test]
fn a_batch_with_bad_readings_stores_the_good_ones_and_names_the_bad() {
    let data = data_dir();
    let gateway = start(data.path());
    let at = |n: usize| format!("2024-02-09T{:02}:{:02}:00Z", n / 60, n % 60);
    let mut readings: Vec<String> = (0..500)
        .map(|n| reading(0, 1.0).replace("2024-02-09T15:00:00Z", &at(n)))
        .collect();
    let bad = [
        (3, "240.5", "2405", "voltage"),
        (
            50,
            "\"kwhConsumedAc\":1",
            "\"kwhConsumedAc\":-1",
            "kwhConsumedAc",
        ),
        (51, "\"kwhConsumedAc\":1,", "", "kwhConsumedAc"),
        (99, "\"M1\"", "\"\"", "meterId"),
        (250, "2024-02-09T", "2024-02-30T", "timestamp"),
        (251, "240.5", "\"240.5\"", "voltage"),
        (499, "voltage", "volts", "volts"),
    ];
    for (index, right, wrong, _) in bad {
        assert!(readings[index].contains(right));
        readings[index] = readings[index].replace(right, wrong);
    }
    let body = format!("[{}]", readings.join(","));
    let (status, answer) = gateway.call("POST", &format!("{METER}?ack=committed"), &body);
    assert_eq!(status, 201, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["accepted"], 493);
    assert_eq!(answer["rejected"], 7);
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), bad.len());
    for (error, (index, _, _, field)) in errors.iter().zip(bad) {
        assert_eq!(error["index"], index, "{error}");
        assert!(error["field"] == field || field == "volts", "{error}");
    }
    assert_eq!(
        gateway.metric("wattgate_readings_stored_total{stream=\"meter\"}"),
        493.0
    );
    gateway.terminate();
}

#[test]
fn what_is_committed_is_in_live_status_at_once() {
    let data = data_dir();
    let gateway = start(data.path());
    for n in 0..10 {
        let one = reading(n, 1.0).replace("M1", &format!("M{n}"));
        let (status, answer) = gateway.call("POST", &format!("{METER}?ack=committed"), &one);
        assert_eq!(status, 201, "{answer}");
        let (status, live) = gateway.call("GET", &format!("/v1/live/meters/M{n}"), "");
        assert_eq!(status, 200, "M{n}: {live}");
    }
    gateway.terminate();
}

#[test]
fn with_its_server_stopped_the_gateway_takes_readings_and_stores_them_once_later() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server_dir = data_dir();
    let start = || {
        let mut config = EmbeddedConfig::new(server_dir.path());
        config.elsewhere = server_dir.path().join("elsewhere-unused");
        runtime.block_on(embedded::start(config)).unwrap()
    };
    let server = start();
    let at = server.connection().clone();
    let url = format!(
        "host={} port={} user={} dbname={}",
        at.socket_dir.display(),
        at.port,
        at.user,
        at.database
    );
    let data = data_dir();
    let mut on_server = command(data.path());
    on_server.env("DATABASE_URL", &url);
    let gateway = Gateway::spawn(on_server, data.path());
    let (status, answer) =
        gateway.call("POST", &format!("{METER}?ack=committed"), &reading(0, 1.0));
    assert_eq!(status, 201, "{answer}");

    runtime.block_on(server.stop(DEADLINE));
    gateway.wait("the outage to be noticed", |g| {
        g.call("GET", "/health/ready", "").0 == 503
    });
    for minute in 1..50 {
        let (status, answer) = gateway.call("POST", METER, &reading(minute, 1.0));
        assert_eq!(status, 202, "{answer}");
    }
    // One comes twice while the database is away, as from a device that lost its answer.
    assert_eq!(gateway.call("POST", METER, &reading(7, 1.0)).0, 202);
    let stored = "wattgate_readings_stored_total{stream=\"meter\"}";
    assert_eq!(gateway.metric(stored), 1.0);

    let server = start();
    gateway.wait("what was taken meanwhile", |g| g.metric(stored) == 50.0);
    assert_eq!(
        gateway.metric("wattgate_readings_duplicate_total{stream=\"meter\"}"),
        1.0
    );
    let counted: i64 = runtime.block_on(async {
        let (client, driver) = at.config().connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(driver);
        let row = client
            .query_one("select count(*) from meter_readings", &[])
            .await;
        row.unwrap().get(0)
    });
    assert_eq!(counted, 50);
    gateway.terminate();
    runtime.block_on(server.stop(DEADLINE));
}
