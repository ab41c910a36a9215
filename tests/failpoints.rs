//! The gateway is ended at each boundary between a request and PostgreSQL. Acknowledged readings are then stored
//! once, and nothing else is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(debug_assertions)]

mod gateway;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::gateway::{DEADLINE, Gateway, data_dir, within};

/// The size of the load.
#[derive(Clone, Copy, PartialEq)]
enum Load {
    Small,
    /// Enough for several segments of the log.
    Large,
}

/// Every boundary, both the first time that it is reached and a later time.
const PLACES: [(&str, &str, Load); 19] = [
    ("segment-begun", "1", Load::Small),
    ("segment-begun", "2", Load::Large),
    ("append", "1", Load::Small),
    ("append", "6", Load::Small),
    ("fsync", "1", Load::Small),
    ("fsync", "6", Load::Small),
    ("ack", "1", Load::Small),
    ("ack", "6", Load::Small),
    ("registered", "1", Load::Small),
    ("registered", "3", Load::Small),
    ("copy-end", "1", Load::Small),
    ("copy-end", "4", Load::Small),
    ("commit-sent", "1", Load::Small),
    ("commit-sent", "4", Load::Small),
    ("commit-answered", "1", Load::Small),
    ("commit-answered", "4", Load::Small),
    ("cursor-moved", "2", Load::Small),
    ("segment-gone", "1", Load::Large),
    ("segment-gone", "2", Load::Large),
];

/// Within this many requests each point must be reached.
const REQUESTS_MAX: u32 = 400;

/// Starts a gateway with two shards on the database of another one.
fn start(data: &Path, url: &str, flags: &[&str]) -> Gateway {
    let mut all = vec!["--database-url", url, "--shards", "2", "--wal-retain", "0"];
    all.extend(flags);
    Gateway::start(data, &all)
}

/// Some readings of one device.
fn body(device: &str, readings: u32) -> String {
    let mut lines = String::new();
    for n in 0..readings {
        let (hour, minute, second) = (n / 3600, n / 60 % 60, n % 60);
        writeln!(
            lines,
            r#"{{"meterId":"{device}","kwhConsumedAc":{n},"voltage":230,"timestamp":"2024-02-09T{hour:02}:{minute:02}:{second:02}Z"}}"#
        )
        .unwrap();
    }
    lines
}

