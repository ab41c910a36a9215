//! Routes, methods, health, and an absent database.

use super::{Edge, METER, Options};
use crate::http::api::health::{DatabaseState, MigrationState};

#[tokio::test]
async fn unknown_paths_and_methods_get_problems() {
    let edge = Edge::start();
    edge.get("/nowhere").await.assert_problem(404);
    edge.get("/v1/live/meters/%zz").await.assert_problem(400);
    edge.get("/v1/live/meters/%ff").await.assert_problem(400);
    let answer = edge.get("/v1/ingestion/meter").await;
    answer.assert_problem(405);
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    edge.post("/metrics", METER).await.assert_problem(405);
}

#[tokio::test]
async fn head_and_options_are_answered_everywhere() {
    let edge = Edge::start();
    let answer = edge
        .send("OPTIONS /v1/sessions HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    assert_eq!(
        edge.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .status,
        204
    );
    let mut client = edge.connect().await;
    client
        .write(b"HEAD /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut client.stream, &mut text)
        .await
        .unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"),
        "{text}"
    );
    assert!(text.contains("content-length: 17"), "{text}");
}

#[tokio::test]
async fn options_and_head_of_health_answer_as_get_does() {
    let edge = Edge::start();
    let status = async |method: &str, path: &str, more: &str| {
        let head = format!("{method} {path} HTTP/1.0\r\n{more}\r\n");
        let mut client = edge.connect().await;
        client.write(head.as_bytes()).await;
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut client.stream, &mut text)
            .await
            .unwrap();
        assert!(method != "OPTIONS" || text.contains("allow: GET, HEAD, OPTIONS"));
        text[9..12].to_owned()
    };
    let preflight = "Origin: http://a\r\nAccess-Control-Request-Method: GET\r\n";
    for expected in ["503", "200"] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            for path in ["/health", "/health/ready"] {
                assert_eq!(status(method, path, "").await, expected, "{method} {path}");
            }
            assert_eq!(status(method, "/health/live", "").await, "200");
        }
        assert_eq!(status("OPTIONS", "/health", preflight).await, "204");
        edge.context.health.set_database(DatabaseState::Up);
        edge.context.health.set_migrations(MigrationState::Done);
        edge.context.health.set_questions(DatabaseState::Up);
    }
}

#[tokio::test]
async fn readiness_reports_every_part() {
    let edge = Edge::start();
    assert_eq!(edge.get("/health/live").await.status, 200);
    let answer = edge.get("/health/ready").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    edge.context.health.set_database(DatabaseState::Up);
    edge.context.health.set_migrations(MigrationState::Done);
    edge.context.health.set_questions(DatabaseState::Up);
    edge.post("/v1/ingestion/meter", METER).await;
    let answer = edge.get("/health").await;
    assert_eq!(answer.status, 200);
    let parts = answer.json();
    assert_eq!(parts["wal"]["status"], "ok");
    assert_eq!(parts["database"]["status"], "up");
    assert_eq!(parts["lag"]["readings"], 1);
    edge.context.progress.fail("disk".to_owned());
    assert_eq!(edge.get("/health").await.status, 503);
}

