//! What an operator asks for: `wattgate check`, `wattgate erase`, metrics at a collector.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;

use wattgate::reading::Timestamp;

use crate::gateway::{Gateway, NO_DATABASE, command, data_dir};

/// Runs a command; whether it succeeded, and all that it said.
fn run(data: &Path, flags: &[&str]) -> (bool, String) {
    let output = command(data).args(flags).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// The URL of a database on the embedded server's socket.
fn url(data: &Path, user: &str, database: &str) -> String {
    let socket = data.join("postgres/run");
    format!(
        "postgres://{user}@localhost/{database}?host={}&port=5432",
        socket.display()
    )
}

#[test]
fn check_says_what_is_wrong_with_the_way_to_the_database() {
    let data = data_dir();
    let gateway = Gateway::start(data.path(), &[]);
    gateway.wait("readiness", |g| g.call("GET", "/health/ready", "").0 == 200);
    // A gateway that runs is no fault: this is the first look when it is in trouble.
    let (good, said) = run(data.path(), &["check"]);
    assert!(good, "{said}");
    assert!(said.contains("a gateway is using it"), "{said}");
    assert!(
        said.contains("the log and the database belong together"),
        "{said}"
    );

    gateway.sql_in("postgres", "create role poor login password 'right'");
    gateway.sql_in("postgres", "create database other");
    gateway.sql_in("other", "revoke create on schema public from public");
    let hba = gateway.sql_in("postgres", "show hba_file");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("local all poor scram-sha-256\n{rules}")).unwrap();
    gateway.sql_in("postgres", "select pg_reload_conf()");

    let elsewhere = data_dir();
    let secret = "sesame-open";
    let cases = [
        (NO_DATABASE.to_owned(), "nothing listens there"),
        (
            "postgres://u@no-such-host.invalid/db".to_owned(),
            "the host's name is not known",
        ),
        (
            url(data.path(), "poor", "other"),
            "put one into DATABASE_URL",
        ),
        (
            url(data.path(), &format!("poor:{secret}"), "other"),
            "the user or the password in DATABASE_URL is wrong",
        ),
        (
            url(data.path(), "poor:right", "nowhere"),
            "make it with createdb",
        ),
        (
            url(data.path(), "poor:right", "other"),
            "poor may not create tables in other",
        ),
        (
            url(data.path(), "poor:right", "wattgate"),
            "poor does not own the tables in wattgate",
        ),
    ];
    for (url, told) in cases {
        let (good, said) = run(elsewhere.path(), &["check", "--database-url", &url]);
        assert!(!good && said.contains(told), "{told}: {said}");
        assert!(!said.contains(secret), "{said}");
    }
    gateway.terminate();
}

#[test]
fn check_says_everything_that_is_wrong_at_once() {
    let data = data_dir();
    let file = data.path().join("file");
    fs::write(&file, b"").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["check", "--database-url", NO_DATABASE, "--listen", &address];
    let (good, said) = run(&file, &flags);
    assert!(!good);
    for told in [
        "cannot be used",
        "another program listens there",
        "nothing listens there",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
}

#[test]
fn check_knows_a_log_that_belongs_to_another_database() {
    let (data, other) = (data_dir(), data_dir());
    for dir in [&data, &other] {
        let gateway = Gateway::start(dir.path(), &[]);
        gateway.wait("readiness", |g| g.call("GET", "/health/ready", "").0 == 200);
        gateway.terminate();
    }
    fs::copy(
        other.path().join("wal/database"),
        data.path().join("wal/database"),
    )
    .unwrap();
    let (good, said) = run(data.path(), &["check"]);
    assert!(!good && said.contains("wattgate wal adopt"), "{said}");
}

/// Files under a directory that hold a text.
fn holding(dir: &Path, text: &str) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(dir).unwrap() {
        // A segment may go while it is looked for.
        let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
        found += usize::from(
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes()),
        );
    }
    found
}

/// An hour that is summed up, of each vehicle.
const ONE_HOUR_EACH: &str = "insert into vehicle_hours (vehicle_id, hour, first_at, last_at, first_kwh, last_kwh, \
    energy_mwh, power_watts, first_temp, last_temp, temperature_micro, temperature_rest, \
    readings, resets, suspect, is_register) \
    select id, '2024-02-09', '2024-02-09', '2024-02-09', \
    0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, false from vehicles";

/// How many rows of vehicles each table holds.
const WHAT_IS_LEFT: &str = "select (select count(*) from vehicle_readings), (select count(*) from vehicle_status), \
    (select count(*) from vehicles), (select count(*) from charging_sessions), \
    (select count(*) from vehicle_hours where hour = '2024-02-09'), \
    (select count(*) from quarantined_readings), \
    (select count(*) from alerts where stream = 'vehicle' and kind = 'battery_temperature')";

