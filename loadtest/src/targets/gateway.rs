//! A gateway that this program starts, with its embedded PostgreSQL or on another server.

#![expect(
    clippy::disallowed_methods,
    reason = "this tool polls another process, on threads of its own that delay no stop"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::TargetsError;
use super::server::Reset;
use crate::processor;

/// How long a gateway may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a response may take: slightly longer than the gateway lets a query wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// How often the gateway's memory is read.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The resident memory at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resident {
    pub(super) at: Instant,
    pub(super) mib: f64,
}

/// The CPU time of a gateway and its server so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    pub(super) gateway: f64,
    /// 0 if the server is not on this machine.
    pub(super) server: f64,
}

/// How many batches were stored, and how many within a second of their oldest reading.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lag {
    pub(super) batches: f64,
    within: f64,
}

impl Lag {
    /// Only the batches since an earlier count.
    pub(super) fn since(self, then: Lag) -> Self {
        Lag {
            batches: self.batches - then.batches,
            within: self.within - then.within,
        }
    }

    /// The percentage stored within a second.
    pub(super) fn percent(self) -> f64 {
        100.0 * self.within / self.batches
    }
}

/// A running gateway. It is ended when dropped.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    /// `host:port`.
    authority: String,
    /// The URL of its database.
    pub(super) database_url: String,
    data: PathBuf,
    /// The postmaster of a server that is not embedded.
    postmaster: Option<i32>,
    /// The resident memory since the last call.
    memory: Arc<Mutex<Vec<Resident>>>,
    watched: Arc<AtomicBool>,
}

impl Gateway {
    /// Starts a gateway on a data directory and waits until it accepts readings. Without a database it uses the
    /// embedded server.
    pub(super) fn start(
        program: &Path,
        data: &Path,
        options: &[String],
        database: Option<&Reset>,
    ) -> Result<Self, TargetsError> {
        let mut command = Command::new(program);
        command
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(options)
            // Settings from the shell must not apply.
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(database) = database {
            command.env("DATABASE_URL", &database.url);
        }
        let mut child = command.spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| broken("it has no stdout"))?;
        let mut lines = BufReader::new(stdout).lines();
        let mut line = |prefix: &str| -> Result<String, TargetsError> {
            let line = lines
                .next()
                .ok_or_else(|| broken("it ended before it listened"))??;
            let rest = line.strip_prefix(prefix).map(str::to_owned);
            rest.ok_or_else(|| broken(&format!("it printed `{line}`")))
        };
        let authority = line("listening on http://")?;
        let database_url = match database {
            Some(database) => database.url.clone(),
            None => {
                let psql = line("database: ")?;
                database_url(&psql).ok_or_else(|| broken("it names no database"))?
            }
        };
        let memory = Arc::new(Mutex::new(Vec::new()));
        let watched = Arc::new(AtomicBool::new(false));
        let (looks, ended, pid) = (Arc::clone(&memory), Arc::clone(&watched), child.id());
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let (at, mib) = (Instant::now(), resident_kib(pid) as f64 / 1024.0);
                let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
                looks.push(Resident { at, mib });
                drop(looks);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Ok(Gateway {
            child,
            authority,
            database_url,
            data: data.to_owned(),
            postmaster: database.and_then(|database| database.postmaster),
            memory,
            watched,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// The samples of resident memory since the previous call.
    pub(super) fn take_memory(&self) -> Vec<Resident> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut memory)
    }

    /// Waits until the gateway is ready, including its database.
    pub(super) fn wait_ready(&self) -> Result<(), TargetsError> {
        self.wait(|gateway| gateway.ask("GET", "/health/ready", "").0 == 200)
    }

    /// Sends one reading. Returns whether it was acknowledged.
    pub(super) fn take_one(&self) -> bool {
        let now = jiff::Timestamp::now();
        let body = format!(
            r#"{{"meterId":"START","kwhConsumedAc":0.01,"voltage":230,"timestamp":"{now}"}}"#
        );
        self.ask("POST", "/v1/ingestion/meter", &body).0 == 202
    }

