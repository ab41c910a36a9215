//! `wattgate demo`, as a new user would run it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use gateway::{Gateway, NO_DATABASE, data_dir, ended};

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
        .env("WATTGATE_LISTEN", "127.0.0.1:0");
    (command, place)
}

fn is_empty(place: &Path) -> bool {
    fs::read_dir(place).unwrap().next().is_none()
}

#[test]
fn a_demo_shows_a_day_that_goes_on_and_leaves_nothing() {
    let root = data_dir();
    let (mut command, place) = demo(root.path(), 0o755);
    // Neither a configured database nor a configured data directory is used.
    command
        .env("DATABASE_URL", NO_DATABASE)
        .env("WATTGATE_DATA_DIR", root.path().join("data"));
    let began = Instant::now();
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
    assert!(gateway.child.wait().unwrap().success());
    assert!(is_empty(&place));
}

#[test]
fn a_demo_ends_with_its_terminal_and_removes_a_database_elsewhere() {
    let root = data_dir();
    // If root runs the tests, the user of the database cannot enter the directory, so the database is elsewhere.
    let (command, place) = demo(root.path(), 0o700);
    let mut gateway = Gateway::spawn(command, root.path());
    let psql = gateway.psql.clone().unwrap();
    let socket = psql.split(" -h ").nth(1).unwrap().split(' ').next();
    let home = Path::new(socket.unwrap()).parent().unwrap().to_owned();
    assert!(home.join("cluster").exists(), "{}", home.display());
    gateway.wait("readiness", Gateway::is_ready);
    gateway.signal("HUP");
    assert!(gateway.child.wait().unwrap().success());
    assert!(is_empty(&place));
    assert!(!home.exists(), "{}", home.display());
}

#[test]
fn a_demo_listens_on_loopback_only() {
    let root = data_dir();
    let (mut command, place) = demo(root.path(), 0o755);
    command.env("WATTGATE_LISTEN", "0.0.0.0:0");
    let (code, events) = ended(command, root.path());
    assert_eq!(code, Some(2), "{events}");
    assert!(events.contains("loopback"), "{events}");
    assert!(is_empty(&place));
}
