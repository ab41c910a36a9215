//! A listener on the live stream.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;

use crate::gateway::Gateway;

/// A listener on the live stream.
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

    /// The next event; `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.lines.next()?.unwrap();
            // Heads and chunk lengths come in between, but do not begin like this.
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
