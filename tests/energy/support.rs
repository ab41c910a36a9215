//! A gateway of the test's own, and what is asked of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Gateway {
    child: Child,
    address: String,
    /// How the embedded database is reached.
    pub(crate) psql: String,
}

/// A directory that the server's user can enter, also when root runs the tests.
pub(crate) fn data_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

impl Gateway {
    pub(crate) fn start(data: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wattgate"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--wal-limit",
                "64MiB",
                "--data-dir",
            ])
            .arg(data)
            .args(flags)
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(data.join("gateway.err")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = |start: &str| {
            let Some(Ok(line)) = lines.next() else {
                let why = std::fs::read_to_string(data.join("gateway.err"));
                panic!("the gateway has ended: {}", why.unwrap());
            };
            line.strip_prefix(start).unwrap().to_owned()
        };
        let address = line("listening on http://");
        let psql = line("database: ");
        let gateway = Gateway {
            child,
            address,
            psql,
        };
        gateway.wait("readiness", |g| g.call("GET", "/health/ready", "").0 == 200);
        gateway
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: test\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    /// Asks, and expects an answer.
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Sends readings, and waits until they are stored.
    pub(crate) fn send(&self, stream: &str, readings: &[String]) {
        let body = format!("[{}]", readings.join(","));
        let path = format!("/v1/ingestion/{stream}?ack=committed");
        let (status, answer) = self.call("POST", &path, &body);
        assert_eq!(status, 201, "{answer}");
        assert!(answer.contains("\"rejected\":0"), "{answer}");
    }

    pub(crate) fn session(&self, id: &str, vehicle: &str, meter: &str, from: &str, to: &str) {
        let body = format!(
            r#"{{"sessionId":"{id}","vehicleId":"{vehicle}","meterId":"{meter}","startedAt":"{from}","endedAt":"{to}"}}"#
        );
        let (status, answer) = self.call("POST", "/v1/sessions", &body);
        assert_eq!(status, 201, "{answer}");
    }

    /// The single answer over a window.
    pub(crate) fn performance(&self, vehicle: &str, from: &str, to: &str) -> Value {
        self.get(&format!(
            "/v1/analytics/performance/{vehicle}?from={from}&to={to}"
        ))
    }

    /// Runs SQL in the embedded database; what psql prints, unadorned.
    pub(crate) fn sql(&self, text: &str) -> String {
        let output = Command::new("sh")
            .args([
                "-c",
                &format!("{} -XAtq -v ON_ERROR_STOP=1 -f -", self.psql),
            ])
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
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < DEADLINE, "{what} did not come");
            std::thread::yield_now();
        }
    }

    pub(crate) fn terminate(mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A meter's reading; `kind` is `interval` or `register`.
pub(crate) fn meter(id: &str, at: &str, kwh: f64, kind: &str) -> String {
    format!(
        r#"{{"meterId":"{id}","kwhConsumedAc":{kwh},"voltage":230,"timestamp":"{at}","energyKind":"{kind}"}}"#
    )
}

/// A vehicle's reading; `more` are further fields, with a comma before each.
pub(crate) fn vehicle(id: &str, at: &str, kwh: f64, more: &str) -> String {
    format!(
        r#"{{"vehicleId":"{id}","soc":50,"kwhDeliveredDc":{kwh},"batteryTemp":30,"timestamp":"{at}"{more}}}"#
    )
}
