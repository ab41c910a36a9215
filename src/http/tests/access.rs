//! Which routes a key opens.

use std::path::Path;
use std::sync::Arc;

use super::{Answer, Edge, JSON, METER, Options, PATH, post};
use crate::auth::{Keyring, Rights};
use crate::cli::keys;
use crate::config::{CreateKeyArgs, KeysCommand};
use crate::http::request::auth::Access;
use crate::http::routes::ROUTES;

/// An edge that requires keys.
struct KeyedEdge {
    edge: Edge,
    ring: Arc<Keyring>,
    dir: tempfile::TempDir,
}

impl KeyedEdge {
    fn start() -> KeyedEdge {
        KeyedEdge::start_with(Options::default())
    }

    fn start_with(options: Options) -> KeyedEdge {
        let dir = tempfile::tempdir().unwrap();
        let ring = Arc::new(Keyring::open(dir.path()).unwrap());
        let options = Options {
            keys: Some(Arc::clone(&ring)),
            ..options
        };
        let edge = Edge::start_with(options);
        KeyedEdge { edge, ring, dir }
    }

    /// Creates a key like the command does, and reads the key file.
    fn key(&self, rights: &str, change: impl Fn(&mut CreateKeyArgs)) -> String {
        let key = create(self.dir.path(), rights, change);
        self.ring.refresh().unwrap();
        key
    }

    async fn ingest(&self, key: &str, body: &str) -> Answer {
        let head = format!("{JSON}Authorization: Bearer {key}\r\n");
        self.edge.send(&post(PATH, &head, body)).await
    }

    async fn get(&self, key: &str, path: &str) -> Answer {
        self.call("GET", key, path).await
    }

    async fn call(&self, method: &str, key: &str, path: &str) -> Answer {
        let head = format!("Host: x\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n");
        self.edge
            .send(&format!("{method} {path} HTTP/1.1\r\n{head}\r\n"))
            .await
    }
}

fn create(dir: &Path, rights: &str, change: impl Fn(&mut CreateKeyArgs)) -> String {
    let mut args = CreateKeyArgs {
        data_dir: crate::config::DataDirArgs {
            data_dir: dir.to_owned(),
        },
        name: format!("key {}", crate::auth::Secret::generate().unwrap().id()),
        rights: rights.to_owned(),
        prefix: None,
        rate: None,
        certificate: None,
        expires: None,
    };
    change(&mut args);
    keys::run(&KeysCommand::Create(args)).unwrap().answer
}

fn plain(_: &mut CreateKeyArgs) {}

/// Every route: its method, a path that matches its pattern, and the rights that it needs.
fn everything() -> Vec<(&'static str, String, Option<Rights>)> {
    let routes = ROUTES.iter().map(|route| {
        let path = match route.pattern.split_once('{') {
            Some((before, rest)) => format!("{before}X1{}", rest.split_once('}').unwrap().1),
            None => route.pattern.to_owned(),
        };
        let needed = match route.access {
            Access::Public => None,
            Access::Key(rights, _) => Some(rights),
        };
        (route.method, path, needed)
    });
    routes.collect()
}

