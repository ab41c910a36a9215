//! The whole way of a reading: the real binary, its embedded PostgreSQL, real sockets, real kills.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wattgate::postgres::embedded::{self, EmbeddedConfig};

const DEADLINE: Duration = Duration::from_secs(60);

struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    fn start(data: &Path) -> Self {
        Gateway::start_on(data, None)
    }

    /// Starts the gateway on a server, or on an embedded one.
    fn start_on(data: &Path, database_url: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattgate"));
        command.env_remove("DATABASE_URL");
        if let Some(url) = database_url {
            command.env("DATABASE_URL", url);
        }
        let mut child = command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--wal-limit",
                "64MiB",
                "--wal-allow-volatile",
                "--data-dir",
            ])
            .arg(data)
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
    let at = |n: usize| format!("2024-02-09T{:02}:{:02}:00Z", n / 60, n % 60);
    let mut readings: Vec<String> = (0..500)
        .map(|n| reading(0, 1.0).replace("2024-02-09T15:00:00Z", &at(n)))
        .collect();
    let bad = [
        (3, "240.5", "2405", "voltage"),
        (
            50,
            "\"kwhConsumedAc\":1",
            "\"kwhConsumedAc\":-1",
            "kwhConsumedAc",
        ),
        (51, "\"kwhConsumedAc\":1,", "", "kwhConsumedAc"),
        (99, "\"M1\"", "\"\"", "meterId"),
        (250, "2024-02-09T", "2024-02-30T", "timestamp"),
        (251, "240.5", "\"240.5\"", "voltage"),
        (499, "voltage", "volts", "volts"),
    ];
    for (index, right, wrong, _) in bad {
        assert!(readings[index].contains(right));
        readings[index] = readings[index].replace(right, wrong);
    }
    let body = format!("[{}]", readings.join(","));
    let (status, answer) = gateway.call("POST", &format!("{METER}?ack=committed"), &body);
    assert_eq!(status, 201, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["accepted"], 493);
    assert_eq!(answer["rejected"], 7);
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), bad.len());
    for (error, (index, _, _, field)) in errors.iter().zip(bad) {
        assert_eq!(error["index"], index, "{error}");
        assert!(error["field"] == field || field == "volts", "{error}");
    }
    assert_eq!(
        gateway.metric("wattgate_readings_stored_total{stream=\"meter\"}"),
        493.0
    );
    gateway.terminate();
}

#[test]
fn what_is_committed_is_in_live_status_at_once() {
    let data = data_dir();
    let gateway = Gateway::start(data.path());
    for n in 0..10 {
        let one = reading(n, 1.0).replace("M1", &format!("M{n}"));
        let (status, answer) = gateway.call("POST", &format!("{METER}?ack=committed"), &one);
        assert_eq!(status, 201, "{answer}");
        let (status, live) = gateway.call("GET", &format!("/v1/live/meters/M{n}"), "");
        assert_eq!(status, 200, "M{n}: {live}");
    }
    gateway.terminate();
}

#[test]
fn with_its_server_stopped_the_gateway_takes_readings_and_stores_them_once_later() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server_dir = data_dir();
    let start = || {
        let mut config = EmbeddedConfig::new(server_dir.path());
        config.elsewhere = server_dir.path().join("elsewhere-unused");
        runtime.block_on(embedded::start(config)).unwrap()
    };
    let server = start();
    let at = server.connection().clone();
    let url = format!(
        "host={} port={} user={} dbname={}",
        at.socket_dir.display(),
        at.port,
        at.user,
        at.database
    );
    let data = data_dir();
    let gateway = Gateway::start_on(data.path(), Some(&url));
    let (status, answer) =
        gateway.call("POST", &format!("{METER}?ack=committed"), &reading(0, 1.0));
    assert_eq!(status, 201, "{answer}");

    runtime.block_on(server.stop(DEADLINE));
    gateway.wait("the outage to be noticed", |g| {
        g.call("GET", "/health/ready", "").0 == 503
    });
    for minute in 1..50 {
        let (status, answer) = gateway.call("POST", METER, &reading(minute, 1.0));
        assert_eq!(status, 202, "{answer}");
    }
    // One comes twice while the database is away, as from a device that lost its answer.
    assert_eq!(gateway.call("POST", METER, &reading(7, 1.0)).0, 202);
    let stored = "wattgate_readings_stored_total{stream=\"meter\"}";
    assert_eq!(gateway.metric(stored), 1.0);

    let server = start();
    gateway.wait("what was taken meanwhile", |g| g.metric(stored) == 50.0);
    assert_eq!(
        gateway.metric("wattgate_readings_duplicate_total{stream=\"meter\"}"),
        1.0
    );
    let counted: i64 = runtime.block_on(async {
        let (client, driver) = at.config().connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(driver);
        let row = client
            .query_one("select count(*) from meter_readings", &[])
            .await;
        row.unwrap().get(0)
    });
    assert_eq!(counted, 50);
    gateway.terminate();
    runtime.block_on(server.stop(DEADLINE));
}
