//! Promotions: the gateway follows them, and the old primary gets nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::gateway::{DEADLINE, Gateway, data_dir, within};
use crate::servers::{NAME, Server, Servers, program, url};

const WRITERS: &str = "wattgate writer";

fn start(data: &Path, url: &str) -> Gateway {
    Gateway::start(data, &["--database-url", url, "--commit-timeout", "50s"])
}

fn ready(data: &Path, url: &str) -> Gateway {
    let gateway = start(data, url);
    gateway.wait("readiness", Gateway::is_ready);
    gateway
}

/// A meter reading, by its number.
fn reading(number: u64) -> String {
    let at = jiff::Timestamp::from_second(1_707_492_600 + number as i64).unwrap();
    format!(r#"[{{"meterId":"M{number}","kwhConsumedAc":1,"voltage":230,"timestamp":"{at}"}}]"#)
}

/// Sends a reading. Returns whether the response was 201.
fn sent(gateway: &Gateway, number: u64) -> bool {
    let (status, answer) = gateway.call(
        "POST",
        "/v1/ingestion/meter?ack=committed",
        &reading(number),
    );
    assert!([201, 503].contains(&status), "{answer}");
    status == 201
}

fn store(gateway: &Gateway, numbers: std::ops::Range<u64>) {
    for number in numbers {
        within(DEADLINE, "an acknowledgement", || sent(gateway, number));
    }
}

fn health(gateway: &Gateway) -> Value {
    serde_json::from_str(&gateway.call("GET", "/health", "").1).unwrap()
}

fn timeline(gateway: &Gateway) -> Option<u64> {
    health(gateway)["servers"]["timeline"].as_u64()
}

/// The numbers of the stored readings.
fn stored(server: &Server) -> BTreeSet<u64> {
    let all = server.sql("select substr(meter_id, 2) from meter_readings");
    all.lines().map(|line| line.parse().unwrap()).collect()
}

/// Waits until a server holds all of these readings.
fn holds(server: &Server, numbers: &BTreeSet<u64>) {
    within(DEADLINE, "all readings", || {
        stored(server).is_superset(numbers)
    });
}

/// Waits until no session stores or queries there. A session that is being refused may still appear briefly.
fn is_left(server: &Server) {
    within(DEADLINE, "the end of all sessions", || {
        server.sessions(WRITERS) + server.sessions("wattgate reads") == 0
    });
}

#[test]
fn an_old_primary_that_comes_back_gets_nothing() {
    let (servers, data) = (Servers::new(), data_dir());
    let mut old = servers.primary("old");
    let mut new = servers.standby("new", &old);
    let hosts = url(&[&old, &new]);
    let gateway = ready(data.path(), &hosts);
    store(&gateway, 0..3);
    old.crash();
    new.promote();
    store(&gateway, 3..6);
    holds(&new, &(0..6).collect());
    // It accepts writes and comes first in the list.
    old.start();
    let before = old.readings();
    gateway.wait("the refusal", |it| {
        let report = health(it);
        let reason = report["servers"]["reason"].as_str().unwrap_or_default();
        report["status"] == "ready" && reason.contains("old primary")
    });
    gateway.wait("the metric", |it| {
        it.metric("wattgate_database_servers_refused") == 1.0
    });
    assert_eq!(gateway.metric("wattgate_database_timeline"), 2.0);
    for round in 0..3 {
        new.end_sessions();
        store(&gateway, 6 + round..7 + round);
    }
    let events = std::fs::read_to_string(&gateway.events).unwrap();
    assert!(events.contains("old primary"), "{events}");
    // The gateway remembers the newer server across a restart.
    gateway.kill();
    let gateway = ready(data.path(), &hosts);
    store(&gateway, 9..12);
    holds(&new, &(0..12).collect());
    is_left(&old);
    assert_eq!(old.readings(), before);
    // Queries do not reach it either.
    assert_eq!(gateway.get("/v1/live/meters/M11")["meterId"], "M11");
    is_left(&old);

    // Only the old one is left. An operator must confirm that it is the right one.
    new.crash();
    gateway.wait("the refusal", |it| {
        let report = health(it);
        let reason = report["database"]["reason"].as_str().unwrap_or_default();
        report["status"] == "unready" && reason.contains("old primary")
    });
    let adopted = Command::new(env!("CARGO_BIN_EXE_wattgate"))
        .args([
            "wal",
            "adopt",
            "--database-url",
            &url(&[&old]),
            "--data-dir",
        ])
        .arg(data.path())
        .output()
        .unwrap();
    assert!(adopted.status.success(), "{adopted:?}");
    store(&gateway, 12..13);
    holds(&old, &(0..13).collect());
    gateway.wait("the adopted server", |it| timeline(it) == Some(1));
}

/// Sets a flag when it is dropped.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_promotion_ends_sessions_on_a_primary_that_still_serves() {
    let (servers, data) = (Servers::new(), data_dir());
    let old = servers.primary("old");
    let new = servers.standby("new", &old);
    let gateway = ready(data.path(), &url(&[&old, &new]));
    store(&gateway, 0..1);
    let (committed, done) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // A panic here must not leave the client threads running.
        let _end = Sets(&done);
        for first in [100, 200_000, 400_000] {
            let (gateway, committed, done) = (&gateway, &committed, &done);
            scope.spawn(move || {
                for number in first.. {
                    if sent(gateway, number) {
                        committed.lock().unwrap().insert(number);
                    }
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let acknowledged = || committed.lock().unwrap().len();
        within(DEADLINE, "readings", || acknowledged() > 20);
        new.promote();
        gateway.wait("the promotion", |it| timeline(it) == Some(2));
        // A COMMIT that was already sent may still arrive, but its response no longer counts.
        within(DEADLINE, "the end of the old sessions", || {
            old.sessions(WRITERS) == 0
        });
        let (on_old, so_far) = (old.readings(), acknowledged());
        within(DEADLINE, "readings", || acknowledged() > so_far + 20);
        assert_eq!(old.readings(), on_old, "the old primary was written to");
    });
    holds(&new, &committed.into_inner().unwrap());
    is_left(&old);
    let is_once = "select (select sum(meter_stored) from wal_checkpoints)
        = (select count(*) from meter_readings)";
    assert_eq!(new.sql(is_once), "t");
}

#[test]
fn a_batch_in_the_middle_is_stored_on_the_new_primary_alone() {
    let (servers, data) = (Servers::new(), data_dir());
    let old = servers.primary("old");
    let new = servers.standby("new", &old);
    let gateway = ready(data.path(), &url(&[&old, &new]));
    store(&gateway, 0..1);
    within(DEADLINE, "replication", || {
        new.try_sql("select count(*) from meter_readings")
            .as_deref()
            == Some("1")
    });
    // The writer is blocked inside its transaction.
    let mut holder = old.psql(
        "begin; lock table hours_progress in access exclusive mode;
         select pg_advisory_lock(1); select pg_sleep(1000); commit",
    );
    let waiting = "select count(*) from pg_stat_activity
        where application_name like 'wattgate writer%' and wait_event_type = 'Lock'";
    within(DEADLINE, "the lock", || {
        old.sql(
            "select count(*) from pg_locks where locktype = 'advisory' and objid = 1 and granted",
        ) == "1"
    });
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| store(&gateway, 1..2));
        within(DEADLINE, "the batch", || old.number(waiting) > 0);
        new.promote();
        answer.join().unwrap();
    });
    holds(&new, &(0..2).collect());
    old.sql("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'");
    holder.wait().unwrap();
    within(DEADLINE, "the end of the old batch", || {
        old.sessions(WRITERS) == 0
    });
    assert_eq!(stored(&old), BTreeSet::from([0]));
}