#[tokio::test]
async fn exactly_the_v1_routes_need_a_key() {
    let keyed = KeyedEdge::start();
    for (method, path, needed) in everything() {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = keyed.edge.send(&request).await;
        assert_eq!(
            needed.is_some(),
            path.starts_with("/v1/"),
            "{method} {path}"
        );
        if needed.is_some() {
            answer.assert_problem(401);
            let challenge = answer.header("www-authenticate").unwrap();
            assert_eq!(challenge, "Bearer realm=\"wattgate\"", "{method} {path}");
        } else {
            assert_ne!(answer.status, 401, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn each_right_opens_exactly_its_routes() {
    let keyed = KeyedEdge::start();
    for right in [Rights::INGEST, Rights::READ, Rights::ADMIN] {
        let key = keyed.key(&right.to_string(), plain);
        for (method, path, needed) in everything() {
            let Some(needed) = needed else { continue };
            let answer = keyed.call(method, &key, &path).await;
            if needed.any_of(right) {
                assert!(
                    ![401, 403].contains(&answer.status),
                    "{right} {method} {path}: {answer:?}"
                );
            } else {
                answer.assert_problem(403);
            }
        }
    }
}

#[tokio::test]
async fn keys_work_while_the_database_is_away() {
    let keyed = KeyedEdge::start();
    let key = keyed.key("ingest,read", plain);
    assert_eq!(keyed.ingest(&key, METER).await.status, 202);
    // The key is accepted, but the database is unreachable.
    keyed.get(&key, "/v1/live/meters").await.assert_problem(503);
    assert_eq!(keyed.edge.accepted(), 1);
}

#[tokio::test]
async fn an_invalid_key_is_refused_and_never_repeated() {
    let keyed = KeyedEdge::start();
    let good = keyed.key("ingest", plain);
    let revoked = keyed.key("ingest", |args| args.name = "retired".to_owned());
    assert_eq!(keyed.ingest(&revoked, METER).await.status, 202);
    let command = KeysCommand::Revoke {
        data_dir: crate::config::DataDirArgs {
            data_dir: keyed.dir.path().to_owned(),
        },
        key: "retired".to_owned(),
    };
    keys::run(&command).unwrap();
    keyed.ring.refresh().unwrap();
    let mut flipped = good.clone();
    let last = if flipped.pop() == Some('0') { '1' } else { '0' };
    flipped.push(last);
    for wrong in [
        revoked.as_str(),
        &flipped,
        "",
        "wg_",
        "x y",
        &"a".repeat(5000),
    ] {
        let answer = keyed.ingest(wrong, METER).await;
        answer.assert_problem(401);
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("invalid_token"), "{challenge}");
        assert!(wrong.len() < 5 || !answer.body.contains(wrong));
    }
    let twice = format!("{JSON}Authorization: Bearer {good}\r\nAuthorization: Bearer {good}\r\n");
    let answer = keyed.edge.send(&post(PATH, &twice, METER)).await;
    answer.assert_problem(401);
    let basic = format!("{JSON}Authorization: Basic {good}\r\n");
    let answer = keyed.edge.send(&post(PATH, &basic, METER)).await;
    answer.assert_problem(401);
    assert_eq!(keyed.ingest(&good, METER).await.status, 202);
}

#[tokio::test]
async fn an_expired_key_is_refused() {
    let keyed = KeyedEdge::start();
    let began = std::time::Instant::now();
    let key = keyed.key("ingest", |args| args.expires = Some("300ms".to_owned()));
    let mut answer = keyed.ingest(&key, METER).await;
    while answer.status == 202 {
        assert!(began.elapsed() < super::PATIENCE);
        answer = keyed.ingest(&key, METER).await;
    }
    answer.assert_problem(401);
    assert!(began.elapsed() >= std::time::Duration::from_millis(299));
}

#[tokio::test]
async fn a_key_with_a_prefix_is_for_its_devices_only() {
    let keyed = KeyedEdge::start();
    let key = keyed.key("ingest,read,admin", |args| {
        args.prefix = Some("M".to_owned())
    });
    let other = METER.replace("M1", "X1");
    let answer = keyed.ingest(&key, &format!("[{METER},{other}]")).await;
    assert_eq!(answer.status, 202);
    let summary = answer.json();
    assert_eq!(
        (&summary["accepted"], &summary["rejected"]),
        (&1.into(), &1.into())
    );
    assert_eq!(summary["errors"][0]["code"], "forbidden_device");
    assert_eq!(summary["errors"][0]["index"], 1);
    let refused = keyed.ingest(&key, &other).await.assert_problem(403);
    assert_eq!(refused["errors"][0]["code"], "forbidden_device");
    assert_eq!(keyed.edge.accepted(), 1);

    // The key is accepted, but the database is unreachable.
    for path in [
        "/v1/live/meters/M2",
        "/v1/history/meter/M2",
        "/v1/history/vehicle/M2",
        "/v1/analytics/performance/M2",
        "/v1/sessions?meterId=M2",
        "/v1/sessions/S",
    ] {
        keyed.get(&key, path).await.assert_problem(503);
    }
    for path in [
        "/v1/live/meters/X2",
        "/v1/live/vehicles/X2",
        "/v1/live/meters",
        "/v1/live/vehicles",
        "/v1/live/stream",
        "/v1/live/stream?id=M2",
        "/v1/history/meter/X2",
        "/v1/history/vehicle/X2",
        "/v1/analytics/performance",
        "/v1/analytics/performance/X2",
        "/v1/analytics/fleet",
        "/v1/alerts",
        "/v1/alerts?meterId=M2",
        "/v1/export/meter",
        "/v1/export/vehicle",
        "/v1/sessions",
        "/v1/sessions?meterId=X",
    ] {
        keyed.get(&key, path).await.assert_problem(403);
    }
    let put = |meter: &str| {
        let body = r#"{"shared":true}"#;
        let head = format!("{JSON}Authorization: Bearer {key}\r\n");
        post(&format!("/v1/meters/{meter}"), &head, body).replacen("POST", "PUT", 1)
    };
    keyed.edge.send(&put("M2")).await.assert_problem(503);
    keyed.edge.send(&put("X2")).await.assert_problem(403);
    let session = |vehicle: &str, meter: &str| {
        let body = format!(
            r#"{{"vehicleId":"{vehicle}","meterId":"{meter}","startedAt":"2024-01-01T00:00:00Z"}}"#
        );
        let head = format!("{JSON}Authorization: Bearer {key}\r\n");
        post("/v1/sessions", &head, &body)
    };
    let own = keyed.edge.send(&session("V1", "M1")).await;
    own.assert_problem(503);
    let others = keyed.edge.send(&session("V1", "X1")).await;
    others.assert_problem(403);
}

#[tokio::test]
async fn a_key_with_a_prefix_registers_only_its_sessions_of_a_list() {
    let keyed = KeyedEdge::start();
    let key = keyed.key("ingest", |args| args.prefix = Some("M".to_owned()));
    let list = |devices: &[(&str, &str)]| {
        let session = |(vehicle, meter): &(&str, &str)| {
            format!(
                r#"{{"vehicleId":"{vehicle}","meterId":"{meter}","startedAt":"2024-01-01T00:00:00Z"}}"#
            )
        };
        let sessions: Vec<String> = devices.iter().map(session).collect();
        let head = format!("{JSON}Authorization: Bearer {key}\r\n");
        post("/v1/sessions", &head, &format!("[{}]", sessions.join(",")))
    };
    let mixed = keyed.edge.send(&list(&[("V1", "X1"), ("V1", "M1")])).await;
    mixed.assert_problem(503);
    let others = keyed.edge.send(&list(&[("V1", "X1"), ("V2", "X2")])).await;
    let problem = others.assert_problem(403);
    assert_eq!(problem["errors"][1]["code"], "forbidden_device");
}

#[tokio::test]
async fn a_key_over_its_rate_waits_and_others_do_not() {
    let keyed = KeyedEdge::start();
    let limited = keyed.key("ingest", |args| args.rate = Some(10));
    let free = keyed.key("ingest", plain);
    let body = format!("[{}]", vec![METER; 100].join(","));
    // A burst of ten seconds' worth of readings is accepted, and counts against later ones.
    assert_eq!(keyed.ingest(&limited, &body).await.status, 202);
    for _ in 0..20 {
        let answer = keyed.ingest(&limited, METER).await;
        answer.assert_problem(429);
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((8..=15).contains(&seconds), "{seconds}");
        assert_eq!(keyed.ingest(&free, METER).await.status, 202);
    }
    assert_eq!(keyed.edge.accepted(), 120);
    // Invalid readings count as much as valid ones.
    let wasteful = keyed.key("ingest", |args| args.rate = Some(10));
    let nothing = format!("[{}]", vec!["{}"; 100].join(","));
    keyed.ingest(&wasteful, &nothing).await.assert_problem(400);
    keyed.ingest(&wasteful, METER).await.assert_problem(429);
}

#[tokio::test]
async fn a_key_whose_bodies_arrive_slowly_leaves_room_for_others() {
    let keyed = KeyedEdge::start_with(Options {
        memory_bytes: 1 << 20,
        ..Options::default()
    });
    let (slow, other) = (keyed.key("ingest", plain), keyed.key("ingest", plain));
    let mut open = Vec::new();
    // Only 60 KiB of each of the six bodies arrive. Each byte reserves two, so together they exceed half of the
    // memory.
    for _ in 0..6 {
        let head = format!("{JSON}Authorization: Bearer {slow}\r\n");
        let request = post(PATH, &head, &" ".repeat(64 << 10));
        let mut client = keyed.edge.connect().await;
        client
            .write(&request.as_bytes()[..request.len() - (4 << 10)])
            .await;
        open.push(client);
    }
    let refused = async {
        loop {
            let answer = keyed.ingest(&slow, &" ".repeat(100 << 10)).await;
            if answer.status == 503 {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(super::PATIENCE, refused)
        .await
        .unwrap();
    assert_eq!(refused.assert_problem(503)["code"], "memory");
    let large = format!("[{}]", vec![METER; 1000].join(","));
    assert_eq!(keyed.ingest(&other, &large).await.status, 202);
}
