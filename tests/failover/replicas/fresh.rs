//! What a client has written is in every answer that it asks for with the token.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

#[test]
fn a_paused_replica_is_told_by_as_of_and_never_stale_with_a_token() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let replica = servers.standby("replica", &primary);
    let flags = ["--read-max-lag", "1h"];
    let gateway = ready(data.path(), &[&primary], &[&replica], &flags);
    follows(&gateway, 1);
    pause(&replica);
    let token = store(&gateway, "M1");
    let written = jiff::Timestamp::now();
    // Without the token: the replica does not have it, and says up to when it is complete.
    let (status, as_of) = by_replica(&gateway, "/v1/live/meters/M1");
    assert_eq!(status, 404);
    assert!(as_of < written);
    // With it: the primary answers.
    for path in [
        "/v1/live/meters/M1",
        "/v1/live/meters",
        "/v1/history/meter/M1",
        "/v1/export/meter",
        "/v1/analytics/fleet",
        "/v1/analytics/performance",
        "/v1/alerts",
    ] {
        let answer = get(&gateway, path, Some(&token));
        assert_eq!((answer.status, answer.as_of), (200, None), "{path}");
        assert!(get(&gateway, path, None).status < 500, "{path}");
    }
    assert!(left(&gateway, "read_after") >= 5.0);

    // Changes of sessions are the primary's, and have tokens too.
    let session = r#"{"sessionId":"S","vehicleId":"V","meterId":"M1",
        "startedAt":"2024-02-09T00:00:00Z"}"#;
    let (status, answer) = gateway.exchange("POST", "/v1/sessions", "", session);
    assert_eq!(status, 201, "{answer}");
    let token = header(&answer, "wattgate-written").unwrap();
    assert_eq!(by_replica(&gateway, "/v1/sessions/S").0, 404);
    assert_eq!(get(&gateway, "/v1/sessions/S", Some(&token)).status, 200);
    let end = r#"{"endedAt":"2024-02-09T01:00:00Z"}"#;
    let (status, answer) = gateway.exchange("POST", "/v1/sessions/S/end", "", end);
    assert_eq!(status, 200, "{answer}");
    assert!(header(&answer, "wattgate-written").is_some());

    // A replica that catches up in time answers.
    replica.sql("select pg_wal_replay_resume()");
    gateway.wait("an answer of the replica", |it| {
        let token = store(it, "M3");
        let answer = ask(it, "M3", Some(&token));
        answer.status == 200 && answer.as_of.is_some_and(|at| at > written)
    });
    assert!(gateway.metric("wattgate_replica_queries_total") > 0.0);
}

/// How many pairs of a write and a read are tried.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no flags; a long run sets it by hand"
)]
fn number_of_pairs() -> u64 {
    std::env::var("WATTGATE_TEST_PAIRS").map_or(60, |text| text.parse().unwrap())
}

#[test]
fn a_token_waits_for_a_replica_that_is_behind() {
    let pairs = number_of_pairs();
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let replica = servers.standby("replica", &primary);
    let gateway = ready(data.path(), &[&primary], &[&replica], &[]);
    follows(&gateway, 1);
    replica.sql("alter system set recovery_min_apply_delay = '200ms'");
    replica.sql("select pg_reload_conf()");
    let (next, stale, waited) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= pairs {
                        break;
                    }
                    let meter = format!("P{number}");
                    let token = store(&gateway, &meter);
                    let is_stale = ask(&gateway, &meter, None).status == 404;
                    let answer = ask(&gateway, &meter, Some(&token));
                    assert_eq!(answer.status, 200, "{meter}, {token}");
                    stale.fetch_add(u64::from(is_stale), Ordering::Relaxed);
                    // The replica lacked it a moment ago, and did not send the query to the primary.
                    let has_waited = is_stale && answer.as_of.is_some();
                    waited.fetch_add(u64::from(has_waited), Ordering::Relaxed);
                }
            });
        }
    });
    let (stale, waited) = (stale.into_inner(), waited.into_inner());
    println!(
        "{pairs} pairs: {stale} stale without a token, 0 with one; {waited} waited for the replica, and the \
         primary answered {} queries",
        left(&gateway, "read_after")
    );
    assert!(stale > 0, "the replica was not behind");
    assert!(waited > 0, "no query has waited");
}

