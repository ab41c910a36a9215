//! Many clients that are slow, silent, idle, or never read, next to a normal client.
//!
//!     cargo test --release --test slow_clients -- --ignored --nocapture
//!
//! opens thousands of them and prints figures. The default suite opens a few, and checks that the normal client is
//! served.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::gateway::{Gateway, NO_DATABASE, command, data_dir};

const READING: &str =
    r#"{"meterId":"M1","kwhConsumedAc":1,"voltage":240.5,"timestamp":"2024-02-09T15:30:00Z"}"#;

fn resident_kib(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/status", gateway.child.id());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.map(|l| l.chars().filter(char::is_ascii_digit).collect::<String>());
    digits.and_then(|d| d.parse().ok()).unwrap_or_default()
}

/// Sends readings on one connection. Returns the 50th and 99th percentile of the response times.
fn normal(gateway: &Gateway, requests: usize) -> (Duration, Duration) {
    let mut stream = gateway.connect();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let request = format!(
        "POST /v1/ingestion/meter?ack=buffered HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{READING}",
        READING.len()
    );
    let mut took: Vec<Duration> = (0..requests)
        .map(|_| {
            let began = Instant::now();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 1024];
            let mut length = 0;
            while !answer[..length].ends_with(b"}") {
                let more = stream.read(&mut answer[length..]).unwrap();
                assert!(more > 0, "the connection was closed");
                length += more;
            }
            assert!(answer.starts_with(b"HTTP/1.1 202"));
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    (took[requests / 2], took[requests * 99 / 100])
}

/// What a slow client has sent when it falls silent.
const HALVES: [&str; 4] = [
    "",
    "POST /v1/ingestion/meter HTT",
    "POST /v1/ingestion/meter HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
     content-length: 60000\r\n\r\n[",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// Opens slow clients, a quarter of which never read, and clients that are idle after a request.
fn open(gateway: &Gateway, slow: usize, idle: usize) -> (Vec<TcpStream>, Vec<TcpStream>) {
    let slow = (0..slow).map(|n| {
        let mut stream = gateway.connect();
        stream
            .write_all(HALVES[n % HALVES.len()].as_bytes())
            .unwrap();
        if n % HALVES.len() == 0 {
            // Requests a lot and reads nothing.
            stream.set_nonblocking(true).unwrap();
            let request = "GET /openapi.yaml HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(200);
            // As much as fits, without blocking.
            stream.write_all(request.as_bytes()).ok();
            stream.set_nonblocking(false).unwrap();
        }
        stream
    });
    let slow: Vec<TcpStream> = slow.collect();
    let idle = (0..idle).map(|_| {
        let mut stream = gateway.connect();
        let request = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).unwrap();
        stream
    });
    (slow, idle.collect())
}

/// Sends a byte a second from each client that is in the middle of a request.
fn dribble(slow: &[TcpStream], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for (n, mut stream) in slow.iter().enumerate() {
            if n % HALVES.len() == 1 || n % HALVES.len() == 2 {
                stream.write_all(b" ").ok();
            }
        }
        thread::park_timeout(Duration::from_secs(1));
    }
}

fn beside(slow: usize, idle: usize, requests: usize) -> [(Duration, Duration); 2] {
    let data = data_dir();
    let mut alone = command(data.path());
    alone
        .args(["--shutdown-timeout", "100ms"])
        .env("DATABASE_URL", NO_DATABASE);
    let gateway = Gateway::spawn(alone, data.path());
    normal(&gateway, requests / 4);
    let alone = normal(&gateway, requests);
    let before = resident_kib(&gateway);
    let (slow, idle) = open(&gateway, slow, idle);
    let stop = Arc::new(AtomicBool::new(false));
    let beside = thread::scope(|scope| {
        let dribbling = scope.spawn(|| dribble(&slow, &stop));
        let beside = normal(&gateway, requests);
        stop.store(true, Ordering::Relaxed);
        dribbling.thread().unpark();
        beside
    });
    let after = resident_kib(&gateway);
    #[expect(
        clippy::print_stdout,
        reason = "the figures are what the long form is run for"
    )]
    {
        println!(
            "{} slow and {} idle: p50 {:?} (alone {:?}), p99 {:?} (alone {:?}); memory {before} KiB \
         alone, {after} KiB beside them",
            slow.len(),
            idle.len(),
            beside.0,
            alone.0,
            beside.1,
            alone.1
        );
    }
    [alone, beside]
}

#[test]
fn slow_clients_do_not_keep_others_from_being_served() {
    beside(60, 200, 300);
}

#[test]
#[ignore = "opens 11,000 connections and measures: a release build on a quiet machine"]
fn many_slow_clients_at_most_double_the_time_of_an_answer() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let [alone, beside] = beside(1000, 10_000, 20_000);
    assert!(
        beside.1 <= 2 * alone.1,
        "p99 {:?}, alone {:?}",
        beside.1,
        alone.1
    );
}
