//! What the tests share: directories, questions, and a gateway that can be killed.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::NoTls;
use wattgate::postgres::embedded::{Connection, Embedded, EmbeddedConfig, Stopped};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A directory that every user may enter, as a data directory's parents usually are.
pub(crate) fn open_dir() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .unwrap()
}

pub(crate) fn config(data_dir: &Path) -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(data_dir);
    config.elsewhere = data_dir.join("elsewhere-unused");
    config
}

pub(crate) async fn stop(embedded: Embedded) -> Stopped {
    embedded.stop(LIMIT).await
}

pub(crate) async fn ask(connection: &Connection, query: &str) -> Result<String, String> {
    let (client, driver) = connection
        .config()
        .connect(NoTls)
        .await
        .map_err(|error| format!("{error:?}"))?;
    let driver = tokio::spawn(driver);
    let row = client
        .query_one(query, &[])
        .await
        .map_err(|error| format!("{error:?}"))?;
    drop(client);
    drop(driver);
    Ok(row.get(0))
}

pub(crate) async fn setting(connection: &Connection, name: &str) -> String {
    ask(connection, &format!("SELECT current_setting('{name}')"))
        .await
        .unwrap()
}

pub(crate) fn server_pid(cluster: &Path) -> Option<u32> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

pub(crate) fn alive(pid: u32) -> bool {
    // A process that nobody has reaped yet is gone all the same.
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

pub(crate) fn group(pid: u32) -> String {
    let output = Command::new("ps")
        .args(["-o", "pgid=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Waits for a condition, at most until the limit.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").map_or_else(
        |_| {
            String::from_utf8_lossy(&Command::new("id").arg("-u").output().unwrap().stdout).trim()
                == "0"
        },
        |meta| meta.uid() == 0,
    )
}

/// Tells whether a test that needs root and the user `nobody` can run; says why not.
pub(crate) fn can_be_nobody() -> bool {
    let can = is_root()
        && Command::new("runuser")
            .args(["-u", "nobody", "--", "true"])
            .status()
            .is_ok_and(|s| s.success());
    if !can {
        println!("skipped: it takes root, runuser and the user nobody");
    }
    can
}

/// A gateway in a process of its own, that can be killed.
pub(crate) struct Owner {
    pub(crate) process: Child,
    pub(crate) said: String,
}

impl Owner {
    /// Runs `owner_process` of this program, and waits until its server is up.
    pub(crate) fn start(data_dir: &Path, through: &[&str], program: &Path) -> Self {
        let words = ["--exact", "owner_process", "--ignored", "--nocapture"];
        let mut command = match through {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        writeln!(process.stdin.as_mut().unwrap(), "{}", data_dir.display()).unwrap();
        let mut lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let said = lines.find_map(|line| {
            line.unwrap()
                .split_once("owner up as ")
                .map(|(_, rest)| rest.to_owned())
        });
        Self {
            process,
            said: said.expect("the owner's server never came up"),
        }
    }
}
