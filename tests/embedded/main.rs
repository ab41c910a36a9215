//! The embedded PostgreSQL, with real servers, as root and as an ordinary user.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

#[path = "../gateway/mod.rs"]
mod gateway;
mod kills;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::*;

use tokio_postgres::NoTls;
use wattgate::postgres::embedded::{EmbeddedError, Stopped, start};

/// Not a test: `Owner` runs this in its own process and passes the data directory on standard input.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn owner_process() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let data_dir = line.trim();
    if data_dir.is_empty() {
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let embedded = started(Path::new(data_dir)).await;
        let user = query(embedded.connection(), "SELECT current_user::text").await;
        println!("owner up as {user} {}", std::process::id());
        std::future::pending::<()>().await;
    });
}

#[tokio::test]
async fn a_cluster_is_made_once_and_keeps_what_was_stored() {
    let dir = data_dir();
    let begun = Instant::now();
    let first = started(dir.path()).await;
    let first_start = begun.elapsed();
    query(first.connection(), "WITH t AS (SELECT 1) SELECT 'reached'").await;
    let (client, driver) = first.connection().config().connect(NoTls).await.unwrap();
    tokio::spawn(driver);
    client
        .batch_execute("CREATE TABLE kept AS SELECT 'still here' AS it")
        .await
        .unwrap();
    // The session is left open on purpose. A stop must end it.
    let begun = Instant::now();
    assert_eq!(stop(first).await, Stopped::Clean);
    let stopped = begun.elapsed();

    let begun = Instant::now();
    let second = started(dir.path()).await;
    let second_start = begun.elapsed();
    assert_eq!(
        query(second.connection(), "SELECT it FROM kept").await,
        "still here"
    );
    assert_eq!(stop(second).await, Stopped::Clean);
    println!("first start {first_start:?}, second {second_start:?}, stop {stopped:?}");
    assert!(first_start < Duration::from_secs(15), "{first_start:?}");
    assert!(second_start < Duration::from_secs(5), "{second_start:?}");
}

#[tokio::test]
async fn the_server_is_durable_private_and_tuned() {
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let there = embedded.connection();
    for name in [
        "fsync",
        "synchronous_commit",
        "full_page_writes",
        "data_checksums",
    ] {
        assert_eq!(setting(there, name).await, "on", "{name}");
    }
    assert_eq!(setting(there, "listen_addresses").await, "");
    assert_eq!(setting(there, "server_encoding").await, "UTF8");
    assert_eq!(setting(there, "lc_collate").await, "C");
    assert_eq!(setting(there, "TimeZone").await, "UTC");
    assert_eq!(setting(there, "checkpoint_timeout").await, "20min");
    assert_eq!(there.user, query(there, "SELECT current_user::text").await);
    let mode = fs::metadata(&there.socket_dir).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o700);
    let psql = Command::new("sh")
        .args([
            "-c",
            &format!("{} -Atc 'SELECT 41 + 1'", embedded.psql_command()),
        ])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&psql.stdout).trim(),
        "42",
        "{psql:?}"
    );
    stop(embedded).await;
}

#[tokio::test]
async fn the_operators_settings_come_last_and_stay() {
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let file = embedded.cluster_dir().join("postgresql.operator.conf");
    stop(embedded).await;
    fs::write(&file, "work_mem = '9MB'\n").unwrap();
    let embedded = started(dir.path()).await;
    assert_eq!(setting(embedded.connection(), "work_mem").await, "9MB");
    stop(embedded).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "work_mem = '9MB'\n");
}

