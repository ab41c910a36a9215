//! Lists of sessions: each session by itself, in the order of the list, and safe to send again.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Gateway, NO_ALERTS};

/// A session of ten minutes.
fn session(id: &str, vehicle: &str, meter: &str, minute: u32) -> Value {
    let at = |minute: u32| format!("2024-02-09T{:02}:{:02}:00Z", minute / 60, minute % 60);
    let mut body = json!({"vehicleId": vehicle, "meterId": meter, "startedAt": at(minute), "endedAt": at(minute + 10)});
    if !id.is_empty() {
        body["sessionId"] = json!(id);
    }
    body
}

fn post(gateway: &Gateway, body: &str) -> (u16, Value) {
    let (status, answer) = gateway.call("POST", "/v1/sessions", body);
    (status, serde_json::from_str(&answer).unwrap())
}

/// Posts lines, at least one of which is registered.
fn post_lines(gateway: &Gateway, lines: &str) -> Value {
    let mut stream = gateway.connect();
    write!(
        stream,
        "POST /v1/sessions HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {}\r\n\r\n{lines}",
        lines.len()
    )
    .unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// The counts of an answer: new, known and rejected sessions.
fn counts(answer: &Value) -> [u64; 3] {
    ["created", "existing", "rejected"].map(|field| answer[field].as_u64().unwrap())
}

#[test]
fn each_session_of_a_list_is_registered_by_itself() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let stored = || gateway.sql("select count(*) from charging_sessions");
    let list = json!([
        session("a", "A", "M1", 0),
        session("b", "B", "M1", 5),
        session("c", "B", "M1", 10),
        {"vehicleId": "C", "meterId": "M1"},
        session("c", "B", "M1", 10),
        session("c", "B", "M1", 30),
        session("", "D", "M1", 40),
    ]);
    let (status, answer) = post(&gateway, &list.to_string());
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["success"], false);
    assert_eq!(counts(&answer), [3, 1, 3]);
    let ids = answer["sessionIds"].as_array().unwrap();
    let derived = ids[6].as_str().unwrap();
    assert_eq!(
        ids[..6],
        [
            json!("a"),
            Value::Null,
            json!("c"),
            Value::Null,
            json!("c"),
            Value::Null
        ]
    );
    let errors = answer["errors"].as_array().unwrap();
    let found: Vec<_> = errors
        .iter()
        .map(|e| (e["index"].as_u64(), e["code"].as_str()))
        .collect();
    let expected = [(1, "overlap"), (3, "missing"), (5, "conflict")];
    assert_eq!(
        found,
        expected.map(|(index, code)| (Some(index), Some(code)))
    );
    assert_eq!(stored(), "3");
    // A single request derives the same id.
    let (status, single) = post(&gateway, &session("", "D", "M1", 40).to_string());
    assert_eq!((status, single["sessionId"].as_str()), (200, Some(derived)));

    // The same list again changes nothing. As lines, it means the same.
    let lines: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    let lines = format!("\n{}\r\n\n{{\n", lines.join("\n"));
    for _ in 0..2 {
        let (status, again) = post(&gateway, &list.to_string());
        assert_eq!((status, counts(&again)), (200, [0, 4, 3]));
    }
    let answer = post_lines(&gateway, &lines);
    assert_eq!(counts(&answer), [0, 4, 4], "{answer}");
    assert_eq!(answer["errors"][3]["code"], "malformed");
    assert_eq!(stored(), "3");

    // Nothing of this list can be registered.
    let (status, answer) = post(
        &gateway,
        &json!([session("x", "X", "M1", 5), {}]).to_string(),
    );
    assert_eq!((status, &answer["rejected"]), (400, &json!(2)), "{answer}");
    assert_eq!(stored(), "3");
    gateway.terminate();
}

#[test]
fn lists_that_arrive_together_neither_block_nor_repeat() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    // The same sessions in opposite orders: each pair of vehicles and meters is locked in both.
    let sessions: Vec<Value> = (0..40)
        .map(|n| {
            session(
                &format!("s{n}"),
                &format!("V{}", n % 4),
                &format!("M{}", n % 4),
                10 * (n / 4),
            )
        })
        .collect();
    let backwards: Vec<Value> = sessions.iter().rev().cloned().collect();
    let lists = [json!(sessions).to_string(), json!(backwards).to_string()];
    let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let posts = lists
            .iter()
            .map(|list| scope.spawn(|| post(&gateway, list)));
        let posts: Vec<_> = posts.collect();
        posts.into_iter().map(|post| post.join().unwrap()).collect()
    });
    let both: Vec<[u64; 3]> = answers.iter().map(|(_, answer)| counts(answer)).collect();
    assert_eq!(both[0][0] + both[1][0], 40, "{both:?}");
    assert_eq!(both[0][1] + both[1][1], 40, "{both:?}");
    assert_eq!(gateway.sql("select count(*) from charging_sessions"), "40");
    gateway.terminate();
}

#[test]
fn a_session_that_another_request_blocks_does_not_end_the_list() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let (status, answer) = post(&gateway, &json!([session("a", "A", "M1", 0)]).to_string());
    assert_eq!(status, 201, "{answer}");
    // Another session of the database holds the vehicle for longer than a statement waits.
    let psql = format!("exec {} -XAtq", gateway.psql.as_deref().unwrap());
    let mut holder = Command::new("sh")
        .args(["-c", &psql])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut held = holder.stdin.take().unwrap();
    held.write_all(
        b"begin; select from vehicles where external_id = 'A' for update;
        select pg_advisory_lock(4711);\n",
    )
    .unwrap();
    held.flush().unwrap();
    gateway.wait("the lock", |g| {
        g.sql("select count(*) from pg_locks where locktype = 'advisory' and objid = 4711") == "1"
    });
    let list = json!([
        session("x", "X", "M3", 0),
        session("b", "A", "M1", 20),
        session("c", "C", "M2", 0)
    ]);
    let list = list.to_string();
    let (status, answer) = post(&gateway, &list);
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["sessionIds"][0], "x");
    assert_eq!(answer["errors"][0]["index"], 1);
    // The last one is registered, unless the machine is so busy that the time for the list is up.
    let errors = answer["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| error["code"] == "not_tried"));
    drop(held);
    holder.wait().unwrap();
    let (status, answer) = post(&gateway, &list);
    assert_eq!((status, counts(&answer)[2]), (201, 0), "{answer}");
    gateway.terminate();
}
