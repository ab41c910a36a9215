//! The door of the real binary: keys, certificates and crowds, with the database away.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);
/// What is promised for a key that is revoked.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);
/// Nobody listens there.
const NO_DATABASE: &str = "postgres://nobody@127.0.0.1:1/none";
const READING: &str =
    r#"{"meterId":"M1","kwhConsumedAc":1,"voltage":240.5,"timestamp":"2024-02-09T15:30:00Z"}"#;

struct Gateway {
    child: Child,
    scheme: String,
    address: String,
    events: PathBuf,
}

impl Gateway {
    fn start(data: &Path, args: &[&str]) -> Self {
        let events = data.join("events");
        let mut child = Command::new(env!("CARGO_BIN_EXE_wattgate"))
            .env("WATTGATE_LISTEN", "127.0.0.1:0")
            .args(["--wal-limit", "64MiB"])
            .args(["--shutdown-timeout", "100ms", "--log-format", "json"])
            .arg("--data-dir")
            .arg(data)
            .args(args)
            .env("DATABASE_URL", NO_DATABASE)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&events).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let at = line.trim().strip_prefix("listening on ").unwrap();
        let (scheme, address) = at.split_once("://").unwrap();
        Gateway {
            scheme: scheme.to_owned(),
            address: address.to_owned(),
            child,
            events,
        }
    }

    fn call(&self, method: &str, path: &str, key: Option<&str>, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let key = key.map_or(String::new(), |k| format!("authorization: Bearer {k}\r\n"));
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{key}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    fn ingest(&self, key: Option<&str>) -> u16 {
        self.call("POST", "/v1/ingestion/meter", key, READING).0
    }

    fn terminate(mut self) -> String {
        signal(&self.child, "TERM");
        assert!(self.child.wait().unwrap().success());
        std::fs::read_to_string(&self.events).unwrap()
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid])
        .status();
    assert!(sent.unwrap().success());
}

fn keys(data: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wattgate"))
        .arg("keys")
        .args(args)
        .arg("--data-dir")
        .arg(data)
        .env("DATABASE_URL", NO_DATABASE)
        .output()
        .unwrap()
}

fn create(data: &Path, name: &str) -> String {
    let made = keys(data, &["create", "--name", name, "--rights", "ingest,read"]);
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn within(limit: Duration, what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "{what} did not come in {limit:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_key_opens_within_seconds_of_its_making_and_closes_within_seconds_of_its_revocation() {
    let data = tempfile::tempdir().unwrap();
    // trace: whatever any part logs must hold no secret.
    let gateway = Gateway::start(data.path(), &["--auth", "keys", "--log-level", "trace"]);
    assert_eq!(gateway.ingest(None), 401);
    let first = create(data.path(), "first");
    let second = create(data.path(), "second");
    for key in [&first, &second] {
        within(REVOKED_WITHIN, "the key", || {
            gateway.ingest(Some(key)) == 202
        });
    }
    let revoked = keys(data.path(), &["revoke", "first"]);
    assert!(revoked.status.success());
    within(REVOKED_WITHIN, "the revocation", || {
        gateway.ingest(Some(&first)) == 401
    });
    assert_eq!(gateway.ingest(Some(&second)), 202);

    let (_, metrics) = gateway.call("GET", "/metrics", None, "");
    let (_, refused) = gateway.call("GET", "/v1/live/meters", Some(&first), "");
    let (_, away) = gateway.call("GET", "/v1/live/meters", Some(&second), "");
    assert!(away.starts_with("HTTP/1.1 503"), "{away}");
    let listed = String::from_utf8(keys(data.path(), &["list"]).stdout).unwrap();
    let kept = std::fs::read_to_string(data.path().join("keys.json")).unwrap();
    let events = gateway.terminate();
    assert!(events.contains("there is no key"), "said loudly");
    for key in [&first, &second] {
        let secret = key.rsplit('_').next().unwrap();
        for text in [&metrics, &refused, &away, &listed, &kept, &events] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    // What was revoked stays so over a restart.
    let gateway = Gateway::start(data.path(), &["--auth", "keys"]);
    assert_eq!(gateway.ingest(Some(&first)), 401);
    assert_eq!(gateway.ingest(Some(&second)), 202);
    gateway.terminate();
}

#[test]
fn off_a_loopback_address_nobody_gets_in_without_a_key() {
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(data.path(), &["--listen", "0.0.0.0:0"]);
    let port = gateway.address.rsplit(':').next().unwrap();
    let gateway = Gateway {
        address: format!("127.0.0.1:{port}"),
        ..gateway
    };
    assert_eq!(gateway.ingest(None), 401);
    assert_eq!(gateway.call("GET", "/health/live", None, "").0, 200);
    gateway.terminate();
}

/// A certificate of its own authority, in PEM, with its key.
fn certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(dir.join("key.next"), key).unwrap();
    std::fs::write(dir.join("cert.next"), made.cert.pem()).unwrap();
    for name in ["key", "cert"] {
        let next = dir.join(name).with_extension("next");
        std::fs::rename(next, dir.join(format!("{name}.pem"))).unwrap();
    }
}

#[test]
fn a_certificate_is_renewed_while_the_gateway_runs() {
    let data = tempfile::tempdir().unwrap();
    let file = |name: &str| data.path().join(name).to_str().unwrap().to_owned();
    certificate(data.path());
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let args = ["--tls-cert", &cert, "--tls-key", &key];
    let gateway = Gateway::start(data.path(), &args);
    assert_eq!(gateway.scheme, "https");
    let renewals = || {
        let events = std::fs::read_to_string(&gateway.events).unwrap();
        events.matches("the certificate: read again").count()
    };
    certificate(data.path());
    within(DEADLINE, "the new certificate", || renewals() >= 1);
    let before = renewals();
    signal(&gateway.child, "HUP");
    within(DEADLINE, "the certificate at SIGHUP", || {
        renewals() > before
    });
    gateway.terminate();
}

#[test]
fn what_is_wrong_with_the_door_keeps_it_from_opening() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("keys.json"), "{").unwrap();
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_wattgate"))
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .args(args)
            .env("DATABASE_URL", NO_DATABASE)
            .output()
            .unwrap()
    };
    let said = run(&["--auth", "keys"]);
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("keys.json"));
    let said = run(&["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"]);
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("/nowhere.pem"));
    let said = run(&["--tls-cert", "/nowhere.pem"]);
    assert_eq!(said.status.code(), Some(2));
}
