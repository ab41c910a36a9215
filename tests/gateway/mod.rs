//! A gateway in its own process, for tests that drive the real binary.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The limit of every wait. Anything that takes longer is stuck.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Nothing listens there, so readings wait in the log.
pub(crate) const NO_DATABASE: &str = "postgres://nobody@127.0.0.1:1/none";

/// A directory that PostgreSQL's user can enter, even if root runs the tests.
pub(crate) fn data_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A running gateway, which is killed when dropped.
pub(crate) struct Gateway {
    pub(crate) child: Child,
    pub(crate) scheme: String,
    pub(crate) address: String,
    /// The psql command for its embedded database, if it has one.
    pub(crate) psql: Option<String>,
    /// Its log file.
    pub(crate) events: PathBuf,
    /// Its data directory, if no other gateway of the test uses it.
    own_data: Option<TempDir>,
}

/// The command that runs a gateway on a data directory, with the embedded database and a free port.
pub(crate) fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
    // Set in the environment, because each command accepts only the flags that it uses.
    command
        .env_remove("DATABASE_URL")
        .env("WATTGATE_LISTEN", "127.0.0.1:0")
        .env("WATTGATE_WAL_LIMIT", "64MiB")
        // The machine's temporary directory may be a tmpfs.
        .env("WATTGATE_WAL_ALLOW_VOLATILE", "true")
        .env("WATTGATE_DATA_DIR", data);
    command
}

impl Gateway {
    /// Starts a gateway on a data directory with further flags.
    pub(crate) fn start(data: &Path, flags: &[&str]) -> Self {
        let mut command = command(data);
        command.args(flags);
        Gateway::spawn(command, data)
    }

    /// Starts a gateway on a data directory and waits until it is ready.
    pub(crate) fn ready(data: &Path, flags: &[&str]) -> Self {
        let gateway = Gateway::start(data, flags);
        gateway.wait("readiness", Gateway::is_ready);
        gateway
    }

    /// Starts a gateway on a new data directory and waits until it is ready.
    pub(crate) fn fresh(flags: &[&str]) -> Self {
        let data = data_dir();
        let mut gateway = Gateway::ready(data.path(), flags);
        gateway.own_data = Some(data);
        gateway
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.call("GET", "/health/ready", "").0 == 200
    }

    /// Runs SQL in the embedded database and returns psql's plain output.
    pub(crate) fn sql(&self, text: &str) -> String {
        self.sql_in("wattgate", text)
    }

    /// The same, in another database on the same server.
    pub(crate) fn sql_in(&self, database: &str, text: &str) -> String {
        let psql = self.psql.as_deref().unwrap();
        let shell = format!("{psql} -d {database} -XAtq -v ON_ERROR_STOP=1 -f -");
        let output = Command::new("sh")
            .args(["-c", &shell])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .and_then(|mut psql| {
                psql.stdin.take().unwrap().write_all(text.as_bytes())?;
                psql.wait_with_output()
            })
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Starts a command and waits until it listens.
    pub(crate) fn spawn(mut command: Command, data: &Path) -> Self {
        let events = data.join("events");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(File::create(&events).unwrap())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let next = |what: &str| {
            lines.recv_timeout(DEADLINE).unwrap_or_else(|_| {
                let why = fs::read_to_string(&events).unwrap();
                panic!("the gateway has not printed {what}: {why}");
            })
        };
        let first = next("where it listens");
        let at = first.strip_prefix("listening on ").unwrap();
        let (scheme, address) = at.split_once("://").unwrap();
        let (scheme, address) = (scheme.to_owned(), address.to_owned());
        // If the database is embedded, a second line follows at once.
        let server = command.get_args().any(|flag| flag == "--database-url")
            || command
                .get_envs()
                .any(|(name, value)| name == "DATABASE_URL" && value.is_some());
        let psql = (!server).then(|| {
            let line = next("how to reach its database");
            line.strip_prefix("database: ").unwrap().to_owned()
        });
        Gateway {
            child,
            scheme,
            address,
            psql,
            events,
            own_data: None,
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends one request with further header lines, on its own connection.
    pub(crate) fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        // HTTP/1.0, so that responses of any length come without chunks.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: localhost\r\n{headers}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    /// Sends one request. Returns the status and the whole response, including its head.
    pub(crate) fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> (u16, String) {
        let mut answer = String::new();
        let mut stream = self.open(method, path, headers, body);
        stream.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    /// Sends one request. Returns the status and the body.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, answer) = self.exchange(method, path, "", body);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    /// Sends one request that must get 200. Returns the JSON.
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Sends readings, which must all be valid, and waits until they are in PostgreSQL.
    pub(crate) fn store(&self, stream: &str, readings: &str) {
        let path = format!("/v1/ingestion/{stream}?ack=committed");
        let (status, answer) = self.call("POST", &path, readings);
        assert_eq!(status, 201, "{answer}");
        assert!(answer.contains("\"rejected\":0"), "{answer}");
    }

    /// The value of the first metric whose line begins with this text; 0 if no line does.
    pub(crate) fn metric(&self, line_start: &str) -> f64 {
        let (_, text) = self.call("GET", "/metrics", "");
        let line = text.lines().find(|l| l.starts_with(line_start));
        line.map_or(0.0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
    }

    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        within(DEADLINE, what, || condition(self));
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and expects a clean exit. Returns how long it took.
    pub(crate) fn terminate(mut self) -> Duration {
        let began = Instant::now();
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success());
        began.elapsed()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The test may have ended it already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Runs a command that must end by itself, and kills it at the deadline. Returns the exit code and the log.
pub(crate) fn ended(mut command: Command, data: &Path) -> (Option<i32>, String) {
    let events = data.join("events");
    let mut child = command
        .stdout(Stdio::null())
        .stderr(File::create(&events).unwrap())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > DEADLINE {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    (status.code(), fs::read_to_string(&events).unwrap())
}

/// The lines that a process prints, through a channel, so that waiting for one can time out.
fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (send, lines) = mpsc::sync_channel(16);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Waits for a condition.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "{what} did not come in {limit:?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
