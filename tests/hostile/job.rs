//! The main job: readings of both streams, repeats, sessions, late readings, queries, an export, and a kill. The
//! responses depend only on what was sent.

use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::gateway::{Gateway, command, data_dir};
use crate::server::Server;

/// The day before yesterday, the same in all runs, because older hours would be rolled up much later.
fn day() -> &'static str {
    static DAY: OnceLock<String> = OnceLock::new();
    DAY.get_or_init(|| {
        let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(48);
        then.strftime("%Y-%m-%d").to_string()
    })
}

/// How many overlapping sessions are posted at once. Only one may be accepted.
const AT_ONCE: usize = 8;

/// Does the job in a role's database, through a socket. Returns all responses, without anything that depends on
/// the time of the run.
pub(crate) fn answers(server: &Server, role: &str, url: &str) -> Vec<Value> {
    let data = data_dir();
    let start = || {
        let mut command = command(data.path());
        command.args(["--database-url", url, "--shards", "2"]);
        let gateway = Gateway::spawn(command, data.path());
        gateway.wait("readiness", Gateway::is_ready);
        gateway
    };
    let gateway = start();
    // Finds the tables in either schema, because the operator may put them in another one.
    let sql = |text: &str| server.sql(role, &format!("set search_path = fleet, public; {text}"));
    gateway.wait("the first watermark", |_| {
        sql("select sealed_to is not null from hours_progress") == "t"
    });
    send(&gateway, |n| n % 7 != 3);
    // Repeats, and a reading that contradicts a stored one.
    send(&gateway, |n| n < 100 && n % 7 != 3);
    let twice = [meter(0, 9.0)];
    post(&gateway, "meter", &twice);
    let mut answers = vec![json!(at_once(&gateway))];
    gateway.wait("the rollup", |_| {
        sql("select (select count(*) from meter_hours) >= 11
                and (select count(*) from vehicle_hours) >= 11
                and not exists (select from meter_hour_marks)
                and not exists (select from vehicle_hour_marks)")
            == "t"
    });
    answers.extend(responses(&gateway));
    // Late readings of rolled-up hours.
    send(&gateway, |n| n % 7 == 3);
    answers.extend(responses(&gateway));
    let body = json!({"sessionId": "S", "vehicleId": "CAR", "meterId": "CAR",
        "startedAt": format!("{}T02:17:00Z", day()), "endedAt": format!("{}T08:41:30Z", day())});
    let (status, answer) = gateway.call("POST", "/v1/sessions", &body.to_string());
    assert_eq!(status, 201, "{role}: {answer}");
    // Acknowledged only by the log before the kill. The next gateway stores them.
    let last: Vec<String> = (720..780).map(|n| meter(n, 0.5)).collect();
    let last = format!("[{}]", last.join(","));
    let (status, answer) = gateway.call("POST", "/v1/ingestion/meter", &last);
    assert_eq!(status, 202, "{role}: {answer}");
    gateway.kill();
    let gateway = start();
    let stored = "select count(*) >= 780 from meter_telemetry_history";
    gateway.wait("what was in the log", |_| sql(stored) == "t");
    answers.extend(responses(&gateway));
    answers.push(json!(sql(
        "select string_agg(concat_ws(' ', ts at time zone 'UTC', kwh_consumed_ac, voltage), ',' order by ts)
         from meter_telemetry_history"
    )));
    answers.push(json!(sql(
        "select concat_ws(' ', sum(meter_stored), sum(meter_duplicates), sum(meter_quarantined),
             sum(vehicle_stored), sum(vehicle_duplicates), sum(vehicle_quarantined))
         from wal_checkpoints"
    )));
    let (status, health) = gateway.call("GET", "/health/ready", "");
    assert_eq!(status, 200, "{role}: {health}");
    gateway.terminate();
    answers
}

