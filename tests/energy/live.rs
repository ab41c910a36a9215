//! What live status derives from the readings before the newest: a device's power, and how often it reports.

use serde_json::{Value, json};

use crate::support::{Gateway, meter, vehicle};

/// Search for silent devices several times a second.
const OFTEN: [&str; 2] = ["--alert-interval", "200ms"];

/// Instants some seconds before the call of this function.
fn past() -> impl Fn(i64) -> String {
    let now = jiff::Timestamp::now();
    move |seconds| (now - jiff::SignedDuration::from_secs(seconds)).to_string()
}

/// The power and the usual interval of a device.
fn live(gateway: &Gateway, device: &str) -> [Value; 2] {
    let status = gateway.get(&format!("/v1/live/{device}"));
    ["powerKw", "intervalSeconds"].map(|name| status[name].clone())
}

fn silent(gateway: &Gateway) -> Vec<String> {
    let page = gateway.get("/v1/alerts?state=open&kind=silent");
    let ids = page["items"].as_array().unwrap().iter();
    let mut ids: Vec<String> = ids
        .map(|alert| {
            let id = alert["meterId"].as_str().or(alert["vehicleId"].as_str());
            id.unwrap().to_owned()
        })
        .collect();
    ids.sort();
    ids
}

#[test]
fn power_is_that_of_the_two_newest_readings_however_they_came() {
    let gateway = Gateway::fresh(&["--alert-interval", "0s"]);
    let ago = past();
    let send = |readings: &[(i64, f64)], kind| {
        let readings = readings.iter();
        let readings: Vec<String> = readings
            .map(|(seconds, kwh)| meter(kind, &ago(*seconds), *kwh, kind))
            .collect();
        gateway.send("meter", &readings);
    };
    // A first reading alone gives no power.
    send(&[(400, 0.06)], "interval");
    assert_eq!(
        live(&gateway, "meters/interval"),
        [json!(null), json!(null)]
    );
    // One batch with several readings in any order.
    send(&[(220, 0.2), (340, 0.06), (280, 0.06)], "interval");
    assert_eq!(
        live(&gateway, "meters/interval"),
        [json!(12.0), json!(60.0)]
    );
    // Two readings are lost. The energy of the next reading is spread over the time since the last reading before them.
    send(&[(40, 0.6)], "interval");
    assert_eq!(
        live(&gateway, "meters/interval"),
        [json!(12.0), json!(60.0)]
    );
    // Late readings and repeats change nothing.
    send(&[(400, 0.06), (310, 5.0), (40, 0.6)], "interval");
    assert_eq!(
        live(&gateway, "meters/interval"),
        [json!(12.0), json!(60.0)]
    );

    // Except a late one that is now the second newest.
    send(&[(100, 0.1)], "interval");
    assert_eq!(
        live(&gateway, "meters/interval"),
        [json!(36.0), json!(60.0)]
    );

    // A register gives its difference. Neither a placeholder of 0 nor the reading after it gives a power.
    send(&[(400, 5_000.0), (340, 5_000.1)], "register");
    assert_eq!(live(&gateway, "meters/register"), [json!(6.0), json!(60.0)]);
    send(&[(280, 0.0)], "register");
    assert_eq!(live(&gateway, "meters/register")[0], json!(null));
    send(&[(220, 5_000.3)], "register");
    assert_eq!(live(&gateway, "meters/register")[0], json!(null));
    send(&[(160, 5_000.5), (100, 5_000.5)], "register");
    assert_eq!(live(&gateway, "meters/register"), [json!(0.0), json!(60.0)]);
    // Nor does a register that fell, nor a lifetime total sent as an interval.
    send(&[(40, 4_000.0)], "register");
    assert_eq!(live(&gateway, "meters/register")[0], json!(null));
    send(&[(10, 54_321.0)], "interval");
    assert_eq!(live(&gateway, "meters/interval")[0], json!(null));

    let of = |seconds, kwh| vehicle("V1", &ago(seconds), kwh, "");
    gateway.send("vehicle", &[of(120, 0.1), of(60, 0.11)]);
    assert_eq!(live(&gateway, "vehicles/V1"), [json!(6.6), json!(60.0)]);
    let page = gateway.get("/v1/live/vehicles");
    assert_eq!(page["items"][0]["powerKw"], json!(6.6));
    gateway.terminate();
}

/// One device reports every 15 minutes and one every minute. Both have been silent for more than 1.5 intervals.
fn rarely_and_often(gateway: &Gateway) {
    let ago = past();
    let send = |id, seconds: [i64; 4]| {
        let readings: Vec<String> = seconds
            .iter()
            .map(|seconds| meter(id, &ago(*seconds), 1.5, "interval"))
            .collect();
        gateway.send("meter", &readings);
    };
    send("Rarely", [5_100, 4_200, 3_300, 2_400]);
    send("Often", [2_580, 2_520, 2_460, 2_400]);
}

#[test]
fn a_device_is_stale_and_silent_by_its_own_interval() {
    let gateway = Gateway::fresh(&OFTEN);
    rarely_and_often(&gateway);
    let status = |id: &str| {
        let status = gateway.get(&format!("/v1/live/meters/{id}"));
        ["intervalSeconds", "stale"].map(|name| status[name].clone())
    };
    assert_eq!(status("Rarely"), [json!(900.0), json!(false)]);
    assert_eq!(status("Often"), [json!(60.0), json!(true)]);
    gateway.wait("the alert", |g| !silent(g).is_empty());
    assert_eq!(
        silent(&gateway),
        ["Often"],
        "both after 40 minutes, by 30 minutes alone"
    );
    gateway.terminate();
}

#[test]
fn a_time_that_an_operator_sets_is_not_lengthened_by_the_interval() {
    let flags = [OFTEN.as_slice(), &["--alert-silence", "30m"]].concat();
    let gateway = Gateway::fresh(&flags);
    rarely_and_often(&gateway);
    gateway.wait("both alerts", |g| silent(g) == ["Often", "Rarely"]);
    gateway.terminate();
}

/// A vehicle that reported hourly before its session and every minute during it is judged by its interval in the
/// session.
#[test]
fn a_vehicle_in_a_session_is_judged_by_its_readings_there() {
    let gateway = Gateway::fresh(&OFTEN);
    let ago = past();
    let (minute, hour) = (60, 3_600);
    let parked = (3..10).map(|n| vehicle("V1", &ago(n * hour), 0.1, ""));
    let charging = [119, 118].map(|n| vehicle("V1", &ago(n * minute), 0.1, ""));
    let readings: Vec<String> = parked.chain(charging).collect();
    gateway.send("vehicle", &readings);
    gateway.send("meter", &[meter("M1", &ago(minute), 0.1, "interval")]);
    let session = json!({"sessionId": "S1", "vehicleId": "V1", "meterId": "M1", "startedAt": ago(120 * minute)});
    let (status, body) = gateway.call("POST", "/v1/sessions", &session.to_string());
    assert_eq!(status, 201, "{body}");
    gateway.wait("the alert", |gateway| silent(gateway) == ["V1"]);
}
