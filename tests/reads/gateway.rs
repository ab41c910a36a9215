//! The real binary with its embedded PostgreSQL, asked over real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes longer unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: String,
    _data: tempfile::TempDir,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        // The server's user must be able to enter it, also when root runs the tests.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(data.path(), open).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_wattgate"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--wal-limit",
                "64MiB",
                "--data-dir",
            ])
            .arg(data.path())
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap();
        Gateway {
            address: address.to_owned(),
            child,
            _data: data,
        }
    }

    /// Sends a head, and a body where there is one.
    pub(crate) fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    /// One request; the status and the JSON of the answer.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let mut answer = String::new();
        let mut stream = self.open(method, path, "", body);
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> serde_json::Value {
        let (status, body) = self.call("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Stores readings; they are in PostgreSQL when this returns.
    pub(crate) fn store(&self, stream: &str, readings: &serde_json::Value) {
        let path = format!("/v1/ingestion/{stream}?ack=committed");
        let began = Instant::now();
        loop {
            let (status, answer) = self.call("POST", &path, &readings.to_string());
            if status == 201 {
                return;
            }
            // The embedded server may still be on its way.
            assert!(
                status == 503 && began.elapsed() < DEADLINE,
                "{status}: {answer}"
            );
        }
    }

    /// Tells it to stop; how long that took.
    pub(crate) fn stop(mut self) -> Duration {
        let began = Instant::now();
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(told.success());
        assert!(self.child.wait().unwrap().success());
        began.elapsed()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // After a stop there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A listener to the live stream.
pub(crate) struct Listener {
    lines: std::io::Lines<BufReader<TcpStream>>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: serde_json::Value,
}

impl Listener {
    /// Opens a stream and waits for its greeting.
    pub(crate) fn open(gateway: &Gateway, query: &str, last: Option<&str>) -> Self {
        let headers = last.map(|id| format!("last-event-id: {id}\r\n"));
        let path = format!("/v1/live/stream{query}");
        let stream = gateway.open("GET", &path, &headers.unwrap_or_default(), "");
        let mut listener = Listener {
            lines: BufReader::new(stream).lines(),
        };
        let status = listener.lines.next().unwrap().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        assert_eq!(listener.next().unwrap().name, "ready");
        listener
    }

    /// The next event; none at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.lines.next()?.unwrap();
            // Heads and the lengths of chunks stand between: they have no such names.
            if let Some(name) = line.strip_prefix("event: ") {
                event.name = name.to_owned();
            } else if let Some(id) = line.strip_prefix("id: ") {
                event.id = id.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                event.data = serde_json::from_str(data).unwrap();
                return Some(event);
            }
        }
    }
}
