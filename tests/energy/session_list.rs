//! The list of sessions: newest first, in a window, with their energy, in pages.

use serde_json::{Value, json};

use crate::support::{Gateway, NO_ALERTS, meter, vehicle};

/// All sessions of a query, read page by page.
fn walk(gateway: &Gateway, query: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = gateway.get(&format!("/v1/sessions?{query}{after}"));
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else {
            return all;
        };
        after = format!("&after={next}");
    }
}

fn ids(sessions: &[Value]) -> Vec<&str> {
    sessions
        .iter()
        .map(|session| session["sessionId"].as_str().unwrap())
        .collect()
}

/// Many sessions at one meter, each of another vehicle. Two at a time start at the same moment.
fn many(gateway: &Gateway, count: u32) {
    gateway.sql(&format!(
        "insert into meters (external_id) values ('Busy') on conflict do nothing;
        insert into vehicles (external_id) select 'B' || n from generate_series(1, {count}) as n;
        insert into session_names (external_id)
        select 'S' || lpad(n::text, 5, '0') from generate_series(1, {count}) as n;
        insert into charging_sessions (session_id, vehicle_id, meter_id, started_at, ended_at)
        select s.id, v.id, m.id, t.started_at, t.started_at + interval '50 seconds'
        from generate_series(1, {count}) as n
        inner join session_names as s on s.external_id = 'S' || lpad(n::text, 5, '0')
        inner join vehicles as v on v.external_id = 'B' || n
        inner join meters as m on m.external_id = 'Busy'
        cross join lateral (
            select timestamptz '2024-01-01 00:00:00Z' + n / 2 * interval '1 minute' as started_at
        ) as t"
    ));
}

#[test]
fn open_sessions_are_listed_newest_first_page_by_page() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    many(&gateway, 40);
    // Open sessions, one that ends later, and one that has yet to start.
    gateway.sql(
        "update charging_sessions as s set ended_at = null from session_names as n
        where n.id = s.session_id and n.external_id in ('S00006', 'S00007', 'S00020');
        update charging_sessions as s set ended_at = now() + interval '1 hour' from session_names as n
        where n.id = s.session_id and n.external_id = 'S00031';
        update charging_sessions as s set started_at = now() + interval '1 hour', ended_at = null
        from session_names as n where n.id = s.session_id and n.external_id = 'S00033'",
    );
    let open = |query: &str| {
        let query = format!("order=-startedAt&active=true{query}");
        ids(&walk(&gateway, &query)).join(" ")
    };
    let all = "S00031 S00020 S00007 S00006";
    for limit in 1..=5 {
        assert_eq!(open(&format!("&limit={limit}")), all);
    }
    assert_eq!(open("&meterId=Busy"), all);
    assert_eq!(open("&vehicleId=B7"), "S00007");
    assert_eq!(open("&vehicleId=B8"), "");
    assert_eq!(open("&from=2024-01-05T00:00:00Z"), all);
    assert_eq!(
        open("&from=2024-01-01T00:00:00Z&to=2024-01-01T00:05:00Z"),
        "S00007 S00006"
    );
    gateway.terminate();
}

#[test]
fn the_newest_sessions_come_first_however_many_there_are() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    many(&gateway, 5_100);
    let first = gateway.get("/v1/sessions?meterId=Busy&order=-startedAt&limit=3");
    let first = first["items"].as_array().unwrap();
    assert_eq!(ids(first), ["S05100", "S05099", "S05098"]);
    let all = walk(&gateway, "order=-startedAt&limit=1000");
    let mut expected: Vec<String> = (1..=5_100).map(|n| format!("S{n:05}")).collect();
    expected.reverse();
    assert_eq!(ids(&all), expected);
    // A page that ends between two sessions with the same start loses neither.
    let newest = walk(
        &gateway,
        "order=-startedAt&limit=7&from=2024-01-02T18:15:00Z",
    );
    assert_eq!(ids(&newest), expected[..newest.len()]);
    // Sessions 5,070 and 5,071 start at minute 2,535 and end 50 s later, so the list ends with them.
    assert_eq!(newest.len(), 31);

    // A window contains the sessions that overlap it. Sessions 20 and 21 start at minute 10 and last 50 s.
    let window = |from: &str, to: &str| {
        let query = format!("order=-startedAt&from=2024-01-01T{from}Z&to=2024-01-01T{to}Z");
        ids(&walk(&gateway, &query)).join(" ")
    };
    assert_eq!(window("00:10:30", "00:11:00"), "S00021 S00020");
    assert_eq!(window("00:10:50", "00:11:00"), "");
    assert_eq!(
        window("00:10:49", "00:11:01"),
        "S00023 S00022 S00021 S00020"
    );
    gateway.sql("update charging_sessions set ended_at = null where session_id = (select id from session_names where external_id = 'S00007')");
    assert_eq!(window("00:10:50", "00:11:00"), "S00007", "it is open");
    let open = walk(&gateway, "order=-startedAt&active=true");
    assert_eq!(ids(&open), ["S00007"]);
    for wrong in [
        "order=startedAt",
        "from=2024-01-01T00:00:00Z",
        "order=-startedAt&after=S00007",
        "energy=yes",
        "energy=true&limit=201",
    ] {
        let (status, body) = gateway.call("GET", &format!("/v1/sessions?{wrong}"), "");
        assert_eq!(status, 400, "{wrong}: {body}");
    }
    gateway.terminate();
}