#[test]
fn a_commit_that_waits_for_a_promoted_standby_is_not_waited_for() {
    let (servers, data) = (Servers::new(), data_dir());
    let old = servers.primary("old");
    let new = servers.standby("new", &old);
    old.sql("alter system set synchronous_standby_names = '*'; select pg_reload_conf()");
    let gateway = ready(data.path(), &url(&[&old, &new]));
    store(&gateway, 0..5);
    holds(&new, &(0..5).collect());
    new.promote();
    // The old primary would wait for its standby forever.
    store(&gateway, 5..10);
    holds(&new, &(0..10).collect());
    gateway.wait("the promotion", |it| timeline(it) == Some(2));
}

#[test]
fn a_server_that_hides_its_timeline_is_used_with_a_warning() {
    let (servers, data) = (Servers::new(), data_dir());
    let server = servers.primary("only");
    server.sql("create role fleet login; create database fleet owner fleet");
    // The right is revoked in the database.
    let mut psql = program("psql");
    let revoked = psql
        .args(["-XAtq", "-U", NAME, "-d", "fleet", "-h", server.socket()])
        .args([
            "-c",
            "revoke execute on function pg_control_system() from public",
        ])
        .status()
        .unwrap();
    assert!(revoked.success());
    let host = format!("host={} user=fleet dbname=fleet", server.socket());
    let gateway = ready(data.path(), &host);
    store(&gateway, 0..2);
    assert_eq!(timeline(&gateway), None);
    let events = std::fs::read_to_string(&gateway.events).unwrap();
    let warnings = events.matches("does not show its timeline").count();
    assert_eq!(warnings, 1, "{events}");
    // A single host is not checked.
    assert_eq!(server.sessions("wattgate servers"), 0);
}

