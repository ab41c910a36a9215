//! `wattgate wal`, with the real binary, on logs written by the library.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use wattgate::reading::{Details, Energy, EnergyKind, ExternalId, Reading, Timestamp};
use wattgate::wal::append::{Append, Message, RequestRecords, Reservation};
use wattgate::wal::frame::Position;
use wattgate::wal::reader::Next;
use wattgate::wal::storage::Directory;
use wattgate::wal::{Log, LogOptions, LogSource, SyncMode, record};

use crate::gateway::{DEADLINE, Gateway, NO_DATABASE, data_dir, ended};

const SHARDS: u16 = 2;
/// The segment size of the smallest log.
const SEGMENT_BYTES: usize = 8 << 20;

fn open_log(data: &Path) -> Log {
    let options = LogOptions {
        shards: SHARDS,
        limit_bytes: 64 << 20,
        retain_bytes: 0,
        sync: SyncMode::Always,
    };
    let directory = Directory::open(&data.join("wal")).unwrap();
    Log::open(Arc::new(directory), options).unwrap()
}

/// Appends one group of readings with distinct times.
fn append(log: &Log, serials: std::ops::Range<i64>) {
    let place = "\u{1F50B}".repeat(60);
    let ids: Vec<String> = (0..50).map(|n| format!("{n:02}{place}")).collect();
    let mut records = RequestRecords::new(SHARDS);
    for serial in serials {
        records.push(&Reading {
            device: ExternalId::new(&ids[serial as usize % ids.len()]).unwrap(),
            at: Timestamp::Y2000.plus_micros(serial),
            energy: Energy {
                kwh: serial as f64,
                kind: EnergyKind::Interval,
            },
            details: Details::Meter { voltage: 230.0 },
        });
    }
    let needed = records.log_bytes_max();
    let began = Instant::now();
    let reservation = loop {
        if let Some(reservation) = log.budget().try_reserve(needed) {
            break reservation;
        }
        assert!(began.elapsed() < DEADLINE, "no segment was made ready");
        std::thread::yield_now();
    };
    let (sender, reply) = oneshot::channel();
    let append = Append {
        chunks: records.into_chunks(),
        reservation,
        memory: Reservation::nothing(&Arc::default()),
        wants_places: false,
        reply: Some(sender),
    };
    log.sender().send(Message::Append(append)).unwrap();
    assert!(reply.blocking_recv().unwrap().is_ok());
}

/// The serials in a log, and the end of each run.
fn read(source: &LogSource) -> (BTreeSet<i64>, Vec<Option<Position>>) {
    let mut serials = BTreeSet::new();
    let runs = source.runs();
    for run in &runs {
        for shard in 0..run.shards {
            let mut reader = source.reader(run, shard, run.first_position());
            while let Next::Frame(item) = reader.next_frame().unwrap() {
                let mut records = item.section.records;
                while !records.is_empty() {
                    let reading = record::decode(&mut records).unwrap();
                    let serial = reading.at.as_micros() - Timestamp::Y2000.as_micros();
                    assert!(serials.insert(serial), "{serial} twice");
                }
            }
        }
    }
    (serials, runs.into_iter().map(|r| r.end).collect())
}

/// A closed log with this many groups of 1000 readings.
fn closed_log(groups: i64) -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    let log = open_log(data.path());
    for group in 0..groups {
        append(&log, group * 1000..(group + 1) * 1000);
    }
    log.close().stop();
    data
}

fn wal(data: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wattgate"))
        .arg("wal")
        .args(words)
        .arg("--data-dir")
        .arg(data)
        .env_remove("DATABASE_URL")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("wal")).unwrap();
    let mut segments: Vec<PathBuf> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "wal"))
        .collect();
    segments.sort();
    segments
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

