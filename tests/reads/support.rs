//! What is asked of the gateway, and a listener to its live stream.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::gateway::{DEADLINE, Gateway, data_dir};

/// A gateway with a data directory of its own.
pub(crate) struct Reads {
    gateway: Gateway,
    _data: tempfile::TempDir,
}

impl Reads {
    pub(crate) fn start() -> Self {
        let data = data_dir();
        Reads {
            gateway: Gateway::start(data.path(), &[]),
            _data: data,
        }
    }

    pub(crate) fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        self.gateway.open(method, path, headers, body)
    }

    /// One request; the status and the JSON of the answer.
    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let (status, body) = self.gateway.call(method, path, body);
        (status, serde_json::from_str(&body).unwrap())
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
    pub(crate) fn stop(self) -> Duration {
        self.gateway.terminate()
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
    pub(crate) fn open(gateway: &Reads, query: &str, last: Option<&str>) -> Self {
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