#[test]
fn an_erased_vehicle_is_in_no_table_and_not_in_the_log() {
    const ERASED: &str = "VEH-to-be-erased";
    let data = data_dir();
    let flags = ["--alert-interval", "200ms"];
    let gateway = Gateway::start(data.path(), &flags);
    gateway.wait("readiness", |g| g.call("GET", "/health/ready", "").0 == 200);
    let post = |path: &str, body: &str| {
        let (status, answer) = gateway.call("POST", path, body);
        assert!(matches!(status, 200..=202), "{answer}");
    };
    let began = Timestamp::now().plus_micros(-30 * 60_000_000);
    let at = |minute: i64| began.plus_micros(minute * 60_000_000).to_string();
    for vehicle in [ERASED, "VEH-stays"] {
        let session = format!(
            r#"{{"sessionId":"S-{vehicle}","vehicleId":"{vehicle}","meterId":"M-{vehicle}","startedAt":"{}","endedAt":"{}"}}"#,
            at(0),
            at(20)
        );
        post("/v1/sessions", &session);
        // Two readings, one of them sent again with another value: that goes to quarantine.
        for (minute, soc) in [(1, 50), (2, 51), (2, 52)] {
            let reading = format!(
                r#"{{"vehicleId":"{vehicle}","soc":{soc},"kwhDeliveredDc":0.1,"batteryTemp":90,"timestamp":"{}"}}"#,
                at(minute)
            );
            post("/v1/ingestion/vehicle?ack=committed", &reading);
        }
    }
    gateway.wait("the alerts", |g| {
        let page = g.call("GET", "/v1/alerts?kind=battery_temperature", "").1;
        page.contains(ERASED) && page.contains("VEH-stays")
    });
    gateway.sql_in("wattgate", ONE_HOUR_EACH);
    let (good, said) = run(data.path(), &["erase", "--vehicle", ERASED]);
    assert!(!good && said.contains("stop it first"), "{said}");
    gateway.terminate();
    assert!(holding(&data.path().join("wal"), ERASED) > 0);

    let (good, said) = run(data.path(), &["erase", "--vehicle", ERASED]);
    assert!(good, "{said}");
    for told in [
        "1 vehicles",
        "2 readings\n",
        "1 sessions",
        "1 readings in quarantine",
        "1 ids of sessions",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let (good, said) = run(data.path(), &["erase", "--vehicle", ERASED]);
    assert!(!good && said.contains("nothing is known"), "{said}");

    let gateway = Gateway::start(data.path(), &["--wal-retain", "0B"]);
    gateway.wait("readiness", |g| g.call("GET", "/health/ready", "").0 == 200);
    gateway.wait("the log without it", |_| {
        holding(&data.path().join("wal"), ERASED) == 0
    });
    assert_eq!(gateway.sql_in("wattgate", WHAT_IS_LEFT), "2|1|1|1|1|1|1");
    assert_eq!(
        gateway
            .call("GET", &format!("/v1/live/vehicles/{ERASED}"), "")
            .0,
        404
    );
    assert_eq!(
        gateway.call("GET", "/v1/live/vehicles/VEH-stays", "").0,
        200
    );
    gateway.terminate();
}

/// Takes one request, and answers 200; its path and its body.
fn take(listener: &TcpListener) -> (String, serde_json::Value) {
    let (mut socket, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    socket
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        .unwrap();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    (path, serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_collector_is_sent_what_a_scrape_says() {
    let data = data_dir();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-interval", "100ms"];
    let gateway = Gateway::start(data.path(), &flags);
    gateway.wait("readiness", |g| g.call("GET", "/health/ready", "").0 == 200);
    let reading =
        r#"{"meterId":"M1","kwhConsumedAc":1,"voltage":230,"timestamp":"2024-02-09T15:30:00Z"}"#;
    let (status, answer) = gateway.call("POST", "/v1/ingestion/meter?ack=committed", reading);
    assert_eq!(status, 201, "{answer}");
    let stored = |body: &serde_json::Value| {
        let metrics = &body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
        let named = |name: &str| {
            let found = metrics
                .as_array()
                .unwrap()
                .iter()
                .find(|m| m["name"] == name);
            found.cloned().unwrap_or_default()
        };
        assert!(named("wattgate_database_up")["gauge"].is_object());
        let points = named("wattgate_readings_stored_total")["sum"]["dataPoints"].clone();
        let values = points.as_array().unwrap().iter();
        let sum: f64 = values
            .map(|point| point["asDouble"].as_f64().unwrap())
            .sum();
        (sum == 1.0).then(|| named("wattgate_wal_sync_readings")["histogram"].clone())
    };
    // It comes again and again: one of the next says that the reading is stored.
    let histogram = loop {
        let (path, body) = take(&listener);
        assert_eq!(path, "/v1/metrics");
        if let Some(histogram) = stored(&body) {
            break histogram;
        }
    };
    assert_eq!(histogram["dataPoints"][0]["count"], "1");
    gateway.terminate();
}
