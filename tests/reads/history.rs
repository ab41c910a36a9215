//! The history of one device.

use serde_json::{Value, json};

use crate::gateway::Gateway;

const WINDOW: &str = "from=2024-02-09T15:00:00Z&to=2024-03-09T15:00:00Z";

#[test]
fn history_pages_neither_repeat_nor_miss_a_reading() {
    let gateway = Gateway::fresh(&[]);
    // Readings on both sides of a partition boundary, and at each edge of the window.
    let times = [
        "2024-02-09T15:00:00Z",
        "2024-02-09T15:00:00.000001Z",
        "2024-02-29T23:59:59.999999Z",
        "2024-03-01T00:00:00Z",
        "2024-03-09T15:00:00Z",
        "2024-03-09T15:00:00.000001Z",
    ];
    let readings: Vec<Value> = times
        .iter()
        .zip(1..)
        .map(|(at, n)| {
            json!({"meterId": "a/b c", "kwhConsumedAc": n, "voltage": 230.5,
                   "energyKind": "register", "timestamp": at})
        })
        .collect();
    gateway.store("meter", &json!(readings).to_string());
    for limit in [1, 2, 3, 4, 1000] {
        let mut all: Vec<Value> = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/history/meter/a%2Fb%20c?{WINDOW}&limit={limit}{after}");
            let page = gateway.get(&path);
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= limit);
            all.extend(items.iter().cloned());
            let Some(next) = page["next"].as_str() else {
                break;
            };
            after = format!("&after={next}");
        }
        let mut expected = readings[1..5].to_vec();
        for reading in &mut expected {
            reading["kwhConsumedAc"] = json!(reading["kwhConsumedAc"].as_f64());
        }
        assert_eq!(all, expected, "limit {limit}");
    }
}

#[test]
fn a_vehicles_history_can_be_sent_again() {
    let gateway = Gateway::fresh(&[]);
    let reading = |minute: u32| {
        json!({"vehicleId": "V", "soc": 50.5, "kwhDeliveredDc": 1.25, "batteryTemp": -3.5,
               "energyKind": "interval", "timestamp": format!("2024-02-09T16:{minute:02}:00Z")})
    };
    let mut readings = [reading(0), reading(1), reading(2)];
    readings[1]["meterId"] = json!("M");
    readings[2]["sessionId"] = json!("S");
    gateway.store("vehicle", &json!(readings).to_string());
    let page = gateway.get(&format!("/v1/history/vehicle/V?{WINDOW}"));
    assert_eq!(page["items"], json!(readings));
    assert_eq!(page["next"], Value::Null);
    gateway.store("vehicle", &page["items"].to_string());
}

#[test]
fn unknown_devices_and_wrong_parameters_are_refused() {
    let gateway = Gateway::fresh(&[]);
    gateway.store(
        "meter",
        &json!({"meterId": "M", "kwhConsumedAc": 1, "voltage": 230,
                                   "timestamp": "2024-02-09T15:00:00Z"})
        .to_string(),
    );
    let status = |path: &str| gateway.call("GET", path, "").0;
    assert_eq!(status("/v1/history/meter/unknown"), 404);
    assert_eq!(status("/v1/history/vehicle/M"), 404);
    assert_eq!(gateway.get("/v1/history/meter/M")["items"], json!([]));
    for wrong in [
        "after=x",
        "limit=0",
        "from=2024-01-01T00:00:00Z",
        "order=desc",
    ] {
        assert_eq!(
            status(&format!("/v1/history/meter/M?{wrong}")),
            400,
            "{wrong}"
        );
    }
}
