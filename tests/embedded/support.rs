//! Shared by the tests: servers, queries, and a gateway that can be killed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;
use wattgate::postgres::embedded::{self, Connection, Embedded, EmbeddedConfig, Stopped};

pub(crate) use crate::gateway::{data_dir, signal};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn config(data_dir: &Path) -> EmbeddedConfig {
    let mut config = EmbeddedConfig::new(data_dir);
    config.elsewhere = data_dir.join("elsewhere-unused");
    config
}

/// Starts the server of a data directory.
pub(crate) async fn started(data_dir: &Path) -> Embedded {
    embedded::start(config(data_dir)).await.unwrap()
}

pub(crate) async fn stop(embedded: Embedded) -> Stopped {
    embedded.stop(LIMIT).await
}

/// The text that a query returns, run in its own session.
pub(crate) async fn query(connection: &Connection, sql: &str) -> String {
    let (client, driver) = connection.config().connect(NoTls).await.unwrap();
    tokio::spawn(driver);
    client.query_one(sql, &[]).await.unwrap().get(0)
}

pub(crate) async fn setting(connection: &Connection, name: &str) -> String {
    query(connection, &format!("SELECT current_setting('{name}')")).await
}

pub(crate) fn server_pid(cluster: &Path) -> Option<u32> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// The watcher processes of one gateway's server.
pub(crate) fn watchers_of(gateway: u32) -> Vec<u32> {
    let list = Command::new("ps")
        .args(["-eo", "ppid=,pid=,args="])
        .output()
        .unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    // Each watcher holds the gateway's pipe, and its name says what it is.
    let watchers = list.lines().filter(|line| line.contains("wattgate-watch"));
    watchers
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (parent, pid) = (words.next()?, words.next()?);
            (parent.parse::<u32>() == Ok(gateway)).then(|| pid.parse().ok())?
        })
        .collect()
}

pub(crate) fn alive(pid: u32) -> bool {
    // A zombie has ended, although it has not been reaped yet.
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

/// Waits for a condition, up to the limit.
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

/// Whether a test that needs root and the user `nobody` can run. If not, prints why.
pub(crate) fn can_be_nobody() -> bool {
    let can = is_root()
        && Command::new("runuser")
            .args(["-u", "nobody", "--", "true"])
            .status()
            .is_ok_and(|s| s.success());
    if !can {
        println!("skipped: it needs root, runuser and the user nobody");
    }
    can
}

/// A gateway in its own process, which can be killed.
pub(crate) struct Owner {
    pub(crate) process: Child,
    pub(crate) printed: String,
}

impl Owner {
    /// Runs this program's `owner_process` and waits until its server is up.
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
        let printed = lines.find_map(|line| {
            line.unwrap()
                .split_once("owner up as ")
                .map(|(_, rest)| rest.to_owned())
        });
        Self {
            process,
            printed: printed.expect("the owner's server never came up"),
        }
    }
}
