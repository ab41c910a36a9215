//! The whole fleet: ranking, totals, and exported history.

use serde_json::{Value, json};

use crate::support::{Gateway, NO_ALERTS, meter, vehicle};

const WINDOW: &str = "from=2024-02-09T10:00:00Z&to=2024-02-09T12:00:00Z";

fn at(minute: u32) -> String {
    format!("2024-02-09T{:02}:{:02}:00Z", 10 + minute / 60, minute % 60)
}

/// Vehicles V0 to V6 at meters with their ids. Each meter has 12 kWh of AC, V`n` receives 50 + 10 n percent of it
/// as DC, and V6 is idle. One more meter has no vehicle.
fn fill(gateway: &Gateway) {
    for n in 0..6u32 {
        let id = format!("V{n}");
        let meters: Vec<String> = (1..=24)
            .map(|m| meter(&id, &at(m * 5), 0.5, "interval"))
            .collect();
        let kwh = 0.5 * (0.5 + f64::from(n) / 10.0);
        let vehicles: Vec<String> = (1..=24)
            .map(|m| vehicle(&id, &at(m * 5), kwh, ""))
            .collect();
        gateway.send("meter", &meters);
        gateway.send("vehicle", &vehicles);
    }
    gateway.send("vehicle", &[vehicle("V6", "2024-01-01T00:00:00Z", 1.0, "")]);
    gateway.send("meter", &[meter("hall", &at(60), 3.25, "interval")]);
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["vehicleId"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_fleet_is_ranked_in_pages_and_added_up() {
    let gateway = Gateway::fresh(&[
        "--efficiency-warning",
        "75",
        "--efficiency-good",
        "79",
        "--alert-interval",
        "0s",
        "--tariff",
        "00:00=0.2,11:00=0.3",
        "--tariff-currency",
        "EUR",
    ]);
    fill(&gateway);
    let ranking = |more: &str| gateway.get(&format!("/v1/analytics/performance?{WINDOW}{more}"));

    let lowest = ranking("");
    assert_eq!(ids(&lowest), ["V0", "V1", "V2", "V3", "V4", "V5", "V6"]);
    // Each item equals the result for that vehicle alone.
    for item in lowest["items"].as_array().unwrap() {
        let id = item["vehicleId"].as_str().unwrap();
        // Half of the losses cost 0.2 per kWh, the other half 0.3.
        let lost = 12.0 * (1.0 - item["efficiencyRatio"].as_f64().unwrap_or(100.0) / 100.0);
        assert!(
            (item["lostCost"].as_f64().unwrap() - lost * 0.25).abs() < 1e-9,
            "{item}"
        );
        let mut single = gateway.get(&format!("/v1/analytics/performance/{id}?{WINDOW}"));
        let currency = single.as_object_mut().unwrap().remove("currency");
        assert_eq!(currency, Some(json!("EUR")));
        assert_eq!(*item, single);
    }
    assert_eq!(lowest["currency"], "EUR");
    let highest = ranking("&sort=-efficiency");
    assert_eq!(ids(&highest), ["V5", "V4", "V3", "V2", "V1", "V0", "V6"]);
    assert_eq!(
        ids(&ranking("&sort=lost")),
        ["V0", "V1", "V2", "V3", "V4", "V5", "V6"]
    );
    // 80% is good because a flag sets that limit. 90% is not excellent, which begins above 90%.
    assert_eq!(ids(&ranking("&status=good")), ["V3", "V4"]);
    assert_eq!(ids(&ranking("&status=insufficient_data")), ["V6"]);

    // Together the pages hold everything once and in order, even while readings arrive.
    let mut page = ranking("&sort=-efficiency&limit=3");
    let mut seen = ids(&page);
    gateway.send("meter", &[meter("V0", &at(61), 0.001, "interval")]);
    while let Some(next) = page["next"].as_str() {
        let next = next.replace('~', "%7E");
        page = gateway.get(&format!("/v1/analytics/performance?limit=3&after={next}"));
        seen.extend(ids(&page));
    }
    assert_eq!(seen, ids(&highest));

    the_totals_are_right(&gateway);
    for wrong in [
        "sort=worst",
        "status=fine",
        "limit=0",
        "after=x",
        "bucket=day",
    ] {
        let (status, answer) =
            gateway.call("GET", &format!("/v1/analytics/performance?{wrong}"), "");
        assert_eq!(status, 400, "{wrong}: {answer}");
    }
    gateway.terminate();
}

/// Checks the energy of all vehicles, and the unattributed rest of what the meters measured.
fn the_totals_are_right(gateway: &Gateway) {
    let fleet = gateway.get(&format!("/v1/analytics/fleet?{WINDOW}&bucket=hour"));
    assert_eq!(fleet["vehicles"], 7);
    assert_eq!(fleet["totalEnergyDeliveredDc"], json!(54));
    let number = |name: &str| fleet[name].as_f64().unwrap();
    let rest = number("meterEnergyAc") - number("totalEnergyConsumedAc");
    assert!(
        (rest - number("unattributedEnergyAc")).abs() < 1e-9,
        "{fleet}"
    );
    assert!(
        (number("unattributedEnergyAc") - 3.25).abs() < 1e-9,
        "{fleet}"
    );
    assert_eq!(fleet["vehiclesByStatus"]["insufficient_data"], 1);
    assert_eq!(fleet["vehiclesByStatus"]["excellent"], 1);
    // 12 × (0.5 + 0.4 + 0.3 + 0.2 + 0.1) = 18 kWh, plus what was added since.
    assert!((number("lostCost") - 18.0 * 0.25).abs() < 1e-3, "{fleet}");
    // 72 kWh at 0.25 on average, plus 1 Wh since. One more percent saves a hundredth of that.
    assert!((number("consumedCost") - 18.0003).abs() < 1e-9, "{fleet}");
    assert!((number("onePercentEnergyAc") - 0.720_01).abs() < 1e-9);
    assert!((number("onePercentCost") - 0.18).abs() < 1e-9, "{fleet}");
    assert_eq!(fleet["currency"], "EUR");
    let series = fleet["series"].as_array().unwrap();
    let costs: f64 = series.iter().map(|p| p["lostCost"].as_f64().unwrap()).sum();
    assert!((costs - number("lostCost")).abs() < 1e-9, "{fleet}");
    let sum: f64 = series
        .iter()
        .map(|part| part["meterEnergyAc"].as_f64().unwrap())
        .sum();
    assert!((sum - number("meterEnergyAc")).abs() < 1e-9);
}

#[test]
fn what_is_exported_is_what_was_sent_and_can_be_sent_again() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    fill(&gateway);
    let odd = vehicle("a \"b\", c", &at(3), 0.1 + 0.2, r#","meterId":"V0""#.trim());
    gateway.send("vehicle", &[odd.replace("a \"b\", c", "a \\\"b\\\", c")]);
    let export = |path: &str| {
        let (status, body) = gateway.call("GET", &format!("/v1/export/{path}"), "");
        assert_eq!(status, 200, "{body}");
        body
    };
    let csv = export(&format!("vehicle?{WINDOW}"));
    let mut lines = csv.lines();
    let header = "vehicleId,soc,kwhDeliveredDc,batteryTemp,timestamp,energyKind,meterId,sessionId";
    assert_eq!(lines.next(), Some(header));
    assert_eq!(lines.clone().count(), 6 * 24 + 1);
    let quoted = "\"a \"\"b\"\", c\",50,0.30000000000000004,30,2024-02-09T10:03:00Z,interval,V0,";
    assert!(lines.any(|line| line == quoted), "{csv}");
    assert_eq!(
        export("meter?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z")
            .lines()
            .count(),
        1
    );

    // Another gateway ingests the export and then exports the same.
    let elsewhere = Gateway::fresh(&NO_ALERTS);
    for stream in ["meter", "vehicle"] {
        let sent = export(&format!("{stream}?{WINDOW}&format=ndjson"));
        let readings: Vec<String> = sent.lines().map(str::to_owned).collect();
        elsewhere.send(stream, &readings);
        let path = format!("/v1/export/{stream}?{WINDOW}&format=ndjson");
        let again = elsewhere.call("GET", &path, "").1;
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&again), sorted(&sent));
        assert!(readings.len() > 100);
    }
    elsewhere.terminate();
    gateway.terminate();
}
