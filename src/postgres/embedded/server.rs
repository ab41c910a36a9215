//! One server process: its start, its end, and its stop.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::PORT;
use super::find::Programs;
use super::log::ServerLog;
use super::pidfile;
use super::user::ServerUser;
use super::watcher::Watcher;

/// A script that writes its process id to the watcher and then becomes the server.
const BECOME: &str = "echo $$; exec \"$0\" \"$@\" >&2";
/// How often a starting server is checked. Reading one small file costs some 10 µs.
const LOOK_AGAIN: Duration = Duration::from_millis(4);
/// How long an immediate shutdown may take: the server itself kills its children after 5 s.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(7);

/// Everything that starting a server needs.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) user: ServerUser,
    pub(super) programs: Programs,
    pub(super) cluster: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) log: ServerLog,
}

/// How a server was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// In order: the next start needs no recovery.
    Clean,
    /// By force at the deadline. Nothing committed is lost, and the next start recovers first.
    Forced,
}

/// A running server process.
///
/// Dropping it leaves the process running; dropping the watcher stops it.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    pid: u32,
    log_from: u64,
}

impl Launch {
    /// Starts the server. The watcher gets its process id before it runs.
    pub(super) fn start(&self, watcher: &Watcher) -> io::Result<Server> {
        let log_from = self.log.bytes();
        let mut socket = OsString::from(pidfile::SOCKET_SETTING);
        socket.push(quoted(&self.socket_dir));
        let mut command = self.user.command(Path::new("/bin/sh"));
        command
            .args(["-c", BECOME])
            .arg(self.programs.path("postgres"))
            .arg("-D")
            .arg(&self.cluster)
            .arg("-c")
            .arg(socket)
            .arg("-c")
            .arg(format!("port={PORT}"))
            .stdout(Stdio::from(watcher.pipe()?))
            .stderr(Stdio::from(self.log.open()?));
        let process = Command::from(command).spawn()?;
        let pid = process
            .id()
            .ok_or_else(|| io::Error::other("the server has no process id"))?;
        Ok(Server {
            process,
            pid,
            log_from,
        })
    }

    /// Waits until the server accepts connections, or has ended.
    ///
    /// Cancel: safe
    pub(super) async fn ready(&self, server: &mut Server) -> Result<(), String> {
        loop {
            if let Some(status) = server
                .process
                .try_wait()
                .map_err(|error| error.to_string())?
            {
                return Err(self.why(server, status));
            }
            if pidfile::is_ready(&self.cluster, server.pid) {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Explains why a server ended, by its status and its log.
    pub(super) fn why(&self, server: &Server, status: ExitStatus) -> String {
        format!("{status}: {}", self.log.last_words(server.log_from))
    }
}

impl Server {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the server's end.
    ///
    /// Cancel: safe
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Stops the server: a fast shutdown, at the deadline an immediate one, and then a kill.
    ///
    /// A fast shutdown ends the sessions, writes a checkpoint, and needs no recovery afterwards.
    pub(super) async fn stop(&mut self, deadline: Instant) -> Stopped {
        self.signal(Signal::INT);
        if let Ok(ended) = timeout_at(deadline, self.process.wait()).await {
            return if ended.is_ok_and(|status| status.success()) {
                Stopped::Clean
            } else {
                Stopped::Forced
            };
        }
        tracing::warn!("the embedded PostgreSQL did not stop in time; stopping it immediately");
        self.signal(Signal::QUIT);
        if timeout(IMMEDIATE_LIMIT, self.process.wait()).await.is_err() {
            self.signal(Signal::KILL);
            if let Err(error) = self.process.wait().await {
                tracing::warn!("the embedded PostgreSQL was lost: {error}");
            }
        }
        Stopped::Forced
    }

    /// Sends a signal to the process, unless it was reaped: its id may then belong to another.
    fn signal(&self, signal: Signal) {
        let pid = self
            .process
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::warn!("cannot signal the embedded PostgreSQL: {error}");
        }
    }
}

/// Quotes a directory for a setting that holds a list.
fn quoted(directory: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = vec![b'"'];
    for &byte in directory.as_os_str().as_bytes() {
        if byte == b'"' {
            bytes.push(byte);
        }
        bytes.push(byte);
    }
    bytes.push(b'"');
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_a_comma_or_a_quote_stays_one_directory() {
        assert_eq!(quoted(Path::new("/a, b\"c")), "\"/a, b\"\"c\"");
    }
}