#[test]
fn a_list_loaded_with_the_token_of_the_stream_is_not_behind_it() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let (quick, slow) = (
        servers.standby("quick", &primary),
        servers.standby("slow", &primary),
    );
    let flags = ["--read-max-lag", "1h"];
    let gateway = ready(data.path(), &[&primary], &[&quick, &slow], &flags);
    follows(&gateway, 2);
    pause(&slow);
    let written = store(&gateway, "M1");
    // The stream has seen the reading, which is then no event any more.
    let mut token = String::new();
    within(DEADLINE, "a look at it", || {
        let data: serde_json::Value = serde_json::from_str(&ready_event(&gateway)).unwrap();
        token = data["readAfter"].as_str().unwrap().to_owned();
        lsn(&token) >= lsn(&written)
    });
    gateway.wait("a stale list", |it| ask(it, "M1", None).status == 404);
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "M1", Some(&token)).status, 200);
    }
}

fn lsn(token: &str) -> u64 {
    u64::from_str_radix(token.rsplit('.').next().unwrap(), 16).unwrap()
}

#[test]
fn a_report_is_kept_under_what_its_server_has_shown() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let replica = servers.standby("replica", &primary);
    let flags = ["--read-max-lag", "1h"];
    let gateway = ready(data.path(), &[&primary], &[&replica], &flags);
    follows(&gateway, 1);
    pause(&replica);
    let fleet = |token: Option<&str>| {
        let answer = get(&gateway, "/v1/analytics/fleet", token);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let as_of: jiff::Timestamp = answer.json()["asOf"].as_str().unwrap().parse().unwrap();
        (as_of, answer.as_of)
    };
    // What the replica has computed is not for a client that has written since.
    within(DEADLINE, "a report of the replica", || {
        fleet(None).1.is_some()
    });
    let first = store(&gateway, "M1");
    let written = jiff::Timestamp::now();
    primary.sql("select pg_logical_emit_message(true, 'test', '')");
    let (as_of, by_replica) = fleet(Some(&first));
    assert!(as_of >= written && by_replica.is_none());
    // What the primary has computed is kept for that client, and for one that requires the primary.
    for token in [first.as_str(), "primary"] {
        within(DEADLINE, "a kept report", || {
            let computed = fleet(Some(&first)).0;
            fleet(Some(token)).0 == computed
        });
    }
    // It is not for a client that has written after it, whatever others ask with.
    for n in 0..5 {
        fleet(Some(&first));
        let later = store(&gateway, &format!("L{n}"));
        let written = jiff::Timestamp::now();
        assert!(fleet(Some(&later)).0 >= written);
    }
}

#[test]
fn the_pages_of_a_ranking_are_of_one_report() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let replica = servers.standby("replica", &primary);
    let gateway = ready(data.path(), &[&primary], &[&replica], &[]);
    follows(&gateway, 1);
    for vehicle in ["V1", "V2"] {
        let at = jiff::Timestamp::now();
        let reading = format!(
            r#"[{{"vehicleId":"{vehicle}","soc":50,"kwhDeliveredDc":1,"batteryTemp":20,"timestamp":"{at}"}}]"#
        );
        gateway.store("vehicle", &reading);
    }
    let path = "/v1/analytics/performance?limit=1";
    let token = store(&gateway, "M1");
    let first = get(&gateway, path, Some(&token)).json();
    let next = first["next"].as_str().unwrap();
    // The client writes between the pages, and a vehicle of a new report would be a third one.
    let at = jiff::Timestamp::now();
    let third = format!(
        r#"[{{"vehicleId":"V3","soc":50,"kwhDeliveredDc":1,"batteryTemp":20,"timestamp":"{at}"}}]"#
    );
    gateway.store("vehicle", &third);
    for token in [store(&gateway, "M2").as_str(), "primary"] {
        let second = get(&gateway, &format!("{path}&after={next}"), Some(token)).json();
        assert_eq!(second["asOf"], first["asOf"]);
        assert_eq!(second["next"], serde_json::Value::Null, "{second}");
        assert_eq!(second["items"].as_array().unwrap().len(), 1);
    }
}