    /// Sends one reading of each stream with this time.
    pub(super) fn take_both_at(&self, at: &str) {
        for (path, fields) in [
            (
                "meter",
                r#""meterId":"START","kwhConsumedAc":0.01,"voltage":230"#,
            ),
            (
                "vehicle",
                r#""vehicleId":"START","kwhDeliveredDc":0.01,"soc":50,"batteryTemp":20"#,
            ),
        ] {
            let body = format!(r#"{{{fields},"timestamp":"{at}"}}"#);
            self.ask("POST", &format!("/v1/ingestion/{path}"), &body);
        }
    }

    /// The sum of a metric's samples whose labels contain a text.
    pub(super) fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.ask("GET", "/metrics", "").1;
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let whole = labels.is_empty() || labels.starts_with('{');
            (whole && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        samples.sum()
    }

    /// How late batches have been stored so far.
    pub(super) fn lag(&self) -> Lag {
        let name = "wattgate_store_lag_seconds";
        Lag {
            batches: self.metric(&format!("{name}_count"), ""),
            within: self.metric(&format!("{name}_bucket"), r#"le="1""#),
        }
    }

    /// Waits until the log is drained.
    pub(super) fn wait_stored(&self) -> Result<(), TargetsError> {
        self.wait(|gateway| gateway.metric("wattgate_wal_readings", "") == 0.0)
    }

    /// The postmaster of its server. `None` if it is on another machine or has ended.
    fn postmaster(&self) -> Option<i32> {
        self.postmaster.or_else(|| find_pid(&self.data))
    }

    /// The CPU time so far.
    pub(super) fn spent(&self) -> Spent {
        Spent {
            gateway: processor::of(self.child.id() as i32),
            server: self.postmaster().map_or(0.0, processor::of_family),
        }
    }

    /// Sends a signal to all processes of the server.
    pub(super) fn signal_database(&self, signal: Signal) -> Result<(), TargetsError> {
        let postmaster = self
            .postmaster()
            .ok_or_else(|| broken("its server has no pid"))?;
        let mut all = processor::children_of(postmaster)?;
        all.push(postmaster);
        for pid in all.into_iter().filter_map(Pid::from_raw) {
            // The process may have ended since.
            kill_process(pid, signal).ok();
        }
        Ok(())
    }

    /// Stops it like Ctrl-C does, and waits for it to end.
    pub(super) fn stop(mut self) -> Result<(), TargetsError> {
        self.interrupt();
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > until {
                return Err(broken("it did not stop"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn interrupt(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            kill_process(pid, Signal::INT).ok();
        }
    }

    fn wait(&self, is_so: impl Fn(&Self) -> bool) -> Result<(), TargetsError> {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() > until {
                return Err(broken("it did not appear in time"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends one request on its own connection. Status 0 means that there was no response.
    pub(super) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let exchange = || -> std::io::Result<String> {
            let mut socket = TcpStream::connect(&self.authority)?;
            socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(request.as_bytes())?;
            let mut text = String::new();
            socket.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = exchange().unwrap_or_default();
        let status = text.get(9..12).and_then(|digits| digits.parse().ok());
        (status.unwrap_or(0), text)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.watched.store(true, Ordering::Relaxed);
        if let Ok(None) = self.child.try_wait() {
            // After a failed measurement, the stopped server must continue, so that it can end with the gateway.
            drop(self.signal_database(Signal::CONT));
            self.interrupt();
            drop(self.child.wait());
        }
    }
}

fn broken(what: &str) -> TargetsError {
    TargetsError::Gateway(what.to_owned())
}

/// Builds a connection string from the command `psql -h … -p … -U … -d …`.
fn database_url(psql: &str) -> Option<String> {
    let mut words = psql.split_whitespace();
    let mut url = String::new();
    while let Some(word) = words.next() {
        let key = match word {
            "-h" => "host",
            "-p" => "port",
            "-U" => "user",
            "-d" => "dbname",
            _ => continue,
        };
        let value = words.next()?.trim_matches('\'');
        url.push_str(&format!("{key}={value} "));
    }
    url.contains("host=").then_some(url)
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0)
}

/// The pid of the server whose cluster lies under a directory.
fn find_pid(data: &Path) -> Option<i32> {
    for entry in std::fs::read_dir(data).ok()?.flatten() {
        let file = entry.path().join("postmaster.pid");
        if let Ok(text) = std::fs::read_to_string(&file) {
            return text.lines().next()?.trim().parse().ok();
        }
        if entry.path().is_dir()
            && let Some(pid) = find_pid(&entry.path())
        {
            return Some(pid);
        }
    }
    None
}
