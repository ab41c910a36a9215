//! Tokens that cannot be obeyed are refused, and without replicas there are none.

use super::*;

#[test]
fn a_token_that_cannot_be_obeyed_is_refused() {
    let (servers, data) = (Servers::new(), data_dir());
    let old = servers.primary("old");
    let new = servers.standby("new", &old);
    let replica = servers.standby("replica", &new);
    let gateway = ready(data.path(), &[&old, &new], &[&replica], &[]);
    follows(&gateway, 1);
    let token = store(&gateway, "M1");
    for wrong in ["", "0/16B374D8", "1.2", "Primary", "1.0.1"] {
        assert_eq!(ask(&gateway, "M1", Some(wrong)).status, 400, "{wrong}");
    }
    // No server has ever been there, and nothing that is kept claims to be.
    let beyond = altered(&token, None, Some("ffffffffffffff"));
    for path in [
        "/v1/live/meters/M1",
        "/v1/analytics/fleet",
        "/v1/export/meter",
    ] {
        let refused = get(&gateway, path, Some(&beyond));
        assert_eq!(refused.status, 400, "{path}: {}", refused.text);
    }
    // Of a newer primary, or of a cluster that may be newer: an answer of this one would be too old.
    let newer = altered(&token, Some("2"), None);
    for unknown in [newer.as_str(), "1.1.1"] {
        let refused = ask(&gateway, "M1", Some(unknown));
        assert_eq!(refused.status, 503, "{unknown}: {}", refused.text);
        assert!(header(&refused.text, "retry-after").is_some());
    }
    assert_eq!(ask(&gateway, "M1", None).status, 200);

    // The gateway looks for the newer primary, and answers once it is there.
    new.promote();
    gateway.wait("an answer of the new primary", |it| {
        ask(it, "M1", Some(&newer)).status == 200
    });
    assert_eq!(gateway.metric("wattgate_database_timeline"), 2.0);
}

#[test]
fn without_replicas_there_is_neither_a_token_nor_another_session() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let gateway = without_replicas(data.path(), &[&primary], &[]);
    let reading =
        r#"[{"meterId":"M1","kwhConsumedAc":1,"voltage":230,"timestamp":"2024-02-09T10:00:00Z"}]"#;
    let path = "/v1/ingestion/meter?ack=committed";
    let (status, answer) = gateway.exchange("POST", path, "", reading);
    assert_eq!(status, 201, "{answer}");
    assert!(!answer.contains("wattgate-"), "{answer}");
    for token in [None, Some("rubbish")] {
        let answer = ask(&gateway, "M1", token);
        assert_eq!(answer.status, 200);
        assert!(!answer.text.contains("wattgate-"), "{}", answer.text);
    }
    assert_eq!(ready_event(&gateway), "{}");
    assert_eq!(primary.sessions("wattgate replica"), 0);
    let (_, metrics) = gateway.call("GET", "/metrics", "");
    assert!(!metrics.contains("wattgate_replica_up{"));
}

#[test]
fn check_tries_each_replica_and_advises_on_feedback() {
    let (servers, data) = (Servers::new(), data_dir());
    let primary = servers.primary("primary");
    let mut replica = servers.standby("replica", &primary);
    let (primaries, replicas) = (url(&[&primary]), url(&[&replica]));
    let check = || {
        let mut command = crate::gateway::command(data.path());
        command
            .args(["check", "--database-url", &primaries])
            .args(["--read-database-url", &replicas]);
        let output = command.output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    };
    within(DEADLINE, "a replica that follows", || check().0);
    let printed = check().1;
    assert!(printed.contains("hot_standby_feedback is off"), "{printed}");
    replica.sql("alter system set hot_standby_feedback = on");
    replica.sql("select pg_reload_conf()");
    within(DEADLINE, "the setting", || {
        replica.sql("show hot_standby_feedback") == "on"
    });
    let (good, printed) = check();
    assert!(
        good && !printed.contains("hot_standby_feedback"),
        "{printed}"
    );
    assert!(printed.contains("follows the primary"), "{printed}");
    replica.crash();
    let (good, printed) = check();
    assert!(!good && printed.contains("cannot be reached"), "{printed}");
}
