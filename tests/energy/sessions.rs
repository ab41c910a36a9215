//! The rules for sessions, and how each affects the energy. The database enforces them, so the tests use a real
//! one.

use serde_json::{Value, json};

use crate::support::{Gateway, NO_ALERTS, meter, vehicle};

/// A minute of 2024-02-09.
fn at(minute: u32) -> String {
    format!("2024-02-09T{:02}:{:02}:00Z", minute / 60, minute % 60)
}

/// Posts a session and returns the status.
fn post(gateway: &Gateway, id: &str, vehicle: &str, meter: &str, from: &str, to: &str) -> u16 {
    let mut body = json!({"vehicleId": vehicle, "meterId": meter, "startedAt": from});
    for (field, text) in [("sessionId", id), ("endedAt", to)] {
        if !text.is_empty() {
            body[field] = json!(text);
        }
    }
    gateway.call("POST", "/v1/sessions", &body.to_string()).0
}

fn end(gateway: &Gateway, id: &str, at: &str) -> u16 {
    let body = json!({"endedAt": at}).to_string();
    gateway
        .call("POST", &format!("/v1/sessions/{id}/end"), &body)
        .0
}

fn share(gateway: &Gateway, meter: &str, shared: bool) -> u16 {
    let body = json!({"shared": shared}).to_string();
    gateway.call("PUT", &format!("/v1/meters/{meter}"), &body).0
}

fn withdraw(gateway: &Gateway, id: &str) -> u16 {
    gateway.call("DELETE", &format!("/v1/sessions/{id}"), "").0
}

/// A vehicle's AC energy on that day.
fn ac(gateway: &Gateway, vehicle: &str) -> Value {
    gateway.performance(vehicle, &at(0), &at(1_439))["totalEnergyConsumedAc"].clone()
}

