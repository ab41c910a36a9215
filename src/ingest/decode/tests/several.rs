//! Readings with several faults, and the limits of the error list.

use super::*;

#[test]
fn every_faulty_field_of_a_reading_is_named() {
    // The second number is impossible, so the slow parser reads that body.
    for number in ["-1", "1e309"] {
        let text = format!(
            r#"{{"voltage":"1","x":1,"kwhConsumedAc":{number},"voltage":2,"energyKind":"a"}}"#
        );
        let (_, outcome) = decode(Stream::Meter, Format::Json, format!("[{text}]")).unwrap();
        let named = outcome.errors.iter();
        let named: Vec<_> = named.map(|e| (e.field.as_deref(), e.code)).collect();
        let expected = [
            (Some("voltage"), Code::WrongType),
            (Some("x"), Code::UnknownField),
            (Some("kwhConsumedAc"), Code::OutOfRange),
            (Some("voltage"), Code::DuplicateField),
            (Some("energyKind"), Code::InvalidValue),
            (Some("meterId"), Code::Missing),
            (Some("timestamp"), Code::Missing),
        ];
        assert_eq!(named, expected, "{text}");
        // It is one reading, counted once, by its first error.
        assert_eq!(outcome.rejected, 1);
        assert_eq!(outcome.rejected_by_code[Code::WrongType.index()], 1);
    }
}

#[test]
fn a_reading_with_a_fault_names_a_foreign_device_too() {
    let body = meter("voltage", "-1");
    let mut decoder = Decoder::new();
    let expected = Expected {
        prefix: Some("X"),
        stream: Stream::Meter,
        format: Format::Json,
        rules: &Rules::new(bounds(), Dialect::default()),
    };
    let decoded = decoder.decode_of(&expected, body.as_bytes(), |_| panic!("it is no reading"));
    let codes: Vec<Code> = decoded.unwrap().errors.iter().map(|e| e.code).collect();
    assert_eq!(codes, [Code::OutOfRange, Code::ForbiddenDevice]);
}

#[test]
fn at_most_16_errors_are_listed_per_reading() {
    for (unknown, impossible) in [(12, "1"), (13, "1"), (5000, "1"), (13, "1e309")] {
        let fields: Vec<String> = (0..unknown)
            .map(|n| format!("\"x{n}\":{impossible}"))
            .collect();
        let reading = format!("{{{}}}", fields.join(","));
        let body = format!("[{reading},{}]", meter("voltage", "-1"));
        let (_, outcome) = decode(Stream::Meter, Format::Json, &body).unwrap();
        // Four fields are absent.
        let expected = (unknown + 4).min(FAULTS_MAX);
        let of_first = outcome.errors.iter().filter(|e| e.index == 0).count();
        assert_eq!(of_first, expected, "{unknown}");
        assert_eq!(outcome.errors_truncated, unknown + 4 > FAULTS_MAX);
        assert_eq!(outcome.errors.len(), expected + 1, "the next has its own");
    }
}

#[test]
fn a_list_that_is_full_within_a_reading_is_truncated() {
    for (readings, truncated) in [(50, false), (51, true)] {
        let wrong = meter("voltage", r#"-1,"x":1"#);
        let body = vec![wrong; readings].join("\n");
        let (_, outcome) = decode(Stream::Meter, Format::Ndjson, &body).unwrap();
        assert_eq!(outcome.errors.len(), ERRORS_MAX);
        assert_eq!(outcome.errors_truncated, truncated);
        assert_eq!(outcome.rejected, readings as u64);
    }
}
