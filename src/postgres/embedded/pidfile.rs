//! `postmaster.pid`: the state of a server, and the leftovers of a crash.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
#[cfg(not(target_os = "linux"))]
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::{Instant, sleep};

use super::PORT;
use super::error::{At, EmbeddedError};

/// How long the server of a killed gateway may take for a fast shutdown, and then for an immediate one.
/// Meanwhile its watcher stops it in the same way.
const FAST_LIMIT: Duration = Duration::from_secs(12);
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(8);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How the server's command line names the directory of the socket. A server that was started by hand does
/// not have it.
pub(super) const SOCKET_SETTING: &str = "unix_socket_directories=";

/// Whether the server with this process id accepts connections.
///
/// The eighth line holds its status, which is `starting` during a recovery. The file of an earlier server
/// names another process.
pub(super) fn is_ready(cluster: &Path, pid: u32) -> bool {
    fs::read_to_string(path(cluster)).is_ok_and(|text| {
        let mut lines = text.lines();
        lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
            && lines.nth(6).is_some_and(|line| line.trim() == "ready")
    })
}

/// The process with the id in a `postmaster.pid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// The process has ended, or its id now belongs to another program.
    Nobody,
    /// A server that a gateway started on this cluster.
    Gateways,
    /// A server that a gateway did not start, probably on this cluster.
    Foreign,
}

/// Prepares the start of a new server: stops one left by a killed gateway, and removes the file of a server
/// that has ended.
///
/// A server refuses to start if the id in the file belongs to any process of its user. That is common in
/// containers, where ids are few and the same at each start. A new server still finds an orphaned backend of
/// the old one by its shared memory, and refuses to start.
///
/// Cancel: safe
///
/// # Errors
/// [`EmbeddedError::InUse`]: another program's server runs on the cluster; it is not touched.
pub(super) async fn clear(cluster: &Path, socket_dir: &Path) -> Result<(), EmbeddedError> {
    let file = path(cluster);
    let started = Instant::now();
    let mut sent = None;
    loop {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return remove_socket(socket_dir),
            Err(error) => return Err(error).at("read", &file),
        };
        // A server in single-user mode, which initdb runs, writes its id with a minus sign.
        let id = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse::<i32>().ok());
        let pid = id.and_then(i32::checked_abs).and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|&pid| holder(pid, cluster) != Holder::Nobody) else {
            tracing::info!("the last server was not shut down properly; it recovers now");
            remove(&file)?;
            return remove_socket(socket_dir);
        };
        let in_use = || EmbeddedError::InUse {
            cluster: cluster.to_owned(),
            pid: pid.as_raw_nonzero().get(),
        };
        if holder(pid, cluster) == Holder::Foreign {
            return Err(in_use());
        }
        let signal = match started.elapsed() {
            past if past < FAST_LIMIT => Signal::INT,
            past if past < FAST_LIMIT + IMMEDIATE_LIMIT => Signal::QUIT,
            past if past < FAST_LIMIT + IMMEDIATE_LIMIT * 2 => Signal::KILL,
            _ => return Err(in_use()),
        };
        if sent != Some(signal) {
            tracing::info!("stopping the server {pid:?} that a killed gateway left ({signal:?})");
            if let Err(error) = kill_process(pid, signal) {
                tracing::debug!("it had already ended: {error}");
            }
            sent = Some(signal);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn path(cluster: &Path) -> PathBuf {
    cluster.join("postmaster.pid")
}

/// Removes the socket and its lock file. A server reads the process id in that file in the same way: even a
/// killed server that was not reaped yet counts as running.
fn remove_socket(socket_dir: &Path) -> Result<(), EmbeddedError> {
    let socket = format!(".s.PGSQL.{PORT}");
    remove(&socket_dir.join(format!("{socket}.lock")))?;
    remove(&socket_dir.join(socket))
}

fn remove(file: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).at("remove", file),
        _ => Ok(()),
    }
}

fn holder(pid: Pid, cluster: &Path) -> Holder {
    if test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
        return Holder::Nobody;
    }
    let Ok(arguments) = arguments(pid) else {
        return Holder::Nobody;
    };
    let directory = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok();
    judge(&arguments, directory.as_deref(), cluster)
}

