//! What operators do about alerts: they acknowledge one opening, mute a device for a time, and find alerts.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::alerts::receiver;
use crate::support::{DEADLINE, Gateway, NO_ALERTS, data_dir, vehicle};

const QUICK: [&str; 2] = ["--alert-interval", "200ms"];

/// Sends a reading of a battery with this temperature.
fn heat(gateway: &Gateway, id: &str, celsius: u32, key: &str) {
    let reading = vehicle(id, &jiff::Timestamp::now().to_string(), 0.1, "");
    let reading = reading.replace("\"batteryTemp\":30", &format!("\"batteryTemp\":{celsius}"));
    let path = "/v1/ingestion/vehicle?ack=committed";
    let (status, answer) = call(gateway, key, ("POST", path), &reading);
    assert_eq!(status, 201, "{answer}");
}

/// Sends a request with a key; an empty key is none.
fn call(gateway: &Gateway, key: &str, (method, path): (&str, &str), body: &str) -> (u16, Value) {
    let header = match key {
        "" => String::new(),
        key => format!("authorization: Bearer {key}\r\n"),
    };
    let (status, answer) = gateway.exchange(method, path, &header, body);
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Alerts of a list.
fn list(gateway: &Gateway, key: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/alerts?limit=1000&{query}");
    let (status, answer) = call(gateway, key, ("GET", &path), "");
    assert_eq!(status, 200, "{query}: {answer}");
    answer["items"].as_array().unwrap().clone()
}

/// The one alert that is open, once it has opened.
fn opened(gateway: &Gateway, key: &str, device: &str) -> Value {
    let query = format!("state=open&vehicleId={device}");
    gateway.wait("the alert", |g| list(g, key, &query).len() == 1);
    list(gateway, key, &query).remove(0)
}

fn closed(gateway: &Gateway, key: &str, device: &str) {
    let query = format!("state=open&vehicleId={device}");
    gateway.wait("its end", |g| list(g, key, &query).is_empty());
}

fn create_key(data: &Path, name: &str, rights: &str, more: &[&str]) -> String {
    let made = Command::new(env!("CARGO_BIN_EXE_wattgate"))
        .args([
            "keys",
            "create",
            "--name",
            name,
            "--rights",
            rights,
            "--data-dir",
        ])
        .arg(data)
        .args(more)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn acknowledgement(alert: &Value) -> String {
    let id = alert["alertId"].as_str().unwrap();
    format!("/v1/alerts/{id}/acknowledgement")
}

#[test]
fn an_acknowledgement_belongs_to_one_opening() {
    let data = data_dir();
    let flags = [&QUICK[..], &["--auth", "keys"]].concat();
    let gateway = Gateway::ready(data.path(), &flags);
    let key = create_key(data.path(), "night shift", "ingest,read,admin", &[]);
    let reader = create_key(data.path(), "reader", "read,ingest", &[]);
    let other = create_key(data.path(), "other", "read,admin", &["--prefix", "X"]);
    for key in [&key, &reader] {
        gateway.wait("the key", |g| {
            call(g, key, ("GET", "/v1/alerts"), "").0 == 200
        });
    }
    gateway.wait("the key with a prefix", |g| {
        call(g, &other, ("GET", "/v1/live/meters/X"), "").0 == 404
    });
    heat(&gateway, "V1", 70, &key);
    let first = opened(&gateway, &key, "V1");
    assert_eq!(first["acknowledgement"], Value::Null);

    // Another's device is unknown, and a reader may look only.
    let path = acknowledgement(&first);
    let note = json!({"note": "Van 7 is parked outside"}).to_string();
    assert_eq!(call(&gateway, &reader, ("POST", &path), &note).0, 403);
    assert_eq!(call(&gateway, &other, ("POST", &path), &note).0, 404);
    let (status, alert) = call(&gateway, &key, ("POST", &path), &note);
    assert_eq!(status, 200, "{alert}");
    let given = alert["acknowledgement"].clone();
    assert_eq!(given["keyName"], "night shift");
    assert_eq!(given["keyId"], key[3..11]);
    assert_eq!(given["note"], "Van 7 is parked outside");
    // The first one stays, also after the alert was updated.
    let (status, again) = call(&gateway, &key, ("POST", &path), "{}");
    assert_eq!((status, &again["acknowledgement"]), (200, &given));
    heat(&gateway, "V1", 75, &key);
    gateway.wait("the update", |g| opened(g, &key, "V1")["value"] == 75.0);
    assert_eq!(opened(&gateway, &key, "V1")["acknowledgement"], given);
    // It can be withdrawn, once.
    let withdraw = ("DELETE", path.as_str());
    assert_eq!(call(&gateway, &key, withdraw, "").0, 204);
    assert_eq!(call(&gateway, &key, withdraw, "").0, 404);
    assert!(list(&gateway, &key, "acknowledged=true").is_empty());
    assert_eq!(call(&gateway, &key, ("POST", &path), "{}").0, 200);

    // The next opening is not acknowledged; the closed one still is.
    heat(&gateway, "V1", 40, &key);
    closed(&gateway, &key, "V1");
    heat(&gateway, "V1", 71, &key);
    let second = opened(&gateway, &key, "V1");
    assert_ne!(second["alertId"], first["alertId"]);
    assert_eq!(second["acknowledgement"], Value::Null);
    let acknowledged = list(&gateway, &key, "acknowledged=true");
    assert_eq!(acknowledged.len(), 1);
    assert_eq!(acknowledged[0]["alertId"], first["alertId"]);
    assert_eq!(list(&gateway, &key, "acknowledged=false").len(), 1);

    heat(&gateway, "V1", 40, &key);
    closed(&gateway, &key, "V1");
    let (status, problem) = call(&gateway, &key, ("POST", &acknowledgement(&second)), "{}");
    assert_eq!((status, &problem["code"]), (409, &Value::from("closed")));
    for unknown in ["9999", "x", "-1"] {
        let path = format!("/v1/alerts/{unknown}/acknowledgement");
        assert_eq!(call(&gateway, &key, ("POST", &path), "{}").0, 404);
    }
    let long = json!({"note": "x".repeat(501)}).to_string();
    for wrong in [
        r#"{"note":""}"#,
        r#"{"note":"a\nb"}"#,
        r#"{"by":"me"}"#,
        &long,
    ] {
        assert_eq!(call(&gateway, &key, ("POST", &path), wrong).0, 400);
    }
    gateway.terminate();
}

/// An instant some milliseconds from now.
fn ahead(milliseconds: i64) -> String {
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(milliseconds);
    at.to_string()
}

fn mute(gateway: &Gateway, path: &str, milliseconds: i64) -> Value {
    let body = json!({"until": ahead(milliseconds), "note": "Maintenance"}).to_string();
    let (status, answer) = call(gateway, "", ("PUT", path), &body);
    assert_eq!(status, 200, "{answer}");
    answer
}

const HOUR: i64 = 3_600_000;

#[test]
fn a_mute_withholds_deliveries_and_hides_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let deliveries = receiver(listener);
    let delivered = || -> (String, Value) {
        let (_, body) = deliveries.recv_timeout(DEADLINE).unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        let event = body["event"].as_str().unwrap().to_owned();
        (event, body["alert"]["alertId"].clone())
    };
    let gateway = Gateway::fresh(&[&QUICK[..], &["--alert-webhook", &url]].concat());
    let withheld = |g: &Gateway| g.sql("select event from alert_withheld order by alert_id");
    let all = "/v1/vehicles/V1/mute";
    let one = "/v1/vehicles/V1/mute?kind=battery_temperature";
    let (status, _) = call(
        &gateway,
        "",
        ("PUT", all),
        &json!({"until": ahead(HOUR)}).to_string(),
    );
    assert_eq!(status, 404, "no device has this id yet");
    heat(&gateway, "V1", 40, "");

    // Opened and closed within the mute: shown, and never delivered.
    mute(&gateway, all, HOUR);
    heat(&gateway, "V1", 70, "");
    let alert = opened(&gateway, "", "V1");
    assert_eq!(alert["mute"]["note"], "Maintenance");
    assert_eq!(alert["mute"]["kind"], Value::Null);
    assert_eq!(list(&gateway, "", "muted=true").len(), 1);
    assert_eq!(withheld(&gateway), "opened");
    heat(&gateway, "V1", 40, "");
    closed(&gateway, "", "V1");
    gateway.wait("the end of what is withheld", |g| withheld(g).is_empty());

    // Still open when the mute ends: delivered then.
    heat(&gateway, "V1", 71, "");
    let alert = opened(&gateway, "", "V1");
    assert_eq!(withheld(&gateway), "opened");
    assert_eq!(call(&gateway, "", ("DELETE", all), "").0, 204);
    assert_eq!(call(&gateway, "", ("DELETE", all), "").0, 404);
    assert_eq!(delivered(), ("opened".to_owned(), alert["alertId"].clone()));
    assert_eq!(opened(&gateway, "", "V1")["mute"], Value::Null);

    // A closing is withheld until the mute ends by itself.
    mute(&gateway, one, HOUR);
    heat(&gateway, "V1", 40, "");
    closed(&gateway, "", "V1");
    gateway.wait("the closing", |g| withheld(g) == "closed");
    mute(&gateway, one, 5_000);
    assert_eq!(delivered(), ("closed".to_owned(), alert["alertId"].clone()));
    gateway.wait("the end of the mute", |g| {
        g.sql("select count(*) from alert_mutes") == "0"
    });

    // An operator has seen it: the webhook need not know. The next delivery is of another vehicle.
    mute(&gateway, one, HOUR);
    heat(&gateway, "V1", 72, "");
    let alert = opened(&gateway, "", "V1");
    assert_eq!(
        call(&gateway, "", ("POST", &acknowledgement(&alert)), "{}").0,
        200
    );
    assert_eq!(call(&gateway, "", ("DELETE", one), "").0, 204);
    heat(&gateway, "V1", 40, "");
    closed(&gateway, "", "V1");
    // A mute of another kind is none of this one.
    mute(&gateway, "/v1/vehicles/V1/mute?kind=silent", HOUR);
    heat(&gateway, "V2", 73, "");
    let alert = opened(&gateway, "", "V2");
    assert_eq!(delivered(), ("opened".to_owned(), alert["alertId"].clone()));
    heat(&gateway, "V1", 74, "");
    let alert = opened(&gateway, "", "V1");
    assert_eq!(alert["mute"], Value::Null);
    assert_eq!(delivered(), ("opened".to_owned(), alert["alertId"].clone()));
    assert_eq!(withheld(&gateway), "");
    gateway.terminate();
}

#[test]
fn gateways_share_acknowledgements_and_mutes() {
    let (data, other_data) = (data_dir(), data_dir());
    let gateway = Gateway::ready(data.path(), &QUICK);
    let user = gateway.sql("select current_user");
    let socket = data.path().join("postgres/run");
    let url = format!(
        "postgres://{user}@localhost/wattgate?host={}&port=5432",
        socket.display()
    );
    let flags = [&QUICK[..], &["--database-url", &url]].concat();
    let other = Gateway::ready(other_data.path(), &flags);
    heat(&other, "V1", 70, "");
    let alert = opened(&gateway, "", "V1");
    assert_eq!(
        call(&gateway, "", ("POST", &acknowledgement(&alert)), "{}").0,
        200
    );
    mute(&gateway, "/v1/vehicles/V1/mute", HOUR);
    let alert = opened(&other, "", "V1");
    assert_ne!(alert["acknowledgement"], Value::Null);
    assert_ne!(alert["mute"], Value::Null);
    assert_eq!(
        call(&other, "", ("DELETE", "/v1/vehicles/V1/mute"), "").0,
        204
    );
    assert_eq!(
        call(&other, "", ("DELETE", &acknowledgement(&alert)), "").0,
        204
    );
    let alert = opened(&gateway, "", "V1");
    assert_eq!(
        (&alert["acknowledgement"], &alert["mute"]),
        (&Value::Null, &Value::Null)
    );
    other.terminate();
    gateway.terminate();
}

#[test]
fn alerts_are_found_by_device_severity_and_what_was_done() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    gateway.sql(
        "insert into vehicles (external_id) select 'Depot_%' || n from generate_series(1, 20) as n;
        insert into vehicles (external_id) select 'Depot-' || n from generate_series(1, 20) as n;
        insert into meters (external_id) select 'Depot_%' || n from generate_series(1, 20) as n;
        insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
        select 'battery_temperature', 'vehicle', id, now(), now(), 1, 1, '{}' from vehicles;
        insert into alerts (kind, stream, device_id, opened_at, updated_at, closed_at, value, bound, details)
        select 'silent', 'meter', id, now(), now(), case when id > 15 then now() end, 1, 1, '{}' from meters;",
    );
    let found = |query: &str| list(&gateway, "", query).len();
    // A prefix is no pattern.
    assert_eq!(found("prefix=Depot_%25"), 40);
    assert_eq!(found("prefix=Depot_%251"), 22);
    assert_eq!(found("prefix=depot"), 0);
    assert_eq!(found("severity=critical"), 40);
    assert_eq!(found("severity=warning&state=open"), 15);
    assert_eq!(found("severity=critical&kind=silent"), 0);
    mute(&gateway, "/v1/meters/Depot_%253/mute", HOUR);
    mute(&gateway, "/v1/meters/Depot_%253/mute?kind=silent", 2 * HOUR);
    mute(&gateway, "/v1/meters/Depot_%2520/mute", HOUR);
    mute(&gateway, "/v1/vehicles/Depot-1/mute?kind=silent", HOUR);
    // Only open alerts are muted, and only those of the kind; of two mutes the longer one counts.
    let muted = list(&gateway, "", "muted=true");
    assert_eq!(muted.len(), 1);
    assert_eq!(muted[0]["mute"]["kind"], "silent");
    assert_eq!(found("muted=false&state=open"), 54);
    let mutes = gateway.get("/v1/alerts/mutes?limit=3");
    assert_eq!(mutes["items"].as_array().unwrap().len(), 3);
    assert_eq!(mutes["items"][0]["vehicleId"], "Depot-1");
    let next = mutes["next"].as_str().unwrap();
    let rest = gateway.get(&format!("/v1/alerts/mutes?limit=3&after={next}"));
    assert_eq!(rest["items"][0]["meterId"], "Depot_%3");
    assert_eq!(rest["next"], Value::Null);
    let of_one = gateway.get("/v1/alerts/mutes?meterId=Depot_%253");
    assert_eq!(of_one["items"].as_array().unwrap().len(), 2);
    // Filters hold across the pages of either order.
    for order in ["-openedAt", "-severity"] {
        let query = format!("/v1/alerts?prefix=Depot_&state=open&order={order}&limit=10");
        let (mut ids, mut after) = (Vec::new(), String::new());
        loop {
            let page = gateway.get(&format!("{query}{after}"));
            let items = page["items"].as_array().unwrap();
            ids.extend(items.iter().map(|alert| alert["alertId"].to_string()));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            after = format!("&after={next}");
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 35, "{order}");
    }
    for wrong in ["severity=high", "prefix=", "acknowledged=yes", "muted=1"] {
        let (status, answer) = call(&gateway, "", ("GET", &format!("/v1/alerts?{wrong}")), "");
        assert_eq!(status, 400, "{wrong}: {answer}");
    }
    for (until, kind) in [
        ("2020-01-01T00:00:00Z", "silent"),
        ("9999-01-01T00:00:00Z", "silent"),
        ("2030", "x"),
    ] {
        let path = format!("/v1/meters/Depot_%253/mute?kind={kind}");
        let body = json!({"until": until}).to_string();
        assert_eq!(
            call(&gateway, "", ("PUT", &path), &body).0,
            400,
            "{until} {kind}"
        );
    }
    gateway.terminate();
}