/// Posts overlapping sessions of one vehicle at once. Returns how many were accepted, and deletes those.
fn at_once(gateway: &Gateway) -> usize {
    let mut sum = 0;
    for vehicle in 0..4 {
        let taken: Vec<String> = std::thread::scope(|scope| {
            let posts: Vec<_> = (0..AT_ONCE)
                .map(|n| {
                    scope.spawn(move || {
                        let id = format!("V{vehicle}-{n}");
                        let body = json!({"sessionId": id, "vehicleId": format!("V{vehicle}"),
                            "meterId": format!("V{vehicle}"),
                            "startedAt": format!("{}T0{n}:00:00Z", day()),
                            "endedAt": format!("{}T23:00:00Z", day())});
                        let (status, answer) =
                            gateway.call("POST", "/v1/sessions", &body.to_string());
                        assert!(
                            status == 201 || status == 409,
                            "{status} {answer} {}",
                            std::fs::read_to_string(&gateway.events).unwrap()
                        );
                        (status == 201).then_some(id)
                    })
                })
                .collect();
            posts
                .into_iter()
                .filter_map(|post| post.join().unwrap())
                .collect()
        });
        for id in &taken {
            gateway.call("DELETE", &format!("/v1/sessions/{id}"), "");
        }
        sum += taken.len();
    }
    sum
}

fn responses(gateway: &Gateway) -> Vec<Value> {
    let window = format!("from={0}T00:30:00Z&to={0}T11:45:00Z", day());
    let mut answers: Vec<Value> = [
        format!("/v1/analytics/performance/CAR?{window}"),
        format!("/v1/analytics/performance?{window}"),
        format!("/v1/history/meter/CAR?{window}"),
        "/v1/live/vehicles/CAR".to_owned(),
        "/v1/sessions".to_owned(),
    ]
    .iter()
    .map(|path| {
        let (status, body) = gateway.call("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        without_now(&mut answer);
        answer
    })
    .collect();
    let (status, export) = gateway.call("GET", &format!("/v1/export/vehicle?{window}"), "");
    assert_eq!(status, 200, "{export}");
    answers.push(json!(export));
    answers
}

/// Removes what depends on the time of the request.
fn without_now(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for name in [
                "asOf",
                "receivedAt",
                "ageSeconds",
                "generatedAt",
                "createdAt",
            ] {
                fields.remove(name);
            }
            fields.values_mut().for_each(without_now);
        }
        Value::Array(items) => items.iter_mut().for_each(without_now),
        _ => {}
    }
}

/// One reading per minute from a meter and a vehicle for twelve hours.
fn send(gateway: &Gateway, only: impl Fn(u32) -> bool) {
    let kwh = |n: u32| f64::from(100 + n % 37) / 1000.0;
    let minutes: Vec<u32> = (0..720).filter(|n| only(*n)).collect();
    let meters: Vec<String> = minutes.iter().map(|n| meter(*n, kwh(*n))).collect();
    let vehicles: Vec<String> = (minutes.iter())
        .map(|n| {
            let (at, kwh) = (at(*n), kwh(*n) * 0.9);
            format!(
                r#"{{"vehicleId":"CAR","soc":50,"kwhDeliveredDc":{kwh},"batteryTemp":30,"timestamp":"{at}"}}"#
            )
        })
        .collect();
    post(gateway, "meter", &meters);
    post(gateway, "vehicle", &vehicles);
}

fn post(gateway: &Gateway, stream: &str, readings: &[String]) {
    let body = format!("[{}]", readings.join(","));
    let path = format!("/v1/ingestion/{stream}?ack=committed");
    let (status, answer) = gateway.call("POST", &path, &body);
    assert_eq!(status, 201, "{answer}");
}

fn at(n: u32) -> String {
    format!("{}T{:02}:{:02}:{:02}Z", day(), n / 60, n % 60, n % 59)
}

fn meter(n: u32, kwh: f64) -> String {
    let at = at(n);
    format!(r#"{{"meterId":"CAR","kwhConsumedAc":{kwh},"voltage":230,"timestamp":"{at}"}}"#)
}
