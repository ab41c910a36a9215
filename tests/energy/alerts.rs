//! From a cause to the people: alerts open once, close, and reach a receiver that was down.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

use serde_json::Value;

use crate::support::{DEADLINE, Gateway, data_dir, vehicle};

const SECRET: &[u8] = b"a secret of the test";

/// What the receiver was sent: the signature, and the body.
type Delivery = (String, String);

/// A receiver of the webhook that fails its first request, and takes the rest.
fn receiver(listener: TcpListener) -> Receiver<Delivery> {
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
    let status = if fail { "500 No" } else { "204 Taken" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    (signature, String::from_utf8(body).unwrap())
}

/// Checks a delivery's signature as a receiver would, and reads it.
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

fn hot(gateway: &Gateway, celsius: u32) {
    let now = jiff::Timestamp::now().to_string();
    let reading = vehicle("V1", &now, 0.1, "");
    gateway.send(
        "vehicle",
        &[reading.replace("\"batteryTemp\":30", &format!("\"batteryTemp\":{celsius}"))],
    );
}

#[test]
fn an_alert_opens_once_closes_and_reaches_a_receiver_that_was_down() {
    let data = data_dir();
    let secret = data.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    // A port on which nobody listens yet.
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
    // It is brought up to date, and no second one opens.
    hot(&gateway, 75);
    gateway.wait("the update", |g| {
        alerts(g, "state=open")[0]["value"] == 75.0
    });
    assert_eq!(alerts(&gateway, "").len(), 1);
    // A device's own page asks for its own.
    let of = |device: &str| alerts(&gateway, &format!("state=open&{device}")).len();
    assert_eq!(
        [of("vehicleId=V1"), of("vehicleId=V2"), of("meterId=V1")],
        [1, 0, 0]
    );
    // No device has such an id: it is refused and not looked for.
    for device in ["vehicleId=V%C2%9B", "meterId=%00", "vehicleId="] {
        let (status, body) = gateway.call("GET", &format!("/v1/alerts?{device}"), "");
        assert_eq!(status, 400, "{device}: {body}");
    }
    // What is to be told survives a stop of the gateway.
    gateway.terminate();
    let gateway = Gateway::ready(data.path(), &flags);
    let deliveries = receiver(TcpListener::bind(address).unwrap());
    let told = verified(deliveries.recv_timeout(DEADLINE).unwrap());
    assert_eq!(told["event"], "opened");
    assert_eq!(told["alert"]["alertId"], opened[0]["alertId"]);
    assert_eq!(told["alert"]["vehicleId"], "V1");

    hot(&gateway, 40);
    let told = verified(deliveries.recv_timeout(DEADLINE).unwrap());
    assert_eq!(told["event"], "closed");
    assert_eq!(told["alert"]["alertId"], opened[0]["alertId"]);
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
fn causes_in_efficiency_readings_and_silence_open_alerts() {
    let data = data_dir();
    let flags = ["--alert-interval", "200ms", "--alert-silence", "1s"];
    let gateway = Gateway::ready(data.path(), &flags);
    let now = jiff::Timestamp::now();
    let ago = |minutes: i64| (now - jiff::SignedDuration::from_mins(minutes)).to_string();
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
    // V1 loses half of its energy until a while ago, and is silent since. It was told every
    // minute before, so that two minutes of silence are unusual.
    let meters: Vec<String> = (5..65)
        .map(|n| crate::support::meter("V1", &ago(n), 0.1, "interval"))
        .collect();
    let vehicles: Vec<String> = (5..65).map(|n| vehicle("V1", &ago(n), 0.05, "")).collect();
    gateway.send("meter", &meters);
    gateway.send("vehicle", &vehicles);
    // V2 sends an hour's energy of a power plant within a minute.
    gateway.send(
        "vehicle",
        &[
            vehicle("V2", &ago(2), 1.0, ""),
            vehicle("V2", &ago(1), 9e6, ""),
        ],
    );
    // V3's six sessions are alike, and the seventh is not.
    for n in 0..7i64 {
        let start = 60 * 24 * (7 - n);
        let kwh = if n == 6 { 0.08 } else { 0.09 };
        let minutes = || (1..=40).map(|m| ago(start - m));
        let meters: Vec<String> = minutes()
            .map(|at| crate::support::meter("M3", &at, 0.1, "interval"))
            .collect();
        let vehicles: Vec<String> = minutes().map(|at| vehicle("V3", &at, kwh, "")).collect();
        gateway.send("meter", &meters);
        gateway.send("vehicle", &vehicles);
        gateway.session(&format!("s{n}"), "V3", "M3", &ago(start), &ago(start - 40));
    }
    gateway.wait("V1's alerts", |g| {
        kinds(g, "V1") == ["efficiency_low", "silent", "silent"]
    });
    gateway.wait("V2's alert", |g| {
        kinds(g, "V2").contains(&"implausible_reading".to_owned())
    });
    gateway.wait("V3's alert", |g| {
        kinds(g, "V3").contains(&"efficiency_anomaly".to_owned())
    });
    let page = gateway.get("/v1/alerts?kind=efficiency_anomaly");
    let anomaly = &page["items"][0];
    assert_eq!(anomaly["value"], 80.0);
    assert_eq!(anomaly["details"]["median"], 90.0);
    assert_eq!(anomaly["details"]["sessions"], 6);
    gateway.terminate();
}
