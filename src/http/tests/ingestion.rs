//! The responses of ingestion.

use super::{Edge, JSON, METER, Options, PATH, eventually, post};
use serde_json::json;

#[tokio::test]
async fn an_acknowledged_reading_is_in_the_log() {
    let edge = Edge::start();
    let answer = edge.post(PATH, METER).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected =
        json!({"success": true, "accepted": 1, "rejected": 0, "ack": "durable", "errors": []});
    assert_eq!(answer.json(), expected);
    assert_eq!(edge.accepted(), 1);
}

#[tokio::test]
async fn one_bad_reading_does_not_cost_its_neighbours() {
    let edge = Edge::start();
    let body = format!(
        "[{METER},{{\"meterId\":\"M2\"}},{}]",
        METER.replace("M1", "M3")
    );
    let answer = edge.post(PATH, &body).await;
    assert_eq!(answer.status, 202);
    let summary = answer.json();
    assert_eq!(
        (&summary["accepted"], &summary["rejected"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(summary["success"], false);
    assert_eq!(summary["errors"][0]["index"], 1);
    assert_eq!(edge.accepted(), 2);
}

#[tokio::test]
async fn lines_and_vehicles_are_accepted() {
    let edge = Edge::start();
    let vehicle = r#"{"vehicleId":"V","soc":80.5,"kwhDeliveredDc":41.3,"batteryTemp":31.5,"timestamp":"2024-02-09T15:30:00Z"}"#;
    let body = format!("{vehicle}\n\n{}\n", vehicle.replace(":30:00Z", ":31:00Z"));
    let head = "Content-Type: application/x-ndjson\r\n";
    let answer = edge
        .send(&post("/v1/ingestion/vehicle?ack=buffered", head, &body))
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["accepted"], 2);
    assert_eq!(answer.json()["ack"], "buffered");
    eventually("both are in the log", || edge.accepted() == 2).await;
}

#[tokio::test]
async fn a_body_too_large_to_decode_in_place_is_accepted() {
    let edge = Edge::start();
    let body: String = (0..5000)
        .map(|n| METER.replace("M1", &format!("M{n}")) + "\n")
        .collect();
    assert!(body.len() > 256 << 10);
    let answer = edge
        .send(&post(PATH, "Content-Type: application/x-ndjson\r\n", &body))
        .await;
    assert_eq!(answer.json()["accepted"], 5000);
    assert_eq!(edge.accepted(), 5000);
}

#[tokio::test]
async fn a_body_without_a_reading_is_refused() {
    let edge = Edge::start();
    for body in ["", "[]", "{", "nonsense", "\u{feff}{}"] {
        edge.post(PATH, body).await.assert_problem(400);
    }
    let problem = edge
        .post(PATH, r#"[{"meterId":"M"},1]"#)
        .await
        .assert_problem(400);
    let errors = problem["errors"].as_array().unwrap();
    let named = |error: &serde_json::Value| json!([error["index"], error["field"]]);
    let named: Vec<_> = errors.iter().map(named).collect();
    let absent = ["kwhConsumedAc", "voltage", "timestamp"].map(|field| json!([0, field]));
    assert_eq!(named[..3], absent);
    assert_eq!(named[3..], [json!([1, null])]);
    assert_eq!(problem["rejected"], 2);
    for query in [
        "?ack=never",
        "?ack=durable&ack=durable",
        "?acks=durable",
        "?ack=%zz",
    ] {
        edge.post(&format!("{PATH}{query}"), METER)
            .await
            .assert_problem(400);
    }
    assert_eq!(edge.accepted(), 0);
}

#[tokio::test]
async fn at_most_a_hundred_errors_are_listed() {
    let edge = Edge::start();
    let wrong = vec!["{}"; 150].join(",");
    let summary = edge.post(PATH, &format!("[{METER},{wrong}]")).await.json();
    assert_eq!(summary["rejected"], 150);
    assert_eq!(summary["errors"].as_array().unwrap().len(), 100);
    assert_eq!(summary["errorsTruncated"], true);
}

#[tokio::test]
async fn only_known_types_and_encodings_are_accepted() {
    let edge = Edge::start();
    for head in ["", "Content-Type: text/plain\r\n"] {
        edge.send(&post(PATH, head, METER))
            .await
            .assert_problem(415);
    }
    let answer = edge
        .send(&post(
            PATH,
            &format!("{JSON}Content-Encoding: br\r\n"),
            METER,
        ))
        .await;
    answer.assert_problem(415);
    assert_eq!(
        answer.header("accept-encoding"),
        Some("gzip, zstd, identity")
    );
    let answer = edge
        .send(&post(PATH, &format!("{JSON}Accept: text/html\r\n"), METER))
        .await;
    answer.assert_problem(406);
    assert_eq!(edge.accepted(), 0);
}

#[tokio::test]
async fn a_commit_that_is_not_confirmed_gets_503_in_time() {
    let edge = Edge::start();
    let problem = edge
        .post(&format!("{PATH}?ack=committed"), METER)
        .await
        .assert_problem(503);
    assert_eq!(problem["type"], "urn:wattgate:problem:commit-timeout");
    // After a timeout the reading may still be stored: it is in the log.
    assert_eq!(edge.accepted(), 1);
}

#[tokio::test]
async fn a_commit_is_answered_with_201() {
    use crate::wal::frame::Position;
    use crate::wal::progress::{RunShard, Stored};
    let options = Options {
        commit_within: super::PATIENCE,
        ..Options::default()
    };
    let edge = Edge::start_with(options);
    let progress = std::sync::Arc::clone(&edge.context.progress);
    let stores = async {
        eventually("it is durable", || edge.accepted() == 1).await;
        let position: Position = progress.synced();
        for shard in 0..2 {
            let of_run = RunShard {
                run: progress.current_run(),
                shard,
            };
            let now = Stored {
                position,
                live_position: position,
                ..Stored::NOTHING
            };
            progress.stored(of_run, now);
        }
    };
    let path = format!("{PATH}?ack=committed");
    let (answer, ()) = tokio::join!(edge.post(&path, METER), stores);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["ack"], "committed");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let edge = Edge::start();
    let mut client = edge.connect().await;
    let mut all = String::new();
    for n in 0..20 {
        let body = if n % 2 == 0 { METER } else { "[" };
        all.push_str(&post(PATH, JSON, body));
    }
    client.write(all.as_bytes()).await;
    for n in 0..20 {
        assert_eq!(
            client.answer().await.status,
            if n % 2 == 0 { 202 } else { 400 }
        );
    }
    assert_eq!(edge.accepted(), 10);
}

#[tokio::test]
async fn a_sender_may_write_further_fields_and_times_in_milliseconds() {
    let edge = Edge::start();
    let odd = METER
        .replace("\"2024-02-09T15:30:00Z\"", "1707492600000")
        .replace('{', "{\"power\":7.4,");
    for (query, status) in [
        ("", 400),
        ("?unknown=ignore", 400),
        ("?time=unix_ms", 400),
        ("?unknown=refuse&time=unix_ms", 400),
        ("?unknown=ignore&time=rfc3339", 400),
        ("?unknown=drop&time=unix_ms", 400),
        ("?unknown=ignore&time=unix", 400),
        ("?time=unix_ms&unknown=ignore", 202),
    ] {
        let answer = edge.post(&format!("{PATH}{query}"), &odd).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
    assert_eq!(edge.accepted(), 1);
}
