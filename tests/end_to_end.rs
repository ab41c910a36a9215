//! A reading, from its request to PostgreSQL, with the real binary, its embedded PostgreSQL, real sockets and real
//! kills.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use wattgate::postgres::embedded::{self, EmbeddedConfig};

use crate::gateway::{DEADLINE, Gateway, NO_DATABASE, command, data_dir};

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
    // A reading acknowledged before the kill is sent again, and another reading contradicts an acknowledged one.
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
fn commits_before_the_first_migration_end_in_201_or_503() {
    let data = data_dir();
    let gateway = start(data.path());
    let send = |meter: usize| {
        let path = format!("{METER}?ack=committed");
        let body = reading(0, 1.0).replace("M1", &format!("M{meter}"));
        gateway.wait("201", |g| {
            let (status, answer) = g.exchange("POST", &path, "", &body);
            let problem = answer.contains("content-type: application/problem+json\r\n");
            assert!(status == 201 || status == 503 && problem, "{answer}");
            status == 201
        });
    };
    std::thread::scope(|threads| {
        for meter in 0..4 {
            threads.spawn(move || send(meter));
        }
    });
    assert_eq!(gateway.sql("select count(*) from meter_readings"), "4");
    gateway.terminate();
}

#[test]
fn bad_readings_are_named_and_good_ones_stored() {
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
    let named: Vec<(u64, &str)> = errors
        .iter()
        .map(|e| (e["index"].as_u64().unwrap(), e["field"].as_str().unwrap()))
        .collect();
    let mut expected: Vec<(u64, &str)> = bad.map(|(n, .., field)| (n as u64, field)).to_vec();
    // A misspelt field is unknown, and the correct one is missing.
    expected.push((499, "voltage"));
    assert_eq!(named, expected);
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
fn readings_accepted_without_a_database_are_stored_once() {
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
    // One reading is sent twice while the database is unavailable, as by a device that did not get the response.
    assert_eq!(gateway.call("POST", METER, &reading(7, 1.0)).0, 202);
    let stored = "wattgate_readings_stored_total{stream=\"meter\"}";
    assert_eq!(gateway.metric(stored), 1.0);

    let server = start();
    gateway.wait("what was accepted meanwhile", |g| g.metric(stored) == 50.0);
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

/// The sums of one scrape, both streams together: accepted, stored, duplicates, quarantined, waiting.
fn sums(metrics: &str) -> [f64; 5] {
    [
        "wattgate_readings_accepted_total{",
        "wattgate_readings_stored_total{",
        "wattgate_readings_duplicate_total{",
        "wattgate_readings_quarantined_total{",
        "wattgate_wal_readings{",
    ]
    .map(|name| {
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    })
}

/// Scrapes, and checks that every accepted reading is accounted for (invariant 10).
fn accounted(gateway: &Gateway) -> [f64; 5] {
    let (_, metrics) = gateway.call("GET", "/metrics", "");
    let sums = sums(&metrics);
    let [accepted, stored, duplicates, quarantined, waiting] = sums;
    let known = stored + duplicates + quarantined + waiting;
    assert_eq!(
        accepted, known,
        "accepted, stored, duplicates, quarantined, waiting: {sums:?}"
    );
    sums
}

/// Resets history and checkpoints to the content of saved tables, like restoring a backup.
fn restore(gateway: &Gateway, from: &str) {
    gateway.sql(&format!(
        "begin;
        truncate wal_checkpoints, meter_telemetry_history;
        insert into wal_checkpoints select * from {from}_checkpoints;
        insert into meter_telemetry_history select * from {from}_history;
        update wal_checkpoints set epoch = epoch + 1;
        commit;
        select pg_terminate_backend(pid) from pg_stat_activity
        where application_name like 'wattgate writer%'"
    ));
}

/// The segments of a gateway's log, oldest first.
fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("wal")).unwrap();
    let mut segments: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some("wal".as_ref()))
        .collect();
    segments.sort();
    segments
}

/// A few thousand meter readings, starting at `first`.
fn many(first: u32) -> (u32, String) {
    // Long ids fill segments quickly.
    let long = "\u{1F50B}".repeat(60);
    let next = first + 5000;
    let line = |n: u32| {
        let (device, minute, second) = (n % 50, n / 3000, n / 50 % 60);
        format!(
            r#"{{"meterId":"{device}{long}","kwhConsumedAc":1,"voltage":230,"timestamp":"2024-02-09T15:{minute:02}:{second:02}Z"}}"#
        )
    };
    let lines: Vec<String> = (first..next).map(line).collect();
    (next, format!("[{}]", lines.join(",")))
}

