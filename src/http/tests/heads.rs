//! Response headers: the request id, and CORS.

use super::{Answer, Edge, METER, Options, PATH, post};

#[tokio::test]
async fn every_answer_names_its_request() {
    let edge = Edge::start();
    let first = edge.get("/health/live").await;
    let second = edge.get("/nowhere").await;
    let id = |answer: &Answer| answer.header("x-request-id").unwrap().to_owned();
    assert_ne!(id(&first), id(&second));
    let head = "Content-Type: application/json\r\nX-Request-Id: mine-1\r\n";
    let answer = edge.send(&post(PATH, head, METER)).await;
    assert_eq!(id(&answer), "mine-1");
    let head = "X-Request-Id: not mine\r\n";
    let answer = edge.send(&post(PATH, head, METER)).await;
    assert_ne!(id(&answer), "not mine");
}

fn preflight(origin: &str) -> String {
    format!(
        "OPTIONS {PATH} HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\n\
         Access-Control-Request-Method: POST\r\n\r\n"
    )
}

#[tokio::test]
async fn only_configured_origins_get_cors_headers() {
    let edge = Edge::start();
    let answer = edge.send(&preflight("https://a.example")).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), None);

    let mut options = Options::default();
    options.settings.cors_origins = vec!["https://a.example".to_owned()];
    let edge = Edge::start_with(options);
    let answer = edge.send(&preflight("https://a.example")).await;
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://a.example"));
    assert_eq!(
        answer.header("access-control-allow-methods"),
        Some("POST, OPTIONS")
    );
    let headers = answer.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("authorization"));
    let head = "Content-Type: application/json\r\nOrigin: https://a.example\r\n";
    let answer = edge.send(&post(PATH, head, METER)).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://a.example")
    );
    for other in ["https://b.example", "http://a.example", "null"] {
        let answer = edge.send(&preflight(other)).await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{other}"
        );
        assert_eq!(answer.header("vary"), Some("origin"));
    }
}
