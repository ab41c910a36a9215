//! Replicas that are away, are behind, or follow another primary.

use super::*;

#[test]
fn a_query_that_replay_cancels_is_answered_by_the_primary() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let replica = servers.standby("replica", &primary);
    replica.sql("alter system set max_standby_streaming_delay = 0");
    replica.sql("select pg_reload_conf()");
    let gateway = ready(data.path(), &[&primary], &[&replica], &[]);
    follows(&gateway, 1);
    let reading = r#"[{"vehicleId":"V","soc":50,"kwhDeliveredDc":1,"batteryTemp":20,
        "timestamp":"2024-02-09T10:00:00Z"}]"#;
    gateway.store("vehicle", reading);
    let path = "/v1/analytics/performance/V?from=2024-02-09T00:00:00Z&to=2024-02-10T00:00:00Z";
    gateway.wait("an answer of the replica", |it| {
        let answer = get(it, path, None);
        answer.status == 200 && answer.as_of.is_some()
    });
    // A busy machine may be too slow for the timeouts of the query.
    let conflicts = "select sum(confl_lock) from pg_stat_database_conflicts";
    within(DEADLINE, "a query that was cancelled", || {
        let answer = held_up(&primary, &replica, &gateway, path);
        let is_of_primary = answer.status == 200 && answer.as_of.is_none();
        is_of_primary && replica.number(conflicts) > 0
    });
}

/// Asks while a table that the query reads last is locked, and replays a lock on one that it has read first.
fn held_up(primary: &Server, replica: &Server, gateway: &Gateway, path: &str) -> Answer {
    let mut holder = primary
        .psql("begin; lock table hours_progress in access exclusive mode; select pg_sleep(1000)");
    within(DEADLINE, "the lock on the replica", || {
        let locked = "select count(*) from pg_locks
            where relation = 'hours_progress'::regclass and mode = 'AccessExclusiveLock'";
        replica.number(locked) == 1
    });
    let failed = left(gateway, "failed");
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| get(gateway, path, None));
        within(DEADLINE, "the query", || {
            let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'
                and application_name like 'wattgate replica reads%'";
            answer.is_finished() || replica.number(waiting) == 1
        });
        primary.sql("begin; lock table vehicles in access exclusive mode; commit");
        within(DEADLINE, "the cancellation", || {
            answer.is_finished() || left(gateway, "failed") > failed
        });
        primary.sql(
            "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'",
        );
        answer.join().unwrap()
    });
    holder.wait().unwrap();
    answer
}

#[test]
fn queries_go_on_while_a_replica_is_away() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let mut replica = servers.standby("replica", &primary);
    let gateway = ready(data.path(), &[&primary], &[&replica], &[]);
    follows(&gateway, 1);
    replica.crash();
    // No query fails, not even the first.
    let answer = ask(&gateway, "first", None);
    assert_eq!((answer.status, answer.as_of), (200, None));
    gateway.wait("the metric", |it| it.metric("wattgate_replica_up") == 0.0);
    assert!(gateway.is_ready());
    assert_eq!(ask(&gateway, "first", None).status, 200);
    replica.start();
    follows(&gateway, 1);
}

#[test]
fn a_replica_too_far_behind_is_not_asked() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let replica = servers.standby("replica", &primary);
    let flags = ["--read-max-lag", "2s"];
    let gateway = ready(data.path(), &[&primary], &[&replica], &flags);
    follows(&gateway, 1);
    pause(&replica);
    store(&gateway, "M1");
    gateway.wait("the primary's answer", |it| {
        let answer = ask(it, "M1", None);
        answer.status == 200 && left(it, "lag") >= 1.0
    });
    assert!(gateway.metric("wattgate_replica_lag_seconds") >= 2.0);
    replica.sql("select pg_wal_replay_resume()");
    // An idle primary does not make it late.
    gateway.wait("the replica", |it| {
        let answer = ask(it, "M1", None);
        answer.status == 200 && answer.as_of.is_some()
    });
}