#[test]
fn a_session_in_the_list_has_its_energy_power_and_cost() {
    let [alerts, never] = NO_ALERTS;
    let tariff = ["--tariff", "0.30", "--tariff-currency", "EUR"];
    let gateway = Gateway::fresh(&[&[alerts, never][..], &tariff].concat());
    let at = |minute: u32| format!("2024-02-09T{:02}:{:02}:00Z", minute / 60, minute % 60);
    // 6 kW for half an hour, then 12 kW.
    let mut meters = vec![meter("M1", &at(600), 0.5, "interval")];
    let mut vehicles = vec![vehicle("V1", &at(600), 0.4, "")];
    for n in 1..=12 {
        let (ac, dc) = if n <= 6 { (0.5, 0.4) } else { (1.0, 0.9) };
        meters.push(meter("M1", &at(600 + 5 * n), ac, "interval"));
        vehicles.push(vehicle("V1", &at(600 + 5 * n), dc, ""));
    }
    gateway.send("meter", &meters);
    gateway.send("vehicle", &vehicles);
    gateway.session("S1", "V1", "M1", &at(600), &at(660));
    gateway.session("S0", "V0", "M0", &at(500), &at(510));
    let list = walk(&gateway, "order=-startedAt&energy=true");
    assert_eq!(ids(&list), ["S1", "S0"]);
    let known = &list[0];
    for (field, value) in [
        ("totalEnergyConsumedAc", json!(9)),
        ("totalEnergyDeliveredDc", json!(7.8)),
        ("efficiencyRatio", json!(86.67)),
        ("averagePowerKw", json!(9)),
        ("peakPowerKw", json!(12)),
        ("cost", json!(2.7)),
        ("lostCost", json!(0.36)),
        ("currency", json!("EUR")),
    ] {
        assert_eq!(known[field], value, "{field}");
    }
    assert_eq!(known, &gateway.get("/v1/sessions/S1"), "as it is by itself");
    let empty = &list[1];
    assert_eq!(empty["peakPowerKw"], Value::Null, "it is too short");
    assert_eq!(empty["efficiencyStatus"], "insufficient_data");
    assert_eq!(empty["efficiencyReason"], "too_little_energy");
    // Without the parameter, items have no energy.
    let plain = walk(&gateway, "order=-startedAt");
    assert_eq!(plain[0].get("averagePowerKw"), None);

    // Page by page, each session appears once.
    many(&gateway, 60);
    let all = walk(
        &gateway,
        "meterId=Busy&order=-startedAt&energy=true&limit=25",
    );
    assert_eq!(all.len(), 60);
    assert!(
        all.iter()
            .all(|session| session["averagePowerKw"] == json!(0))
    );
    gateway.terminate();
}

#[test]
fn an_answer_without_a_rating_says_why() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let at = |minute: u32| format!("2024-02-09T{:02}:{:02}:00Z", minute / 60, minute % 60);
    let reason = |id: &str| {
        let answer = gateway.performance(id, &at(590), &at(760));
        (
            answer["efficiencyStatus"].clone(),
            answer["efficiencyReason"].clone(),
        )
    };
    let readings = |id: &str, minutes: &[u32], kwh: f64| -> Vec<String> {
        let reading = |n: &u32| meter(id, &at(*n), kwh, "interval");
        minutes.iter().map(reading).collect()
    };
    let of_vehicle = |id: &str, minutes: &[u32], kwh: f64| -> Vec<String> {
        let reading = |n: &u32| vehicle(id, &at(*n), kwh, "");
        minutes.iter().map(reading).collect()
    };
    let often: Vec<u32> = (600..=660).step_by(5).collect();
    let seldom = [600, 605, 650, 655, 660];
    gateway.send("vehicle", &of_vehicle("Away", &often, 1.0));
    for (id, minutes, kwh) in [
        ("Little", &often[..], 0.01),
        ("Gaps", &seldom, 1.0),
        ("Well", &often, 1.0),
    ] {
        let place = format!("M-{id}");
        gateway.send("meter", &readings(&place, minutes, kwh));
        gateway.send("vehicle", &of_vehicle(id, minutes, 0.9 * kwh));
        gateway.session(&format!("S-{id}"), id, &place, &at(600), &at(660));
    }
    let none = |why: &str| (json!("insufficient_data"), json!(why));
    assert_eq!(reason("Away"), none("no_meter"));
    assert_eq!(reason("Little"), none("too_little_energy"));
    assert_eq!(reason("Gaps"), none("low_coverage"));
    assert_eq!(reason("Well"), (json!("good"), Value::Null));
    gateway.terminate();
}