fn vehicles_of(gateway: &Gateway) -> Vec<String> {
    let page = gateway.get(&format!(
        "/v1/analytics/performance?from={}&to={}",
        at(0),
        at(1_439)
    ));
    let items = page["items"].as_array().unwrap().iter();
    items
        .map(|item| item["vehicleId"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn sessions_are_stored_once_may_touch_and_never_overlap() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let g = &gateway;
    let register = |minute, kwh| meter("M1", &at(minute), kwh, "register");
    g.send(
        "meter",
        &[
            register(600, 100.0),
            register(660, 106.0),
            register(720, 112.0),
        ],
    );
    assert_eq!(post(g, "a", "A", "M1", &at(600), &at(630)), 201);
    assert_eq!(
        post(g, "b", "B", "M1", &at(630), &at(690)),
        201,
        "they touch"
    );
    assert_eq!(post(g, "b", "B", "M1", &at(630), &at(690)), 200, "the same");
    assert_eq!(post(g, "b", "B", "M1", &at(630), &at(691)), 409, "another");
    let before = "2024-02-09T11:29:59.999999Z";
    assert_eq!(post(g, "c", "C", "M1", before, &at(700)), 409, "by 1 µs");
    assert_eq!(post(g, "c", "C", "M1", &at(700), &at(700)), 400);
    assert_eq!(post(g, "c", "C", "M1", &at(700), &at(699)), 400);
    assert_eq!(
        post(g, "c", "B", "M2", &at(600), &at(631)),
        409,
        "B's other"
    );
    // 6 kWh per hour: half an hour for A and an hour for B. Each has a reading across its edge.
    assert_eq!((ac(g, "A"), ac(g, "B")), (json!(3), json!(6)));
    // A vehicle whose only session was refused is unknown.
    let path = "/v1/analytics/performance/C";
    assert_eq!(g.call("GET", path, "").0, 404);
    assert_eq!(vehicles_of(g), ["A", "B"]);

    // The same instants with the offsets of another season.
    let (from, to) = ("2024-03-31T01:30:00+01:00", "2024-03-31T03:30:00+02:00");
    assert_eq!(post(g, "d", "D", "M1", from, to), 201);
    let (from, to) = ("2024-03-31T00:30:00Z", "2024-03-31T01:30:00Z");
    assert_eq!(post(g, "d", "D", "M1", from, to), 200);

    // Without an id, a session is identified by its vehicle, meter and start.
    assert_eq!(post(g, "", "E", "M3", &at(600), ""), 201);
    assert_eq!(post(g, "", "E", "M3", &at(600), ""), 200);
    assert_eq!(post(g, "", "E", "M3", &at(600), &at(700)), 409);
    gateway.terminate();
}

#[test]
fn an_open_session_holds_its_meter_and_vehicle() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let g = &gateway;
    assert_eq!(post(g, "open", "O", "M1", &at(600), ""), 201);
    assert_eq!(post(g, "later", "P", "M1", &at(800), &at(900)), 409);
    assert_eq!(post(g, "away", "O", "M2", &at(800), &at(900)), 409);
    assert_eq!(post(g, "earlier", "P", "M1", &at(500), &at(600)), 201);
    let interval = |minute, kwh| meter("M1", &at(minute), kwh, "interval");
    g.send("meter", &[interval(700, 5.0), interval(1_000, 7.0)]);
    assert_eq!(ac(g, "O"), json!(12));
    let active = g.get("/v1/sessions?active=true");
    assert_eq!(active["items"].as_array().unwrap().len(), 1);

    assert_eq!(end(g, "open", &at(600)), 400, "at its start");
    assert_eq!(end(g, "unknown", &at(800)), 404);
    assert_eq!(end(g, "open", &at(800)), 200);
    assert_eq!(end(g, "open", &at(800)), 200, "the same again");
    assert_eq!(end(g, "open", &at(801)), 409);
    assert_eq!(ac(g, "O"), json!(5));
    let ended = g.get("/v1/sessions/open");
    assert_eq!(ended["totalEnergyConsumedAc"], json!(5));
    assert_eq!(ended["endedAt"], at(800));

    // Ending a session is refused if registering it with that end would be.
    assert_eq!(post(g, "next", "P", "M1", &at(800), &at(1_100)), 201);
    assert_eq!(ac(g, "P"), json!(7));
    assert_eq!(post(g, "q", "Q", "M2", &at(700), &at(710)), 201);
    assert_eq!(share(g, "M2", true), 200);
    assert_eq!(post(g, "r", "R", "M2", &at(600), ""), 201);
    assert_eq!(withdraw(g, "q"), 204);
    assert_eq!(share(g, "M2", false), 200, "they no longer overlap");
    assert_eq!(end(g, "r", &at(720)), 200);

    assert_eq!(withdraw(g, "next"), 204);
    assert_eq!(withdraw(g, "next"), 404);
    assert_eq!(ac(g, "P"), json!(0), "the earlier one had no energy");
    assert_eq!(withdraw(g, "earlier"), 204);
    // Neither a reading nor a session is left, so the vehicle is unknown.
    assert_eq!(g.call("GET", "/v1/analytics/performance/P", "").0, 404);
    // A deleted session may be posted again with other values.
    assert_eq!(post(g, "next", "S", "M1", &at(800), &at(1_100)), 201);
    assert_eq!(ac(g, "S"), json!(7));
    gateway.terminate();
}

#[test]
fn sessions_overlap_at_a_shared_meter_only_and_share_its_energy() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let g = &gateway;
    assert_eq!(share(g, "M1", true), 200);
    assert_eq!(post(g, "x", "X", "M1", &at(600), &at(660)), 201);
    assert_eq!(post(g, "y", "Y", "M1", &at(630), &at(690)), 201);
    assert_eq!(share(g, "M1", false), 409, "they overlap");
    let meters: Vec<String> = (61..=69)
        .map(|n| meter("M1", &at(n * 10), 1.0, "interval"))
        .collect();
    g.send("meter", &meters);
    let of = |id: &str, from: u32, kwh| -> Vec<String> {
        let tens = from..from + 6;
        tens.map(|n| vehicle(id, &at(n * 10), kwh, "")).collect()
    };
    g.send("vehicle", &of("X", 61, 0.6));
    g.send("vehicle", &of("Y", 64, 0.3));
    // 10:10 to 10:30, X alone: 3. 10:40 to 11:00, both at 0.6 to 0.3: 2 and 1. Then Y alone: 3.
    assert_eq!((ac(g, "X"), ac(g, "Y")), (json!(5), json!(4)));
    let x = g.performance("X", &at(600), &at(700));
    // DC is 6 × 0.6, which is 72% of 5.
    assert_eq!(x["efficiencyRatio"], json!(72));
    let fleet = g.get(&format!(
        "/v1/analytics/fleet?from={}&to={}",
        at(600),
        at(700)
    ));
    assert_eq!(fleet["meterEnergyAc"], json!(9));
    assert_eq!(fleet["unattributedEnergyAc"], json!(0));
    assert_eq!(withdraw(g, "y"), 204);
    assert_eq!(ac(g, "X"), json!(6));
    assert_eq!(share(g, "M1", false), 200);
    assert_eq!(post(g, "y", "Y", "M1", &at(630), &at(690)), 409);
    gateway.terminate();
}

