//! History as Parquet, read back with the library's own reader.

use std::io::Read;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Value, json};

use crate::support::{Gateway, NO_ALERTS, meter, vehicle};

const WINDOW: &str = "from=2024-02-09T10:00:00Z&to=2024-02-12T12:00:00Z";

/// The body of an export as bytes.
fn body(gateway: &Gateway, path: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut stream = gateway.open("GET", path, "", "");
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = answer.split_off(head.unwrap() + 4);
    let head = String::from_utf8(answer).unwrap();
    assert!(head.contains(" 200 "), "{head}");
    assert!(
        head.contains("application/vnd.apache.parquet") || path.contains("ndjson"),
        "{head}"
    );
    body
}

fn field(field: &Field) -> Value {
    match field {
        Field::Str(text) => json!(text),
        Field::Double(number) => json!(number),
        Field::TimestampMicros(at) => {
            let at = jiff::Timestamp::from_microsecond(*at).unwrap();
            json!(at.to_string())
        }
        other => panic!("{other:?} is in no schema"),
    }
}

/// The rows of a file in the form of NDJSON, and the number of its row groups.
fn read(file: Vec<u8>) -> (Vec<Value>, usize) {
    let reader = SerializedFileReader::new(bytes::Bytes::from(file)).unwrap();
    let groups = reader.num_row_groups();
    let rows = reader.get_row_iter(None).unwrap().map(|row| {
        let row = row.unwrap();
        let there = row.get_column_iter().filter(|(_, f)| **f != Field::Null);
        let named = there.map(|(name, value)| (name.clone(), field(value)));
        Value::Object(named.collect())
    });
    (rows.collect(), groups)
}

fn same_as_ndjson(gateway: &Gateway, stream: &str) -> (Vec<Value>, usize) {
    let path = |format| format!("/v1/export/{stream}?{WINDOW}&format={format}");
    let text = String::from_utf8(body(gateway, &path("ndjson"))).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let expected: Vec<Value> = lines.collect();
    let (rows, groups) = read(body(gateway, &path("parquet")));
    assert_eq!(rows.len(), expected.len());
    assert!(rows == expected, "the {stream}s' rows differ");
    (rows, groups)
}

#[test]
fn parquet_holds_what_ndjson_holds_in_bounded_groups() {
    let gateway = Gateway::fresh(&NO_ALERTS);
    let at = |second: u32| format!("2024-02-09T11:00:{second:02}.000001Z");
    gateway.send(
        "vehicle",
        &[
            vehicle("ä, \\\"b\\\"", &at(1), 0.1 + 0.2, r#","meterId":"M0""#),
            vehicle("V1", &at(2), 1e-9, r#","sessionId":"later""#),
            vehicle("V1", &at(3), 5.5, r#","energyKind":"register""#),
            vehicle("V1", &at(4), 0.0, ""),
        ],
    );
    let (rows, groups) = same_as_ndjson(&gateway, "vehicle");
    assert_eq!((rows.len(), groups), (4, 1));
    // Devices come in the order of their registration, and those of one batch in the order of their ids' bytes.
    assert_eq!(rows[0]["sessionId"], "later");
    assert_eq!(rows[0]["timestamp"], at(2));
    assert_eq!(rows[3]["vehicleId"], "ä, \"b\"");
    assert_eq!(rows[3]["meterId"], "M0");
    assert_eq!(rows[3]["kwhDeliveredDc"], 0.300_000_000_000_000_04);

    // Two and a half groups, from two meters.
    gateway.send("meter", &[meter("M1", &at(1), 1.0, "register")]);
    gateway.sql(
        "insert into meter_telemetry_history (meter_id, ts, kwh_consumed_ac, voltage)
        select m.id, t, extract(epoch from t)::integer % 1000 / 1000.0, 230
        from meters as m, generate_series(
            timestamptz '2024-02-10 00:00+00', '2024-02-10 17:21:39+00', '1 second') as t
        where m.external_id in ('M0', 'M1');",
    );
    let (rows, groups) = same_as_ndjson(&gateway, "meter");
    assert_eq!((rows.len(), groups), (125_001, 3));

    // A window without readings gives a file without rows.
    let path = "/v1/export/meter?from=2020-01-01&to=2020-01-02&format=parquet";
    assert_eq!(read(body(&gateway, path)), (Vec::new(), 0));
    let (status, answer) = gateway.call("GET", "/v1/export/meter?format=xlsx", "");
    assert_eq!(status, 400, "{answer}");
    gateway.terminate();
}
