//! Credentials, with the real binary: keys, certificates, trusted proxies.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod gateway;

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::gateway::{DEADLINE, Gateway, NO_DATABASE, command, data_dir, within};

/// The documented time within which a revoked key stops working.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);
const READING: &str =
    r#"{"meterId":"M1","kwhConsumedAc":1,"voltage":240.5,"timestamp":"2024-02-09T15:30:00Z"}"#;

/// A gateway without a reachable database.
fn start(data: &Path, args: &[&str]) -> Gateway {
    let mut command = command(data);
    command
        .args(["--shutdown-timeout", "100ms", "--log-format", "json"])
        .args(args)
        .env("DATABASE_URL", NO_DATABASE);
    Gateway::spawn(command, data)
}

fn call(
    gateway: &Gateway,
    method: &str,
    path: &str,
    key: Option<&str>,
    body: &str,
) -> (u16, String) {
    let key = key.map_or(String::new(), |k| format!("authorization: Bearer {k}\r\n"));
    gateway.exchange(method, path, &key, body)
}

fn ingest(gateway: &Gateway, key: Option<&str>) -> u16 {
    call(gateway, "POST", "/v1/ingestion/meter", key, READING).0
}

fn logged(gateway: &Gateway) -> String {
    std::fs::read_to_string(&gateway.events).unwrap()
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
    create_with(data, name, &[])
}

