//! What live status learns of a device: how often it reports, its power, and since when it takes none.

use serde_json::{Value, json};

use crate::support::{Gateway, meter};

/// Every device that is overdue by a second has an alert, unless its own interval allows the silence.
const SOON_SILENT: [&str; 4] = ["--alert-interval", "200ms", "--alert-silence", "1s"];

/// Instants some seconds before the present of this call.
fn past() -> impl Fn(i64) -> String {
    let now = jiff::Timestamp::now();
    move |seconds| (now - jiff::SignedDuration::from_secs(seconds)).to_string()
}

/// Sends readings of a meter one by one, as the device does: so many seconds ago, with so many kWh.
fn report(gateway: &Gateway, id: &str, kind: &str, readings: &[(String, f64)]) {
    for (at, kwh) in readings {
        gateway.send("meter", &[meter(id, at, *kwh, kind)]);
    }
}

fn live(gateway: &Gateway, id: &str) -> Value {
    gateway.get(&format!("/v1/live/meters/{id}"))
}

#[test]
fn a_device_is_late_by_its_own_interval() {
    let gateway = Gateway::fresh(&SOON_SILENT);
    let ago = past();
    let amounts = |seconds: &[i64], kwh: f64| -> Vec<(String, f64)> {
        seconds.iter().map(|n| (ago(*n), kwh)).collect()
    };
    report(
        &gateway,
        "Seldom",
        "interval",
        &amounts(&[4_400, 3_500, 2_600, 1_700], 1.5),
    );
    report(
        &gateway,
        "Often",
        "interval",
        &amounts(&[460, 400, 340, 280], 0.1),
    );
    report(&gateway, "Once", "interval", &amounts(&[170], 0.1));
    let seldom = live(&gateway, "Seldom");
    assert_eq!(seldom["intervalSeconds"], json!(900.0));
    assert_eq!(
        (&seldom["stale"], &seldom["powerKw"]),
        (&json!(false), &json!(6.0))
    );
    let often = live(&gateway, "Often");
    assert_eq!(
        (&often["intervalSeconds"], &often["stale"]),
        (&json!(60.0), &json!(true))
    );
    let once = live(&gateway, "Once");
    assert_eq!(
        (once.get("intervalSeconds"), once.get("powerKw")),
        (None, None)
    );
    // The alert goes by the same interval: 1,700 s are more than 1.5 of the longest silence, but not three
    // intervals.
    let silent = |g: &Gateway| -> Vec<String> {
        let page = g.get("/v1/alerts?state=open&kind=silent");
        let items = page["items"].as_array().unwrap().iter();
        let id = |alert: &Value| alert["meterId"].as_str().unwrap().to_owned();
        items.map(id).collect()
    };
    gateway.wait("the alert", |g| !silent(g).is_empty());
    assert_eq!(silent(&gateway), ["Often"]);
    gateway.terminate();
}

#[test]
fn a_lost_reading_moves_the_interval_little_and_power_is_learned_from_registers_too() {
    let gateway = Gateway::fresh(&SOON_SILENT);
    let ago = past();
    let register = |readings: &[(i64, f64)]| -> Vec<(String, f64)> {
        readings.iter().map(|(n, kwh)| (ago(*n), *kwh)).collect()
    };
    report(
        &gateway,
        "R",
        "register",
        &register(&[(500, 100.0), (440, 100.1)]),
    );
    let first = live(&gateway, "R");
    assert_eq!(
        (&first["intervalSeconds"], &first["powerKw"]),
        (&json!(60.0), &json!(6.0))
    );
    assert_eq!(first["activeAt"], first["timestamp"]);
    // Three readings are lost, and the vehicle takes nothing more.
    report(&gateway, "R", "register", &register(&[(200, 100.1)]));
    let later = live(&gateway, "R");
    assert_eq!(
        (&later["intervalSeconds"], &later["powerKw"]),
        (&json!(120.0), &json!(0.0))
    );
    assert_eq!(
        later["activeAt"], first["timestamp"],
        "since then it is idle"
    );
    report(&gateway, "R", "register", &register(&[(140, 100.2)]));
    let again = live(&gateway, "R");
    assert_eq!(
        (&again["intervalSeconds"], &again["powerKw"]),
        (&json!(60.0), &json!(6.0))
    );
    // A register that fell says nothing of power; an older reading changes nothing.
    report(
        &gateway,
        "R",
        "register",
        &register(&[(80, 3.0), (90, 2.0)]),
    );
    let fell = live(&gateway, "R");
    assert_eq!(
        (fell.get("powerKw"), &fell["kwhConsumedAc"]),
        (None, &json!(3.0))
    );
    assert_eq!(fell["activeAt"], again["timestamp"]);
    gateway.terminate();
}
