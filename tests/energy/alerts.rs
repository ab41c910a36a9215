//! From a cause to the webhook: alerts open once, close again, and reach a receiver that was down.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

use serde_json::Value;

use crate::support::{DEADLINE, Gateway, NO_ALERTS, data_dir, meter, vehicle};

const SECRET: &[u8] = b"a secret of the test";

/// A request to the receiver: signature and body.
pub(crate) type Delivery = (String, String);

/// A webhook receiver that fails its first request and accepts all others.
pub(crate) fn receiver(listener: TcpListener) -> Receiver<Delivery> {
    let (sender, deliveries) = sync_channel(100);
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let delivery = answer(stream.unwrap(), n == 0);
            if n > 0 && sender.send(delivery).is_err() {
                return;
            }
        }
    });
    deliveries
}

fn answer(mut stream: TcpStream, fail: bool) -> Delivery {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut signature, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "wattgate-signature" => value.clone_into(&mut signature),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let status = if fail { "500 No" } else { "204 Accepted" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    (signature, String::from_utf8(body).unwrap())
}

/// Verifies a delivery's signature as a receiver would, and parses it.
fn verified((signature, body): Delivery) -> Value {
    let (seconds, hex) = signature
        .strip_prefix("t=")
        .unwrap()
        .split_once(",v1=")
        .unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let tag: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
    ring::hmac::verify(&key, format!("{seconds}.{body}").as_bytes(), &tag).unwrap();
    serde_json::from_str(&body).unwrap()
}

/// A device is silent when it is a second overdue, and the gateway looks for causes continuously.
const SOON_SILENT: [&str; 4] = ["--alert-interval", "200ms", "--alert-silence", "1s"];

/// Instants some minutes before the call of this function.
fn past() -> impl Fn(i64) -> String {
    let now = jiff::Timestamp::now();
    move |minutes| (now - jiff::SignedDuration::from_mins(minutes)).to_string()
}

fn hot(gateway: &Gateway, celsius: u32) {
    let now = jiff::Timestamp::now().to_string();
    let reading = vehicle("V1", &now, 0.1, "");
    gateway.send(
        "vehicle",
        &[reading.replace("\"batteryTemp\":30", &format!("\"batteryTemp\":{celsius}"))],
    );
}

#[test]
fn an_alert_reaches_a_receiver_that_was_down() {
    let data = data_dir();
    let secret = data.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    // Nothing listens on this port yet.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{address}/hook");
    let flags = [
        "--alert-interval",
        "200ms",
        "--alert-webhook",
        &url,
        "--alert-webhook-secret-file",
        secret.to_str().unwrap(),
    ];
    let gateway = Gateway::ready(data.path(), &flags);
    let alerts = |g: &Gateway, query: &str| {
        let page = g.get(&format!("/v1/alerts?kind=battery_temperature&{query}"));
        page["items"].as_array().unwrap().clone()
    };
    hot(&gateway, 70);
    gateway.wait("the alert", |g| !alerts(g, "state=open").is_empty());
    let opened = alerts(&gateway, "state=open");
    assert_eq!(opened[0]["vehicleId"], "V1");
    assert_eq!(opened[0]["value"], 70.0);
    assert_eq!(opened[0]["bound"], 55.0);
    // The alert is updated. No second one opens.
    hot(&gateway, 75);
    gateway.wait("the update", |g| {
        alerts(g, "state=open")[0]["value"] == 75.0
    });
    assert_eq!(alerts(&gateway, "").len(), 1);
    // The filter by device.
    let of = |device: &str| alerts(&gateway, &format!("state=open&{device}")).len();
    assert_eq!(
        [of("vehicleId=V1"), of("vehicleId=V2"), of("meterId=V1")],
        [1, 0, 0]
    );
    // No device can have such an id, so the filter is refused.
    for device in ["vehicleId=V%C2%9B", "meterId=%00", "vehicleId="] {
        let (status, body) = gateway.call("GET", &format!("/v1/alerts?{device}"), "");
        assert_eq!(status, 400, "{device}: {body}");
    }
    // An undelivered alert survives a restart of the gateway.
    gateway.terminate();
    let gateway = Gateway::ready(data.path(), &flags);
    let deliveries = receiver(TcpListener::bind(address).unwrap());
    let delivered = verified(deliveries.recv_timeout(DEADLINE).unwrap());
    assert_eq!(delivered["event"], "opened");
    assert_eq!(delivered["alert"]["alertId"], opened[0]["alertId"]);
    assert_eq!(delivered["alert"]["vehicleId"], "V1");

    hot(&gateway, 40);
    let delivered = verified(deliveries.recv_timeout(DEADLINE).unwrap());
    assert_eq!(delivered["event"], "closed");
    assert_eq!(delivered["alert"]["alertId"], opened[0]["alertId"]);
    assert!(alerts(&gateway, "state=open").is_empty());
    let closed = alerts(&gateway, "state=closed");
    assert_eq!(
        (closed.len(), &closed[0]["state"]),
        (1, &Value::from("closed"))
    );
    assert_eq!(
        gateway.sql("select count(*) from alert_deliveries").trim(),
        "0"
    );
    gateway.terminate();
}

#[test]
fn a_chat_receives_a_signed_message() {
    let data = data_dir();
    let secret = data.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let deliveries = receiver(listener);
    let flags = [
        "--alert-interval",
        "200ms",
        "--alert-webhook",
        &url,
        "--alert-webhook-secret-file",
        secret.to_str().unwrap(),
        "--alert-webhook-format",
        "slack",
        "--dashboard-url",
        "http://fleet.example.org/#/",
    ];
    let gateway = Gateway::ready(data.path(), &flags);
    hot(&gateway, 71);
    let delivered = verified(deliveries.recv_timeout(DEADLINE).unwrap());
    let text = delivered["text"].as_str().unwrap();
    assert!(
        text.starts_with("Critical: hot battery, vehicle `V1`\nValue: 71.0 °C"),
        "{text}"
    );
    assert!(
        text.contains("<http://fleet.example.org/#/vehicles/V1|"),
        "{text}"
    );
    gateway.terminate();
}

#[test]
fn causes_in_efficiency_readings_and_silence_open_alerts() {
    let gateway = Gateway::fresh(&SOON_SILENT);
    let ago = past();
    let kinds = |g: &Gateway, device: &str| -> Vec<String> {
        let page = g.get("/v1/alerts?state=open");
        let of = |a: &&Value| a["vehicleId"] == device || a["meterId"] == device;
        let items = page["items"].as_array().unwrap().iter().filter(of);
        let mut kinds: Vec<String> = items
            .map(|a| a["kind"].as_str().unwrap().to_owned())
            .collect();
        kinds.sort_unstable();
        kinds
    };
    // V1 lost half of its energy until a while ago, and has been silent since then. It used to report every
    // minute, so two minutes of silence are unusual.
    let meters: Vec<String> = (5..65)
        .map(|n| meter("V1", &ago(n), 0.1, "interval"))
        .collect();
    let vehicles: Vec<String> = (5..65).map(|n| vehicle("V1", &ago(n), 0.05, "")).collect();
    gateway.send("meter", &meters);
    gateway.send("vehicle", &vehicles);
    // Within a minute, V2 reports as much energy as a power plant generates in an hour.
    gateway.send(
        "vehicle",
        &[
            vehicle("V2", &ago(2), 1.0, ""),
            vehicle("V2", &ago(1), 9e6, ""),
        ],
    );
    // So does a meter without a vehicle. Readings that a meter MX sends are not its vehicle's fault.
    let implausible =
        |id: &str| [(3, 1.0), (2, 9e6)].map(|(n, kwh)| meter(id, &ago(n), kwh, "interval"));
    gateway.session("at MX", "VX", "MX", &ago(10), &ago(1));
    gateway.send("vehicle", &[vehicle("VX", &ago(2), 0.1, "")]);
    gateway.send("meter", &implausible("M2"));
    gateway.send("meter", &implausible("MX"));
    gateway.wait("V1's alerts", |g| {
        kinds(g, "V1") == ["efficiency_low", "silent", "silent"]
    });
    gateway.wait("V2's alert", |g| {
        kinds(g, "V2").contains(&"implausible_reading".to_owned())
    });
    for meter in ["M2", "MX"] {
        gateway.wait("a meter's alert", |g| {
            kinds(g, meter).contains(&"implausible_reading".to_owned())
        });
    }
    assert!(!kinds(&gateway, "VX").contains(&"implausible_reading".to_owned()));
    gateway.terminate();
}

#[test]
fn a_session_far_below_the_median_of_its_past_opens_an_alert() {
    let gateway = Gateway::fresh(&["--alert-interval", "200ms"]);
    let ago = past();
    // All sessions but one are alike. That one shifts the mean and the standard deviation (to 83.7 and 16.5, by
    // which 80 would be usual), but neither the median nor the median absolute deviation. The seventh session is
    // the anomaly.
    for (n, kwh) in [0.091, 0.09, 0.05, 0.089, 0.09, 0.092, 0.08]
        .into_iter()
        .enumerate()
    {
        let start = 60 * 24 * (7 - n as i64);
        let minutes = || (1..=40).map(|m| ago(start - m));
        let meters: Vec<String> = minutes()
            .map(|at| meter("M1", &at, 0.1, "interval"))
            .collect();
        let vehicles: Vec<String> = minutes().map(|at| vehicle("V1", &at, kwh, "")).collect();
        gateway.send("meter", &meters);
        gateway.send("vehicle", &vehicles);
        gateway.session(&format!("s{n}"), "V1", "M1", &ago(start), &ago(start - 40));
    }
    let anomalies =
        |g: &Gateway| g.get("/v1/alerts?kind=efficiency_anomaly&state=open")["items"].clone();
    gateway.wait("the alert", |g| {
        !anomalies(g).as_array().unwrap().is_empty()
    });
    let anomaly = anomalies(&gateway)[0].clone();
    assert_eq!(anomaly["value"], 80.0);
    assert_eq!(anomaly["details"]["median"], 90.0);
    // The median of 0, 0, 1, 1, 2 and 40.
    assert_eq!(anomaly["details"]["medianAbsoluteDeviation"], 1.0);
    assert_eq!(anomaly["details"]["sessions"], 6);
    // 90 - 3.5 × 1.4826 × 1.
    let bound = anomaly["bound"].as_f64().unwrap();
    assert!((bound - 84.8109).abs() < 1e-9, "{bound}");
    gateway.terminate();
}

/// The devices with an open silence alert.
fn silent(gateway: &Gateway) -> Vec<String> {
    let page = gateway.get("/v1/alerts?state=open&kind=silent&limit=1000");
    let device = |a: &Value| {
        let id = a.get("vehicleId").or(a.get("meterId"));
        id.unwrap().as_str().unwrap().to_owned()
    };
    let mut devices: Vec<String> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(device)
        .collect();
    devices.sort_unstable();
    devices
}

#[test]
fn a_vehicle_that_has_left_is_not_silent_and_its_meter_is() {
    let gateway = Gateway::fresh(&SOON_SILENT);
    let ago = past();
    let open = |id: &str, from: &str| {
        let body = format!(
            r#"{{"sessionId":"{id}","vehicleId":"{id}","meterId":"at {id}","startedAt":"{from}"}}"#
        );
        assert_eq!(gateway.call("POST", "/v1/sessions", &body).0, 201);
    };
    // LEFT drove off. So did ALWAYS, which kept reporting on the road and then fell silent.
    for (id, end) in [("LEFT", 5), ("ALWAYS", 40)] {
        gateway.session(id, id, &format!("at {id}"), &ago(65), &ago(end));
    }
    // These are still at their meters. DONE and STILL draw no more energy, and FULL cannot.
    for id in ["DIED", "DONE", "STILL", "FULL"] {
        open(id, &ago(65));
    }
    // NEW has just arrived, after an hour without a report. Nothing can be concluded yet.
    open("NEW", &ago(0));
    let mut readings = Vec::new();
    for n in 5..65 {
        let (at, total) = (ago(n), 1000 - n.max(7));
        readings.extend(["LEFT", "ALWAYS", "DIED"].map(|id| vehicle(id, &at, 0.1, "")));
        readings.push(vehicle("DONE", &at, if n == 5 { 0.0 } else { 0.1 }, ""));
        let register = r#","energyKind":"register""#;
        readings.push(vehicle("STILL", &at, total as f64, register));
        let full = vehicle("FULL", &at, 0.1, "");
        readings.push(full.replace("\"soc\":50", "\"soc\":100"));
        readings.push(vehicle("NEW", &ago(n + 60), 0.1, ""));
    }
    gateway.send("vehicle", &readings);
    let meters: Vec<String> = (5..65)
        .map(|n| meter("at LEFT", &ago(n), 0.11, "interval"))
        .collect();
    gateway.send("meter", &meters);
    // A single evaluation opens all of them.
    let expected = ["ALWAYS", "DIED", "at LEFT"];
    gateway.wait("the alert of the meter", |g| {
        silent(g).contains(&"at LEFT".to_owned())
    });
    assert_eq!(silent(&gateway), expected);
    // DIED's session turns out to have ended earlier: the vehicle had left.
    let end = format!(r#"{{"endedAt":"{}"}}"#, ago(4));
    assert_eq!(gateway.call("POST", "/v1/sessions/DIED/end", &end).0, 200);
    gateway.wait("the end of DIED's alert", |g| {
        silent(g) == ["ALWAYS", "at LEFT"]
    });
    gateway.terminate();
}

#[test]
fn a_silent_device_is_found_among_many_that_rarely_report() {
    let gateway = Gateway::fresh(&SOON_SILENT);
    let ago = past();
    // More devices than one statement checks. Each reports hourly, and last reported after MINUTE did.
    let mut readings: Vec<String> = (0..450)
        .flat_map(|n| [62, 2].map(|m| (n, m)))
        .map(|(n, m)| meter(&format!("HOUR-{n}"), &ago(m), 0.1, "interval"))
        .collect();
    readings.extend((10..40).map(|n| meter("MINUTE", &ago(n), 0.1, "interval")));
    gateway.send("meter", &readings);
    gateway.wait("MINUTE's alert", |g| silent(g) == ["MINUTE"]);
    gateway.terminate();
}

#[test]
fn a_device_silent_for_30_days_counts_as_retired() {
    let gateway = Gateway::fresh(&SOON_SILENT);
    let ago = past();
    let minutes = || (10..40).flat_map(|n| ["29", "31"].map(|days| (days, ago(n))));
    let mut meters: Vec<String> = minutes()
        .map(|(days, at)| meter(&format!("M{days}"), &at, 0.1, "interval"))
        .collect();
    let mut vehicles: Vec<String> = minutes()
        .map(|(days, at)| vehicle(&format!("V{days}"), &at, 0.1, ""))
        .collect();
    // One device reports now, as proof that the clock is not ahead.
    meters.push(meter("NOW", &ago(0), 0.1, "interval"));
    vehicles.push(vehicle("NOW", &ago(0), 0.1, ""));
    gateway.send("meter", &meters);
    gateway.send("vehicle", &vehicles);
    gateway.wait("their alerts", |g| {
        silent(g) == ["M29", "M31", "V29", "V31"]
    });
    for stream in ["meter", "vehicle"] {
        gateway.sql(&format!(
            "update {stream}_live_status as s
             set ts = now() - make_interval(days => right(d.external_id, 2)::integer)
             from {stream}s as d where d.id = s.{stream}_id and d.external_id <> 'NOW'"
        ));
    }
    gateway.wait("the end of two", |g| silent(g) == ["M29", "V29"]);
    gateway.terminate();
}

#[test]
fn an_alert_does_not_wait_for_slow_checks() {
    let gateway = Gateway::fresh(&["--alert-interval", "200ms"]);
    // Another session locks the table that the search for anomalies needs.
    let mut holder = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("exec {} -XAtq", gateway.psql.as_deref().unwrap()),
        ])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut session = holder.stdin.take().unwrap();
    session
        .write_all(b"begin; lock table session_efficiency;\n")
        .unwrap();
    session.flush().unwrap();
    gateway.wait("the search for anomalies to wait", |g| {
        let waiting = "select count(*) from pg_locks where not granted
            and relation = 'session_efficiency'::regclass";
        g.sql(waiting).trim() == "1"
    });
    hot(&gateway, 70);
    gateway.wait("the alert", |g| {
        let page = g.get("/v1/alerts?kind=battery_temperature");
        !page["items"].as_array().unwrap().is_empty()
    });
    drop(session);
    holder.wait().unwrap();
    gateway.terminate();
}

