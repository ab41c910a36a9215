//! The whole way of a reading: the real binary, its embedded PostgreSQL, real sockets, real kills.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wattgate"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--wal-limit",
                "64MiB",
                "--wal-allow-volatile",
                "--data-dir",
            ])
            .arg(data)
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .unwrap()
            .to_owned();
        Gateway { child, address }
    }

    fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
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

    fn metric(&self, line_start: &str) -> f64 {
        let (_, text) = self.call("GET", "/metrics", "");
        let line = text.lines().find(|l| l.starts_with(line_start));
        line.map_or(0.0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
    }

    fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < DEADLINE, "{what} did not come");
            std::thread::yield_now();
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert!(self.child.wait().unwrap().success());
    }
}

/// A directory that the server's user can enter, also when root runs the tests.
fn data_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn reading(minute: usize, kwh: f64) -> String {
    format!(
        r#"{{"meterId":"M1","kwhConsumedAc":{kwh},"voltage":240.5,"timestamp":"2024-02-09T15:{minute:02}:00Z"}}"#
    )
}

const METER: &str = "/v1/ingestion/meter";

#[test]
fn acknowledged_readings_survive_a_kill_and_are_stored_once() {
    let data = data_dir();
    let gateway = Gateway::start(data.path());
    for minute in 0..30 {
        let (status, body) = gateway.call("POST", METER, &reading(minute, 1.0));
        assert_eq!(status, 202, "{body}");
    }
    gateway.kill();

    let gateway = Gateway::start(data.path());
    // A reading that was acknowledged before the kill is sent again, and one contradicts.
    let again = format!("[{},{}]", reading(29, 1.0), reading(28, 2.0));
    let (status, body) = gateway.call("POST", &format!("{METER}?ack=committed"), &again);
    assert_eq!(status, 201, "{body}");
    gateway.wait("the end of the log", |g| {
        g.metric("wattgate_database_up") == 1.0
            && (0..64).all(|shard| {
                let name = format!("wattgate_wal_readings{{shard=\"{shard}\",stream=\"meter\"}}");
                g.metric(&name) == 0.0
            })
    });
    let sum = |name: &str| {
        gateway.metric(&format!(
            "wattgate_readings_{name}_total{{stream=\"meter\"}}"
        ))
    };
    assert_eq!(sum("duplicate"), 1.0);
    assert_eq!(sum("quarantined"), 1.0);
    assert_eq!(sum("accepted"), sum("stored") + 2.0);
    let (status, live) = gateway.call("GET", "/v1/live/meters/M1", "");
    assert_eq!(status, 200);
    assert!(live.contains("2024-02-09T15:29:00Z"), "{live}");
    gateway.terminate();
}

#[test]
fn a_batch_with_bad_readings_stores_the_good_ones_and_names_the_bad() {
    let data = data_dir();
    let gateway = Gateway::start(data.path());
    let mut readings: Vec<String> = (0..20).map(|minute| reading(minute, 1.0)).collect();
    readings[7] = readings[7].replace("240.5", "2405");
    readings[13] = readings[13].replace("kwhConsumedAc", "kwh");
    let body = format!("[{}]", readings.join(","));
    let (status, answer) = gateway.call("POST", &format!("{METER}?ack=committed"), &body);
    assert_eq!(status, 201, "{answer}");
    for expected in [
        r#""accepted":18"#,
        r#""rejected":2"#,
        r#""index":7"#,
        r#""index":13"#,
    ] {
        assert!(answer.contains(expected), "{expected}: {answer}");
    }
    assert_eq!(
        gateway.metric("wattgate_readings_stored_total{stream=\"meter\"}"),
        18.0
    );
    gateway.terminate();
}