#[test]
fn the_sums_stay_exact_across_an_old_backup() {
    let data = data_dir();
    let gateway = Gateway::ready(data.path(), &["--wal-retain", "0", "--shards", "2"]);
    let send = |first| {
        let (next, body) = many(first);
        let (status, answer) = gateway.call("POST", &format!("{METER}?ack=committed"), &body);
        assert_eq!(status, 201, "{answer}");
        next
    };
    let back_up = |name: &str| {
        gateway.sql(&format!(
            "create table {name}_checkpoints as select * from wal_checkpoints;
            create table {name}_history as select * from meter_telemetry_history"
        ));
    };
    let gap = |g: &Gateway| {
        accounted(g);
        g.metric("wattgate_wal_gap_readings")
    };
    let rows = |g: &Gateway| g.sql("select count(*) from meter_telemetry_history");
    let drained = |g: &Gateway| accounted(g)[4] == 0.0;
    let mut sent = send(0);
    back_up("older");
    let oldest = segments(data.path()).remove(0);
    while segments(data.path()).contains(&oldest) {
        sent = send(sent);
    }
    back_up("newer");
    assert_eq!(
        accounted(&gateway),
        [f64::from(sent), f64::from(sent), 0.0, 0.0, 0.0]
    );
    restore(&gateway, "older");
    let there = |g: &Gateway| rows(g).parse::<f64>().unwrap();
    gateway.wait("the gap, and what the log holds", |g| {
        gap(g) > 0.0 && there(g) + gap(g) == f64::from(sent) && drained(g)
    });
    let again = there(&gateway) - 5000.0;
    // Readings that came back count as accepted twice.
    let [accepted, stored, ..] = accounted(&gateway);
    assert_eq!([accepted, stored], [f64::from(sent) + again; 2]);
    // A newer backup, which contains what was lost.
    restore(&gateway, "newer");
    gateway.wait("no gap", |g| gap(g) == 0.0);
    sent = send(sent);
    gateway.wait("all of it", |g| drained(g) && there(g) == f64::from(sent));
    gateway.terminate();
}

#[test]
fn a_refused_statement_is_logged_with_its_reason() {
    let data = data_dir();
    let gateway = Gateway::ready(data.path(), &[]);
    gateway.sql("alter table alerts rename column kind to sort");
    let (status, answer) = gateway.call("GET", "/v1/alerts", "");
    assert_eq!(status, 500, "{answer}");
    assert!(
        !answer.contains("column"),
        "no internals to a client: {answer}"
    );
    let events = fs::read_to_string(data.path().join("events")).unwrap();
    let event = events
        .lines()
        .find(|line| line.contains("refused a request's statement"));
    let event = event.unwrap();
    assert!(
        event.contains("42703") && event.contains("a.kind"),
        "{event}"
    );
    gateway.terminate();
}

#[test]
fn a_service_manager_learns_that_the_gateway_is_ready_alive_and_stopping() {
    let data = data_dir();
    let socket = UnixDatagram::bind(data.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    // Reads messages up to one with this line. Returns the lines before it.
    let until = |line: &str| -> Vec<String> {
        let (mut seen, mut message) = (Vec::new(), [0; 4096]);
        loop {
            let length = socket.recv(&mut message).unwrap();
            let text = String::from_utf8(message[..length].to_vec()).unwrap();
            seen.extend(text.lines().map(str::to_owned));
            if seen.iter().any(|seen| seen.starts_with(line)) {
                return seen;
            }
        }
    };
    let mut command = command(data.path());
    command
        .env("DATABASE_URL", NO_DATABASE)
        .env("NOTIFY_SOCKET", data.path().join("notify"))
        .env("WATCHDOG_USEC", "200000");
    let gateway = Gateway::spawn(command, data.path());
    // The gateway is ready as soon as it accepts readings, even without a database, and the status says so.
    until("READY=1");
    let (status, body) = gateway.call("POST", METER, &reading(1, 1.0));
    assert_eq!(status, 202, "{body}");
    until("STATUS=unready; database down");
    until("WATCHDOG=1");
    gateway.signal("TERM");
    until("STOPPING=1");
}