#[test]
fn a_critical_alert_comes_before_a_thousand_newer_ones() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    gateway.sql(
        "insert into alerts (kind, stream, device_id, opened_at, updated_at, value, bound, details)
        select
            case n when 3 then 'battery_temperature' else 'silent' end,
            case n when 3 then 'vehicle' else 'meter' end, n, now(), now(), 1, 1, '{}'
        from generate_series(1, 1100) as n order by n",
    );
    let list = |query: &str| gateway.get(&format!("/v1/alerts?state=open&limit=1000{query}"));
    let newest = list("");
    let kind = |alert: &Value| alert["kind"].as_str().unwrap().to_owned();
    assert!(
        newest["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|a| kind(a) == "silent")
    );
    let first = list("&order=-severity");
    let critical = &first["items"][0];
    assert_eq!(
        (kind(critical).as_str(), &critical["severity"]),
        ("battery_temperature", &Value::from("critical"))
    );
    let next = first["next"].as_str().unwrap();
    let second = list(&format!("&order=-severity&after={next}"));
    assert_eq!(second["next"], Value::Null);
    let pages = [first.clone(), second];
    let ids: Vec<i64> = pages
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap())
        .map(|alert| alert["alertId"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ids.len(), 1_100);
    // All warnings once, from the newest to the oldest.
    assert!(ids[1..].windows(2).all(|pair| pair[0] > pair[1]));
    for wrong in [
        "&order=severity",
        "&order=-severity&after=17",
        "&after=warning.17",
    ] {
        let (status, body) = gateway.call("GET", &format!("/v1/alerts?state=open{wrong}"), "");
        assert_eq!(status, 400, "{wrong}: {body}");
    }
    gateway.terminate();
}
