//! Operators' commands (`wattgate check`, `wattgate erase`), stopping, and metrics pushed to a collector.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;

use wattgate::config::Cli;
use wattgate::reading::Timestamp;

use crate::gateway::{Gateway, NO_DATABASE, command, data_dir, ended};

/// Runs a command. Returns whether it succeeded, and its whole output.
fn run(data: &Path, flags: &[&str]) -> (bool, String) {
    let output = command(data).args(flags).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
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
fn check_reports_why_the_database_is_unreachable() {
    let data = data_dir();
    let gateway = Gateway::ready(data.path(), &[]);
    // A running gateway is not an error, because operators run `check` when it is in trouble.
    let (good, printed) = run(data.path(), &["check"]);
    assert!(good, "{printed}");
    assert!(printed.contains("a gateway is using it"), "{printed}");
    assert!(
        printed.contains("the log and the database belong together"),
        "{printed}"
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
            "put it into DATABASE_URL",
        ),
        (
            url(data.path(), &format!("poor:{secret}"), "other"),
            "the user or the password in DATABASE_URL is wrong",
        ),
        (
            url(data.path(), "poor:right", "nowhere"),
            "create it with createdb",
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
    for (url, expected) in cases {
        let (good, printed) = run(elsewhere.path(), &["check", "--database-url", &url]);
        assert!(!good && printed.contains(expected), "{expected}: {printed}");
        assert!(!printed.contains(secret), "{printed}");
    }
    gateway.terminate();
}

#[test]
fn check_reports_everything_that_is_wrong_at_once() {
    let data = data_dir();
    let file = data.path().join("file");
    fs::write(&file, b"").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = ["check", "--database-url", NO_DATABASE, "--listen", &address];
    let (good, printed) = run(&file, &flags);
    assert!(!good);
    for expected in [
        "cannot be used",
        "another program listens there",
        "nothing listens there",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
}

#[test]
fn check_reports_a_log_of_another_database() {
    let (data, other) = (data_dir(), data_dir());
    for dir in [&data, &other] {
        let gateway = Gateway::ready(dir.path(), &[]);
        gateway.terminate();
    }
    fs::copy(
        other.path().join("wal/database"),
        data.path().join("wal/database"),
    )
    .unwrap();
    let (good, printed) = run(data.path(), &["check"]);
    assert!(!good && printed.contains("wattgate wal adopt"), "{printed}");
}

/// How many files under a directory contain a text.
fn holding(dir: &Path, text: &str) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(dir).unwrap() {
        // A segment may be deleted during the search.
        let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
        found += usize::from(
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes()),
        );
    }
    found
}

/// A rolled-up hour of each vehicle.
const ONE_HOUR_EACH: &str = "insert into vehicle_hours (vehicle_id, hour, first_at, last_at, first_kwh, last_kwh, \
    energy_mwh, power_watts, first_temp, last_temp, temperature_micro, temperature_rest, \
    readings, resets, suspect, is_register) \
    select id, '2024-02-09', '2024-02-09', '2024-02-09', \
    0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, false from vehicles";

/// How many rows about vehicles each table has.
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
    let gateway = Gateway::ready(data.path(), &flags);
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
        // Three readings, two of them for the same minute with different values, so that one goes to quarantine.
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
    let (good, printed) = run(data.path(), &["erase", "--vehicle", ERASED]);
    assert!(!good && printed.contains("stop it first"), "{printed}");
    gateway.terminate();
    assert!(holding(&data.path().join("wal"), ERASED) > 0);

    let (good, printed) = run(data.path(), &["erase", "--vehicle", ERASED]);
    assert!(good, "{printed}");
    for expected in [
        "1 vehicles",
        "2 readings\n",
        "1 sessions",
        "1 readings in quarantine",
        "1 ids of sessions",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    let (good, printed) = run(data.path(), &["erase", "--vehicle", ERASED]);
    assert!(
        !good && printed.contains("nothing is stored about"),
        "{printed}"
    );

    let gateway = Gateway::ready(data.path(), &["--wal-retain", "0B"]);
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

/// Accepts one request and responds with 200. Returns its path and body.
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-interval", "100ms"];
    let gateway = Gateway::fresh(&flags);
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
    // Metrics are pushed at every interval. One of the next pushes includes the stored reading.
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

#[test]
fn commands_that_only_look_create_nothing() {
    let parent = data_dir();
    let mistyped = parent.path().join("mistyped");
    for (words, code) in [
        (&["quarantine", "list"][..], 2),
        (&["quarantine", "retry", "--all"], 2),
        (&["erase", "--vehicle", "V"], 2),
        (&["wal", "inspect"], 2),
        (&["wal", "verify"], 2),
        (&["wal", "adopt"], 2),
        (&["wal", "accept-gap"], 2),
        (&["keys", "list"], 0),
        (&["keys", "revoke", "fleet"], 1),
        // Before the first start nothing is wrong, but the missing directory is mentioned.
        (&["check"], 0),
    ] {
        let output = command(&mistyped).args(words).output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {printed}");
        assert!(printed.contains("mistyped"), "{words:?}: {printed}");
        assert!(!mistyped.exists(), "{words:?} made it");
    }
}

#[test]
fn a_wrong_configuration_is_reported_whole_with_code_2() {
    let data = data_dir();
    let file = data.path().join("file");
    fs::write(&file, b"{").unwrap();
    fs::write(data.path().join("keys.json"), b"{").unwrap();
    let serve = |flags: &[&str]| {
        let mut command = command(data.path());
        command.args(flags).env("DATABASE_URL", NO_DATABASE);
        ended(command, parent_of(&file))
    };
    let text = file.to_str().unwrap();
    let flags = [
        "--auth",
        "keys",
        "--tls-cert",
        text,
        "--tls-key",
        "/nowhere",
        "--retention",
        "-5",
    ];
    let (code, printed) = serve(&flags);
    assert_eq!(code, Some(2), "{printed}");
    for part in [
        "keys.json",
        "--tls-cert (WATTGATE_TLS_CERT)",
        "--retention (WATTGATE_RETENTION) -5",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let (code, printed) = serve(&["--data-dir", text, "--linger", "1h"]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(
        printed.contains("--data-dir") && printed.contains("--linger"),
        "{printed}"
    );
    let (code, printed) = serve(&[
        "--database-url",
        "postgres://h/db?sslrootcert=/nowhere&sslmode=verify-ca",
    ]);
    assert_eq!(code, Some(2), "{printed}");
    assert!(printed.contains("sslrootcert /nowhere"), "{printed}");
}

fn parent_of(file: &Path) -> &Path {
    file.parent().unwrap()
}

#[test]
fn an_empty_environment_variable_counts_as_unset() {
    let data = data_dir();
    let mut empty = command(data.path());
    let arguments = Cli::prepared();
    let names = arguments.get_arguments().filter_map(|arg| arg.get_env());
    let mut count = 0;
    for name in names.filter(|name| *name != "WATTGATE_DATA_DIR") {
        empty.env(name, "");
        count += 1;
    }
    assert!(count > 40, "the test looks in the wrong place");
    let flags = [
        "check",
        "--database-url",
        NO_DATABASE,
        "--listen",
        "127.0.0.1:0",
    ];
    let output = empty.args(flags).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    // The configuration is valid. Only the database is wrong.
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        !printed.contains("WATTGATE_") && printed.contains("nothing listens there"),
        "{printed}"
    );
}

const LEFT: &str = "not all readings are stored";

#[test]
fn a_second_signal_warns_only_of_readings_that_are_left() {
    let mut gateway = Gateway::fresh(&[]);
    // A request in flight keeps the gateway from stopping until the second signal.
    let head = "POST /v1/ingestion/meter HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
        content-type: application/json\r\ncontent-length: 100\r\n\r\n";
    let mut stream = gateway.connect();
    stream.write_all(head.as_bytes()).unwrap();
    // Now the gateway has begun to read the body.
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    gateway.signal("INT");
    let events = gateway.events.clone();
    let logged = || fs::read_to_string(&events).unwrap();
    gateway.wait("the stop", |_| logged().contains("stopping"));
    gateway.signal("INT");
    drop(stream);
    assert!(gateway.child.wait().unwrap().success());
    let logged = logged();
    let (_, stop) = logged.split_once("stopping").unwrap();
    assert!(!stop.contains("stored"), "{stop}");
}

#[test]
fn a_stop_logs_how_many_readings_are_left() {
    let data = data_dir();
    let gateway = Gateway::start(data.path(), &["--database-url", NO_DATABASE]);
    let reading =
        r#"{"meterId":"M1","kwhConsumedAc":1,"voltage":230,"timestamp":"2024-02-09T15:30:00Z"}"#;
    assert_eq!(gateway.call("POST", "/v1/ingestion/meter", reading).0, 202);
    let events = gateway.events.clone();
    gateway.terminate();
    let logged = fs::read_to_string(&events).unwrap();
    let line = logged.lines().find(|line| line.contains(LEFT)).unwrap();
    assert!(line.contains(r#""readings":1"#), "{line}");
}