#[test]
fn a_reading_on_an_edge_belongs_to_the_interval_that_ends_there() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let g = &gateway;
    let (day, next, after) = (
        "2024-02-09T00:00:00Z",
        "2024-02-10T00:00:00Z",
        "2024-02-11T00:00:00Z",
    );
    g.send(
        "meter",
        &[
            meter("M1", "2024-02-09T23:50:00Z", 10.0, "register"),
            meter("M1", "2024-02-10T00:10:00Z", 12.0, "register"),
            meter("M2", next, 4.0, "interval"),
        ],
    );
    assert_eq!(post(g, "a", "A", "M1", "2024-02-09T23:00:00Z", next), 201);
    assert_eq!(post(g, "b", "A", "M1", next, "2024-02-10T01:00:00Z"), 201);
    assert_eq!(post(g, "c", "C", "M2", "2024-02-09T23:00:00Z", next), 201);
    assert_eq!(post(g, "d", "D", "M2", next, "2024-02-10T01:00:00Z"), 201);
    let of = |vehicle: &str, from: &str, to: &str| {
        let answer = g.performance(vehicle, from, to);
        let sessions = answer["attribution"]["sessions"].clone();
        (answer["totalEnergyConsumedAc"].clone(), sessions)
    };
    // Of the 2 kWh, half lie before midnight and half after it. There is one session on each day.
    assert_eq!(of("A", day, next), (json!(1), json!(1)));
    assert_eq!(of("A", next, after), (json!(1), json!(1)));
    assert_eq!(of("A", day, after), (json!(2), json!(2)));
    // The reading at midnight belongs to the session and the day that end there.
    assert_eq!(of("C", day, next), (json!(4), json!(1)));
    assert_eq!(of("C", next, after), (json!(0), json!(0)));
    assert_eq!(of("D", day, after), (json!(0), json!(1)));
    gateway.terminate();
}

#[test]
fn one_of_overlapping_concurrent_sessions_is_accepted() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    for round in 0..5u32 {
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let posts = (0..6u32).map(|n| {
                let gateway = &gateway;
                scope.spawn(move || {
                    let (id, vehicle) = (format!("s{round}-{n}"), format!("V{n}"));
                    let from = at(60 * round + n);
                    post(gateway, &id, &vehicle, "M1", &from, &at(60 * round + 30))
                })
            });
            let posts: Vec<_> = posts.collect();
            posts.into_iter().map(|p| p.join().unwrap()).collect()
        });
        let accepted = statuses.iter().filter(|s| **s == 201).count();
        let refused = statuses.iter().filter(|s| **s == 409).count();
        assert_eq!((accepted, refused), (1, 5), "{statuses:?}");
    }
    gateway.terminate();
}

#[test]
fn a_session_that_ends_in_the_far_future_is_answered_like_one_that_has_just_ended() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let (from, until) = ("2000-01-01T00:00:00Z", "9999-12-30T00:00:00Z");
    assert_eq!(post(&gateway, "far", "V-far", "M-far", from, until), 201);
    let readings = [(1, 1.0), (2, 2.0)]
        .map(|(at_minute, kwh)| meter("M-far", &at(at_minute), kwh, "interval"));
    gateway.send("meter", &readings);
    let session = gateway.get("/v1/sessions/far");
    assert_eq!(session["totalEnergyConsumedAc"], json!(3), "{session}");
    assert_eq!(session["endedAt"], until);
    gateway.terminate();
}