/// Recognises a process by its arguments, and by its working directory if that is visible.
///
/// The server's own children have a title (`postgres: checkpointer`) instead of arguments. None of them
/// writes a `postmaster.pid`.
fn judge(arguments: &[OsString], directory: Option<&Path>, cluster: &Path) -> Holder {
    let Some(program) = arguments.first().map(Path::new) else {
        return Holder::Nobody;
    };
    let name = program.file_name().unwrap_or_default().as_bytes();
    if name != b"postgres" && name != b"postmaster" {
        return Holder::Nobody;
    }
    let on_cluster = arguments
        .iter()
        .any(|argument| Path::new(argument) == cluster);
    let by_gateway = arguments
        .iter()
        .any(|argument| argument.as_bytes().starts_with(SOCKET_SETTING.as_bytes()));
    match (on_cluster, by_gateway) {
        (true, true) => Holder::Gateways,
        (true, false) => Holder::Foreign,
        // A relative path means that the working directory decides.
        (false, _) if directory.is_some_and(|it| !same(it, cluster)) => Holder::Nobody,
        (false, _) => Holder::Foreign,
    }
}

/// Whether two paths are the same directory: the cluster may be a link to another disk.
fn same(a: &Path, b: &Path) -> bool {
    a == b || b.canonicalize().is_ok_and(|b| a == b)
}

#[cfg(target_os = "linux")]
fn arguments(pid: Pid) -> io::Result<Vec<OsString>> {
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))?;
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    // A process that has ended but was not reaped has none.
    if line.is_empty() {
        return Ok(Vec::new());
    }
    Ok(line
        .split(|&byte| byte == 0)
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect())
}

/// Other systems have `ps`. It splits a path with spaces, and shows no working directory. Such a server
/// counts as foreign: starting is refused, and no server is stopped by mistake.
#[cfg(not(target_os = "linux"))]
fn arguments(pid: Pid) -> io::Result<Vec<OsString>> {
    let output = Command::new("ps")
        .args(["-o", "command=", "-p", &pid.as_raw_nonzero().to_string()])
        .output()?;
    let words = output
        .stdout
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    Ok(words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "/srv/w/postgres/cluster";

    fn judged(line: &str, directory: Option<&str>) -> Holder {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        judge(&arguments, directory.map(Path::new), Path::new(CLUSTER))
    }

    #[test]
    fn only_a_server_that_a_gateway_started_here_is_stopped() {
        let ours = format!("/usr/bin/postgres -D {CLUSTER} -c unix_socket_directories=\"/x\"");
        assert_eq!(judged(&ours, Some(CLUSTER)), Holder::Gateways);
        assert_eq!(judged(&ours, None), Holder::Gateways);
        let by_hand = format!("/usr/bin/postgres -D {CLUSTER}");
        assert_eq!(judged(&by_hand, None), Holder::Foreign);
        assert_eq!(
            judged("postgres -D cluster", Some(CLUSTER)),
            Holder::Foreign
        );
    }

    #[test]
    fn an_id_of_another_program_is_no_server() {
        assert_eq!(judged("/bin/sh -c watch", None), Holder::Nobody);
        assert_eq!(
            judged("/usr/bin/postgres -D /other", Some("/other")),
            Holder::Nobody
        );
        assert_eq!(judge(&[], None, Path::new(CLUSTER)), Holder::Nobody);
        let backend = "postgres: checkpointer ";
        assert_eq!(
            judge(&[backend.into()], None, Path::new(CLUSTER)),
            Holder::Nobody
        );
    }

    #[test]
    fn a_server_is_ready_only_when_it_says_so_itself() {
        let dir = tempfile::tempdir().unwrap();
        let write = |status: &str| {
            let text = format!("42\n/data\n1700000000\n5432\n/run\n\n  1 2\n{status}\n");
            fs::write(path(dir.path()), text).unwrap();
        };
        assert!(!is_ready(dir.path(), 42));
        write("starting");
        assert!(!is_ready(dir.path(), 42));
        write("ready   ");
        assert!(is_ready(dir.path(), 42));
        assert!(!is_ready(dir.path(), 43));
    }

    #[tokio::test]
    async fn a_file_left_by_a_crash_does_not_stop_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        // The id belongs to a living process that is not a server: the test itself.
        fs::write(path(dir.path()), format!("{}\n", std::process::id())).unwrap();
        let sockets = tempfile::tempdir().unwrap();
        let lock = sockets.path().join(format!(".s.PGSQL.{PORT}.lock"));
        fs::write(&lock, format!("{}\n", std::process::id())).unwrap();
        clear(dir.path(), sockets.path()).await.unwrap();
        assert!(!path(dir.path()).exists() && !lock.exists());
    }
}