#[test]
fn a_replica_of_an_old_primary_is_not_asked() {
    let (servers, data) = (Servers::new(), data_dir());
    let old = servers.primary("old");
    let new = servers.standby("new", &old);
    let replica = servers.standby("replica", &old);
    let gateway = ready(data.path(), &[&old, &new], &[&replica, &new], &[]);
    follows(&gateway, 2);
    let before = store(&gateway, "M1");
    new.promote();
    gateway.wait("the promotion", |it| {
        it.metric("wattgate_database_timeline") == 2.0
    });
    // One is a primary now, and the other follows the old primary, which still serves.
    let after = store(&gateway, "M2");
    for token in [None, Some(before.as_str()), Some(after.as_str())] {
        for meter in ["M1", "M2"] {
            let answer = ask(&gateway, meter, token);
            assert_eq!((answer.status, answer.as_of), (200, None));
        }
    }
    gateway.wait("both refusals", |it| {
        let events = std::fs::read_to_string(&it.events).unwrap();
        events.contains("is on timeline 1") && events.contains("accepts writes")
    });
}

#[test]
fn a_replica_that_follows_a_promotion_is_asked_again() {
    let (servers, data) = (Servers::new(), data_dir());
    let old = servers.primary("old");
    let new = servers.standby("new", &old);
    let replica = servers.standby("replica", &new);
    let gateway = ready(data.path(), &[&old, &new], &[&replica], &[]);
    follows(&gateway, 1);
    let of_replica = |token: &str| {
        let answer = ask(&gateway, "M1", Some(token));
        assert_eq!(answer.status, 200);
        answer.as_of.is_some()
    };
    let mut before = String::new();
    within(DEADLINE, "an answer of the replica", || {
        before = store(&gateway, "M1");
        of_replica(&before)
    });
    new.promote();
    gateway.wait("the promotion", |it| {
        it.metric("wattgate_database_timeline") == 2.0
    });
    // Until the gateway has reached the new primary again, tokens name no position.
    within(DEADLINE, "an answer of the replica", || {
        of_replica(&store(&gateway, "M1"))
    });
    // What was written before may be lost, so that the primary must say.
    assert!(!of_replica(&before));
}

#[test]
fn a_replica_of_another_cluster_is_not_asked() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let other = servers.primary("other");
    let replica = servers.standby("replica", &other);
    let gateway = ready(data.path(), &[&primary], &[&replica], &[]);
    store(&gateway, "M1");
    gateway.wait("the refusal", |it| {
        let events = std::fs::read_to_string(&it.events).unwrap();
        events.contains("belongs to cluster")
    });
    let answer = ask(&gateway, "M1", None);
    assert_eq!((answer.status, answer.as_of), (200, None));
    assert_eq!(gateway.metric("wattgate_replica_up"), 0.0);
    assert_eq!(replica.sessions("wattgate replica reads"), 0);
}

#[test]
fn another_replica_answers_while_one_is_away() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let mut bad = servers.standby("bad", &primary);
    let good = servers.standby("good", &primary);
    let gateway = ready(data.path(), &[&primary], &[&bad, &good], &[]);
    follows(&gateway, 2);
    // Both have an open session.
    gateway.wait("sessions", |it| {
        ask(it, "first", None);
        [&bad, &good]
            .iter()
            .all(|replica| replica.sessions("wattgate replica reads") > 0)
    });
    let given_up = || left(&gateway, "unavailable") + left(&gateway, "failed");
    let before = given_up();
    bad.crash();
    for _ in 0..4 {
        assert_eq!(ask(&gateway, "first", None).status, 200);
    }
    assert_eq!(given_up(), before);
    assert!(ask(&gateway, "first", None).as_of.is_some());
}

#[test]
fn a_replica_that_follows_an_unknown_primary_holds_nothing() {
    let (servers, data) = (Servers::new(), data_dir());
    let old = servers.primary("old");
    let new = servers.standby("new", &old);
    let replica = servers.standby("replica", &new);
    // The gateway does not know of the server that is promoted.
    let gateway = ready(data.path(), &[&old], &[&replica], &[]);
    follows(&gateway, 1);
    let mut number = 0;
    let mut pair = || {
        number += 1;
        let meter = format!("M{number}");
        let token = store(&gateway, &meter);
        assert_eq!(ask(&gateway, &meter, Some(&token)).status, 200, "{meter}");
    };
    pair();
    new.promote();
    within(DEADLINE, "the new timeline", || {
        // The replica replays more than the old primary has written.
        new.sql("select pg_logical_emit_message(true, 'test', repeat('x', 1000000))");
        pair();
        gateway.metric("wattgate_replica_up") == 0.0
    });
    for _ in 0..20 {
        pair();
    }
    let events = std::fs::read_to_string(&gateway.events).unwrap();
    assert!(events.contains("is on timeline 2"), "{events}");
}