/// All files of a log, to check that nothing has changed.
fn contents(data: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(data.join("wal")).unwrap();
    let mut files: Vec<_> = entries
        .map(|e| e.unwrap().path())
        .map(|p| (p.clone(), fs::read(p).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn inspect_reads_a_log_in_use_and_changes_nothing() {
    let data = closed_log(2);
    let log = open_log(data.path());
    append(&log, 5000..5100);
    let output = wal(data.path(), &["inspect"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        "2 runs",
        "a gateway is using it",
        "2 shards",
        "not bound to a database yet",
        "ended",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let output = wal(data.path(), &["inspect", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["inUse"], true);
    assert_eq!(found["faults"], 0);
    let counts = |run: usize| -> u64 {
        let shards = found["runs"][run]["shards"].as_array().unwrap();
        shards
            .iter()
            .map(|s| s["readings"]["meter"].as_u64().unwrap())
            .sum()
    };
    assert_eq!((counts(0), counts(1)), (2000, 100));
    assert_eq!(found["runs"][0]["ended"], true);
    assert_eq!(found["runs"][1]["ended"], false);
    assert_eq!(
        found["runs"][1]["end"]["position"].as_i64(),
        Some(log.progress().synced().to_i64())
    );
    let before = contents(data.path());
    assert!(wal(data.path(), &["verify"]).status.success());
    assert_eq!(contents(data.path()), before);
    // The log is in use, so a copy could be inconsistent.
    let into = data.path().join("copy");
    let output = wal(data.path(), &["repair", "--into", into.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));
    assert!(!into.exists());
    log.close().stop();
}

#[test]
fn verify_finds_damage_and_repair_copies_all_that_is_sound() {
    let data = closed_log(90);
    let whole = segments(data.path());
    assert!(whole.len() > 2, "the log has one segment only");
    let log = open_log(data.path());
    let (_, ends) = read(&log.source());
    log.close().stop();
    let output = wal(data.path(), &["verify"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("90000 readings intact, no damage"));
    // Damages a frame in the first segment and the header of the second.
    flip(&whole[0], 6 << 20);
    flip(&whole[1], 3);
    let damaged = contents(data.path());
    let output = wal(data.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    for segment in &whole[..2] {
        assert!(
            text.contains(&format!("{} at byte ", name(segment))),
            "{text}"
        );
    }
    assert!(stderr(&output).contains("2 places"), "{}", stderr(&output));
    let found = wal(data.path(), &["verify", "--json"]).stdout;
    let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
    let lost = found["runs"][0]["lost"].as_u64().unwrap();
    assert!((1..5000).contains(&lost), "{lost}");

    let copy = tempfile::tempdir().unwrap();
    let into = copy.path().join("wal");
    let output = wal(data.path(), &["repair", "--into", into.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert!(
        printed.contains(&format!("{lost} readings lost")),
        "{printed}"
    );
    assert_eq!(contents(data.path()), damaged, "the log itself was changed");
    assert!(wal(copy.path(), &["verify"]).status.success());
    // The copy is a valid log: everything that was not lost can be read, at the same positions.
    let log = open_log(copy.path());
    let (serials, copied_ends) = read(&log.source());
    assert_eq!(serials.len() as u64, 90_000 - lost);
    assert_eq!(copied_ends[0], ends[0], "the checkpoints would not fit");
    log.close().stop();
    // It never overwrites files.
    let output = wal(data.path(), &["repair", "--into", into.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("must be empty"));
}

#[test]
fn repair_keeps_the_rest_of_a_log_with_a_missing_segment() {
    let data = closed_log(90);
    let whole = segments(data.path());
    fs::remove_file(&whole[1]).unwrap();
    let output = wal(data.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("the segment before it is missing"));
    let copy = tempfile::tempdir().unwrap();
    let into = copy.path().join("wal");
    let output = wal(data.path(), &["repair", "--into", into.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let log = open_log(copy.path());
    let (serials, _) = read(&log.source());
    assert!(serials.contains(&0) && serials.contains(&89_999));
    let lost = 90_000 - serials.len();
    assert!(lost * 200 < SEGMENT_BYTES && lost > 1000, "{lost}");
    assert!(stdout(&output).contains(&format!("{lost} readings lost")));
    log.close().stop();
}

#[test]
fn a_log_of_another_version_is_reported_and_not_repaired() {
    let data = closed_log(1);
    let segment = segments(data.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    // The version in the segment's header.
    bytes[8] += 1;
    fs::write(&segment, &bytes).unwrap();
    let before = contents(data.path());
    let output = wal(data.path(), &["verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("version"), "{}", stdout(&output));
    let copy = tempfile::tempdir().unwrap();
    let into = copy.path().join("wal");
    let output = wal(data.path(), &["repair", "--into", into.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("another version of the format"));
    assert_eq!(contents(data.path()), before);
}

#[test]
fn a_log_cut_by_a_crash_is_not_damaged() {
    let data = closed_log(3);
    let segment = segments(data.path()).remove(0);
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 100]).unwrap();
    let output = wal(data.path(), &["verify"]);
    assert!(
        output.status.success(),
        "{}{}",
        stdout(&output),
        stderr(&output)
    );
    let output = wal(data.path(), &["inspect"]);
    assert!(stdout(&output).contains("not ended"));
}

#[test]
fn a_missing_log_is_reported() {
    let data = tempfile::tempdir().unwrap();
    for words in [
        &["inspect"][..],
        &["verify"],
        &["adopt"],
        &["accept-gap"],
        &["repair", "--into", "x"],
    ] {
        let output = wal(data.path(), words);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("there is no write-ahead log in"));
    }
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
}

#[test]
fn a_log_in_memory_is_refused_unless_it_is_allowed() {
    // If there is no tmpfs in the usual place, nothing can be refused.
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts
        .lines()
        .any(|l| l.split(' ').nth(1) == Some("/dev/shm"))
    {
        println!("skipped: it needs a tmpfs at /dev/shm");
        return;
    }
    let data = tempfile::tempdir_in("/dev/shm").unwrap();
    let start = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        command
            .args(["--listen", "127.0.0.1:0", "--wal-limit", "64MiB"])
            .args(["--database-url", "postgres://nobody@127.0.0.1:1/none"])
            .arg("--data-dir")
            .arg(data.path())
            .args(more);
        command
    };
    let (code, printed) = ended(start(&[]), data.path());
    assert_eq!(code, Some(2), "{printed}");
    assert!(
        printed.contains("tmpfs") && printed.contains("--wal-allow-volatile"),
        "{printed}"
    );
    let allowed = start(&["--wal-allow-volatile"]);
    Gateway::spawn(allowed, data.path()).kill();
}

#[test]
fn a_log_of_another_database_waits_until_an_operator_adopts_it() {
    let data = data_dir();
    let reading = |minute: u32| {
        format!(
            r#"{{"meterId":"M1","kwhConsumedAc":1.0,"voltage":230.0,"timestamp":"2024-02-09T15:{minute:02}:00Z"}}"#
        )
    };
    let committed = "/v1/ingestion/meter?ack=committed";
    let gateway = Gateway::start(data.path(), &[]);
    gateway.wait("the first commit", |g| {
        g.call("POST", committed, &reading(0)).0 == 201
    });
    gateway.terminate();
    let binding = data.path().join("wal/database");
    let own = fs::read_to_string(&binding).unwrap();
    fs::write(&binding, "00000000-0000-4000-8000-000000000001\n").unwrap();

    let gateway = Gateway::start(data.path(), &[]);
    let stored = |g: &Gateway| g.metric("wattgate_readings_stored_total{stream=\"meter\"}");
    // Readings are accepted and stay in the log.
    assert_eq!(
        gateway.call("POST", "/v1/ingestion/meter", &reading(1)).0,
        202
    );
    gateway.wait("the refusal of the writers", |g| {
        let (status, answer) = g.call("GET", "/health/ready", "");
        status == 503 && answer.contains("000000000001")
    });
    assert_eq!(stored(&gateway), 0.0);
    let output = wal(data.path(), &["adopt"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains(own.trim()), "{}", stdout(&output));
    gateway.wait("what had waited", |g| stored(g) == 1.0);
    assert_eq!(fs::read_to_string(&binding).unwrap(), own);
    let output = wal(data.path(), &["adopt"]);
    assert!(stdout(&output).contains("already"), "{}", stdout(&output));
    gateway.terminate();
}

#[test]
fn a_logs_first_binding_has_its_room_before_there_is_a_database() {
    use std::os::unix::fs::MetadataExt;
    let data = data_dir();
    Gateway::start(data.path(), &["--database-url", NO_DATABASE]).terminate();
    let inode = |name: &str| fs::metadata(data.path().join("wal").join(name)).map(|m| m.ino());
    let reserved = inode("database.new").unwrap();
    let gateway = Gateway::ready(data.path(), &[]);
    assert_eq!(inode("database").unwrap(), reserved);
    gateway.terminate();
}

/// A gateway that retains no stored readings.
fn forgetful(data: &Path) -> Gateway {
    Gateway::start(data, &["--wal-retain", "0"])
}

fn commit(gateway: &Gateway, minutes: std::ops::Range<u32>) {
    gateway.wait("readiness", Gateway::is_ready);
    for minute in minutes {
        let reading = format!(
            r#"{{"meterId":"M1","kwhConsumedAc":1.0,"voltage":230.0,"timestamp":"2024-02-09T15:{minute:02}:00Z"}}"#
        );
        let answer = gateway.call("POST", "/v1/ingestion/meter?ack=committed", &reading);
        assert_eq!(answer.0, 201, "{}", answer.1);
    }
}

/// Stores three readings in a run that is then retired, and restores a cluster from before that.
fn lose_three_readings(data: &Path) {
    let (wal_dir, cluster) = (data.join("wal"), data.join("postgres/cluster"));
    let gateway = forgetful(data);
    commit(&gateway, 0..2);
    gateway.terminate();
    let backup = data.join("backup");
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.unwrap().success());
    };
    copy(&cluster, &backup);
    let gateway = forgetful(data);
    commit(&gateway, 2..5);
    gateway.terminate();
    let gateway = forgetful(data);
    gateway.wait("an empty log", |_| {
        let mut entries = fs::read_dir(&wal_dir).unwrap();
        entries.all(|entry| entry.unwrap().path().extension() != Some("wal".as_ref()))
    });
    gateway.terminate();
    fs::remove_dir_all(&cluster).unwrap();
    copy(&backup, &cluster);
}

#[test]
fn what_a_backup_lacks_is_reported_until_an_operator_accepts_it() {
    let data = data_dir();
    lose_three_readings(data.path());
    let gateway = forgetful(data.path());
    let gap = |g: &Gateway| g.metric("wattgate_wal_gap_readings");
    gateway.wait("the gap", |g| gap(g) == 3.0);
    let (status, answer) = gateway.call("GET", "/health/ready", "");
    assert_eq!(status, 503);
    assert!(answer.contains(r#""gap":{"readings":3}"#), "{answer}");
    let printed = fs::read_to_string(&gateway.events).unwrap();
    assert!(printed.contains("readings are lost"), "{printed}");
    let check = || {
        let mut command = gateway::command(data.path());
        command.arg("check").output().unwrap()
    };
    let output = check();
    assert!(
        stderr(&output).contains("3 readings that were stored are in neither"),
        "{}",
        stderr(&output)
    );
    let output = wal(data.path(), &["accept-gap"]);
    assert!(
        stdout(&output).contains("3 readings are given up"),
        "{}",
        stderr(&output)
    );
    gateway.wait("readiness", Gateway::is_ready);
    assert_eq!(gap(&gateway), 0.0);
    assert!(check().status.success());
    let output = wal(data.path(), &["accept-gap"]);
    assert!(stdout(&output).contains("no gap"), "{}", stdout(&output));
    gateway.terminate();
    let gateway = forgetful(data.path());
    gateway.wait("readiness", Gateway::is_ready);
    assert_eq!(gap(&gateway), 0.0);
    gateway.terminate();
}
