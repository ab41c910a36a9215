//! A real day of charging: 86 sessions at 52 stations, 27 of which were used by several vehicles.
//!
//! The arrivals, departures and energies were measured (`loadtest/data/NOTICE.md`). The values per minute are made
//! up: each is a part of the session's energy, of which the battery receives 90%.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Gateway, NO_ALERTS, meter, vehicle};

const DAY: &str = include_str!("../../loadtest/data/jpl_2019-05-03.csv");

struct Stay {
    id: String,
    station: String,
    start: jiff::Timestamp,
    end: jiff::Timestamp,
    micro_kwh: i64,
}

fn stays() -> Vec<Stay> {
    let mut lines = DAY.lines().filter(|line| !line.starts_with('#'));
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
    let stay = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |name: &str| fields[column(name)];
        let kwh: f64 = field("delivered_energy (kWh)").parse().unwrap();
        Stay {
            id: field("session_id").to_owned(),
            station: field("station_id").to_owned(),
            start: field("arrival").parse().unwrap(),
            end: field("departure").parse().unwrap(),
            micro_kwh: (kwh * 1e6).round() as i64,
        }
    };
    lines.map(stay).collect()
}

/// What the meter and the vehicle send: one reading per minute, and one exactly at the end.
fn readings(stay: &Stay) -> Vec<(String, String)> {
    let seconds = stay.end.as_second() - stay.start.as_second();
    let steps = (seconds + 59) / 60;
    let drawn = |n: i64| stay.micro_kwh * n / steps;
    let reading = |n: i64| {
        let at = (stay.start.as_second() + 60 * n).min(stay.end.as_second());
        let at = jiff::Timestamp::from_second(at).unwrap().to_string();
        let micro_kwh = drawn(n) - drawn(n - 1);
        let kwh = micro_kwh as f64 / 1e6;
        (
            meter(&stay.station, &at, kwh, "interval"),
            vehicle(&stay.id, &at, kwh * 0.9, ""),
        )
    };
    (1..=steps).map(reading).collect()
}

/// Reorders the items with a stride that visits each position once.
fn out_of_order<T>(items: Vec<T>) -> Vec<T> {
    let count = items.len();
    let stride = (count * 5 / 8..).find(|s| gcd(*s, count) == 1).unwrap();
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    let places = (0..count).map(|n| n * stride % count);
    places.map(|place| items[place].take().unwrap()).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn send(gateway: &Gateway, readings: &[(String, String)]) {
    for some in readings.chunks(5_000) {
        let (meters, vehicles): (Vec<String>, Vec<String>) = some.iter().cloned().unzip();
        gateway.send("meter", &meters);
        gateway.send("vehicle", &vehicles);
    }
}

fn register(gateway: &Gateway, stays: &[Stay]) {
    for stay in stays {
        let (start, end) = (stay.start.to_string(), stay.end.to_string());
        gateway.session(&stay.id, &stay.id, &stay.station, &start, &end);
    }
}

fn answers(gateway: &Gateway, stays: &[Stay]) -> Vec<Value> {
    let path = |stay: &Stay| format!("/v1/sessions/{}", stay.id.replace(' ', "%20"));
    stays.iter().map(|stay| gateway.get(&path(stay))).collect()
}

#[test]
fn a_real_day_credits_each_session_in_any_order() {
    let stays = stays();
    let all: Vec<(String, String)> = stays.iter().flat_map(readings).collect();
    let gateway = Gateway::fresh(&NO_ALERTS);
    register(&gateway, &stays);
    send(&gateway, &all);
    let in_order = answers(&gateway, &stays);
    let data_kwh: f64 = stays.iter().map(|s| s.micro_kwh as f64 / 1e6).sum();
    let credited = |answers: &[Value]| -> f64 {
        let each = answers.iter().map(|a| &a["totalEnergyConsumedAc"]);
        each.map(|kwh| kwh.as_f64().unwrap()).sum()
    };
    for (stay, answer) in stays.iter().zip(&in_order) {
        let kwh = answer["totalEnergyConsumedAc"].as_f64().unwrap();
        let off = (kwh - stay.micro_kwh as f64 / 1e6).abs();
        assert!(off < 1e-9, "{}: {answer}", stay.id);
        assert_eq!(answer["quality"]["coverage"], 1, "{answer}");
    }
    assert!((credited(&in_order) - data_kwh).abs() < 1e-6);

    // For comparison: a session would get its neighbours' energy too if it were credited with its station's whole
    // day.
    let mut station_days: BTreeMap<&str, f64> = BTreeMap::new();
    for stay in &stays {
        *station_days.entry(&stay.station).or_default() += stay.micro_kwh as f64 / 1e6;
    }
    let naive: f64 = stays.iter().map(|s| station_days[&*s.station]).sum();
    assert!(naive > 1.9 * data_kwh, "{naive} {data_kwh}");

    // The same data shuffled, with the sessions last: all results are the same, including the fleet's.
    let late = Gateway::fresh(&NO_ALERTS);
    send(&late, &out_of_order(all));
    register(&late, &stays);
    assert_eq!(answers(&late, &stays), in_order);
    let fleet = |gateway: &Gateway| {
        let path = "/v1/analytics/fleet?from=2019-05-03&to=2019-05-05&tz=America/Los_Angeles";
        let mut fleet = gateway.get(path);
        fleet.as_object_mut().unwrap().remove("asOf");
        fleet
    };
    let fleet_in_order = fleet(&gateway);
    assert_eq!(fleet(&late), fleet_in_order);
    assert_eq!(fleet_in_order["unattributedEnergyAc"], 0);
    let all_meters = fleet_in_order["meterEnergyAc"].as_f64().unwrap();
    assert!((all_meters - data_kwh).abs() < 1e-6, "{fleet_in_order}");
    late.terminate();
    gateway.terminate();
}
