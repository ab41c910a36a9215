//! The energy of one vehicle, whatever order its readings and sessions arrive in.

use serde_json::{Value, json};

use crate::support::{Gateway, NO_ALERTS, meter, vehicle};

fn energies(answer: &Value) -> [&Value; 3] {
    [
        &answer["totalEnergyConsumedAc"],
        &answer["matchedEnergyDeliveredDc"],
        &answer["efficiencyRatio"],
    ]
}

/// A minute of 2024-02-09, counted from 10:00.
fn at(minute: u32) -> String {
    format!("2024-02-09T{:02}:{:02}:00Z", 10 + minute / 60, minute % 60)
}

#[test]
fn a_vehicle_is_found_by_each_attribution_rule() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    by_session(&gateway);
    by_named_meter(&gateway);
    by_same_id(&gateway);
    gateway.terminate();
}

fn by_session(gateway: &Gateway) {
    // The register's neighbours are months before and after the requested hour.
    let register = |at: &str, kwh| meter("M1", at, kwh, "register");
    gateway.send(
        "meter",
        &[
            register("2023-06-01T00:00:00Z", 100.0),
            register("2024-02-09T10:00:00Z", 100.0),
            register("2024-02-09T10:15:00Z", 104.0),
            // A placeholder in between: it is ignored and suspect.
            register("2024-02-09T10:20:00Z", 0.0),
            register("2024-02-09T10:30:00Z", 110.0),
            register("2024-11-01T00:00:00Z", 110.0),
        ],
    );
    let delivered: Vec<String> = (1..=6)
        .map(|n| vehicle("V1", &at(n * 5), 1.5, ""))
        .collect();
    gateway.send("vehicle", &delivered);
    gateway.session("s1", "V1", "M1", &at(0), &at(30));
    let answer = gateway.performance("V1", &at(0), &at(60));
    // 104 - 100 + 110 - 104 = 10 kWh; 6 × 1.5 = 9 kWh.
    assert_eq!(energies(&answer), [&json!(10), &json!(9), &json!(90)]);
    assert_eq!(
        answer["attribution"],
        json!({"method": "session", "meters": ["M1"], "sessions": 1})
    );
    assert_eq!(answer["quality"]["suspect"], 1);
    assert_eq!(answer["quality"]["resets"], 0);
    assert_eq!(answer["efficiencyStatus"], "good");

    // The parts of the hour add up to it. 10:15 UTC is on the hour in Kathmandu.
    let path = format!(
        "/v1/analytics/performance/V1?from={}&to={}&bucket=hour&tz=Asia/Kathmandu",
        at(0),
        at(60)
    );
    let series = gateway.get(&path)["series"].clone();
    assert_eq!(series[0]["end"], at(15));
    assert_eq!(series[0]["totalEnergyConsumedAc"], json!(4));
    assert_eq!(series[1]["totalEnergyConsumedAc"], json!(6));
}

fn by_named_meter(gateway: &Gateway) {
    // Another vehicle names its meter. Its neighbouring reading is many days away.
    let interval = |n: u32, kwh| meter("M2", &at(n), kwh, "interval");
    gateway.send(
        "meter",
        &[interval(5, 1.0), interval(10, 1.0), interval(15, 0.0)],
    );
    let named = |n: u32| vehicle("V2", &at(n), 0.9, r#","meterId":"M2""#);
    gateway.send(
        "vehicle",
        &[
            named(5),
            named(10),
            vehicle("V2", "2023-06-01T00:00:00Z", 7.0, ""),
        ],
    );
    let answer = gateway.performance("V2", &at(0), &at(60));
    assert_eq!(energies(&answer), [&json!(2), &json!(1.8), &json!(90)]);
    assert_eq!(answer["attribution"]["method"], "reading");
}

fn by_same_id(gateway: &Gateway) {
    // A third vehicle has the same id as its meter.
    let same: Vec<String> = (1..=12)
        .map(|n| meter("V3", &at(n * 5), 0.5, "interval"))
        .collect();
    gateway.send("meter", &same);
    let same: Vec<String> = (1..=12)
        .map(|n| vehicle("V3", &at(n * 5), 0.4, ""))
        .collect();
    gateway.send("vehicle", &same);
    let answer = gateway.performance("V3", &at(0), &at(60));
    assert_eq!(energies(&answer), [&json!(6), &json!(4.8), &json!(80)]);
    assert_eq!(answer["attribution"]["method"], "same_id");
    assert_eq!(answer["efficiencyStatus"], "warning");
    assert_eq!(answer["quality"]["coverage"], 1);
}

#[test]
fn an_idle_vehicle_has_zeros_and_an_unknown_one_is_404() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    gateway.send("vehicle", &[vehicle("V1", &at(0), 1.0, "")]);
    let idle = gateway.performance("V1", "2024-03-01T00:00:00Z", "2024-03-02T00:00:00Z");
    assert_eq!(energies(&idle), [&json!(0), &json!(0), &Value::Null]);
    assert_eq!(idle["averageBatteryTemp"], Value::Null);
    assert_eq!(idle["attribution"]["method"], "none");
    let status = |path: &str| {
        gateway
            .call("GET", &format!("/v1/analytics/performance/{path}"), "")
            .0
    };
    assert_eq!(status("V9"), 404);
    assert_eq!(
        status("V1?from=2024-02-09T10:00:00Z&to=2024-02-09T10:00:00Z"),
        400
    );
    assert_eq!(
        status("V1?from=2022-02-09T10:00:00Z&to=2024-02-09T10:00:00Z"),
        400
    );
    assert_eq!(status("V1?from=yesterday"), 400);
    assert_eq!(status("V1?bucket=week"), 400);
    assert_eq!(status("V1?bucket=day&tz=Mars/Olympus"), 400);
    assert_eq!(status("V1?tz=UTC"), 400);
    gateway.terminate();
}

