//! The live stream.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::gateway::Gateway;
use crate::support::Listener;

fn meter(id: &str, minute: u32, kwh: f64) -> serde_json::Value {
    json!({"meterId": id, "kwhConsumedAc": kwh, "voltage": 230.5,
           "timestamp": format!("2024-02-09T15:{minute:02}:00Z")})
}

#[test]
fn a_change_reaches_its_listeners_once_within_seconds() {
    let gateway = Gateway::fresh(&[]);
    gateway.store(
        "meter",
        &json!([meter("M1", 0, 1.0), meter("M2", 0, 1.0)]).to_string(),
    );
    let mut all = Listener::open(&gateway, "", None);
    let mut one = Listener::open(&gateway, "?kind=meter&id=M2", None);

    let sent = Instant::now();
    gateway.store("meter", &json!([meter("M1", 1, 2.5)]).to_string());
    let event = all.next().unwrap();
    let after = sent.elapsed();
    assert!(after < Duration::from_secs(10), "{after:?}");
    assert_eq!(event.name, "meter");
    let mut shown = gateway.get("/v1/live/meters/M1");
    assert_eq!(shown["kwhConsumedAc"], 2.5);
    shown["stale"] = event.data["stale"].clone();
    assert_eq!(event.data, shown);

    // An older reading does not change live status, so the next event is about the other meter.
    gateway.store("meter", &json!([meter("M1", 0, 1.0)]).to_string());
    gateway.store("meter", &json!([meter("M2", 2, 3.0)]).to_string());
    assert_eq!(all.next().unwrap().data["meterId"], "M2");
    assert_eq!(one.next().unwrap().data["meterId"], "M2");
}

#[test]
fn a_returning_listener_resumes_where_it_was() {
    let gateway = Gateway::fresh(&[]);
    gateway.store("meter", &json!([meter("M1", 0, 1.0)]).to_string());
    let mut listener = Listener::open(&gateway, "", None);
    gateway.store("meter", &json!([meter("M1", 1, 1.0)]).to_string());
    let seen = listener.next().unwrap();
    drop(listener);

    gateway.store("meter", &json!([meter("M1", 2, 1.0)]).to_string());
    let vehicle = json!({"vehicleId": "<V \"1\">", "soc": 50, "kwhDeliveredDc": 1,
                         "batteryTemp": 20, "timestamp": "2024-02-09T15:00:00Z"});
    gateway.store("vehicle", &vehicle.to_string());
    let mut again = Listener::open(&gateway, "", Some(&seen.id));
    let mut events = [again.next().unwrap(), again.next().unwrap()];
    events.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(events[0].data["timestamp"], "2024-02-09T15:02:00Z");
    assert_eq!(events[1].data["vehicleId"], "<V \"1\">");

    // The stream cannot resume from an id of another run, and says so.
    let mut lost = Listener::open(&gateway, "", Some("00000000000000ff-7"));
    let reset = lost.next().unwrap();
    assert_eq!(
        (reset.name.as_str(), &reset.data),
        ("reset", &json!({"reason": "unknown_id"}))
    );
}

#[test]
fn a_stop_ends_the_streams_at_once() {
    let gateway = Gateway::fresh(&[]);
    gateway.store("meter", &json!([meter("M1", 0, 1.0)]).to_string());
    let mut listener = Listener::open(&gateway, "", None);
    let took = gateway.terminate();
    // For a request that does not end, it would wait 10 s.
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(listener.next(), None);
}

/// Events show what is derived from the readings before the newest.
#[test]
fn an_event_tells_power_and_interval() {
    let gateway = Gateway::fresh(&[]);
    let now = jiff::Timestamp::now();
    let reading = |seconds: i64, kwh: f64| {
        let at = now - jiff::SignedDuration::from_secs(seconds);
        json!([{"meterId": "M1", "kwhConsumedAc": kwh, "voltage": 230.5, "timestamp": at.to_string()}])
    };
    gateway.store("meter", &reading(120, 1.0).to_string());
    let mut all = Listener::open(&gateway, "", None);
    gateway.store("meter", &reading(60, 2.5).to_string());
    let event = all.next().unwrap();
    assert_eq!(event.data["powerKw"], 150.0, "{}", event.data);
    assert_eq!(event.data["intervalSeconds"], 60.0);
}