/// Sends a request. Returns the status; `None` means that the gateway has ended.
fn send(gateway: &Gateway, ack: &str, body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(&gateway.address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = format!(
        "POST /v1/ingestion/meter?ack={ack} HTTP/1.0\r\nhost: localhost\r\n\
         content-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut answer = String::new();
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// For each device, how many readings it sent and whether they were acknowledged.
type Debts = BTreeMap<String, (u32, bool)>;

/// Sends until the gateway has ended itself.
fn send_until_it_ends(gateway: &mut Gateway, load: Load, place: usize, debts: &mut Debts) {
    let (readings, tail) = match load {
        Load::Small => (5, String::new()),
        Load::Large => (2000, "\u{1F50B}".repeat(48)),
    };
    for request in 0..REQUESTS_MAX {
        let device = format!("p{place}-{request}-{tail}");
        let ack = ["committed", "durable", "durable"][request as usize % 3];
        let status = send(gateway, ack, &body(&device, readings));
        debts.insert(device, (readings, status.is_some()));
        match status {
            Some(status) => assert!((200..300).contains(&status), "{status}"),
            None => break,
        }
    }
    let (name, time, _) = PLACES[place];
    let began = Instant::now();
    while gateway.child.try_wait().unwrap().is_none() {
        assert!(
            began.elapsed() < DEADLINE,
            "{name} was not reached {time} times"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// How many readings of each device are in history.
fn stored(psql: &str) -> BTreeMap<String, u32> {
    let sql = "select meter_id, count(*) from meter_readings group by meter_id";
    let line = format!("{psql} -XAtq -F ' ' -c '{sql}'");
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().map(|line| line.rsplit_once(' ').unwrap());
    rows.map(|(device, count)| (device.to_owned(), count.parse().unwrap()))
        .collect()
}

/// The URL of another gateway's embedded database.
fn url_of(host: &Gateway) -> String {
    let psql = host.psql.clone().unwrap();
    let words: Vec<&str> = psql.split_whitespace().collect();
    let after = |flag: &str| words[words.iter().position(|word| *word == flag).unwrap() + 1];
    format!(
        "host={} user={} dbname={}",
        after("-h"),
        after("-U"),
        after("-d")
    )
}

/// Every part that runs besides the requests, and the log's two threads.
const PARTS: [&str; 10] = [
    "metrics upkeep",
    "summaries",
    "alerts",
    "writers",
    "a writer",
    "database maintenance",
    "health report",
    "keys and certificates",
    "server",
    "wal-keep",
];

/// If a part panics, its name is logged and the gateway exits with an error within seconds, instead of continuing
/// without it. Acknowledged readings are stored.
#[test]
fn a_part_that_panics_ends_the_gateway_in_order() {
    let (host, data) = (Gateway::fresh(&[]), data_dir());
    let (psql, url) = (host.psql.clone().unwrap(), url_of(&host));
    let file = data.path().join("panic");
    let mut debts: Vec<String> = Vec::new();
    for part in PARTS.into_iter().chain(["wal-append"]) {
        let when = file.to_str().unwrap();
        let flags = ["--panic-in", part, "--panic-when", when];
        let mut gateway = start(data.path(), &url, &flags);
        gateway.wait(part, |g| g.metric("wattgate_database_up") == 1.0);
        for ack in ["committed", "durable"] {
            let device = format!("{}-{ack}", part.replace(' ', "-"));
            let status = send(&gateway, ack, &body(&device, 5));
            assert!(status.is_some_and(|s| s < 300), "{part}: {status:?}");
            debts.push(device);
        }
        fs::write(&file, "").unwrap();
        if part == "wal-append" {
            // The thread wakes only when there is something to write. This request is never acknowledged.
            let status = send(&gateway, "durable", &body("never", 1));
            assert!(status.is_none_or(|s| s >= 500), "{status:?}");
        }
        let mut code = None;
        within(Duration::from_secs(20), part, || {
            code = gateway.child.try_wait().unwrap();
            code.is_some()
        });
        let events = fs::read_to_string(&gateway.events).unwrap();
        assert_eq!(code.unwrap().code(), Some(1), "{part}: {events}");
        let name = match part {
            "wal-keep" => "the thread that keeps the log's segments panicked",
            "wal-append" => "the thread that writes the log panicked",
            other => other,
        };
        assert!(events.contains(name), "{part}: {events}");
        assert!(events.contains("stopping: no more readings are accepted"));
        fs::remove_file(&file).unwrap();
    }
    let gateway = start(data.path(), &url, &[]);
    within(DEADLINE, "all that was acknowledged", || {
        let there = stored(&psql);
        debts.iter().all(|device| there.get(device) == Some(&5))
    });
    gateway.terminate();
    host.terminate();
}

#[test]
fn a_kill_at_any_boundary_loses_nothing_and_doubles_nothing() {
    let (host, data) = (Gateway::fresh(&[]), data_dir());
    let (psql, url) = (host.psql.clone().unwrap(), url_of(&host));
    let mut debts = Debts::new();
    for (place, (name, time, load)) in PLACES.into_iter().enumerate() {
        let flags = ["--end-at", name, "--end-at-time", time];
        let mut gateway = start(data.path(), &url, &flags);
        send_until_it_ends(&mut gateway, load, place, &mut debts);
        drop(gateway);
        let gateway = start(data.path(), &url, &[]);
        let owed = |there: &BTreeMap<String, u32>| {
            let due = debts.iter().filter(|(_, (_, acknowledged))| *acknowledged);
            due.filter(|(device, (readings, _))| there.get(*device) != Some(readings))
                .count()
        };
        within(
            DEADLINE,
            &format!("what was acknowledged before {name} {time}"),
            || owed(&stored(&psql)) == 0,
        );
        gateway.wait("the end of the log", |g| {
            (0..2).all(|shard| {
                let left = format!("wattgate_wal_readings{{shard=\"{shard}\",stream=\"meter\"}}");
                g.metric(&left) == 0.0
            })
        });
        for sum in ["duplicate", "quarantined"] {
            let metric = format!("wattgate_readings_{sum}_total{{stream=\"meter\"}}");
            assert_eq!(gateway.metric(&metric), 0.0, "{sum} after {name} {time}");
        }
        gateway.terminate();
    }
    for (device, count) in stored(&psql) {
        let (readings, _) = debts[&device];
        assert!(count <= readings, "{device} has {count} of {readings}");
    }
    host.terminate();
}
