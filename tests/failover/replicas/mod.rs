//! Read replicas: they answer queries, and never show less than a client has written.

mod away;
mod fresh;
mod tokens;

use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::gateway::{DEADLINE, Gateway, data_dir, within};
use crate::servers::{Server, Servers, url};

/// Starts a gateway with replicas, and waits until it is ready.
fn ready(data: &Path, primaries: &[&Server], replicas: &[&Server], flags: &[&str]) -> Gateway {
    let replicas = url(replicas);
    let more = ["--read-database-url", &replicas];
    without_replicas(data, primaries, &[&more, flags].concat())
}

fn without_replicas(data: &Path, primaries: &[&Server], flags: &[&str]) -> Gateway {
    let primaries = url(primaries);
    let urls = ["--database-url", &primaries, "--commit-timeout", "50s"];
    let gateway = Gateway::start(data, &[&urls, flags].concat());
    gateway.wait("readiness", Gateway::is_ready);
    gateway
}

/// Waits until so many replicas follow the primary, and one has answered.
fn follows(gateway: &Gateway, replicas: usize) {
    gateway.wait("the replicas", |it| {
        let (_, metrics) = it.call("GET", "/metrics", "");
        let up = metrics
            .lines()
            .filter(|line| line.starts_with("wattgate_replica_up{") && line.ends_with(" 1"));
        up.count() == replicas
    });
    store(gateway, "first");
    gateway.wait("an answer of a replica", |it| {
        ask(it, "first", None).as_of.is_some()
    });
}

/// Stores a reading of a meter; the token of it.
fn store(gateway: &Gateway, meter: &str) -> String {
    let at = jiff::Timestamp::now();
    let body =
        format!(r#"[{{"meterId":"{meter}","kwhConsumedAc":1,"voltage":230,"timestamp":"{at}"}}]"#);
    let path = "/v1/ingestion/meter?ack=committed";
    let mut token = None;
    within(DEADLINE, "an acknowledgement", || {
        let (status, answer) = gateway.exchange("POST", path, "", &body);
        token = header(&answer, "wattgate-written");
        status == 201
    });
    token.unwrap()
}

struct Answer {
    status: u16,
    /// Up to when it is complete, if a replica has answered.
    as_of: Option<jiff::Timestamp>,
    text: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        let (_, body) = self.text.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }
}

/// Asks for the newest reading of a meter.
fn ask(gateway: &Gateway, meter: &str, token: Option<&str>) -> Answer {
    get(gateway, &format!("/v1/live/meters/{meter}"), token)
}

fn get(gateway: &Gateway, path: &str, token: Option<&str>) -> Answer {
    let headers = token.map_or_else(String::new, |it| format!("wattgate-read-after: {it}\r\n"));
    let (status, text) = gateway.exchange("GET", path, &headers, "");
    Answer {
        status,
        as_of: header(&text, "wattgate-as-of").map(|at| at.parse().unwrap()),
        text,
    }
}

/// Asks until a replica answers.
fn by_replica(gateway: &Gateway, path: &str) -> (u16, jiff::Timestamp) {
    let mut found = None;
    within(DEADLINE, "an answer of the replica", || {
        let answer = get(gateway, path, None);
        found = answer.as_of.map(|as_of| (answer.status, as_of));
        found.is_some()
    });
    found.unwrap()
}

fn header(answer: &str, name: &str) -> Option<String> {
    let (head, _) = answer.split_once("\r\n\r\n")?;
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let found = fields.find(|(found, _)| *found == name);
    found.map(|(_, value)| value.to_owned())
}

/// The data of the stream's first event.
fn ready_event(gateway: &Gateway) -> String {
    let stream = gateway.open("GET", "/v1/live/stream", "", "");
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut after_ready = lines.skip_while(|line| line != "event: ready");
    let data = after_ready.find_map(|line| line.strip_prefix("data: ").map(str::to_owned));
    data.unwrap()
}

fn left(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!(
        "wattgate_replica_fallbacks_total{{reason=\"{reason}\"}}"
    ))
}

fn pause(replica: &Server) {
    replica.sql("select pg_wal_replay_pause()");
    within(DEADLINE, "the pause", || {
        replica.sql("select pg_get_wal_replay_pause_state()") == "paused"
    });
}

/// A token at another timeline or position.
fn altered(token: &str, timeline: Option<&str>, lsn: Option<&str>) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let [system, own_timeline, own_lsn] = parts[..] else {
        panic!("{token} names no position");
    };
    let timeline = timeline.unwrap_or(own_timeline);
    format!("{system}.{timeline}.{}", lsn.unwrap_or(own_lsn))
}
