//! No query scans a whole partition of history.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Gateway, NO_ALERTS, meter, vehicle};

/// The parameters with which each query is planned, beginning with `$1`.
fn parameters() -> BTreeMap<String, Vec<&'static str>> {
    const FROM: &str = "timestamptz '2024-02-09 00:00+00'";
    const TO: &str = "timestamptz '2024-02-10 00:00+00'";
    const DEVICE: &str = "17";
    const DEVICES: &str = "array[1, 17, 33, 101]";
    const FROMS: &str = "array_fill(timestamptz '2024-02-09 00:00+00', array[4])";
    const TOS: &str = "array_fill(timestamptz '2024-02-10 00:00+00', array[4])";
    let mut all = BTreeMap::new();
    for kind in ["meter", "vehicle"] {
        for side in ["before", "after"] {
            let many = vec![DEVICES, FROMS, TOS, FROM, TO, "true"];
            all.insert(format!("neighbours_{side}_{kind}s"), many);
        }
        all.insert(
            format!("readings_{kind}s"),
            vec![DEVICES, FROMS, TOS, FROM, TO],
        );
        all.insert(
            format!("hour_readings_{kind}s"),
            vec![DEVICES, FROMS, TOS, FROM, TO, "1000"],
        );
        let month = ("timestamptz '2024-02-01'", "timestamptz '2024-03-01'");
        let slice = vec![
            DEVICE,
            FROM,
            FROM,
            TO,
            month.0,
            month.1,
            "1000",
            "2147483647",
        ];
        all.insert(format!("hour_slice_{kind}s"), slice);
        all.insert(format!("hour_fill_{kind}s"), vec![month.0, month.1, "2"]);
        all.insert(format!("export_{kind}"), vec![DEVICE, FROM, TO, "5000"]);
        all.insert(format!("history_{kind}"), vec![DEVICE, FROM, TO, "100"]);
        all.insert(format!("probe_{kind}"), vec![DEVICES, FROMS, FROM, TO]);
        let silence = vec![TO, "60", DEVICES, FROMS, "200", "7"];
        all.insert(format!("alert_silence_{kind}"), silence);
        let named = match kind {
            "meter" => "'M17'",
            _ => "'V17'",
        };
        all.insert(format!("live_{kind}"), vec![named, FROM, TO, "6"]);
        all.insert(format!("live_{kind}s"), vec![named, "10", FROM, TO, "6"]);
        all.insert(format!("stream_{kind}s"), vec![DEVICES, FROM, TO, "6"]);
    }
    all.insert("fleet_named".to_owned(), vec![FROM, TO]);
    for (kind, device) in [("meter", "'M17'"), ("vehicle", "'V17'")] {
        all.insert(format!("quarantine_stored_{kind}"), vec![device, TO]);
    }
    let others = vec![DEVICE, DEVICE, FROMS, TOS, FROM, TO];
    all.insert("performance_others".to_owned(), others);
    let named_at = vec![DEVICES, DEVICES, FROMS, TOS, FROM, TO];
    all.insert("fleet_named_at".to_owned(), named_at);
    all
}

/// Queries that write history without reading it, or that only name its tables. Also erasing a vehicle: it has no
/// time window and searches every partition, but only while no gateway runs.
const NOT_READ: [&str; 6] = [
    "copy_meter",
    "copy_vehicle",
    "erase_vehicle",
    "insert_meter",
    "insert_vehicle",
    "partitions",
];

/// Collects the partitions that a plan scans completely.
fn read_whole(plan: &Value, found: &mut Vec<String>) {
    match plan {
        Value::Object(fields) => {
            let relation = fields.get("Relation Name").and_then(Value::as_str);
            if let Some(relation) = relation.filter(|name| name.contains("_telemetry_history"))
                && fields["Node Type"] == "Seq Scan"
            {
                found.push(relation.to_owned());
            }
            fields.values().for_each(|value| read_whole(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| read_whole(item, found)),
        _ => {}
    }
}

#[test]
fn no_query_reads_a_partition_of_history_whole() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let at = "2024-02-05T00:00:00Z";
    gateway.send("meter", &[meter("M0", at, 1.0, "interval")]);
    gateway.send("vehicle", &[vehicle("V0", at, 1.0, "")]);
    // 200 devices with a reading every 10 minutes for 8 days: 230,000 rows, all in one partition per stream. One
    // vehicle in ten occasionally names its place.
    gateway.sql(
        "insert into meters (external_id) select 'M' || n from generate_series(1, 200) as n;
        insert into vehicles (external_id) select 'V' || n from generate_series(1, 200) as n;
        insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
        select d, t, 0.1, 230 from generate_series(2, 201) as d, generate_series(
            timestamptz '2024-02-05 00:00+00', '2024-02-12 23:50+00', '10 minutes') as t;
        insert into vehicle_telemetry_history
            (vehicle_id, ts, kwh_delivered_dc, soc, battery_temp, named_meter_id, named_session_id)
        select d, t, 0.1, 50, 30,
            case when d % 20 = 0 and extract(hour from t) = 7 then d end,
            case when d % 20 = 10 and extract(hour from t) = 7 then d end
        from generate_series(2, 201) as d, generate_series(
            timestamptz '2024-02-05 00:00+00', '2024-02-12 23:50+00', '10 minutes') as t;
        insert into meter_live_status (meter_id, ts, received_at, kwh_consumed_ac, voltage)
        select d, '2024-02-09 12:00+00', now(), 0.1, 230 from generate_series(2, 201) as d;
        insert into vehicle_live_status
            (vehicle_id, ts, received_at, kwh_delivered_dc, soc, battery_temp)
        select d, '2024-02-09 12:00+00', now(), 0.1, 50, 30 from generate_series(2, 201) as d;
        insert into session_names (external_id) select 's' || n from generate_series(1, 201) as n;
        insert into charging_sessions (session_id, vehicle_id, meter_id, started_at, ended_at)
        select d, d, d, '2024-02-09 08:00+00', '2024-02-09 09:00+00'
        from generate_series(2, 201) as d;
        analyze;",
    );
    let parameters = parameters();
    let mut planned = 0;
    for file in std::fs::read_dir("sql/queries").unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if !text.contains("_telemetry_history") || NOT_READ.contains(&name) {
            continue;
        }
        let values = parameters
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no parameters here"));
        let mut sql = text.clone();
        for (n, value) in values.iter().enumerate().rev() {
            sql = sql.replace(&format!("${}", n + 1), value);
        }
        let plan = gateway.sql(&format!("explain (format json) {sql};"));
        let plan: Value = serde_json::from_str(&plan).unwrap();
        assert!(
            plan.to_string().contains("telemetry_history_2024_02"),
            "{name}: {plan:#}"
        );
        let mut found = Vec::new();
        read_whole(&plan, &mut found);
        assert!(found.is_empty(), "{name} reads {found:?} whole: {plan:#}");
        planned += 1;
    }
    assert_eq!(planned, parameters.len());
    gateway.terminate();
}
