//! What lies outside a window but affects its result. The single result and the ranking must agree.

use serde_json::{Value, json};

use crate::support::{Gateway, NO_ALERTS, meter, vehicle};

/// A time of day as RFC 3339.
fn at(clock: &str) -> String {
    format!("2024-02-09T{clock}:00Z")
}

fn meters(gateway: &Gateway, id: &str, kind: &str, readings: &[(&str, f64)]) {
    let all = readings.iter();
    let all: Vec<String> = all
        .map(|(clock, kwh)| meter(id, &at(clock), *kwh, kind))
        .collect();
    gateway.send("meter", &all);
}

fn vehicles(gateway: &Gateway, id: &str, more: &str, readings: &[(&str, f64)]) {
    let all = readings.iter();
    let all: Vec<String> = all
        .map(|(clock, kwh)| vehicle(id, &at(clock), *kwh, more))
        .collect();
    gateway.send("vehicle", &all);
}

/// The result for one vehicle, checked against its item in the ranking of the same window.
fn performance(gateway: &Gateway, id: &str, from: &str, to: &str) -> Value {
    let (from, to) = (at(from), at(to));
    let single = gateway.performance(id, &from, &to);
    let path = format!("/v1/analytics/performance?from={from}&to={to}&limit=100");
    let ranking = gateway.get(&path);
    let items = ranking["items"].as_array().unwrap();
    let ranked = items.iter().find(|item| item["vehicleId"] == id).unwrap();
    assert_eq!(*ranked, single, "the ranking's");
    single
}

#[test]
fn a_share_of_a_register_does_not_depend_on_the_window() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    meters(
        &gateway,
        "M",
        "register",
        &[("10:00", 10.0), ("16:00", 16.0)],
    );
    let received = [
        ("12:00", 0.0),
        ("13:00", 1.0),
        ("13:20", 0.0),
        ("14:30", 0.0),
        ("15:00", 1.0),
        ("16:00", 1.0),
    ];
    vehicles(&gateway, "B", "", &received);
    vehicles(&gateway, "C", r#","meterId":"M""#, &[("13:15", 2.0)]);
    gateway.session("S1", "B", "M", &at("12:00"), &at("13:20"));
    gateway.session("S2", "B", "M", &at("14:30"), &at("16:00"));
    // 0.25 kWh flowed in (13:00, 13:15]. Over all of (10:00, 16:00], B received 3 kWh there and C 2.
    for to in ["13:30", "17:00"] {
        let c = performance(&gateway, "C", "11:00", to);
        assert_eq!(c["totalEnergyConsumedAc"], json!(0.1), "until {to}");
    }
    let b = performance(&gateway, "B", "11:00", "13:30");
    assert_eq!(b["totalEnergyConsumedAc"], json!(1.233333));
    let path = format!(
        "/v1/analytics/fleet?from={}&to={}",
        at("11:00"),
        at("13:30")
    );
    let fleet = gateway.get(&path);
    // 2.5 in all, of which 1.333333 are attributed.
    assert_eq!(fleet["unattributedEnergyAc"], json!(1.166667));
}

#[test]
fn rule_3_sees_a_guest_that_arrives_as_the_window_ends() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let drawn = [
        ("10:00", 0.0),
        ("10:10", 1.0),
        ("10:20", 1.0),
        ("10:35", 1.0),
        ("11:00", 1.0),
    ];
    meters(&gateway, "V", "interval", &drawn);
    let received = [
        ("10:00", 0.0),
        ("10:10", 0.9),
        ("10:20", 0.9),
        ("10:30", 0.9),
    ];
    vehicles(&gateway, "V", "", &received);
    gateway.session("S", "W", "V", &at("10:30"), &at("11:00"));
    let answer = performance(&gateway, "V", "10:00", "10:30");
    assert_eq!(answer["matchedEnergyDeliveredDc"], json!(1.8));
    assert_eq!(answer["efficiencyRatio"], json!(90));
}

#[test]
fn by_rule_3_silence_of_both_loses_no_energy_and_no_match() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let drawn = [
        ("10:00", 100.0),
        ("10:10", 101.0),
        ("10:50", 105.0),
        ("11:00", 106.0),
    ];
    meters(&gateway, "V", "register", &drawn);
    let received = [
        ("10:00", 0.0),
        ("10:10", 0.9),
        ("10:50", 3.6),
        ("11:00", 0.9),
    ];
    vehicles(&gateway, "V", "", &received);
    let answer = performance(&gateway, "V", "10:00", "11:00");
    assert_eq!(answer["totalEnergyConsumedAc"], json!(6));
    assert_eq!(answer["efficiencyRatio"], json!(90));
    assert_eq!(answer["efficiencyStatus"], "good");
    assert_eq!(
        performance(&gateway, "V", "10:15", "10:45")["totalEnergyConsumedAc"],
        json!(3)
    );
    // A meter that reports every four hours. All DC before its next reading is matched.
    meters(&gateway, "H", "interval", &[("10:00", 4.0), ("14:00", 4.0)]);
    vehicles(&gateway, "H", "", &[("10:30", 0.9), ("11:00", 0.9)]);
    let answer = performance(&gateway, "H", "10:00", "12:00");
    assert_eq!(answer["matchedEnergyDeliveredDc"], json!(1.8));
    // A vehicle that arrives before that reading ends the period.
    gateway.session("S", "W", "H", &at("13:00"), &at("13:30"));
    let answer = performance(&gateway, "H", "10:00", "12:01");
    assert_eq!(answer["matchedEnergyDeliveredDc"], json!(0));
}
