//! The PostgreSQL servers that measured gateways use.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::TargetsError;
use super::database::{execute, postmaster, query_one};

/// The database that is created anew for each gateway on a server that is not embedded.
const DATABASE: &str = "wattgate_targets";

/// The server's user if root measures, because PostgreSQL refuses root.
const NOBODY: u32 = 65_534;

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A PostgreSQL server.
#[derive(Debug)]
pub(super) enum Server {
    /// Each gateway starts its own, with the gateway's settings.
    Embedded,
    /// A server that is already running.
    Given(String),
    /// A server that this program started, with PostgreSQL's defaults.
    Defaults(Cluster),
}

/// An empty database for a gateway.
#[derive(Debug, Clone)]
pub(super) struct Reset {
    pub(super) url: String,
    /// The postmaster, if the server is on this machine.
    pub(super) postmaster: Option<i32>,
}

impl Server {
    /// The name in reports.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Server::Embedded => "embedded",
            Server::Given(_) => "given",
            Server::Defaults(_) => "defaults",
        }
    }

    fn url(&self) -> Option<String> {
        match self {
            Server::Embedded => None,
            Server::Given(url) => Some(url.clone()),
            Server::Defaults(cluster) => Some(cluster.url()),
        }
    }

    /// Creates an empty database. `None` means that the gateway has its own.
    ///
    /// # Errors
    /// [`TargetsError::Database`]: the server is unreachable, or the user may not create databases.
    pub(super) fn reset(&self) -> Result<Option<Reset>, TargetsError> {
        let Some(url) = self.url() else {
            return Ok(None);
        };
        execute(
            &url,
            &format!("drop database if exists {DATABASE} with (force)"),
        )?;
        execute(&url, &format!("create database {DATABASE}"))?;
        // The next gateway must not pay for writes that earlier ones left behind.
        execute(&url, "checkpoint")?;
        Ok(Some(Reset {
            postmaster: postmaster(&url)?,
            url: with_database(&url, DATABASE),
        }))
    }
}

/// The connection string with another database.
fn with_database(url: &str, name: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // If a key is repeated, the last one counts.
        return format!("{url} dbname={name}");
    };
    let (rest, parameters) = match rest.split_once('?') {
        Some((rest, parameters)) => (rest, format!("?{parameters}")),
        None => (rest, String::new()),
    };
    let authority = rest
        .split_once('/')
        .map_or(rest, |(authority, _)| authority);
    format!("{scheme}://{authority}/{name}{parameters}")
}

/// A server with PostgreSQL's defaults in its own directory. It is stopped and removed when dropped.
#[derive(Debug)]
pub(super) struct Cluster {
    dir: PathBuf,
    child: Child,
}

impl Cluster {
    /// Creates a cluster with the programs in `bin`, and starts the server.
    ///
    /// # Errors
    /// [`TargetsError`]: the programs cannot be run, or the server does not start.
    pub(super) fn start(bin: &Path, dir: &Path) -> Result<Self, TargetsError> {
        drop(std::fs::remove_dir_all(dir));
        std::fs::create_dir_all(dir)?;
        let root = std::fs::metadata("/proc/self")?.uid() == 0;
        if root {
            std::os::unix::fs::chown(dir, Some(NOBODY), Some(NOBODY))?;
        }
        let command = |program: &str| {
            let mut command = Command::new(bin.join(program));
            if root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.current_dir("/").stdout(Stdio::null());
            command
        };
        let made = command("initdb")
            .args(["--auth=trust", "--encoding=UTF8", "--locale=C"])
            .args(["--username", "postgres", "-D"])
            .arg(dir.join("cluster"))
            .status()?;
        if !made.success() {
            return Err(TargetsError::Server(format!("initdb: {made}")));
        }
        // Only the address is set.
        let child = command("postgres")
            .args(["-c", "listen_addresses=", "-k"])
            .arg(dir)
            .arg("-D")
            .arg(dir.join("cluster"))
            .stderr(Stdio::null())
            .spawn()?;
        let cluster = Cluster {
            dir: dir.to_owned(),
            child,
        };
        let until = Instant::now() + PATIENCE;
        while let Err(error) = query_one(&cluster.url(), "select 1", &[]) {
            if Instant::now() > until {
                return Err(error);
            }
        }
        Ok(cluster)
    }

    fn url(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.dir.display())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // A fast shutdown. The server may have ended by itself.
            kill_process(pid, Signal::INT).ok();
        }
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_string_gets_another_database() {
        for (url, expected) in [
            (
                "host=/run user=a dbname=b",
                "host=/run user=a dbname=b dbname=t",
            ),
            ("postgres://a:b@h:1/c?d=e", "postgres://a:b@h:1/t?d=e"),
            ("postgresql://h", "postgresql://h/t"),
        ] {
            assert_eq!(with_database(url, "t"), expected);
        }
    }
}
