//! `wattgate demo`, as a new user would run it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use gateway::{DEADLINE, Gateway, NO_DATABASE, data_dir, ended, signal, within};

/// The demo, with its temporary directory below `root/tmp`.
fn demo(root: &Path, mode: u32) -> (Command, PathBuf) {
    let place = root.join("tmp");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    command
        .arg("demo")
        .env("TMPDIR", &place)
        .env_remove("DATABASE_URL")
        // Settings for a gateway must be ignored.
        .env("WATTGATE_LISTEN", "192.0.2.1:1");
    (command, place)
}

fn is_empty(place: &Path) -> bool {
    fs::read_dir(place).unwrap().next().is_none()
}

#[test]
fn a_demo_shows_a_day_that_goes_on_and_leaves_nothing() {
    let root = data_dir();
    let (mut command, place) = demo(root.path(), 0o755);
    // A configured database or data directory must not be used.
    command
        .env("DATABASE_URL", NO_DATABASE)
        .env("WATTGATE_DATA_DIR", root.path().join("data"));
    let began = Instant::now();
    command.args(["--listen", "127.0.0.1:0"]);
    let mut gateway = Gateway::spawn(command, root.path());
    gateway.wait("readiness", Gateway::is_ready);
    assert_eq!(gateway.get("/health")["demo"], true);
    gateway.wait("vehicles that charge", |gateway| {
        let active = gateway.get("/v1/sessions?active=true&limit=1000");
        active["items"].as_array().unwrap().len() > 40
    });
    gateway.wait("the energy of a day", |gateway| {
        let fleet = gateway.get("/v1/analytics/fleet");
        let energy = fleet["totalEnergyConsumedAc"].as_f64().unwrap();
        energy > 500.0 && fleet["currency"] == "USD"
    });
    let alerts = gateway.get("/v1/alerts?state=open");
    assert_eq!(alerts["items"].as_array().unwrap().len(), 0, "{alerts}");
    println!("full of life after {:?}", began.elapsed());
    assert!(!is_empty(&place));
    assert!(!root.path().join("data").exists());
    gateway.signal("INT");
    assert!(ends(&mut gateway.child));
    assert!(is_empty(&place));
}

#[test]
fn a_demo_ends_with_its_terminal_and_removes_a_database_elsewhere() {
    let root = data_dir();
    // If root runs the tests, the database's user cannot enter the directory, so the database is elsewhere.
    let (mut command, place) = demo(root.path(), 0o700);
    command.args(["--listen", "127.0.0.1:0"]);
    let mut gateway = Gateway::spawn(command, root.path());
    let dir = fs::read_dir(&place)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let home = dir.join("postgres").canonicalize().unwrap();
    assert!(home.join("cluster").exists(), "{}", home.display());
    gateway.wait("readiness", Gateway::is_ready);
    gateway.signal("HUP");
    assert!(ends(&mut gateway.child));
    assert!(is_empty(&place));
    assert!(!home.exists(), "{}", home.display());
}

#[test]
fn a_demo_whose_terminal_closes_while_it_starts_ends() {
    let root = data_dir();
    let (mut command, place) = demo(root.path(), 0o755);
    command.args(["--listen", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    within(DEADLINE, "the demo's directory", || !is_empty(&place));
    signal(child.id(), "HUP");
    assert!(ends(&mut child));
    assert!(is_empty(&place));
}

/// Waits for a clean exit.
fn ends(child: &mut Child) -> bool {
    let mut status = None;
    within(DEADLINE, "the end of the demo", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().success()
}

#[test]
fn a_demo_listens_on_loopback_only() {
    let root = data_dir();
    let (mut command, place) = demo(root.path(), 0o755);
    command.args(["--listen", "0.0.0.0:0"]);
    let (code, events) = ended(command, root.path());
    assert_eq!(code, Some(2), "{events}");
    assert!(events.contains("loopback"), "{events}");
    assert!(is_empty(&place));
}