#[tokio::test]
async fn a_setting_that_stops_the_server_is_reported_in_one_line() {
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let file = embedded.cluster_dir().join("postgresql.operator.conf");
    stop(embedded).await;
    fs::write(&file, "work_mem = 'a lot'\n").unwrap();
    let error = start(config(dir.path())).await.unwrap_err().to_string();
    assert!(
        error.contains("postgresql.operator.conf") || error.contains("work_mem"),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
}

#[tokio::test]
async fn a_second_gateway_is_kept_out() {
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let error = start(config(dir.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Locked { .. }), "{error}");
    assert_eq!(
        query(embedded.connection(), "SELECT 'unharmed'").await,
        "unharmed"
    );
    stop(embedded).await;
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_private_one() {
    let dir = data_dir();
    let data_dir = dir
        .path()
        .join("long-".repeat(40))
        .join("with spaces, \"quotes\" and 'more'");
    let embedded = started(&data_dir).await;
    let socket_dir = embedded.connection().socket_dir.clone();
    assert!(
        socket_dir.as_os_str().len() < 90,
        "{}",
        socket_dir.display()
    );
    assert_eq!(fs::metadata(&socket_dir).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        query(embedded.connection(), "SELECT 'short'").await,
        "short"
    );
    stop(embedded).await;
    assert!(!socket_dir.exists());
}

#[tokio::test]
async fn a_closed_directory_leads_to_a_durable_place_elsewhere() {
    if !is_root() {
        println!("skipped: only root runs the server as another user");
        return;
    }
    let closed = data_dir();
    fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
    let elsewhere = data_dir();
    let mut config = config(&closed.path().join("data"));
    config.elsewhere = elsewhere.path().to_owned();
    let embedded = start(config.clone()).await.unwrap();
    let cluster = embedded.cluster_dir().to_owned();
    assert!(
        cluster.starts_with(elsewhere.path().canonicalize().unwrap()),
        "{}",
        cluster.display()
    );
    stop(embedded).await;
    // It is found again by its name and by the link, and also after the directory was opened to others.
    let link = closed.path().join("data/postgres");
    fs::remove_file(&link).unwrap();
    for mode in [0o700, 0o755] {
        fs::set_permissions(closed.path(), Permissions::from_mode(mode)).unwrap();
        let embedded = start(config.clone()).await.unwrap();
        assert_eq!(embedded.cluster_dir(), cluster);
        assert!(link.is_symlink());
        stop(embedded).await;
    }
    // When a data directory is moved, the link moves with it.
    let moved = closed.path().join("moved");
    fs::rename(closed.path().join("data"), &moved).unwrap();
    config.data_dir = moved;
    let embedded = start(config).await.unwrap();
    assert_eq!(embedded.cluster_dir(), cluster);
    stop(embedded).await;
}

#[tokio::test]
async fn another_user_of_the_machine_never_gets_in() {
    if !can_be_nobody() {
        return;
    }
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let try_it = || {
        let line = format!("{} -wAtc 'SELECT 1'", embedded.psql_command());
        let output = Command::new("runuser")
            .args(["-u", "nobody", "--", "sh", "-c", &line])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let printed = try_it();
    assert!(printed.contains("Permission denied"), "{printed}");
    // Even if the directory's permissions are opened by mistake, the server itself refuses other users.
    let socket_dir = &embedded.connection().socket_dir;
    fs::set_permissions(socket_dir, Permissions::from_mode(0o777)).unwrap();
    let socket = socket_dir.join(format!(".s.PGSQL.{}", embedded.connection().port));
    fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    let printed = try_it();
    assert!(printed.contains("Peer authentication failed"), "{printed}");
    stop(embedded).await;
}

#[tokio::test]
async fn an_ordinary_user_runs_it_too() {
    if !can_be_nobody() {
        return;
    }
    let dir = data_dir();
    let program: PathBuf = dir.path().join("owner");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let data_dir = dir.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    assert!(
        Command::new("chown")
            .arg("nobody")
            .arg(&data_dir)
            .status()
            .unwrap()
            .success()
    );
    let mut owner = Owner::start(&data_dir, &["runuser", "-u", "nobody", "--"], &program);
    let (user, pid) = owner.printed.split_once(' ').unwrap();
    assert_eq!(user, "wattgate");
    let cluster = data_dir.join("postgres/cluster");
    let server = server_pid(&cluster).unwrap();
    let uid = |path: &Path| fs::metadata(path).unwrap().uid();
    assert_eq!(
        uid(&PathBuf::from(format!("/proc/{server}"))),
        uid(&data_dir)
    );
    signal(pid.parse().unwrap(), "KILL");
    owner.process.wait().unwrap();
    until("the server ends", || !alive(server)).await;
}

#[tokio::test]
async fn a_server_started_by_hand_is_named_and_left_alone() {
    let dir = data_dir();
    let embedded = started(dir.path()).await;
    let cluster = embedded.cluster_dir().to_owned();
    let server = server_pid(&cluster).unwrap();
    let Ok(program) = fs::read_link(format!("/proc/{server}/exe")) else {
        println!("skipped: it needs /proc");
        return;
    };
    stop(embedded).await;
    let mut by_hand = if is_root() {
        let mut command = Command::new("runuser");
        let owner = fs::metadata(&cluster).unwrap().uid();
        let name = Command::new("id")
            .args(["-un", &owner.to_string()])
            .output()
            .unwrap();
        let name = String::from_utf8_lossy(&name.stdout).trim().to_owned();
        command.args(["-u", &name, "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let mut by_hand = by_hand
        .arg("-D")
        .arg(&cluster)
        .args(["-k", "/tmp", "-p", &(20_000 + server % 40_000).to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the other server runs", || server_pid(&cluster).is_some()).await;
    let other = server_pid(&cluster).unwrap();
    let error = start(config(dir.path())).await.unwrap_err();
    assert!(
        matches!(error, EmbeddedError::InUse { pid, .. } if pid as u32 == other),
        "{error}"
    );
    assert!(alive(other));
    signal(other, "INT");
    by_hand.wait().unwrap();
    stop(started(dir.path()).await).await;
}