fn create_with(data: &Path, name: &str, more: &[&str]) -> String {
    let plain = ["create", "--name", name, "--rights", "ingest,read"];
    let made = keys(data, &[&plain[..], more].concat());
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_new_or_revoked_key_takes_effect_within_seconds() {
    let data = tempfile::tempdir().unwrap();
    // At level trace, because no log line of any part may contain a secret.
    let gateway = start(data.path(), &["--auth", "keys", "--log-level", "trace"]);
    assert_eq!(ingest(&gateway, None), 401);
    let first = create(data.path(), "first");
    let second = create(data.path(), "second");
    for key in [&first, &second] {
        within(REVOKED_WITHIN, "the key", || {
            ingest(&gateway, Some(key)) == 202
        });
    }
    let revoked = keys(data.path(), &["revoke", "first"]);
    assert!(revoked.status.success());
    within(REVOKED_WITHIN, "the revocation", || {
        ingest(&gateway, Some(&first)) == 401
    });
    assert_eq!(ingest(&gateway, Some(&second)), 202);

    let (_, metrics) = call(&gateway, "GET", "/metrics", None, "");
    let (_, refused) = call(&gateway, "GET", "/v1/live/meters", Some(&first), "");
    let (status, away) = call(&gateway, "GET", "/v1/live/meters", Some(&second), "");
    assert_eq!(status, 503, "{away}");
    let listed = String::from_utf8(keys(data.path(), &["list"]).stdout).unwrap();
    let kept = std::fs::read_to_string(data.path().join("keys.json")).unwrap();
    let events = {
        let path = gateway.events.clone();
        gateway.terminate();
        std::fs::read_to_string(path).unwrap()
    };
    assert!(events.contains("there is no key"), "no warning");
    for key in [&first, &second] {
        let secret = key.rsplit('_').next().unwrap();
        for text in [&metrics, &refused, &away, &listed, &kept, &events] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    // A revocation survives a restart.
    let gateway = start(data.path(), &["--auth", "keys"]);
    assert_eq!(ingest(&gateway, Some(&first)), 401);
    assert_eq!(ingest(&gateway, Some(&second)), 202);
    gateway.terminate();
}

/// A stream opened with a key that has the right to read. It is read until the gateway ends it.
fn listen(gateway: &Gateway, key: &str) -> TcpStream {
    let key = format!("authorization: Bearer {key}\r\n");
    let mut stream = gateway.open("GET", "/v1/live/stream", &key, "");
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("event: ready") {
        let mut some = [0; 512];
        let more = stream.read(&mut some).unwrap();
        assert!(more > 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&some[..more]);
    }
    stream
}

/// The whole embedded database as SQL.
fn dump(gateway: &Gateway) -> String {
    let psql = gateway.psql.as_deref().unwrap();
    let dump = psql.replacen("psql ", "pg_dump ", 1);
    let dumped = Command::new("sh").args(["-c", &dump]).output().unwrap();
    assert!(dumped.status.success(), "{dumped:?}");
    String::from_utf8(dumped.stdout).unwrap()
}

#[test]
fn keys_are_never_stored_in_postgres() {
    let data = data_dir();
    let flags = [
        "--auth",
        "keys",
        "--log-level",
        "trace",
        "--log-format",
        "json",
    ];
    let gateway = Gateway::start(data.path(), &flags);
    let all = create(data.path(), "all");
    let fleet = create_with(data.path(), "fleet", &["--prefix", "A-"]);
    within(DEADLINE, "the first reading", || {
        let path = "/v1/ingestion/meter?ack=committed";
        call(&gateway, "POST", path, Some(&all), READING).0 == 201
    });
    within(REVOKED_WITHIN, "the fleet's key", || {
        call(&gateway, "GET", "/v1/live/meters/A-1", Some(&fleet), "").0 == 404
    });
    let mut stream = listen(&gateway, &all);

    // The error must not name a conflicting session of another fleet.
    let session = |id: &str, meter: &str| {
        format!(
            r#"{{"sessionId":"{id}","vehicleId":"B-1","meterId":"{meter}","startedAt":"2024-01-01T00:00:00Z"}}"#
        )
    };
    let post = |key: &str, body: &str| call(&gateway, "POST", "/v1/sessions", Some(key), body);
    assert_eq!(post(&all, &session("S-7", "B-2")).0, 201);
    let (status, hidden) = post(&fleet, &session("S-8", "A-2"));
    assert_eq!(status, 409);
    assert!(
        hidden.contains("a session of other devices") && !hidden.contains("S-7"),
        "{hidden}"
    );
    let (status, named) = post(&all, &session("S-8", "A-2"));
    assert_eq!(status, 409);
    assert!(named.contains("S-7"), "{named}");

    let (_, metrics) = call(&gateway, "GET", "/metrics", None, "");
    for refusals in [
        r#"wattgate_http_shed_total{reason="log_full"} 0"#,
        r#"wattgate_readings_rejected_total{stream="vehicle",code="out_of_range"} 0"#,
    ] {
        assert!(
            metrics.contains(refusals),
            "{refusals}: a rate needs a first value"
        );
    }
    let dump = dump(&gateway);
    assert!(dump.contains("S-7"), "the dump is one of this database");
    assert!(keys(data.path(), &["revoke", "all"]).status.success());
    let began = Instant::now();
    let mut rest = Vec::new();
    // The connection is reset or closed: nothing follows.
    stream.read_to_end(&mut rest).ok();
    assert!(began.elapsed() < REVOKED_WITHIN, "{:?}", began.elapsed());
    let (status, refused) = call(&gateway, "GET", "/v1/live/meters", Some(&all), "");
    assert_eq!(status, 401);

    let events = logged(&gateway);
    let kept = std::fs::read_to_string(data.path().join("keys.json")).unwrap();
    gateway.terminate();
    for key in [&all, &fleet] {
        let secret = key.rsplit('_').next().unwrap();
        for text in [&metrics, &refused, &hidden, &named, &events, &dump, &kept] {
            assert!(!text.contains(secret), "a key is in {text}");
        }
    }
    // Not even the key's hash is in the database.
    for line in kept.lines().filter(|line| line.contains("sha256")) {
        let hash = line.split('"').nth(3).unwrap();
        assert!(hash.len() == 64 && !dump.contains(hash));
    }
}

#[test]
fn the_log_names_the_client_behind_a_proxy_that_is_trusted() {
    let data = tempfile::tempdir().unwrap();
    let debug = ["--log-level", "debug"];
    let client_of = |flags: &[&str]| {
        let gateway = start(data.path(), &[&debug[..], flags].concat());
        let head = "x-forwarded-for: 203.0.113.9\r\n";
        let (status, _) = gateway.exchange("GET", "/nowhere", head, "");
        assert_eq!(status, 404);
        within(DEADLINE, "the event", || {
            logged(&gateway).contains("\"client\"")
        });
        let logged = logged(&gateway);
        gateway.terminate();
        let (_, client) = logged.split_once(r#""client":""#).unwrap();
        client.split('"').next().unwrap().to_owned()
    };
    assert_eq!(client_of(&[]), "127.0.0.1");
    assert_eq!(client_of(&["--trusted-proxies", "10.0.0.0/8"]), "127.0.0.1");
    let trusted = client_of(&["--trusted-proxies", "10.0.0.0/8,127.0.0.1"]);
    assert_eq!(trusted, "203.0.113.9");
}

#[test]
fn addresses_other_than_loopback_require_a_key() {
    let data = tempfile::tempdir().unwrap();
    let mut gateway = start(data.path(), &["--listen", "0.0.0.0:0"]);
    let port = gateway.address.rsplit(':').next().unwrap().to_owned();
    gateway.address = format!("127.0.0.1:{port}");
    assert_eq!(ingest(&gateway, None), 401);
    assert_eq!(call(&gateway, "GET", "/health/live", None, "").0, 200);
    gateway.terminate();
}

/// A self-signed certificate with its key, in PEM.
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
    let gateway = start(data.path(), &args);
    assert_eq!(gateway.scheme, "https");
    let renewals = || logged(&gateway).matches("reloaded the certificate").count();
    certificate(data.path());
    within(DEADLINE, "the new certificate", || renewals() >= 1);
    let before = renewals();
    gateway.signal("HUP");
    within(DEADLINE, "the certificate at SIGHUP", || {
        renewals() > before
    });
    gateway.terminate();
}

#[test]
fn wrong_keys_or_certificates_keep_it_from_starting() {
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
    let output = run(&["--auth", "keys"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("keys.json"));
    let output = run(&["--tls-cert", "/nowhere.pem", "--tls-key", "/nowhere.key"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere.pem"));
    let output = run(&["--tls-cert", "/nowhere.pem"]);
    assert_eq!(output.status.code(), Some(2));
}
