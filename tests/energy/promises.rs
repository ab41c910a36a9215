//! The metrics behind the alerts on response times.

use crate::support::{Gateway, NO_ALERTS, meter};

#[test]
fn the_time_of_an_answer_is_counted_by_its_acknowledgement() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let at = jiff::Timestamp::now().to_string();
    let reading = meter("M1", &at, 0.1, "interval");
    for (mode, times) in [("durable", 2), ("committed", 1), ("buffered", 1)] {
        for _ in 0..times {
            let path = format!("/v1/ingestion/meter?ack={mode}");
            let (status, body) = gateway.call("POST", &path, &reading);
            assert!(status < 300, "{status} {body}");
        }
    }
    let refused = gateway.call("POST", "/v1/ingestion/meter", "[]").0;
    assert_eq!(refused, 400);
    gateway.get("/v1/live/meters");
    let name = "wattgate_http_request_duration_seconds_count";
    let counts = |text: &str| -> Vec<String> {
        let of = |route: &str| format!("{name}{{route=\"{route}\"");
        let wanted = [of("/v1/ingestion/meter"), of("/v1/live/meters")];
        let lines = text.lines();
        let lines = lines.filter(|line| wanted.iter().any(|start| line.starts_with(start)));
        let mut counts: Vec<String> = lines.map(|line| line[name.len()..].to_owned()).collect();
        counts.sort_unstable();
        counts
    };
    let expected = [
        "{route=\"/v1/ingestion/meter\",ack=\"buffered\"} 1",
        "{route=\"/v1/ingestion/meter\",ack=\"committed\"} 1",
        "{route=\"/v1/ingestion/meter\",ack=\"durable\"} 2",
        "{route=\"/v1/ingestion/meter\"} 1",
        "{route=\"/v1/live/meters\"} 1",
    ];
    // A response is counted when it leaves, so the first scrape may come too early.
    gateway.wait("the counts", |g| {
        counts(&g.call("GET", "/metrics", "").1) == expected
    });
    let (_, text) = gateway.call("GET", "/metrics", "");
    let has = |line: &str| text.lines().any(|found| found == line);
    assert!(has("wattgate_pool_connections_limit 8"), "{text}");
    gateway.terminate();
}