#[test]
fn a_window_of_days_follows_the_local_calendar() {
    let flags = ["--alert-interval", "0s", "--tariff", "0.5"];
    let gateway = Gateway::fresh(&flags);
    // Readings on and around the edges. A reading at midnight belongs to the day that ends.
    let hour = |at: &str| vehicle("V1", at, 1.0, "");
    gateway.send(
        "vehicle",
        &[
            hour("2024-03-31T00:00:00+01:00"),
            hour("2024-03-31T00:00:00.000001+01:00"),
            hour("2024-04-01T00:00:00+02:00"),
            hour("2024-04-01T00:00:00.000001+02:00"),
        ],
    );
    let path = "/v1/analytics/performance/V1?from=2024-03-31&to=2024-04-01";
    let day = gateway.get(&format!("{path}&tz=Europe/Berlin&bucket=hour"));
    assert_eq!(day["timeWindowStart"], "2024-03-30T23:00:00Z");
    assert_eq!(day["timeWindowEnd"], "2024-03-31T22:00:00Z");
    assert_eq!(day["dataPoints"], 2);
    assert_eq!(day["series"].as_array().unwrap().len(), 23);
    assert_eq!(day["series"][0]["totalEnergyDeliveredDc"], json!(1));
    assert_eq!(day["series"][22]["totalEnergyDeliveredDc"], json!(1));
    assert_eq!(day["series"][22]["lostCost"], json!(0));
    assert_eq!(day["lostCost"], json!(0));
    // The default is UTC. A date can be combined with an instant.
    let utc = gateway.get(path);
    assert_eq!(utc["timeWindowStart"], "2024-03-31T00:00:00Z");
    let mixed =
        "/v1/analytics/performance/V1?from=2024-03-31T05:00:00Z&to=2024-04-01&tz=Asia/Tokyo";
    assert_eq!(gateway.get(mixed)["timeWindowEnd"], "2024-03-31T15:00:00Z");
    let ranking =
        gateway.get("/v1/analytics/performance?from=2024-03-31&to=2024-04-01&tz=Europe/Berlin");
    assert_eq!(ranking["items"][0]["dataPoints"], 2);
    let export = "/v1/export/vehicle?from=2024-03-31&to=2024-04-01&tz=Europe/Berlin";
    assert_eq!(gateway.call("GET", export, "").1.lines().count(), 3);
    for wrong in [
        "from=2024-02-30",
        "from=1999-12-31",
        "from=2024-3-1",
        "from=2024-03-31&to=2024-03-31",
    ] {
        let path = format!("/v1/analytics/performance/V1?{wrong}");
        assert_eq!(gateway.call("GET", &path, "").0, 400, "{wrong}");
    }
    gateway.terminate();
}

#[test]
fn late_readings_and_sessions_correct_the_answer() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    // In order of time, and with the session known in advance.
    let fill = |meter_id: &str, vehicle_id: &str| {
        let kwh = |n: u32| 50.0 + f64::from(n) / 4.0;
        let meters: Vec<String> = (0..=24)
            .map(|n| meter(meter_id, &at(n * 5), kwh(n), "register"))
            .collect();
        let vehicles: Vec<String> = (1..=24)
            .map(|n| vehicle(vehicle_id, &at(n * 5), 0.22, ""))
            .collect();
        (meters, vehicles)
    };
    let (meters, vehicles) = fill("M1", "V1");
    // The session starts and ends within meter intervals.
    let (start, end) = ("2024-02-09T10:02:30Z", "2024-02-09T11:58:00Z");
    gateway.session("s1", "V1", "M1", start, end);
    gateway.send("meter", &meters);
    gateway.send("vehicle", &vehicles);
    let expected = gateway.performance("V1", &at(0), &at(120));
    // 115.5 minutes at 0.25 kWh per 5 minutes: 5.775 kWh.
    assert_eq!(expected["totalEnergyConsumedAc"], json!(5.775));

    // The same for another pair, but in reverse order, with the edges last and the session registered at the very
    // end.
    let (mut meters, mut vehicles) = fill("M2", "V2");
    let (first, last) = (meters.remove(0), meters.pop().unwrap());
    meters.reverse();
    vehicles.reverse();
    for some in vehicles.chunks(7) {
        gateway.send("vehicle", some);
    }
    for some in meters.chunks(5) {
        gateway.send("meter", some);
    }
    let before = gateway.performance("V2", &at(0), &at(120));
    assert_eq!(before["totalEnergyConsumedAc"], json!(0));
    gateway.session("s2", "V2", "M2", start, end);
    gateway.send("meter", &[last, first]);
    let repaired = gateway.performance("V2", &at(0), &at(120));
    let text = repaired.to_string().replace("V2", "V1").replace("M2", "M1");
    assert_eq!(text, expected.to_string());

    // Sending the same again changes nothing. The session has its own energy.
    gateway.send("meter", &fill("M1", "V1").0);
    assert_eq!(gateway.performance("V1", &at(0), &at(120)), expected);
    let session = gateway.get("/v1/sessions/s2");
    assert_eq!(session["totalEnergyConsumedAc"], json!(5.775));
    gateway.terminate();
}