#[test]
fn alerts_are_unavailable_until_the_migration_that_they_need_is_done() {
    let (data, newer_data) = (data_dir(), data_dir());
    let gateway = Gateway::ready(data.path(), &NO_ALERTS);
    // The newest migration is undone. Whoever adds a later one undoes that here, too.
    gateway.sql(
        "drop table alert_mutes, alert_withheld;
        alter table alerts drop column acknowledged_at, drop column acknowledged_key,
            drop column acknowledged_name, drop column acknowledged_note;
        delete from schema_migrations where name = 'alert_operators'",
    );
    // A session reads the table, so that the migration of a newer gateway waits.
    let psql = format!("exec {} -XAtq", gateway.psql.as_deref().unwrap());
    let mut holder = Command::new("sh")
        .args(["-c", &psql])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut held = holder.stdin.take().unwrap();
    held.write_all(b"begin; lock table alerts in access share mode;\n")
        .unwrap();
    held.flush().unwrap();
    let locks = |g: &Gateway, which: &str| {
        g.sql(&format!(
            "select count(*) > 0 from pg_locks where relation = 'alerts'::regclass and {which}"
        ))
    };
    gateway.wait("the lock", |g| locks(g, "granted") == "t");
    let user = gateway.sql("select current_user");
    let socket = data.path().join("postgres/run");
    let url = format!(
        "postgres://{user}@localhost/wattgate?host={}&port=5432",
        socket.display()
    );
    let flags = [&NO_ALERTS[..], &["--database-url", &url]].concat();
    let newer = Gateway::start(newer_data.path(), &flags);
    gateway.wait("the migration to wait", |g| locks(g, "not granted") == "t");
    for order in ["-openedAt", "-severity"] {
        let (status, answer) = newer.call("GET", &format!("/v1/alerts?order={order}"), "");
        assert_eq!(status, 503, "{order}: {answer}");
    }
    drop(held);
    holder.wait().unwrap();
    newer.wait("readiness", Gateway::is_ready);
    assert!(list(&newer, "", "").is_empty());
    // A column that someone renames later is no migration.
    gateway.sql("alter table alerts rename column acknowledged_note to renamed");
    let (status, answer) = newer.call("GET", "/v1/alerts", "");
    assert_eq!(status, 500, "{answer}");
    newer.terminate();
    gateway.terminate();
}
