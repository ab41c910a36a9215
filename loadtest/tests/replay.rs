//! The whole replay as a program, with a gateway in memory.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy does not take for tests"
)]

mod fake;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fake::Faults;
use serde_json::Value;

const DAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/jpl_2019-05-03.csv");

/// The total energy if each session were credited with its station's whole day.
const NAIVE_KWH: f64 = 2_234.905;

fn replay(address: SocketAddr, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wattgate-loadtest"))
        .args(["replay", DAY, "--url", &format!("http://{address}")])
        .args(more)
        .output()
        .unwrap()
}

fn assert_exit(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A test's own file, removed when dropped.
struct TempFile(std::path::PathBuf);

impl TempFile {
    fn new(name: &str) -> Self {
        let name = format!("wattgate-loadtest-{}-{name}", std::process::id());
        TempFile(std::env::temp_dir().join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[test]
fn a_replay_agrees_with_the_data_session_by_session() {
    let (address, state) = fake::start(Faults::default());
    let table = TempFile::new("table.json");
    let output = replay(address, &["--speed", "max", "--json", table.path()]);
    assert_exit(&output, 0);
    let json: Value = serde_json::from_slice(&std::fs::read(&table.0).unwrap()).unwrap();
    assert_eq!(json["totals"]["sessions"], 86);
    assert_eq!(json["totals"]["stations"], 52);
    assert_eq!(json["totals"]["stationsShared"], 27);
    assert_eq!(json["totals"]["sessionsWrong"], 0);
    let gateway = json["totals"]["gatewayAcKwh"].as_f64().unwrap();
    assert!((gateway - 1_157.065).abs() < 1e-6, "{gateway}");
    let state = state.lock().unwrap();
    assert_eq!(state.sessions.len(), 86);
    assert!(
        state
            .sessions
            .values()
            .all(|session| session.ended.is_some())
    );
    assert_eq!(state.meters.len(), state.vehicles.len());
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("derived by this program, not measured"),
        "{text}"
    );
}

#[test]
fn refusals_and_broken_connections_change_nothing() {
    let faults = Faults {
        refuse_every: 150,
        drop_every: 7,
        ..Faults::default()
    };
    let (address, state) = fake::start(faults);
    let output = replay(address, &["--speed", "max"]);
    assert_exit(&output, 0);
    let state = state.lock().unwrap();
    assert!(state.repeats > 500, "{}", state.repeats);
    let total: f64 = state.meters.values().sum();
    assert!((total - 1_157.065).abs() < 1e-6, "{total}");
}

#[test]
fn a_second_replay_finds_everything_known_and_agrees_too() {
    let (address, state) = fake::start(Faults::default());
    assert_exit(&replay(address, &["--speed", "max"]), 0);
    let readings = state.lock().unwrap().meters.len();
    assert_exit(&replay(address, &["--speed", "max"]), 0);
    assert_eq!(state.lock().unwrap().meters.len(), readings);
}

#[test]
fn sessions_may_be_registered_after_the_readings() {
    let (address, state) = fake::start(Faults::default());
    assert_exit(&replay(address, &["--speed", "max", "--sessions-late"]), 0);
    assert_eq!(state.lock().unwrap().sessions.len(), 86);
}

#[test]
fn random_order_and_late_sessions_give_the_same_answers() {
    let table = |name, more: &[&str]| {
        let (address, state) = fake::start(Faults::default());
        let file = TempFile::new(name);
        assert_exit(
            &replay(address, &[more, &["--json", file.path()]].concat()),
            0,
        );
        let json: Value = serde_json::from_slice(&std::fs::read(&file.0).unwrap()).unwrap();
        let first = state.lock().unwrap().first_reading;
        (json, first)
    };
    let (in_order, earliest) = table("in-order.json", &["--speed", "max"]);
    let late = ["--sessions-late", "--shuffle", "3"];
    let (shuffled, first) = table("shuffled.json", &late);
    assert_eq!(shuffled["sessions"], in_order["sessions"]);
    assert_eq!(shuffled["totals"]["sessionsWrong"], 0);
    assert_ne!(first, earliest);
    // 86 sessions with 1,157.065 kWh. Only 25 of the 52 stations served a single vehicle that day.
    let naive = in_order["totals"]["wholeStationDaysKwh"].as_f64().unwrap();
    assert!((naive - NAIVE_KWH).abs() < 1e-6, "{naive}");
}

#[test]
fn several_files_are_one_recording_compressed_or_not() {
    let day = std::fs::read_to_string(DAY).unwrap();
    let lines: Vec<&str> = day.lines().collect();
    let (head, tail) = lines[1..].split_at(40);
    let (one, two) = (TempFile::new("one.csv"), TempFile::new("two.csv.gz"));
    let rows = |rows: &[&str]| [&lines[..1], rows].concat().join("\n");
    std::fs::write(&one.0, rows(tail)).unwrap();
    let file = std::fs::File::create(&two.0).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    packed.write_all(rows(head).as_bytes()).unwrap();
    packed.finish().unwrap();
    let (address, state) = fake::start(Faults::default());
    let output = Command::new(env!("CARGO_BIN_EXE_wattgate-loadtest"))
        .args(["replay", one.path(), two.path(), "--speed", "max"])
        .args(["--url", &format!("http://{address}")])
        .output()
        .unwrap();
    assert_exit(&output, 0);
    assert_eq!(state.lock().unwrap().sessions.len(), 86);
}

#[test]
fn a_gateway_that_is_slightly_wrong_is_found_out() {
    let (address, _state) = fake::start(Faults {
        corrupt_kwh: 0.000_02,
        ..Faults::default()
    });
    let output = replay(address, &["--speed", "max", "--settle", "0"]);
    assert_exit(&output, 1);
    assert!(String::from_utf8_lossy(&output.stdout).contains("WRONG"));
}

#[test]
fn a_replay_gives_up_on_a_missing_gateway_on_request() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let output = replay(address, &["--speed", "max", "--give-up-after", "1"]);
    assert_exit(&output, 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("given up"));
}

/// Starts a live replay, waits until it has caught up with the present, and stops it with Ctrl-C.
fn live(address: SocketAddr, caught_up: impl Fn() -> bool) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wattgate-loadtest"))
        .args(["replay", DAY, "--url", &format!("http://{address}")])
        .args(["--as-now", "--give-up-after", "20"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !caught_up() {
        assert!(Instant::now() < deadline, "not caught up in time");
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        std::thread::yield_now();
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    child.wait_with_output().unwrap()
}

#[test]
fn a_second_live_replay_continues_the_first() {
    let (address, state) = fake::start(Faults::default());
    let now_us = jiff::Timestamp::now().as_microsecond();
    let caught_up = || {
        let state = state.lock().unwrap();
        let newest = state.meters.keys().map(|(_, at)| *at).max();
        newest.is_some_and(|newest| newest > now_us - 60_000_000)
    };
    assert_exit(&live(address, caught_up), 0);
    let (sessions, readings) = {
        let state = state.lock().unwrap();
        let running = state.sessions.values().filter(|s| s.ended.is_none());
        assert!(running.count() > 40);
        let now_us = jiff::Timestamp::now().as_microsecond();
        assert!(state.meters.keys().all(|(_, at)| *at <= now_us));
        let oldest = state.meters.keys().map(|(_, at)| *at).min();
        assert!(oldest.is_some_and(|oldest| oldest < now_us - 86_000_000_000));
        (state.sessions.len(), state.meters.len())
    };
    assert!(sessions > 86, "{sessions}");
    let repeats = || state.lock().unwrap().repeats as usize > 2 * readings;
    assert_exit(&live(address, repeats), 0);
    // The same sessions and readings again. Only what has happened since then is new.
    let state = state.lock().unwrap();
    assert!(state.sessions.len() <= sessions + 2);
    assert!(state.meters.len() <= readings + 200);
}