#[tokio::test]
async fn without_the_database_queries_get_503() {
    let edge = Edge::start();
    for path in [
        "/v1/live/meters",
        "/v1/live/vehicles/V",
        "/v1/sessions",
        "/v1/sessions/S",
        // New ids must not be dots, but stored ones may be.
        "/v1/live/meters/.",
        "/v1/history/vehicle/..",
        "/v1/sessions/%2e",
    ] {
        edge.get(path).await.assert_problem(503);
    }
    let body = r#"{"vehicleId":"V","meterId":"M","startedAt":"2024-01-01T00:00:00Z"}"#;
    edge.post("/v1/sessions", body).await.assert_problem(503);
    // Errors in the request still come first.
    edge.get("/v1/live/meters?limit=0")
        .await
        .assert_problem(400);
    edge.get("/v1/sessions?active=yes")
        .await
        .assert_problem(400);
    edge.get("/v1/sessions/S?x=1").await.assert_problem(400);
    edge.post("/v1/sessions", "{}").await.assert_problem(400);
    edge.post("/v1/sessions", &" ".repeat(65_537))
        .await
        .assert_problem(413);
    for id in ["vehicleId\":\"V", "meterId\":\"M"] {
        let (name, _) = id.split_once('"').unwrap();
        let dots = body.replace(id, &format!("{name}\":\".."));
        let problem = edge.post("/v1/sessions", &dots).await.assert_problem(400);
        assert_eq!(problem["code"], "invalid_id", "{problem}");
    }
    let backwards = body.replace('}', r#","endedAt":"2024-01-01T00:00:00Z"}"#);
    edge.post("/v1/sessions", &backwards)
        .await
        .assert_problem(400);
}

#[tokio::test]
async fn parquet_exports_are_bounded() {
    use crate::http::api::export::{PARQUET, PARQUET_MAX};
    let edge = Edge::start();
    let detail = async |format: &str| {
        let path = format!("/v1/export/meter?format={format}");
        let problem = edge.get(&path).await.assert_problem(503);
        problem["detail"].as_str().unwrap().to_owned()
    };
    let no_database = detail("csv").await;
    assert_eq!(detail("parquet").await, no_database);
    let all = PARQUET.acquire_many(PARQUET_MAX as u32).await.unwrap();
    assert!(detail("parquet").await.contains("Parquet"));
    assert_eq!(detail("csv").await, no_database);
    drop(all);
    assert_eq!(detail("parquet").await, no_database);
}

#[tokio::test]
async fn pages_of_sessions_with_energy_are_bounded() {
    use crate::http::api::session_list::{PAGES, PAGES_MAX};
    let edge = Edge::start();
    let detail = async |query: &str| {
        let path = format!("/v1/sessions{query}");
        let problem = edge.get(&path).await.assert_problem(503);
        problem["detail"].as_str().unwrap().to_owned()
    };
    let no_database = detail("").await;
    assert_eq!(detail("?energy=true&limit=200").await, no_database);
    let all = PAGES.acquire_many(PAGES_MAX as u32).await.unwrap();
    assert!(detail("?energy=true").await.contains("energy=true"));
    assert_eq!(detail("?energy=false").await, no_database);
    drop(all);
    assert_eq!(detail("?energy=true").await, no_database);
    let too_many = edge.get("/v1/sessions?energy=true&limit=201").await;
    too_many.assert_problem(400);
}

#[tokio::test]
async fn a_panic_costs_its_connection_only() {
    let options = Options {
        metrics: || panic!("the test panics"),
        ..Options::default()
    };
    let edge = Edge::start_with(options);
    let mut client = edge.connect().await;
    client
        .write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    assert!(client.is_closed().await);
    assert_eq!(edge.post("/v1/ingestion/meter", METER).await.status, 202);
}

#[tokio::test]
async fn metrics_have_prometheus_text_format() {
    let edge = Edge::start();
    let answer = edge.get("/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert_eq!(answer.body, "# EOF\n");
}

#[tokio::test]
async fn times_beyond_the_year_9999_are_refused() {
    let edge = Edge::start();
    for path in [
        "/v1/analytics/fleet?to=9999-12-31T23:59:59Z",
        "/v1/analytics/performance/V?to=9999-12-31T23:59:59-23:59",
        "/v1/analytics/performance?to=0000-01-01T00:00:00%2B23:59",
        "/v1/analytics/performance?after=lost~-9223372036854775808~-9223372036854775807~1~0~1~V",
        "/v1/history/meter/M?to=0000-01-01T12:00:00Z",
        "/v1/history/meter/M?after=9999-12-31T23:59:59Z",
    ] {
        edge.get(path).await.assert_problem(400);
    }
}

#[tokio::test]
async fn a_document_must_be_an_object_and_not_an_array() {
    let edge = Edge::start();
    for (line, body) in [
        ("PUT /v1/meters/M", "[true]"),
        ("POST /v1/sessions/S/end", r#"["2024-02-09T15:30:00Z"]"#),
        (
            "POST /v1/sessions",
            r#"["S","V","M","2024-02-09T15:30:00Z",null]"#,
        ),
    ] {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        edge.send(&request).await.assert_problem(400);
    }
}

#[tokio::test]
async fn a_list_of_sessions_is_bounded_and_read_before_it_is_stored() {
    let edge = Edge::start();
    let good = r#"{"vehicleId":"V","meterId":"M","startedAt":"2024-01-01T00:00:00Z"}"#;
    let list = |n: usize| format!("[{}]", vec![good; n].join(","));
    // The database is away: only lists that are worth storing get there.
    edge.post("/v1/sessions", &list(1_000))
        .await
        .assert_problem(503);
    let problem = edge.post("/v1/sessions", &list(1_001)).await;
    assert_eq!(problem.assert_problem(400)["code"], "too_many_sessions");
    let long = " ".repeat((1 << 20) + 1);
    edge.post("/v1/sessions", &long).await.assert_problem(413);
    for empty in ["[]", "[{]"] {
        edge.post("/v1/sessions", empty).await.assert_problem(400);
    }
    let faulty = format!(r#"[{},[],{{"vehicleId":"V"}}]"#, good.replace("Z", ""));
    let problem = edge.post("/v1/sessions", &faulty).await.assert_problem(400);
    assert_eq!(problem["rejected"], 3);
    let errors = problem["errors"].as_array().unwrap();
    let of = |error: &serde_json::Value| (error["index"].clone(), error["code"].clone());
    let found: Vec<_> = errors.iter().map(of).collect();
    let expected = [
        (0, "invalid_timestamp"),
        (1, "not_an_object"),
        (2, "missing"),
        (2, "missing"),
    ];
    assert_eq!(
        found,
        expected.map(|(index, code)| (index.into(), code.into()))
    );
    assert_eq!(errors[2]["field"], "meterId");
}

#[tokio::test]
async fn without_keys_a_foreign_host_is_refused_everywhere() {
    let mut options = Options::default();
    options.settings.local_hosts_only = true;
    let edge = Edge::start_with(options);
    for path in [
        "/",
        "/metrics",
        "/health/live",
        "/v1/live/meters",
        "/openapi.json",
    ] {
        let from = |host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        edge.send(&from("evil.example:3000"))
            .await
            .assert_problem(403);
        let answer = edge.send(&from("localhost:3000")).await;
        assert_ne!(answer.status, 403, "{path}: {}", answer.body);
    }
    let body =
        r#"{"meterId":"M","kwhConsumedAc":1,"voltage":230,"timestamp":"2024-02-09T15:30:00Z"}"#;
    for (host, status) in [("evil.example", 403), ("127.0.0.1:3000", 202)] {
        let request = format!(
            "POST /v1/ingestion/meter HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = edge.send(&request).await;
        assert_eq!(answer.status, status, "{host}: {}", answer.body);
    }
}