/// A server's database as SQL statements.
fn dump(server: &Server) -> String {
    let dump = program("pg_dump")
        .args(["-U", NAME, "-d", NAME, "-h", server.socket()])
        .stdout(std::process::Stdio::piped())
        .output()
        .unwrap();
    assert!(dump.status.success());
    String::from_utf8(dump.stdout).unwrap()
}

#[test]
fn another_cluster_is_not_followed_while_the_old_one_serves() {
    let (servers, data) = (Servers::new(), data_dir());
    let old = servers.primary("old");
    let new = servers.primary("new");
    let gateway = ready(data.path(), &url(&[&old]));
    store(&gateway, 0..3);
    gateway.kill();
    let dump = dump(&old);
    new.sql(&format!("begin; {dump}; commit"));
    // Each connection attempt begins at a random host.
    let hosts = format!("{} load_balance_hosts=random", url(&[&old, &new]));
    let gateway = ready(data.path(), &hosts);
    let before = new.readings();
    for round in 3..11 {
        old.end_sessions();
        store(&gateway, round..round + 1);
    }
    holds(&old, &(0..11).collect());
    assert_eq!(new.readings(), before);
    is_left(&new);
}

#[test]
fn a_database_in_a_new_cluster_is_followed_and_not_left_again() {
    let (servers, data) = (Servers::new(), data_dir());
    let mut old = servers.primary("old");
    let new = servers.primary("new");
    let hosts = url(&[&old, &new]);
    let gateway = ready(data.path(), &hosts);
    store(&gateway, 0..3);
    // An empty server in the list is not used.
    is_left(&new);
    let dump = dump(&old);
    store(&gateway, 3..6);
    // The log is bound to the database of `old`. A gateway that starts while `old` is down does not use an empty
    // database.
    gateway.kill();
    old.crash();
    let gateway = start(data.path(), &hosts);
    gateway.wait("the refusal", |it| {
        let report = health(it);
        let reason = report["database"]["reason"].as_str().unwrap_or_default();
        reason.contains("no database of the gateway")
    });
    assert_eq!(
        new.number("select count(*) from pg_tables where schemaname = 'public'"),
        0
    );
    is_left(&new);
    // In one transaction, because the gateway may connect meanwhile. The sequences are left as in a promoted
    // logical subscriber.
    new.sql(&format!(
        "begin; {dump};
         select setval(pg_get_serial_sequence('public.' || name, 'id'), 1, false)
         from unnest(array['meters', 'vehicles', 'session_names', 'alerts', 'alert_mutes']) as name;
         commit"
    ));
    store(&gateway, 6..9);
    holds(&new, &(0..9).collect());
    old.start();
    gateway.wait("the refusal", |it| {
        health(it)["servers"]["status"] == "refused"
    });
    gateway.kill();
    let gateway = ready(data.path(), &hosts);
    store(&gateway, 9..10);
    holds(&new, &(0..10).collect());
    is_left(&old);
    assert!(!stored(&old).contains(&9));
}
